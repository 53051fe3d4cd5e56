"""The published prompts of IFEval, and its two ways of judging.

input_data.jsonl[.gz] ─read_prompts─→ Prompt(item, instructions) ─follows(response, loose)─→ one verdict per instruction
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from norma.base.errors import NormaError
from norma.spec.types import Checker, Item, Message, Status


@dataclass(frozen=True)
class Prompt:
    """One prompt and what it asks for: (instruction id, kwargs) in the order of the data. The item's id is the row's key, as text."""

    item: Item
    instructions: tuple[tuple[str, Mapping[str, Any]], ...]

    def rules(self) -> list[dict[str, Any]]:
        """The instructions as checker entries of a spec: kind, use and params, nulls left out."""
        return [
            {"kind": "program", "use": name, "params": {k: v for k, v in kw.items() if v is not None}} for name, kw in self.instructions
        ]

    def checkers(self) -> list[Checker]:
        """One program checker per instruction. Raises NormaError for an unknown instruction or wrong kwargs."""
        from norma.check.programs import build

        return [build(name, dict(kwargs), f"prompt {self.item.id}") for name, kwargs in self.instructions]


def read_prompts(path: str | Path) -> list[Prompt]:
    """Every row of ``input_data.jsonl`` (plain or gzip). Keys may be numbers or text. Raises NormaError that names the line."""
    path, prompts = Path(path), []
    for number, row in _rows(path):
        where = f"{path}:{number}"
        try:
            key, prompt, names, kwargs = str(row["key"]), row["prompt"], row["instruction_id_list"], row["kwargs"]
        except (KeyError, TypeError) as error:
            raise NormaError(f"not a row of IFEval ({error})", where=where, mend="key, prompt, instruction_id_list, kwargs") from None
        if len(names) != len(kwargs):
            raise NormaError(f"{len(names)} instructions but {len(kwargs)} kwargs", where=where)
        language = next((str(kw["language"]) for kw in kwargs if kw.get("language")), "en")
        item = Item(key, (Message(role="user", content=prompt),), language)
        prompts.append(Prompt(item, tuple(zip(names, kwargs, strict=True))))
    return prompts


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as handle:
            for number, line in enumerate(handle, 1):
                if line.strip():
                    yield number, json.loads(line)
    except FileNotFoundError:
        raise NormaError("file not found", where=path) from None
    except (OSError, EOFError, ValueError) as error:
        raise NormaError(f"not readable as JSON lines ({error})", where=path) from None


def loose_forms(response: str) -> tuple[str, ...]:
    """The answer, and the answer without its first line, its last line or both; each also without asterisks. The paper's section 2.2."""
    lines = response.split("\n")
    forms = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return tuple(dict.fromkeys(forms + [form.replace("*", "") for form in forms]))


def follows(checkers: Iterable[Checker], item: Item, response: str, loose: bool = False) -> list[Status]:
    """What each checker says of the answer: strictly, or of the best of its loose forms. An error counts only where nothing passes."""
    from norma.check.composite import loosely

    return [(loosely(checker, item, response) if loose else checker.check(item, response)).status for checker in checkers]
