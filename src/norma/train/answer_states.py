"""The states from which a model foretells the tokens of given answers: what a loss over the whole vocabulary needs.

    decoder           row:   prompt | answer 1 | answer 2 | padding      the prompt is read once, each answer sees it and itself
    encoder-decoder   encoder: prompt            decoder, a row an answer:   start a_1 a_2 ... ─→ a_1 a_2 a_3 ...

:func:`norma.train.scoring.answer_logprobs` gives the log-probabilities of the answers' own tokens in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from norma.base.errors import NormaError
from norma.nn import Mask, Transformer
from norma.train.scoring import ROUND, Group


class AnswerStates(NamedTuple):
    """Of every answer token, in order: features (M, W) that the head's rows are compared with; the token (M,); its answer's number (M,)."""

    features: Tensor
    targets: Tensor
    owners: Tensor


def answer_states(model: Transformer, groups: Sequence[Group], *, dtype: torch.dtype, start: int | None = None) -> AnswerStates:
    """Features of all answers, differentiable. ``start``: what the decoder of an encoder-decoder begins with."""
    if model.config.kind == "encoder":
        raise NormaError(f"{model.config.family} is an encoder: it writes no answers", mend="Choose a decoder or an encoder-decoder")
    hidden = _beside(model, groups, dtype) if model.config.kind == "decoder" else _behind(model, groups, dtype, start)
    answers = [answer for group in groups for answer in group.answers]
    targets = torch.tensor([token for answer in answers for token in answer], device=model.device)
    owners = torch.tensor([number for number, answer in enumerate(answers) for _ in answer], device=model.device)
    return AnswerStates(model.features(hidden), targets, owners)


def _beside(model: Transformer, groups: Sequence[Group], dtype: torch.dtype) -> Tensor:
    """(M, W) hidden states of a decoder: the answers of a group stand beside each other behind their prompt."""
    length = _rounded(max(group.tokens() for group in groups))
    ids, documents, positions = (torch.zeros((len(groups), length), dtype=torch.int64) for _ in range(3))
    places: list[Tensor] = []
    for row, group in enumerate(groups):
        n = len(group.prompt)
        ids[row, :n], documents[row, :n], positions[row, :n] = torch.tensor(list(group.prompt)), 1, torch.arange(n)
        at = n
        for branch, answer in enumerate(group.answers):
            end = at + len(answer)
            ids[row, at:end], documents[row, at:end] = torch.tensor(list(answer)), branch + 2
            positions[row, at:end] = torch.arange(n, n + len(answer))
            # The first token is foretold by the prompt's last place, the others by the token before.
            places.append(row * length + torch.cat((torch.tensor([n - 1]), torch.arange(at, end - 1))))
            at = end
    documents = documents.to(model.device)
    mask = Mask(documents=documents, trunk=documents == 1)
    hidden = model.hidden(ids.to(model.device), mask, positions.to(model.device), dtype=dtype)
    return hidden.flatten(0, 1)[torch.cat(places).to(model.device)]


def _behind(model: Transformer, groups: Sequence[Group], dtype: torch.dtype, start: int | None) -> Tensor:
    """(M, W) hidden states of a decoder that looks at what the encoder read: each prompt is read once, each answer is a row."""
    if start is None:
        raise ValueError("an encoder-decoder needs the token that its decoder begins with")
    source, real = _padded([group.prompt for group in groups], model.device)
    memory = model.encode(source, Mask(padding=real), dtype=dtype)
    rows = torch.tensor([row for row, group in enumerate(groups) for _ in group.answers], device=model.device)
    answers = [answer for group in groups for answer in group.answers]
    ids, written = _padded([[start, *answer[:-1]] for answer in answers], model.device)
    padding = None if memory.padding is None else memory.padding[rows]
    hidden = model.hidden(ids, Mask(padding=written), dtype=dtype, memory=type(memory)(memory.states[rows], padding))
    return hidden[written]


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids (B, T) padded on the right, and (B, T) bool where they are real."""
    ids = torch.zeros((len(rows), _rounded(max(map(len, rows)))), dtype=torch.int64)
    real = torch.zeros(ids.shape, dtype=torch.bool)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)], real[row, : len(tokens)] = torch.tensor(list(tokens)), True
    return ids.to(device), real.to(device)


def _rounded(length: int) -> int:
    return -(-length // ROUND) * ROUND
