"""A benchmark task: where its rows are, what is asked, and how answers are marked.

    tasks.yaml, or a task that is built in (TASKS) with --data NAME=PATH ─→ Task

A prompt is text with {column} in it; nothing else in braces is looked at, and what a column holds is never read as a template.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from norma.base.errors import NormaError, nearest
from norma.base.strict_yaml import load_yaml, validate

Kind = Literal["choice", "answer", "text", "language", "pairs"]


class Task(BaseModel):
    """One task."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    kind: Kind = Field(
        description="choice: the likeliest of some answers; answer: question answering, written (EM, F1); text: translation or summary"
        " (BLEU, chrF, ROUGE); language: bits per byte and perplexity of texts; pairs: minimal pairs (BLiMP)."
    )
    data: str | None = Field(None, description="The rows: a file, or a folder that holds test.* (and train.*). Starts at the YAML file.")
    train: str | None = Field(None, description="Where examples in the prompt come from; by default train.* beside the test rows.")
    prompt: str = Field("{text}", description="What is asked; {column} is that column of the row.")
    answer: str = Field("{label}", description="The right answer: a column, as {label}; of choices it names one of them.")
    columns: list[str] | None = Field(None, description="Names of the columns, for files without a heading.")
    choices: dict[str, str] | list[str] | None = Field(
        None, description="choice: label: words that stand for it; or columns that hold the answers of each row."
    )
    language: str = Field("en", description="Of the answers: how words are told apart.")
    chat: str = Field("", description="A sentence before the prompt, where the model is asked as in a chat.")
    new_tokens: int = Field(32, ge=1, description="Longest answer that is written, in tokens.")
    separator: str = Field("\n\n", description="Between examples.")
    stop: str = Field("\n", description="A written answer ends here (chat: it does not).")
    scores: list[str] | None = Field(None, description="Which scores; by default those of the kind.")


KIND_SCORES: dict[Kind, tuple[str, ...]] = {
    "choice": ("accuracy", "accuracy_per_byte", "macro_f1"),
    "answer": ("exact_match", "f1"),
    "text": ("bleu", "chrf", "rouge_l"),
    "language": ("bits_per_byte", "perplexity"),
    "pairs": ("accuracy",),
}

_QA = "{context}\nQuestion: {question}\nAnswer:"
_QA_ZH = "{context}\n问题：{question}\n答案："

# Every file of tests reads like one of these; --data NAME=PATH says where it is.
TASKS: dict[str, Task] = {
    "perplexity": Task(kind="language"),
    "blimp": Task(kind="pairs"),
    "sst2": Task(
        kind="choice",
        prompt="Review: {text}\nSentiment:",
        columns=["text", "label"],
        choices={"0": " negative", "1": " positive"},
        chat="Is the sentiment of this review positive or negative? Answer with one word.",
    ),
    "imdb": Task(
        kind="choice",
        prompt="Review: {text}\nSentiment:",
        choices={"neg": " negative", "pos": " positive"},
        chat="Is the sentiment of this review positive or negative? Answer with one word.",
    ),
    "ag_news": Task(
        kind="choice",
        prompt="Article: {text}\nTopic:",
        columns=["text", "label"],
        choices={"0": " World", "1": " Sports", "2": " Business", "3": " Technology"},
        chat="Is this article about World, Sports, Business or Technology? Answer with one word.",
    ),
    "chnsenticorp": Task(
        kind="choice",
        prompt="评论：{text_a}\n情感：",
        choices={"0": "消极", "1": "积极"},
        chat="这条评论是积极的还是消极的？",
        language="zh",
    ),
    "squad": Task(kind="answer", prompt=_QA, answer="{answers}", chat="Answer in as few words as possible, taken from the text."),
    "xquad": Task(kind="answer", prompt=_QA, answer="{answers}", chat="Answer in as few words as possible, taken from the text."),
    "cmrc2018": Task(kind="answer", prompt=_QA_ZH, answer="{answers}", language="zh", chat="请用原文中尽量少的字回答。"),
    "aeslc": Task(
        kind="text", prompt="E-mail: {body}\nSubject:", answer="{subject}", new_tokens=24, scores=["rouge_1", "rouge_2", "rouge_l"]
    ),
    "csl_title": Task(
        kind="text", prompt="摘要：{abstract}\n标题：", answer="{title}", columns=["task", "abstract", "title"], language="zh",
        scores=["rouge_1", "rouge_2", "rouge_l"],
    ),
    "tatoeba_en_zh": Task(
        kind="text", prompt="English: {en}\n中文：", answer="{zh}", columns=["en", "zh", "source"], language="zh", scores=["bleu", "chrf"]
    ),
}  # fmt: skip


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tasks: dict[str, Task]


def read_tasks(path: Path) -> dict[str, Task]:
    """Tasks of a YAML file (``tasks: {NAME: {kind: ..., data: ..., ...}}``); their paths start at the file."""
    found = validate(load_yaml(path), _File).tasks
    base = path.parent

    def placed(value: str | None) -> str | None:
        return None if value is None else str(base / Path(value).expanduser())

    return {name: t.model_copy(update={"data": placed(t.data), "train": placed(t.train)}) for name, t in found.items()}


def tasks_of(names: Sequence[str], given: Mapping[str, Task] = {}, data: Iterable[str] = (), train: Iterable[str] = ()) -> dict[str, Task]:
    """The tasks that are asked for, with the places that ``NAME=PATH`` give. Raises NormaError for an unknown one or one without rows."""
    places, lessons = _named(data, "--data"), _named(train, "--train")
    known = {**TASKS, **given}
    for name in (*names, *places, *lessons):
        if name not in known:
            near = nearest(name, known)
            raise NormaError(f"there is no task '{name}'", mend=f"Did you mean '{near}'?" if near else f"One of {', '.join(known)}")
    out: dict[str, Task] = {}
    for name in names:
        task = known[name]
        task = task.model_copy(update={"data": places.get(name, task.data), "train": lessons.get(name, task.train)})
        if task.data is None:
            raise NormaError(f"nothing says where the rows of '{name}' are", mend=f"Add --data {name}=PATH")
        out[name] = task
    return out


def _named(pairs: Iterable[str], option: str) -> dict[str, str]:
    out = {}
    for pair in pairs:
        name, mark, path = pair.partition("=")
        if not mark or not name or not path:
            raise NormaError(f"{option} '{pair}' is not NAME=PATH")
        out[name] = path
    return out
