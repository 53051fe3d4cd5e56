"""Instructive prompting (规范性提示): the norm stands in the input, 请回答问题时保持礼貌.

A model trained from nothing has to learn that the rules before a question mean something. Each question therefore comes with
some of its rules rendered into the prompt and an answer that keeps THOSE, or with none and the plain answer. Since the shown
subset varies, the only way to do well is to read it. In a small share of the rows without rules the answer keeps all of them
anyway (``habit``): reward training can only strengthen what sampling finds now and then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from norma.check.repair import repair
from norma.spec import Item, Spec
from norma.spec.shown import Layout, laid_out

PLAIN = Layout()


def ruled_conversations(
    spec: Spec,
    items: Sequence[Item],
    *,
    share: float,
    every: float,
    habit: float,
    seed: int,
    apart: Sequence[Sequence[str]] = (),
    layout: Layout = PLAIN,
) -> Iterator[list[dict[str, Any]]]:
    """Conversations with rules in the prompt (a ``share`` of them) and without; ``layout`` says how the rules stand there.

    Of those with rules, a share ``every`` shows all that apply, the others a random part; of those without, a share ``habit``
    has an answer that keeps all rules. An item whose reference cannot be
    brought to keep the shown rules is left out. Combinations in ``apart`` never stand in one prompt together.
    """
    for number, item in enumerate(items):
        random = np.random.Generator(np.random.Philox(key=(seed << 32) + number))
        if item.reference is None:
            continue
        if random.random() >= share:
            kept = repair(spec, item, item.reference) if random.random() < habit else None
            yield [*map(dict, item.messages), {"role": "assistant", "content": kept or item.reference}]
            continue
        active = spec.resolve(item).active
        shown = list(active) if random.random() < every else [r for r in active if random.random() < 0.5]
        shown = _parted(shown, apart, random)
        answer = repair(spec, item, item.reference, shown)
        if answer is not None:
            prompt = laid_out(spec, item, shown, layout, seed) if shown else item.messages
            yield [*map(dict, prompt), {"role": "assistant", "content": answer}]


def _parted(shown: list[str], apart: Sequence[Sequence[str]], random: np.random.Generator) -> list[str]:
    """``shown`` without one rule, drawn at random, of every combination that it holds whole."""
    for combination in apart:
        if set(combination) <= set(shown):
            dropped = combination[int(random.integers(len(combination)))]
            shown = [rule for rule in shown if rule != dropped]
    return shown
