"""The states behind answers foretell what the plain model foretells: decoders in shared rows, encoder-decoders a row an answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from norma.base.errors import NormaError
from norma.lm import LanguageModel
from norma.nn import Transformer, preset
from norma.train.scoring import Group, answer_logprobs, answer_states

GROUPS = [Group([5, 6, 7], [[8, 9], [10], [11, 12, 13]]), Group([20], [[21, 22, 23, 24]]), Group([30, 31], [[32], [33, 34]])]
ORDER = [(group, answer) for group in GROUPS for answer in group.answers]


def two_stacks(family: str) -> Transformer:
    config = preset(family, vocab_size=60, width=16, layers=2, head_size=8, max_positions=64)
    model = Transformer(config).initialise(torch.Generator().manual_seed(3)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)))
    return model


def scores(model: Transformer, groups: list[Group], start: int | None = None) -> torch.Tensor:
    model.start_id = start
    states, _, _ = answer_states(model, groups, dtype=torch.float32)
    return model.scores(model.features(states), model.head_weight())


def test_of_a_decoder(make_model: Callable[..., LanguageModel]) -> None:
    model = make_model(1).transformer
    wanted = torch.cat([model(torch.tensor([[*g.prompt, *a]]))[0, len(g.prompt) - 1 : -1] for g, a in ORDER])
    torch.testing.assert_close(scores(model, GROUPS), wanted, rtol=1e-4, atol=1e-4)
    _, targets, owners_of = answer_states(model, GROUPS, dtype=torch.float32)
    assert targets.tolist() == [token for _, answer in ORDER for token in answer]
    assert owners_of.tolist() == [number for number, (_, answer) in enumerate(ORDER) for _ in answer]
    log_p, owners = answer_logprobs(model, GROUPS, dtype=torch.float32)
    ours = wanted.log_softmax(-1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(log_p, ours, rtol=1e-4, atol=1e-4)
    assert owners.tolist() == owners_of.tolist(), "in the order of answer_logprobs"


@pytest.mark.parametrize("family", ["t5", "bart", "transformer"])
def test_of_an_encoder_decoder(family: str) -> None:
    model, start = two_stacks(family), 2
    wanted = torch.cat([model(torch.tensor([list(g.prompt)]), decoder_ids=torch.tensor([[start, *a[:-1]]]))[0] for g, a in ORDER])
    torch.testing.assert_close(scores(model, GROUPS, start), wanted, rtol=1e-4, atol=1e-4)
    model.start_id = None
    with pytest.raises(NormaError, match="begins with"):
        answer_states(model, GROUPS, dtype=torch.float32)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_what_stands_beside_changes_nothing(family: str, make_model: Callable[..., LanguageModel]) -> None:
    model = make_model(1).transformer if family == "llama" else two_stacks(family)
    alone = torch.cat([scores(model, [group], 2) for group in GROUPS])
    torch.testing.assert_close(scores(model, GROUPS, 2), alone, rtol=1e-4, atol=1e-4)


def test_an_encoder_is_refused() -> None:
    config = preset("bert", vocab_size=60, width=16, layers=1, head_size=8, max_positions=32)
    with pytest.raises(NormaError, match="bert is an encoder"):
        answer_states(Transformer(config), GROUPS, dtype=torch.float32)
