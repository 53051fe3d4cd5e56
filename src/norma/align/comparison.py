"""The losses of given pairs or marks, by any method of the family, whole batches before micro-batches.

    rows of a step ─→ counts, and KTO's z0, of the WHOLE step ─→ micro-batches ─→ log p of answers ─→ loss of the method, numbers

Everything that belongs to a batch is known before its first micro-batch, so that neither their size nor the number of ranks changes
the gradient. Dropout is off: the policy begins as its reference, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from norma.align.compared import Row
from norma.align.preference_options import METHODS, Method, PairOptions
from norma.base.errors import NormaError
from norma.base.ranks import ALONE, Ranks
from norma.nn import Transformer
from norma.objectives import preference as objectives
from norma.train.scoring import Group, answer_logprobs, split_groups, sum_by_owner

Numbers = dict[str, float]


@dataclass(frozen=True)
class Settings:
    """A method with its numbers, defaults filled in."""

    method: Method
    beta: float
    likelihood: float
    smoothing: float
    margin: float
    desirable: float | None
    undesirable: float

    @staticmethod
    def of(method: Method, options: PairOptions, likelihood: float | None = None) -> Settings:
        """``likelihood``: its default here, where it is not the method's own."""
        facts = METHODS[method]
        own = facts.likelihood if likelihood is None else likelihood
        weight = own if options.likelihood is None else options.likelihood
        if method == "sft" and not weight:
            raise NormaError("sft with likelihood 0 learns nothing", mend="Leave likelihood out")
        smoothing = options.smoothing if method == "cdpo" else 0.0
        beta = facts.beta if options.beta is None else options.beta
        return Settings(method, beta, weight, smoothing, options.margin, options.desirable, options.undesirable)


@dataclass(frozen=True)
class Batch:
    """What is known of a whole step before its micro-batches: the counts that losses are divided by, and KTO's z0."""

    settings: Settings
    rows: int
    answers: int
    desirable: int
    desirable_tokens: int
    undesirable_tokens: int
    weight: float  # sum of weight x tokens over answers
    z0: float = 0.0
    ratio: float = 1.0  # undesirable : desirable in the whole data


@dataclass(frozen=True)
class Scored:
    """The answers of a micro-batch. A pair's two stand next to each other, the better first."""

    logp_M: Tensor
    owners_M: Tensor
    logp_A: Tensor
    tokens_A: Tensor
    reference_A: Tensor
    desirable_A: Tensor
    weights_A: Tensor

    def pairs(self, values_A: Tensor) -> tuple[Tensor, Tensor]:
        """(P,) values of the better answers and of the worse."""
        both = values_A.view(-1, 2)
        return both[:, 0], both[:, 1]

    @property
    def mean_A(self) -> Tensor:
        """Mean log p of a token."""
        return self.logp_A / self.tokens_A


Loss = Callable[[Scored, Batch], tuple[Tensor, Tensor]]  # its part of the step's loss, divided; implicit rewards (A,)


def _pairs(of: Callable[[Scored, Settings], objectives.Compared]) -> Loss:
    def loss(s: Scored, batch: Batch) -> tuple[Tensor, Tensor]:
        found = of(s, batch.settings)
        return found.loss / batch.rows, torch.stack((found.chosen_reward, found.rejected_reward), dim=1).flatten()

    return loss


def _kto(s: Scored, batch: Batch) -> tuple[Tensor, Tensor]:
    how = batch.settings
    desirable = how.undesirable * batch.ratio if how.desirable is None else how.desirable
    weights = {"desirable_weight": desirable, "undesirable_weight": how.undesirable}
    found = objectives.kto(s.logp_A, s.reference_A, s.desirable_A, batch.z0, beta=how.beta, **weights)
    return found.loss / batch.answers, found.reward


def _unlikelihood(s: Scored, batch: Batch) -> tuple[Tensor, Tensor]:
    undesirable = s.logp_M[~s.desirable_A[s.owners_M]]
    loss = batch.settings.beta * objectives.unlikelihood(undesirable) / max(1, batch.undesirable_tokens)
    return loss, s.mean_A.detach()


def _weighted(s: Scored, batch: Batch) -> tuple[Tensor, Tensor]:
    return objectives.weighted_likelihood(s.logp_A, s.weights_A) / max(batch.weight, 1e-12), s.mean_A.detach()


def _nothing_more(s: Scored, batch: Batch) -> tuple[Tensor, Tensor]:
    """sft: the likelihood of the better answers, which every method may add, is all there is."""
    return s.logp_A.sum() * 0.0, s.mean_A.detach()


_dpo = _pairs(lambda s, how: objectives.dpo(*s.pairs(s.logp_A), *s.pairs(s.reference_A), beta=how.beta, smoothing=how.smoothing))
LOSSES: dict[Method, Loss] = {
    "dpo": _dpo,
    "cdpo": _dpo,
    "ipo": _pairs(lambda s, how: objectives.ipo(*s.pairs(s.logp_A), *s.pairs(s.reference_A), *s.pairs(s.tokens_A), beta=how.beta)),
    "orpo": _pairs(lambda s, how: objectives.orpo(*s.pairs(s.mean_A), beta=how.beta)),
    "simpo": _pairs(lambda s, how: objectives.simpo(*s.pairs(s.mean_A), beta=how.beta, margin=how.margin)),
    "kto": _kto,
    "unlikelihood": _unlikelihood,
    "weighted": _weighted,
    "sft": _nothing_more,
}


def answer_weights(rows: Sequence[Row], beta: float) -> list[tuple[float, ...]]:
    """Weights of answers: exp((score - best) / beta) where there are scores (2302.08582, 2), else 1 where desirable and 0 where not."""
    known = [s for row in rows for s in row.scores if s is not None]
    best = max(known, default=0.0)
    return [
        tuple(
            float(good) if score is None else float(np.exp((score - best) / beta))
            for good, score in zip(row.desirable, row.scores, strict=True)
        )
        for row in rows
    ]


@dataclass(frozen=True)
class Seen:
    """What one row's answers came to: implicit rewards, log p and tokens of each."""

    row: int
    rewards: tuple[float, ...]
    logp: tuple[float, ...]
    tokens: tuple[int, ...]


class Comparison:
    """The losses of given rows, whatever step they belong to.

    Args:
        before: log p of each row's answers under the reference (zeros where the method has none).
        apart: KTO's mismatched groups and their log p under the reference, a row each.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        settings: Settings,
        before: Sequence[Sequence[float]],
        apart: tuple[Sequence[Group], Sequence[Sequence[float]]] | None = None,
        *,
        dtype: torch.dtype,
    ) -> None:
        if METHODS[settings.method].paired and not all(row.paired for row in rows):
            mend = "Use kto, unlikelihood, weighted or sft, or give pairs"
            raise NormaError(f"{settings.method} compares pairs, and these are marks of single answers", mend=mend)
        self.rows, self.settings, self.before, self.apart, self.dtype = rows, settings, before, apart, dtype
        self.weights = answer_weights(rows, settings.beta)
        desirable = sum(sum(row.desirable) for row in rows)
        self.ratio = (sum(len(row.desirable) for row in rows) - desirable) / desirable if desirable else 1.0
        self.ratio = self.ratio or 1.0  # of one kind only: nothing to balance

    def dealt(self, numbers: Sequence[int], micro_tokens: int, ranks: Ranks) -> list[tuple[list[int], bool]]:
        """This rank's micro-batches of the rows ``numbers``; False marks one that only keeps step with ranks that have more."""
        order = sorted(numbers, key=lambda i: self.rows[i].group.tokens())
        shares = []
        for reader in range(ranks.readers):
            own = order[reader :: ranks.readers]
            shares.append([[own[i] for i in part] for part in split_groups([self.rows[i].group for i in own], micro_tokens)])
        mine, most = shares[ranks.reader], max(map(len, shares))
        return [(part, True) for part in mine] + [([order[0]], False)] * (most - len(mine))

    def batch(self, network: Transformer, numbers: Sequence[int], micro_tokens: int, ranks: Ranks) -> Batch:
        """The whole step's counts and z0."""
        rows = [self.rows[i] for i in numbers]
        answers = [(good, len(a)) for row in rows for good, a in zip(row.desirable, row.group.answers, strict=True)]
        weight = sum(w * len(a) for i in numbers for w, a in zip(self.weights[i], self.rows[i].group.answers, strict=True))
        good = [n for desirable, n in answers if desirable]
        bad = [n for desirable, n in answers if not desirable]
        counts = (len(rows), len(answers), len(good), sum(good), sum(bad), weight)
        return Batch(self.settings, *counts, self._baseline(network, numbers, micro_tokens, ranks), self.ratio)

    @torch.no_grad()
    def _baseline(self, network: Transformer, numbers: Sequence[int], micro_tokens: int, ranks: Ranks) -> float:
        """z0 of the step, the same on every rank."""
        if self.apart is None:
            return 0.0
        groups, before = self.apart
        ratios, count = 0.0, 0
        for part, counts in self.dealt(numbers, micro_tokens, ranks):
            logp = answer_sums(network, [groups[i] for i in part], self.dtype)
            if counts:
                known = torch.tensor([value for i in part for value in before[i]])
                ratios, count = ratios + float((logp.cpu().double() - known.double()).sum()), count + len(known)
        sums = ranks.total({"ratios": ratios, "count": float(count)})
        return objectives.kto_baseline(sums["ratios"], int(sums["count"]))

    def parts(
        self, network: Transformer, numbers: Sequence[int], micro_tokens: int, ranks: Ranks = ALONE
    ) -> Iterator[tuple[Tensor, Numbers, list[Seen]]]:
        """(loss, numbers, what each row came to) of each micro-batch; losses are times the number of readers, numbers add up."""
        network.eval()  # dropout off; the loop says train() before each run
        batch = self.batch(network, numbers, micro_tokens, ranks)
        first = ranks.reader == 0
        for part, counts in self.dealt(numbers, micro_tokens, ranks):
            s = self._scored(network, part)
            loss, rewards = LOSSES[self.settings.method](s, batch)
            likelihood = -s.logp_A[s.desirable_A].sum() / max(1, batch.desirable_tokens)
            loss = loss + self.settings.likelihood * likelihood
            if not counts:
                yield loss * 0.0, {}, []
                continue
            numbers_of_part = _numbers(s, rewards, batch, loss)
            if first and self.apart is not None:
                numbers_of_part["kl"] = batch.z0
                first = False
            yield loss * ranks.readers, numbers_of_part, _seen(part, s, rewards, self.rows)

    def _scored(self, network: Transformer, part: Sequence[int]) -> Scored:
        rows = [self.rows[i] for i in part]
        logp_M, owners_M = answer_logprobs(network, [row.group for row in rows], dtype=self.dtype)
        home = logp_M.device
        tokens = [float(len(a)) for row in rows for a in row.group.answers]
        return Scored(
            logp_M,
            owners_M,
            sum_by_owner(logp_M, owners_M),
            torch.tensor(tokens, device=home),
            torch.tensor([value for i in part for value in self.before[i]], device=home),
            torch.tensor([good for row in rows for good in row.desirable], device=home),
            torch.tensor([w for i in part for w in self.weights[i]], device=home),
        )


def answer_sums(network: Transformer, groups: Sequence[Group], dtype: torch.dtype) -> Tensor:
    """(A,) log p of whole answers."""
    return sum_by_owner(*answer_logprobs(network, groups, dtype=dtype))


def _numbers(s: Scored, rewards: Tensor, batch: Batch, loss: Tensor) -> Numbers:
    """What is logged: sums over micro-batches and ranks are means over the step."""
    good, bad = s.desirable_A, ~s.desirable_A
    numbers = {"loss": float(loss.detach())}
    if batch.answers == 2 * batch.rows:
        chosen, rejected = s.pairs(rewards)
        numbers["pairs_correct"] = float((chosen > rejected).sum()) / batch.rows
    for name, which, answers, tokens in (
        ("chosen", good, batch.desirable, batch.desirable_tokens),
        ("rejected", bad, batch.answers - batch.desirable, batch.undesirable_tokens),
    ):
        if answers:
            numbers[f"{name}_reward"] = float(rewards[which].sum()) / answers
            numbers[f"{name}_nats_per_token"] = -float(s.logp_A.detach()[which].sum()) / tokens
    return numbers


def _seen(part: Sequence[int], s: Scored, rewards: Tensor, rows: Sequence[Row]) -> list[Seen]:
    values, logp, tokens = rewards.tolist(), s.logp_A.tolist(), s.tokens_A.int().tolist()
    found, at = [], 0
    for i in part:
        end = at + len(rows[i].desirable)
        found.append(Seen(i, tuple(values[at:end]), tuple(logp[at:end]), tuple(tokens[at:end])))
        at = end
    return found
