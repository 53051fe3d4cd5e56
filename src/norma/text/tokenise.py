"""Documents to token shards, on all cores, in the memory of a few chunks.

    documents ─→ chunks of half a million characters ─┬→ worker 0 ─┐
                                                      ├→ worker 1 ─┤ in the order they were sent ─→ ShardWriter
                                                      └→ ...      ─┘

A chunk goes to whichever worker is free and is written in its turn, so the files are the same for any number of
workers; at most two chunks a worker are under way. Workers are processes, since the tokenizers library's own threads
would not help to find words, which is done in Python. ``python -m norma.text.tokenise`` is the worker. It reads chunks
from standard input until that ends, so none outlives a parent that was killed; unlike ``multiprocessing`` it needs
nothing from the caller's ``__main__``.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from queue import SimpleQueue
from typing import IO

import numpy as np
import numpy.typing as npt
import tokenizers

import norma
from norma.base.errors import NormaError
from norma.base.platform import cores
from norma.base.progress import Progress, Silent
from norma.text.shards import SHARD_TOKENS, Made, Shards, ShardWriter
from norma.text.tokenizer import Tokenizer
from norma.text.words import CHARACTERS, SPECIAL, WORD, flags_of, has_chinese, segmenter_name

CHUNK = 1 << 19  # characters of text that a worker gets at a time
AHEAD = 2  # chunks under way for each worker: one in work, one waiting

Chunk = list[bytes]  # documents in UTF-8


@dataclass(frozen=True)
class Encoded:
    """Documents end to end: ``tokens`` (N,) uint32, ``flags`` (N,) uint8, ``lengths`` (documents,) int64."""

    tokens: npt.NDArray[np.uint32]
    flags: npt.NDArray[np.uint8]
    lengths: npt.NDArray[np.int64]


def encode(documents: Sequence[str], tokenizer: Tokenizer, *, marks: bool = True) -> Encoded:
    """Tokens of documents, each between BOS and EOS where the tokenizer has them. A pure function: Ray can run it too.

    ``marks`` finds the words, sentences and paragraphs; without it only SPECIAL is set (with WORD: each is a word of its own).
    A document of more than ``CHUNK`` characters is encoded in pieces that end with a line, which bounds the memory.
    """
    head, tail = ([] if token is None else [token] for token in (tokenizer.bos_id, tokenizer.eos_id))
    pieces = [cut(document) for document in documents]
    flat = list(chain.from_iterable(pieces))
    tokenizer.backend.encode_special_tokens = True  # what looks like a special token in the text stays text
    # The fast call leaves the offsets out, which only the marks need.
    run = tokenizer.backend.encode_batch if marks else tokenizer.backend.encode_batch_fast
    encodings: Iterator[tuple[str, tokenizers.Encoding]] = zip(flat, run(flat, add_special_tokens=False), strict=True)
    ids: list[int] = []
    lengths: list[int] = []
    flags: list[npt.NDArray[np.uint8]] = []
    special = [np.full(len(token), SPECIAL | WORD, dtype=np.uint8) for token in (head, tail)]
    for texts in pieces:
        before = len(ids)
        ids += head
        flags.append(special[0])
        for text, encoding in islice(encodings, len(texts)):
            ids += encoding.ids
            if marks:
                offsets = np.fromiter(chain.from_iterable(encoding.offsets), np.int64, 2 * len(encoding))
                flags.append(flags_of(text, offsets[1::2]))
            else:
                flags.append(np.zeros(len(encoding), dtype=np.uint8))
        ids += tail
        flags.append(special[1])
        lengths.append(len(ids) - before)
    joined = np.concatenate(flags) if flags else np.empty(0, dtype=np.uint8)
    return Encoded(np.array(ids, dtype=np.uint32), joined, np.array(lengths, dtype=np.int64))


def cut(text: str) -> list[str]:
    """Pieces of at most ``CHUNK`` characters that are ``text`` when joined; each but the last ends with a line or a space if it can."""
    pieces: list[str] = []
    start = 0
    while len(text) - start > CHUNK:
        end = start + CHUNK
        line, space = (text.rfind(mark, start, end) + 1 for mark in "\n ")
        end = line if line > start else space if space > start else end
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def tokenise(
    documents: Iterable[str],
    tokenizer: Tokenizer,
    folder: Path,
    *,
    workers: int | None = None,
    marks: bool = True,
    shard_tokens: int = SHARD_TOKENS,
    total: int = 0,
    progress: Progress | None = None,
    encoded: Iterator[tuple[Encoded, int]] | None = None,
) -> Shards:
    """Tokenise ``documents`` (streamed once) into the shards of ``folder``, which appears when all is done.

    Args:
        workers: processes; None is one for each core. The shards do not depend on it.
        marks: whether flags say where words, sentences and paragraphs begin. Costs time, for Chinese the most.
        total: how many documents there are, for the progress bar, where it is known.
        encoded: the tokens, where others have made them from the documents (see ``norma.text.cluster``).

    Raises NormaError when there is no document, one cannot be UTF-8, the disk is full, or a worker was killed.
    """
    progress, workers = progress or Silent(), workers or cores()
    segmenter = segmenter_name() if marks else ""
    size = 1 + max(tokenizer.backend.get_vocab(with_added_tokens=True).values())
    made = Made(tokenizer_digest(tokenizer), size, tokenizer.pad_id, marks, segmenter)
    if segmenter == CHARACTERS and encoded is None:
        documents = _warning(documents, progress)
    began = time.monotonic()
    encodings = _in_order(chunks(documents), tokenizer, marks, workers) if encoded is None else encoded
    with ShardWriter(folder, made, shard_tokens=shard_tokens) as writer, ExitStack() as stack:
        if isinstance(encodings, Generator):
            stack.enter_context(closing(encodings))
        for part, text_bytes in encodings:
            writer.add(part.tokens, part.flags, part.lengths, text_bytes)
            speed = writer.tokens / max(time.monotonic() - began, 1e-9)
            progress.update(writer.documents, max(total, writer.documents), tokens_per_s=speed)
        if not writer.documents:
            raise NormaError("there are no documents to tokenise", where=folder, mend="Check the corpus stage's counts")
    return Shards(folder)


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """SHA-256 of the ``tokenizer.json`` that ``tokenizer.save`` writes."""
    tokenizer.backend.encode_special_tokens = False
    return hashlib.sha256(tokenizer.backend.to_str(pretty=False).encode()).hexdigest()


def chunks(documents: Iterable[str]) -> Iterator[Chunk]:
    """Whole documents, together at least ``CHUNK`` characters (but for the last chunk)."""
    chunk: Chunk = []
    size = 0
    for number, text in enumerate(documents):
        try:
            chunk.append(text.encode())
        except UnicodeEncodeError:
            mend = "Leave it out, or replace that character"
            raise NormaError(f"document {number:,} holds half a character (a lone surrogate)", mend=mend) from None
        size += len(text)
        if size >= CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _warning(documents: Iterable[str], progress: Progress) -> Iterator[str]:
    """The same documents; tells once, at the first Chinese one, that there is no segmenter."""
    told = False
    for text in documents:
        if not told and has_chinese(text):
            told = True
            progress.say("jieba is not installed: every Chinese character counts as a word (pip install jieba)")
        yield text


def _in_order(source: Iterator[Chunk], tokenizer: Tokenizer, marks: bool, workers: int) -> Generator[tuple[Encoded, int], None, None]:
    """Each chunk's tokens and its bytes of text, in the order of ``source``."""
    first = list(islice(source, 2))
    source = chain(first, source)
    if workers == 1 or len(first) < 2:  # a process would not pay
        for chunk in source:
            yield encode([text.decode() for text in chunk], tokenizer, marks=marks), sum(map(len, chunk))
        return
    setup = json.dumps({"tokenizer": tokenizer.backend.to_str(), "config": tokenizer.config, "marks": marks}).encode()
    started: list[_Worker] = []
    free: SimpleQueue[_Worker] = SimpleQueue()
    pool = ThreadPoolExecutor(workers)  # a thread for each worker only waits for it

    def work(chunk: Chunk) -> tuple[Encoded, int]:
        worker = free.get()
        try:
            return worker.encode(chunk), sum(map(len, chunk))
        finally:
            free.put(worker)

    try:
        for _ in range(workers):
            started.append(_Worker(setup))
            free.put(started[-1])
        waiting: deque[Future[tuple[Encoded, int]]] = deque()
        for chunk in source:
            waiting.append(pool.submit(work, chunk))
            if len(waiting) == AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for worker in started:
            worker.process.kill()
        pool.shutdown(cancel_futures=True)
        for worker in started:
            worker.close()


class _Worker:
    """A process that encodes chunks. What passes through the pipes: a line with the sizes in JSON, then plain bytes."""

    def __init__(self, setup: bytes) -> None:
        home = str(Path(norma.__file__).parents[1])
        path = os.pathsep.join(p for p in (home, os.environ.get("PYTHONPATH", "")) if p)
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "norma.text.tokenise"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            # One thread each: the processes are what fills the cores.
            env={**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        self.setup: bytes | None = setup + b"\n"

    def encode(self, chunk: Chunk) -> Encoded:
        assert self.process.stdin and self.process.stdout
        try:
            if self.setup:  # sent here, not when started: all workers start at the same time
                self.process.stdin.write(self.setup)
                self.setup = None
            self.process.stdin.write(json.dumps([len(text) for text in chunk]).encode() + b"\n")
            self.process.stdin.writelines(chunk)
            self.process.stdin.flush()
            tokens, count = json.loads(self.process.stdout.readline() or b"[-1, 0]")
            data = self.process.stdout.read(5 * tokens + 8 * count) if tokens >= 0 else b""
        except BrokenPipeError:
            tokens, count, data = -1, 0, b""
        if tokens < 0 or len(data) != 5 * tokens + 8 * count:
            raise self.death()
        return Encoded(
            np.frombuffer(data, np.uint32, tokens),
            np.frombuffer(data, np.uint8, tokens, 4 * tokens),
            np.frombuffer(data, np.int64, count, 5 * tokens),
        )

    def death(self) -> NormaError:
        code = self.process.wait()
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").split("\n")
        why = next((line for line in reversed(lines) if line.strip()), "no message")
        how = f"was killed by signal {-code}" if code < 0 else f"stopped with exit code {code} ({why})"
        mend = "If memory was short, take fewer workers and run the same command again" if code < 0 else "Try it with one worker"
        return NormaError(f"a process that tokenises {how}", mend=mend)

    def close(self) -> None:
        self.process.wait()
        self.log.close()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                with suppress(BrokenPipeError):  # it held a chunk that nobody will read
                    pipe.close()


def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """The worker: the setup, then chunks, until ``source`` ends."""
    setup = json.loads(source.readline())
    tokenizer = Tokenizer(tokenizers.Tokenizer.from_str(setup["tokenizer"]), setup["config"])
    while line := source.readline():
        sizes: list[int] = json.loads(line)
        encoded = encode([source.read(size).decode() for size in sizes], tokenizer, marks=setup["marks"])
        sink.write(json.dumps([len(encoded.tokens), len(encoded.lengths)]).encode() + b"\n")
        for values in (encoded.tokens, encoded.flags, encoded.lengths):
            sink.write(values.data)
        sink.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear; it ends this process by its pipe
    serve(sys.stdin.buffer, sys.stdout.buffer)
