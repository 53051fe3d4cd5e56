"""Rows of a task, whatever the file: JSON lines, tables, SQuAD's JSON, texts.

file, or folder with test.* and train.* ─→ rows of columns ─→ Example (prompt, answers, choices)
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from norma.base.errors import NormaError
from norma.base.hashing import digest
from norma.base.random import keyed
from norma.evaluate.benchmarks.task import Task
from norma.text.quarantine import Quarantine
from norma.text.readers import read

_FIELD = re.compile(r"\{(\w+)\}")
SIDES = {"test": ("test", "dev", "validation", "val", "trial"), "train": ("train",)}


@dataclass(frozen=True)
class Example:
    """One row as it is asked.

    Attributes:
        id: the same for the same content, whatever the sample.
        cluster: what it was made from; rows of one paragraph are not independent.
        prompt: what is asked, without examples.
        answers: the right ones, written out.
        choices: words of each choice, as they follow the prompt, and ``right``, which of them is right.
        lead: what stands between prompt and answer: a space where words are written apart.
    """

    id: str
    cluster: str
    prompt: str
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    right: int = -1
    lead: str = " "

    @property
    def shown(self) -> str:
        """With its first right answer: what an example in a prompt looks like."""
        if self.choices:
            return self.prompt + self.choices[self.right]
        return self.prompt + self.lead + (self.answers[0] if self.answers else "")


def filled(template: str, row: Mapping[str, Any], where: str) -> str:
    """``template`` with the row's columns in it."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in row:
            raise NormaError(f"the row has no column '{name}'", where=where, mend=f"It has {', '.join(map(str, row))}")
        found = row[name]
        return str(found[0] if isinstance(found, list) and found else found).strip()

    return _FIELD.sub(value, template)


def examples(task: Task, name: str, side: str, *, count: int | None = None, seed: int = 0) -> list[Example]:
    """Rows of one side (test or train) of a task, ``count`` of them drawn by ``seed``; always in the file's order."""
    path = _place(task, name, side)
    rows = _squad(path) or _columns(path, task)
    if count is not None and count < len(rows):
        chosen = sorted(keyed(seed, 0, use=f"benchmark {name} {side}").permutation(len(rows))[:count].tolist())
        rows = [rows[i] for i in chosen]
    return [_example(task, row, where) for row, where in rows]


def _place(task: Task, name: str, side: str) -> Path:
    given = task.train if side == "train" and task.train else task.data
    assert given is not None
    path = Path(given).expanduser()
    if side == "train" and not task.train and path.is_file():
        path = path.parent
    if not path.exists():
        option = "train" if side == "train" and task.train else "data"
        raise NormaError("file not found", where=path, mend=f"Say where the rows of '{name}' are: --{option} {name}=PATH")
    if path.is_dir():
        found = [p for wanted in SIDES[side] for p in sorted(path.iterdir()) if p.name.startswith(f"{wanted}.")]
        if found:
            return found[0]
        if side == "train":
            raise NormaError(f"no training rows for examples of '{name}'", where=path, mend=f"Add --train {name}=PATH, or --shots 0")
        files = [p for p in sorted(path.iterdir()) if p.is_file() and not p.name.startswith((".", "train."))]
        if len(files) != 1:
            raise NormaError(f"which file holds the test rows of '{name}'?", where=path, mend=f"Name it: --data {name}={path}/FILE")
        return files[0]
    return path


def _squad(path: Path) -> list[tuple[dict[str, Any], str]]:
    """Rows of SQuAD's JSON; none where the file is another."""
    if not path.name.endswith((".json", ".json.gz")):
        return []
    try:
        text = (gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()).decode("utf-8-sig")
        data = json.loads(text)
    except (OSError, ValueError):
        return []  # the reader of JSON says what is wrong
    if not isinstance(data, dict) or not isinstance(data.get("data"), list):
        return []
    out: list[tuple[dict[str, Any], str]] = []
    try:
        for number, entry in enumerate(data["data"]):
            for place, paragraph in enumerate(entry["paragraphs"]):
                for qa in paragraph["qas"]:
                    right = list(dict.fromkeys(str(a["text"]) for a in qa.get("answers", [])))
                    row = {"id": str(qa["id"]), "context": paragraph["context"], "question": qa["question"], "answers": right}
                    row |= {"title": entry.get("title", ""), "cluster": f"{number}.{place}"}
                    out.append((row, f"{path}: {qa['id']}"))
    except (KeyError, TypeError, IndexError) as error:
        raise NormaError(f"this looks like SQuAD's JSON and is not whole ({error})", where=path) from None
    return out


def _columns(path: Path, task: Task) -> list[tuple[dict[str, Any], str]]:
    rows: list[tuple[dict[str, Any], str]] = []
    with Quarantine() as quarantine:
        for record in read(path, quarantine):
            tabbed = task.columns and set(record.fields) == {"title", "text"}  # lines of a .txt file
            for offset, line in enumerate(str(record.fields["text"]).splitlines() if tabbed else [None]):
                where = f"{path}:{record.line + offset}"
                fields = record.fields if line is None else dict(enumerate(line.split("\t")))
                rows.append((_named(fields, task.columns, where), where))
    return rows


def _named(fields: Mapping[Any, Any], columns: Sequence[str] | None, where: str) -> dict[str, Any]:
    """Columns by the names that the task gives them, where the file has none."""
    if not columns or set(columns) <= set(fields):
        return dict(fields)
    if len(fields) < len(columns):
        raise NormaError(f"{len(fields)} columns where {len(columns)} are named", where=where)
    return dict(zip(columns, fields.values(), strict=False))


def _example(task: Task, row: Mapping[str, Any], where: str) -> Example:
    if task.kind in ("language", "pairs"):
        text = str(row.get("text", ""))
        return Example(str(row.get("id") or digest(text)[:12]), str(row.get("source") or row.get("id") or digest(text)[:12]), text)
    prompt = filled(task.prompt, row, where)
    name = str(row.get("id") or digest([prompt, str(row)])[:12])
    cluster = str(row.get("cluster") or row.get("source") or name)
    if task.kind == "choice":
        return _choices(task, row, where, prompt, name, cluster)
    field = _FIELD.fullmatch(task.answer)
    found = row.get(field[1]) if field else None
    answers = tuple(str(a).strip() for a in found) if isinstance(found, list) else (filled(task.answer, row, where),)
    return Example(name, cluster, prompt, answers, lead="" if task.language.split("-")[0] in ("zh", "ja") else " ")


def _choices(task: Task, row: Mapping[str, Any], where: str, prompt: str, name: str, cluster: str) -> Example:
    right = filled(task.answer, row, where)
    if isinstance(task.choices, dict):
        labels, said = list(task.choices), list(task.choices.values())
    elif task.choices:
        said = [" " + filled(f"{{{column}}}", row, where) for column in task.choices]
        labels = list(task.choices)
    else:
        raise NormaError("the task names no choices", where=where, mend="choices: {label: words, ...}")
    if right in labels:
        place = labels.index(right)
    elif right.isdecimal() and int(right) < len(labels):
        place = int(right)
    else:
        raise NormaError(f"'{right}' is none of the labels {', '.join(labels)}", where=where)
    return Example(name, cluster, prompt, (said[place].strip(),), tuple(said), place)
