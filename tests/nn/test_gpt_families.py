"""GPT, GPT-2, GPT-3, GPT-NeoX and PaLM: what is special to each. That they equal their layouts is the parity cases' concern."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from norma.base.errors import NormaError
from norma.nn import Mask, ModelConfig, Transformer, config_from_hf, config_to_hf, from_hf, preset, published, to_hf, with_head
from norma.nn.config import RotaryScaling
from norma.nn.families import FAMILIES
from norma.nn.families.gpt3 import shortest
from norma.nn.layout import shapes

NAMES = ("gpt", "gpt2", "gpt3", "gpt-neox", "palm")
TINY = {"vocab_size": 37, "width": 32, "layers": 3, "head_size": 16, "max_positions": 24}


def made(config: ModelConfig, seed: int = 0) -> Transformer:
    """A model whose every weight matters."""
    random = torch.Generator().manual_seed(seed)
    model = Transformer(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm.weight" in name else 0.0, 0.2, generator=random)
    return model.eval().requires_grad_(False)


def save(model: Transformer, folder: Path) -> dict[str, Any]:
    """A folder as transformers opens it; returns config.json."""
    values = json.loads(json.dumps(config_to_hf(model.config, bos=None, eos=None, pad=None)))
    (folder / "config.json").write_text(json.dumps(values))
    save_file({name: t.contiguous() for name, t in to_hf(model.config, model.state_dict()).items()}, folder / "model.safetensors")
    return values


def opened(values: dict[str, Any], tensors: dict[str, Tensor]) -> Transformer:
    config = config_from_hf(values, "here")
    model = Transformer(config)
    model.load_state_dict(from_hf(config, tensors, "here"))
    return model.eval().requires_grad_(False)


def theirs(folder: Path, values: dict[str, Any]) -> Any:
    kind = getattr(transformers, values["architectures"][0])
    return kind.from_pretrained(folder, attn_implementation="eager").eval().requires_grad_(False)


def ids(length: int = 11) -> Tensor:
    return torch.randint(1, 37, (2, length), generator=torch.Generator().manual_seed(1))


def close(ours: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))


def refused(match: str) -> Any:
    return pytest.raises(NormaError, match=match)


# ── published sizes ──
COUNTS = {  # model cards; gpt-neox-20b's README; PaLM's table 1 (8.63, 62.50 and 540.35 billion)
    "gpt": 116_534_784,
    "gpt2-small": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "gpt-neox": 20_554_567_680,
    "gpt-neox-pythia-70m": 70_426_624,
    "gpt-neox-pythia-1.4b": 1_414_647_808,
    "gpt-neox-pythia-12b": 11_846_072_320,
}


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_published_models_have_the_published_number_of_weights(name: str, count: int) -> None:
    assert published(name).parameters() == count


@pytest.mark.parametrize(("size", "billions"), [("8b", 8.63), ("62b", 62.50), ("540b", 540.35)])  # 2204.02311, table 1
def test_palm_has_the_papers_counts(size: str, billions: float) -> None:
    assert published(f"palm-{size}").parameters() / 1e9 == pytest.approx(billions, abs=0.01)


@pytest.mark.parametrize(
    ("size", "billions"),  # 2005.14165, table 2.1, which rounds to two or three digits
    [("small", 0.125), ("medium", 0.35), ("large", 0.76), ("2.7b", 2.7), ("6.7b", 6.7), ("13b", 13.0), ("175b", 175.0)],
)
def test_gpt3_has_the_papers_counts(size: str, billions: float) -> None:
    assert published(f"gpt3-{size}").parameters() / 1e9 == pytest.approx(billions, rel=0.02)


def test_gpt3_xl_as_the_paper_prints_it_is_larger_than_its_count() -> None:
    # 24 heads of 128 beside width 2,048, by hand; the paper says 1.3 billion.
    attention, feed_forward, norms = 4 * 2048 * 3072 + 2048, 8 * 2048**2 + 5 * 2048, 4 * 2048
    assert published("gpt3-xl").parameters() == (50257 + 2048) * 2048 + 24 * (attention + feed_forward + norms) + 2 * 2048


@pytest.mark.parametrize("name", [f"{family}-{size}" for family in NAMES for size in FAMILIES[family].sizes])
def test_every_size_is_what_the_layout_builds_or_is_refused_by_name(name: str) -> None:
    config = published(name)
    if name in ("gpt3-xl", "gpt3-13b"):
        with refused(rf"attention_heads x head_size = {config.attention_heads} x 128 with width {config.width}"):
            config_to_hf(config, bos=None, eos=None, pad=None)
        return
    values = config_to_hf(config, bos=None, eos=None, pad=None)
    kind = getattr(transformers, values["architectures"][0])
    with torch.device("meta"):
        built = {n: t.shape for n, t in kind(kind.config_class.from_dict(values)).state_dict().items()}
    if config.tie_embeddings:
        del built["lm_head.weight"]
    renamed = {n.replace("embed_out", "lm_head"): shape for n, shape in shapes(config).items()}
    assert renamed == built


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("head", ["lm", "none"])
def test_a_config_survives_the_layout(family: str, head: str) -> None:
    config = with_head(preset(family, **TINY), head)
    read = config_from_hf(config_to_hf(config, bos=None, eos=None, pad=None), "here")
    # The layout does not keep how a model was initialised, and dropout is not read.
    training = {"initialisation": read.initialisation, "dropout": read.dropout}
    scale = {"attention_scale": 1.0} if family == "gpt3" else {}
    assert read == replace(config, **training, **scale)


def test_dropout_is_written_where_a_paper_has_it() -> None:
    written = {family: config_to_hf(preset(family, **TINY), bos=None, eos=None, pad=None) for family in ("gpt", "gpt2")}
    assert (written["gpt"]["resid_pdrop"], written["gpt2"]["resid_pdrop"]) == (0.1, 0.0)


# ── GPT-3 in GPT-Neo's layout ──
@pytest.mark.parametrize("head_size", [16, 24, 64, 256])
def test_gpt3_folds_its_scale_into_the_queries(head_size: int, tmp_path: Path) -> None:
    model = made(preset("gpt3", vocab_size=37, width=2 * head_size, layers=2, head_size=head_size, max_positions=24, window=4))
    assert model.config.scale == head_size**-0.5
    values = save(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    read = opened(values, tensors)
    assert read.config.attention_scale == 1.0
    close(theirs(tmp_path, values)(ids()).logits, model(ids()))
    close(read(ids()), model(ids()))
    ours, again = model.state_dict(), read.state_dict()
    query = "decoder.blocks.1.attention.query.weight"
    assert all(torch.equal(ours[n], again[n]) for n in ours if "query" not in n)
    same = from_hf(model.config, tensors, "here")
    if head_size != 24:  # a power of two: no bit is lost
        root = {16: 4, 64: 8, 256: 16}[head_size]
        assert torch.equal(again[query] * root, ours[query])
        assert all(torch.equal(same[n], ours[n]) for n in ours)
    else:
        torch.testing.assert_close(same[query], ours[query], rtol=1e-6, atol=0)
        assert not torch.equal(again[query], ours[query])
    written = to_hf(read.config, again)
    assert all(torch.equal(written[n], tensors[n]) for n in tensors), "what was read is written as it was"


def neo(**changes: Any) -> dict[str, Any]:
    base = {"model_type": "gpt_neo", "vocab_size": 37, "hidden_size": 32, "num_heads": 2, "num_layers": 6, "window_size": 5}
    return base | {"attention_types": [[["global", "local"], 3]]} | changes


@pytest.mark.parametrize(
    ("types", "windows"),
    [
        ([[["global", "local"], 3]], (0, 5)),
        ([[["global"], 6]], (0,)),
        ([[["local", "local"], 3]], (5,)),
        ([[["global", "global", "local"], 2]], (0, 0, 5)),
        ([[["global"], 1], [["local", "global"], 2], [["local"], 1]], (0, 5)),
        ([[["global"], 2], [["local"], 2], [["global"], 2]], (0, 0, 5, 5)),
        ([[["global"], 5], [["local"], 1]], (0, 0, 0, 0, 0, 5)),
    ],
)
def test_attention_types_become_the_shortest_pattern(types: list[Any], windows: tuple[int, ...]) -> None:
    config = config_from_hf(neo(attention_types=types), "here")
    assert config.windows == windows
    written = config_to_hf(config, bos=None, eos=None, pad=None)
    layers = transformers.GPTNeoConfig(num_layers=6, attention_types=types).attention_layers
    assert transformers.GPTNeoConfig.from_dict(written).attention_layers == layers
    assert config_from_hf(written, "here") == config


def test_shortest_pattern_need_not_divide_the_layers() -> None:
    assert shortest([1, 2, 3, 1, 2]) == (1, 2, 3)
    assert shortest([1, 2, 2]) == (1, 2, 2)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"attention_types": [[["global", "dilated"], 3]]}, "dilated"),
        ({"attention_types": [[["global"], 5]]}, "5 layers"),
        ({"hidden_size": 33}, "33"),
        ({"activation_function": "mish"}, "mish"),
    ],
)
def test_what_gpt_neo_says_and_this_cannot_be(changes: dict[str, Any], named: str) -> None:
    with refused(named):
        config_from_hf(neo(**changes), "here")


# ── what a layout cannot hold, and what we do not honour ──
@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [
        ("gpt", {"kv_heads": 1}, "kv_heads = 1"),
        ("gpt", {"feed_forward_width": 96}, "feed_forward_width = 96"),
        ("gpt", {"activation": "gelu"}, "activation 'gelu'"),
        ("gpt", {"norm_placement": "pre"}, "norm_placement"),
        ("gpt2", {"kv_heads": 1}, "kv_heads = 1"),
        ("gpt2", {"attention_scale": 0.3}, "attention_scale"),
        ("gpt2", {"attention_softcap": 20.0}, "attention_softcap"),
        ("gpt2", {"windows": (0, 4)}, "windows"),
        ("gpt3", {"kv_heads": 1}, "kv_heads = 1"),
        ("gpt3", {"windows": (3, 4)}, "windows of 3 and 4"),
        ("gpt3", {"attention_bias": True}, "attention_bias"),
        ("gpt-neox", {"kv_heads": 1}, "kv_heads = 1"),
        ("gpt-neox", {"attention_bias": False}, "attention_output_bias"),
        ("gpt-neox", {"shared_norm": True}, "shared_norm"),
        ("palm", {"rotary_interleaved": False}, "rotary_interleaved"),
        ("palm", {"norm": "rms"}, "norm"),
        ("palm", {"dropout": 0.1}, "dropout"),
        ("palm", {"attention_bias": True}, "attention_output_bias"),
    ],
)
def test_writing_refuses_what_the_layout_cannot_hold(family: str, changes: dict[str, Any], named: str) -> None:
    config = preset(family, **TINY)
    config_to_hf(config, bos=None, eos=None, pad=None)
    with refused(named):
        config_to_hf(replace(config, **changes), bos=None, eos=None, pad=None)


@pytest.mark.parametrize(
    ("family", "key", "value"),
    [
        ("gpt", "afn", "gelu_new"),  # not in OpenAIGPT's own table
        ("gpt", "architectures", ["OpenAIGPTDoubleHeadsModel"]),
        ("gpt2", "scale_attn_by_inverse_layer_idx", True),
        ("gpt2", "reorder_and_upcast_attn", True),
        ("gpt2", "add_cross_attention", True),
        ("gpt2", "activation_function", "tanh"),
        ("gpt-neox", "rope_scaling", {"rope_type": "yarn", "factor": 2.0}),
        ("gpt-neox", "hidden_act", "quick_gelu"),
        ("palm", "use_qk_norm", True),
    ],
)
def test_reading_refuses_by_name(family: str, key: str, value: Any) -> None:
    values = config_to_hf(preset(family, **TINY), bos=None, eos=None, pad=None)
    said = value[0] if isinstance(value, list) else value["rope_type"] if isinstance(value, dict) else value
    with refused(key if value is True else str(said)):
        config_from_hf(values | {key: value}, "here")


# ── older files ──
def test_published_gpt2_files_without_prefix_and_with_masks() -> None:
    model = made(preset("gpt2", **TINY))
    values = config_to_hf(model.config, bos=None, eos=None, pad=None)
    old = {name.removeprefix("transformer."): t for name, t in to_hf(model.config, model.state_dict()).items()}
    for i in range(3):
        old |= {f"h.{i}.attn.bias": torch.ones(24, 24).tril()[None, None], f"h.{i}.attn.masked_bias": torch.tensor(-1e4)}
    old["lm_head.weight"] = old["wte.weight"].clone()
    assert torch.equal(opened(values, old)(ids()), model(ids()))
    with refused("h.1.ln_2.weight"):
        opened(values, {name: t for name, t in old.items() if name != "h.1.ln_2.weight"})
    with refused("h.9.ln_2.weight"):
        opened(values, old | {"h.9.ln_2.weight": torch.ones(32)})


def test_gpt2_untied_keeps_its_head() -> None:
    model = made(replace(preset("gpt2", **TINY), tie_embeddings=False))
    tensors = to_hf(model.config, model.state_dict())
    assert not torch.equal(tensors["lm_head.weight"], tensors["transformer.wte.weight"])
    values = config_to_hf(model.config, bos=None, eos=None, pad=None)
    assert torch.equal(opened(values, tensors)(ids()), model(ids()))


def test_older_gpt_neox_files() -> None:
    model = made(preset("gpt-neox", **TINY))
    values = config_to_hf(model.config, bos=None, eos=None, pad=None)
    for newer in ("rope_parameters", "rope_scaling", "attention_bias"):
        del values[newer]
    values |= {"rotary_pct": 0.25, "rotary_emb_base": 10000, "rope_theta": 10000}
    tensors = to_hf(model.config, model.state_dict())
    old = dict(tensors)
    for i in range(3):
        old[f"gpt_neox.layers.{i}.attention.bias"] = torch.ones(24, 24, dtype=torch.bool).tril()
        old[f"gpt_neox.layers.{i}.attention.masked_bias"] = torch.tensor(-1e9)
        old[f"gpt_neox.layers.{i}.attention.rotary_emb.inv_freq"] = torch.ones(2)
    assert torch.equal(opened(values, old)(ids()), model(ids()))
    new = dict(tensors)
    new["lm_head.weight"] = new.pop("embed_out.weight")  # as transformers 5 names it in memory
    assert torch.equal(opened(values, new)(ids()), model(ids()))


# ── GPT-NeoX ──
@pytest.mark.parametrize("rotary", [2, 4, 12, 14])
def test_neox_rotary_parts_are_read_by_others_as_they_were_written(rotary: int, tmp_path: Path) -> None:
    # 49 * (4 / 49) is 3.999...: a reader that rounds down must not lose a feature.
    plain = preset("gpt-neox", vocab_size=37, width=98, layers=2, head_size=49, max_positions=24)
    model = made(replace(plain, rotary_size=rotary, rope_theta=300.0))
    values = save(model, tmp_path)
    other = theirs(tmp_path, values)
    assert other.gpt_neox.layers[0].attention.rotary_ndims == rotary
    close(other(ids()).logits, model(ids()))
    assert config_from_hf(values, "here").rotary == rotary


def test_neox_rotary_part_for_every_head_size() -> None:
    base = preset("gpt-neox", **TINY)
    for head_size in range(2, 130):
        for rotary in range(2, head_size + 1, 2):
            config = replace(base, width=2 * head_size, head_size=head_size, rotary_size=rotary)
            written = config_to_hf(config, bos=None, eos=None, pad=None)
            assert int(head_size * written["rotary_pct"]) == rotary
            assert config_from_hf(written, "here").rotary == rotary


@pytest.mark.parametrize("family", ["gpt-neox", "palm"])
@pytest.mark.parametrize("kind", ["linear", "llama3"])
def test_stretched_rotary_positions_are_read_by_others(family: str, kind: str, tmp_path: Path) -> None:
    more = {"low_frequency_factor": 1.0, "high_frequency_factor": 4.0, "original_positions": 8} if kind == "llama3" else {}
    scaling = RotaryScaling(kind, 4.0, **more)  # type: ignore[arg-type]
    plain = preset(family, vocab_size=37, width=64, layers=2, head_size=32, max_positions=24)
    model = made(replace(plain, rope_scaling=scaling))
    values = save(model, tmp_path)
    close(theirs(tmp_path, values)(ids(24)).logits, model(ids(24)))
    assert (made(plain)(ids(24)) - model(ids(24))).abs().max() > 1e-2, "and it matters"
    assert config_from_hf(values, "here").rope_scaling == scaling
    assert config_from_hf({k: v for k, v in values.items() if k != "rope_scaling"}, "here").rope_theta == 10000.0


def test_neox_serial_blocks_differ_from_parallel_ones(tmp_path: Path) -> None:
    parallel, serial = (made(preset("gpt-neox", **TINY, parallel=p)) for p in (True, False))
    values = save(serial, tmp_path)
    assert values["use_parallel_residual"] is False
    close(theirs(tmp_path, values)(ids()).logits, serial(ids()))
    assert (parallel(ids()) - serial(ids())).abs().max() > 1e-2


# ── PaLM ──
@pytest.mark.parametrize("heads", [2, 3])
def test_palm_is_cohere(heads: int, tmp_path: Path) -> None:
    """Also where heads do not add up to the width, as in PaLM 540B (48 x 256 beside 18,432)."""
    model = made(preset("palm", vocab_size=37, width=32, layers=2, head_size=16, attention_heads=heads, max_positions=24))
    config = model.config
    assert (config.kv_heads, config.feed_forward_width, config.parallel, config.shared_norm) == (1, 128, True, True)
    assert not [name for name in model.state_dict() if name.endswith("bias") or name.startswith("head")]
    values = save(model, tmp_path)
    assert values["logit_scale"] == pytest.approx(1 / math.sqrt(32)) and ("head_dim" in values) == (heads == 3)
    close(theirs(tmp_path, values)(ids()).logits, model(ids()))


def test_palm_scores_are_scaled_by_the_root_of_the_width() -> None:
    model = made(preset("palm", **TINY))
    hidden = torch.ones(1, 1, 32)
    torch.testing.assert_close(model.logits(hidden)[0, 0], model.embedding.weight.sum(dim=1) / math.sqrt(32))


# ── classifiers ──
@pytest.mark.parametrize("family", ["gpt", "gpt2", "gpt3", "gpt-neox"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_classifiers_read_the_last_real_token(family: str, side: str, tmp_path: Path) -> None:
    model = made(with_head(preset(family, **TINY), "classify", 3))
    values = save(model, tmp_path)
    text, real = ids(), torch.ones(2, 11, dtype=torch.bool)
    real[1, slice(0, 4) if side == "left" else slice(7, None)] = False
    text = text.masked_fill(~real, 0)
    other = theirs(tmp_path, values)
    other.config.pad_token_id = 0
    positions = (real.long().cumsum(1) - 1).clamp(min=0)
    scores = other(text, attention_mask=real.long(), position_ids=positions).logits
    close(model.classify(model.hidden(text, Mask(padding=real)), real), scores)
    assert to_hf(model.config, model.state_dict())["score.weight"].shape == (3, 32)
