"""The dial: the published rules by their numbers, shapes near what was asked for, and budgets that hold."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.train.dial import batch_tokens, dial, dial_budget, learning_rate, maker, parse_size, parse_time

LLAMA = maker("llama", vocab_size=8192, max_positions=512, settings={})


def test_the_rules_by_their_numbers() -> None:
    """At the anchor 0.00235 and 327,680 tokens; an eighth of it doubles the rate and quarters the batch."""
    assert learning_rate(108e6) == pytest.approx(0.00235)
    assert learning_rate(108e6 / 8) == pytest.approx(0.0047)
    assert batch_tokens(108e6) == pytest.approx(327_680)
    assert batch_tokens(108e6 / 8) == pytest.approx(81_920)
    assert learning_rate(10e6) == pytest.approx(5.2e-3, rel=0.01) and batch_tokens(10e6) == pytest.approx(67e3, rel=0.01)


def test_a_size_by_hand() -> None:
    found = dial(LLAMA, 10_000_000, sequence=256)
    assert found.parameters == pytest.approx(10e6, rel=0.05)
    config = LLAMA(found.width, found.layers, found.head_size)
    assert config.parameters() == found.parameters
    assert found.weights == found.parameters - 8192 * found.width * (1 if config.tie_embeddings else 2)
    assert found.tokens == pytest.approx(20 * found.weights, rel=0.01)
    assert found.batch * 256 == pytest.approx(batch_tokens(found.weights), rel=0.01)
    assert found.steps * found.batch * 256 == found.tokens
    assert found.warmup == round(found.weights / (found.batch * 256))
    assert found.flops == found.tokens * config.flops_per_token(256)
    assert not found.bounded and found.epochs is None


def test_a_small_corpus_is_not_read_for_ever() -> None:
    found = dial(LLAMA, 10_000_000, sequence=256, corpus_tokens=1_000_000)
    assert found.bounded and found.epochs == pytest.approx(4.0, rel=0.02)
    assert "at most 4 passes" in " ".join(why for _, _, why in found.table(60.0))
    assert not dial(LLAMA, 10_000_000, sequence=256, corpus_tokens=10**9).bounded


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5", "llama", "palm", "switch"])
@pytest.mark.parametrize("asked", ["1M", "3M", "30M", "125M", "1.3B", "7B"])
def test_sizes_come_out_near_what_was_asked(family: str, asked: str) -> None:
    size = parse_size(asked)
    vocabulary = 1024 if size < 2e6 else 8192
    make = maker(family, vocab_size=vocabulary, max_positions=512, settings={"experts": 4} if family == "switch" else {})
    found = dial(make, size, sequence=256)
    assert found.parameters == pytest.approx(size, rel=0.1)
    assert found.width % found.head_size == 0 and found.width % 32 == 0
    if size >= 3e6:
        assert 16 <= found.width / found.layers <= 256


@given(small=st.floats(6.3, 9.5), factor=st.floats(1.3, 20))
@settings(max_examples=25, deadline=None)
def test_more_weights_mean_more_of_everything_but_the_learning_rate(small: float, factor: float) -> None:
    one, two = (dial(LLAMA, round(n), sequence=256) for n in (10**small, factor * 10**small))
    assert two.weights > one.weights
    assert two.flops > one.flops and two.batch >= one.batch and two.learning_rate < one.learning_rate


@pytest.mark.parametrize("exponent", [13.0, 14.3, 15.0, 16.4, 18.0])
def test_a_budget_is_used_and_kept(exponent: float) -> None:
    flops = 10**exponent
    found = dial_budget(LLAMA, flops, sequence=256)
    assert 0.75 * flops < found.flops <= flops
    assert dial_budget(LLAMA, 2 * flops, sequence=256).flops == pytest.approx(2 * found.flops, rel=0.3)


def test_a_budget_that_is_too_small_trains_the_smallest_model_shorter() -> None:
    found = dial_budget(LLAMA, 1e9, sequence=256)
    assert found.steps == 1 or found.flops <= 1e9


SIZES = [("3M", 3_000_000), ("1.3B", 1_300_000_000), ("125m", 125_000_000), ("50000", 50_000), ("800k", 800_000)]


@pytest.mark.parametrize(("text", "count"), SIZES)
def test_sizes_are_read(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10min", 600), ("2h", 7200), ("1.5 h", 5400), ("1d", 86400)])
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "big", "3X", "-3M", "0M", "3.3.3M", "nan"])
def test_other_words_are_not(text: str) -> None:
    with pytest.raises(NormaError, match="size"):
        parse_size(text)
    with pytest.raises(NormaError, match="time"):
        parse_time(text)


def test_a_size_below_the_vocabulary_says_so() -> None:
    with pytest.raises(NormaError, match="too small for this vocabulary"):
        dial(LLAMA, 50_000, sequence=256)
