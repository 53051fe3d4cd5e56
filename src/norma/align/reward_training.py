"""The losses of a reward model, for :func:`norma.train.train`.

rows of pairs ──→ Judged texts: (better, worse), margin     ─→ bradley_terry ─┐
rows of marks ─┬→               answer, score or mark       ─→ squared | logistic ─→ sums ─→ / what the whole step holds
               └→               answer, a mark a rule       ─→ rule_heads ────┘
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from norma.align.reward_model import RewardModel
from norma.align.reward_model_options import Heads, RewardModelOptions
from norma.base.errors import NormaError
from norma.base.ranks import ALONE, Ranks
from norma.nn import Transformer
from norma.objectives import reward_modelling
from norma.train.reading import Reading, parts, size, text_scores


@dataclass(frozen=True)
class Judgement:
    """What people said of one answer, or of two to the same prompt.

    Attributes:
        texts: the answer; of a pair the better one first.
        target: a pair's margin (0: none), or the answer's score.
        desirable: whether the answer is a good one.
        kept: rule → whether the answer keeps it, where somebody marked that.
        source: what it comes from: the unit of independence.
    """

    texts: tuple[Reading, ...]
    target: float
    desirable: bool
    kept: Mapping[str, bool]
    source: str


def judgement(model: RewardModel, row: Mapping[str, Any], heads: Heads, where: object) -> Judgement:
    """A row of pairs or marks. Raises NormaError, placed at ``where``, for one that the head cannot learn from."""
    needed = {"pair": ("chosen", "rejected"), "score": ("answer", "desirable"), "rules": ("answer", "rules")}[heads]
    missing = [key for key in ("messages", *needed) if row.get(key) is None]
    if missing:
        kind = "pairs (messages, chosen, rejected)" if heads == "pair" else f"marks (messages, {', '.join(needed)})"
        what = f"a row without '{missing[0]}': heads: {heads} learns from {kind}"
        raise NormaError(what, where=where, mend="Name another file, or other heads")
    answers = [row["chosen"], row["rejected"]] if heads == "pair" else [row["answer"]]
    texts = tuple(model.read(row["messages"], answer) for answer in answers)
    desirable = bool(row.get("desirable", True))
    target = float(row.get("margin") or 0.0) if heads == "pair" else float(desirable if row.get("score") is None else row["score"])
    return Judgement(texts, target, desirable, row.get("rules") or {}, str(row.get("source") or row.get("id")))


class RewardTraining:
    """What is learnt from, and the losses of each step. ``mean`` is what ``pointwise: squared`` takes off the scores."""

    def __init__(
        self, reward: RewardModel, judged: Sequence[Judgement], heads: Heads, options: RewardModelOptions, *, seed: int, dtype: torch.dtype
    ) -> None:
        self.heads, self.options, self.names, self.seed, self.dtype = heads, options, reward.names, seed, dtype
        self.judged = [j for j in judged if all(map(reward.fits, j.texts))]
        if heads == "rules":
            self.judged = [j for j in self.judged if any(name in j.kept for name in reward.names)]
        if not self.judged:
            what = f"none of {len(judged)} judgements can be learnt from: the model reads 1 to {reward.limit} tokens"
            raise NormaError(what, mend="Give shorter or more of them")
        targets = [j.target for j in self.judged]
        if heads == "score" and options.pointwise == "logistic" and not all(0 <= t <= 1 for t in targets):
            what = f"pointwise: logistic needs scores between 0 and 1, here they go from {min(targets):g} to {max(targets):g}"
            raise NormaError(what, mend="Say pointwise: squared, or scale the scores")
        self.mean = float(np.mean(targets)) if heads == "score" and options.pointwise == "squared" else 0.0

    def losses(self, network: Transformer, step: int, ranks: Ranks = ALONE) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """Each epoch goes through all judgements once, in an order of its own; a pure function of (judgements, seed, step).

        All ranks see the same micro-batches and take their share of each, so that they go forward and backward together.
        """
        chosen = self._step(step)
        units = sum(map(self._marks, chosen)) if self.heads == "rules" else len(chosen)
        sizes = [size(network, j.texts) for j in chosen]
        for part in parts(sizes, self.options.micro_tokens * ranks.readers):
            own, counts = part[ranks.share(len(part))], 1.0
            if not own:  # another rank has a row more
                own, counts = part[:1], 0.0
            scores = text_scores(network, [chosen[i].texts for i in own], self.dtype)
            judged = self._judged(scores, [chosen[i] for i in own])
            numbers = {
                "loss": float(judged.loss.detach()) / units,
                "accuracy": float(judged.correct) / units,
                "margin": float(judged.margin) / units,
                "tokens": float(sum(sizes[i] for i in own)),
            }
            yield judged.loss * (counts * ranks.readers / units), {name: counts * number for name, number in numbers.items()}

    def _step(self, step: int) -> list[Judgement]:
        count = len(self.judged)
        rows = min(self.options.rows, count)
        epoch, place = divmod(step * rows, count - count % rows)
        order = np.random.Generator(np.random.Philox(key=(self.seed << 32) + epoch)).permutation(count)[place : place + rows]
        return [self.judged[i] for i in order.tolist()]

    def _marks(self, judged: Judgement) -> int:
        return sum(name in judged.kept for name in self.names)

    def _judged(self, scores_NL: Tensor, judged: Sequence[Judgement]) -> reward_modelling.Judged:
        options, device = self.options, scores_NL.device
        if self.heads == "rules":
            kept = torch.tensor([[j.kept.get(name, False) for name in self.names] for j in judged], device=device)
            marked = torch.tensor([[name in j.kept for name in self.names] for j in judged], device=device)
            return reward_modelling.rule_heads(scores_NL, kept, marked)
        targets = torch.tensor([j.target for j in judged], device=device)
        if self.heads == "pair":
            pairs = scores_NL.view(-1, 2)
            margin = targets if options.margin and any(j.target for j in judged) else None
            return reward_modelling.bradley_terry(pairs[:, 0], pairs[:, 1], margin, centring=options.centring)
        desirable = torch.tensor([j.desirable for j in judged], device=device)
        learn = reward_modelling.squared if options.pointwise == "squared" else reward_modelling.logistic
        return learn(scores_NL[:, 0], targets - self.mean, desirable)
