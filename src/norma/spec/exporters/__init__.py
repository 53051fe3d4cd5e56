"""A spec, or results under it, for other people's tools. One module a format.

    spec ───→ markdown (one file), promptfoo (one file), lm-eval (a folder)
    results ─→ inspect (a log file per method): responses.jsonl and verdicts.jsonl, as `norma run` and `norma check` write them

To add a format: a module with ``HELP`` and ``write(source, out, language) -> paths``, and a line in ``FORMATS``. JUnit is written by
norma.evaluate, which lives higher up; the command line offers it among these.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from norma.base.errors import NormaError, nearest

FORMATS = {"markdown": "markdown", "promptfoo": "promptfoo", "inspect": "inspect_log", "lm-eval": "lm_eval"}


def _module(format: str) -> Any:
    if format not in FORMATS:
        raise NormaError(f"unknown format '{format}'", mend=nearest(format, FORMATS))
    return import_module(f"norma.spec.exporters.{FORMATS[format]}")


def describe(format: str) -> str:
    """One line of help."""
    return str(_module(format).HELP)


def run(format: str, source: Path, out: Path, *, language: str | None = None) -> list[Path]:
    """Write ``source`` to ``out``; the paths that were written."""
    paths: list[Path] = _module(format).write(source, out, language)
    return paths
