"""Strict YAML for recipes and specs: every value knows its place, nothing is guessed, nothing is executed.

Every plain scalar stays TEXT until a schema says otherwise (``no`` stays "no", ``1.10`` stays "1.10"); pydantic turns
"0.95" into a float where a float is declared. ``null``, ``~`` and an empty value become None; quoted ones stay text.
Duplicate keys, anchors, aliases, tags and merge keys are errors with file:line:column. Text is NFC-normalised.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from norma.base.errors import NormaError, nearest

Path_ = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)
DEEPEST = 64


class Document:
    """Plain data read from YAML, with the place of every key and item."""

    def __init__(self, data: Any, places: dict[Path_, tuple[int, int]], name: str) -> None:
        self.data, self.places, self.name = data, places, name

    def where(self, path: Path_ = ()) -> str:
        """``file:line:column`` of the value at ``path`` or of its nearest ancestor that is in the file."""
        while path not in self.places and path:
            path = path[:-1]
        line, column = self.places.get(path, (1, 1))
        return f"{self.name}:{line}:{column}"


def load_yaml(path: Path) -> Document:
    """Read a YAML file strictly. Raises NormaError with file:line:column."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise NormaError("file not found", where=path, mend="Check the path; 'norma init DIR' writes a project to start from") from None
    except IsADirectoryError:
        raise NormaError("this is a folder, not a YAML file", where=path) from None
    except PermissionError:
        raise NormaError("reading this file is not permitted", where=path) from None
    except UnicodeDecodeError as error:
        raise NormaError(f"not UTF-8 text (byte {error.start})", where=path, mend="Save the file as UTF-8") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str = "<text>") -> Document:
    """Parse YAML text strictly; ``name`` is used in error places."""
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            mark = event.start_mark
            place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:  # what reads the tree is recursive
                raise NormaError(f"lists or mappings are nested more than {DEEPEST} deep", where=place)
            if getattr(event, "anchor", None):
                raise NormaError("anchors and aliases are not used here", where=place, mend="Write the value out")
            tag = getattr(event, "tag", None)
            if tag and tag != "!":
                raise NormaError(f"the YAML tag '{tag}' is not used here", where=place, mend="Remove the tag")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        places: dict[Path_, tuple[int, int]] = {}
        data = None if root is None else _plain(root, (), places, name)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise NormaError(f"not valid YAML: {error.problem or error.context}", where=place) from None
    except yaml.YAMLError as error:
        raise NormaError(f"not valid YAML: {error}", where=name) from None
    return Document(data, places, name)


def _plain(node: yaml.Node, path: Path_, places: dict[Path_, tuple[int, int]], name: str) -> Any:
    places.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = f"{name}:{key_node.start_mark.line + 1}:{key_node.start_mark.column + 1}"
            if not isinstance(key_node, yaml.ScalarNode):
                raise NormaError("a key must be plain text", where=place)
            key = unicodedata.normalize("NFC", key_node.value)
            if key in result:
                raise NormaError(f"the key '{key}' stands twice", where=place, mend="Keep one of the two")
            if key == "<<":
                raise NormaError("merge keys are not used here", where=place, mend="Write the values out")
            places[(*path, key)] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            result[key] = _plain(value_node, (*path, key), places, name)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, i), places, name) for i, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    if node.style is None and node.value in ("", "~", "null"):
        return None
    return unicodedata.normalize("NFC", node.value)


def validate(document: Document, model: type[M], path: Path_ = ()) -> M:
    """Check ``document`` (or its part at ``path``) against a pydantic model; the first error becomes one NormaError."""
    data = document.data
    for part in path:
        data = data[part]
    if data is None:
        raise NormaError("the file holds nothing", where=document.where(path))
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _readable(error, document, model, path) from None


def _readable(error: ValidationError, document: Document, model: type[BaseModel], path: Path_) -> NormaError:
    first = error.errors()[0]
    # pydantic adds names of union branches to `loc`; only parts that stand in the file are kept.
    location: Path_ = path
    for part in first["loc"]:
        if (*location, part) in document.places:
            location = (*location, part)
        elif first["type"] == "missing" and part == first["loc"][-1]:
            return NormaError(f"the key '{part}' is missing", where=document.where(location), mend=f"Add '{part}:'")
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        return NormaError(f"unknown key '{key}'", where=document.where(location), mend=nearest(key, _keys(model, first["loc"])))
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    key = f"'{location[-1]}': " if location else ""
    return NormaError(f"{key}{message}", where=document.where(location))


def _keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys allowed where ``loc`` points: walk nested models by field name or alias."""
    current: list[type[BaseModel]] = [model]
    for part in loc[:-1]:
        found: list[type[BaseModel]] = []
        for m in current:
            for name, field in m.model_fields.items():
                if part in (name, field.alias):
                    found += _models(field.annotation)
        # A list index, a mapping key or a union branch name: stay with the same candidates.
        current = found or [m for m in current if m.__name__ == part] or current
    return sorted({field.alias or name for m in current for name, field in m.model_fields.items()})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for part in getattr(annotation, "__args__", ()) for m in _models(part)]
