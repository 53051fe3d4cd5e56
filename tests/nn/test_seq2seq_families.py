"""What is special about Transformer (Marian), BART, T5, T5 1.1 and Switch; parity of numbers in general is `norma.bench.parity`'s."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from norma.base.errors import NormaError
from norma.nn import Mask, ModelConfig, Transformer, Watch, config_from_hf, config_to_hf, from_hf, to_hf
from norma.nn.families import FAMILIES
from norma.nn.positions import sinusoids

transformers = pytest.importorskip("transformers")

V = 37
MARIAN = {
    "vocab_size": V, "d_model": 15, "encoder_layers": 2, "decoder_layers": 1, "max_position_embeddings": 30, "init_std": 0.2,
    "encoder_attention_heads": 3, "decoder_attention_heads": 3, "encoder_ffn_dim": 22, "decoder_ffn_dim": 22,
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 1, "scale_embedding": True,
}
T5 = {"vocab_size": V, "d_model": 12, "d_kv": 5, "d_ff": 20, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 3}
SWITCH = {
    **T5, "num_layers": 4, "num_decoder_layers": 2, "num_experts": 3, "expert_capacity": 2,
    "num_sparse_encoder_layers": 2, "num_sparse_decoder_layers": 1,
}
CLASSES = {
    "marian": ("MarianConfig", "MarianMTModel", MARIAN),
    "bart": ("BartConfig", "BartForConditionalGeneration", {**MARIAN, "decoder_start_token_id": 2}),
    "t5": ("T5Config", "T5ForConditionalGeneration", T5),
    "switch": ("SwitchTransformersConfig", "SwitchTransformersForConditionalGeneration", SWITCH),
}


def peer(kind: str, seed: int = 0, model_class: str | None = None, **changes: Any) -> Any:
    """A transformers model whose every weight is random, norms and biases too."""
    config_class, usual, sizes = CLASSES[kind]
    torch.manual_seed(seed)
    config = getattr(transformers, config_class)(**{**sizes, **changes})
    model = getattr(transformers, model_class or usual)._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not name.endswith(("embed_positions.weight", "position_ids")) or kind == "bart":
                tensor.add_(torch.randn_like(tensor) * 0.2)
    return model


def read(folder: Path) -> Transformer:
    """The folder's model, ours."""
    config = config_from_hf(json.loads((folder / "config.json").read_text()), folder)
    model = Transformer(config)
    model.load_state_dict(from_hf(config, load_file(folder / "model.safetensors"), folder))
    return model.eval()


def ours_of(theirs: Any, folder: Path) -> Transformer:
    theirs.save_pretrained(folder)
    return read(folder)


def write(model: Transformer, folder: Path, **ids: Any) -> None:
    folder.mkdir()
    values = config_to_hf(model.config, **{"bos": 0, "eos": 2, "pad": 1, **ids})
    (folder / "config.json").write_text(json.dumps(values))
    state = {name: t.contiguous() for name, t in to_hf(model.config, model.state_dict()).items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def texts(rows: int = 3, source: int = 9, target: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(3, V, (rows, source), generator=generator), torch.randint(3, V, (rows, target), generator=generator)


def close(ours: Tensor, theirs: Tensor) -> None:
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


# ── published models ──
@pytest.mark.parametrize(
    ("family", "size", "millions", "within"),
    [
        ("t5", "small", 76.956160 - 0.032128 * 512, 1e-9),  # Wikipedia's table, which counts the tied head a second time
        ("t5", "base", 247.577856 - 0.032128 * 768, 1e-9),
        ("t5", "large", 770.567168 - 0.032128 * 1024, 1e-9),
        ("t5", "3b", 2800, 100),  # the paper's rounding, section 3.7
        ("t5", "11b", 11000, 500),
        ("bart", "base", 139.4, 0.05),  # of released files, to the digit that is usually given
        ("bart", "large", 406.3, 0.05),
        ("switch", "base-8", 619, 0.5),
        ("switch", "base-128", 7000, 500),  # the paper's rounding, table 9
        ("switch", "large-128", 26000, 500),
    ],
)
def test_published_sizes_have_the_published_number_of_weights(family: str, size: str, millions: float, within: float) -> None:
    """Numbers from elsewhere only; the sizes that are not here have none that is known this exactly."""
    entry = FAMILIES[family]
    with torch.device("meta"):
        model = Transformer(entry.preset(**entry.sizes[size]))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=within)


@pytest.mark.parametrize(
    ("size", "published"),
    [
        ("small", {"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6}),
        ("base", {"d_model": 768, "d_ff": 2048, "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12}),
    ],
)
def test_t5_v1_1_has_the_shapes_of_the_published_config(size: str, published: dict[str, int]) -> None:
    """``published``: config.json of google/t5-v1_1-small and -base."""
    config = transformers.T5Config(vocab_size=32128, d_kv=64, feed_forward_proj="gated-gelu", tie_word_embeddings=False, **published)
    entry = FAMILIES["t5-v1.1"]
    with torch.device("meta"):
        theirs = transformers.T5ForConditionalGeneration(config).state_dict()
        ours = Transformer(entry.preset(**entry.sizes[size]))
        written = to_hf(ours.config, ours.state_dict())
    unshared = {name: t.shape for name, t in theirs.items() if not name.endswith("embed_tokens.weight")}
    assert {name: t.shape for name, t in written.items()} == unshared


def test_the_paper_s_transformer_has_its_65_and_213_million_weights() -> None:
    """Table 3 of 1706.03762 rounds, and does not say how large the vocabulary is to the last word."""
    for size, millions in (("base", 65), ("big", 213)):
        with torch.device("meta"):
            model = Transformer(FAMILIES["transformer"].preset(**FAMILIES["transformer"].sizes[size]))
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


@pytest.mark.parametrize("name", ["transformer", "bart", "t5", "t5-v1.1", "switch"])
def test_config_survives_the_layout(name: str) -> None:
    extra = {"experts": 4} if name == "switch" else {}
    config = FAMILIES[name].preset(vocab_size=V, width=12, layers=2, head_size=4, encoder_layers=4, **extra)
    values = config_to_hf(config, bos=0, eos=2, pad=1)
    again = config_from_hf(values, "here")
    # Of training, the layout's reader takes nothing over.
    assert again == replace(config, dropout=0.0, initialisation="identity", pad_id=again.pad_id)
    assert values["decoder_start_token_id"] == (2 if name == "bart" else 1)


# ── labels ──
@pytest.mark.parametrize(("kind", "name"), [("t5", "T5ForSequenceClassification"), ("bart", "BartForSequenceClassification")])
def test_labels_are_scored_as_in_their_classes(kind: str, name: str, tmp_path: Path) -> None:
    """Both stacks read the text, the decoder one place behind; the score is of the state from which the end token is foretold."""
    from norma.train.reading import Reading, text_scores

    pad, end = (0, 1) if kind == "t5" else (1, 2)
    ids = {"pad_token_id": pad, "eos_token_id": end, "decoder_start_token_id": pad if kind == "t5" else end}
    theirs = peer(kind, model_class=name, num_labels=3, **ids)
    model = ours_of(theirs, tmp_path / "theirs")
    model.start_id = ids["decoder_start_token_id"]
    assert (model.config.head, model.config.labels) == ("classify", 3) and model.config.parameters() == theirs.num_parameters()
    rows = [[*row[: 9 - 3 * i].tolist(), end] for i, row in enumerate(texts()[0])]
    padded = torch.tensor([row + [pad] * (10 - len(row)) for row in rows])
    with torch.no_grad():
        expected = theirs(input_ids=padded, attention_mask=(torch.arange(10) < torch.tensor([[len(r)] for r in rows])).long()).logits
        assert float(expected.std()) > 0.05
        close(text_scores(model, [[Reading(row, [0] * len(row), row)] for row in rows], torch.float32), expected)
    write(model, tmp_path / "ours", bos=0, eos=end, pad=pad)
    again = getattr(transformers, name).from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        close(again(input_ids=padded[:1]).logits, expected[:1])


# ── Marian ──
@pytest.mark.parametrize("width", [14, 15])
def test_sinusoids_are_marian_s(width: int) -> None:
    """With an odd width there is a sine more than there are cosines."""
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

    table = MarianSinusoidalPositionalEmbedding(600, width).create_weight()
    assert torch.allclose(sinusoids(torch.arange(600)[None], width)[0], table, atol=1e-6)


def test_marian_s_position_table_may_be_in_the_file(tmp_path: Path) -> None:
    theirs = peer("marian")
    theirs.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    table = theirs.model.encoder.embed_positions.weight.detach().clone()
    save_file({**state, "model.encoder.embed_positions.weight": table}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    source, target = texts()
    close(read(tmp_path)(source, decoder_ids=target), theirs(input_ids=source, decoder_input_ids=target).logits)


def test_padding_row_and_fixed_bias_are_not_trained(tmp_path: Path) -> None:
    """Scores of an untrained token still move the padding row through the tied head, so the head is left out here."""
    theirs = peer("marian")
    model = ours_of(theirs, tmp_path)
    assert model.config.pad_id == 1
    assert "head_bias" not in dict(model.named_parameters())
    source = torch.tensor([[5, 6, 1, 1]])
    hidden = model.hidden(torch.tensor([[1, 7, 8]]), memory=model.encode(source, Mask(padding=source != 1)))
    hidden.square().sum().backward()
    gradient = model.embedding.weight.grad
    assert gradient is not None and not gradient[1].any() and gradient[7].any() and gradient[5].any()


# ── Marian and BART ──
@pytest.mark.parametrize("kind", ["marian", "bart"])
def test_padding_on_the_left_of_the_source_changes_nothing(kind: str, tmp_path: Path) -> None:
    """Positions follow the mask. (transformers counts padding on the left as positions.)"""
    theirs = peer(kind)
    model = ours_of(theirs, tmp_path)
    source, target = texts(rows=2)
    expected = theirs(input_ids=source, decoder_input_ids=target).logits
    padded = torch.cat([torch.ones(2, 4, dtype=torch.int64), source], dim=1)
    mask = Mask(padding=torch.arange(13).expand(2, -1) >= 4)
    close(model(padded, mask, decoder_ids=target), expected)


def test_bart_base_model_has_no_prefix(tmp_path: Path) -> None:
    """facebook/bart-base is written as BartModel: hidden states, without prefix and bias."""
    theirs = peer("bart", model_class="BartModel")
    model = ours_of(theirs, tmp_path)
    assert model.config.head == "none"
    source, target = texts()
    close(model.hidden(target, memory=model.encode(source)), theirs(input_ids=source, decoder_input_ids=target).last_hidden_state)


@pytest.mark.parametrize("kind", ["marian", "bart", "t5", "switch"])
def test_shared_embedding_under_another_name(kind: str, tmp_path: Path) -> None:
    theirs = peer(kind)
    theirs.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    begin = "model." if kind in ("marian", "bart") else ""
    shared = state.pop(f"{begin}shared.weight")
    for name in (f"{begin}encoder.embed_tokens.weight", f"{begin}decoder.embed_tokens.weight", "lm_head.weight"):
        save_file({**state, name: shared}, tmp_path / "model.safetensors", metadata={"format": "pt"})
        assert torch.equal(read(tmp_path).embedding.weight, shared)
    both = {**state, f"{begin}shared.weight": shared, f"{begin}decoder.embed_tokens.weight": shared + 1}
    save_file(both, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NormaError, match=r"decoder\.embed_tokens\.weight differs from .*shared\.weight"):
        read(tmp_path)


# ── T5 ──
@pytest.mark.parametrize(
    ("changes", "family", "tied"),
    [
        ({}, "t5", True),
        ({"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}, "t5-v1.1", False),
        ({"feed_forward_proj": "gated-silu", "tie_word_embeddings": False}, "t5-v1.1", False),
        ({"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu", "tie_word_embeddings": False}, "t5-v1.1", False),
        ({"feed_forward_proj": "gelu", "relative_attention_num_buckets": 6, "relative_attention_max_distance": 11}, "t5", True),
        ({"tie_word_embeddings": False}, "t5", False),
    ],
)
def test_t5_variants_both_ways(changes: dict[str, Any], family: str, tied: bool, tmp_path: Path) -> None:
    """transformers 5 writes tie_word_embeddings = true for every T5, keeps the scores' matrix when it differs, and drops it when not."""
    theirs = peer("t5", **changes)
    source, target = texts()
    model = ours_of(theirs, tmp_path / "tied")
    assert (model.config.family, model.config.tie_embeddings) == (family, tied)
    close(model(source, decoder_ids=target), theirs(input_ids=source, decoder_input_ids=target).logits)
    if not tied:
        assert model.head is not None
        assert model.head.weight.data_ptr() != model.embedding.weight.data_ptr()
        with torch.no_grad():
            model.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    write(model, tmp_path / "ours", pad=0)
    values = json.loads((tmp_path / "ours/config.json").read_text())
    assert values["tie_word_embeddings"] is tied
    again = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "ours", attn_implementation="eager").eval()
    close(again(input_ids=source, decoder_input_ids=target).logits, model(source, decoder_ids=target))
    back = ours_of(again, tmp_path / "back")
    assert back.config == model.config
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in back.state_dict().items())
    assert set(back.state_dict()) == set(model.state_dict())


def test_t5_files_of_the_first_years(tmp_path: Path) -> None:
    """t5-large's class has an older name, no key says how far relative positions reach, and its file has a table that nothing reads."""
    theirs = peer("t5", num_decoder_layers=2)
    theirs.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    recent = ("num_decoder_layers", "relative_attention_max_distance", "feed_forward_proj", "dense_act_fn", "is_gated_act")
    old = {k: v for k, v in values.items() if k not in (*recent, "scale_decoder_outputs", "tie_word_embeddings", "is_decoder")}
    old |= {"architectures": ["T5WithLMHeadModel"], "n_positions": 512, "output_past": True}
    (tmp_path / "config.json").write_text(json.dumps(old))
    state = load_file(tmp_path / "model.safetensors")
    state["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.zeros(32, 3)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model, (source, target) = read(tmp_path), texts()
    assert model.config.relative_distance == 128 and model.config.layers == 2
    close(model(source, decoder_ids=target), theirs(input_ids=source, decoder_input_ids=target).logits)


@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_attention_of_both_stacks_and_between_them(kind: str, tmp_path: Path) -> None:
    theirs = peer(kind)
    model, (source, target), watch = ours_of(theirs, tmp_path), texts(), Watch()
    real = torch.arange(9).expand(3, -1) < torch.tensor([[9], [5], [7]])
    model(source, Mask(padding=real), decoder_ids=target, watch=watch)
    out = theirs(input_ids=source, attention_mask=real.long(), decoder_input_ids=target, output_attentions=True)
    expected = {"encoder": out.encoder_attentions, "decoder": out.decoder_attentions, "cross": out.cross_attentions}
    assert set(watch.weights) == {(stack, i) for stack, layers in expected.items() for i in range(len(layers))}
    for (stack, i), weights in watch.weights.items():
        rows = real[:, None, :, None] if stack == "encoder" else torch.ones(1, 1, 1, 1)  # what a padded query sees is nobody's business
        assert torch.allclose(weights * rows, expected[stack][i] * rows, atol=1e-6)


# ── Switch ──
@pytest.mark.parametrize("layers", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("sparse", [0, 1, 2, 3, 6])
def test_sparse_layers_are_where_transformers_puts_them(layers: int, sparse: int) -> None:
    """Also where its number of sparse layers does not divide the layers, and for none, where it still makes one."""
    counts = {f"num_sparse_{stack}_layers": sparse for stack in ("encoder", "decoder")}
    config = transformers.SwitchTransformersConfig(**{**SWITCH, "num_layers": layers, "num_decoder_layers": layers, **counts})
    values = {**config.to_dict(), "architectures": None}
    if config.encoder_sparse_step == 0:
        with pytest.raises(NormaError, match="encoder_sparse_step = 0"):
            config_from_hf(values, "here")
        return
    with torch.device("meta"):
        theirs = transformers.SwitchTransformersForConditionalGeneration(config)
    found = [config_from_hf(v, "here") for v in (values, {k: x for k, x in values.items() if "sparse_step" not in k})]
    assert found[0] == found[1]
    for stack in (theirs.encoder, theirs.decoder):
        assert [block.is_sparse for block in stack.block] == [found[0].sparse(i) for i in range(layers)]
    again = transformers.SwitchTransformersConfig(**config_to_hf(found[0], bos=None, eos=1, pad=0))
    assert (again.encoder_sparse_step, again.decoder_sparse_step) == (config.encoder_sparse_step, config.decoder_sparse_step)


@pytest.mark.parametrize("capacity", [1, 2, 100])
def test_tokens_beyond_an_expert_s_capacity_pass_by(capacity: int, tmp_path: Path) -> None:
    theirs = peer("switch", expert_capacity=capacity)
    model, (source, target) = ours_of(theirs, tmp_path), texts(source=12)
    real = torch.arange(12).expand(3, -1) < torch.tensor([[12], [6], [9]])
    expected = theirs(input_ids=source, attention_mask=real.long(), decoder_input_ids=target).logits
    close(model(source, Mask(padding=real), decoder_ids=target), expected)


def test_capacity_does_drop_tokens_in_these_tests() -> None:
    source, target = texts(source=12)
    small, large = (peer("switch", expert_capacity=c)(input_ids=source, decoder_input_ids=target).logits for c in (1, 100))
    assert (small - large).abs().max() > 1e-3


def test_a_switch_that_drops_nothing_is_written_with_a_capacity_that_is_never_reached(tmp_path: Path) -> None:
    config = FAMILIES["switch"].preset(vocab_size=V, width=12, layers=4, head_size=4, experts=3)
    model = Transformer(config).initialise(torch.Generator().manual_seed(0)).eval()
    write(model, tmp_path / "ours")
    theirs = transformers.SwitchTransformersForConditionalGeneration.from_pretrained(tmp_path / "ours").eval()
    source, target = texts(source=20)
    close(model(source, decoder_ids=target), theirs(input_ids=source, decoder_input_ids=target).logits)
    assert read(tmp_path / "ours").config.experts == config.experts


# ── what cannot be read, what cannot be written ──
@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        ("marian", {"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings = False"),
        ("marian", {"decoder_vocab_size": 99}, "decoder_vocab_size = 99"),
        ("marian", {"tie_word_embeddings": False}, "tie_word_embeddings = False"),
        ("marian", {"decoder_attention_heads": 5}, "decoder_attention_heads = 5"),
        ("marian", {"encoder_ffn_dim": 23}, "encoder_ffn_dim = 23"),
        ("marian", {"activation_function": "mish"}, "'mish'"),
        ("marian", {"normalize_before": True}, "normalize_before = True"),
        ("marian", {"architectures": ["MarianModel"]}, "'MarianModel'"),
        ("bart", {"decoder_ffn_dim": 23}, "decoder_ffn_dim = 23"),
        ("bart", {"normalize_embedding": False}, "normalize_embedding = False"),
        ("bart", {"architectures": ["BartForQuestionAnswering"]}, "'BartForQuestionAnswering'"),
        ("t5", {"feed_forward_proj": "gated-mish", "dense_act_fn": "mish"}, "'mish'"),
        ("t5", {"tie_word_embeddings": False, "scale_decoder_outputs": True}, "scale_decoder_outputs = True"),
        ("t5", {"architectures": ["T5EncoderModel"]}, "'T5EncoderModel'"),
        ("switch", {"router_bias": True}, "router_bias = True"),
        ("switch", {"router_dtype": "bfloat16"}, "router_dtype = 'bfloat16'"),
        ("switch", {"decoder_sparse_step": 3}, "every 2. layer of the encoder but every 3. of the decoder"),
        ("switch", {"num_selected_experts": 2}, "num_selected_experts = 2"),
        ("switch", {"tie_word_embeddings": False}, "tie_word_embeddings = False"),
        ("switch", {"is_gated_act": True}, "is_gated_act = True"),
    ],
)
def test_settings_that_change_the_numbers_are_refused_by_name(kind: str, changes: dict[str, Any], named: str) -> None:
    config_class, model_class, sizes = CLASSES[kind]
    values = {**getattr(transformers, config_class)(**sizes).to_dict(), "architectures": [model_class]}
    config_from_hf(values, "config.json")
    with pytest.raises(NormaError) as caught:
        config_from_hf({**values, **changes}, "config.json")
    assert named in str(caught.value)


def other(name: str, **changes: Any) -> Callable[[], ModelConfig]:
    extra = {"experts": 4} if name == "switch" else {}
    return lambda: replace(FAMILIES[name].preset(vocab_size=V, width=12, layers=2, head_size=4, **extra), **changes)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (other("transformer", kv_heads=1), "kv_heads = 1"),
        (other("transformer", head_size=6), "3 x 6"),
        (other("transformer", norm_placement="pre"), "norm_placement = 'pre'"),
        (other("transformer", embedding_scale=2.0), "embedding_scale = 2.0"),
        (other("transformer", encoder_layers=0), "encoder_layers = 0"),
        (other("bart", tie_embeddings=False), "tie_embeddings = False"),
        (other("bart", norm_eps=1e-6), "norm_eps = 1e-06"),
        (other("bart", position_offset=0), "position_offset = 0"),
        (other("t5", attention_scale=None), "attention_scale = None"),
        (other("t5", tie_embeddings=False), "logit_scale ="),
        (other("t5-v1.1", tie_embeddings=True), "logit_scale ="),
        (other("t5", kv_heads=1), "kv_heads = 1"),
        (other("t5", gated=True), "gated = True"),
        (other("switch", experts=None), "without experts"),
        (other("switch", tie_embeddings=False), "tie_embeddings = False"),
    ],
)
def test_configs_that_a_layout_cannot_hold_are_refused_by_name(config: Callable[[], ModelConfig], named: str) -> None:
    with pytest.raises(NormaError) as caught:
        config_to_hf(config(), bos=0, eos=2, pad=1)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"per_token": 2}, "per_token = 2"),
        ({"width": 9}, "width = 9"),
        ({"first": 0}, "first = 0"),
        ({"normalise": True}, "normalise = True"),
        ({"balance_bias": True}, "balance_bias = True"),
    ],
)
def test_experts_that_switch_cannot_hold_are_refused_by_name(change: dict[str, Any], named: str) -> None:
    config = other("switch")()
    assert config.experts is not None
    with pytest.raises(NormaError) as caught:
        config_to_hf(replace(config, experts=replace(config.experts, **change)), bos=0, eos=2, pad=1)
    assert f"experts.{named}" in str(caught.value)
