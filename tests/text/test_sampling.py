"""Text for a tokenizer: all of a small corpus, an even part of a large one, and no more words than memory holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from norma.text import sampling
from norma.text.sampling import read_texts, sample_texts


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
    return path


def test_a_small_corpus_is_read_as_it_is(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b c"}]}]
    more = tmp_path / "qa.jsonl"
    more.write_text(json.dumps(rows[0]) + "\n")
    files = [write(tmp_path / "text.jsonl", ["one", "two"]), more]
    assert list(sample_texts(files)) == list(read_texts(files)) == ["one", "two", "a\nb c"]


def test_a_large_one_in_an_order_that_spreads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"word{number:03}" for number in range(100)]
    path = write(tmp_path / "text.jsonl", texts)
    monkeypatch.setattr(sampling, "SLICE", path.stat().st_size / 4)
    found = list(sample_texts([path]))
    assert found[:25] == texts[3::4] and found[25:50] == texts[::4] and sorted(found) == texts


def test_it_ends_when_the_words_are_many(tmp_path: Path) -> None:
    """Words count once and in bytes: 7 of "word" and a number, 9 of three Chinese characters."""
    same = write(tmp_path / "same.jsonl", ["word001 word001"] * 50)
    assert len(list(sample_texts([same], most=7))) == 50
    new = write(tmp_path / "new.jsonl", [f"word{number:03} word000" for number in range(50)])
    assert len(list(sample_texts([new], most=70))) == 10
    chinese = write(tmp_path / "chinese.jsonl", [f"{first}学习，词语" for first in "一二三四五六七八九"])
    assert len(list(sample_texts([chinese], most=6 + 9 * 4))) == 4


LEARN = """
import resource, sys
from pathlib import Path
from norma.text.sampling import sample_texts
from norma.text.tokenizer import train_tokenizer
train_tokenizer(sample_texts([Path(sys.argv[1])], most=500_000), 1000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """4 and 40 MB of clauses that never come twice, which took 10 times the memory when all of them were learnt from."""
    peaks = []
    for size in (4_000_000, 40_000_000):
        path = tmp_path / f"{size}.jsonl"
        with path.open("w", encoding="utf-8") as handle:
            for document in range(size // 4000):
                places = (document * 100_003 + clause * 7919 for clause in range(100))
                clauses = "，".join("".join(chr(0x4E00 + (place * step) % 4001) for step in range(1, 14)) for place in places)
                handle.write(json.dumps({"text": clauses}, ensure_ascii=False) + "\n")
        done = subprocess.run([sys.executable, "-c", LEARN, str(path)], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) / 1000)
    assert peaks[1] < peaks[0] + 60, peaks  # megabytes
