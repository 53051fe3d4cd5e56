"""What reward a method buys at what distance from the model before: the frontier of mean reward and sequence KL (DPO, 2305.18290, 6.1).

    prompts ─→ answers sampled from the policy ─┬─→ log-probabilities under policy and reference ─→ KL(policy || reference), an interval
                                                └─→ a judge that training never saw ─→ mean reward, an interval
    answers of the reference, n at a time, the best by the TRAINING reward ─→ best of n, whose KL is known (2401.01879)

Prompts are the unit of independence. Letters: P prompts, N answers to each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from norma.generate import Sampling, generate
from norma.lm import LanguageModel
from norma.spec import Item
from norma.text.chat import prompt_ids
from norma.train.scoring import Group, answer_logprobs, split_groups, sum_by_owner

Scorer = Callable[[Sequence[Item], Sequence[str]], list[float | None]]  # None: could not be judged, and counts nowhere
MICRO_TOKENS = 4096


@dataclass(frozen=True)
class Mean:
    """A mean with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Answer:
    """One sampled answer: log p under policy and reference in nats, and sum over its tokens of ref/policy - 1, whose mean is 0."""

    item: str
    text: str
    tokens: int
    finished: bool
    logp: float
    reference: float
    control: float


@dataclass(frozen=True)
class Point:
    """A model on the plane. ``trained`` is the mean of the reward that training saw, where there is one."""

    method: str
    strength: str
    kl: Mean
    reward: Mean
    trained: Mean | None
    answers: int
    tokens: float

    def row(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def sample_answers(
    policy: LanguageModel,
    reference: LanguageModel,
    items: Sequence[Item],
    *,
    each: int,
    max_new_tokens: int,
    seed: int,
    dtype: torch.dtype,
) -> list[Answer]:
    """``each`` answers to every item, at temperature 1 over the whole vocabulary: what the KL is about. In the order of the items."""
    prompts = [prompt_ids(policy.tokenizer, item.messages) for item in items]
    made = generate(policy, [p for p in prompts for _ in range(each)], Sampling(max_new_tokens, 1.0, seed=seed))
    groups = [Group(p, [c.ids for c in made[i * each : (i + 1) * each]]) for i, p in enumerate(prompts)]
    sums = torch.zeros(3, len(groups), each)
    for part in split_groups(groups, MICRO_TOKENS):
        chosen = [groups[i] for i in part]
        new, owners = answer_logprobs(policy.transformer, chosen, dtype=dtype)
        before, _ = answer_logprobs(reference.transformer, chosen, dtype=dtype)
        new, before, owners = new.cpu(), before.cpu(), owners.cpu()
        for row, values in enumerate((new, before, torch.expm1(before - new))):
            sums[row, part] = sum_by_owner(values, owners).view(-1, each)
    flat = sums.view(3, -1).tolist()
    return [
        Answer(items[i // each].id, c.text, len(c.ids), c.finish_reason == "stop", flat[0][i], flat[1][i], flat[2][i])
        for i, c in enumerate(made)
    ]


def sequence_kl(answers: Sequence[Answer], confidence: float = 0.95) -> Mean:
    """KL(policy || reference) of whole answers, in nats, from the policy's own samples.

    The mean of log p - log ref is unbiased (Schulman 2020, k1). The sum over tokens of ref/p - 1 has mean zero given what came
    before, and moves against it: as much of it is added as takes the most variance away (a control variate; with all of it k3).
    """
    y = _by_item(answers, [a.logp - a.reference for a in answers])
    c = _by_item(answers, [a.control for a in answers])
    spread = float(((c - c.mean()) ** 2).sum())
    factor = float(((y - y.mean()) * (c - c.mean())).sum()) / spread if spread > 0 else 0.0
    residuals = y - factor * c
    return _interval(residuals, confidence, lost=1 + (spread > 0))


def mean_score(answers: Sequence[Answer], scores: Sequence[float | None], confidence: float = 0.95) -> Mean:
    """Mean over prompts of the mean over their judged answers."""
    known = [(a, s) for a, s in zip(answers, scores, strict=True) if s is not None]
    return _interval(_by_item([a for a, _ in known], [s for _, s in known]), confidence)


def best_of_kl(n: int) -> float:
    """log n - (n - 1) / n: the KL of best-of-n to the model that it samples from, in nats, or a little more (2401.01879, theorem 1)."""
    return math.log(n) - (n - 1) / n


def best_of(
    answers: Sequence[Answer], by: Sequence[float | None], scores: Sequence[float | None], n: int, confidence: float = 0.95
) -> Mean:
    """Mean of ``scores`` when of n answers the best ``by`` another score is given, over all ways to take n of a prompt's N answers.

    The answer that ``by`` puts in place k of N (1 the worst) is the best of n with probability C(k - 1, n - 1) / C(N, n).
    """
    groups: dict[str, list[tuple[float, float]]] = {}
    for answer, first, second in zip(answers, by, scores, strict=True):
        if first is not None and second is not None:
            groups.setdefault(answer.item, []).append((first, second))
    values = []
    for pairs in groups.values():
        if len(pairs) < n:
            continue
        ordered = sorted(pairs, key=lambda pair: pair[0])
        weights = [math.comb(k, n - 1) / math.comb(len(pairs), n) for k in range(len(pairs))]
        values.append(sum(w * score for w, (_, score) in zip(weights, ordered, strict=True)))
    return _interval(np.array(values), confidence)


def point(
    method: str, strength: str, answers: Sequence[Answer], scores: Sequence[float | None], trained: Sequence[float | None] | None
) -> Point:
    """A model's place on the plane."""
    return Point(
        method,
        strength,
        sequence_kl(answers),
        mean_score(answers, scores),
        None if trained is None else mean_score(answers, trained),
        len(answers),
        sum(a.tokens for a in answers) / len(answers),
    )


def best_of_point(answers: Sequence[Answer], by: Sequence[float | None], scores: Sequence[float | None], n: int) -> Point:
    """Best-of-n on the plane, from answers of the reference: its KL is known, not measured."""
    kl, length = best_of_kl(n), sum(a.tokens for a in answers) / len(answers)
    return Point(
        "best of n", f"n = {n}", Mean(kl, kl, kl), best_of(answers, by, scores, n), best_of(answers, by, by, n), len(answers), length
    )


def efficient(points: Sequence[Point]) -> list[bool]:
    """Whether no other point has as much reward at less KL, or more at as little: estimates, not intervals."""

    def beaten(p: Point) -> bool:
        return any(
            q.kl.value <= p.kl.value and q.reward.value >= p.reward.value and (q.kl.value, q.reward.value) != (p.kl.value, p.reward.value)
            for q in points
        )

    return [not beaten(p) for p in points]


def _by_item(answers: Sequence[Answer], values: Sequence[float]) -> NDArray[np.float64]:
    """(P,) mean of each prompt's values."""
    groups: dict[str, list[float]] = {}
    for answer, value in zip(answers, values, strict=True):
        groups.setdefault(answer.item, []).append(value)
    return np.array([sum(group) / len(group) for group in groups.values()])


def _interval(values: NDArray[np.float64], confidence: float, lost: int = 1) -> Mean:
    """Student's t over prompts; ``lost`` degrees of freedom went into estimates. One prompt alone has no interval: it is infinite."""
    from scipy.stats import t

    mean = float(values.mean()) if values.size else math.nan
    free = values.size - lost
    if free < 1:
        return Mean(mean, -math.inf, math.inf)
    error = math.sqrt(float(((values - mean) ** 2).sum()) / free / values.size)
    reach = float(t.ppf((1 + confidence) / 2, free)) * error
    return Mean(mean, mean - reach, mean + reach)
