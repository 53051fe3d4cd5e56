"""Context distillation (2112.00861): the model learns to keep the rules unprompted as it does with them in the prompt.

    questions ─→ with rules in the prompt ─→ the model, frozen: answers, and what it holds of every next token ─┐
              └→ as they are              ─→ the model, trained ────────────────────────────────────────────────┴─→ KL, or -log p

The teacher is read once, before the first step: the states behind its scores are kept (or its likeliest tokens), and its head. No second
model is held. The sampled variant needs nothing of the teacher but its answers: :class:`norma.align.answers.AnswerTraining`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from norma.align.answers import AnswerTraining, fits, readable, states_of
from norma.align.marks import sample
from norma.generate import Sampling
from norma.lm import LanguageModel
from norma.nn import Transformer
from norma.objectives.distillation import Head, Likeliest, forward_kl, likeliest, likeliest_kl
from norma.spec import Item, Spec
from norma.spec.shown import Shown, chosen, laid_out
from norma.text.chat import prompt_ids
from norma.train.scoring import Group, split_groups


def teach(
    model: LanguageModel, spec: Spec, items: Sequence[Item], shown: Shown, sampling: Sampling, *, each: int, seed: int
) -> list[dict[str, Any]]:
    """Rows of answers that the model gives with rules in its prompt; questions that it cannot read with them are left out."""
    rules = [chosen(spec, item, shown.rules, seed) for item in items]
    told = [laid_out(spec, item, names, shown, seed) for item, names in zip(items, rules, strict=True)]
    kept = [i for i, messages in enumerate(told) if readable(model, messages, sampling.max_new_tokens)]
    answers = sample(model, [items[i] for i in kept], [told[i] for i in kept], sampling, each=each)
    return [
        {
            "id": items[i].id,
            "source": items[i].source,
            "language": items[i].language,
            "messages": [dict(m) for m in items[i].messages],
            "told": [dict(m) for m in told[i]],
            "rules": rules[i],
            "answers": [{"text": a.text, "ids": list(a.ids), "finished": a.finish_reason == "stop"} for a in group],
        }
        for i, group in zip(kept, answers, strict=True)
    ]


def groups_of(model: LanguageModel, rows: Sequence[Mapping[str, Any]], prompt: str) -> list[Group]:
    """The answers of :func:`teach` behind one of their prompts: ``messages`` or ``told``."""
    return [Group(prompt_ids(model.tokenizer, row[prompt]), [answer["ids"] for answer in row["answers"]]) for row in rows]


class Distillation(AnswerTraining):
    """KL(teacher || student) on the teacher's answers, over the whole vocabulary or the teacher's ``top`` likeliest tokens.

    Args:
        told, plain: the same answers behind the prompt with rules and behind the one without, in the same order.
        teacher: who reads ``told``; None: ``model`` as it is now.
        top: how many of the teacher's tokens count each by itself; None: all.
        temperature: of both distributions.
    """

    def __init__(
        self,
        model: LanguageModel,
        told: Sequence[Group],
        plain: Sequence[Group],
        *,
        size: int,
        micro_tokens: int,
        seed: int,
        dtype: torch.dtype,
        teacher: LanguageModel | None = None,
        top: int | None = None,
        temperature: float = 1.0,
    ) -> None:
        if [list(map(list, g.answers)) for g in told] != [list(map(list, g.answers)) for g in plain]:
            raise ValueError("teacher and student must read the same answers")
        pairs = [(a, b) for a, b in zip(told, plain, strict=True) if fits(model.config, a) and fits(model.config, b)]
        super().__init__(model, [b for _, b in pairs], size=size, micro_tokens=micro_tokens, seed=seed, dtype=dtype)
        self.left_out = len(plain) - len(pairs)
        self.temperature = temperature
        teacher = teacher or model
        network = teacher.transformer
        bias = None if network.head_bias is None else network.head_bias.detach().clone()
        self.head = Head(network.head_weight().detach().clone(), bias, network.config.logit_softcap)
        self.taught = self._read(teacher, [a for a, _ in pairs], top)

    @torch.no_grad()
    def _read(self, teacher: LanguageModel, told: Sequence[Group], top: int | None) -> list[Tensor] | list[Likeliest]:
        """For every group what the teacher holds of its answers' tokens: states (T, W), or the likeliest (T, K)."""
        training = teacher.transformer.training
        teacher.transformer.eval()
        whole: dict[int, Tensor] = {}
        for part in split_groups(told, self.micro_tokens):
            states = states_of(teacher.transformer, [told[i] for i in part], self.dtype).features
            sizes = [sum(map(len, told[i].answers)) for i in part]
            whole |= dict(zip(part, torch.split(states, sizes), strict=True))
        teacher.transformer.train(training)
        states_by_group = [whole[i] for i in range(len(told))]
        if top is None:
            return states_by_group
        return [likeliest(states, self.head, top, temperature=self.temperature) for states in states_by_group]

    def loss(self, numbers: Sequence[int], network: Transformer) -> Tensor:
        """Sum of KL over the answer tokens of the groups with these numbers."""
        student = states_of(network, [self.groups[i] for i in numbers], self.dtype).features
        head = Head(network.head_weight(), network.head_bias, network.config.logit_softcap)
        taught: list[Any] = [self.taught[i] for i in numbers]
        if isinstance(taught[0], Likeliest):
            joined = Likeliest(torch.cat([t.log_p for t in taught]), torch.cat([t.ids for t in taught]))
            return likeliest_kl(student, head, joined, temperature=self.temperature)
        return forward_kl(student, head, torch.cat(taught), self.head, temperature=self.temperature)
