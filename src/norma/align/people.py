"""What people preferred, rewrote or marked, as rows to learn from.

    file, folder, hub ─→ records ─┬─ chats, pairs, marked answers in any known shape ─────┐
                                  ├─ a table of texts and their rewrites                  ├─→ Made(kind, group, row), one by one
                                  └─ a table of texts with labels or scores ──────────────┘   unusable rows ─→ Quarantine

A text without a prompt gets one from a template. Rows of one ``group`` (the same question, the same original) belong on one side of a
division into training and validation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import PurePath
from typing import Any, Literal

from norma.base.errors import NormaError, nearest
from norma.text.formats import Record
from norma.text.languages import language_of
from norma.text.quarantine import Quarantine
from norma.text.shapes import Completion, Conversation, Preference, Text, Turns, recognise, shaped
from norma.text.split import key

Kind = Literal["pairs", "marks", "conversations"]
KINDS: tuple[Kind, ...] = ("pairs", "marks", "conversations")
ROLES = ("original", "rewrite", "text", "label", "score")  # what a column of a table may be

REWRITE_PROMPTS = {
    "en": "Say this politely, without changing what it means:\n{text}",
    "zh": "请用礼貌的话说出下面这句话的意思：\n{text}",
}
WRITE_PROMPTS = {"en": "Write a message to somebody you do not know.", "zh": "请给一个你不认识的人写一段话。"}


@dataclass(frozen=True)
class Table:
    """How a table is read. ``columns``: {role of ROLES: column}; a column of rewrites may end with *, for several."""

    columns: Mapping[str, str]
    desirable: tuple[str, ...] = ()  # labels that mean: desirable; other labels mean: not
    threshold: float | None = None  # the score from which a text is desirable


# Public sets by the columns they have; which value is the good one is nothing a file says.
KNOWN: tuple[tuple[frozenset[str], Table], ...] = (
    (frozenset({"toxic", "neutral1"}), Table({"original": "toxic", "rewrite": "neutral*"})),  # ParaDetox
    (frozenset({"topic", "label", "TEXT"}), Table({"text": "TEXT", "label": "label"}, desirable=("0",))),  # COLD: 1 is offensive
    # Stanford politeness: five people's marks, each person's mean taken off
    (frozenset({"Request", "Normalized Score"}), Table({"text": "Request", "score": "Normalized Score"}, threshold=0.0)),
    (frozenset({"Utterance", "labels"}), Table({"text": "Utterance", "score": "labels"}, threshold=2.0)),  # TyDiP: 0 to 4
)


@dataclass(frozen=True)
class Reading:
    """How one source is read.

    Attributes:
        table: of a table; None: as its columns say.
        prompts: {language: template}; {text} stands for the original of a rewrite.
        band: texts whose score is nearer to the threshold than this are left out: people were not sure.
        rule: id of the rule that is marked, where it is one.
        language: of all rows; None: by script.
    """

    table: Table | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    band: float = 0.0
    rule: str | None = None
    language: str | None = None


@dataclass(frozen=True)
class Made:
    """One row of a file of ``kind``; ``group``: what it shares with rows that must stand on the same side."""

    kind: Kind
    group: str
    row: dict[str, Any]


def people_rows(records: Iterable[Record], reading: Reading, quarantine: Quarantine) -> Iterator[Made]:
    """Rows of one source, streamed. Raises NormaError when its first record is nothing that anybody preferred, rewrote or marked."""
    stream = iter(records)
    first = next(stream, None)
    if first is None:
        return
    table = reading.table or known_table(first.fields)
    whole = chain([first], stream)
    if table is not None:
        _check(table, first)
        yield from _table_rows(whole, table, reading, quarantine)
        return
    if recognise(first.fields) in (None, "text"):
        mend = "Say what its columns are: columns: {text: COLUMN, label: COLUMN}, or {original: COLUMN, rewrite: COLUMN}"
        raise NormaError(f"neither chats nor marks (columns: {', '.join(first.fields)})", where=f"{first.file}:{first.line}", mend=mend)
    for record, row in shaped(whole, quarantine):
        if isinstance(row, Text):
            quarantine.add(record.file, record.line, "a text without an answer")
        else:
            yield from _chat_rows(record, row, reading, quarantine)


def known_table(fields: Mapping[str, Any]) -> Table | None:
    """The table of a public set that has these columns."""
    return next((table for names, table in KNOWN if names <= set(fields)), None)


def _check(table: Table, first: Record) -> None:
    where = f"{first.file}:{first.line}"
    for role, column in table.columns.items():
        if role not in ROLES:
            raise NormaError(f"'{role}' is nothing that a column can be", where="columns", mend=nearest(role, ROLES))
        if not _matching(column, first.fields):
            raise NormaError(f"there is no column '{column}'", where=where, mend=nearest(column, map(str, first.fields)))
    roles = set(table.columns)
    if roles not in ({"original", "rewrite"}, {"text", "label"}, {"text", "score"}):
        mend = "original and rewrite, or text and label, or text and score"
        raise NormaError(f"columns {', '.join(sorted(roles))} make no table of pairs or marks", where="columns", mend=mend)
    if "label" in roles and not table.desirable:
        raise NormaError("nothing says which labels are the desirable ones", where=where, mend="Add desirable: [LABEL, ...] to the source")
    if "score" in roles and table.threshold is None:
        raise NormaError("nothing says from which score a text is desirable", where=where, mend="Add threshold: NUMBER to the source")


def _matching(column: str, fields: Mapping[str, Any]) -> list[str]:
    if not column.endswith("*"):
        return [column] if column in fields else []
    return [name for name in fields if re.fullmatch(re.escape(column[:-1]) + r"\d*", name)]


# ── tables ──
def _table_rows(records: Iterator[Record], table: Table, reading: Reading, quarantine: Quarantine) -> Iterator[Made]:
    make = _rewrites if "original" in table.columns else _marked_text
    for record in records:
        try:
            yield from make(record, table, reading)
        except ValueError as why:
            quarantine.add(record.file, record.line, str(why))


def _rewrites(record: Record, table: Table, reading: Reading) -> Iterator[Made]:
    """Each rewrite over the original, and the conversation that ends with it."""
    original = _text(record.fields, table.columns["original"])
    language = reading.language or language_of(original)
    messages = [{"role": "user", "content": template(reading, REWRITE_PROMPTS, language).replace("{text}", original)}]
    some = False
    for number, column in enumerate(_matching(table.columns["rewrite"], record.fields)):
        rewrite = record.fields[column]
        if not isinstance(rewrite, str) or not rewrite.strip() or rewrite.strip() == original:
            continue
        some = True
        about = {"id": f"{_name(record)}.{number}", "language": language}
        yield Made("pairs", original, {**about, "messages": messages, "chosen": rewrite.strip(), "rejected": original})
        said = [*messages, {"role": "assistant", "content": rewrite.strip()}]
        yield Made("conversations", original, {**about, "messages": said})
    if not some:
        raise ValueError("no rewrite that differs from the original")


def _marked_text(record: Record, table: Table, reading: Reading) -> Iterator[Made]:
    """A text with a label or a score: an answer to a general prompt."""
    text = _text(record.fields, table.columns["text"])
    language = reading.language or language_of(text)
    about: dict[str, Any] = {"id": _name(record), "language": language}
    about["messages"] = [{"role": "user", "content": template(reading, WRITE_PROMPTS, language)}]
    if "label" in table.columns:
        label = str(record.fields.get(table.columns["label"], "")).strip()
        if not label:
            raise ValueError("the label is empty")
        desirable, more = label in table.desirable, {}
    else:
        score = _number(record.fields.get(table.columns["score"]))
        assert table.threshold is not None
        if abs(score - table.threshold) < reading.band:
            raise ValueError("left out: the score is too near the threshold")
        desirable, more = score >= table.threshold, {"score": score}
    rules = {"rules": {reading.rule: desirable}} if reading.rule else {}
    yield Made("marks", text, {**about, "answer": text, "desirable": desirable, **rules, **more, "marked_by": "human"})
    if desirable:
        said = [*about["messages"], {"role": "assistant", "content": text}]
        yield Made("conversations", text, {**about, "messages": said})


def template(reading: Reading, defaults: Mapping[str, str], language: str) -> str:
    """The prompt in the row's language; English where there is none."""
    known = {**defaults, **reading.prompts}
    return known.get(language) or known.get(language.split("-")[0]) or known["en"]


def _text(fields: Mapping[str, Any], column: str) -> str:
    value = fields.get(column)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"'{column}' is empty")
    return value.strip()


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"the score is no number ({value!r})") from None
    if number != number or abs(number) == float("inf"):
        raise ValueError(f"the score is no number ({value!r})")
    return number


# ── chats ──
def _chat_rows(record: Record, row: Conversation | Completion | Preference, reading: Reading, quarantine: Quarantine) -> Iterator[Made]:
    if isinstance(row, Conversation):
        said = list(row.messages)
        while said and said[-1]["role"] != "assistant":
            said.pop()
        yield from _conversation(record, said[:-1], said[-1]["content"], reading)
        return
    answers = (row.completion,) if isinstance(row, Completion) else (row.chosen, row.rejected)
    if any(len(answer) != 1 for answer in answers):
        longest = max(map(len, answers))
        quarantine.add(record.file, record.line, f"answers of several turns ({longest}): only the last turn may differ")
        return
    texts = [str(answer[0]["content"]) for answer in answers]
    if isinstance(row, Completion):
        if row.label is not None:
            about = _about(record, row.prompt, reading)
            yield Made("marks", _group(row.prompt), {**about, "answer": texts[0], "desirable": row.label, "marked_by": "human"})
    else:
        about = _about(record, row.prompt, reading)
        yield Made("pairs", _group(row.prompt), {**about, "chosen": texts[0], "rejected": texts[1]})
    if not isinstance(row, Completion) or row.label is not False:
        yield from _conversation(record, row.prompt, texts[0], reading)


def _conversation(record: Record, prompt: Sequence[Mapping[str, Any]], answer: str, reading: Reading) -> Iterator[Made]:
    about = _about(record, prompt, reading)
    said = [*about["messages"], {"role": "assistant", "content": answer}]
    yield Made("conversations", _group(prompt), {**about, "messages": said})


def _about(record: Record, prompt: Sequence[Mapping[str, Any]], reading: Reading) -> dict[str, Any]:
    messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in prompt]
    last = messages[-1]["content"] if messages else ""
    return {"id": _name(record), "language": reading.language or language_of(last), "messages": messages}


def _group(prompt: Turns | Sequence[Mapping[str, Any]]) -> str:
    """What a dialogue began with: its first user turn, whatever came of it."""
    return next((str(m["content"]) for m in prompt if m["role"] == "user"), "")


def _name(record: Record) -> str:
    return f"{PurePath(record.file).name.split('.')[0]}:{record.line}"


def group_key(group: str) -> str:
    """A group up to case, punctuation and white space; texts without a word as they are."""
    return key(group) or group
