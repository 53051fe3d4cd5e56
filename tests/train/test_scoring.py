"""Answers that share their prompt's row have the log-probabilities and gradients of answers in rows of their own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from norma.lm import LanguageModel
from norma.train.scoring import Group, answer_logprobs, split_groups, sum_by_owner

GROUPS = [Group([5, 6, 7], [[8, 9], [10], [11, 12, 13]]), Group([20], [[21, 22, 23, 24]]), Group([30, 31], [[32], [33, 34]])]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_equal_to_one_row_an_answer(make_model: Callable[..., LanguageModel], temperature: float) -> None:
    model = make_model(1).transformer
    ours, owners = answer_logprobs(model, GROUPS, dtype=torch.float32, temperature=temperature)
    wanted: list[torch.Tensor] = []
    number = []
    for group in GROUPS:
        for answer in group.answers:
            ids = torch.tensor([[*group.prompt, *answer]])
            log_p = (model(ids)[0] / temperature).log_softmax(-1)
            wanted.append(torch.stack([log_p[len(group.prompt) + i - 1, t] for i, t in enumerate(answer)]))
            number += [len(wanted) - 1] * len(answer)
    assert owners.tolist() == number
    theirs = torch.cat(wanted)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sum_by_owner(ours, owners), torch.stack([w.sum() for w in wanted]), rtol=1e-4, atol=1e-4)
    weight = torch.linspace(-1, 1, len(ours))
    parameters = list(model.parameters())
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), parameters), torch.autograd.grad((theirs * weight).sum(), parameters), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_micro_batches_hold_every_group_once_and_few_tokens() -> None:
    groups = [Group([1] * (3 + i * 7 % 20), [[1] * 5]) for i in range(30)]
    parts = split_groups(groups, 100)
    assert sorted(i for p in parts for i in p) == list(range(30)) and len(parts) < 15
    assert all(len(p) * max(groups[i].tokens() for i in p) <= 100 for p in parts)
    assert split_groups(groups[:2], 1) == [[0], [1]]
