"""What people are told of policy training in words: the sizes of a step before it begins, and what the numbers mean when it ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from norma.align.alarms import flat_words
from norma.align.policy_options import PolicyOptions

MANY = 0.3  # share of groups or answers that teach nothing from which it is worth a line


def batch_table(options: PolicyOptions, *, steps: int, questions: int, prompt_tokens: int, ranks: int = 1) -> str:
    """The sizes of training, a line each: what stands behind "batch".

    Args:
        questions: how many there are to draw from.
        prompt_tokens: of the longest prompt.
    """
    asked = min(options.questions, questions)
    sequences = asked * options.group
    row = prompt_tokens + options.group * options.max_new_tokens
    rows = max(1, options.micro_tokens // row)
    per_step = math.ceil(asked / options.minibatches)
    parts = math.ceil(math.ceil(per_step / ranks) / rows)
    rollouts = math.ceil(steps / options.steps)
    updates = f"{options.epochs} epochs x {options.minibatches} minibatches = {options.steps} steps" if options.steps > 1 else "1 step"
    lines = {
        "method": f"{options.method}: {options.advantage} advantages, {options.ratio} ratio, leash in the {options.kl_in}",
        "questions": f"{asked} a rollout, of {questions:,}",
        "sequences": f"{asked} x {options.group} answers = {sequences} a rollout",
        "tokens": f"up to {sequences * options.max_new_tokens:,} written a rollout ({options.max_new_tokens} an answer)",
        "steps": f"{updates} a rollout; {steps} steps = {rollouts} rollouts = {rollouts * sequences:,} sequences",
        "micro-batches": f"up to {parts} a step and rank, of up to {rows} questions with all their answers (a row of {row} tokens at most)",
        "ranks": f"{ranks}",
    }
    return "\n".join(f"{name:>13}  {text}" for name, text in lines.items())


def in_words(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the rows of metrics.jsonl say, in sentences; nothing where all is as it should be. The one place that is asked for them."""
    def share(name: str) -> float:
        values = [float(row[name]) for row in rows if row.get(name) is not None]
        return sum(values) / len(values) if values else 0.0

    flat, masked = share("flat_groups"), share("masked")
    said = [flat_words(flat)[0]] if flat > MANY else []
    return said + ([f"{masked:.0%} of answers were left out because a checker failed or was unsure"] if masked > MANY else [])
