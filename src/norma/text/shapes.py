"""The shapes in which people keep chats, instructions and preferences, recognised and made alike.

    fields ─→ recognise: a recipe for each known layout ─→ Conversation | Completion | Preference | Text
    a file ─→ the layout most of its first rows have ─→ rows of that layout; the others are set aside with the reason

| layout | columns |
|---|---|
| messages | messages: [{role, content}]; a message with train: false (or weight: 0) is read, not learnt |
| sharegpt | conversations: [{from, value}] |
| alpaca | instruction, input, output; also history; an output of two answers is a preference |
| prompt_completion, kto | prompt, completion; with label: true or false |
| preference | chosen, rejected; prompt or an implicit one: what both begin with |
| question_answer | question, answer |
| transcripts | text: [two dialogues], score: [two numbers] |
| text | text, content, body, ..., or the only column of prose |
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal, NotRequired, TypedDict

from norma.text.formats import Record
from norma.text.quarantine import Quarantine


class Message(TypedDict):
    """One turn."""

    role: str
    content: str
    train: NotRequired[bool]  # False: read, but not learnt


Turns = tuple[Message, ...]


@dataclass(frozen=True)
class Text:
    text: str
    title: str = ""


@dataclass(frozen=True)
class Conversation:
    messages: Turns


@dataclass(frozen=True)
class Completion:
    """``label`` is None for plain supervision, True or False for a mark of good or bad (KTO)."""

    prompt: Turns
    completion: Turns
    label: bool | None = None


@dataclass(frozen=True)
class Preference:
    prompt: Turns
    chosen: Turns
    rejected: Turns


Row = Text | Conversation | Completion | Preference
Layout = Literal["messages", "sharegpt", "alpaca", "kto", "prompt_completion", "preference", "question_answer", "transcripts", "text"]


class Misfit(ValueError):
    """A row does not fit its layout; the text says why."""


ROLES = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_call": "assistant",
}
TEXT_COLUMNS = (
    "text",
    "content",
    "body",
    "document",
    "article",
    "passage",
    "context",
    "sentence",
    "review",
    "utterance",
    "completion",
    "output",
    "TEXT",
)


def turn(role: object, content: object) -> Message:
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise Misfit(f"unknown role {role!r}")
    if isinstance(content, list):  # content parts; only text is for a language model
        parts = [p.get("text") if isinstance(p, dict) else p for p in content]
        texts = [p for p in parts if isinstance(p, str)]
        if len(texts) < len(parts):
            raise Misfit("a message holds something other than text")
        content = "".join(texts)
    if not isinstance(content, str) or not content.strip():
        raise Misfit("a message is empty")
    return Message(role=ROLES[role.lower()], content=content)


def turns(value: object) -> Turns:
    """A list of messages in either spelling (role/content or from/value)."""
    if not isinstance(value, list) or not value:
        raise Misfit("no list of messages")
    made = []
    for message in value:
        if not isinstance(message, dict):
            raise Misfit("a message is not an object")
        said = turn(message.get("role", message.get("from")), message.get("content", message.get("value")))
        if message.get("train") is False or message.get("weight") == 0:  # the second as OpenAI's fine-tuning files have it
            said["train"] = False
        made.append(said)
    return tuple(made)


_SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant|User|System): ?")


def transcript(text: str) -> Turns | None:
    """Turns of a dialogue written as "Human: ... Assistant: ..." paragraphs; None when it is none."""
    pieces = _SPEAKER.split(text.strip())
    if len(pieces) < 3 or pieces[0].strip():
        return None
    roles = {"Human": "user", "User": "user", "Assistant": "assistant", "System": "system"}
    return tuple(Message(role=roles[who], content=said.strip()) for who, said in zip(pieces[1::2], pieces[2::2], strict=True))


def as_prompt(value: object) -> Turns:
    if isinstance(value, str) and value.strip():
        return transcript(value) or (Message(role="user", content=value),)
    return turns(value)


def as_answer(value: object) -> Turns:
    if isinstance(value, str) and value.strip():
        return (Message(role="assistant", content=value),)
    return turns([value] if isinstance(value, dict) else value)


def _messages(f: Mapping[str, Any]) -> Row:
    said = turns(f.get("messages", f.get("conversation")))
    if not isinstance(f.get("label"), bool):
        if not any(m["role"] == "assistant" for m in said):
            raise Misfit("the assistant says nothing")
        return Conversation(said)
    if len(said) < 2 or said[-1]["role"] != "assistant":
        raise Misfit("the marked conversation does not end with the assistant")
    return Completion(said[:-1], said[-1:], f["label"])


def _sharegpt(f: Mapping[str, Any]) -> Row:
    said = turns(f["conversations"])
    system = f.get("system")
    if isinstance(system, str) and system.strip():
        said = (Message(role="system", content=system), *said)
    if "chosen" in f and "rejected" in f:
        return _preferred(said, as_answer(f["chosen"]), as_answer(f["rejected"]))
    if isinstance(f.get("label"), bool) and said[-1]["role"] == "assistant" and len(said) > 1:
        return Completion(said[:-1], said[-1:], f["label"])
    if not any(m["role"] == "assistant" for m in said):
        raise Misfit("the assistant says nothing")
    return Conversation(said)


def _alpaca(f: Mapping[str, Any]) -> Row:
    instruction, more, output = f.get("instruction"), f.get("input") or "", f.get("output", f.get("response"))
    if not isinstance(instruction, str) or not isinstance(more, str) or not (instruction + more).strip():
        raise Misfit("the instruction is empty")
    asked: list[Message] = []
    if isinstance(f.get("system"), str) and f["system"].strip():
        asked.append(Message(role="system", content=f["system"]))
    for pair in f.get("history") or ():
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise Misfit("the history is not a list of pairs")
        asked += [turn("user", pair[0]), turn("assistant", pair[1])]
    asked.append(Message(role="user", content="\n\n".join(part for part in (instruction.strip(), more.strip()) if part)))
    if "chosen" in f and "rejected" in f:
        return _preferred(tuple(asked), as_answer(f["chosen"]), as_answer(f["rejected"]))
    if isinstance(output, list):
        if len(output) < 2:
            raise Misfit("a list of one answer: a preference needs a better and a worse one")
        return _preferred(tuple(asked), as_answer(output[0]), as_answer(output[-1]))  # ranked: the best and the worst
    if not isinstance(output, str) or not output.strip():
        raise Misfit("the output is empty")
    return Conversation((*asked, Message(role="assistant", content=output)))


def _completion(f: Mapping[str, Any]) -> Row:
    label = f.get("label")
    if isinstance(label, str) and label.lower() in ("true", "false", "1", "0"):
        label = label.lower() in ("true", "1")
    if label is not None and not isinstance(label, (bool, int)):
        raise Misfit("the label is neither true nor false")
    return Completion(as_prompt(f.get("prompt")), as_answer(f.get("completion")), None if label is None else bool(label))


def _preference(f: Mapping[str, Any]) -> Row:
    chosen, rejected, prompt = f.get("chosen"), f.get("rejected"), f.get("prompt")
    if isinstance(chosen, str) and isinstance(rejected, str) and not prompt:
        a, b = transcript(chosen), transcript(rejected)
        if a is None or b is None:
            a, b = _common_text(chosen, rejected)
            return _preferred(a[:-1], a[-1:], b[-1:])
        chosen, rejected = a, b
    first, second = (as_answer(list(side) if isinstance(side, tuple) else side) for side in (chosen, rejected))
    if prompt:
        asked = as_prompt(prompt)
        if first[: len(asked)] == asked and second[: len(asked)] == asked:  # the prompt is repeated in both answers
            first, second = first[len(asked) :], second[len(asked) :]
        return _preferred(asked, first, second)
    shared = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))
    return _preferred(first[:shared], first[shared:], second[shared:])


def _common_text(chosen: str, rejected: str) -> tuple[Turns, Turns]:
    """An implicit prompt in plain text: what both begin with, up to a white space."""
    end = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), min(len(chosen), len(rejected)))
    shared = chosen[:end]
    cut = max((m.end() for m in re.finditer(r"\s", shared)), default=0)
    if not shared[:cut].strip():
        raise Misfit("no prompt: the two answers begin differently")
    prompt = Message(role="user", content=shared[:cut].strip())
    return (prompt, *as_answer(chosen[cut:])), (prompt, *as_answer(rejected[cut:]))


def _preferred(prompt: Turns, chosen: Turns, rejected: Turns) -> Preference:
    if not prompt or prompt[-1]["role"] == "assistant":
        raise Misfit("no prompt before the answers")
    if not chosen or not rejected or any(m["role"] != "assistant" for m in (chosen[-1], rejected[-1])):
        raise Misfit("an answer is missing")
    if not (chosen[-1]["content"].strip() and rejected[-1]["content"].strip()):
        raise Misfit("an answer is empty")
    if chosen == rejected:
        raise Misfit("chosen and rejected are the same")
    return Preference(prompt, chosen, rejected)


def _transcripts(f: Mapping[str, Any]) -> Row:
    pair, score = f["text"], f["score"]
    if not (isinstance(pair, list) and isinstance(score, list) and len(pair) == len(score) == 2 and all(isinstance(t, str) for t in pair)):
        raise Misfit("not two dialogues with two scores")
    if score[0] == score[1]:
        raise Misfit("both dialogues have the same score")
    better = 0 if score[0] > score[1] else 1
    return _preference({"chosen": pair[better], "rejected": pair[1 - better]})


def _question(f: Mapping[str, Any]) -> Row:
    return Completion(as_prompt(f.get("question")), as_answer(f.get("answer")))


def _text(f: Mapping[str, Any], column: str = "") -> Row:
    value = f.get(column or text_column(f))
    if not isinstance(value, str) or not value.strip():
        raise Misfit("empty text")
    title = f.get("title")
    return Text(value, title if isinstance(title, str) else "")


def text_column(f: Mapping[str, Any]) -> str:
    """The column that holds the text: by its name, or as the only one with prose in it; "" when there is none."""
    strings = {k: v for k, v in f.items() if isinstance(v, str)}
    for name in TEXT_COLUMNS:
        for column in strings:
            if column.lower() == name.lower():
                return column
    if any(isinstance(v, (list, dict)) and v for v in f.values()):
        return ""  # something nested is the matter here, not the title beside it
    plain = re.compile(r"[\d.,:\s+-]*|\S*")  # numbers, or a single word without spaces
    chinese = re.compile(r"[\u4e00-\u9fff]{4}")
    prose = [k for k, v in strings.items() if (len(v) > 3 and not plain.fullmatch(v)) or chinese.search(v)]
    return prose[0] if len(prose) == 1 else ""


LAYOUTS: dict[Layout, Callable[[Mapping[str, Any]], Row]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "kto": _completion,
    "prompt_completion": _completion,
    "preference": _preference,
    "question_answer": _question,
    "transcripts": _transcripts,
    "text": _text,
}
TITLES: dict[Layout, str] = {
    "messages": "OpenAI messages",
    "sharegpt": "ShareGPT conversations",
    "alpaca": "Alpaca instructions",
    "kto": "prompt, completion and label (KTO)",
    "prompt_completion": "prompt and completion",
    "preference": "preference pairs (chosen, rejected)",
    "question_answer": "questions and answers",
    "transcripts": "scored pairs of dialogues",
    "text": "plain text",
}


def recognise(fields: Mapping[str, Any]) -> Layout | None:
    """The layout whose columns a row has; None for a table that is no training text."""
    names = set(fields)
    if {"text", "score"} <= names and isinstance(fields["text"], list):
        return "transcripts"
    if {"conversations"} <= names:
        return "sharegpt"
    if isinstance(fields.get("messages", fields.get("conversation")), list):
        return "messages"
    if "instruction" in names and names & {"output", "response", "chosen"}:
        return "alpaca"
    if {"chosen", "rejected"} <= names:
        return "preference"
    if {"prompt", "completion"} <= names:
        return "kto" if "label" in names else "prompt_completion"
    if {"question", "answer"} <= names:
        return "question_answer"
    return "text" if text_column(fields) else None


MAJORITY_OF = 200  # rows looked at before a file's layout is decided


def shaped(records: Iterable[Record], quarantine: Quarantine) -> Iterator[tuple[Record, Row]]:
    """Rows in the layout most of each file's first rows have; the others go to the quarantine."""
    stream = iter(records)
    held: Record | None = next(stream, None)
    while held is not None:
        file, first = held.file, held
        rest: list[Record] = []  # the first record of the next file, once met

        def of_file(file: str = file, first: Record = first, rest: list[Record] = rest) -> Iterator[Record]:
            yield first
            for record in stream:
                if record.file != file:
                    rest.append(record)
                    return
                yield record

        rows = of_file()
        head = list(islice(rows, MAJORITY_OF))
        layout = majority(head)
        columns = Counter(column for record in head if (column := text_column(record.fields)))
        column = columns.most_common(1)[0][0] if columns else ""
        for record in chain(head, rows):
            if layout is None:
                quarantine.add(record.file, record.line, f"no known shape (columns {', '.join(list(record.fields)[:6])})")
                continue
            try:
                if layout != "text" and (other := recognise(record.fields)) != layout:
                    raise Misfit(f"its columns are those of {TITLES[other] if other else 'no known shape'}")
                yield record, _text(record.fields, column) if layout == "text" else LAYOUTS[layout](record.fields)
            except Misfit as error:
                quarantine.add(record.file, record.line, f"does not fit the file's shape, {TITLES[layout]} ({error})")
        held = rest[0] if rest else None


def majority(records: Iterable[Record]) -> Layout | None:
    """The commonest layout; of equally common ones the one met first. None only when no row has a known one."""
    counts = Counter(layout for record in records if (layout := recognise(record.fields)))
    return counts.most_common(1)[0][0] if counts else None
