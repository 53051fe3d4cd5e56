"""Digests. What is hashed is canonical JSON or file bytes, so that layout and timestamps never matter."""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from pathlib import Path
from typing import Any

from norma.base.errors import NormaError

# Files and folders that tell how a run went rather than what it made: they hold clocks, so they stay out of digests
# (the label store counts through its frozen export, labels.jsonl).
UNHASHED = frozenset({"labels.sqlite", "metrics.jsonl", "lineage.json", "plan.json", "stage.json", "log.txt", "sinks", "samples.jsonl"})


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no white space, NFC text, floats written as decimal strings."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"cannot hash {value!r}")
        return repr(float(value))  # NumPy's float64 is a float, but writes itself with its type's name
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, dict):
        plain = {unicodedata.normalize("NFC", str(k)): _plain(v) for k, v in value.items()}
        if len(plain) != len(value):
            raise ValueError(f"cannot hash a mapping whose keys are equal as text: {sorted(map(str, value))}")
        return plain
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(v) for v in value), key=canonical)
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"cannot hash a {type(value).__name__}")


def digest(value: Any) -> str:
    """SHA-256 (64 hex digits) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 over the sorted relative paths and digests of the files below ``folder``.

    ``UNHASHED`` names and what a killed ``atomic_writer`` left behind (``.name.pid.tmp``) are left out.
    """
    if not folder.is_dir():
        raise NormaError("no such folder", where=folder)
    files = [p for p in folder.rglob("*") if p.is_file() and p.name not in UNHASHED and not (p.name.startswith(".") and p.suffix == ".tmp")]
    return digest(sorted([p.relative_to(folder).as_posix(), file_digest(p)] for p in files))
