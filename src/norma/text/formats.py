"""One file to rows: a generator for each format. What cannot be read goes to the quarantine with its line.

    bytes (.gz or not) ─→ lines of text ─→ Record(file, line, fields)

Lines are decoded with escapes for bad bytes, so that a bad byte costs its own row and no other.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from norma.base.errors import NormaError
from norma.text.quarantine import Quarantine

BLOCK = 2_000  # characters after which a text is divided at the next blank line; twice that, at the next line
LANGUAGES = frozenset({".en", ".de", ".fr", ".zh", ".es", ".it", ".ja", ".ko", ".ru", ".pt", ".nl"})  # parallel corpora: train.en, train.de


@dataclass(frozen=True)
class Record:
    """One row: ``fields`` are named columns; a text file's rows have ``text`` and ``title``."""

    file: str
    line: int
    fields: dict[str, Any]


def suffix(path: Path) -> str:
    """The format's suffix, ``.gz`` left out: ``data.jsonl.gz`` is ``.jsonl``."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    if path.name.lower().endswith(".gz"):
        with gzip.open(path, "rb") as packed:
            yield packed  # type: ignore[misc]  # GzipFile is a binary stream in all but its declared bases
    else:
        with path.open("rb") as plain:
            yield plain


def _lines(path: Path, file: str, quarantine: Quarantine, *, newline: str | None = None) -> Iterator[tuple[int, str]]:
    """Numbered lines, without their ends unless ``newline`` is "". Bad bytes are surrogates; a broken archive ends early."""
    number = 0
    try:
        with open_bytes(path) as raw:
            head = raw.read(4096)
            raw.seek(0)
            if head.startswith((b"\xff\xfe", b"\xfe\xff")):
                quarantine.add(file, 0, "not UTF-8 text (it is UTF-16: save it as UTF-8)")
                return
            if head.count(b"\0") > 8:
                quarantine.add(file, 0, "not text (a binary file)")
                return
            for number, line in enumerate(io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline=newline), 1):
                yield number, line if newline == "" else line.rstrip("\n")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        quarantine.add(file, number + 1, f"the .gz file is broken from here on ({error})")
    except OSError as error:
        quarantine.add(file, number + 1, f"not readable ({error.strerror or error})")


def bad_characters(text: str) -> str:
    """Why a piece of text is unusable, or ""."""
    if "\0" in text:
        return "holds NUL characters"
    if not text.isascii() and any("\udc80" <= c <= "\udcff" for c in text):
        return "not UTF-8 text"
    return ""


def read_text(path: Path, file: str, quarantine: Quarantine) -> Iterator[Record]:
    """A text in blocks that end at a blank line; in Markdown a heading begins a block and is its title."""
    markdown = suffix(path) == ".md"
    title = path.name.split(".")[0]
    block: list[str] = []
    start, size, fenced, front = 1, 0, False, False

    def finish() -> Iterator[Record]:
        nonlocal size
        text = "\n".join(block).strip("\n")
        block.clear()
        size = 0
        if text.strip():
            yield Record(file, start, {"title": title, "text": text})

    for number, line in _lines(path, file, quarantine):
        if why := bad_characters(line):
            quarantine.add(file, number, why)
            yield from finish()
            continue
        if markdown and line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        if markdown and line.strip() == "---" and (number == 1 or front):
            front = not front  # YAML front matter is not prose
            continue
        if front:
            continue
        heading = re.match(r"#{1,6}\s+(.*?)\s*#*$", line) if markdown and not fenced else None
        if heading or (size >= BLOCK and not line.strip()) or size >= 2 * BLOCK:
            yield from finish()
        if heading:
            title = heading[1] or title
        if not block:
            start = number
        block.append(line)
        size += len(line) + 1
    yield from finish()


def read_jsonl(path: Path, file: str, quarantine: Quarantine) -> Iterator[Record]:
    for number, line in _lines(path, file, quarantine):
        if line.strip():
            yield from _json_row(line, file, number, quarantine)


def _json_row(text: str, file: str, number: int, quarantine: Quarantine) -> Iterator[Record]:
    if why := bad_characters(text):
        quarantine.add(file, number, why)
        return
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        quarantine.add(file, number, f"not JSON ({error})")
        return
    yield from _row(value, file, number, quarantine)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _row(value: Any, file: str, number: int, quarantine: Quarantine) -> Iterator[Record]:
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, dict):
        quarantine.add(file, number, f"a row must be an object of named columns, not {type(value).__name__}")
    elif not any(v not in (None, "", [], {}) and not (isinstance(v, str) and not v.strip()) for v in value.values()):
        quarantine.add(file, number, "empty row")
    else:
        yield Record(file, number, value)


def read_json(path: Path, file: str, quarantine: Quarantine) -> Iterator[Record]:
    """A list of objects; an object that holds one (``data``, ``rows``, ``train``); an object of objects; or JSON lines after all."""
    text = "\n".join(line for _, line in _lines(path, file, quarantine))
    stripped = text.lstrip()
    if not stripped:
        return
    if stripped[0] == "[":
        yield from _json_list(text, file, quarantine)
        return
    if why := bad_characters(text):
        quarantine.add(file, 0, why)
        return
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        if stripped[0] == "{" and "\n" in stripped and "Extra data" in str(error):
            yield from read_jsonl(path, file, quarantine)
        else:
            quarantine.add(file, getattr(error, "lineno", 0), f"not JSON ({error})")
        return
    if isinstance(value, dict):
        rows = next((v for k, v in value.items() if k in ("data", "rows", "train", "examples", "items") and isinstance(v, list)), None)
        if rows is None and value and all(isinstance(v, dict) for v in value.values()):
            rows = [{"key": k, **v} for k, v in value.items()]
        for number, row in enumerate([value] if rows is None else rows, 1):
            yield from _row(row, file, number, quarantine)
    else:
        yield from _row(value, file, 1, quarantine)


def _json_list(text: str, file: str, quarantine: Quarantine) -> Iterator[Record]:
    """Element after element, so that a file that breaks off still gives the rows before the break. ``line`` is the element's."""
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    blank = re.compile(r"[\s,]*")
    at, line, counted = text.index("[") + 1, 1, 0
    while True:
        at = blank.match(text, at).end()  # type: ignore[union-attr]  # the pattern matches the empty text
        line += text.count("\n", counted, at)
        counted = at
        if text[at : at + 1] == "]":
            return
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            quarantine.add(file, line, f"not JSON from here on ({str(error).split(':')[0]})")
            return
        if why := bad_characters(text[at:end]):
            quarantine.add(file, line, why)
        else:
            yield from _row(value, file, line, quarantine)
        at = end


_HEADER = re.compile(r"[^\W\d][\w \-/()#]{0,40}")


def is_header(cells: list[str]) -> bool:
    """Whether a first row names columns: short, distinct, word-like cells (the first may be empty: an index)."""
    named = cells[1:] if cells and not cells[0].strip() else cells
    return bool(named) and len(set(named)) == len(named) and all(_HEADER.fullmatch(c.strip()) and len(c.split()) <= 4 for c in named)


def read_table(path: Path, file: str, quarantine: Quarantine) -> Iterator[Record]:
    """Comma- or tab-separated values; without a header the columns are called column1, column2, ..."""
    tabs = suffix(path) == ".tsv"
    csv.field_size_limit(sys.maxsize)
    names: list[str] | None = None
    for number, cells in _tab_rows(path, file, quarantine) if tabs else _comma_rows(path, file, quarantine):
        if not any(cell.strip() for cell in cells):
            continue
        if names is None:
            if is_header(cells):
                names = [c.strip() or "index" for c in cells]
                continue
            names = [f"column{i}" for i in range(1, len(cells) + 1)]
        if len(cells) != len(names):
            quarantine.add(file, number, f"wrong number of columns ({len(cells)} instead of {len(names)})")
        elif why := bad_characters("".join(cells)):
            quarantine.add(file, number, why)
        else:
            yield Record(file, number, dict(zip(names, cells, strict=True)))


def _tab_rows(path: Path, file: str, quarantine: Quarantine) -> Iterator[tuple[int, list[str]]]:
    # In tab-separated files a quotation mark is an ordinary character, unless it encloses the cell as spreadsheets write it.
    for number, line in _lines(path, file, quarantine):
        yield number, [_unquoted(cell) for cell in line.split("\t")]


def _unquoted(cell: str) -> str:
    if len(cell) >= 2 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', ""):
        return cell[1:-1].replace('""', '"')
    return cell


def _comma_rows(path: Path, file: str, quarantine: Quarantine) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader((line for _, line in _lines(path, file, quarantine, newline="")), strict=True)
    while True:
        start = reader.line_num + 1
        try:
            yield start, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            quarantine.add(file, start, f"not CSV ({error})")


def read_parquet(path: Path, file: str, quarantine: Quarantine) -> Iterator[Record]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise NormaError("reading .parquet needs pyarrow", where=path, mend="pip install 'norma-lm[data]'") from None
    number = 0
    try:
        with open_bytes(path) as raw:
            table = parquet.ParquetFile(io.BytesIO(raw.read()) if path.name.lower().endswith(".gz") else raw)
            for batch in table.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield from _row(row, file, number, quarantine)
    except (pyarrow.ArrowException, OSError, EOFError, zlib.error) as error:
        quarantine.add(file, number + 1, f"not Parquet ({str(error).splitlines()[0] if str(error) else type(error).__name__})")


def read_python(path: Path, file: str, quarantine: Quarantine) -> Iterator[Record]:
    """A Python file is one row: its source."""
    text = ""
    for number, line in _lines(path, file, quarantine):
        if why := bad_characters(line):
            quarantine.add(file, number, why)
            return
        text += line + "\n"
    if text.strip():
        yield Record(file, 1, {"title": path.name.split(".")[0], "text": text})


Reader = Callable[[Path, str, Quarantine], Iterator[Record]]
FORMATS: dict[str, Reader] = {
    ".txt": read_text,
    ".md": read_text,
    ".json": read_json,
    ".jsonl": read_jsonl,
    ".csv": read_table,
    ".tsv": read_table,
    ".parquet": read_parquet,
    ".py": read_python,
    **dict.fromkeys(LANGUAGES, read_text),
}
