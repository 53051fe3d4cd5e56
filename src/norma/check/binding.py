"""Parameters from a spec, checked: every kind of checker says what is wrong with them in the same words."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from norma.base.errors import NormaError, nearest

M = TypeVar("M", bound=BaseModel)


def parameters(model: type[M], use: str, params: dict[str, Any], where: str) -> M:
    """``params`` as ``model``. Raises NormaError, placed at ``where``, with the nearest right name as the mend."""
    try:
        return model.model_validate(params)
    except ValidationError as error:
        found = error.errors()
        # A misspelt name before the one that is missing for it.
        first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = model.model_fields
            mend = nearest(key, known) if known else "This checker takes no parameters"
            raise NormaError(f"the checker '{use}' has no parameter '{key}'", where=where, mend=mend) from None
        if first["type"] == "missing":
            raise NormaError(
                f"the checker '{use}' needs the parameter '{key}'", where=where, mend=f"Add '{key}:' under 'params:'"
            ) from None
        message = first["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        raise NormaError(f"the checker '{use}'{f', parameter {key!r}' if key else ''}: {message}", where=where) from None
