"""Pairs and marks on disk to token ids: what preference training reads.

    pairs.*.jsonl  {id, source, language, messages, chosen, rejected}           ─┐
    marks.*.jsonl  {id, source, language, messages, answer, desirable, score}   ─┴→ Row: a prompt, its answers, which are desirable

The prompt is what the model will have read when it begins to answer, and the answer what it writes from there: the two are encoded
apart, as in a conversation that is being had (``norma.text.chat``), and the end token belongs to the answer. A row that cannot be used
as it is meant is an error with its file and line; one that is only too long is left out and counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from norma.base.errors import NormaError
from norma.base.hashing import digest
from norma.nn import ModelConfig
from norma.text.chat import prompt_ids
from norma.text.tokenizer import Tokenizer
from norma.train.scoring import Group


@dataclass(frozen=True)
class Row:
    """A pair (better answer first) or one marked answer."""

    id: str
    group: Group
    desirable: tuple[bool, ...]
    scores: tuple[float | None, ...]
    source: str = ""  # what is independent of other sources

    @property
    def paired(self) -> bool:
        return self.desirable == (True, False)


@dataclass
class Read:
    """Rows of a file, and how many were too long or had their prompt cut."""

    rows: list[Row] = field(default_factory=list)
    too_long: int = 0
    cut: int = 0
    keys: dict[str, int] = field(default_factory=dict)  # digest of a row's words -> its line


def read_rows(path: Path, tokenizer: Tokenizer, config: ModelConfig, *, longest: int | None = None, cut: bool = False) -> Read:
    """All rows of a file of pairs or marks.

    Args:
        longest: most tokens of prompt and answer together; None: what the model reads.
        cut: drop the oldest tokens of a prompt that is too long, instead of leaving the row out.

    Raises:
        NormaError: with file and line, for a row without answer, or whose answer cutting the prompt would not save.
    """
    found = Read()
    limit = min(longest or config.max_positions, config.max_positions)
    for line, fields in numbered(path):
        where = f"{path}:{line}"
        messages, answers, desirable, scores = _parts(fields, where)
        ids = [answer_ids(tokenizer, answer) for answer in answers]
        if not all(ids):
            raise NormaError("an answer has no token, and this tokenizer no end token", where=where, mend="Remove this row")
        prompt = prompt_ids(tokenizer, messages)
        group = fitted(Group(prompt, ids), tokenizer, config, limit, cut, where)
        if group is None:
            found.too_long += 1
            continue
        found.cut += len(group.prompt) < len(prompt)
        found.rows.append(Row(str(fields.get("id", line)), group, desirable, scores, str(fields.get("source") or fields.get("id", line))))
        found.keys.setdefault(digest([[[m["role"], m["content"]] for m in messages], list(answers)]), line)
    if not found.rows:
        why = f"all of its {found.too_long} rows are longer than {limit} tokens" if found.too_long else "it is empty"
        raise NormaError(f"no pair or mark can be used: {why}", where=path, mend="Give shorter or more rows, or say too_long: cut_prompt")
    return found


def numbered(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line, row) of a JSON-lines file."""
    try:
        with path.open(encoding="utf-8") as handle:
            for number, line in enumerate(handle, 1):
                if line.strip():
                    try:
                        row = json.loads(line)
                    except json.JSONDecodeError as error:
                        raise NormaError(f"not JSON ({error.msg})", where=f"{path}:{number}") from None
                    if not isinstance(row, dict):
                        raise NormaError("a row must be an object", where=f"{path}:{number}")
                    yield number, row
    except (FileNotFoundError, IsADirectoryError):
        mend = "Name a file of pairs or marks, such as people/pairs.train.jsonl"
        raise NormaError("this is not a file of rows", where=path, mend=mend) from None


def _parts(fields: Mapping[str, Any], where: str) -> tuple[list[Mapping[str, Any]], tuple[str, ...], tuple[bool, ...], tuple[Any, ...]]:
    """(prompt, answers, which are desirable, scores) of a row."""
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages or messages[-1].get("role") == "assistant":
        raise NormaError("no prompt: 'messages' must end before the answer", where=where, mend="Make such rows with a pairs stage")
    if "chosen" in fields and "rejected" in fields:
        answers: tuple[Any, ...] = (fields["chosen"], fields["rejected"])
        desirable: tuple[bool, ...] = (True, False)
        scores: tuple[Any, ...] = (fields.get("margin"), None)
    elif "answer" in fields and isinstance(fields.get("desirable"), bool):
        answers, desirable, scores = (fields["answer"],), (fields["desirable"],), (fields.get("score"),)
    else:
        mend = "Rows need chosen and rejected, or answer and desirable: a pairs stage makes them"
        raise NormaError(f"neither a pair nor a mark (columns: {', '.join(fields)})", where=where, mend=mend)
    for answer, good in zip(answers, desirable, strict=True):
        if not isinstance(answer, str) or (good and not answer.strip()):  # a bad one may be empty: the model stopped at once
            raise NormaError("an answer is empty: there is nothing to learn", where=where, mend="Remove this row")
    if any(score is not None and (isinstance(score, bool) or not isinstance(score, (int, float))) for score in scores):
        raise NormaError("a score or margin is no number", where=where, mend="Write a number, or leave it out")
    return messages, answers, desirable, scores


def answer_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of an answer, end token included: without it a model never learns to stop."""
    return tokenizer.encode(text) + ([] if tokenizer.eos_id is None else [tokenizer.eos_id])


def fitted(group: Group, tokenizer: Tokenizer, config: ModelConfig, limit: int, cut: bool, where: object = None) -> Group | None:
    """The group where it fits into ``limit`` tokens, perhaps with the end of its prompt only; None where it does not.

    The answers of a group stand beside each other: the longest counts. An encoder-decoder reads the prompt apart.
    """
    answer = max(map(len, group.answers))
    room = limit if config.kind == "encoder-decoder" else limit - answer
    if answer <= limit and len(group.prompt) <= room:
        return group
    if not cut:
        return None
    if answer > limit or room < 1:
        mend = "Raise longest, shorten the answer, or remove the row"
        what = f"the answer alone has {answer} tokens, and {limit} are read: cutting the prompt does not help"
        raise NormaError(what, where=where, mend=mend)
    prompt, bos = list(group.prompt), tokenizer.bos_id
    kept = prompt[-room:]
    if bos is not None and prompt[0] == bos and room > 1:
        kept = [bos, *prompt[len(prompt) - room + 1 :]]
    return Group(kept, group.answers)


def mismatched(rows: Sequence[Row], limit: int) -> list[Group]:
    """For each row its prompt with the answers to another one: where KTO's z0 is measured (2402.01306, 4.2). Pure.

    Rows are laid out by prompt, and each takes the row that lies as far behind its own prompt's rows as itself lies within them: never
    one of its own prompt, and of unlike prompts each a different one. Rows that all have one prompt take each other's answers.
    """
    places: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(rows):
        places.setdefault(tuple(row.group.prompt), []).append(number)
    order = [number for own in places.values() for number in own]
    found: list[Group | None] = [None] * len(rows)
    end = 0
    for own in places.values():
        end += len(own)
        others = len(rows) - len(own)
        for k, number in enumerate(own):
            partner = order[(end + k % others) % len(rows)] if others else own[(k + 1) % len(own)]
            prompt = rows[number].group.prompt
            answers = [list(answer)[: max(1, limit - len(prompt))] for answer in rows[partner].group.answers]
            found[number] = Group(prompt, answers)
    return [group for group in found if group is not None]


def refuse_overlap(train: Read, validation: Read, train_path: Path, validation_path: Path) -> None:
    """Evaluation rows must not come from the training split: raises NormaError naming a row that does."""
    if train_path.resolve() == validation_path.resolve():
        raise NormaError("validation rows are the training rows", where=validation_path, mend="Name another file: pairs.validation.jsonl")
    shared = sorted(line for key, line in validation.keys.items() if key in train.keys)
    if shared:
        raise NormaError(
            f"{len(shared)} validation rows are training rows too",
            where=f"{validation_path}:{shared[0]}",
            mend="Divide the data again: a pairs stage keeps equal prompts on one side",
        )
