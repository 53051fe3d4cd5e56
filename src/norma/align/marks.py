"""Answers and their marks: sample from the model, let the spec's checkers mark each rule, put the marks in the label store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from norma.generate import Completion, Sampling, writer
from norma.lm import LanguageModel
from norma.spec import Item, Message, Reward, Role, Spec, Verdict
from norma.text.chat import prompt_ids


@dataclass(frozen=True)
class Marked:
    """One answer with its verdicts under every rule."""

    item: Item
    text: str
    ids: tuple[int, ...]
    verdicts: list[Verdict]
    finished: bool


def sample(
    model: LanguageModel, items: Sequence[Item], prompts: Sequence[Sequence[Message]], sampling: Sampling, *, each: int = 1, first: int = 0
) -> list[list[Completion]]:
    """``each`` answers to every prompt, in the order of the items, by the model's own engine.

    ``first``: place of the first item among those that several ranks answer together; its random numbers depend on it.
    """
    ids = [prompt_ids(model.tokenizer, p) for p in prompts]
    rows = range(first * each, (first + len(items)) * each)
    flat = writer(model).generate(model, [p for p in ids for _ in range(each)], sampling, rows=rows)
    return [flat[i * each : (i + 1) * each] for i in range(len(items))]


def mark(spec: Spec, item: Item, completion: Completion, role: Role = "train") -> Marked:
    """Let the checkers of a role mark one answer."""
    return Marked(item, completion.text, completion.ids, spec.verdicts(item, completion.text, role), completion.finish_reason == "stop")


def rewards(spec: Spec, answers: Sequence[Marked]) -> list[Reward]:
    """R(x, y) of the answers to one item."""
    return spec.rewards([a.item for a in answers], [a.verdicts for a in answers])
