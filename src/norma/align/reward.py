"""Reward modelling (奖惩建模): maximise E[R(x, y)] by group-relative policy gradient, on a leash to the model before.

    step N: questions of N ─→ G answers each ─→ verdicts per rule ─→ R(x, y) as the spec composes it ─→ advantages in the group
            ─→ loss = -(1/M) sum_t A log p + beta KL(p || p_before)            (GRPO, 2402.03300; token mean as in DAPO)

One optimiser step per rollout: the policy that samples is the policy that learns, so the ratio is exactly one. Sampling is at
temperature 1 over the whole vocabulary, so the gradient is that of the distribution that was sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from norma.align.marks import Marked, mark, rewards, sample
from norma.align.options import PolicyOptions
from norma.generate import Sampling
from norma.lm import LanguageModel
from norma.nn.lora import switched_off
from norma.objectives.policy_gradient import clipped_policy_loss, group_advantages, kl_estimate, kl_penalty
from norma.spec import Item, Spec, Status
from norma.text.chat import prompt_ids
from norma.train.scoring import Group, answer_logprobs, split_groups


class NormPolicy:
    """The losses of reward training, for :func:`norma.train.train`."""

    def __init__(
        self,
        model: LanguageModel,
        reference: LanguageModel | None,  # None: the model itself without its LoRA
        spec: Spec,
        items: Sequence[Item],
        options: PolicyOptions,
        *,
        seed: int,
        dtype: torch.dtype,
    ) -> None:
        self.model, self.reference, self.spec, self.items, self.options = model, reference, spec, items, options
        self.seed, self.dtype = seed, dtype
        self.on_rollout: Callable[[int, list[list[Marked]]], None] | None = None

    def rollout(self, step: int) -> list[list[Marked]]:
        """The groups of a step: a pure function of the weights, the seed and the step."""
        random = np.random.Generator(np.random.Philox(key=(self.seed << 32) + step))
        count = min(self.options.questions, len(self.items))
        items = [self.items[i] for i in random.choice(len(self.items), count, replace=False).tolist()]
        sampling = Sampling(self.options.max_new_tokens, self.options.temperature, seed=(self.seed << 20) + step)
        answers = sample(self.model, items, [i.messages for i in items], sampling, each=self.options.group)
        return [[mark(self.spec, item, c) for c in group] for item, group in zip(items, answers, strict=True)]

    def losses(self, step: int) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """The parts of one step's loss: rollout first, then a micro-batch of groups at a time."""
        options = self.options
        groups = self.rollout(step)
        if self.on_rollout:
            self.on_rollout(step, groups)
        self.model.transformer.train()
        advantages, numbers = self._reward(groups)
        packed = [Group(prompt_ids(self.model.tokenizer, g[0].item.messages), [a.ids for a in g]) for g in groups]
        tokens = sum(len(a.ids) for g in groups for a in g)
        for part in split_groups(packed, options.micro_tokens):
            chosen = [packed[i] for i in part]
            new, owners = answer_logprobs(self.model.transformer, chosen, dtype=self.dtype, temperature=options.temperature)
            own, network = self.reference is None, (self.reference or self.model).transformer
            with torch.no_grad(), switched_off(network) if own else nullcontext():
                before, _ = answer_logprobs(network, chosen, dtype=self.dtype, temperature=options.temperature)
            weight = torch.tensor([a for i in part for a in advantages[i]])[owners]
            loss = clipped_policy_loss(new, new.detach(), weight) + options.kl * kl_penalty(new, before)
            yield loss / tokens, {"kl": float(kl_estimate(new, before)) / tokens, "entropy": float(-new.detach().sum()) / tokens, **numbers}
            numbers = {}

    def _reward(self, groups: list[list[Marked]]) -> tuple[list[list[float]], dict[str, float]]:
        """Advantages of every answer, and what is logged: the reward that is optimised, in sum and per rule."""
        advantages: list[list[float]] = []
        values: list[float] = []
        flat = 0
        kept: dict[str, list[bool]] = {}
        for group in groups:
            made = rewards(self.spec, group)
            total = [
                None if r.value is None else r.value + (0.0 if a.finished else self.options.unfinished)
                for r, a in zip(made, group, strict=True)
            ]
            advantages.append(group_advantages(total, divide_by_std=self.options.divide_by_std))
            values += [v for v in total if v is not None]
            flat += not any(advantages[-1])
            for answer in group:
                for verdict in answer.verdicts:
                    if verdict.status in (Status.COMPLIANT, Status.VIOLATION):
                        kept.setdefault(verdict.rule, []).append(verdict.status is Status.COMPLIANT)
        numbers: dict[str, Any] = {"reward": sum(values) / max(1, len(values)), "flat_groups": flat / len(groups)}
        numbers |= {f"rule/{rule}": sum(marks) / len(marks) for rule, marks in sorted(kept.items())}
        numbers["answer_tokens"] = sum(len(a.ids) for g in groups for a in g) / sum(map(len, groups))
        numbers["masked"] = 1 - len(values) / sum(map(len, groups))
        return advantages, numbers
