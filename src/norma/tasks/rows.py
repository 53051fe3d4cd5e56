"""Rows of a task from the files that people have: one form for each shape of task.

| shape | row |
|---|---|
| labels | text, pair (of a sentence pair), label |
| tokens | tokens, labels |
| questions | context, question, answers [{text, start}]; no answers: the text does not say it |
| texts | source, target |

Tables and JSON lines go through ``norma.text.readers``; SQuAD's nested JSON, CoNLL's columns and parallel files are read here.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from norma.base.errors import NormaError
from norma.base.hashing import digest
from norma.text.formats import open_bytes, suffix
from norma.text.quarantine import Quarantine
from norma.text.readers import read

Shape = Literal["labels", "tokens", "questions", "texts"]
Row = dict[str, Any]

NAMES: Mapping[str, tuple[str, ...]] = {
    "text": ("text", "sentence", "text_a", "sentence1", "premise", "review", "content", "column1"),
    "pair": ("pair", "text_b", "sentence2", "hypothesis"),
    "label": ("label", "labels", "class", "category", "sentiment", "column2"),
    "tokens": ("tokens", "words"),
    "labels": ("labels", "tags", "ner_tags", "pos_tags"),
    "source": ("source", "article", "document", "body", "abstract", "en", "column1"),
    "target": ("target", "summary", "highlights", "subject", "title", "column2"),
}
"""What columns are called where a recipe does not say it, the first that there is."""


def read_rows(path: Path, shape: Shape, columns: Mapping[str, str], quarantine: Quarantine, *, second: Path | None = None) -> list[Row]:
    """All usable rows of a file; ``second`` is the other side of a parallel corpus, line by line.

    Args:
        columns: our name → the file's, where :data:`NAMES` does not find it.

    Raises NormaError where the file does not have what the shape needs. Each row gets an ``id``: of its content and its place.
    """
    if not path.exists():
        raise NormaError("file not found", where=path, mend="Give the task-data stage a file: data.train=FILE")
    if shape == "questions":
        found = list(_squad(path))
    elif shape == "texts" and second is not None:
        found = list(_parallel(path, second, quarantine))
    elif shape == "tokens" and suffix(path) in (".conll", ".bio", ".iob", ".txt"):
        found = list(_conll(path))
    else:
        found = list(_columns(path, shape, columns, quarantine))
    if not found:
        raise NormaError("no row can be used", where=path, mend=f"A row of shape '{shape}' has {', '.join(_needed(shape))}")
    name = path.name.split(".")[0]
    return [{"id": row.pop("id", None) or f"{name}:{number}", **row} for number, row in enumerate(found, 1)]


def key(row: Row) -> str:
    """What makes two rows the same: their input. Rows of one context are one source."""
    return digest([row.get("context") or row.get("text") or row.get("source") or row.get("tokens"), row.get("pair")])[:16]


def _needed(shape: Shape) -> tuple[str, ...]:
    return {"labels": ("text", "label"), "tokens": ("tokens", "labels"), "texts": ("source", "target"), "questions": ("data",)}[shape]


def _columns(path: Path, shape: Shape, columns: Mapping[str, str], quarantine: Quarantine) -> Iterator[Row]:
    needed = _needed(shape)
    optional = ("pair",) if shape == "labels" else ()
    for record in read(path, quarantine):
        row: Row = {}
        for name in (*needed, *optional):
            found = columns.get(name) or next((n for n in NAMES[name] if n in record.fields), None)
            if found is None or found not in record.fields:
                if name in optional and name not in columns:
                    continue
                what = f"a row has no column '{found or name}'"
                mend = f"It has {', '.join(record.fields)}; say columns: {{{name}: ...}}"
                raise NormaError(what, where=f"{path}:{record.line}", mend=mend)
            row[name] = record.fields[found]
        why = _unusable(row, shape)
        if why:
            quarantine.add(record.file, record.line, why)
            continue
        if shape == "labels":
            row["label"] = str(row["label"])
        if shape == "tokens":
            row = {"tokens": [str(t) for t in row["tokens"]], "labels": [str(t) for t in row["labels"]]}
        yield row


def _unusable(row: Row, shape: Shape) -> str:
    if shape == "tokens":
        lists = isinstance(row["tokens"], list) and isinstance(row["labels"], list)
        return "" if lists and len(row["tokens"]) == len(row["labels"]) > 0 else "tokens and labels are not two lists of one length"
    if shape == "labels" and row["label"] in (None, ""):
        return "no label"
    texts = [value for name, value in row.items() if name != "label"]
    return "" if all(isinstance(t, str) and t.strip() for t in texts) else "an empty text"


def _squad(path: Path) -> Iterator[Row]:
    """SQuAD's JSON (1606.05250; 2.0 with ``is_impossible``), which XQuAD and CMRC 2018 share."""
    try:
        with open_bytes(path) as raw:
            values = json.loads(raw.read())
        for article in values["data"]:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    yield {
                        "id": str(asked["id"]),
                        "context": paragraph["context"],
                        "question": asked["question"],
                        "answers": [] if asked.get("is_impossible") else list(_answers(paragraph["context"], asked.get("answers") or [])),
                    }
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise NormaError(f"this is no SQuAD file ({type(error).__name__}: {error})", where=path, mend="data[].paragraphs[].qas[]") from None


def _answers(context: str, answers: list[Any]) -> Iterator[dict[str, Any]]:
    """Answers with the place where they really stand: files often have it wrong. ``start`` -1: nowhere, which cannot be learnt."""
    for answer in answers:
        text, start = str(answer["text"]), int(answer.get("answer_start", -1))
        if start < 0 or context[start : start + len(text)] != text:
            places = [i for i in range(len(context)) if context.startswith(text, i)] if text else []
            start = min(places, key=lambda i: abs(i - start), default=-1)
        yield {"text": text, "start": start}


def _parallel(first: Path, second: Path, quarantine: Quarantine) -> Iterator[Row]:
    sides = [lines(p) for p in (first, second)]
    if len(sides[0]) != len(sides[1]):
        what = f"{len(sides[0])} lines here, {len(sides[1])} in {second.name}"
        raise NormaError(what, where=first, mend="Parallel files have as many lines")
    for number, (a, b) in enumerate(zip(*sides, strict=True), 1):
        if a.strip() and b.strip():
            yield {"source": a.strip(), "target": b.strip()}
        else:
            quarantine.add(first.name, number, "an empty text")


def lines(path: Path) -> list[str]:
    """The lines of a text file, ``.gz`` or not."""
    if not path.is_file():
        raise NormaError("file not found", where=path, mend="Check the path")
    with open_bytes(path) as raw:
        return [line.rstrip("\r\n") for line in io.TextIOWrapper(raw, "utf-8-sig", "replace")]


def _conll(path: Path) -> Iterator[Row]:
    """A token a line, its label in the last column, a blank line between sentences (CoNLL-2003)."""
    tokens: list[str] = []
    labels: list[str] = []
    for line in [*lines(path), ""]:
        cells = line.split()
        if cells and not line.startswith("-DOCSTART-"):
            tokens.append(cells[0])
            labels.append(cells[-1])
        elif tokens:
            yield {"tokens": tokens, "labels": labels}
            tokens, labels = [], []
