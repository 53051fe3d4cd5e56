"""What must hold for every Transformer that a config can describe, whatever the family: hypothesis draws the configs."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from norma.nn import Cache, Experts, Mask, Memory, ModelConfig, Transformer
from norma.nn import attention as attention_module
from norma.nn import mask as mask_module
from norma.nn.config import RotaryScaling

VOCABULARY, LONGEST = 61, 48
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@st.composite
def configs(draw: Any, kinds: tuple[str, ...] = ("encoder", "decoder", "encoder-decoder")) -> ModelConfig:
    """Every combination that ModelConfig allows, at a tiny size."""
    kind = draw(st.sampled_from(kinds))
    groups = draw(st.sampled_from([1, 2, 3]))
    heads = groups * draw(st.sampled_from([1, 2]))
    head_size = draw(st.sampled_from([2, 4, 6]))
    placement = draw(st.sampled_from(["pre", "post", "output", "both"]))
    parallel = placement == "pre" and kind != "encoder-decoder" and draw(st.booleans())
    positions = draw(st.sampled_from(["rotary", "learned", "sinusoidal", "relative"]))
    experts = None
    if draw(st.booleans()):
        count = draw(st.integers(1, 4))
        every = draw(st.integers(1, 2))
        experts = Experts(
            count, draw(st.integers(1, count)), width=draw(st.sampled_from([None, 6])), every=every, first=every - 1,
            normalise=draw(st.booleans()), balance_bias=draw(st.booleans()),
        )  # fmt: skip
    scaling = draw(st.sampled_from([None, RotaryScaling("linear", 2.0), RotaryScaling("llama3", 4.0, original_positions=16)]))
    return ModelConfig(
        family="llama",
        vocab_size=VOCABULARY,
        width=12,
        layers=draw(st.integers(1, 3)),
        attention_heads=heads,
        kv_heads=groups,
        head_size=head_size,
        feed_forward_width=10,
        max_positions=LONGEST,
        encoder_layers=draw(st.integers(1, 2)) if kind == "encoder-decoder" else 0,
        causal=kind != "encoder",
        parallel=parallel,
        shared_norm=parallel and draw(st.booleans()),
        norm=draw(st.sampled_from(["layer", "rms"])),
        norm_bias=draw(st.booleans()),
        norm_placement=placement,
        norm_offset=draw(st.sampled_from([0.0, 1.0])),
        embedding_norm=draw(st.booleans()),
        first_attention_norm=placement != "pre" or draw(st.booleans()),
        positions=positions,
        rope_theta_local=draw(st.sampled_from([None, 100.0])),
        rope_scaling=scaling if positions == "rotary" else None,
        rotary_size=draw(st.sampled_from([None, 2])),
        rotary_interleaved=draw(st.booleans()),
        position_offset=draw(st.sampled_from([0, 2])),
        embedding_scale=draw(st.sampled_from([1.0, 12**0.5])),
        segments=draw(st.sampled_from([0, 2])),
        pad_id=draw(st.sampled_from([None, 0])),
        attention_bias=draw(st.booleans()),
        attention_output_bias=draw(st.booleans()),
        attention_scale=draw(st.sampled_from([None, 1.0])),
        attention_softcap=draw(st.sampled_from([None, 5.0])),
        qk_norm=draw(st.sampled_from(["none", "head", "width"])),
        windows=draw(st.sampled_from([(0,), (3,), (0, 3), (5, 2, 0)])),
        activation=draw(st.sampled_from(["relu", "gelu", "gelu_tanh", "silu"])),
        gated=draw(st.booleans()),
        feed_forward_bias=draw(st.booleans()),
        experts=experts,
        tie_embeddings=draw(st.booleans()),
        head_bias=draw(st.sampled_from(["none", "learned", "fixed"])),
        head_transform=draw(st.booleans()),
        logit_scale=draw(st.sampled_from([1.0, 0.3])),
        logit_softcap=draw(st.sampled_from([None, 4.0])),
    )


def build(config: ModelConfig, seed: int = 0) -> Transformer:
    """A model whose every weight is random, in fp64: what differs then differs by design, not by rounding."""
    random = torch.Generator().manual_seed(seed)
    model = Transformer(config).double().eval().requires_grad_(False)
    for name, tensor in model.state_dict().items():
        tensor.normal_(0.0, 0.4, generator=random)
        if "norm" in name and tensor.dim() == 1:
            tensor.add_(1.0 - config.norm_offset)
    return model


def scores(
    model: Transformer, ids: torch.Tensor, mask: Mask | None = None, positions: torch.Tensor | None = None, **more: Any
) -> torch.Tensor:
    """Scores in fp64; an encoder-decoder reads and writes the same tokens."""
    memory = model.encode(ids, mask, positions, dtype=torch.float64) if model.config.kind == "encoder-decoder" else None
    hidden = model.hidden(ids, mask, positions, dtype=torch.float64, memory=memory, **more)
    return features(model, hidden)


def features(model: Transformer, hidden: torch.Tensor) -> torch.Tensor:
    return model.features(hidden) @ model.head_weight().t()


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    # Positions, rotary angles and the experts' router are fp32 by design, so that fp64 cannot be exact to its own last digit.
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@QUICK
@given(configs(kinds=("decoder",)), st.integers(1, 10))
def test_a_causal_model_does_not_see_the_future(config: ModelConfig, t: int) -> None:
    model, ids = build(config), tokens(1, 12)
    changed = ids.clone()
    changed[0, t:] = (ids[0, t:] + 7) % (VOCABULARY - 1) + 1
    close(scores(model, ids)[:, :t], scores(model, changed)[:, :t])


@QUICK
@given(configs(kinds=("encoder",)))
def test_an_encoder_sees_the_future(config: ModelConfig) -> None:
    config = dataclasses.replace(config, windows=(0,), attention_softcap=None, logit_softcap=None)
    model, ids = build(config), tokens(1, 8)
    changed = ids.clone()
    changed[0, 7] = ids[0, 7] % (VOCABULARY - 1) + 1
    assert (scores(model, ids)[:, 0] - scores(model, changed)[:, 0]).abs().max() > 0


@QUICK
@given(configs(), st.integers(0, 5), st.integers(0, 5))
def test_padding_changes_no_real_token(config: ModelConfig, left: int, right: int) -> None:
    model, ids = build(config), tokens(2, 9)
    alone = scores(model, ids)
    padded = torch.cat([tokens(2, left, seed=1), ids, tokens(2, right, seed=2)], dim=1)
    real = torch.zeros(padded.shape, dtype=torch.bool)
    real[:, left : left + 9] = True
    close(scores(model, padded, Mask(padding=real))[:, left : left + 9], alone)


@QUICK
@given(configs(), st.lists(st.integers(1, 7), min_size=2, max_size=4))
def test_packed_documents_equal_separate_ones(config: ModelConfig, lengths: list[int]) -> None:
    model = build(config)
    parts = [tokens(1, n, seed=n + 10 * i) for i, n in enumerate(lengths)]
    documents = torch.tensor([[i for i, n in enumerate(lengths, 1) for _ in range(n)]])
    positions = torch.tensor([[p for n in lengths for p in range(n)]])
    packed = scores(model, torch.cat(parts, dim=1), Mask(documents=documents), positions)
    close(packed, torch.cat([scores(model, part) for part in parts], dim=1))


@QUICK
@given(configs(kinds=("decoder", "encoder-decoder")), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 3))
def test_reading_with_a_cache_equals_reading_at_once(config: ModelConfig, pieces: list[int], left: int) -> None:
    """Rows of unequal length, padded on the left; read in pieces."""
    model, T = build(config), sum(pieces)
    ids, real = tokens(2, T), torch.ones(2, T, dtype=torch.bool)
    real[0, : min(left, T - 1)] = False
    positions = (real.long().cumsum(1) - 1).clamp(min=0)
    memory = model.encode(tokens(2, 6, seed=3), dtype=torch.float64) if config.encoder_layers else None
    whole = features(model, model.hidden(ids, Mask(padding=real), positions, dtype=torch.float64, memory=memory))
    cache = Cache(config, 2, T, torch.float64, ids.device)
    cache.visible[:] = real
    parts = []
    for part, place in zip(ids.split(pieces, dim=1), positions.split(pieces, dim=1), strict=True):
        parts.append(features(model, model.hidden(part, None, place, cache, torch.float64, memory=memory)))
    close(torch.cat(parts, dim=1)[real], whole[real])


@QUICK
@given(configs(), st.permutations(range(4)))
def test_the_order_of_a_batch_does_not_matter(config: ModelConfig, order: list[int]) -> None:
    model, ids = build(config), tokens(4, 7)
    real = torch.arange(7)[None] < torch.tensor([[7], [3], [5], [1]])
    close(scores(model, ids[order], Mask(padding=real[order])), scores(model, ids, Mask(padding=real))[order])


@QUICK
@given(configs(), st.randoms(use_true_random=False))
def test_permuting_experts_with_their_router_changes_nothing(config: ModelConfig, random: Any) -> None:
    config = dataclasses.replace(config, experts=Experts(4, 2))
    model, ids = build(config), tokens(2, 6)
    before = scores(model, ids)
    order = list(range(4))
    random.shuffle(order)
    for name, tensor in model.state_dict().items():
        if ".feed_forward.router." in name or name.rpartition(".")[2] in ("gate", "up", "down", "balance"):
            tensor.copy_(tensor[order])
    close(scores(model, ids), before)


@QUICK
@given(configs(kinds=("decoder",)), st.integers(1, 6))
def test_a_prefix_reads_both_ways_and_the_rest_one_way(config: ModelConfig, n: int) -> None:
    """A prefix LM: the prefix as an encoder of the same weights reads it, and no token after sees the future."""
    config = dataclasses.replace(config, positions="learned") if config.positions == "relative" else config
    model, ids = build(config), tokens(1, 8)
    prefix = (torch.arange(8) < n)[None]
    out = scores(model, ids, Mask(prefix=prefix))
    close(out[:, :n], scores(model, ids[:, :n], Mask(causal=False)))
    changed = ids.clone()
    changed[0, 7] = ids[0, 7] % (VOCABULARY - 1) + 1
    if n < 8:
        close(scores(model, changed, Mask(prefix=prefix))[:, : max(n, 7)], out[:, : max(n, 7)])


@QUICK
@given(configs())
def test_both_kernels_give_the_same(config: ModelConfig) -> None:
    """Products written out, and PyTorch's fused kernel where it takes over."""
    model, ids = build(config), tokens(2, 9)
    real = torch.arange(9)[None] < torch.tensor([[9], [6]])
    before = scores(model, ids, Mask(padding=real))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_module, "WRITTEN_OUT", 0)
        close(scores(model, ids, Mask(padding=real))[real], before[real])


@pytest.mark.parametrize("windows", [(0,), (40,), (0, 40)])
@pytest.mark.parametrize("packed", [False, True])
def test_halving_a_long_causal_sequence_changes_nothing(windows: tuple[int, ...], packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig("llama", VOCABULARY, 12, 2, 4, 2, 4, 10, 256, windows=windows)
    model, ids = build(config), tokens(2, 130)
    mask = Mask(documents=(torch.arange(130) // 50).expand(2, -1)) if packed else None
    halved = scores(model, ids, mask)
    monkeypatch.setattr(attention_module, "HALVED", 10**9)
    close(halved, scores(model, ids, mask))


def test_allowed_against_a_loop() -> None:
    """The mask's rule, said again with a loop over queries and keys."""
    random = torch.Generator().manual_seed(0)
    T = 9
    documents = torch.tensor([[1, 1, 1, 2, 2, 2, 3, 3, 3]])
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 3, 4, 5]])
    trunk = documents == 1
    padding = torch.rand(1, T, generator=random) > 0.2
    prefix = torch.rand(1, T, generator=random) > 0.6
    for causal in (True, False):
        for window in (0, 3):
            mask = Mask(causal=causal, prefix=prefix, documents=documents, trunk=trunk, padding=padding)
            allowed = mask.allowed(positions, causal=not causal, window=window)[0, 0]
            for t in range(T):
                for s in range(T):
                    want = s <= t or not causal or bool(prefix[0, s])
                    want = want and (not window or abs(int(positions[0, t] - positions[0, s])) < window)
                    want = want and (bool(documents[0, t] == documents[0, s]) or bool(trunk[0, s]))
                    want = (want and bool(padding[0, s])) or s == t
                    assert bool(allowed[t, s]) == want, (causal, window, t, s)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_the_gpus_block_mask_means_the_same(causal: bool, window: int, softcap: float | None) -> None:
    """FlexAttention's mask, run by its reference on a CPU, against the additive one."""
    T, random = 10, torch.Generator().manual_seed(1)
    documents = torch.tensor([[1] * 4 + [2] * 6, [1] * 7 + [2] * 3])
    prefix = torch.rand(2, T, generator=random) > 0.7
    padding = torch.arange(T)[None] < torch.tensor([[T], [8]])
    mask = Mask(causal=causal, prefix=prefix, documents=documents, padding=padding)
    positions = torch.arange(T).expand(2, -1)
    q, k, v = (torch.randn(2, heads, T, 16, generator=random) for heads in (4, 2, 2))
    additive = mask.lower(positions, causal=causal, window=window, dtype=torch.float32)
    assert additive.blocks is None
    blocks = mask_module.Seen(blocks=mask._blocks(positions, causal=causal, window=window))
    expected = attention_module.attend(q, k, v, additive, softcap=softcap)
    torch.testing.assert_close(attention_module.attend(q, k, v, blocks, softcap=softcap), expected, rtol=1e-4, atol=1e-5)


def test_packed_source_and_target_documents_meet() -> None:
    """An encoder-decoder on two packed pairs of unequal lengths equals each pair alone."""
    config = ModelConfig("llama", VOCABULARY, 12, 2, 2, 2, 4, 10, 64, encoder_layers=2, positions="relative")
    model = build(config)
    sources, targets = [tokens(1, n, seed=n) for n in (5, 3)], [tokens(1, n, seed=n) for n in (2, 6)]

    def packed(parts: list[torch.Tensor]) -> tuple[torch.Tensor, Mask, torch.Tensor]:
        numbers = torch.tensor([[i for i, p in enumerate(parts) for _ in range(p.shape[1])]])
        return torch.cat(parts, 1), Mask(documents=numbers), torch.tensor([[j for p in parts for j in range(p.shape[1])]])

    memory = model.encode(*packed(sources), dtype=torch.float64)
    assert isinstance(memory, Memory)
    together = model.hidden(*packed(targets), dtype=torch.float64, memory=memory)
    pairs = zip(sources, targets, strict=True)
    alone = [model.hidden(t, dtype=torch.float64, memory=model.encode(s, dtype=torch.float64)) for s, t in pairs]
    close(together, torch.cat(alone, 1))
