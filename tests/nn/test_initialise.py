"""New weights: each scheme's spread against numbers worked by hand, the seed, models that begin without memory."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from norma.nn import ModelConfig, Transformer, published
from norma.nn.config import Experts, Initialisation
from norma.nn.initialise import SCHEMES, initialise

CUT = 0.87963  # what cutting a normal at two standard deviations leaves of one: sqrt(1 - 4 phi(2) / (2 Phi(2) - 1))

# A decoder with 4 heads of 32 (128 features, half the width of 256), 2 of them for keys (64); inner 512; 2 blocks.
DECODER = ModelConfig("llama", 1000, 256, 2, 4, 2, 32, 512, 64)
FACTS: dict[str, Any] = {"positions": "learned", "tie_embeddings": False, "norm": "layer", "norm_bias": True, "attention_bias": True}
BLOCK = "decoder.blocks.1."
Q, K, V, OUT = (f"{BLOCK}attention.{name}.weight" for name in ("query", "key", "value", "output"))
GATE, UP, DOWN = (f"{BLOCK}feed_forward.{name}.weight" for name in ("gate", "up", "down"))
TOKENS, PLACES, HEAD, BIAS = "embedding.weight", "decoder.position_embedding.weight", "head.weight", "decoder.relative_bias.weight"
TRANSFORM = "head_transform.weight"

# scheme, fields, tensor → its standard deviation
HAND: list[tuple[str, dict[str, Any], dict[str, float]]] = [
    ("identity", {}, {TOKENS: 0.02, Q: 0.02, K: 0.02, OUT: 0.0, GATE: 0.02, UP: 0.02, DOWN: 0.0, HEAD: 0.02, PLACES: 0.02}),
    ("normal", {}, {TOKENS: 0.02, Q: 0.02, K: 0.02, V: 0.02, OUT: 0.02, UP: 0.02, DOWN: 0.02, HEAD: 0.02, PLACES: 0.02}),
    ("normal", {"initializer_range": 0.5}, {TOKENS: 0.5, Q: 0.5, OUT: 0.5, DOWN: 0.5}),
    ("gpt2", {}, {TOKENS: 0.02, PLACES: 0.01, Q: 0.02, V: 0.02, UP: 0.02, OUT: 0.01, DOWN: 0.01, HEAD: 0.02}),  # 4 residual layers: / 2
    ("bert", {}, dict.fromkeys((TOKENS, PLACES, Q, K, V, OUT, UP, DOWN, HEAD), 0.02 * CUT)),
    (
        "megatron",
        {"head_transform": True},
        {TOKENS: 0.02 * CUT, Q: 0.02 * CUT, UP: 0.02 * CUT, OUT: 0.01 * CUT, DOWN: 0.01 * CUT, TRANSFORM: 0.01 * CUT, HEAD: 0.01 * CUT},
    ),
    ("megatron", {"head": "tokens", "labels": 60}, {"classifier.weight": CUT / 16}),
    # Glorot: sqrt(2 / (n + m)); query 256 + 128, key 256 + 64, up 256 + 512
    ("glorot", {}, {TOKENS: 1 / 16, HEAD: 1 / 16, Q: 0.072169, K: 0.079057, V: 0.079057, OUT: 0.072169, UP: 0.051031, DOWN: 0.051031}),
    (
        "t5",  # query 1 / sqrt(256 * 32), key 1 / sqrt(256), output 1 / sqrt(128), up CUT / sqrt(256), down CUT / sqrt(512)
        {"attention_scale": 1.0, "positions": "relative", "relative_buckets": 1020},
        {TOKENS: 1.0, HEAD: CUT / 16, Q: 0.0110485, K: 0.0625, V: 0.0625, OUT: 0.0883883, UP: 0.054977, DOWN: 0.038874, BIAS: 0.0441942},
    ),
    ("t5", {}, {Q: 0.0625}),  # where the scores are divided by sqrt(head size), the query is not
    # sqrt(0.1 / 256) = 0.0197642, sqrt(0.1 / 128) = 0.0279508, sqrt(0.1 / 512) = 0.0139754, each cut
    ("switch", {}, {TOKENS: 1.0, Q: 0.0173852, K: 0.0173852, OUT: 0.0245864, UP: 0.0173852, DOWN: 0.0122932, HEAD: 0.0173852}),
    ("palm", {}, {TOKENS: 1.0, Q: 0.0625, K: 0.0625, OUT: 0.0883883, GATE: 0.0625, DOWN: 0.0441942, HEAD: 0.0625}),
    ("neox", {}, {TOKENS: 0.0395285, Q: 0.0395285, UP: 0.0395285, HEAD: 0.0395285, OUT: 0.0625, DOWN: 0.0625}),  # 2 / (2 * 16)
]


def made(config: ModelConfig, seed: int = 0) -> dict[str, Tensor]:
    return Transformer(config).initialise(torch.Generator().manual_seed(seed)).state_dict()


@pytest.mark.parametrize(("scheme", "fields", "spreads"), HAND, ids=lambda x: x if isinstance(x, str) else "")
def test_spreads_by_hand(scheme: Any, fields: dict[str, Any], spreads: dict[str, float]) -> None:
    state = made(dataclasses.replace(DECODER, initialisation=scheme, **{**FACTS, **fields}))
    for name, spread in spreads.items():
        tensor = state[name]
        assert abs(float(tensor.mean())) <= 5 * spread / math.sqrt(tensor.numel()), name
        assert float(tensor.std()) == pytest.approx(spread, rel=0.025, abs=1e-12), name
    for name, tensor in state.items():
        if name.endswith(".bias"):
            assert not tensor.any(), name
        elif "norm." in name:
            assert bool((tensor == 1).all()), name


def test_every_scheme_is_there() -> None:
    assert set(SCHEMES) == set(get_args(Initialisation)) == {scheme for scheme, _, _ in HAND}


def test_distributions_are_what_they_are_called() -> None:
    sizes = {s: made(dataclasses.replace(DECODER, initialisation=s))[UP].abs().max().item() for s in ("normal", "bert", "glorot")}  # type: ignore[arg-type]
    assert sizes["normal"] > 3.5 * 0.02, "131,072 numbers of a normal go past 3.5 standard deviations"
    assert 1.98 * 0.02 < sizes["bert"] <= 2 * 0.02, "drawn again beyond two"
    limit = math.sqrt(6 / (256 + 512))
    assert 0.999 * limit < sizes["glorot"] <= limit


def test_a_decoder_with_an_encoder_has_three_residual_layers_a_block() -> None:
    config = dataclasses.replace(DECODER, layers=3, encoder_layers=2, initialisation="gpt2")
    state = made(config)
    assert state["encoder.blocks.0.attention.output.weight"].std().item() == pytest.approx(0.02 / 2, rel=0.025)
    for name in ("attention.output", "cross.output", "feed_forward.down"):
        assert state[f"decoder.blocks.0.{name}.weight"].std().item() == pytest.approx(0.02 / 3, rel=0.025)
    neox = made(dataclasses.replace(config, initialisation="neox"))
    assert neox["encoder.blocks.0.attention.output.weight"].std().item() == pytest.approx(2 / (2 * 16), rel=0.025)
    assert neox["decoder.blocks.0.cross.output.weight"].std().item() == pytest.approx(2 / (3 * 16), rel=0.025)


@pytest.mark.parametrize(("scheme", "up", "down"), [("switch", 0.0173852, 0.0122932), ("palm", 0.0625, 0.0441942), ("identity", 0.02, 0.0)])
def test_each_expert_is_a_matrix_of_its_own(scheme: Any, up: float, down: float) -> None:
    """The fan-in of an expert is its own, not that of all experts together."""
    state = made(dataclasses.replace(DECODER, initialisation=scheme, experts=Experts(16)))
    layer = f"{BLOCK}feed_forward."
    for role, spread in (("gate", up), ("up", up), ("down", down)):
        assert state[f"{layer}{role}"].std().item() == pytest.approx(spread, rel=0.01)
    assert state[f"{layer}router.weight"].std().item() == pytest.approx(up, rel=0.05)


def test_the_seed_decides() -> None:
    config = dataclasses.replace(DECODER, initialisation="t5", experts=Experts(2))
    first, again, other = made(config, 3), made(config, 3), made(config, 4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name in first if first[name].std() > 0]
    assert drawn and not any(torch.equal(first[name], other[name]) for name in drawn)


@pytest.mark.parametrize("fields", [{}, {"qk_norm": "head", "tie_embeddings": False, "attention_bias": True}])
def test_the_random_stream_of_a_llama_stays(fields: dict[str, Any]) -> None:
    """One normal per matrix, in the order embedding, query, key, value, gate, up of each block, head: seeds of earlier runs stay valid."""
    config = dataclasses.replace(DECODER, **fields)
    random, state = torch.Generator().manual_seed(7), made(config, 7)
    order = ["embedding"]
    for i in range(2):
        order += [f"decoder.blocks.{i}.{n}" for n in ("attention.query", "attention.key", "attention.value", "feed_forward.gate")]
        order.append(f"decoder.blocks.{i}.feed_forward.up")
    for name in [*order, *([] if config.tie_embeddings else ["head"])]:
        tensor = state[f"{name}.weight"]
        assert torch.equal(tensor, torch.empty_like(tensor).normal_(0.0, 0.02, generator=random)), name


@pytest.mark.parametrize("name", ["llama-2-70b", "palm-540b"])
def test_a_huge_model_needs_no_memory(name: str) -> None:
    config = published(name)
    with torch.device("meta"):
        Transformer(DECODER)  # torch imports a second's worth of itself when that device is first used
        began = time.process_time()
        model = Transformer(config)
    model.initialise(torch.Generator())
    assert time.process_time() - began < 1.0
    assert all(t.is_meta for t in (*model.parameters(), *model.buffers()))
    assert sum(p.numel() for p in model.parameters()) > 60e9


def test_from_no_memory_to_weights() -> None:
    """Built on the meta device, then given memory: the same model as one built in place. Buffers too, which hold anything at first."""
    config = dataclasses.replace(
        DECODER, encoder_layers=1, head_bias="fixed", experts=Experts(3, balance_bias=True), initialisation="switch", positions="relative"
    )
    with torch.device("meta"):
        model = Transformer(config)
    model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(float("nan"))
    initialise(model, torch.Generator().manual_seed(5))
    state, wanted = model.state_dict(), made(config, 5)
    assert set(state) == set(wanted) and "head_bias" in state and any(name.endswith(".balance") for name in state)
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("placement", ["pre", "output", "both"])
def test_identity_begins_as_the_identity(placement: Any, offset: float) -> None:
    config = dataclasses.replace(DECODER, norm_placement=placement, norm_offset=offset, qk_norm="head")
    model = Transformer(config).initialise(torch.Generator().manual_seed(0))
    ids = torch.arange(12)[None]
    assert model.decoder is not None and model.decoder.norm is not None
    torch.testing.assert_close(model.hidden(ids), model.decoder.norm(model.embedding.weight[ids]))
    model(ids).log_softmax(-1)[0, :, 0].sum().backward()
    block = model.decoder.blocks[0]
    opened = {"pre": block.attention.output, "output": block.attention_norm, "both": block.attention_output_norm}[placement]
    gradients = [p.grad.abs().max().item() for p in model.parameters() if p.grad is not None]
    assert opened.weight.grad.abs().max() > 0, "and it can leave it"
    assert max(gradients) < 100 * model.embedding.weight.grad.abs().max(), "without dividing by the root of eps"


def test_post_norm_projections_begin_at_zero_too() -> None:
    state = made(dataclasses.replace(DECODER, norm_placement="post", encoder_layers=1))
    assert not any(state[f"decoder.blocks.0.{n}.weight"].any() for n in ("attention.output", "cross.output", "feed_forward.down"))
    assert bool((state["decoder.blocks.0.attention_norm.weight"] == 1).all())
