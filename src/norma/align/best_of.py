"""Best-of-n, and training on the best: rejection-sampling fine-tuning, in several rounds expert iteration.

    round r: questions ─→ n answers each, by the model as it is now ─→ R(x, y) ─→ round-r.jsonl ─→ -log p of the best ─→ round r + 1

R is the spec's, or a reward model's. The steps of all rounds are one run of the training loop. A round's answers are sampled at its
first step and are on the disk before they are used: a killed run finds them there, since the weights that wrote them are gone.

(Best-of-n and its KL: Stiennon et al., 2009.01325, appendix G.3; rounds: Dong et al., RAFT, 2304.06767; Gulcehre et al., ReST, 2308.08998.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from norma.align.answers import AnswerTraining, readable
from norma.align.marks import mark, rewards, sample
from norma.align.rows import choose
from norma.base.errors import NormaError
from norma.base.files import read_jsonl, write_jsonl
from norma.base.ranks import ALONE, Ranks
from norma.generate import Completion, Sampling, writer
from norma.lm import LanguageModel
from norma.nn import Transformer
from norma.spec import Item, Message, Spec
from norma.text.chat import prompt_ids
from norma.train.scoring import Group
from norma.train.spread import collect


class Scorer(Protocol):
    """What tells good answers from bad ones; ``name`` is written beside every score. None: it cannot be told."""

    name: str

    def scores(self, item: Item, answers: Sequence[Completion]) -> list[float | None]: ...


class SpecScorer:
    """R(x, y) as the spec composes it from its train checkers."""

    def __init__(self, spec: Spec) -> None:
        self.spec, self.name = spec, f"spec:{spec.id}"

    def scores(self, item: Item, answers: Sequence[Completion]) -> list[float | None]:
        return [reward.value for reward in rewards(self.spec, [mark(self.spec, item, answer) for answer in answers])]


class ScoresAnswers(Protocol):
    """A reward model, as ``norma.align.reward_model`` has it."""

    def scores(self, prompts: Sequence[Sequence[Message]], answers: Sequence[str]) -> Tensor: ...


class ModelScorer:
    """A reward model; of one with several heads the mean."""

    def __init__(self, model: ScoresAnswers, name: str) -> None:
        self.model, self.name = model, name

    def scores(self, item: Item, answers: Sequence[Completion]) -> list[float | None]:
        found = self.model.scores([item.messages] * len(answers), [answer.text for answer in answers])
        return [float(value) for value in found.float().mean(dim=1)]


def best(scores: Sequence[float | None]) -> int | None:
    """The place of the highest score, the first of equal ones; None where no answer has a score."""
    known = [(score, -place) for place, score in enumerate(scores) if score is not None]
    return -max(known)[1] if known else None


def kl_bound(n: int) -> float:
    """log n - (n - 1) / n nats: KL of the best-of-n policy from the one that is sampled (2009.01325, G.3), were no two answers equal.

    Where answers repeat or tie it is an upper bound (Beirami et al., 2401.01879). It says nothing of a model trained on the best.
    """
    if n < 1:
        raise ValueError("n is 1 or more")
    return math.log(n) - (n - 1) / n


def expected_best(scores: Sequence[float], n: int) -> float:
    """E[best of n], estimated without bias: the mean, over all ways to take n of m scores, of the best (Hoeffding's U-statistic, 1948).

    sum_i C(i - 1, n - 1) / C(m, n) s_(i), s_(1) to s_(m) in order: in so many ways the i-th is the best.
    """
    m = len(scores)
    if not 1 <= n <= m:
        raise ValueError(f"n must be 1 to {m}, not {n}")
    whole = math.comb(m, n)
    return sum(math.comb(i, n - 1) / whole * score for i, score in enumerate(sorted(scores)) if i >= n - 1)


class BestOf:
    """Losses for :func:`norma.train.train` over all rounds.

    Args:
        items: questions; each round draws ``count`` of them.
        n: answers to each.
        rounds, epochs: how often answers are sampled, and how often each round goes through its best answers.
        size: questions a step.
        least: a best answer below this score is not trained; None: whatever is best.
        folder: where the rounds' answers are written.
    """

    def __init__(
        self,
        model: LanguageModel,
        scorer: Scorer,
        items: Sequence[Item],
        sampling: Sampling,
        *,
        n: int,
        count: int,
        rounds: int,
        epochs: float,
        size: int,
        least: float | None,
        micro_tokens: int,
        folder: Path,
        seed: int,
        dtype: torch.dtype,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.model, self.scorer, self.sampling, self.n, self.least = model, scorer, sampling, n, least
        self.items = [item for item in items if readable(model, item.messages, sampling.max_new_tokens)]
        if not self.items:
            raise NormaError(
                f"none of the {len(items)} questions leaves room for an answer", mend="Lower max_new_tokens, or ask shorter ones"
            )
        self.count, self.rounds, self.size = min(count, len(self.items)), rounds, size
        self.micro_tokens, self.folder, self.seed, self.dtype, self.say = micro_tokens, folder, seed, dtype, say
        # Fixed before anything is sampled: a round with fewer good answers goes through them more often.
        self.steps_a_round = max(1, round(epochs * self.count / size))
        self._now: tuple[int, AnswerTraining, dict[str, float]] | None = None

    @property
    def steps(self) -> int:
        return self.rounds * self.steps_a_round

    def path(self, number: int) -> Path:
        """The file of a round, counted from 1."""
        return self.folder / f"round-{number}.jsonl"

    def losses(
        self, step: int, network: Transformer | None = None, ranks: Ranks = ALONE
    ) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """The part of its round that a step is. Of several ranks the first writes a round's answers, and all learn them."""
        network = self.model.transformer if network is None else network
        number, within = divmod(step, self.steps_a_round)
        if self._now is None or self._now[0] != number:
            self._now = (number, *self._begin(number + 1, network, ranks))
        _, training, facts = self._now
        for loss, numbers in training.losses(within, network, ranks):
            yield loss, numbers | (facts if ranks.reader == 0 else {})
            facts = {}

    def _begin(self, number: int, network: Transformer, ranks: Ranks) -> tuple[AnswerTraining, dict[str, float]]:
        path = self.path(number)
        if not ranks.tell(path.exists()):
            collect(network, self.model.transformer, ranks)
            if ranks.first:
                write_jsonl(path, self._sample(number))
            network.train()
        rows = ranks.tell(read_jsonl(path) if ranks.first else [])
        kept = [Group(prompt_ids(self.model.tokenizer, row["messages"]), [row["ids"]]) for row in rows if row["kept"]]
        if not kept:
            raise NormaError(
                f"round {number}: none of the {len(rows)} answers may be trained",
                where=path,
                mend="Raise answers or max_new_tokens, or lower 'least': the file says what each was worth",
            )
        facts = summary(rows, self.n)
        self.say(
            f"round {number} of {self.rounds}: mean R {facts['reward']:.3f}, best of {self.n} {facts['best_reward']:.3f};"
            f" {len(kept)} answers to {self.count} questions are trained"
        )
        how: dict[str, Any] = {"size": self.size, "micro_tokens": self.micro_tokens, "seed": self.seed, "dtype": self.dtype}
        return AnswerTraining(self.model, kept, row=number, **how), facts

    def _sample(self, number: int) -> Iterator[dict[str, Any]]:
        items = choose(self.items, self.count, int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0]))
        sampling = Sampling(self.sampling.max_new_tokens, self.sampling.temperature, seed=(self.seed << 20) + number)
        writer(self.model).publish(self.model, f"round {number}")
        for item, answers in zip(items, sample(self.model, items, [i.messages for i in items], sampling, each=self.n), strict=True):
            scores = self.scorer.scores(item, answers)
            # An answer that was cut off has no end to learn: it is not among those to choose from.
            chosen = best([s if a.finish_reason == "stop" else None for s, a in zip(scores, answers, strict=True)])
            for place, (answer, score) in enumerate(zip(answers, scores, strict=True)):
                good = place == chosen and score is not None and (self.least is None or score >= self.least)
                yield {
                    "id": item.id,
                    "source": item.source,
                    "language": item.language,
                    "round": number,
                    "messages": [dict(m) for m in item.messages],
                    "answer": answer.text,
                    "ids": list(answer.ids),
                    "finished": answer.finish_reason == "stop",
                    "score": score,
                    "scored_by": self.scorer.name,
                    "kept": good,
                }


def summary(rows: Sequence[dict[str, Any]], n: int) -> dict[str, float]:
    """Means over the questions of a round: R of an answer, and of the best of n; ``masked``: the share of answers without a score."""
    curve = frontier(rows, n)
    first, last = curve[0]["reward"], curve[-1]["reward"]
    masked = sum(row["score"] is None for row in rows) / len(rows)
    return {"reward": first, "best_reward": last, "masked": masked}


def frontier(rows: Sequence[dict[str, Any]], n: int) -> list[dict[str, float]]:
    """[{n, reward, kl}] for 1, 2, 4, ... n answers: the mean of E[best of n], and the bound on its KL. From one set of samples."""
    by_question: dict[str, list[float]] = {}
    for row in rows:
        if row["score"] is not None:
            by_question.setdefault(row["id"], []).append(row["score"])
    sizes = sorted({*(2**i for i in range(n.bit_length()) if 2**i <= n), n})
    found = []
    for size in sizes:
        values = [expected_best(scores, min(size, len(scores))) for scores in by_question.values()]
        found.append({"n": size, "reward": sum(values) / max(1, len(values)), "kl": kl_bound(size)})
    return found
