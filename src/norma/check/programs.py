"""The registry of program checkers: importing a file registers its programs. To add one, write the file and add it to the import below."""

from __future__ import annotations

from typing import Any

from norma.base.errors import NormaError, nearest
from norma.check import (
    amounts,
    citations,
    closings,
    final_answer,
    format_asked,
    format_second,
    format_width,
    formats,
    identify,
    ifeval,
    language_match,
    language_second,
    lengths,
    mentions,
    openings,
    patterns,
    personal,
    personal_data,
    personal_data_second,
    persons,
    refusal,
    refusal_second,
    repetition,
    second_closings,
    second_courtesy,
    second_forms,
    second_subjects,
    similarity,
    statements,
    support_second,
    support_tone,
    uncertainty,
    uncertainty_second,
    wordlists,
)
from norma.check.binding import parameters
from norma.check.program import REGISTRY, Program, ProgramChecker

FILES = (
    *ifeval.FILES,
    amounts,
    citations,
    closings,
    final_answer,
    format_asked,
    format_second,
    format_width,
    formats,
    identify,
    language_match,
    language_second,
    lengths,
    mentions,
    openings,
    patterns,
    personal,
    personal_data,
    personal_data_second,
    persons,
    refusal,
    refusal_second,
    repetition,
    second_closings,
    second_courtesy,
    second_forms,
    second_subjects,
    similarity,
    statements,
    support_second,
    support_tone,
    uncertainty,
    uncertainty_second,
    wordlists,
)


def known_programs() -> dict[str, Program]:
    """Every program checker by name, in alphabetical order."""
    return dict(sorted(REGISTRY.items()))


def build(use: str, params: dict[str, Any], where: str) -> ProgramChecker:
    """Bind the program checker ``use`` to ``params`` (entry point ``norma.checkers: program``).

    Raises NormaError, placed at ``where``, for an unknown name or wrong parameters, with the nearest right name as the mend.
    """
    entry = REGISTRY.get(use)
    if entry is None:
        raise NormaError(f"unknown program checker '{use}'", where=where, mend=nearest(use, REGISTRY))
    return ProgramChecker(entry, parameters(entry.params, use, params, where))
