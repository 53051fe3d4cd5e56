"""The form of an answer: JSON (by a schema), Markdown, a list, a table, a code block.

JSON by jsonschema, Markdown by markdown-it-py (CommonMark with tables); neither fetches anything.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, Literal, Self

from jsonschema import SchemaError
from jsonschema.validators import validator_for
from markdown_it import MarkdownIt
from markdown_it.token import Token
from pydantic import Field, field_validator, model_validator

from norma.check.program import Outcome, Params, program
from norma.spec.types import Item


class JsonParams(Params):
    """What the JSON must be."""

    schema_: dict[str, Any] | bool = Field(default=True, alias="schema", description="JSON Schema that the value must satisfy.")
    fence: Literal["allowed", "forbidden", "needed"] = Field(
        default="allowed", description="Whether the JSON may stand in a fenced code block."
    )

    @field_validator("schema_")
    @classmethod
    def _schema(cls, value: dict[str, Any] | bool) -> dict[str, Any] | bool:
        try:
            validator_for(value).check_schema(value)
        except SchemaError as error:
            raise ValueError(f"not a JSON Schema: {error.message}") from None
        if isinstance(value, dict) and _references(value):
            raise ValueError(f"a schema refers to itself only, by #/...: '{_references(value)[0]}' would be fetched")
        return value


_FENCE = re.compile(r"\A\s*```(?:json|JSON|Json)?[ \t]*\n(.*?)\n?```\s*\Z", re.DOTALL)


@program("json", JsonParams, packages=("jsonschema",))
def json_by_schema(item: Item, text: str, params: JsonParams) -> Outcome:
    """The whole answer is JSON that satisfies the schema; score .5: JSON, but against the schema."""
    fenced = _FENCE.match(text)
    if fenced and params.fence == "forbidden":
        return Outcome(0.0, (), "in a code block")
    if not fenced and params.fence == "needed":
        return Outcome(0.0, (), "not in a code block")
    try:
        value = json.loads(fenced.group(1) if fenced else text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return Outcome(0.0, (), f"not JSON: {error}")
    validator = validator_for(params.schema_)(params.schema_)
    faults = sorted(validator.iter_errors(value), key=lambda fault: list(map(str, fault.absolute_path)))
    if faults:
        place = "/".join(map(str, faults[0].absolute_path)) or "the value"
        return Outcome(0.5, (), f"{place}: {faults[0].message}"[:200], -float(len(faults)))
    return Outcome(1.0)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _references(schema: Any) -> list[str]:
    """What a schema refers to outside itself."""
    if isinstance(schema, dict):
        own = [value for key, value in schema.items() if key in ("$ref", "$dynamicRef") and not str(value).startswith("#")]
        return own + [ref for value in schema.values() for ref in _references(value)]
    return [ref for value in schema for ref in _references(value)] if isinstance(schema, list) else []


class MarkdownParams(Params):
    """What Markdown must, or must not, hold. A bound of null does not matter."""

    min_headings: int = Field(default=0, ge=0, description="Fewest headings.")
    max_headings: int | None = Field(default=None, ge=0, description="Most headings.")
    min_items: int = Field(default=0, ge=0, description="Fewest list items.")
    max_items: int | None = Field(default=None, ge=0, description="Most list items.")
    lists: Literal["any", "bullet", "ordered"] = Field(default="any", description="Which list items are counted.")
    min_tables: int = Field(default=0, ge=0, description="Fewest tables.")
    max_tables: int | None = Field(default=None, ge=0, description="Most tables.")
    columns: int | None = Field(default=None, ge=1, description="Columns that every table must have.")
    min_rows: int = Field(default=0, ge=0, description="Fewest rows of every table, its head not counted.")
    min_code_blocks: int = Field(default=0, ge=0, description="Fewest fenced code blocks.")
    max_code_blocks: int | None = Field(default=None, ge=0, description="Most fenced code blocks.")
    min_emphasis: int = Field(default=0, ge=0, description="Fewest passages in * or **.")
    max_emphasis: int | None = Field(default=None, ge=0, description="Most passages in * or **.")
    only: Literal["anything", "list", "table", "text"] = Field(
        default="anything", description="What the whole answer is made of; text: no markup."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for low in ("min_headings", "min_items", "min_tables", "min_code_blocks", "min_emphasis"):
            high = getattr(self, low.replace("min", "max", 1))
            if high is not None and getattr(self, low) > high:
                raise ValueError(f"{low} ({getattr(self, low)}) is greater than {low.replace('min', 'max', 1)} ({high})")
        if all(getattr(self, name) == field.default for name, field in type(self).model_fields.items()):
            raise ValueError("nothing is asked for: give a bound, or 'only'")
        return self


@program("markdown", MarkdownParams, packages=("markdown-it-py",))
def markdown(item: Item, text: str, params: MarkdownParams) -> Outcome:
    """The Markdown has the headings, lists, tables, code blocks and emphasis that are asked for; score: the share of the demands met."""
    tokens = _parser().parse(text)
    faults = [*_counted(tokens, params), *_tables(tokens, params), *_made_of(tokens, params.only)]
    names = MarkdownParams.model_fields
    demands = sum(getattr(params, name) != names[name].default for name in names if name != "lists")
    return Outcome(max(0.0, 1 - len(faults) / max(1, demands)) if faults else 1.0, (), "; ".join(faults))


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark").enable("table")


def _counted(tokens: list[Token], params: MarkdownParams) -> list[str]:
    inline = [child for token in tokens for child in token.children or ()]
    counts = {
        "headings": sum(t.type == "heading_open" for t in tokens),
        "items": _items(tokens, params.lists),
        "tables": sum(t.type == "table_open" for t in tokens),
        "code_blocks": sum(t.type == "fence" for t in tokens),
        "emphasis": sum(t.type in ("em_open", "strong_open") for t in inline),
    }
    faults = []
    for name, count in counts.items():
        low, high = getattr(params, f"min_{name}"), getattr(params, f"max_{name}")
        if count < low:
            faults.append(f"{count} {name.replace('_', ' ')}, at least {low}")
        if high is not None and count > high:
            faults.append(f"{count} {name.replace('_', ' ')}, at most {high}")
    return faults


def _items(tokens: list[Token], lists: str) -> int:
    """List items, those of the other kind of list left out."""
    inside: list[str] = []
    count = 0
    for token in tokens:
        if token.type in ("bullet_list_open", "ordered_list_open"):
            inside.append(token.type.partition("_")[0])
        elif token.type in ("bullet_list_close", "ordered_list_close"):
            inside.pop()
        elif token.type == "list_item_open":
            count += lists in ("any", inside[-1])
    return count


def _tables(tokens: list[Token], params: MarkdownParams) -> list[str]:
    faults: list[str] = []
    columns = rows = 0
    for token in tokens:
        if token.type == "table_open":
            columns, rows = 0, -1  # the head's row
        columns += token.type == "th_open"
        rows += token.type == "tr_open"
        if token.type == "table_close":
            if params.columns is not None and columns != params.columns:
                faults.append(f"a table of {columns} columns, not {params.columns}")
            if rows < params.min_rows:
                faults.append(f"a table of {rows} rows, at least {params.min_rows}")
    return faults


def _made_of(tokens: list[Token], only: str) -> list[str]:
    top = [token for token in tokens if token.level == 0 and token.nesting >= 0]
    kinds = {token.type.removesuffix("_open") for token in top}
    allowed = {"list": {"bullet_list", "ordered_list"}, "table": {"table"}, "text": {"paragraph"}}.get(only)
    if allowed is None:
        return []
    odd = sorted(kinds - allowed)
    marks = [c.type for t in tokens for c in t.children or () if c.type in ("em_open", "strong_open", "code_inline", "link_open", "image")]
    if only == "text" and marks:
        odd.append(marks[0].removesuffix("_open"))
    return [f"not only {only}: {', '.join(odd)}"] if odd else []
