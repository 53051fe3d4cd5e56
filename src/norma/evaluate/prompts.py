"""A prompts file to items: what people have lying about, read strictly.

    prompts.txt    one prompt a line                       ─┐
    prompts.jsonl  {"prompt": text or messages} or         ─┼─→ Item (id, messages, language, facts, cluster, reference)
                   {"messages": [...]}, a question row too ─┘

Optional keys of a row: id, language, facts, cluster (or source), reference. When the last message is the assistant's it is the
reference answer and is not sent. A gate must not drop rows in silence, so a bad row is an error with its line.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from norma.base.errors import NormaError
from norma.spec import Item, Message

_ROLES = frozenset({"system", "developer", "user", "assistant"})
_HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))


def language_of(text: str) -> str:
    """``zh`` for Chinese, ``ja`` where kana stand, else ``en``: a guess, only for prompts that do not say their language.

    The first line decides, for that is where the question stands; what follows may be a quoted English document. It is Chinese
    when it has at least half as many Chinese characters as other words: `json.dumps` has nine letters and is one name.
    """
    line = next((line for line in text.splitlines() if line.strip()), "")
    if any("\u3040" <= c <= "\u30ff" for c in line):
        return "ja"
    chinese = [any(low <= ord(c) <= high for low, high in _HAN) for c in line]
    others = "".join(" " if han or unicodedata.category(c).startswith("P") else c for c, han in zip(line, chinese, strict=True)).split()
    return "zh" if sum(chinese) and 2 * sum(chinese) >= len(others) else "en"


def read_prompts(path: Path) -> list[Item]:
    """Items of a prompts file. Raises NormaError with file:line for a row that cannot be used."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except FileNotFoundError:
        raise NormaError("file not found", where=path, mend="Give a .jsonl or .txt file of prompts") from None
    except IsADirectoryError:
        raise NormaError("this is a folder, not a prompts file", where=path) from None
    except UnicodeDecodeError as error:
        raise NormaError(f"not UTF-8 text (byte {error.start})", where=path, mend="Save the file as UTF-8") from None
    rows = path.suffix.lower() in (".jsonl", ".ndjson", ".json")
    items: list[Item] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        item = _from_row(_json(line, where), f"prompt-{number}", where) if rows else _from_text(line.strip(), f"prompt-{number}")
        if item.id in seen:
            raise NormaError(
                f"the id '{item.id}' stands on line {seen[item.id]} too", where=where, mend="Give each prompt an id of its own"
            )
        seen[item.id] = number
        items.append(item)
    if not items:
        raise NormaError("no prompts in this file", where=path)
    return items


def _json(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise NormaError(f"not JSON ({error.msg})", where=where, mend="A .jsonl file holds one JSON object a line") from None
    if isinstance(row, str):
        return {"prompt": row}
    if not isinstance(row, dict):
        raise NormaError("a row must be a JSON object", where=where)
    return row


def _from_text(text: str, name: str) -> Item:
    return Item(name, (Message(role="user", content=text),), language=language_of(text))


def _from_row(row: Mapping[str, Any], name: str, where: str) -> Item:
    given = row.get("messages", row.get("prompt"))
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise NormaError("the row has neither 'messages' nor 'prompt'", where=where)
    messages = [_message(m, where) for m in given]
    reference = row.get("reference")
    if messages[-1]["role"] == "assistant":
        last = messages.pop()
        reference = last["content"] if reference is None else reference
    if not any(m["role"] == "user" for m in messages):
        raise NormaError("the row has no user message", where=where)
    facts = row.get("facts", {})
    if not isinstance(facts, dict):
        raise NormaError("'facts' must be a JSON object", where=where)
    for key, value in (("id", row.get("id")), ("language", row.get("language")), ("reference", reference)):
        if value is not None and not isinstance(value, str):
            raise NormaError(f"'{key}' must be text", where=where)
    asked = next(m["content"] for m in reversed(messages) if m["role"] == "user")
    return Item(
        id=row.get("id") or name,
        messages=tuple(messages),
        language=row.get("language") or language_of(asked),
        facts=facts,
        cluster=str(row.get("cluster") or row.get("source") or ""),
        reference=reference,
    )


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict) or not isinstance(value.get("content"), str) or value.get("role") not in _ROLES:
        raise NormaError("a message needs a 'role' (system, developer, user or assistant) and a 'content' that is text", where=where)
    return Message(role=value["role"], content=value["content"])


def wording_for(languages: Sequence[str], tag: str) -> str:
    """Which of a spec's ``languages`` to speak to someone of language ``tag``: the same tag, else the same language, else the first."""
    main = tag.split("-")[0]
    same = [known for known in languages if known == tag] or [known for known in languages if known.split("-")[0] == main]
    return same[0] if same else languages[0]
