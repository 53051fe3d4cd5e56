"""Other people's norms as a spec file. One module a format; each turns text into a Draft, and this file does the rest.

    FILE ─read (gzip too)─→ text ─module.read─→ Draft ─YAML─→ strict loader and lint ─→ text of the spec, notes on what the source lacks

To add a format: a module with ``HELP`` and ``read(text, place, language) -> Draft``, and a line in ``FORMATS``.
"""

from __future__ import annotations

import gzip
from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from norma.base.errors import NormaError, nearest
from norma.spec.importers import draft as drafts
from norma.spec.languages import canonical
from norma.spec.lint import lint
from norma.spec.spec import Spec

FORMATS = {
    "openai-model-spec": "model_spec",
    "rbr": "propositions",
    "constitutional-ai": "constitutional",
    "ifeval": "instructions",
    "ifbench": "instructions",
    "text": "text",
}

# lint code -> what a source without it lacks
_LACKS = {
    "no-checker": "no checker",
    "no-elicitor": "no prompt that puts them to the test",
    "no-good-example": "no good example",
    "no-bad-example": "no bad example",
    "no-benign-pair": "no harmless look-alike of their prompts",
    "example-language": "no example in the spec's language",
}


@dataclass(frozen=True)
class Imported:
    """The text of a spec file, what stands in it, and one line for each thing that the source lacks."""

    text: str
    spec: Spec
    notes: tuple[str, ...]

    @property
    def rules(self) -> int:
        return len(self.spec.rules)

    @property
    def examples(self) -> int:
        return sum(len(e.good) + len(e.bad) for rule in self.spec.rules for e in rule.examples)

    @property
    def prompts(self) -> int:
        return sum(len(rule.elicit) for rule in self.spec.rules)


def _module(format: str) -> Any:
    if format not in FORMATS:
        raise NormaError(f"unknown format '{format}'", mend=nearest(format, FORMATS))
    return import_module(f"norma.spec.importers.{FORMATS[format]}")


def describe(format: str) -> str:
    """One line of help."""
    return str(_module(format).HELP)


def run(format: str, path: Path, *, language: str | None = None, name: str | None = None) -> Imported:
    """Import a file. ``language``: of its texts (BCP-47), None: guessed; ``name``: id of the spec, None: the file's name."""
    stem = path.name.removesuffix(".gz").partition(".")[0]
    return convert(format, _read(path), str(path), language=language, name=name or drafts.name(stem, "imported"))


def convert(format: str, text: str, place: str = "<text>", *, language: str | None = None, name: str = "imported") -> Imported:
    """The same from text; ``place`` stands in errors."""
    module = _module(format)
    if language is not None:
        try:
            language = canonical(language)
        except ValueError as error:
            raise NormaError(str(error)) from None
    made: drafts.Draft = module.read(text, place, language)
    if not made.rules:
        raise NormaError("no rule was found in this file", where=place, mend=f"Is it {module.HELP}?")
    written = drafts.yaml_text(name, made, f"Imported from {Path(place).name} (format {format}).")
    spec = Spec.parse(written, place, checkers=False)
    return Imported(written, spec, (*made.notes, *_lacking(spec)))


def _lacking(spec: Spec) -> list[str]:
    """What lint misses, one line a kind; what else it finds wrong, as it says it."""
    found = lint(spec)
    counts = Counter(f.code for f in found if f.code in _LACKS)
    notes = [f"{count} of {len(spec.rules)} rules have {_LACKS[code]}" for code, count in counts.items()]
    return notes + [f"{f.severity}: {f.text}" for f in found if f.code not in _LACKS]


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except FileNotFoundError:
        raise NormaError("file not found", where=path) from None
    except IsADirectoryError:
        raise NormaError("this is a folder; give one file", where=path) from None
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError):
        raise NormaError("not UTF-8 text", where=path) from None
