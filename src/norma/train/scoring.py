"""Log-probabilities of whole answers, by the trainer's own forward pass.

The answers of one prompt share a row: the prompt is read once (the trunk), each answer is a branch that sees the prompt and
itself. Four to five times fewer tokens than one row an answer, and the same numbers.

    row:        prompt prompt prompt | answer 1 ... | answer 2 ... | padding
    document:   1      1      1        2              3              0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from norma.nn import Mask, Transformer
from norma.objectives.likelihood import token_logprobs

ROUND = 32  # lengths are rounded up, so that the CPU kernels' caches stay small


@dataclass(frozen=True)
class Group:
    """One prompt and its answers, as token ids; answers hold their end token."""

    prompt: Sequence[int]
    answers: Sequence[Sequence[int]]

    def tokens(self) -> int:
        return len(self.prompt) + sum(map(len, self.answers))


def answer_logprobs(model: Transformer, groups: Sequence[Group], *, dtype: torch.dtype, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """(M,) log p of every answer token in nats (fp32, differentiable), and (M,) int64: the number of the answer each belongs to.

    Answers are numbered in order through all groups; tokens come in order too.
    """
    states, targets, owners = answer_states(model, groups, dtype=dtype)
    return state_logprobs(model, states, targets, temperature), owners


def state_logprobs(model: Transformer, states_MW: Tensor, targets_M: Tensor, temperature: float = 1.0) -> Tensor:
    """(M,) log p of the tokens that follow the states of :func:`answer_states`."""
    features, weight, cap = model.features(states_MW), model.head_weight(), model.config.logit_softcap
    return token_logprobs(features, weight, targets_M, temperature, bias=model.head_bias, softcap=cap)


def answer_states(model: Transformer, groups: Sequence[Group], *, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """(M, W) the hidden state from which each answer token is foretold, (M,) the tokens, (M,) the answers they belong to."""
    length = -(-max(g.tokens() for g in groups) // ROUND) * ROUND
    shape = (len(groups), length)
    ids, documents, positions = (torch.zeros(shape, dtype=torch.int64) for _ in range(3))
    sources: list[Tensor] = []
    targets: list[int] = []
    owners: list[int] = []
    for row, group in enumerate(groups):
        n = len(group.prompt)
        ids[row, :n] = torch.tensor(list(group.prompt))
        documents[row, :n] = 1
        positions[row, :n] = torch.arange(n)
        at = n
        for branch, answer in enumerate(group.answers):
            k = len(answer)
            ids[row, at : at + k] = torch.tensor(list(answer))
            documents[row, at : at + k] = branch + 2
            positions[row, at : at + k] = torch.arange(n, n + k)
            # The first token is foretold by the prompt's last place, the others by the token before.
            sources.append(row * length + torch.cat((torch.tensor([n - 1]), torch.arange(at, at + k - 1))))
            targets += answer
            owners += [owners[-1] + 1 if owners else 0] * k
            at += k
    ids, documents, positions = (x.to(model.device) for x in (ids, documents, positions))
    mask = Mask(documents=documents, trunk=documents == 1)
    hidden = model.hidden(ids, mask, positions, dtype=dtype).flatten(0, 1)[torch.cat(sources).to(model.device)]
    return hidden, torch.tensor(targets).to(model.device), torch.tensor(owners).to(model.device)


def sum_by_owner(values_M: Tensor, owners_M: Tensor) -> Tensor:
    """(A,) sums of token values over each answer."""
    return torch.zeros(int(owners_M.max()) + 1, dtype=values_M.dtype, device=values_M.device).index_add(0, owners_M, values_M)


def split_groups(groups: Sequence[Group], tokens: int) -> list[list[int]]:
    """Numbers of the groups of each micro-batch: at most ``tokens`` padded tokens each, groups of like length together."""
    order = sorted(range(len(groups)), key=lambda i: groups[i].tokens())
    parts: list[list[int]] = []
    for i in order:
        if parts and (len(parts[-1]) + 1) * groups[i].tokens() <= tokens:
            parts[-1].append(i)
        else:
            parts.append([i])
    return parts
