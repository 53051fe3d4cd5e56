"""Keep the docs true to the code: line numbers in principles.md, tables in recipes.md and checkers.md. `make docs` runs it, a test asks.

docs/principles.md  [src/norma/x.py:12](../src/norma/x.py#L12) `name` ─→ the line where `name` is defined now
docs/recipes.md     between <!-- options --> and <!-- /options -->    ─→ a table per pydantic model of a recipe
docs/checkers.md    between <!-- checkers --> and <!-- /checkers -->  ─→ every program and kind of checker, with its parameters
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from norma.check import known_programs
from norma.check.amounts import Bounds
from norma.check.classifier import ClassifierParams
from norma.check.composite import Parts
from norma.check.human import HumanParams
from norma.check.judge import JudgeParams
from norma.check.reward_model import RewardParams
from norma.pipeline.recipe import Recipe
from norma.pipeline.stage import InputRef
from norma.pipeline.stages import KINDS, find

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = re.compile(r"\[(src/[\w/]+\.py):(\d+)\]\(\.\./(src/[\w/]+\.py)#L(\d+)\) `([\w.]+)`")
OPTIONS = re.compile(r"(?<=<!-- options -->\n).*?(?=<!-- /options -->)", re.DOTALL)
CHECKERS = re.compile(r"(?<=<!-- checkers -->\n).*?(?=<!-- /checkers -->)", re.DOTALL)
_STAGE = get_args(InputRef)[1]  # what marks an option that names a stage
_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything", type(None): "null"}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def line_of(path: Path, symbol: str) -> int:
    """The line on which a function or class (``Class.method`` too) is defined. Raises LookupError."""
    body: list[ast.stmt] = ast.parse(path.read_text(encoding="utf-8")).body
    node: ast.stmt | None = None
    for name in symbol.split("."):
        node = next((n for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name == name), None)
        if node is None:
            raise LookupError(f"{symbol} is not defined in {path}")
        body = node.body
    assert node is not None
    return node.lineno


def principles(text: str) -> str:
    """``text`` with every reference pointing to the line where its symbol stands."""

    def renew(match: re.Match[str]) -> str:
        path, _, linked, _, symbol = match.groups()
        if path != linked:
            raise LookupError(f"the text says {path}, the link {linked}")
        line = line_of(ROOT / path, symbol)
        return f"[{path}:{line}](../{path}#L{line}) `{symbol}`"

    return REFERENCE.sub(renew, text)


def recipes(text: str) -> str:
    """``text`` with the option tables made anew from the models."""
    return OPTIONS.sub(lambda _: _tables(), text)


def _tables() -> str:
    stages = {kind: find(kind) for kind in KINDS}
    parts = ["### The file\n\n" + _table(Recipe)]
    parts += [f"### Stage kind `{kind}`\n\n{_first_line(type(stage))}\n\n{_table(stage.Options)}" for kind, stage in stages.items()]
    seen: list[type[BaseModel]] = []
    pending = [model for stage in stages.values() for model in _nested(stage.Options)]
    while pending:
        model = pending.pop(0)
        if model not in seen:
            seen.append(model)
            pending += _nested(model)
    parts += [f"### {model.__name__}\n\n{_first_line(model)}\n\n{_table(model)}" for model in seen]
    return "\n" + "\n".join(parts) + "\n"


def checkers(text: str) -> str:
    """``text`` with the programs and kinds of checkers listed anew."""
    return CHECKERS.sub(lambda _: _programs() + _kinds(), text)


def _programs() -> str:
    parts = ["\n## Programs\n"]
    for name, entry in known_programs().items():
        spoken = f" Languages: {', '.join(sorted(entry.languages))}." if entry.languages else ""
        table = f"\n{_table(entry.params)}" if entry.params.model_fields else ""
        parts.append(f"### `{name}`\n\n{entry.summary}{spoken}\n{table}")
    return "\n".join(parts)


def _kinds() -> str:
    models = {"composite": Parts, "classifier": ClassifierParams, "reward": RewardParams, "judge": JudgeParams, "human": HumanParams}
    parts = [f"### Kind `{kind}`\n\n{_table(model)}" for kind, model in models.items()]
    return "\n## Parameters of the other kinds\n\n" + "\n".join([*parts, f"### Bounds\n\n{_table(Bounds)}"]) + "\n"


def _first_line(owner: type) -> str:
    return (owner.__doc__ or "").strip().partition("\n")[0].replace("``", "`")


def _table(model: type[BaseModel]) -> str:
    rows = ["| key | value | default | |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if name == "kind":
            continue
        cells = (f"`{field.alias or name}`", _value(field), _default(field), field.description or "")
        rows.append("| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _value(field: FieldInfo) -> str:
    marked = any(part is _STAGE for part in field.metadata)
    said = "stage" if marked else _words(field.annotation)
    bounds = [f"{sign} {getattr(part, key):,}" for part in field.metadata for key, sign in _BOUNDS.items() if hasattr(part, key)]
    choices = [part.pattern.strip("^()$").replace("|", ", ") for part in field.metadata if getattr(part, "pattern", None)]
    if choices:
        return f"one of {choices[0]}"
    return ", ".join([said, *bounds])


def _words(kind: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return "stage" if _STAGE in inner else _words(inner[0])
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner)) if len(inner) > 1 else str(inner[0])
    if origin in (Union, UnionType):
        return " or ".join(_words(part) for part in inner if part is not type(None))
    if origin is tuple:
        return f"list of {_words(inner[0])}"
    if origin is list:
        return f"list of {_words(inner[0])}"
    if origin is dict:
        return f"mapping of {_words(inner[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    return _WORDS[kind]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        chosen = value.model_dump(mode="json", exclude_unset=True)
        return "its defaults" if not chosen else ", ".join(f"{k}: {json.dumps(v)}" for k, v in chosen.items())
    if isinstance(value, list) and value and isinstance(value[0], BaseModel):
        value = [part.model_dump(mode="json", exclude_unset=True) for part in value]
    return "" if value is None or value in ([], {}) else f"`{json.dumps(value, ensure_ascii=False)}`"


def _nested(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The models that the options of ``model`` are made of, in order."""

    def within(kind: Any) -> Iterator[type[BaseModel]]:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield kind
        for part in get_args(kind):
            yield from within(part)

    for field in model.model_fields.values():
        yield from within(field.annotation)


FILES = {"principles.md": principles, "recipes.md": recipes, "checkers.md": checkers}


def main() -> int:
    for name, renew in FILES.items():
        path = ROOT / "docs" / name
        old = path.read_text(encoding="utf-8")
        new = renew(old)
        if new != old:
            path.write_text(new, encoding="utf-8")
            print(f"renewed docs/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
