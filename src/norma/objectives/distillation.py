"""Context distillation: a model without the prompt learns to say what it says with it (Askell et al., 2112.00861, section 2.1).

    teacher: the model with the rules in its prompt ─→ p of the next token ─┐
    student: the model without them                 ─→ q of the next token ─┴─→ KL(p || q), summed over the answers' tokens

Letters: M answer tokens, W width, V vocabulary, K likeliest tokens. Scores exist for a chunk of tokens at a time, in the forward pass and
again in the backward pass.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.utils.checkpoint
from torch import Tensor
from torch.nn import functional as F

CHUNK = 1024  # tokens whose scores exist at one time: a teacher's and a student's


class Head(NamedTuple):
    """What turns features (M, W) into scores: rows (V, W), a bias (V,) and Gemma's softcap where there are some."""

    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None

    def log_p(self, features_MW: Tensor, temperature: float) -> Tensor:
        """(M, V) log-probabilities in fp32; scores are divided by ``temperature``."""
        scores = F.linear(features_MW, self.weight.to(features_MW.dtype)).float()
        if self.bias is not None:
            scores = scores + self.bias.float()
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        return F.log_softmax(scores / temperature, dim=-1)


class Likeliest(NamedTuple):
    """What is kept of a teacher: (M, K) log-probabilities in nats of its likeliest tokens, and (M, K) which these are."""

    log_p: Tensor
    ids: Tensor


def likeliest(features_MW: Tensor, head: Head, k: int, *, temperature: float = 1.0) -> Likeliest:
    """The ``k`` likeliest tokens at every place, without gradient."""
    found = []
    with torch.no_grad():
        for part in torch.split(features_MW, CHUNK):
            log_p, ids = head.log_p(part, temperature).topk(min(k, head.weight.shape[0]), dim=-1)
            found.append((log_p, ids))
    return Likeliest(torch.cat([log_p for log_p, _ in found]), torch.cat([ids for _, ids in found]))


def forward_kl(student_MW: Tensor, head: Head, teacher_MW: Tensor, teacher_head: Head, *, temperature: float = 1.0) -> Tensor:
    """Sum over tokens of KL(p || q) = sum_v p_v (log p_v - log q_v) in nats over the whole vocabulary; gradient to the student only.

    p is the teacher's distribution, q the student's, both of scores divided by ``temperature`` (2112.00861, 2.1; Hinton et al.,
    1503.02531, 2, without the factor of the squared temperature). Divide by the tokens of the whole step.
    """
    total = student_MW.new_zeros((), dtype=torch.float32)
    for student, teacher in zip(torch.split(student_MW, CHUNK), torch.split(teacher_MW.detach(), CHUNK), strict=True):
        total = total + torch.utils.checkpoint.checkpoint(_whole, student, head, teacher, teacher_head, temperature, use_reentrant=False)
    return total


def _whole(student: Tensor, head: Head, teacher: Tensor, teacher_head: Head, temperature: float) -> Tensor:
    with torch.no_grad():
        log_p = teacher_head.log_p(teacher, temperature)
    return F.kl_div(head.log_p(student, temperature), log_p, reduction="sum", log_target=True)


def likeliest_kl(student_MW: Tensor, head: Head, teacher: Likeliest, *, temperature: float = 1.0) -> Tensor:
    """The same where only the teacher's likeliest tokens were kept: they, and all the others together as one more class.

    KL of the two distributions over K + 1 classes (2112.00861, 2.1, with K = 50): never more than KL over the vocabulary, equal to it
    with K = V. What the student does among the other tokens is left to it.
    """
    total = student_MW.new_zeros((), dtype=torch.float32)
    parts = (torch.split(x, CHUNK) for x in (student_MW, teacher.log_p, teacher.ids))
    for student, log_p, ids in zip(*parts, strict=True):
        total = total + torch.utils.checkpoint.checkpoint(_with_rest, student, head, log_p, ids, temperature, use_reentrant=False)
    return total


def _with_rest(student: Tensor, head: Head, log_p_MK: Tensor, ids_MK: Tensor, temperature: float) -> Tensor:
    log_q = head.log_p(student, temperature)
    kept = F.kl_div(log_q.gather(1, ids_MK), log_p_MK, reduction="sum", log_target=True)
    if ids_MK.shape[1] == log_q.shape[1]:
        return kept
    rest_p = 1.0 - log_p_MK.exp().sum(dim=1)
    # The student's rest is summed over what was not kept, not taken as one minus the kept: of a rest of 1e-9 nothing would be left.
    rest_q = log_q.scatter(1, ids_MK, -torch.inf).logsumexp(dim=1)
    rest_p = rest_p.clamp(min=0.0)
    return kept + (torch.xlogy(rest_p, rest_p) - rest_p * rest_q).sum()
