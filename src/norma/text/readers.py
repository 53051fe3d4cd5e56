"""Rows from anything a user has: a file, a folder, or a data set of a hub by name.

path ─→ files in order ─→ the format's generator (norma.text.formats) ─→ Record, Record, ...
hub:owner/name[:split] ─→ norma.text.hub ────────────────────────────→     unusable rows ─→ Quarantine
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from norma.base.errors import NormaError
from norma.text.formats import FORMATS, LANGUAGES, Record, bad_characters, read_text, suffix
from norma.text.hub import read_hub
from norma.text.quarantine import Quarantine

__all__ = ["HUB", "Record", "files_of", "read", "read_file"]

HUB = "hub:"


def read(source: str | Path, quarantine: Quarantine) -> Iterator[Record]:
    """Stream the rows of ``source``: a file, a folder (all readable files below it, in order of path) or ``hub:NAME``.

    Raises NormaError when the source does not exist, holds no readable file, or no usable row.
    """
    if isinstance(source, str) and source.startswith(HUB):
        rows = read_hub(source.removeprefix(HUB), quarantine)
    else:
        rows = (row for path, file in files_of(Path(source).expanduser()) for row in read_file(path, file, quarantine))
    before, some = len(quarantine), False
    for row in rows:
        some = True
        yield row
    if not some:
        bad = len(quarantine) - before
        reason = quarantine.first[-1][2] if bad == 1 else quarantine.reasons.most_common(1)[0][0] if bad else ""
        why = f": {bad} set aside, {reason}" if bad else ""
        raise NormaError(f"no usable row in it{why}", where=source, mend="'norma data check FILE' says what a file holds")


def files_of(source: Path) -> list[tuple[Path, str]]:
    """``(path, name for people)`` of every readable file, in order. Hidden names and links to what was read are passed over."""
    if not source.exists():
        raise NormaError("file not found", where=source, mend=f"Check the path; a data set of a hub is written '{HUB}{source}'")
    if source.is_file():
        return [(source, source.name)]
    found: list[tuple[Path, str]] = []
    seen: set[Path] = set()
    for folder, names, files in os.walk(source):  # does not follow links to folders, so a loop cannot catch it
        names[:] = sorted(n for n in names if not n.startswith(".") and n != "__pycache__")
        for name in files:
            path = Path(folder, name)
            if not name.startswith(".") and suffix(path) in FORMATS and path.is_file() and path.resolve() not in seen:
                seen.add(path.resolve())
                found.append((path, path.relative_to(source).as_posix()))
    if not found:
        kinds = " ".join(sorted(set(FORMATS) - LANGUAGES))
        raise NormaError("no readable file in this folder", where=source, mend=f"Readable are {kinds}, each also as .gz")
    return sorted(found, key=lambda pair: pair[1])


def read_file(path: Path, file: str, quarantine: Quarantine) -> Iterator[Record]:
    """The rows of one file; a suffix that is not known is read as text. ``file`` is its name in records and quarantine."""
    some, before = False, len(quarantine)
    for row in FORMATS.get(suffix(path), read_text)(path, file, quarantine):
        some = True
        if why := _bad_fields(row):
            quarantine.add(row.file, row.line, why)
        else:
            yield row
    if not some and len(quarantine) == before:
        quarantine.add(file, 0, "empty file")


def _bad_fields(row: Record) -> str:
    # JSON may spell a NUL or half a surrogate pair as an escape.
    for value in row.fields.values():
        if isinstance(value, str):
            if why := bad_characters(value):
                return why
            if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
                return "holds half a character (a lone surrogate)"
    return ""
