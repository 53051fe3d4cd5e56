"""The registry of program checkers: importing a file registers its programs. To add one, write the file and add it to the import below."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from norma.base.errors import NormaError, nearest
from norma.check import (
    format_asked,
    format_second,
    format_width,
    language_match,
    language_second,
    lengths,
    mentions,
    openings,
    patterns,
    personal_data,
    personal_data_second,
    persons,
    refusal,
    refusal_second,
    repetition,
    second_courtesy,
    second_forms,
    second_subjects,
    statements,
    support_second,
    support_tone,
    uncertainty,
    uncertainty_second,
)
from norma.check.program import REGISTRY, Program, ProgramChecker

FILES = (
    format_asked,
    format_second,
    format_width,
    language_match,
    language_second,
    lengths,
    mentions,
    openings,
    patterns,
    personal_data,
    personal_data_second,
    persons,
    refusal,
    refusal_second,
    repetition,
    second_courtesy,
    second_forms,
    second_subjects,
    statements,
    support_second,
    support_tone,
    uncertainty,
    uncertainty_second,
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
    try:
        bound = entry.params.model_validate(params)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = entry.params.model_fields
            mend = nearest(key, known) if known else "This checker takes no parameters"
            raise NormaError(f"the checker '{use}' has no parameter '{key}'", where=where, mend=mend) from None
        if first["type"] == "missing":
            mend = f"Add '{key}:' under 'params:'"
            raise NormaError(f"the checker '{use}' needs the parameter '{key}'", where=where, mend=mend) from None
        message = first["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        raise NormaError(f"the checker '{use}'{f', parameter {key!r}' if key else ''}: {message}", where=where) from None
    return ProgramChecker(entry, bound)
