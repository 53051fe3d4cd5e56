"""Model folders: parity with transformers in both directions, byte for byte again, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from norma.base.errors import NormaError
from norma.lm import LanguageModel
from norma.nn import ModelConfig, Transformer, preset, to_hf
from norma.objectives.likelihood import cross_entropy_sum
from norma.text.tokenizer import Tokenizer

Make = Callable[..., LanguageModel]

# Odd shapes: heads * head_size is not the width, groups of three, rope bases and epsilons off their defaults.
SHAPES: list[dict[str, Any]] = [
    {"hidden_size": 18, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10, "intermediate_size": 37, "rope_theta": 5000.0},
    {"hidden_size": 24, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 6, "intermediate_size": 17, "rms_norm_eps": 1e-3},
    {"hidden_size": 18, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 6, "intermediate_size": 29, "rope_theta": 1e6},
]
FAMILIES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
}


def peer(family: str, shape: dict[str, Any], vocabulary: int, tied: bool) -> Any:
    """A model of transformers with random weights, norms included."""
    config_class, model_class = FAMILIES[family]
    torch.manual_seed(7)
    config = config_class(
        vocab_size=vocabulary,
        num_hidden_layers=3,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        attn_implementation="eager",
        **shape,
    )
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.2)
    return model


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).detach().abs().max() / theirs.detach().abs().max())


def ids_of(vocabulary: int) -> torch.Tensor:
    return torch.randint(0, vocabulary, (2, 13), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("family", list(FAMILIES))
def test_parity_with_transformers(family: str, shape: dict[str, Any], tied: bool, tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs = peer(family, shape, len(tiny_tokenizer) + 3, tied)
    theirs.save_pretrained(tmp_path)
    tiny_tokenizer.save(tmp_path)
    model = LanguageModel.load(tmp_path)
    ours = model.transformer
    assert ours.config.parameters() == theirs.num_parameters()
    ids = ids_of(ours.config.vocab_size)

    logits = theirs(ids).logits
    assert relative(ours(ids), logits) < 1e-5
    loss = theirs(ids, labels=ids).loss
    own = cross_entropy_sum(ours.hidden(ids)[:, :-1].flatten(0, 1), ours.head_weight(), ids[:, 1:].flatten()) / ids[:, 1:].numel()
    assert own.item() == pytest.approx(loss.item(), rel=1e-5)

    loss.backward()
    own.backward()
    found = to_hf(ours.config, {name: p.grad for name, p in ours.named_parameters() if p.grad is not None})
    wanted = {name: p.grad for name, p in theirs.named_parameters()}
    assert set(found) == set(wanted)
    for name, gradient in wanted.items():
        assert gradient is not None and gradient.abs().max() > 0
        assert relative(found[name], gradient) < 1e-4, name


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_what_is_saved_transformers_opens_and_saves_back_bit_equal(
    family: str, tied: bool, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    qk_norm: Any = "head" if family == "qwen3" else "none"
    config = ModelConfig(family, 391, 20, 2, 4, 2, 6, 33, 48, rope_theta=3000.0, norm_eps=1e-4, qk_norm=qk_norm, tie_embeddings=tied)
    transformer = Transformer(config)
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.normal_(0.5, 0.2, generator=torch.Generator().manual_seed(parameter.numel()))
    ours = LanguageModel(transformer, tiny_tokenizer, lineage={"from": "here"})
    ours.save(tmp_path / "ours")

    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and type(theirs) is FAMILIES[family][1]
    ids = ids_of(391)
    with torch.no_grad():
        assert relative(ours.logits(ids), theirs.eval()(ids).logits) < 1e-5
    assert theirs.generation_config.eos_token_id == tiny_tokenizer.eos_id

    theirs.save_pretrained(tmp_path / "theirs")
    transformers.AutoTokenizer.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    back = LanguageModel.load(tmp_path / "theirs")
    assert back.config == dataclasses.replace(config, pad_id=tiny_tokenizer.pad_id, classifier_bias=False)
    back.save(tmp_path / "again")
    first, last = load_file(tmp_path / "ours/model.safetensors"), load_file(tmp_path / "again/model.safetensors")
    assert set(first) == set(last) and all(torch.equal(first[n], last[n]) for n in first)
    assert LanguageModel.load(tmp_path / "ours").lineage == {"from": "here"}


def test_shards_are_read_and_a_stored_tied_head_is_no_surplus(make_model: Make, tmp_path: Path) -> None:
    model = make_model()
    model.save(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    names = sorted(state)
    (tmp_path / "model.safetensors").unlink()
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, half in halves.items():
        save_file(
            {n: state[n] for n in half} | ({"lm_head.weight": state["model.embed_tokens.weight"].clone()} if file[0] == "a" else {}),
            tmp_path / file,
        )
    index = {"weight_map": {n: f for f, half in halves.items() for n in half}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    read = LanguageModel.load(tmp_path).transformer.state_dict()
    assert all(torch.equal(read[n], t) for n, t in model.transformer.state_dict().items())

    index["weight_map"][names[0]] = "../a.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(NormaError, match="outside the folder"):
        LanguageModel.load(tmp_path)


def test_missing_surplus_and_misshapen_tensors_name_themselves(make_model: Make, tmp_path: Path) -> None:
    make_model().save(tmp_path)
    whole = load_file(tmp_path / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"

    def load_with(state: dict[str, torch.Tensor]) -> None:
        save_file(state, tmp_path / "model.safetensors")
        LanguageModel.load(tmp_path)

    with pytest.raises(NormaError, match=f"missing.*{name}"):
        load_with({n: t for n, t in whole.items() if n != name})
    with pytest.raises(NormaError, match=r"surplus.*model\.layers\.9\.secret"):
        load_with(whole | {"model.layers.9.secret": torch.zeros(1)})
    with pytest.raises(NormaError, match=r"up_proj.weight has shape \(3, 4\)"):
        load_with(whole | {name: torch.zeros(3, 4)})
    (tmp_path / "model.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(NormaError, match="not readable as safetensors"):
        LanguageModel.load(tmp_path)


class Bomb:
    """Unpickling it is the test's failure."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was opened",))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickles_are_never_opened(name: str, make_model: Make, tmp_path: Path) -> None:
    make_model().save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_bytes(pickle.dumps({"model.embed_tokens.weight": Bomb()}))
    with pytest.raises(NormaError, match=r"no model\.safetensors") as caught:
        LanguageModel.load(tmp_path)
    assert name in str(caught.value.mend) and "pickle" in str(caught.value.mend)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "gpt9"}, "gpt9"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "yarn"),
        ({"hidden_act": "quick_gelu"}, "quick_gelu"),
        ({"attention_bias": True}, "missing tensors"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused_by_name(change: dict[str, Any], said: str, make_model: Make, tmp_path: Path) -> None:
    make_model().save(tmp_path)
    config = {k: v for k, v in (json.loads((tmp_path / "config.json").read_text()) | change).items() if v is not None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(NormaError, match=said):
        LanguageModel.load(tmp_path)


def test_a_folder_without_a_model_and_a_tokenizer_that_is_too_large(make_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(NormaError, match=r"config\.json is missing"):
        LanguageModel.load(tmp_path)
    with pytest.raises(NormaError, match="tokens, the model only"):
        LanguageModel(Transformer(ModelConfig("llama", 9, 8, 1, 2, 1, 4, 8, 16)), tiny_tokenizer)


def test_logprob_is_the_sum_of_the_softmax_at_each_token(make_model: Make) -> None:
    model, tokenizer = make_model(4), make_model(4).tokenizer
    before, after = [tokenizer.bos_id, *tokenizer.encode("What does")], tokenizer.encode(" `json.dumps` do?")
    log_p = model.logits(torch.tensor([before + after]))[0].double().log_softmax(-1)
    wanted = sum(float(log_p[len(before) + i - 1, t]) for i, t in enumerate(after))
    assert model.logprob("What does", " `json.dumps` do?") == pytest.approx(wanted, rel=1e-5)
    chat = [{"role": "user", "content": "hi"}]
    prompt = tokenizer.encode("<|bos|><|user|>hi<|end|><|assistant|>", special=True)
    log_p = model.logits(torch.tensor([prompt + after]))[0].double().log_softmax(-1)
    assert model.logprob(chat, " `json.dumps` do?") == pytest.approx(
        sum(float(log_p[len(prompt) + i - 1, t]) for i, t in enumerate(after)), rel=1e-5
    )


def test_a_copy_has_weights_of_its_own(make_model: Make) -> None:
    model = make_model()
    twin = model.copy()
    with torch.no_grad():
        twin.transformer.embedding.weight.add_(1.0)
    assert not torch.equal(model.transformer.embedding.weight, twin.transformer.embedding.weight)
    assert model.tokenizer is twin.tokenizer and twin.engine is model.engine


# ── what a layout has no place for ──
@pytest.mark.parametrize("family", ["gpt", "gpt3", "bert", "switch"])
def test_a_saved_model_goes_on_as_it_was(family: str, tmp_path: Path) -> None:
    """Config and weights: GPT-3's scale comes out of the queries again, dropout and how weights began are not forgotten."""
    more = {"experts": 3} if family == "switch" else {}
    config = preset(family, vocab_size=37, width=32, layers=2, head_size=16, max_positions=24, **more)
    model = Transformer(config).initialise(torch.Generator().manual_seed(0))
    LanguageModel(model, None).save(tmp_path)
    again = LanguageModel.load(tmp_path)
    assert again.config == config
    assert all(torch.equal(again.transformer.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    again.save(tmp_path / "again")
    for name in ("model.safetensors", "config.json", "norma.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_special_ids_and_labels_are_kept(tmp_path: Path) -> None:
    config = transformers.BartConfig(
        vocab_size=37, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=20, decoder_ffn_dim=20, max_position_embeddings=24, decoder_start_token_id=7, forced_eos_token_id=2,
    )  # fmt: skip
    transformers.BartForConditionalGeneration(config).save_pretrained(tmp_path / "theirs")
    LanguageModel.load(tmp_path / "theirs").save(tmp_path / "ours")
    written = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert (written["decoder_start_token_id"], written["forced_eos_token_id"], written["pad_token_id"]) == (7, 2, 1)
    assert json.loads((tmp_path / "ours" / "generation_config.json").read_text())["decoder_start_token_id"] == 7

    small = {"vocab_size": 37, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20}
    names = {0: "keeps", 1: "breaks", 2: "unsure"}
    theirs = transformers.BertForSequenceClassification(transformers.BertConfig(**small, id2label=names))
    theirs.save_pretrained(tmp_path / "labelled")
    LanguageModel.load(tmp_path / "labelled").save(tmp_path / "again")
    assert transformers.AutoConfig.from_pretrained(tmp_path / "again").id2label == names


def test_a_surplus_entry_in_norma_json_is_refused(tmp_path: Path) -> None:
    config = preset("gpt2", vocab_size=37, width=32, layers=1, head_size=16, max_positions=24)
    LanguageModel(Transformer(config), None).save(tmp_path)
    (tmp_path / "norma.json").write_text('{"model": {"depth": 3}}')
    with pytest.raises(NormaError, match="depth"):
        LanguageModel.load(tmp_path)
