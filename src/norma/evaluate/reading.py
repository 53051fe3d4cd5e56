"""Log-probabilities of token ids behind token ids: what lm-evaluation-harness asks for.

(context, continuation) ─→ rows of like length ─→ hidden states where a continuation's token is foretold ─→ sum of log p, greedy or not
a long text ─→ windows that foretell each token once, as full as can be ─→ the same
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from norma.lm import LanguageModel
from norma.nn import Mask
from norma.train.scoring import Group, answer_states

TOKENS = 8192  # read at one time
SCORED = 1024  # tokens whose scores over the vocabulary exist at one time
Pair = tuple[Sequence[int], Sequence[int]]


class Scored(NamedTuple):
    """log p of a continuation in nats, and whether greedy decoding would have written it."""

    log_p: float
    greedy: bool


@torch.no_grad()
def continuation_scores(model: LanguageModel, pairs: Sequence[Pair], *, dtype: torch.dtype = torch.float32) -> list[Scored]:
    """Score every continuation (at least one token) behind its context (at least one). Of what is too long, the end is read."""
    model.transformer.eval()
    out: list[Scored] = [Scored(0.0, True)] * len(pairs)
    for part in _together([len(c) + len(a) for c, a in pairs]):
        for i, scored in zip(part, _scores(model, [pairs[i] for i in part], dtype), strict=True):
            out[i] = scored
    return out


def rolling_windows(ids: Sequence[int], prefix: int, length: int) -> Iterator[Pair]:
    """A text in windows of ``length`` tokens: (context, continuation) that foretell each token once.

    The first begins with ``prefix``; the last reads as much as any, and foretells what is left (lm-evaluation-harness,
    ``get_rolling_token_windows`` with one token of context).
    """
    done = min(length, len(ids))
    if done:
        yield [prefix], list(ids[:done])
    while done < len(ids):
        new = min(len(ids) - done, length)
        end = done + new
        yield list(ids[end - length - 1 : done]), list(ids[done:end])
        done = end


def _scores(model: LanguageModel, pairs: Sequence[Pair], dtype: torch.dtype) -> list[Scored]:
    network = model.transformer
    if model.config.kind != "decoder":
        groups = [Group(list(context), [list(answer)]) for context, answer in pairs]
        states, targets, owners = answer_states(network, groups, dtype=dtype)
    else:
        limit = model.config.max_positions
        rows = [[*context, *answer][:-1][-limit:] for context, answer in pairs]
        answers = [list(answer)[-len(row) :] for row, (_, answer) in zip(rows, pairs, strict=True)]
        longest = max(map(len, rows))
        ids = torch.zeros((len(rows), longest), dtype=torch.int64)
        real = torch.zeros((len(rows), longest), dtype=torch.int64)
        for b, row in enumerate(rows):
            ids[b, : len(row)], real[b, : len(row)] = torch.tensor(row), 1
        hidden = network.hidden(ids.to(network.device), Mask(documents=real.to(network.device)), dtype=dtype)
        places = torch.cat(
            [b * longest + torch.arange(len(r) - len(a), len(r)) for b, (r, a) in enumerate(zip(rows, answers, strict=True))]
        )
        states = hidden.flatten(0, 1)[places.to(network.device)]
        targets = torch.tensor([t for a in answers for t in a], device=network.device)
        owners = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor([len(a) for a in answers])).to(network.device)
    sums, greedy = [0.0] * len(pairs), [True] * len(pairs)
    for state, target, owner in zip(*(torch.split(x, SCORED) for x in (states, targets, owners)), strict=True):
        scores = network.logits(state).float()
        log_p = scores.log_softmax(dim=-1).gather(1, target[:, None])[:, 0].double().tolist()
        for i, value, best in zip(owner.tolist(), log_p, (scores.argmax(dim=-1) == target).tolist(), strict=True):
            sums[i] += value
            greedy[i] = greedy[i] and best
    return [Scored(a, b) for a, b in zip(sums, greedy, strict=True)]


def _together(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of rows that are read together, of like length."""
    part: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if part and (len(part) + 1) * lengths[i] > TOKENS:
            yield part
            part = []
        part.append(i)
    if part:
        yield part
