"""Llama and its descendants: what is read from older files, what is refused by name; that they equal their layouts is test_parity.py."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from norma.base.errors import NormaError
from norma.nn.config import Experts, ModelConfig, RotaryScaling
from norma.nn.families import FAMILIES
from norma.nn.families.llama_layout import shortest
from norma.nn.layout import config_from_hf, config_to_hf
from norma.nn.presets import names, preset, published

SIZES: dict[str, Any] = {
    "vocab_size": 11,
    "hidden_size": 24,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 30,
}
OURS: dict[str, Any] = {"vocab_size": 11, "width": 32, "layers": 4, "head_size": 8}
MINE = ("llama", "mistral", "qwen2", "qwen3", "qwen3-moe", "gemma2", "olmo2")


def read(model_type: str, **values: Any) -> ModelConfig:
    return config_from_hf({"model_type": model_type, **SIZES, **values}, "config.json")


def written(config: ModelConfig, **changes: Any) -> dict[str, Any]:
    return config_to_hf(dataclasses.replace(config, **changes), bos=1, eos=2, pad=None)


@pytest.mark.parametrize("name", [n for n, (family, _) in names().items() if family.name in MINE])
def test_published_sizes_come_back(name: str) -> None:
    config = published(name)
    again = config_from_hf(written(config), name)
    if config.experts is not None:
        assert again.experts == config.experts
    assert dataclasses.replace(again, initialisation=config.initialisation) == config


def test_presets_of_before_stay() -> None:
    """The numbers that the first version gave: models trained from recipes of that time."""
    llama = preset("llama", vocab_size=100, width=384, layers=6)
    assert (llama.attention_heads, llama.kv_heads, llama.feed_forward_width, llama.norm_eps) == (6, 6, 1024, 1e-5)
    assert llama.tie_embeddings and llama.rope_theta == 10000.0 and llama.max_positions == 512 and llama.initialisation == "identity"
    qwen3 = preset("qwen3", vocab_size=100, width=384, layers=6, kv_heads=2)
    assert qwen3 == dataclasses.replace(llama, family="qwen3", kv_heads=2, qk_norm="head", norm_eps=1e-6)


@pytest.mark.parametrize(("whole", "pattern"), [([0, 0, 0], (0,)), ([4, 0, 4, 0, 4], (4, 0)), ([0, 0, 4], (0, 0, 4)), ([3, 3], (3,))])
def test_the_shortest_pattern(whole: list[int], pattern: tuple[int, ...]) -> None:
    assert shortest(whole) == pattern


def test_windows_of_qwen() -> None:
    on = {"use_sliding_window": True, "sliding_window": 7}
    assert read("qwen2", sliding_window=7).windows == (0,)  # off unless it is switched on
    assert read("qwen2", **on, max_window_layers=2).windows == (0, 0, 7, 7, 7)
    assert read("qwen3", **on, max_window_layers=5).windows == (0,)
    assert read("qwen3", **on, layer_types=["full_attention", "sliding_attention"] * 2 + ["full_attention"]).windows == (0, 7)
    assert read("qwen3_moe", **on, num_experts=3, num_experts_per_tok=1, max_window_layers=2).windows == (7,)  # there for all layers
    late = written(read("qwen2", **on, max_window_layers=2))
    assert (late["max_window_layers"], late["layer_types"].count("sliding_attention"), late["sliding_window"]) == (2, 3, 7)


def test_windows_of_mistral_and_gemma2() -> None:
    assert read("mistral").windows == (4096,)  # what the layout assumes
    assert read("mistral", sliding_window=None).windows == (0,)
    assert read("gemma2").windows == (4096, 0)
    assert read("gemma2", attn_logit_softcapping=None).attention_softcap is None
    assert (read("gemma2").attention_softcap, read("gemma2").logit_softcap) == (50.0, 30.0)


def test_older_files_keep_rotary_settings_at_the_top() -> None:
    assert read("llama", rope_theta=500.0).rope_theta == 500.0
    assert read("llama", rope_scaling={"type": "linear", "factor": 2.0}).rope_scaling == RotaryScaling("linear", 2.0)
    entries = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    old = read("llama", rope_theta=5e5, rope_scaling=entries | {"original_max_position_embeddings": 8192})
    new = read("llama", rope_parameters=entries | {"original_max_position_embeddings": 8192, "rope_theta": 5e5})
    assert old == new and old.rope_scaling == RotaryScaling("llama3", 8.0, 1.0, 4.0, 8192)


def test_experts_of_every_nth_layer() -> None:
    config = read("qwen3_moe", num_experts=6, num_experts_per_tok=2, decoder_sparse_step=2, moe_intermediate_size=5)
    assert [config.sparse(i) for i in range(5)] == [False, True, False, True, False]
    assert config.experts == Experts(6, 2, width=5, every=2, first=1, auxiliary_weight=0.001, z_weight=0.0)
    assert read("qwen3_moe", num_local_experts=6, num_experts_per_tok=2).experts is not None  # its other name


SLIDING = ["sliding_attention"] * 5
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type 'yarn'"),
    ("llama", {"rope_scaling": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor = 0.5"),
    ("llama", {"partial_rotary_factor": 0.25}, "partial_rotary_factor = 0.25"),
    ("qwen3", {"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "differ between layers"),
    ("llama", {"hidden_act": "quick_gelu"}, "activation 'quick_gelu'"),
    ("mistral", {"layer_types": SLIDING}, "layer_types"),
    ("qwen2", {"layer_types": SLIDING}, "no sliding_window"),
    ("qwen2", {"layer_types": ["full_attention"] * 4}, "4 entries for 5 layers"),
    ("gemma2", {"layer_types": ["chunked_attention"] * 5}, "layer type 'chunked_attention'"),
    ("gemma2", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("qwen3_moe", {"num_experts": 4, "num_experts_per_tok": 2, "mlp_only_layers": [0]}, "mlp_only_layers"),
    ("qwen3_moe", {"num_experts": 4, "num_experts_per_tok": 5}, "per_token"),
    ("qwen3_moe", {}, "lacks 'num_experts'"),
    ("llama", {"num_key_value_heads": 3}, "multiple of kv_heads"),
    ("llama", {"architectures": ["LlamaForTokenClassification"]}, "architecture 'LlamaForTokenClassification'"),
]


@pytest.mark.parametrize(("model_type", "values", "what"), REFUSED, ids=[f"{m} {w}" for m, _, w in REFUSED])
def test_what_reading_refuses(model_type: str, values: dict[str, Any], what: str) -> None:
    with pytest.raises(NormaError, match=what):
        read(model_type, **values)


@pytest.mark.parametrize("model_type", sorted({FAMILIES[name].model_type for name in MINE}))
def test_a_missing_size_is_named(model_type: str) -> None:
    values = {k: v for k, v in SIZES.items() if k != "hidden_size"}
    with pytest.raises(NormaError, match="lacks 'hidden_size'"):
        config_from_hf({"model_type": model_type, **values, "num_experts": 4}, "config.json")


UNWRITABLE: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"windows": (4,)}, "windows"),
    ("llama", {"attention_bias": True}, "attention_output_bias"),
    ("llama", {"norm_placement": "post"}, "norm_placement"),
    ("llama", {"width": 33}, "multiple of attention_heads"),
    ("llama", {"head": "classify", "labels": 3, "classifier_bias": True}, "classifier_bias"),
    ("mistral", {"windows": (4, 0)}, "one window for all"),
    ("mistral", {"attention_bias": True}, "attention_bias"),
    ("qwen2", {"attention_bias": False}, "attention_bias"),
    ("qwen3", {"windows": (4, 8)}, "one size of window"),
    ("qwen3", {"qk_norm": "width"}, "qk_norm"),
    ("qwen3-moe", {"experts": None}, "needs experts"),
    ("qwen3-moe", {"experts": Experts(4, capacity=3)}, "capacity"),
    ("qwen3-moe", {"experts": Experts(4, balance_bias=True)}, "balance_bias"),
    ("qwen3-moe", {"experts": Experts(4, every=2, first=0)}, "experts.first"),
    ("gemma2", {"attention_scale": 0.3}, "attention_scale"),
    ("gemma2", {"embedding_scale": 1.0}, "embedding_scale"),
    ("olmo2", {"norm_placement": "pre"}, "norm_placement"),
]


@pytest.mark.parametrize(("name", "changes", "what"), UNWRITABLE, ids=[f"{n} {w}" for n, _, w in UNWRITABLE])
def test_what_writing_refuses(name: str, changes: dict[str, Any], what: str) -> None:
    config = preset(name, **OURS)
    written(config)  # as it is, it can be
    with pytest.raises(NormaError, match=what):
        written(config, **changes)
