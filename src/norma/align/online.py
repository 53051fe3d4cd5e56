"""Online preference training: the policy writes both answers, the spec or a reward model says which is better.

    step N: questions of N ─→ answers of the policy ─→ rewards ─→ best over worst ─→ log p under the model before ─→ loss of the method

(Guo et al., 2402.04792: direct alignment from online feedback.) The ids that were sampled are the ids that are trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from norma.align.compared import Row
from norma.align.comparison import Comparison, Numbers, Settings, answer_sums
from norma.align.marks import mark, rewards, sample
from norma.align.preference_options import METHODS, OnlineOptions
from norma.base.ranks import ALONE, Ranks
from norma.generate import Completion, Sampling, writer
from norma.lm import LanguageModel
from norma.lm.adapter import reference
from norma.nn import Transformer
from norma.spec import Item, Message, Spec
from norma.text.chat import prompt_ids
from norma.train.scoring import Group, split_groups
from norma.train.spread import collect

Judge = Callable[[Item, Sequence[Completion]], list[float | None]]  # rewards of the answers to one question; None: cannot be said


class Scorer(Protocol):
    """A reward model."""

    def scores(self, prompts: Sequence[Sequence[Message]], answers: Sequence[str]) -> Tensor: ...


def by_spec(spec: Spec) -> Judge:
    """R(x, y) as the spec composes it."""

    def judge(item: Item, answers: Sequence[Completion]) -> list[float | None]:
        return [r.value for r in rewards(spec, [mark(spec, item, a) for a in answers])]

    return judge


def by_model(model: Scorer) -> Judge:
    """The first score of a reward model."""

    def judge(item: Item, answers: Sequence[Completion]) -> list[float | None]:
        return [float(v) for v in model.scores([item.messages] * len(answers), [a.text for a in answers])[:, 0].tolist()]

    return judge


class OnlinePreference:
    """The losses of online preference training, for :func:`norma.train.train`.

    A step in which no question got two answers of unlike reward has the loss 0; ``flat_groups`` is the share of such questions.

    Args:
        reference: the model before; None: ``model`` carries an adapter, and is its own reference without it.
    """

    def __init__(
        self,
        model: LanguageModel,
        reference: LanguageModel | None,
        judge: Judge,
        items: Sequence[Item],
        settings: Settings,
        options: OnlineOptions,
        *,
        micro_tokens: int,
        seed: int,
        dtype: torch.dtype,
    ) -> None:
        self.model, self.reference, self.judge, self.items = model, reference, judge, items
        self.settings, self.options, self.micro_tokens, self.seed, self.dtype = settings, options, micro_tokens, seed, dtype

    def rollout(self, step: int) -> tuple[list[Row], Numbers]:
        """The pairs of a step, best over worst: a pure function of the weights, the seed and the step."""
        options = self.options
        random = np.random.Generator(np.random.Philox(key=(self.seed << 32) + step))
        count = min(options.questions, len(self.items))
        items = [self.items[i] for i in random.choice(len(self.items), count, replace=False).tolist()]
        sampling = Sampling(options.max_new_tokens, options.temperature, seed=(self.seed << 20) + step)
        writer(self.model).publish(self.model, f"step {step}")
        answers = sample(self.model, items, [i.messages for i in items], sampling, each=options.answers)
        rows: list[Row] = []
        values: list[float] = []
        masked = 0
        for item, group in zip(items, answers, strict=True):
            said = self.judge(item, group)
            known = [
                (value + (0.0 if a.finish_reason == "stop" else options.unfinished), a.ids)
                for value, a in zip(said, group, strict=True)
                if value is not None
            ]
            masked += len(group) - len(known)
            values += [value for value, _ in known]
            best, worst = max(known, key=lambda k: k[0], default=None), min(known, key=lambda k: k[0], default=None)
            if best and worst and best[0] > worst[0]:
                pair = Group(prompt_ids(self.model.tokenizer, item.messages), [best[1], worst[1]])
                rows.append(Row(item.id, pair, (True, False), (best[0] - worst[0], None)))
        answered = sum(map(len, answers))
        numbers = {
            "reward": sum(values) / max(1, len(values)),
            "flat_groups": 1 - len(rows) / count,
            "masked": masked / answered,
            "answer_tokens": sum(len(a.ids) for group in answers for a in group) / answered,
            "unfinished": sum(a.finish_reason != "stop" for group in answers for a in group) / answered,
        }
        return rows, numbers

    def losses(self, step: int, network: Transformer | None = None, ranks: Ranks = ALONE) -> Iterator[tuple[Tensor, Numbers]]:
        """The parts of one step's loss: sampling first, by the first of several ranks, then a micro-batch of pairs at a time."""
        network = self.model.transformer if network is None else network
        collect(network, self.model.transformer, ranks)
        rows, numbers = ranks.tell(self.rollout(step) if ranks.first else ([], {}))
        numbers = numbers if ranks.reader == 0 else {}
        if not rows:  # several ranks still go forward and backward in step
            idle = Group(prompt_ids(self.model.tokenizer, self.items[0].messages), [[0]])
            yield answer_sums(network, [idle], self.dtype).sum() * 0.0, {"loss": 0.0, **numbers}
            return
        before = self._before(rows) if METHODS[self.settings.method].reference else [[0.0, 0.0] for _ in rows]
        comparison = Comparison(rows, self.settings, before, dtype=self.dtype)
        tokens = sum(len(a) for row in rows for a in row.group.answers)
        for loss, part, seen in comparison.parts(network, range(len(rows)), self.micro_tokens, ranks):
            if METHODS[self.settings.method].reference:
                # The answers are the policy's own, so the mean of log pi/ref estimates the KL a token (k1), of the pairs kept.
                part["kl"] = sum(p - b for s in seen for p, b in zip(s.logp, before[s.row], strict=True)) / tokens
            yield loss, part | numbers
            numbers = {}

    @torch.no_grad()
    def _before(self, rows: Sequence[Row]) -> list[list[float]]:
        """log p of the answers under the model before."""
        groups = [row.group for row in rows]
        found: list[list[float]] = [[] for _ in rows]
        with self._frozen() as reference:
            network = reference.transformer.eval()
            for part in split_groups(groups, self.micro_tokens):
                pairs = answer_sums(network, [groups[i] for i in part], self.dtype).view(-1, 2)
                for i, pair in zip(part, pairs.tolist(), strict=True):
                    found[i] = pair
        return found

    @contextmanager
    def _frozen(self) -> Iterator[LanguageModel]:
        """The model before: a model of its own, or this one with its adapter off."""
        if self.reference is not None:
            yield self.reference
        else:
            with reference(self.model) as before:
                yield before
