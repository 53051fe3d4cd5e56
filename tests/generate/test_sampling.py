"""How the next token is chosen: the distribution itself is tested."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from norma.generate import Sampling
from norma.generate.sampling import choose, exponentials, nucleus, race, row_keys

CPU = torch.device("cpu")

LOGITS = torch.tensor([1.0, 0.2, -0.5, 2.0, 0.9, -3.0])


def draw(sampling: Sampling, logits: torch.Tensor = LOGITS, count: int = 20_000) -> torch.Tensor:
    drawn, logprobs = choose(logits.expand(count, -1), sampling, *places(count, sampling.seed))
    log_p = (logits.double() / (sampling.temperature or 1)).log_softmax(-1)
    torch.testing.assert_close(logprobs.double(), log_p[drawn], rtol=1e-5, atol=1e-5)
    return torch.bincount(drawn, minlength=logits.shape[-1])


def places(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Half of the numbers differ by row, half by place."""
    rows = torch.arange(count) % max(1, count // 2)
    return row_keys(seed, rows.tolist(), CPU), torch.arange(count) // max(1, count // 2)


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
    assert choose(rows, Sampling(temperature=1), *places(3))[0].tolist() == [0, 1, 2]
    flat, _ = choose(torch.zeros(400, 8), Sampling(temperature=1), *places(400))
    assert len(flat.unique()) == 8


@pytest.mark.parametrize("vocabulary", [1, 2, 3, 37, 128, 1000])
def test_two_short_races_draw_from_the_whole_vocabulary(vocabulary: int) -> None:
    """Whatever the vocabulary's size does to the blocks."""
    p = torch.rand(vocabulary, generator=torch.Generator().manual_seed(0)) ** 2
    p[1::3] = 0
    counts = torch.bincount(race(p.expand(30_000, -1), *places(30_000)), minlength=vocabulary)
    assert fits(counts, p.double() / p.double().sum())


def test_a_row_s_numbers_are_its_own() -> None:
    """Not its neighbours', not the batch's: the numbers of (seed, row, place) are the same wherever they are asked for."""
    keys = row_keys(7, [0, 1, 2, 3], CPU)
    all_of_them = exponentials(keys, torch.tensor([4, 4, 5, 5]), 9)
    assert torch.equal(exponentials(row_keys(7, [2], CPU), torch.tensor([5]), 9)[0], all_of_them[2])
    assert torch.equal(exponentials(row_keys(7, [2], CPU), torch.tensor([5]), 3)[0], all_of_them[2, :3])
    others = [(7, 2, 4), (7, 3, 5), (8, 2, 5), (5, 2, 7), (-7, 2, 5), ((7 << 40) + 1, 2, 5)]
    for seed, row, place in others:
        assert not torch.isin(exponentials(row_keys(seed, [row], CPU), torch.tensor([place]), 9), all_of_them[2]).any()


def test_the_numbers_are_exponential_and_uncorrelated() -> None:
    """Along rows, along places, along the vocabulary, and between neighbours of each."""
    made = torch.stack([exponentials(row_keys(1, range(40), CPU), torch.full((40,), place), 40) for place in range(40)]).double()
    assert stats.kstest(made.flatten().numpy(), "expon").pvalue > 1e-3
    for axis in range(3):
        means = made.mean(dim=[d for d in range(3) if d != axis])
        assert stats.kstest(((means - 1) * 40).numpy(), "norm").pvalue > 1e-3  # a mean of 1600 has a standard deviation of 1/40
        a, b = made.narrow(axis, 0, 39).flatten(), made.narrow(axis, 1, 39).flatten()
        assert abs(float(torch.corrcoef(torch.stack((a, b)))[0, 1])) < 4 / len(a) ** 0.5


def test_a_small_change_of_the_scores_seldom_changes_the_token() -> None:
    """As seldom as 4 total variations: drawing from the cumulative sum would change nearly every token of a flat distribution."""
    logits = torch.randn(2000, 4096, generator=torch.Generator().manual_seed(0)) * 0.5
    rounded = logits.bfloat16().float()
    one, other = (choose(x, Sampling(temperature=1), *places(2000))[0] for x in (logits, rounded))
    variation = float((logits.softmax(-1) - rounded.softmax(-1)).abs().sum(-1).mean() / 2)
    assert float((one != other).float().mean()) < 4 * variation + 0.005 < 0.02


def test_a_nucleus_that_the_likeliest_tokens_do_not_hold_is_found_all_the_same() -> None:
    flat, sharp = torch.ones(1, 1000), torch.ones(1, 1000)
    sharp[0, 500] = 1e6
    rows = torch.cat((flat / flat.sum(), sharp / sharp.sum()))
    assert (nucleus(rows, 0.9) > 0).sum(-1).tolist() == [900, 1]
    assert (nucleus(rows[1:], 0.9) > 0).sum(-1).tolist() == [1]


def test_banned_tokens_are_never_drawn() -> None:
    counts = torch.bincount(
        choose(LOGITS.expand(2000, -1), Sampling(temperature=1, banned=(3, 0)), *places(2000))[0], minlength=len(LOGITS)
    )
    assert counts[[0, 3]].sum() == 0 and counts[1] > 0
    assert choose(LOGITS[None], Sampling(banned=(3,)), *places(1))[0].tolist() == [0]


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_settings_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)  # type: ignore[arg-type]
