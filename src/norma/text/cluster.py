"""Reading and tokenising on a cluster: the same functions as on one machine, as stages of Ray Data. Needs ``norma-lm[ray]``.

    files ─→ one item a file ─→ norma.text.readers.read_file ─→ records (and rows to set aside), in the order of the files
    .jsonl ─→ stretches of whole lines ─→ norma.text.tokenise.encode ─→ tokens, in the order of the lines

What comes out is what the local engine gives, row for row: order is preserved, and nothing depends on where a piece was cut.
The files must be where every machine of the cluster sees them.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from norma.base.errors import NormaError
from norma.text.formats import Record
from norma.text.quarantine import Quarantine
from norma.text.readers import files_of, read_file
from norma.text.tokenise import Encoded, encode
from norma.text.tokenizer import Tokenizer

STRETCH = 8 << 20  # bytes of a file that are one piece of work


def _ray() -> Any:
    """``ray.data``, connected to the cluster that RAY_ADDRESS names, else to this machine alone. Raises NormaError without Ray."""
    try:
        ray = importlib.import_module("ray")
        data = importlib.import_module("ray.data")
    except ImportError:
        raise NormaError("Ray is not installed, and --engine ray needs it", mend="pip install 'norma-lm[ray]'") from None
    if not ray.is_initialized():
        ray.init(address=os.environ.get("RAY_ADDRESS"), logging_level="ERROR", log_to_driver=False)
    context = data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    return data


# ── reading ──
def read_on_cluster(source: str | Path, quarantine: Quarantine) -> Iterator[Record]:
    """What :func:`norma.text.readers.read` gives for a file or folder, each file read by whoever has time."""
    files = [{"path": str(path), "name": name} for path, name in files_of(Path(source).expanduser())]
    for row in _ray().from_items(files).flat_map(_records).iter_rows():
        if row["bad"]:
            quarantine.add(*json.loads(row["json"]))
        else:
            yield Record(**json.loads(row["json"]))


def _records(item: dict[str, Any]) -> list[dict[str, Any]]:
    """All of a file, each row as JSON, and what could not be used between them."""
    found = _Collected()
    out: list[dict[str, Any]] = []
    for record in read_file(Path(item["path"]), item["name"], found):
        out += found.taken()
        out.append({"bad": False, "json": json.dumps(asdict(record))})
    return [*out, *found.taken()]


class _Collected(Quarantine):
    """Keeps what is set aside, to be sent home."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[tuple[str, int, str]] = []

    def add(self, file: str, line: int, reason: str) -> None:
        super().add(file, line, reason)
        self._rows.append((file, line, reason))

    def taken(self) -> list[dict[str, Any]]:
        rows, self._rows = self._rows, []
        return [{"bad": True, "json": json.dumps(row)} for row in rows]


# ── tokenising ──
def encode_on_cluster(path: Path, tokenizer: Tokenizer, marks: bool) -> Iterator[tuple[Encoded, int]]:
    """Tokens of the text rows of a .jsonl file and their bytes of text, in order."""
    given = {"tokenizer": tokenizer.backend.to_str(), "config": json.dumps(tokenizer.config), "marks": marks}
    items = [{"path": str(path), "start": a, "end": b} for a, b in stretches(path)]
    data = _ray().from_items(items, override_num_blocks=max(1, len(items)))
    for row in data.map(_Encode, fn_constructor_kwargs=given, concurrency=(1, max(1, len(items)))).iter_rows():
        yield (
            Encoded(
                np.frombuffer(row["tokens"], np.uint32), np.frombuffer(row["flags"], np.uint8), np.frombuffer(row["lengths"], np.int64)
            ),
            int(row["bytes"]),
        )


class _Encode:
    """A stretch of a file to its tokens; made once in each process."""

    def __init__(self, tokenizer: str, config: str, marks: bool) -> None:
        tokenizers = importlib.import_module("tokenizers")
        self.tokenizer, self.marks = Tokenizer(tokenizers.Tokenizer.from_str(tokenizer), json.loads(config)), marks

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        with Path(item["path"]).open("rb") as handle:
            handle.seek(item["start"])
            texts = [json.loads(line)["text"] for line in handle.read(item["end"] - item["start"]).splitlines() if line.strip()]
        encoded = encode(texts, self.tokenizer, marks=self.marks)
        size = sum(len(text.encode()) for text in texts)
        tokens, flags, lengths = encoded.tokens.tobytes(), encoded.flags.tobytes(), encoded.lengths.tobytes()
        return {"tokens": tokens, "flags": flags, "lengths": lengths, "bytes": size}


def stretches(path: Path, size: int = STRETCH) -> list[tuple[int, int]]:
    """(start, end) of pieces of a file of about ``size`` bytes that begin and end with a line."""
    total, found, start = path.stat().st_size, [], 0
    with path.open("rb") as handle:
        while start < total:
            handle.seek(min(total, start + size))
            handle.readline()  # to the end of the line that was hit
            end = handle.tell()
            found.append((start, end))
            start = end
    return found
