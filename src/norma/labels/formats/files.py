"""Which format a file has, and its labels.

    path ─→ rows (any file that ``norma.text`` reads: .jsonl .json .csv .tsv .parquet, each also .gz) ─→ the format of the first ─→ Batch

Nothing is guessed that changes a mark, and nothing is passed over in silence: a row that cannot be read is an error with its line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from norma.base.errors import NormaError, nearest
from norma.labels.formats import argilla, label_studio, tables, trl
from norma.labels.formats.batch import Batch, Reading
from norma.text.quarantine import Quarantine
from norma.text.readers import read as read_rows

FORMATS = ("norma", "table", "argilla", "label-studio", "trl")


def rows_of(path: str | Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(place, columns) of each row. Raises NormaError at the first row that cannot be read."""
    quarantine = Quarantine()
    for record in read_rows(path, quarantine):
        if quarantine.first:
            break
        yield f"{path}:{record.line}", record.fields
    if quarantine.first:
        _, line, reason = quarantine.first[0]
        raise NormaError(reason, where=f"{path}:{line}", mend="Mend or remove this row; nothing was read")


def format_of(row: Mapping[str, Any], columns: Mapping[str, str] | None) -> str:
    """The format that a row has."""
    if columns:
        return "table"
    if isinstance(row.get("data"), dict):
        return "label-studio"
    if isinstance(row.get("fields"), dict):
        return "argilla"
    if {"rule", "annotator", "verdict"} <= set(row):
        return "norma"
    return "trl" if trl.fits(row) else "table"


def read(path: str | Path, reading: Reading, format: str = "auto", columns: Mapping[str, str] | None = None) -> Batch:
    """The labels of a file. ``columns``: of a table (see ``tables``)."""
    if format not in ("auto", *FORMATS):
        raise NormaError(f"unknown format '{format}'", mend=nearest(format, ["auto", *FORMATS]))
    rows = list(rows_of(path))
    chosen = format_of(rows[0][1], columns) if format == "auto" else format
    if chosen == "label-studio":
        return label_studio.read((row for _, row in rows), reading, str(path))
    if chosen == "argilla":
        return argilla.read((row for _, row in rows), reading, str(path))
    if chosen == "trl":
        return trl.read(rows, reading)
    return tables.read(rows, reading, columns if chosen == "table" else None, str(path))
