"""A spec as Markdown, one language a file."""

from __future__ import annotations

from pathlib import Path

from norma.base.files import write_text
from norma.spec.render import spec_markdown
from norma.spec.spec import Spec

HELP = "the spec for public reading, in one language"


def write(source: Path, out: Path, language: str | None) -> list[Path]:
    """One file."""
    spec = Spec.load(source, checkers=False)
    write_text(out, spec_markdown(spec, language or spec.source_language))
    return [out]
