"""Tokenising on all cores: the shards do not depend on how many, nothing is lost, and a failure is one line."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from norma.base.errors import NormaError
from norma.base.hashing import file_digest
from norma.base.progress import Silent
from norma.text import tokenise as module
from norma.text.shards import Shards
from norma.text.tokenise import CHUNK, chunks, cut, encode, tokenise, tokenizer_digest
from norma.text.tokenizer import Tokenizer
from norma.text.words import PARAGRAPH, SENTENCE, SPECIAL, WORD

TEXTS = ["The cat sat. It purred.", "", "<|end|> is text here.", "您好！`time.sleep` 等待。\n第二段。", "a\n\nb"] * 3


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[tuple[int, int]] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def update(self, step: int, total: int, **numbers: float) -> None:
        assert numbers["tokens_per_s"] > 0
        self.steps.append((step, total))


def one_by_one(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [[tokenizer.bos_id or 0, *tokenizer.encode(text), tokenizer.eos_id or 0] for text in texts]


def documents_of(shards: Shards) -> list[list[int]]:
    return [shards.document(i)[0].tolist() for i in range(len(shards))]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    """Chunks of 40 characters, so that a few texts make many; in the workers documents are still cut at ``CHUNK``."""
    monkeypatch.setattr(module, "CHUNK", 40)
    return 40


def test_tokens_and_flags_by_hand(tiny_tokenizer: Tokenizer) -> None:
    texts = ["It sat. Go", "x"]
    encoded = encode(texts, tiny_tokenizer)
    assert encoded.tokens.tolist() == [t for d in one_by_one(tiny_tokenizer, texts) for t in d]
    assert encoded.lengths.tolist() == [len(d) for d in one_by_one(tiny_tokenizer, texts)] and encoded.lengths.sum() == len(encoded.flags)
    first = list(zip([tiny_tokenizer.decode([t], skip_special=False) for t in encoded.tokens], encoded.flags.tolist(), strict=True))
    marked = [(piece, flag) for piece, flag in first if flag]
    outside, all_three = SPECIAL | WORD, WORD | SENTENCE | PARAGRAPH
    assert [flag for _, flag in marked] == [outside, all_three, WORD, WORD, WORD | SENTENCE, outside, outside, all_three, outside]
    assert marked[0][0] == "<|bos|>" and marked[5][0] == "<|end|>" and marked[1][0][0] == "I" and marked[4][0].startswith(" ")
    plain = encode(texts, tiny_tokenizer, marks=False)
    assert np.array_equal(plain.tokens, encoded.tokens) and sorted(set(plain.flags.tolist())) == [0, outside]
    assert np.array_equal(plain.flags > 0, encoded.flags & SPECIAL > 0)
    assert len(encode([], tiny_tokenizer).tokens) == 0


def test_a_tokenizer_without_special_tokens() -> None:
    backend = Backend(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    encoded = encode(["a b", "", "c"], Tokenizer(backend, {}))
    assert encoded.tokens.tolist() == [1, 2, 0] and encoded.lengths.tolist() == [2, 0, 1] and encoded.flags.tolist() == [7, 1, 7]


def test_shards_hold_what_the_tokenizer_says(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    said = Said()
    shards = tokenise(TEXTS, tiny_tokenizer, tmp_path / "s", workers=1, total=15, progress=said)
    assert documents_of(shards) == one_by_one(tiny_tokenizer, TEXTS)
    assert shards.bytes == sum(len(text.encode()) for text in TEXTS) and len(shards) == 15 and said.steps == [(15, 15)]
    tiny_tokenizer.save(tmp_path / "t")
    assert shards.made.tokenizer == tokenizer_digest(tiny_tokenizer) == file_digest(tmp_path / "t" / "tokenizer.json")
    assert shards.made.vocab_size == len(tiny_tokenizer) and shards.made.pad == tiny_tokenizer.pad_id and shards.made.marks
    tiny_tokenizer.encode("<|end|>", special=True)
    assert tokenizer_digest(tiny_tokenizer) == shards.made.tokenizer, "it does not depend on the last call"


@pytest.mark.parametrize("marks", [True, False])
def test_the_number_of_workers_changes_no_byte(tmp_path: Path, tiny_tokenizer: Tokenizer, small_chunks: int, marks: bool) -> None:
    texts = [f"{text} {i}" for i, text in enumerate(TEXTS * 4)]
    made = {}
    for workers in (1, 2, 3):
        tokenise(iter(texts), tiny_tokenizer, tmp_path / str(workers), workers=workers, marks=marks, shard_tokens=300)
        made[workers] = files(tmp_path / str(workers))
    assert made[1] == made[2] == made[3] and len(made[1]) > 7, "more than two shards"
    assert documents_of(Shards(tmp_path / "3")) == one_by_one(tiny_tokenizer, texts)


def test_few_chunks_are_under_way(tmp_path: Path, tiny_tokenizer: Tokenizer, small_chunks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader is never more than four chunks (two workers, two each) and the first look ahead of the writer."""
    read, ahead, add = 0, [], module.ShardWriter.add

    def source() -> Iterator[str]:
        nonlocal read
        for _ in range(40):
            read += 1
            yield "forty characters, which make a chunk each"

    def counted(self: module.ShardWriter, *arrays: object) -> None:
        ahead.append(read - self.documents)
        add(self, *arrays)  # type: ignore[arg-type]

    monkeypatch.setattr(module.ShardWriter, "add", counted)
    assert len(tokenise(source(), tiny_tokenizer, tmp_path / "s", workers=2)) == 40
    assert len(ahead) == 40 and max(ahead) <= 5


@given(st.lists(st.text(max_size=30), max_size=30))
@settings(max_examples=60, deadline=None)
def test_chunks_are_the_documents_in_order(texts: list[str]) -> None:
    before, module.CHUNK = module.CHUNK, 25
    try:
        made = list(chunks(iter(texts)))
    finally:
        module.CHUNK = before
    assert [text.decode() for chunk in made for text in chunk] == texts
    sizes = [sum(len(text.decode()) for text in chunk) for chunk in made]
    assert all(25 <= size < 55 for size in sizes[:-1]) and all(made)


@given(st.lists(st.sampled_from(["a", "bb ", "\n", "好", "c" * 9])).map("".join))
@settings(max_examples=100, deadline=None)
def test_long_documents_are_cut_at_lines(text: str) -> None:
    before, module.CHUNK = module.CHUNK, 8
    try:
        pieces = cut(text)
    finally:
        module.CHUNK = before
    assert "".join(pieces) == text and all(0 < len(piece) <= 8 for piece in pieces[:-1]) and len(pieces[-1]) <= 8
    for piece in pieces[:-1]:
        assert piece[-1] == "\n" or ("\n" not in piece and (piece[-1] == " " or (" " not in piece and len(piece) == 8)))


def test_a_document_of_many_pieces_is_one_document(tiny_tokenizer: Tokenizer) -> None:
    line = "It writes an object as JSON text.\n"
    text = line * (2 * CHUNK // len(line) + 5)
    encoded = encode([text, "b"], tiny_tokenizer, marks=False)
    assert encoded.lengths.tolist() == [2 + len(tiny_tokenizer.encode(text)), 3], "cut at lines, the tokens are those of the whole"
    assert tiny_tokenizer.decode(encoded.tokens[: encoded.lengths[0]].tolist()) == text


def test_what_is_refused(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    with pytest.raises(NormaError, match="there are no documents to tokenise"):
        tokenise([], tiny_tokenizer, tmp_path / "s")
    with pytest.raises(NormaError, match=r"document 1 holds half a character \(a lone surrogate\)"):
        tokenise(["fine", "\ud83d"], tiny_tokenizer, tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_a_missing_segmenter_is_told_once(tmp_path: Path, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "segmenter_name", lambda: "characters")
    for texts, count in ((["no such text", "here"], 0), (["one", "您好", "您"], 1)):
        said = Said()
        assert tokenise(texts, tiny_tokenizer, tmp_path / "s", progress=said).made.segmenter == "characters"
        assert len(said.lines) == count and all("jieba is not installed" in line for line in said.lines)
    said = Said()
    assert tokenise(["您好"], tiny_tokenizer, tmp_path / "s", marks=False, progress=said).made.segmenter == "" and not said.lines


def children() -> list[psutil.Process]:
    return [c for c in psutil.Process().children() if "norma.text.tokenise" in c.cmdline()]


def test_a_killed_worker_is_one_line(tmp_path: Path, tiny_tokenizer: Tokenizer, small_chunks: int) -> None:
    def source() -> Iterator[str]:
        for number in range(1000):
            if number == 20:
                children()[0].kill()
            yield "forty characters, which make a chunk each"

    with pytest.raises(NormaError, match=r"a process that tokenises was killed by signal 9\. If memory was short, take fewer") as caught:
        tokenise(source(), tiny_tokenizer, tmp_path / "s", workers=2)
    assert "\n" not in str(caught.value) and not children() and not list(tmp_path.iterdir())


def test_a_failing_worker_says_why(tmp_path: Path, tiny_tokenizer: Tokenizer, small_chunks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tokenizers.py").write_text("raise ImportError('wrong ELF class')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    with pytest.raises(NormaError, match=r"stopped with exit code 1 \(ImportError: wrong ELF class\)\. Try it with one worker"):
        tokenise(["forty characters, which make a chunk each"] * 9, tiny_tokenizer, tmp_path / "s", workers=2)
    assert not children() and [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_an_error_of_the_reader_ends_the_workers(tmp_path: Path, tiny_tokenizer: Tokenizer, small_chunks: int) -> None:
    def source() -> Iterator[str]:
        yield from ["forty characters, which make a chunk each"] * 9
        raise NormaError("the file is cut off")

    with pytest.raises(NormaError, match="the file is cut off"):
        tokenise(source(), tiny_tokenizer, tmp_path / "s", workers=2)
    assert not children() and not list(tmp_path.iterdir())


def test_killed_and_run_again(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    """kill -9 of the parent: no shards, no worker left behind, and the second run makes what one run makes. No ``__main__`` guard."""
    tiny_tokenizer.save(tmp_path / "t")
    (tmp_path / "job.py").write_text(
        textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from norma.text import tokenise as module
        from norma.text.tokenizer import Tokenizer
        module.CHUNK = 40
        def source():
            for number in range(60):
                print(number, flush=True)
                time.sleep(float(sys.argv[2]))
                yield f"forty characters, which make a chunk each {number}"
        module.tokenise(source(), Tokenizer.load(Path(sys.argv[1]) / "t"), Path(sys.argv[1]) / "s", workers=2)
    """)
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tmp_path / "job.py"), str(tmp_path)]
    with subprocess.Popen([*command, "0.1"], stdout=subprocess.PIPE, env=environment, text=True) as job:
        assert job.stdout
        while int(job.stdout.readline()) < 20:
            pass
        workers = psutil.Process(job.pid).children()
        job.send_signal(signal.SIGKILL)
    assert len(workers) == 2 and not (tmp_path / "s").exists() and (tmp_path / ".s.partial").exists()
    until = time.monotonic() + 20
    while any(w.is_running() and w.status() != psutil.STATUS_ZOMBIE for w in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(w.is_running() and w.status() != psutil.STATUS_ZOMBIE for w in workers)
    subprocess.run([*command, "0"], check=True, env=environment, stdout=subprocess.DEVNULL)
    assert not (tmp_path / ".s.partial").exists()
    texts = [f"forty characters, which make a chunk each {number}" for number in range(60)]
    tokenise(texts, tiny_tokenizer, tmp_path / "once", workers=1)
    assert files(tmp_path / "once") == files(tmp_path / "s")


def test_real_text_comes_back(tmp_path: Path, tiny_tokenizer: Tokenizer, real_data: Path) -> None:
    texts = []
    for name in ("enwiki", "zhwiki"):
        path = real_data / "text" / f"{name}.jsonl.gz"
        if not path.is_file():
            pytest.skip(f"no {path}")
        with gzip.open(path, "rt", encoding="utf-8") as handle:
            texts += [json.loads(line)["text"][:20_000] for line, _ in zip(handle, range(15), strict=False)]
    shards = tokenise(texts, tiny_tokenizer, tmp_path / "s", workers=1)
    normal = [tiny_tokenizer.backend.normalizer.normalize_str(text) for text in texts]
    for i, text in enumerate(normal):
        tokens, flags = shards.document(i)
        assert tiny_tokenizer.decode(tokens.tolist()) == text
        words, sentences, paragraphs = (int((flags & bit > 0).sum()) for bit in (WORD, SENTENCE, PARAGRAPH))
        assert words > sentences >= paragraphs >= 1


GROWS = """
import sys
from pathlib import Path
from norma.text.tokenise import tokenise
from norma.text.tokenizer import Tokenizer
def source():
    for document in range(int(sys.argv[2])):  # 6 kB each, and no two alike
        yield "".join(f"Line {document * 7919 % 10007} of {i}: a word, {document}. 第{i}行\\n" for i in range(160))
tokenise(source(), Tokenizer.load(Path(sys.argv[1]) / "t"), Path(sys.argv[1]) / sys.argv[2], workers=2, marks=False)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    """6 and 60 MB: the most that parent and workers hold together, pages that they share counted once."""
    tiny_tokenizer.save(tmp_path / "t")
    peaks = []
    for documents in (1000, 10_000):
        job = psutil.Popen([sys.executable, "-c", GROWS, str(tmp_path), str(documents)])
        peak = 0
        while job.poll() is None:
            with suppress(psutil.Error):
                peak = max(peak, sum(p.memory_full_info().pss for p in [job, *job.children()]))
            time.sleep(0.05)
        assert job.returncode == 0
        peaks.append(peak / 1e6)
    assert peaks[1] < peaks[0] + 40, peaks  # megabytes
