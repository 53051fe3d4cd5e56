"""What tensor parallelism refuses, and who reads which rows. That it trains as one process does: test_ranks.py."""

from __future__ import annotations

import pytest
import torch

from norma.base.errors import NormaError
from norma.base.ranks import Ranks
from norma.nn import ModelConfig, preset, published
from norma.train.tensor_parallel import clip_gradient, must_divide

SIZES = {"vocab_size": 40, "width": 64, "layers": 2, "head_size": 16, "max_positions": 64}


@pytest.mark.parametrize(
    ("config", "count", "why"),
    [
        (preset("t5", **SIZES), 2, "t5 cannot be trained with tensor_parallel: 2: position biases shared by all layers cannot be divided"),
        (preset("switch", experts=4, **SIZES), 2, "switch .*: experts cannot be divided; position biases"),
        (preset("olmo2", **SIZES), 2, "olmo2 .*: norms of queries and keys cannot be divided"),
        (preset("palm", **SIZES), 2, "palm .*: kv_heads is 1, no multiple of 2"),
        (preset("gpt", **SIZES), 3, "gpt .*: attention_heads is 4, no multiple of 3; kv_heads is 4, .*feed_forward_width is 256"),
    ],
    ids=lambda value: value.family if isinstance(value, ModelConfig) else "",
)
def test_what_cannot_be_divided_is_named(config: ModelConfig, count: int, why: str) -> None:
    with pytest.raises(NormaError, match=why) as caught:
        must_divide(config, count)
    assert "\n" not in str(caught.value) and "FSDP2" in str(caught.value)


@pytest.mark.parametrize("name", ["gpt2-large", "gpt3-6.7b", "llama-7b", "llama-65b", "gpt-neox-20b", "bart-large", "bert-large"])
def test_big_presets_divide(name: str) -> None:
    must_divide(published(name), 2)


def test_groups_of_ranks_read_the_same_rows() -> None:
    ranks = [Ranks(rank, 6).grouped(2) for rank in range(6)]
    assert [list(range(7))[r.share(7)] for r in ranks] == [[0, 1], [0, 1], [2, 3], [2, 3], [4, 5, 6], [4, 5, 6]]
    assert {r.most(7) for r in ranks} == {3} and [(r.reader, r.readers) for r in ranks[::2]] == [(0, 3), (1, 3), (2, 3)]
    assert Ranks().grouped(2) == Ranks() and Ranks(1, 2).grouped(None) == Ranks(1, 2)
    with pytest.raises(NormaError, match=r"6 processes cannot be divided into groups of 4 \(tensor_parallel\)\. Start a multiple of 4"):
        Ranks(0, 6).grouped(4)


def test_clipping_of_whole_weights_is_torchs() -> None:
    weights = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))]
    weights[0].grad, weights[1].grad = torch.tensor([3.0, 0, 0]), torch.full((2, 2), 2.0)
    assert float(clip_gradient(weights, 1.0)) == 5.0
    assert weights[0].grad.tolist() == pytest.approx([0.6, 0, 0], abs=1e-6) and weights[2].grad is None
