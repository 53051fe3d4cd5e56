"""Where words, sentences and paragraphs begin, and what that means for tokens."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers

from norma.text.tokenizer import Tokenizer
from norma.text.words import CHARACTERS, PARAGRAPH, SENTENCE, WORD, flags_of, has_chinese, segmenter, segmenter_name, starts


def shown(text: str) -> str:
    """The text with ¶ before a paragraph, § before another sentence and | before another word."""
    word, sentence, paragraph = (set(places.tolist()) for places in starts(text))
    assert paragraph <= sentence <= word
    return "".join(("¶" if i in paragraph else "§" if i in sentence else "|" if i in word else "") + c for i, c in enumerate(text))


@pytest.fixture(params=["jieba", CHARACTERS])
def division(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """With jieba, and without."""
    caches = (segmenter, segmenter_name)
    if request.param == "jieba":
        pytest.importorskip("jieba")
    else:

        def missing(name: str) -> str:
            raise importlib.metadata.PackageNotFoundError(name)

        for cached in caches:
            cached.cache_clear()
        monkeypatch.setattr(importlib.metadata, "version", missing)
    yield request.param
    monkeypatch.undo()
    if request.param == CHARACTERS:
        for cached in caches:
            cached.cache_clear()


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("", ""),
        ("   ", "¶   "),
        ("One word", "¶One| word"),
        ("Wait...  what? Yes.", "¶Wait|.|.|.| | what|?§ Yes|."),
        ("He said: \"No.\" Then left.", '¶He| said|:| "|No|.|"§ Then| left|.'),
        ("Mr. Doe and J. Roe, e.g. in Fig. 3. It is 3.14 or 1,000.50! Don't.", None),
        ("snake_case x+=1", "¶snake|_|case| x|+|=|1"),
        ("caf\u00e9 cafe\u0301 हिन्दी Ἀχιλλεύς", "¶caf\u00e9| cafe\u0301| हिन्दी| Ἀχιλλεύς"),
        ("\n lead\nline", "¶\n| lead|\n¶line"),
        ("A title\n\nFirst.\nSecond", "¶A| title|\n\n¶First|.|\n|Second"),  # short lines and a blank one: broken for the screen
        ("A title\n\nFirst.\nSecond " + "x" * 100, "¶A| title|\n\n¶First|.|\n¶Second| " + "x" * 100),
        ("end.\r\n\r\nNext", "¶end|.|\r\n\r\n¶Next"),
    ],
)
def test_english(text: str, marked: str | None) -> None:
    if marked is None:
        marked = "¶Mr|.| Doe| and| J|.| Roe|,| e|.|g|.| in| Fig|.| 3|.§ It| is| 3.14| or| 1,000.50|!§ Don't|."
    elif marked.startswith("¶A| title") and "x" not in marked:
        marked = marked.replace("\n|Second", "\n§Second")  # "First." has ended, line break or not
    assert shown(text) == marked


def test_chinese(division: str) -> None:
    assert segmenter_name().startswith(division)
    text = "他说：“好！”然后走了。北京大学的学生Tom来了?真的!\n第二段 English，iPhone12贵。"
    expected = {
        "jieba": "¶他|说|：|“|好|！|”§然后|走|了|。§北京大学|的|学生|Tom|来|了|?§真的|!|\n¶第二段| English|，|iPhone|12|贵|。",
        CHARACTERS: "¶他|说|：|“|好|！|”§然|后|走|了|。§北|京|大|学|的|学|生|Tom|来|了|?§真|的|!|\n¶第|二|段| English|，|iPhone|12|贵|。",
    }
    assert shown(text) == expected[division]
    assert has_chinese(text) and has_chinese("\U00020000") and not has_chinese("Ἀχ かな")


def bits(text: str, pieces: list[str]) -> str:
    """The flags of tokens that are these pieces of the text, as digits."""
    ends = np.cumsum([len(piece) for piece in pieces])
    assert "".join(pieces) == text
    return "".join(map(str, flags_of(text, ends).tolist()))


def test_flags_by_hand() -> None:
    assert WORD | SENTENCE | PARAGRAPH == 7
    assert bits("The cat sat. It purred.\nNew", ["The", " ca", "t", " sat", ".", " It", " pur", "red", ".", "\n", "New"]) == "71011310117"
    # A space by itself is the begin of the word after it; a token may hold the end of a sentence and the begin of the next.
    assert bits("The cat sat. It pur", ["The", " cat", " ", "sat. I", "t", " pur"]) == "711301"
    # Tokens that share a character (bytes of it), and tokens of none.
    assert flags_of("é a", np.array([1, 1, 2, 3])).tolist() == [7, 0, 1, 0]
    assert flags_of("ab c", np.array([0, 2, 2, 4])).tolist() == [7, 0, 0, 1]
    assert flags_of("", np.array([], dtype=np.int64)).tolist() == []


def test_a_vocabulary_that_drops_spaces() -> None:
    backend = Backend(models.WordPiece({"[UNK]": 0, "the": 1, "cat": 2, "##s": 3, ".": 4, "!": 5, "sat": 6}, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    text = "The  cats sat. Cats!"
    encoding = backend.encode(text)
    assert encoding.tokens == ["the", "cat", "##s", "sat", ".", "cat", "##s", "!"]
    assert flags_of(text, np.array(encoding.offsets)[:, 1]).tolist() == [7, 1, 0, 1, 1, 3, 0, 1]


PARTS = ["the", "Cat", " ", "  ", "\n", "\n\n", ".", "! ", "“", "好", "北京大学", " 大学", "é", "。", "'s", "3.1", "_", "\t"]
TEXTS = st.lists(st.sampled_from(PARTS)).map("".join)


@given(st.one_of(TEXTS, st.text(max_size=60)), st.data())
@settings(max_examples=120, deadline=None)
def test_flags_of_any_tokens(text: str, data: st.DataObject) -> None:
    cuts = sorted({*data.draw(st.lists(st.integers(1, max(1, len(text))), max_size=20)), len(text)} - {0})
    flags = flags_of(text, np.array([c for c in cuts if c <= len(text)], dtype=np.int64))
    places = starts(text)
    begin = 0
    for flag, end in zip(flags.tolist(), [c for c in cuts if c <= len(text)], strict=True):
        for bit, where in zip((WORD, SENTENCE, PARAGRAPH), places, strict=True):
            assert bool(flag & bit) == any(begin <= place < end for place in where.tolist())
        begin = end
    for where in places:
        assert np.array_equal(where, np.unique(where)) and (len(where) == 0) == (text == "") and (not len(where) or where[0] == 0)
    assert set(places[2].tolist()) <= set(places[1].tolist()) <= set(places[0].tolist())


def test_byte_level_tokens(tiny_tokenizer: Tokenizer) -> None:
    text = "Certainly: 好. `math` 您"
    encoding = tiny_tokenizer.backend.encode(text, add_special_tokens=False)
    flags = flags_of(text, np.array(encoding.offsets)[:, 1])
    # Put together from one WORD to the next, the tokens are the words.
    groups = np.split(np.array(encoding.ids), np.flatnonzero(flags & WORD)[1:])
    assert len(encoding) > len(groups)
    assert [tiny_tokenizer.decode(group) for group in groups] == ["Certainly", ":", " 好", ".", " `", "math", "`", " 您"]


@pytest.mark.parametrize("bad", [".", " ", "\n", "a'", "1,", "(", "!'", "。", "\n ", ". ", " \n", "中"])
def test_no_text_takes_long(bad: str) -> None:
    """A pattern that looks again at what it has seen would take hours for a million signs."""
    starts("中")  # loads the dictionary
    began = monotonic()
    starts(bad * (20_000 if bad == "中" else 200_000))
    assert monotonic() - began < 8


def test_the_dictionary_is_not_read_from_a_common_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jieba = pytest.importorskip("jieba")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "jieba.cache").write_bytes(b"planted by somebody else")
    monkeypatch.setattr(jieba.marshal, "load", lambda file: pytest.fail("read a cached dictionary"))
    segmenter.cache_clear()
    assert list(segmenter()("北京大学")) == ["北京大学"]
    assert [path.name for path in tmp_path.iterdir()] == ["jieba.cache"]
