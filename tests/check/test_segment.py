"""Words, characters and sentences of tricky English and Chinese texts; every number was set by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norma.check.segment import sentences, units, visible

SENTENCES = [
    ("One sentence.", 1),
    ("No stop at all", 1),
    ("One. Two.", 2),
    ("It works! Does it? Yes.", 3),
    ("Returns the sum, e.g. of two numbers, i.e. their total.", 1),
    ("Like map(), etc. and filter().", 1),
    ("Reads txt, csv, etc. Then it stops.", 2),
    ("Use `json.dumps` or json.loads for files such as setup.py and a.tar.gz.", 1),
    ("Pi is about 3.14 and e is 2.71.", 1),
    ("Needs Python 3.11. Older versions fail.", 2),
    ("See Fig. 3 and eq. (4) of Donald E. Knuth.", 1),
    ("Follows J. R. R. Tolkien and Dr. Watson.", 1),
    ("Inverts the matrix A. The result is new.", 2),
    ("The lower-case trick. it is seen. so is this.", 3),
    ('Matches `!` and `?` and "." as they are.', 1),
    ("Takes (a, b, ...) and [x, ...] alike.", 1),
    ("Counts 1, 2, ... up to n.", 1),
    ("It stops... Then it goes on.", 2),
    ('He said "stop." Then he left.', 2),
    ("Really?! Yes.", 2),
    ("Spaced stops . Like this .", 2),
    ("A wrapped line\nthat goes on.", 1),
    ("First line\nSecond line", 2),
    ("A title\n\nand a paragraph.", 2),
    ("Steps:\n- one\n- two", 3),
    ("1. Only one item of a list.", 1),
    ("Certainly: `x` adds.", 1),
    ("Certainly! `x` adds.", 2),
    ("a != b and a! = b", 2),
    ("您好：它把对象写成文本。", 1),
    ("您好。它把对象写成文本。", 2),
    ("你好！它是什么？它是函数。", 3),
    ("他说：“好。”然后走了。", 2),
    ("版本3.11以后可用", 1),
    ("使用 json.dumps 函数，见 setup.py。", 1),
    ("它很快；也很小，并且稳定。", 1),
    ("该函数返回总和.然后结束。", 2),
    ("您好：Returns the sum of two numbers.", 1),
    ("", 0),
    ("...", 0),
    ("。", 0),
]


@pytest.mark.parametrize(("text", "count"), SENTENCES)
def test_sentences(text: str, count: int) -> None:
    assert len(sentences(text)) == count, [text[a:b] for a, b in sentences(text)]


def test_sentence_spans_are_the_sentences() -> None:
    text = "  One, e.g. this.  Two!\n您好。再见"
    assert [text[a:b] for a, b in sentences(text)] == ["One, e.g. this.", "Two!", "您好。", "再见"]


WORDS = [
    ("请回答问题时保持礼貌，谢谢你", 0, 13),
    ("Don't use state-of-the-art json.dumps.", 4, 0),
    ("a-b-c-d-e", 2, 0),  # five joined parts are two words: joining gains nothing
    ("x=1, y=2", 4, 0),
    ("您好：Return the sum。", 3, 2),
    ("版本3.11", 1, 2),
    ("— … ！", 0, 0),
    ("naïve café Straße", 3, 0),
]


@pytest.mark.parametrize(("text", "words", "characters"), WORDS)
def test_units(text: str, words: int, characters: int) -> None:
    found = units(text)
    assert sum(u.weight for u in found if not u.han) == words
    assert sum(u.weight for u in found if u.han) == characters
    assert all(text[u.start : u.end] == u.text for u in found)


@pytest.mark.parametrize(
    ("response", "shown"),
    [
        ("plain", "plain"),
        ("<think>plan</think>\n\nplain", "plain"),
        (" \n<think>\na\nb</think>plain", "plain"),
        ("<think>never closed. An answer.", ""),
        ("Use <think> as it is.", "Use <think> as it is."),
    ],
)
def test_visible(response: str, shown: str) -> None:
    text, offset = visible(response)
    assert text == shown and response[offset:] == shown


@given(st.text(alphabet=st.sampled_from("aB1 .!?…。！？\n`\"'()，：,-好e.g"), max_size=60))
def test_sentences_are_ordered_parts_of_the_text(text: str) -> None:
    end = 0
    for start, stop in sentences(text):
        assert end <= start < stop <= len(text) and any(c.isalnum() for c in text[start:stop])
        end = stop
    # Nothing that is said lies outside all sentences.
    covered = {i for start, stop in sentences(text) for i in range(start, stop)}
    assert all(i in covered for i, c in enumerate(text) if c.isalnum())
