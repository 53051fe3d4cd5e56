"""``norma predict``: what a task model says of new input."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from norma.base.errors import NormaError

_WIDE = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef"
_WORDS = re.compile(f"[{_WIDE}]|[^\\s{_WIDE}]+")  # words between spaces, Chinese characters one by one


def predict(
    model: Annotated[Path, typer.Argument(help="A task model's folder, as a task, pretrain or sft stage writes it.")],
    text: Annotated[str | None, typer.Option(help="What to classify, tag, translate or summarise; the text that holds the answer.")] = None,
    pair: Annotated[str | None, typer.Option(help="The second text of a pair.")] = None,
    question: Annotated[str | None, typer.Option(help="What to find in --text.")] = None,
    input_: Annotated[
        Path | None, typer.Option("--input", metavar="FILE", help="Many: rows with text (pair), tokens, question and context, or source.")
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the .jsonl rows go [default: the screen].")] = None,
    beams: Annotated[int, typer.Option(min=1, help="Beams of a model that writes.")] = 5,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest text of a model that writes.")] = 128,
    length_penalty: Annotated[float, typer.Option(help="Above 0 longer texts gain.")] = 1.0,
) -> None:
    """Labels, labels of words, answers found in a text, translations and summaries: for one text (--text) or a file (--input)."""
    if (text is None) == (input_ is None):
        raise NormaError("say what to read", mend="Give either --text TEXT or --input FILE")
    if text is not None and output is not None:
        raise NormaError("--output goes with --input", mend="Redirect the one answer with '>'")
    from norma.base.files import to_json, write_jsonl
    from norma.tasks.model import TaskModel

    task = TaskModel.load(model)
    writing = {"beams": beams, "max_new_tokens": max_new_tokens, "length_penalty": length_penalty} if task.shape == "texts" else {}
    if input_ is None:
        row = one(task.shape, text or "", pair, question)
        answer = task.predict([row], **writing)[0]
        if task.shape in ("questions", "texts"):
            print(answer["predicted"])
        else:
            print(to_json({name: value for name, value in answer.items() if name not in row}))
        return
    rows = task.predict(read(input_, task.shape), **writing)
    if output:
        write_jsonl(output, rows)
        print(f"{len(rows)} predictions in {output}")
    else:
        for row in rows:
            print(to_json(row))


def one(shape: str, text: str, pair: str | None, question: str | None) -> dict[str, Any]:
    """The row of one text, as the model reads it."""
    if shape == "questions":
        if question is None:
            raise NormaError("this model finds answers in a text", mend="Give --question beside --text")
        return {"question": question, "context": text}
    if shape == "tokens":
        return {"tokens": _WORDS.findall(text)}
    if shape == "texts":
        return {"source": text}
    return {"text": text} | ({} if pair is None else {"pair": pair})


def read(path: Path, shape: str) -> list[dict[str, Any]]:
    """The rows of a file of input: labels and targets may be missing. A text file is a text a line."""
    from norma.tasks.rows import NAMES, lines, read_rows
    from norma.text.formats import suffix
    from norma.text.quarantine import Quarantine
    from norma.text.readers import read as read_records

    if not path.is_file():
        raise NormaError("file not found", where=path, mend="Check the path")
    with Quarantine() as quarantine:
        if shape == "questions" and suffix(path) == ".json":
            return read_rows(path, "questions", {}, quarantine)
        if suffix(path) == ".txt":
            return [one(shape, line, None, None) for line in lines(path) if line.strip()]
        found = []
        wanted = {"labels": ("text", "pair"), "tokens": ("tokens",), "texts": ("source",), "questions": ("question", "context")}[shape]
        for record in read_records(path, quarantine):
            row: dict[str, Any] = {k: v for k, v in record.fields.items() if k in ("id", "label", "labels", "target", "answers")}
            for name in wanted:
                column = next((c for c in (name, *NAMES.get(name, ())) if c in record.fields), None)
                if column is not None:
                    row[name] = record.fields[column]
            found.append(row)
        if len(quarantine):
            raise NormaError(f"{len(quarantine)} rows cannot be read", where=path, mend="'norma data check FILE' says which")
    return found
