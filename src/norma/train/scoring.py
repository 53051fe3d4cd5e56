"""Log-probabilities of whole answers, by the trainer's own forward pass.

The answers of one prompt share a row: the prompt is read once (the trunk), each answer is a branch that sees the prompt and
itself. Four to five times fewer tokens than one row an answer, and the same numbers.

    row:        prompt prompt prompt | answer 1 ... | answer 2 ... | padding
    document:   1      1      1        2              3              0

In an encoder-decoder the encoder reads the prompts, and the answers of one prompt share a row of the decoder; each begins with the
decoder's start token and sees itself and the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from norma.base.errors import NormaError
from norma.nn import Mask, Transformer
from norma.nn.stack import Memory
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
    device = model.device
    if model.config.kind == "encoder":
        raise NormaError(f"{model.config.family} is an encoder: it writes no answers", mend="Choose a decoder or an encoder-decoder")
    if model.config.kind == "encoder-decoder":
        laid, memory = _answers(groups, start_of(model)), _read(model, groups, dtype)
        mask = Mask(documents=laid.documents.to(device))
    else:
        laid, memory = _branches(groups), None
        mask = Mask(documents=laid.documents.to(device), trunk=(laid.documents == 1).to(device))
    hidden = model.hidden(laid.ids.to(device), mask, laid.positions.to(device), dtype=dtype, memory=memory)
    targets = torch.tensor([token for g in groups for answer in g.answers for token in answer], device=device)
    lengths = torch.tensor([len(answer) for g in groups for answer in g.answers])
    owners = torch.repeat_interleave(torch.arange(len(lengths)), lengths).to(device)
    return hidden.flatten(0, 1)[torch.cat(laid.sources).to(device)], targets, owners


@dataclass
class _Rows:
    """Rows as a decoder reads them, (B, T) each; ``sources``: the flat places that foretell the answers' tokens, in order."""

    ids: Tensor
    documents: Tensor
    positions: Tensor
    sources: list[Tensor]

    @staticmethod
    def empty(rows: int, longest: int) -> _Rows:
        ids, documents, positions = (torch.zeros((rows, -(-max(1, longest) // ROUND) * ROUND), dtype=torch.int64) for _ in range(3))
        return _Rows(ids, documents, positions, [])


def _branches(groups: Sequence[Group]) -> _Rows:
    rows = _Rows.empty(len(groups), max(g.tokens() for g in groups))
    length = rows.ids.shape[1]
    for row, group in enumerate(groups):
        n = len(group.prompt)
        rows.ids[row, :n] = torch.tensor(list(group.prompt))
        rows.documents[row, :n] = 1
        rows.positions[row, :n] = torch.arange(n)
        at = n
        for branch, answer in enumerate(group.answers):
            k = len(answer)
            rows.ids[row, at : at + k] = torch.tensor(list(answer))
            rows.documents[row, at : at + k] = branch + 2
            rows.positions[row, at : at + k] = torch.arange(n, n + k)
            # The first token is foretold by the prompt's last place, the others by the token before.
            rows.sources.append(row * length + torch.cat((torch.tensor([n - 1]), torch.arange(at, at + k - 1)))[:k])
            at += k
    return rows


def _answers(groups: Sequence[Group], start: int) -> _Rows:
    rows = _Rows.empty(len(groups), max(g.tokens() - len(g.prompt) for g in groups))
    length = rows.ids.shape[1]
    for row, group in enumerate(groups):
        at = 0
        for branch, answer in enumerate(group.answers):
            k = len(answer)
            rows.ids[row, at : at + k] = torch.tensor([start, *answer][:k])
            rows.documents[row, at : at + k] = branch + 1
            rows.positions[row, at : at + k] = torch.arange(k)
            rows.sources.append(row * length + torch.arange(at, at + k))
            at += k
    return rows


def _read(model: Transformer, groups: Sequence[Group], dtype: torch.dtype) -> Memory:
    """What the encoder makes of the prompts. It names no documents: every answer of a row sees all of the row's prompt."""
    longest = -(-max(len(g.prompt) for g in groups) // ROUND) * ROUND
    ids = torch.full((len(groups), longest), model.config.pad_id or 0)
    real = torch.zeros(ids.shape, dtype=torch.bool)
    for row, group in enumerate(groups):
        ids[row, : len(group.prompt)], real[row, : len(group.prompt)] = torch.tensor(list(group.prompt)), True
    return model.encode(ids.to(model.device), Mask(padding=real.to(model.device)), dtype=dtype)


def start_of(model: Transformer) -> int:
    """The token that the decoder of an encoder-decoder begins with. Raises NormaError where nothing says which."""
    if model.start_id is None:
        mend = "Open it as a LanguageModel, from a folder whose config.json has decoder_start_token_id"
        raise NormaError("nothing says which token this model's decoder begins with", where=model.config.family, mend=mend)
    return model.start_id


def sum_by_owner(values_M: Tensor, owners_M: Tensor) -> Tensor:
    """(A,) sums of token values over each answer."""
    sums = torch.zeros(int(owners_M.max()) + 1, dtype=values_M.dtype, device=values_M.device)
    return sums.index_add(0, owners_M, values_M)


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
