"""How the next token is chosen: the distribution itself is tested."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from norma.generate import Sampling
from norma.generate.sampling import choose

LOGITS = torch.tensor([1.0, 0.2, -0.5, 2.0, 0.9, -3.0])


def draw(sampling: Sampling, logits: torch.Tensor = LOGITS, count: int = 20_000) -> torch.Tensor:
    drawn = choose(logits.expand(count, -1), sampling, torch.Generator().manual_seed(sampling.seed))
    return torch.bincount(drawn, minlength=logits.shape[-1])


def fits(counts: torch.Tensor, probabilities: torch.Tensor) -> bool:
    kept = probabilities > 0
    assert counts[~kept].sum() == 0
    if kept.sum() == 1:
        return True
    expected = probabilities[kept] / probabilities[kept].sum() * counts.sum()
    return bool(stats.chisquare(counts[kept].numpy(), expected.numpy(), sum_check=False).pvalue > 1e-3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_samples_follow_the_softmax(temperature: float) -> None:
    assert fits(draw(Sampling(temperature=temperature)), (LOGITS.double() / temperature).softmax(0))
    assert not fits(draw(Sampling(temperature=temperature)), (LOGITS.double() / (temperature * 1.2)).softmax(0)), "the test has power"


def test_greedy_takes_the_likeliest() -> None:
    assert draw(Sampling(temperature=0), count=5).tolist() == [0, 0, 0, 5, 0, 0]


def test_top_k_keeps_the_k_likeliest() -> None:
    p = LOGITS.double().softmax(0)
    p[[1, 2, 5]] = 0
    assert fits(draw(Sampling(temperature=1, top_k=3)), p)
    assert fits(draw(Sampling(temperature=1, top_k=99)), LOGITS.double().softmax(0))


@pytest.mark.parametrize(
    ("top_p", "kept"),
    # Probabilities .4 .3 .2 .1: the smallest set that holds top_p.
    [(0.39, 1), (0.41, 2), (0.69, 2), (0.75, 3), (0.95, 4), (1.0, 4), (1e-9, 1)],
)
def test_top_p_keeps_the_smallest_set_that_holds_it(top_p: float, kept: int) -> None:
    p = torch.tensor([0.2, 0.4, 0.1, 0.3], dtype=torch.float64)
    least = p.sort(descending=True).values[kept - 1]
    assert fits(draw(Sampling(temperature=1, top_p=top_p), p.log().float()), torch.where(p >= least, p, 0.0))


def test_a_nucleus_that_is_reached_exactly_takes_no_more() -> None:
    assert draw(Sampling(temperature=1, top_p=0.5), torch.zeros(2), 1000).count_nonzero() == 1


def test_rows_are_drawn_by_themselves() -> None:
    rows = torch.tensor([[50.0, 0, 0], [0, 50.0, 0], [0, 0, 50.0]])
    assert choose(rows, Sampling(temperature=1), torch.Generator().manual_seed(0)).tolist() == [0, 1, 2]
    flat = choose(torch.zeros(400, 8), Sampling(temperature=1), torch.Generator().manual_seed(0))
    assert len(flat.unique()) == 8


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_settings_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]
