"""A tokenised corpus on disk: files that are mapped into memory, and never read as a whole.

    documents ─→ ShardWriter ─→ tokens-00000.bin   uint16 (uint32 for more than 65,536 tokens), documents end to end
                             ─→ flags-00000.bin    uint8, one a token (see norma.text.words)
                             ─→ offsets-00000.bin  int64, where each document begins in this shard, and where the last ends
                             ─→ ... -00001.bin     when a shard is full; a document is never divided
                             ─→ manifest.json      counts, sizes, checksums, what made it; written last

    Shards(folder) ─→ document(i)      two arrays, no copy
                   ─→ spans(from, to)  any stretch of the whole corpus

The folder is made under another name and renamed when whole: after a kill there is no folder, or the one of before.
All numbers are little-endian.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from norma.base.errors import NormaError
from norma.base.files import commit_folder, disk_errors, read_json, write_json
from norma.base.hashing import digest, file_digest

MANIFEST = "manifest.json"
FORMAT = 1
SHARD_TOKENS = 1 << 28  # 512 MiB of uint16
AGAIN = "Make the shards again"

Ints = npt.NDArray[np.int64]
Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
Flags = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Made:
    """What made the tokens.

    Args:
        tokenizer: SHA-256 of its ``tokenizer.json``.
        vocab_size: number of tokens it has, special ones included.
        pad: the id for places that hold nothing.
        marks: whether the flags say where words, sentences and paragraphs begin, or only which tokens are special.
        segmenter: what divided Chinese into words, "" without marks.
    """

    tokenizer: str
    vocab_size: int
    pad: int
    marks: bool
    segmenter: str


@dataclass(frozen=True)
class Span:
    """A stretch of one shard: ``tokens`` and ``flags`` (N,), and ``begins``, the places in it where a document begins."""

    tokens: Tokens
    flags: Flags
    begins: Ints


class _File:
    """One file that is written from front to back, with its checksum."""

    def __init__(self, path: Path) -> None:
        self.path, self.size, self.hash = path, 0, hashlib.sha256()
        with disk_errors(path):
            self.handle = path.open("wb")

    def write(self, values: npt.NDArray[Any]) -> None:
        data = np.ascontiguousarray(values).view(np.uint8).data
        with disk_errors(self.path):
            self.handle.write(data)
        self.hash.update(data)
        self.size += len(data)

    def close(self) -> dict[str, Any]:
        with disk_errors(self.path):
            self.handle.close()  # writes what is still in the buffer
        return {"size": self.size, "sha256": self.hash.hexdigest()}


class ShardWriter:
    """Writes shards: ``with ShardWriter(folder, made) as writer: writer.add(...)``. Leaving the block without an error publishes them.

    Raises NormaError when ``folder`` holds something else, or the disk is full; nothing is left behind then.
    """

    def __init__(self, folder: Path, made: Made, *, shard_tokens: int = SHARD_TOKENS) -> None:
        self.folder, self.made, self.shard_tokens = Path(folder), made, shard_tokens
        self.dtype = "uint16" if made.vocab_size <= 1 << 16 else "uint32"
        self.documents = self.tokens = self.bytes = 0
        self._shards: list[dict[str, Any]] = []
        self._files: dict[str, _File] = {}
        self._here = [0, 0]  # documents and tokens of the shard that is open
        self._work = self.folder.with_name(f".{self.folder.name}.partial")

    def __enter__(self) -> ShardWriter:
        with disk_errors(self.folder):
            if self.folder.is_dir() and any(self.folder.iterdir()) and not (self.folder / MANIFEST).exists():
                raise NormaError("this folder holds other files", where=self.folder, mend="Choose another output folder")
            shutil.rmtree(self._work, ignore_errors=True)
            self._work.mkdir(parents=True)
        self._open()
        return self

    def add(self, tokens: npt.NDArray[Any], flags: Flags, lengths: Ints, text_bytes: int) -> None:
        """Append documents that lie end to end in ``tokens`` and ``flags`` (N,); ``lengths`` (documents,) adds up to N.

        ``text_bytes`` is the size of their text in UTF-8, by which bits per byte are counted. A document may be empty.
        """
        if len(tokens) != len(flags) or len(tokens) != lengths.sum():
            raise ValueError(f"{len(tokens)} tokens, {len(flags)} flags, lengths of {lengths.sum()}")
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.made.vocab_size:
            raise ValueError(f"a token outside the vocabulary of {self.made.vocab_size}")
        ends = np.cumsum(lengths)
        done = at = 0
        while done < len(lengths):
            fit = int(np.searchsorted(ends, at + self.shard_tokens - self._here[1], side="right"))
            if fit <= done and self._here[0]:
                self._close()
                self._open()
                continue
            fit = max(fit, done + 1)  # a document longer than a shard makes a shard of its own
            end = int(ends[fit - 1])
            self._files["tokens"].write(tokens[at:end].astype(_little(self.dtype)))
            self._files["flags"].write(flags[at:end])
            self._files["offsets"].write((ends[done:fit] - at + self._here[1]).astype("<i8"))
            self._here = [self._here[0] + fit - done, self._here[1] + end - at]
            done, at = fit, end
        self.documents, self.tokens, self.bytes = self.documents + len(lengths), self.tokens + len(tokens), self.bytes + text_bytes

    def _open(self) -> None:
        self._here = [0, 0]
        self._files = {kind: _File(self._work / _name(kind, len(self._shards))) for kind in ("tokens", "flags", "offsets")}
        self._files["offsets"].write(np.zeros(1, dtype="<i8"))

    def _close(self) -> None:
        files = {kind: file.close() for kind, file in self._files.items()}
        self._shards.append({"documents": self._here[0], "tokens": self._here[1], "files": files})

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._close()
                counts = {"documents": self.documents, "tokens": self.tokens, "bytes": self.bytes}
                manifest = {"format": FORMAT, **asdict(self.made), "dtype": self.dtype, **counts, "shards": self._shards}
                write_json(self._work / MANIFEST, manifest)
                commit_folder(self._work, self.folder)
        finally:
            for file in self._files.values():
                with suppress(OSError):  # of a full disk, which was told already
                    file.handle.close()
            shutil.rmtree(self._work, ignore_errors=True)


class Shards:
    """The shards of a folder, open for reading. Sizes are checked here, contents by ``verify``.

    Raises NormaError that names the file which is missing, cut off or not what the manifest says.

    Attributes:
        made: what made the tokens.
        documents, tokens, bytes: counts; bytes are those of the text in UTF-8.
        digest: SHA-256 of the manifest, which holds the checksums: equal for equal shards.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / MANIFEST).is_file():
            raise NormaError(f"not a folder of token shards (it has no {MANIFEST})", where=folder, mend="Run the tokenising again")
        manifest = read_json(self.folder / MANIFEST)
        try:
            if manifest["format"] != FORMAT:
                raise NormaError(f"shards of format {manifest['format']}, not {FORMAT}", where=self.folder / MANIFEST, mend=AGAIN)
            self.made = Made(*(manifest[name] for name in Made.__dataclass_fields__))
            self.documents, self.tokens, self.bytes = (int(manifest[name]) for name in ("documents", "tokens", "bytes"))
            self._shards: list[dict[str, Any]] = manifest["shards"]
            token_type = _little(manifest["dtype"])
            self._documents = np.cumsum([0, *(int(s["documents"]) for s in self._shards)])
            self._ends = np.cumsum([0, *(int(s["tokens"]) for s in self._shards)])
            whole = self._documents[-1] == self.documents and self._ends[-1] == self.tokens
            self._tokens: list[Tokens] = [self._map("tokens", k, token_type) for k in range(len(self._shards))]
            self._flags: list[Flags] = [self._map("flags", k, np.dtype("u1")) for k in range(len(self._shards))]
            self._offsets: list[Ints] = [self._map("offsets", k, np.dtype("<i8")) for k in range(len(self._shards))]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NormaError(f"damaged ({type(error).__name__}: {error})", where=self.folder / MANIFEST, mend=AGAIN) from None
        if not whole:
            raise NormaError("damaged (its counts do not add up)", where=self.folder / MANIFEST, mend=AGAIN)
        self.digest = digest(manifest)

    def _map(self, kind: str, number: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        path, shard = self.folder / _name(kind, number), self._shards[number]
        count = int(shard["documents"]) + 1 if kind == "offsets" else int(shard["tokens"])
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise NormaError("this file of the token shards is missing", where=path, mend=AGAIN) from None
        if not size == count * dtype.itemsize == shard["files"][kind]["size"]:
            raise NormaError(f"damaged: it has {size:,} bytes, not {count * dtype.itemsize:,}", where=path, mend=AGAIN)
        if not count:  # nothing to map
            return np.empty(0, dtype=dtype)
        mapped: npt.NDArray[Any] = np.memmap(path, dtype=dtype, mode="r")
        if kind == "offsets" and (mapped[0] != 0 or mapped[-1] != shard["tokens"]):
            raise NormaError("damaged: its documents do not fill the shard", where=path, mend=AGAIN)
        return mapped.view(np.ndarray)  # a plain array over the same memory: slices of it are several times as fast

    def verify(self) -> None:
        """Read every byte and compare the checksums. Raises NormaError that names the first damaged file."""
        for number, shard in enumerate(self._shards):
            for kind in ("tokens", "flags", "offsets"):
                path = self.folder / _name(kind, number)
                if file_digest(path) != shard["files"][kind]["sha256"]:
                    raise NormaError("damaged: its checksum is not the one in the manifest", where=path, mend=AGAIN)

    def __len__(self) -> int:
        """The number of documents."""
        return self.documents

    def __getitem__(self, number: int) -> tuple[Tokens, Flags]:
        return self.document(number)

    def holder(self, token: int) -> int:
        """The number of the document that token ``token`` of the whole corpus stands in. O(log documents)."""
        if not 0 <= token < self.tokens:
            raise IndexError(f"token {token} of {self.tokens}")
        k = int(np.searchsorted(self._ends, token, side="right")) - 1
        return int(self._documents[k] + np.searchsorted(self._offsets[k], token - self._ends[k], side="right")) - 1

    def document(self, number: int) -> tuple[Tokens, Flags]:
        """Tokens and flags of a document, (N,) each: read-only views of the files. O(log shards)."""
        if not 0 <= number < self.documents:
            raise IndexError(f"document {number} of {self.documents}")
        k = int(np.searchsorted(self._documents, number, side="right")) - 1
        start, end = self._offsets[k][number - self._documents[k] : number - self._documents[k] + 2]
        return self._tokens[k][start:end], self._flags[k][start:end]

    def spans(self, start: int, end: int) -> Iterator[Span]:
        """The tokens ``start`` to ``end`` of the whole corpus, documents end to end: one span from each shard they lie in.

        O(log documents) and no copy.
        """
        if not 0 <= start <= end <= self.tokens:
            raise IndexError(f"tokens {start} to {end} of {self.tokens}")
        k = int(np.searchsorted(self._ends, start, side="right")) - 1
        while start < end:
            a, b = start - int(self._ends[k]), min(end, int(self._ends[k + 1])) - int(self._ends[k])
            if b > a:
                first, last = np.searchsorted(self._offsets[k], (a, b))
                yield Span(self._tokens[k][a:b], self._flags[k][a:b], self._offsets[k][first:last] - a)
            start, k = start + b - a, k + 1


def _name(kind: str, number: int) -> str:
    return f"{kind}-{number:05d}.bin"


def _little(dtype: str) -> np.dtype[Any]:
    return np.dtype({"uint16": "<u2", "uint32": "<u4"}[dtype])

