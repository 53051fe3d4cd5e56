"""Counts against the models themselves: weights, the products that PyTorch sees, the cache's tensors, and published numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from norma.nn import Cache, Mask, ModelConfig, Transformer, published, with_head
from norma.nn.config import Experts
from norma.nn.counting import flops_of_text, keys_seen, training_bytes
from norma.nn.families import FAMILIES

BASE = ModelConfig("llama", 37, 24, 2, 4, 2, 6, 40, 64)


def on_meta(config: ModelConfig) -> Transformer:
    with torch.device("meta"):
        return Transformer(config)


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    """Any config that can be, over every field that a weight could depend on."""
    flag = st.booleans()
    groups, times = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    encoder = draw(st.integers(0, 2))
    parallel = not encoder and draw(flag)
    every = draw(st.integers(1, 3))
    count = draw(st.integers(1, 5))
    experts = Experts(
        count,
        per_token=draw(st.integers(1, count)),
        width=draw(st.none() | st.integers(1, 9)),
        every=every,
        first=draw(st.integers(0, every - 1)),
        balance_bias=draw(flag),
    )
    head = draw(st.sampled_from(["lm", "pretraining", "classify", "tokens", "span", "none"]))
    return ModelConfig(
        family="llama",
        vocab_size=draw(st.integers(1, 50)),
        width=draw(st.integers(1, 20)),
        layers=draw(st.integers(1, 4)),
        attention_heads=groups * times,
        kv_heads=groups,
        head_size=2 * draw(st.integers(1, 6)),
        feed_forward_width=draw(st.integers(1, 20)),
        max_positions=draw(st.integers(1, 20)),
        encoder_layers=encoder,
        causal=bool(encoder) or draw(flag),
        parallel=parallel,
        shared_norm=parallel and draw(flag),
        norm=draw(st.sampled_from(["layer", "rms"])),
        norm_bias=draw(flag),
        norm_placement="pre" if parallel else draw(st.sampled_from(["pre", "post", "output", "both"])),
        embedding_norm=draw(flag),
        first_attention_norm=draw(flag),
        positions=draw(st.sampled_from(["rotary", "learned", "sinusoidal", "relative", "none"])),
        position_offset=draw(st.integers(0, 2)),
        relative_buckets=draw(st.integers(2, 8)),
        segments=draw(st.integers(0, 3)),
        attention_bias=draw(flag),
        attention_output_bias=draw(flag),
        qk_norm=draw(st.sampled_from(["none", "head", "width"])),
        gated=draw(flag),
        feed_forward_bias=draw(flag),
        experts=draw(st.none() | st.just(experts)),
        head=head,
        labels=draw(st.integers(1, 5)) if head in ("classify", "tokens") else 0,
        tie_embeddings=draw(flag),
        head_bias=draw(st.sampled_from(["none", "learned", "fixed"])),
        head_transform=draw(flag),
        head_transform_bias=draw(flag),
        pooler=draw(flag),
        classifier_bias=draw(flag),
    )


def counted(model: Transformer) -> tuple[int, int]:
    """All weights, and those one token meets: of tensors with an axis of experts, the chosen experts' share."""
    experts = model.config.experts
    everything = active = 0
    for name, parameter in model.named_parameters():
        everything += parameter.numel()
        stacked = name.endswith(("feed_forward.gate", "feed_forward.up", "feed_forward.down"))
        active += parameter[: experts.per_token].numel() if stacked and experts else parameter.numel()
    return everything, active


@given(configs())
@settings(max_examples=150, deadline=None)
def test_parameters_of_any_config(config: ModelConfig) -> None:
    assert (config.parameters(), config.active_parameters()) == counted(on_meta(config))
    assert training_bytes(config) == 16 * config.parameters()


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_parameters_of_every_published_size_and_head(name: str) -> None:
    for size in FAMILIES[name].sizes:
        config = published(f"{name}-{size}")
        assert (config.parameters(), config.active_parameters()) == counted(on_meta(config)), size
    for head in FAMILIES[name].architectures:
        other = with_head(config, head, labels=3 if head in ("classify", "tokens") else 0)
        small = dataclasses.replace(other, layers=1, encoder_layers=min(1, other.encoder_layers))
        assert (small.parameters(), small.active_parameters()) == counted(on_meta(small)), head


# As the models' cards and papers have them, exact where the released weights say it. Head None: the preset's own.
PUBLISHED: list[tuple[str, str | None, int]] = [
    ("gpt", None, 116_534_784),
    ("gpt2", None, 124_439_808),
    ("gpt2-medium", None, 354_823_168),
    ("gpt2-large", None, 774_030_080),
    ("gpt2-xl", None, 1_557_611_200),
    ("bert-base", "none", 109_482_240),
    ("bert-large", "none", 335_141_888),
    ("roberta-base", "lm", 124_697_433),
    ("roberta-large", "lm", 355_412_057),
    ("modernbert-base", "lm", 149_655_232),
    ("modernbert-large", "lm", 395_881_664),
    ("t5-small", None, 60_506_624),
    ("t5-base", None, 222_903_552),
    ("t5-large", None, 737_668_096),
    ("t5-3b", None, 2_851_598_336),
    ("t5-11b", None, 11_307_321_344),
    ("t5-v1.1-small", None, 76_961_152),
    ("t5-v1.1-base", None, 247_577_856),
    ("t5-v1.1-large", None, 783_150_080),
    ("t5-v1.1-xl", None, 2_849_757_184),
    ("t5-v1.1-xxl", None, 11_135_332_352),
    ("bart-base", None, 139_420_416),
    ("bart-large", None, 406_291_456),
    ("llama-7b", None, 6_738_415_616),
    ("llama-13b", None, 13_015_864_320),
    ("llama-33b", None, 32_528_943_616),
    ("llama-65b", None, 65_285_660_672),
    ("llama-2-70b", None, 68_976_648_192),
    ("llama-3-8b", None, 8_030_261_248),
    ("llama-3-70b", None, 70_553_706_496),
    ("llama-3.1-405b", None, 405_853_388_800),
    ("llama-3.2-1b", None, 1_235_814_400),
    ("llama-3.2-3b", None, 3_212_749_824),
    ("mistral-7b", None, 7_241_732_096),
    ("qwen2-0.5b", None, 494_032_768),
    ("qwen2-1.5b", None, 1_543_714_304),
    ("qwen2-7b", None, 7_615_616_512),
    ("qwen2-72b", None, 72_706_203_648),
    ("qwen3-0.6b", None, 596_049_920),
    ("qwen3-8b", None, 8_190_735_360),
    ("qwen3-moe-30b-a3b", None, 30_532_122_624),
    ("qwen3-moe-235b-a22b", None, 235_093_634_560),
    ("gemma2-2b", None, 2_614_341_888),
    ("gemma2-9b", None, 9_241_705_984),
    ("gemma2-27b", None, 27_227_128_320),
    ("gpt-neox-pythia-70m", None, 70_426_624),
    ("gpt-neox-pythia-160m", None, 162_322_944),
    ("gpt-neox-pythia-410m", None, 405_334_016),
    ("gpt-neox-pythia-1b", None, 1_011_781_632),
    ("gpt-neox-pythia-12b", None, 11_846_072_320),
    ("gpt-neox-20b", None, 20_554_567_680),
    ("olmo2-1b", None, 1_484_916_736),
    ("olmo2-32b", None, 32_234_279_936),
    ("olmo2-7b", None, 7_298_617_344),
    ("olmo2-13b", None, 13_716_198_400),
]


@pytest.mark.parametrize(("name", "head", "count"), PUBLISHED, ids=lambda x: x if isinstance(x, str) else "")
def test_published_counts(name: str, head: str | None, count: int) -> None:
    config = published(name)
    assert (config if head is None else with_head(config, head)).parameters() == count


@pytest.mark.parametrize(
    ("name", "billions"),
    [  # as the papers round them: PaLM table 1; GPT-3 table 2.1; Transformer table 3
        ("palm-8b", 8.63),
        ("palm-62b", 62.50),
        ("palm-540b", 540.35),
        ("gpt3-small", 0.125),
        ("gpt3-175b", 175.0),
        ("transformer-base", 0.065),
        ("transformer-big", 0.213),
    ],
)
def test_published_counts_in_words(name: str, billions: float) -> None:
    assert published(name).parameters() / 1e9 == pytest.approx(billions, rel=0.04 if billions < 1 else 0.005)


def test_active_experts_in_words() -> None:
    assert published("qwen3-moe-30b-a3b").active_parameters() / 1e9 == pytest.approx(3.3, abs=0.06)


# ── arithmetic ──
ENCODER = {"causal": False, "positions": "learned", "norm": "layer", "norm_bias": True, "norm_placement": "post", "gated": False}
BERT = {**ENCODER, "segments": 2, "embedding_norm": True, "pooler": True, "attention_bias": True, "feed_forward_bias": True}
COUNTED: dict[str, dict[str, Any]] = {
    "llama": {},
    "untied, all keys": {"tie_embeddings": False, "kv_heads": 4, "qk_norm": "head"},
    "windows": {"windows": (3, 0), "layers": 3},
    "parallel": {"parallel": True, "shared_norm": True, "kv_heads": 1},
    "bert, two heads": {**BERT, "head": "pretraining", "head_transform": True, "head_bias": "learned"},
    "bert, texts": {**BERT, "head": "classify", "labels": 3},
    "bert, tokens": {**BERT, "head": "tokens", "labels": 3},
    "bert, spans": {**BERT, "head": "span"},
    "modernbert, texts": {"causal": False, "windows": (0, 4), "head": "classify", "labels": 3, "head_transform": True},
    "modernbert, tokens": {"causal": False, "windows": (0, 4), "head": "tokens", "labels": 3, "head_transform": True},
    "a decoder's texts": {"head": "classify", "labels": 5},
    "t5": {"encoder_layers": 3, "positions": "relative", "gated": False},
    "experts": {"experts": Experts(5, per_token=2, width=16, every=2, first=1), "layers": 3},
    "plain experts": {"experts": Experts(4), "gated": False, "encoder_layers": 1},
}


def seen_products(config: ModelConfig, batch: int, length: int, source: int) -> int:
    """What PyTorch counts in one forward and backward pass."""
    random = torch.Generator().manual_seed(0)
    model = Transformer(dataclasses.replace(config, initialisation="normal")).initialise(random)
    ids = torch.randint(0, config.vocab_size, (batch, length), generator=random)
    segments = torch.zeros_like(ids) if config.segments else None
    with FlopCounterMode(display=False) as counter:
        if config.kind == "encoder-decoder":
            read = torch.randint(0, config.vocab_size, (batch, source), generator=random)
            hidden = model.hidden(ids, memory=model.encode(read))
        else:
            hidden = model.hidden(ids, segments_BT=segments)
        loss = model.logits(hidden).logsumexp(-1).sum() if config.head in ("lm", "pretraining") else model.classify(hidden).square().sum()
        if config.head == "pretraining":
            loss = loss + model.next_sentence_scores(hidden).square().sum()
        loss.backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("name", COUNTED)
def test_arithmetic_is_what_pytorch_sees(name: str) -> None:
    """Short texts' scores are computed for all pairs, also those that the mask hides: they are added here, counted from the masks."""
    config = dataclasses.replace(BASE, **COUNTED[name])
    batch, length, source = 2, 9, 7 if config.encoder_layers else 0
    hidden_pairs = 0
    for causal, layers, T in ((False, config.encoder_layers, source), (config.causal, config.layers, length)):
        for layer in range(layers):
            allowed = Mask().allowed(torch.arange(T)[None], causal=causal, window=config.window(layer))
            hidden_pairs += T * T - int(allowed.sum())
    wanted = flops_of_text(config, length, source) + 12 * config.attention_heads * config.head_size * hidden_pairs
    assert seen_products(config, batch, length, source) == batch * wanted


@given(st.integers(1, 40), st.integers(0, 45), st.booleans())
@settings(max_examples=60, deadline=None)
def test_pairs_are_what_the_mask_leaves(length: int, window: int, causal: bool) -> None:
    allowed = Mask().allowed(torch.arange(length)[None], causal=causal, window=window)
    assert keys_seen(length, causal=causal, window=window) == int(allowed.sum())


def test_flops_by_hand() -> None:
    # One layer, width 4, one head of 2 and its key/value head: 4*2*4 = 32 weights of attention; 3*4*8 = 96; vocabulary 5*4 = 20.
    config = ModelConfig("llama", 5, 4, 1, 1, 1, 2, 8, 16)
    assert config.flops_per_token(10) == 6 * (32 + 96 + 20) + 12 * 2 * 55 // 10  # 10 tokens see 1 + 2 + ... + 10 = 55 keys
    # A window of 3: 1 + 2 + 3 * 8 = 27 keys; 24 * 27 / 10 = 64.8, rounded
    assert dataclasses.replace(config, windows=(3,)).flops_per_token(10) == 888 + 65
    both = dataclasses.replace(config, causal=False)
    assert both.flops_per_token(10) == 888 + 240, "10 tokens see 10 keys each"
    assert dataclasses.replace(both, windows=(2,)).flops_per_token(10) == 888 + 67, "themselves and two neighbours: 28 keys; 67.2"
    # With an encoder: 32 + 96 more weights for it, 32 for looking at it; 10 keys each, twice.
    assert dataclasses.replace(config, encoder_layers=1).flops_per_token(10) == 888 + 6 * (32 + 96 + 32) + 132 + 240 + 240
    # Four experts, two a token: 2 * 96, and a router of 4 * 4.
    assert dataclasses.replace(config, experts=Experts(4, per_token=2)).flops_per_token(10) == 6 * (32 + 192 + 16 + 20) + 132


def test_gpt3s_arithmetic_in_words() -> None:
    """GPT-3 175B: 3.14e23 operations for 300 billion tokens (2005.14165, table D.1), which leaves out attention and the head."""
    assert published("gpt3-175b").flops_per_token(2048) * 300e9 == pytest.approx(3.14e23, rel=0.05)


# ── memory ──
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fields", [{}, {"windows": (4, 0)}, {"encoder_layers": 1, "layers": 3, "positions": "relative"}])
def test_the_cache_is_as_large_as_said(fields: dict[str, Any], dtype: torch.dtype) -> None:
    config = dataclasses.replace(BASE, **fields)
    model = Transformer(config).initialise(torch.Generator().manual_seed(0)).requires_grad_(False)
    cache = Cache(config, 1, 11, dtype, torch.device("cpu"))
    memory = model.encode(torch.zeros(1, 7, dtype=torch.int64), dtype=dtype) if config.encoder_layers else None
    model.hidden(torch.zeros(1, 5, dtype=torch.int64), cache=cache, memory=memory, dtype=dtype)
    tensors = [cache.keys, cache.values, *(t for pair in cache.cross.values() for t in pair)]
    held = sum(t.numel() * t.element_size() for t in tensors)
    assert config.kv_cache_bytes(11, dtype.itemsize, source=7 if config.encoder_layers else 0) == held


def test_cache_by_hand() -> None:
    config = ModelConfig("llama", 5, 4, 1, 1, 1, 2, 8, 16)
    assert config.kv_cache_bytes(10, 2) == 2 * 10 * 2 * 2
    assert config.kv_cache_bytes(10, 2, source=50) == 80, "a decoder alone reads no source"
    assert dataclasses.replace(config, encoder_layers=3).kv_cache_bytes(10, 2, source=50) == 2 * 60 * 2 * 2
    assert dataclasses.replace(config, causal=False).kv_cache_bytes(10, 2) == 0
    # Llama 2 70B: 80 layers, 8 key/value heads of 128: 320 KiB a token in bf16
    assert published("llama-2-70b").kv_cache_bytes(4096) == 4096 * 320 * 1024
