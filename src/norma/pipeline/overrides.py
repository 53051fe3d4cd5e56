"""Values changed from outside the recipe's text: ``pretrain.tokens=1000000`` on the command line, or a ``scales`` entry.

A dotted key starts with a stage's name or a key of the recipe; numbers step into lists. The changed value remembers where it
came from, so that a wrong one is reported with the override's own text (or the scale's line) as its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from norma.base.errors import NormaError, nearest
from norma.base.strict_yaml import Document, Path_, parse_yaml


class Editable(Document):
    """A document whose values can be replaced, each with a place of its own."""

    def __init__(self, document: Document) -> None:
        super().__init__(document.data, dict(document.places), document.name)
        self._origins: dict[Path_, str] = {}

    def where(self, path: Path_ = ()) -> str:
        while path and path not in self._origins and path not in self.places:
            path = path[:-1]
        return self._origins.get(path) or super().where(path)

    def put(self, path: Path_, value: Any, origin: str) -> None:
        """Replace the value at ``path``, making mappings on the way. Raises NormaError when the way is blocked."""
        current = self.data
        for depth, part in enumerate(path):
            last = depth == len(path) - 1
            if isinstance(current, list):
                if not (isinstance(part, str) and part.isdigit() and int(part) < len(current)):
                    at = ".".join(map(str, path[:depth]))
                    raise NormaError(f"'{part}' is no place in the list '{at}' of {len(current)}", where=origin, mend="Count from 0")
                part = int(part)
                path = (*path[:depth], part, *path[depth + 1 :])
            elif not isinstance(current, dict):
                at = ".".join(map(str, path[:depth]))
                raise NormaError(f"'{at}' holds one value, it has no '{part}'", where=origin, mend="Set it whole")
            if last:
                current[part] = value
            elif isinstance(current, list):
                current = current[int(part)]
            else:
                if current.get(str(part)) is None:
                    current[str(part)] = {}
                current = current[str(part)]
        for old in [p for p in self.places if p[: len(path)] == path]:
            del self.places[old]
        for old in [p for p in self._origins if p[: len(path)] == path]:
            del self._origins[old]
        for depth in range(1, len(path) + 1):
            if path[:depth] not in self.places:
                self.places[path[:depth]] = (1, 1)
                self._origins[path[:depth]] = origin


def apply(
    document: Editable, overrides: Sequence[str] | Sequence[tuple[str, Any]], keys: Sequence[str], places: Mapping[str, str] | None = None
) -> None:
    """Put ``key=value`` texts or (key, value) pairs into ``document``; ``keys`` are the keys a recipe has."""
    for override in overrides:
        if isinstance(override, str):
            key, equals, text = override.partition("=")
            key = key.strip()
            if not equals or not key:
                raise NormaError(f"'{override}' is not key=value", mend="Write for example 'seed=1' or 'pretrain.tokens=1000000'")
            value, origin = parse_yaml(text, override).data, override
        else:
            key, value = override
            origin = (places or {}).get(key, f"{key}={value}")
        parts = tuple(key.split("."))
        stages = document.data.get("stages") if isinstance(document.data, dict) else None
        if parts[0] == "stages" and len(parts) > 1:
            parts = parts[1:]
        if isinstance(stages, dict) and parts[0] in stages:
            if len(parts) == 1:
                raise NormaError(f"'{key}' is a stage, not an option", where=origin, mend=f"Write '{key}.OPTION=value'")
            parts = ("stages", *parts)
        elif parts[0] not in keys or parts[0] in ("stages", "scales", "trust"):
            known = [*(stages or {}), *(k for k in keys if k not in ("stages", "scales", "trust", "norma"))]
            raise NormaError(f"'{parts[0]}' is neither a stage nor a key of the recipe", where=origin, mend=nearest(parts[0], known))
        document.put(parts, value, origin)
