"""Supervised correction (有监督纠正): outputs are marked, the marks supervise.

    questions ─→ sampled answers ─→ marks per rule (label store) ─→ corrected answer, kept only if nothing gets worse
              ─→ pairs: corrected over original ─→ DPO + likelihood of the corrected answer

Here the marks come from the program checkers, as an annotator named ``checker:...``; people's marks go through the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from norma.align.marks import mark, sample
from norma.align.options import PairOptions
from norma.base.errors import NormaError
from norma.check.repair import repair
from norma.generate import Sampling
from norma.labels import Label, marks
from norma.lm import LanguageModel
from norma.objectives.preference import dpo
from norma.spec import Item, Spec, Status
from norma.text.chat import prompt_ids
from norma.train.scoring import Group, answer_logprobs, split_groups, sum_by_owner

KEPT = (Status.COMPLIANT, Status.NOT_APPLICABLE)  # what may be said of an answer that keeps every rule that applies


@dataclass(frozen=True)
class Pair:
    """Two answers to one item, the first better."""

    item: Item
    chosen: str
    rejected: str


class PairTraining:
    """The losses of preference training, for :func:`norma.train.train`. Reference log-probabilities are made once."""

    def __init__(self, model: LanguageModel, pairs: Sequence[Pair], options: PairOptions, *, seed: int, dtype: torch.dtype) -> None:
        self.model, self.options, self.seed, self.dtype = model, options, seed, dtype
        tokenizer = model.tokenizer
        end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
        made = [
            Group(prompt_ids(tokenizer, p.item.messages), [tokenizer.encode(p.chosen) + end, tokenizer.encode(p.rejected) + end])
            for p in pairs
        ]
        self.groups = [g for g in made if g.tokens() <= model.config.max_positions]
        if not self.groups:
            raise NormaError(
                f"none of the {len(made)} pairs fits into the model's {model.config.max_positions} positions",
                mend="Give shorter or more pairs",
            )
        self.reference = self._reference()

    def _reference(self) -> Tensor:
        """(P, 2) log-probabilities of chosen and rejected answers under the model as it is now."""
        out = torch.zeros(len(self.groups), 2)
        with torch.no_grad():
            for part in split_groups(self.groups, self.options.micro_tokens):
                tokens, owners = answer_logprobs(self.model.transformer, [self.groups[i] for i in part], dtype=self.dtype)
                out[part] = sum_by_owner(tokens, owners).view(-1, 2)
        return out

    def losses(self, step: int) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """Each epoch goes through all pairs once, in an order of its own; a pure function of (pairs, seed, step)."""
        options, count = self.options, len(self.groups)
        size = min(options.pairs, count)
        epoch, place = divmod(step * size, max(1, count - count % size))
        order = np.random.Generator(np.random.Philox(key=(self.seed << 32) + epoch)).permutation(count)[place : place + size].tolist()
        groups = [self.groups[i] for i in order]
        chosen_tokens = sum(len(g.answers[0]) for g in groups)
        for part in split_groups(groups, options.micro_tokens):
            tokens, owners = answer_logprobs(self.model.transformer, [groups[i] for i in part], dtype=self.dtype)
            logp = sum_by_owner(tokens, owners).view(-1, 2)
            reference = self.reference[[order[i] for i in part]]
            result = dpo(logp[:, 0], logp[:, 1], reference[:, 0], reference[:, 1], beta=options.beta)
            likelihood = -logp[:, 0].sum()
            loss = result.loss / size + options.likelihood * likelihood / chosen_tokens
            yield (
                loss,
                {
                    "loss": float(loss.detach()),
                    "pairs_correct": float(result.correct) / size,
                    "chosen_reward": float(result.chosen_reward) / size,
                    "rejected_reward": float(result.rejected_reward) / size,
                    "chosen_nats_per_token": float(likelihood.detach()) / chosen_tokens,
                },
            )


@dataclass(frozen=True)
class Collected:
    """What sampling and marking gave."""

    pairs: list[Pair]
    labels: list[Label]
    answers: int
    compliant: int  # answers that kept every rule that applies
    uncorrected: int


def collect(
    model: LanguageModel, spec: Spec, items: Sequence[Item], sampling: Sampling, *, each: int, max_edit_ratio: float = 0.7
) -> Collected:
    """Answer, mark and correct: an answer that breaks a rule is paired with its correction, or with a better answer."""
    answers = sample(model, items, [i.messages for i in items], sampling, each=each)
    pairs: list[Pair] = []
    labels: list[Label] = []
    compliant = uncorrected = 0
    for item, completions in zip(items, answers, strict=True):
        marked = [mark(spec, item, c) for c in completions]
        good = [m.text for m in marked if m.finished and all(v.status in KEPT for v in m.verdicts)]
        compliant += len(good)
        for answer in marked:
            made = marks(answer.verdicts, answer.text, item.language)
            if answer.text in good:
                labels += made
                continue
            corrected = repair(spec, item, answer.text, max_edit_ratio=max_edit_ratio) if answer.finished else None
            labels += [replace(m, corrected=corrected) if m.verdict == Status.VIOLATION else m for m in made]
            chosen = corrected or (good[0] if good else None)
            if chosen is None:
                uncorrected += 1
            else:
                pairs.append(Pair(item, chosen, answer.text))
    return Collected(pairs, labels, len(items) * each, compliant, uncorrected)
