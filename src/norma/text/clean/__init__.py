"""Cleaning: documents in, fewer documents out, and a count of every one that was set aside.

    records ─documents_of─→ exact ─→ language ─→ length ─→ quality ─→ near ─→ documents
                              │         │          │          │         │
                              └─────────┴─ Counts ─┴──────────┴─────────┴─→ report, quarantine.jsonl

Each arrow is one :class:`Step` of the recipe, left out where its options are absent. The order is fixed: exact copies go first because
that is cheap; the language is told before the rules that differ by language; near copies come last, so that the one document of a
cluster that is kept is not thrown away by a later rule.

    steps = build_steps(CleanOptions(language=LanguageOptions(keep=["en"]), near=NearOptions()), quarantine)
    for document in run(steps, documents_of(read("wiki.jsonl.gz", quarantine), quarantine)): ...
    report = [step.counts.report() for step in steps]
"""

from __future__ import annotations

from norma.text.clean.duplicates import Exact, Near
from norma.text.clean.language import Language
from norma.text.clean.length import Length
from norma.text.clean.options import (
    C4Options,
    CleanOptions,
    ExactOptions,
    GopherOptions,
    LanguageOptions,
    LengthOptions,
    NearOptions,
    QualityOptions,
    RepetitionOptions,
)
from norma.text.clean.quality import Quality
from norma.text.clean.steps import UNKNOWN, Aside, Counts, Document, Step, documents_of, run
from norma.text.quarantine import Quarantine

__all__ = [
    "UNKNOWN",
    "Aside",
    "C4Options",
    "CleanOptions",
    "Counts",
    "Document",
    "Exact",
    "ExactOptions",
    "GopherOptions",
    "Language",
    "LanguageOptions",
    "Length",
    "LengthOptions",
    "Near",
    "NearOptions",
    "Quality",
    "QualityOptions",
    "RepetitionOptions",
    "Step",
    "build_steps",
    "documents_of",
    "run",
]


def build_steps(options: CleanOptions, quarantine: Quarantine | None = None) -> list[Step]:
    """The steps that ``options`` ask for, in their order, fresh (a step that looks for copies remembers what it has seen).

    Raises NormaError where a step needs a library that is not installed.
    """
    steps: list[Step] = []
    if options.exact is not None:
        steps.append(Exact(options.exact, quarantine))
    if options.language is not None:
        steps.append(Language(options.language, quarantine))
    if options.length is not None:
        steps.append(Length(options.length, quarantine))
    if options.quality is not None:
        steps.append(Quality(options.quality, quarantine))
    if options.near is not None:
        steps.append(Near(options.near, quarantine))
    return steps
