"""`norma data check`: what a file is, in words, and which of its text is trained. Real files of many origins are recognised."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from norma.base.errors import NormaError
from norma.text.inspect import as_trained, describe
from norma.text.quarantine import Quarantine
from norma.text.readers import read
from norma.text.shapes import shaped
from norma.text.tokenizer import Tokenizer

REAL = {
    "alpaca/alpaca_zh.jsonl.gz": ("JSON lines", "Alpaca instructions", 17_468, "zh"),
    "chat_prefs/dpo_zh_demo.json.gz": ("JSON", "ShareGPT conversations, preference pairs", 300, "zh"),
    "chat_prefs/kto_en_demo.json.gz": ("JSON", "OpenAI messages, marked good or bad", 300, "en"),
    "chat_prefs/oaast_rm_zh.json.gz": ("JSON", "Alpaca instructions, preference pairs", 772, "zh"),
    "chat_prefs/oaast_sft_zh.json.gz": ("JSON", "Alpaca instructions", 689, "zh"),
    "hh_rlhf_test/helpful.json.gz": ("JSON", "scored pairs of dialogues, preference pairs", 2_348, "en"),
    "gsm8k/test.jsonl.gz": ("JSON lines", "questions and answers", 1_319, "en"),
    "text/tinyshakespeare.txt.gz": ("text", "plain text", 499, "en"),
    "multi30k/val.en.gz": ("text (en)", "plain text", 16, "en"),
    "sst2/test.tsv.gz": ("TSV", "plain text", 1_821, "en"),
    "chnsenticorp/dev.tsv.gz": ("TSV", "plain text", 1_200, "zh"),
    "ag_news/test.csv.gz": ("CSV", "plain text", 1_000, "en"),
    "cold_zh/test.csv.gz": ("CSV", "plain text", 5_323, "zh"),
    "politeness_multilingual/chinese_val.csv.gz": ("CSV", "plain text", 570, "zh"),
    "politeness_stanford/wikipedia.csv.gz": ("CSV", "plain text", 4_353, "en"),
    "politeness_stanford/stack-exchange.csv.gz": ("CSV", "a table", 6_603, "en"),
    "paradetox/paradetox.tsv.gz": ("TSV", "a table", 11_921, "en"),
    "csl_title/dev.tsv.gz": ("TSV", "a table", 1_000, "zh"),
    "cmrc2018/trial.json.gz": ("JSON", "a table", 256, "zh"),
    "xquad/en.json.gz": ("JSON", "a table", 48, "en"),
    "ifeval/input_data.jsonl.gz": ("JSON lines", "a table", 541, "en"),
    "aeslc/test.jsonl.gz": ("JSON lines", "plain text", 1_906, "en"),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(real_data: Path, name: str) -> None:
    kind, shape, count, language = REAL[name]
    found = describe(real_data / name)
    assert (found.formats, found.compression, found.shapes) == ({kind: 1}, "gzip", {shape: count})
    assert max(found.languages, key=lambda k: found.languages[k]) == language and len(found.samples) == 3


def test_what_is_trained(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({"prompt": "Why?", "chosen": "Because.", "rejected": "No."}) + "\n")
    found = describe(tmp_path / "x.jsonl")
    assert found.samples[0].segments == [("user: ", False), ("Why?\n", False), ("assistant: ", False), ("Because.\n", True)]
    assert found.samples[0].note == "preferred to: No." and found.samples[0].where == "x.jsonl:1"


class Letters:
    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return [ord(c) for c in text]


def test_tokens_are_counted_when_a_tokenizer_is_given(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("hello")
    sample = describe(tmp_path / "x.txt", Letters()).samples[0]
    assert (sample.tokens, sample.trained_tokens) == (5, 5)


def test_warnings_and_counts(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a fine film indeed,1\ncaf\xe9 noir is fine,0\na fine film indeed,1\na fine film indeed,1\n")
    found = describe(tmp_path)
    assert found.quarantined == 1 and found.encoding == "UTF-8, with parts that are not"
    assert any("no header" in w for w in found.warnings) and any("copies" in w for w in found.warnings)
    (tmp_path / "b.py").write_text('def f():\n    """What this function is for."""\n')
    (tmp_path / "c.txt").write_bytes(b"\xef\xbb\xbfhello")
    both = describe(tmp_path)
    assert (
        both.formats == {"CSV": 1, "Python": 1, "text": 1} and both.docstrings == 1 and both.encoding.endswith("byte order mark") is False
    )


def test_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("{\n")
    with pytest.raises(NormaError, match="not JSON"):
        describe(tmp_path / "x.jsonl")


TURNS = [
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "Because."},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "No.", "train": False},
    {"role": "assistant", "content": "Yes."},
]


def test_turns_are_shown_as_they_are_trained(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({"messages": TURNS}) + "\n")
    plain, last = (describe(tmp_path / "x.jsonl", trained=t).samples[0].segments for t in ("answers", "last"))  # type: ignore[arg-type]
    assert [text for text, on in plain if on] == ["Because.\n", "Yes.\n"] and [text for text, on in last if on] == ["Yes.\n"]
    sample = describe(tmp_path / "x.jsonl", tiny_tokenizer).samples[0]  # through its chat template
    assert [text for text, on in sample.segments if on] == ["Because.<|end|>", "Yes.<|end|>"]
    assert "".join(text for text, _ in sample.segments).startswith("<|bos|><|user|>Why?<|end|><|assistant|>Because.<|end|>")
    assert sample.trained_tokens == sum(len(tiny_tokenizer.encode(text)) + 1 for text in ("Because.", "Yes."))


def test_of_a_pair_only_the_answer_is_shown_as_trained(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    row = {"prompt": TURNS[:3], "chosen": [TURNS[4]], "rejected": [{"role": "assistant", "content": "Hm."}]}
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n")
    for tokenizer in (None, tiny_tokenizer):
        segments = describe(tmp_path / "x.jsonl", tokenizer).samples[0].segments
        assert [text.strip().removesuffix("<|end|>") for text, on in segments if on] == ["Yes."]


def test_real_conversations_of_several_turns(real_data: Path) -> None:
    """Counted once by hand in the file: 299 conversations of one answer, 331 of two, 59 of three; each answer is trained."""
    records = read(real_data / "chat_prefs/oaast_sft_zh.json.gz", Quarantine())
    learnt = [sum(on for _, on in as_trained(row)[0]) for _, row in shaped(records, Quarantine())]
    assert Counter(learnt) == {1: 299, 2: 331, 3: 59}
