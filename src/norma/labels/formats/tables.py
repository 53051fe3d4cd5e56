"""CSV and JSON lines: a mapping says which column is what. One row may hold the marks of several people side by side.

    item=Community+Id  response=Request  annotator=TurkId*  score=Score*

``A+B`` joins columns with ``#``; a ``*`` stands for whatever tells parallel columns apart (TurkId1 goes with Score1). Without a mapping the
columns are Norma's own (those of ``Label.row``), as ``write`` gives them.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any

from norma.base.errors import NormaError, nearest
from norma.base.hashing import digest
from norma.labels.formats.batch import Batch, Reading
from norma.labels.rows import Label
from norma.spec.types import Item

_OWN = [f.name for f in fields(Label)]
_KNOWN = {*_OWN, "prompt", "cluster"}
_QUEUE = {"draw", "place", "cluster", "messages"}  # further columns of a queue's rows (``queues.to_mark``)
_NUMBERS: dict[str, Callable[[Any], Any]] = {"score": float, "seconds": float, "inclusion_probability": float, "revision": int}


def write(labels: Iterable[Label]) -> str:
    """CSV of Norma's own columns; spans as JSON. An empty cell is a missing value, so an empty text and none are one."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["key", *_OWN])
    for label in labels:
        row = label.row()
        cells = {**row, "spans": json.dumps(row["spans"]) if row["spans"] else "", "gold": "true" if label.gold else ""}
        writer.writerow(["" if cells[name] is None else cells[name] for name in ("key", *_OWN)])
    return out.getvalue()


def read(
    rows: Iterable[tuple[str, Mapping[str, Any]]], reading: Reading, columns: Mapping[str, str] | None = None, where: str = "table"
) -> Batch:
    """Labels of a table. ``rows``: (place for messages, {column: cell}); ``columns``: {field of a label, or prompt, or cluster: column}."""
    if not columns:
        own = list(rows)
        asked = {str(row["item"]): row for _, row in own if row.get("messages")}
        items = [
            Item(item, tuple(row["messages"]), row.get("language") or "en", cluster=row.get("cluster", "")) for item, row in asked.items()
        ]
        return Batch([_own(row, place) for place, row in own], items)
    if unknown := set(columns) - _KNOWN:
        raise NormaError(f"unknown field '{min(unknown)}' in the mapping", where=where, mend=nearest(min(unknown), _KNOWN))
    if "response" not in columns or not {"verdict", "score"} & set(columns):
        raise NormaError("the mapping must name 'response', and 'verdict' or 'score'", where=where, mend="--map response=COLUMN,...")
    batch = Batch([])
    seen: set[str] = set()
    stars: dict[tuple[str, ...], list[str]] = {}
    for place, row in rows:
        header = tuple(row)
        if header not in stars:
            stars[header] = _stars(header, columns, where)
        for star in stars[header]:
            cells = {name: _cell(row, column, star, place) for name, column in columns.items()}
            if all(cells.get(name) in (None, "") for name in ("verdict", "score")):
                continue  # fewer people marked this row than others
            label, item = _label(cells, reading, place)
            batch.labels.append(label)
            if item is not None and item.id not in seen:
                seen.add(item.id)
                batch.items.append(item)
    return batch


def _stars(header: tuple[str, ...], columns: Mapping[str, str], where: str) -> list[str]:
    """What the star stands for in this table, in the order of its columns; [""] without stars."""
    found: list[str] | None = None
    for column in columns.values():
        for part in column.split("+"):
            if "*" in part:
                pattern = re.compile(re.escape(part).replace(r"\*", "(.+)"))
                here = [m.group(1) for name in header if (m := pattern.fullmatch(name))]
                found = here if found is None else [star for star in found if star in here]
                if not found:
                    raise NormaError(f"no column fits '{part}'", where=where, mend=f"Columns: {', '.join(header)}")
            elif part not in header:
                raise NormaError(f"there is no column '{part}'", where=where, mend=nearest(part, header))
    return found if found is not None else [""]


def _cell(row: Mapping[str, Any], column: str, star: str, place: str) -> Any:
    parts = [row.get(part.replace("*", star)) for part in column.split("+")]
    return parts[0] if len(parts) == 1 else "#".join("" if part is None else str(part) for part in parts)


def _label(cells: Mapping[str, Any], reading: Reading, place: str) -> tuple[Label, Item | None]:
    response = "" if cells["response"] is None else str(cells["response"])
    prompt = cells.get("prompt") or ""
    item = str(cells.get("item") or digest(["prompt", prompt or response])[:16])
    rule = reading.rule_of(str(cells.get("rule") or ""), place)
    scored = cells.get("score") not in (None, "")
    verdict, score = reading.mark(cells["score"] if scored else cells["verdict"], place)
    if scored and cells.get("verdict") not in (None, ""):
        verdict, _ = reading.mark(cells["verdict"], place)
    more = {name: _typed(name, cells[name], place) for name in cells if name not in _HANDLED and cells[name] not in (None, "")}
    language = str(cells.get("language") or reading.language)
    annotator = str(cells.get("annotator") or reading.annotator or "unknown")
    hash = str(cells.get("rule_hash") or reading.hashes.get(rule, ""))
    made: dict[str, Any] = {"language": language, "guideline": reading.guideline, **more}
    label = Label(item=item, response=response, rule=rule, rule_hash=hash, annotator=annotator, verdict=verdict, score=score, **made)
    cluster = str(cells.get("cluster") or "")
    if not prompt and not cluster:
        return label, None
    return label, Item(item, ({"role": "user", "content": str(prompt)},) if prompt else (), language or "en", cluster=cluster)


_HANDLED = {"item", "response", "rule", "rule_hash", "annotator", "verdict", "score", "language", "prompt", "cluster"}


def _typed(name: str, value: Any, place: str) -> Any:
    """A cell as its field wants it."""
    try:
        if name == "spans":
            return json.loads(value) if isinstance(value, str) else value
        if name == "gold":
            return str(value).strip().lower() in ("true", "1", "yes")
        return _NUMBERS[name](value) if name in _NUMBERS else str(value)
    except (TypeError, ValueError):
        raise NormaError(f"'{value}' is not a value of '{name}'", where=place) from None


def _own(row: Mapping[str, Any], place: str) -> Label:
    """Norma's own row: from JSON as it is, from CSV with every cell a text and empty cells left out."""
    missing = {"item", "response", "rule", "annotator", "verdict"} - set(row)
    if missing:
        mend = f"Say which column is what: --map {min(missing)}=COLUMN,... (columns: {', '.join(map(str, row))})"
        raise NormaError(f"not Norma's own labels: '{min(missing)}' is missing", where=place, mend=mend)
    if all(isinstance(value, str) for value in row.values()):
        texts = {"key", "response_hash", "item", "response", "rule", "rule_hash", "annotator", "verdict"}
        row = {name: value if name in texts else _typed(name, value, place) for name, value in row.items() if name in texts or value != ""}
    return Label.from_row({"rule_hash": "", **{name: row[name] for name in row if name not in _QUEUE}}, where=place)
