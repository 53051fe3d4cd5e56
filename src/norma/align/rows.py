"""Questions on disk to the spec's items and to packed training rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from norma.base.files import read_jsonl
from norma.spec import Item
from norma.text.chat import Trained, training_row
from norma.text.packing import Rows
from norma.text.tokenizer import Tokenizer


def read_items(path: Path) -> list[Item]:
    """Question rows (``norma.text.questions``) as items; the last message is the reference answer."""
    return [to_item(row) for row in read_jsonl(path)]


def to_item(row: Mapping[str, Any]) -> Item:
    messages = row["messages"]
    return Item(
        id=row["id"],
        messages=tuple(messages[:-1]),
        language=row["language"],
        facts=row.get("facts", {}),
        cluster=row.get("source", ""),
        reference=messages[-1]["content"],
    )


def choose(items: Sequence[Any], count: int, seed: int) -> list[Any]:
    """``count`` of them, without repetition, drawn by ``seed``; all of them when there are fewer."""
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(items))[:count]
    return [items[i] for i in order.tolist()]


def conversation_rows(
    tokenizer: Tokenizer, conversations: Iterable[Sequence[Mapping[str, Any]]], limit: int, trained: Trained = "answers"
) -> Rows:
    """Conversations as rows trained on the assistant's words, of the turns that ``trained`` says.

    One longer than ``limit`` is left out: cut, it teaches no answer. So is one without anything to train.
    """
    made = (training_row(tokenizer, messages, trained) for messages in conversations)
    return Rows.build(((ids, flags) for ids, flags in made if len(ids) <= limit and any(flags)), limit)
