"""Adapters in PEFT's format, beside peft itself on the same weights, in both directions."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from norma.base.errors import NormaError
from norma.lm import LanguageModel
from norma.lm.adapter import load_adapter, save_adapter
from norma.nn.lora import LoraOptions, add_lora, lora_layers, merge, remove_lora

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*fan_in_fan_out", "ignore:.*is_gradient_checkpointing")

VOCABULARY = 41


def gpt2() -> Any:
    config = transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=12, n_layer=2, n_head=3, n_positions=24, bos_token_id=0, eos_token_id=0)
    return transformers.GPT2LMHeadModel(config)


def llama() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=12, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=4,
        intermediate_size=20, max_position_embeddings=24, tie_word_embeddings=False,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def neox() -> Any:
    config = transformers.GPTNeoXConfig(
        vocab_size=VOCABULARY, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
        max_position_embeddings=24, rotary_pct=0.5, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return transformers.GPTNeoXForCausalLM(config)


def modernbert() -> Any:
    config = transformers.ModernBertConfig(
        vocab_size=VOCABULARY, hidden_size=12, num_hidden_layers=3, num_attention_heads=3, intermediate_size=20, max_position_embeddings=24,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2, local_attention=8,
    )  # fmt: skip
    return transformers.ModernBertForMaskedLM(config)


def bert() -> Any:
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20, max_position_embeddings=24
    )
    return transformers.BertForMaskedLM(config)


def t5() -> Any:
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=12, d_kv=4, num_layers=2, num_decoder_layers=1, num_heads=3, d_ff=20,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config)


# their model, what peft may target, what to target under our names
PEERS: dict[str, tuple[Any, list[str], tuple[str, ...] | str]] = {
    "gpt2": (gpt2, ["c_attn", "c_proj"], "all"),
    "llama": (llama, ["q_proj", "down_proj", "lm_head"], ("query", "value", "head")),
    "neox": (neox, ["query_key_value", "dense_h_to_4h"], "all"),
    "modernbert": (modernbert, ["Wqkv", "Wi"], "all"),
    "bert": (bert, ["query", "attention.output.dense"], "all"),
    "t5": (t5, ["q", "v", "wo"], ("query", "cross.value", "up")),
}


def opened(family: str, folder: Path) -> tuple[Any, LanguageModel]:
    """A model of transformers with random weights, and the same in Norma."""
    torch.manual_seed(3)
    theirs = PEERS[family][0]().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.2)
    theirs.save_pretrained(folder)
    return theirs, LanguageModel.load(folder)


def fill(model: LanguageModel) -> None:
    """Updates that are not zero."""
    with torch.no_grad():
        for number, layer in enumerate(lora_layers(model.transformer).values()):
            layer.B.normal_(0.0, 0.4, generator=torch.Generator().manual_seed(number))


def adapt(model: LanguageModel, options: LoraOptions) -> LanguageModel:
    add_lora(model.transformer, options, torch.Generator().manual_seed(1))
    fill(model)
    return model


def both(theirs: Any, ours: LanguageModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Token scores of the two."""
    ids = torch.randint(3, VOCABULARY, (2, 11), generator=torch.Generator().manual_seed(2))
    targets = ids[:, :5].flip(0)
    crossed = ours.config.kind == "encoder-decoder"
    with torch.no_grad():
        wanted = theirs(input_ids=ids, decoder_input_ids=targets).logits if crossed else theirs(input_ids=ids).logits
    return wanted, ours.logits(ids, decoder_ids=targets if crossed else None)


def assert_same(theirs: Any, ours: LanguageModel) -> torch.Tensor:
    wanted, found = both(theirs, ours)
    assert (wanted - found).abs().max() < 1e-5 * wanted.abs().max()
    return wanted


@pytest.mark.parametrize("stabilised", [False, True])
@pytest.mark.parametrize("family", list(PEERS))
def test_what_norma_writes_peft_opens(family: str, stabilised: bool, tmp_path: Path) -> None:
    theirs, ours = opened(family, tmp_path / "base")
    before = assert_same(theirs, ours)
    adapt(ours, LoraOptions(rank=3, alpha=5.0, targets=PEERS[family][2], rank_stabilised=stabilised))
    save_adapter(ours, tmp_path / "adapter")
    with warnings.catch_warnings(record=True) as seen:  # peft warns, and goes on, when an adapter lacks what its config promises
        wrapped = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    assert not [w for w in seen if "missing adapter keys" in str(w.message) or "pattern" in str(w.message)]
    assert (assert_same(wrapped, ours) - before).abs().max() > 0.01

    read = LanguageModel.load(tmp_path / "base")
    load_adapter(read, tmp_path / "adapter")
    assert_same(wrapped, read)


@pytest.mark.parametrize("stabilised", [False, True])
@pytest.mark.parametrize("family", list(PEERS))
def test_what_peft_writes_norma_opens_and_writes_back_bit_equal(family: str, stabilised: bool, tmp_path: Path) -> None:
    theirs, ours = opened(family, tmp_path / "base")
    before, _ = both(theirs, ours)
    targets = PEERS[family][1]
    config = peft.LoraConfig(r=2, lora_alpha=7, target_modules=targets, init_lora_weights=False, lora_dropout=0.1, use_rslora=stabilised)
    wrapped = peft.get_peft_model(theirs, config).eval()
    wrapped.save_pretrained(tmp_path / "adapter")
    load_adapter(ours, tmp_path / "adapter")
    assert (assert_same(wrapped, ours) - before).abs().max() > 0.01
    layers = lora_layers(ours.transformer)
    assert {layer.dropout for layer in layers.values()} == {0.1}
    learning = {name for name, p in ours.transformer.named_parameters() if p.requires_grad}
    assert learning == {f"{name}.{half}" for name in layers for half in "AB"}

    save_adapter(ours, tmp_path / "again")
    first, last = (load_file(tmp_path / f / "adapter_model.safetensors") for f in ("adapter", "again"))
    first.pop("base_model.model.lm_head.base_layer.weight", None)  # PEFT saves an adapted head's own weight along
    assert set(first) == set(last) and all(torch.equal(first[name], last[name]) for name in first)
    assert json.loads((tmp_path / "again/adapter_config.json").read_text())["r"] == 2

    merge(ours.transformer)
    assert_same(wrapped.merge_and_unload(), ours)
    remove_lora(ours.transformer)
    assert torch.equal(both(theirs, ours)[1], both(theirs, LanguageModel.load(tmp_path / "base"))[1])


def test_patterns_of_rank_and_alpha_and_separate_layers_in_one_module(tmp_path: Path) -> None:
    theirs, ours = opened("gpt2", tmp_path / "base")
    patterns = {"rank_pattern": {r"h\.1\.attn\.c_attn": 5, "mlp.c_proj": 3}, "alpha_pattern": {"^transformer.h.0.attn.c_attn": 3}}
    wrapped = peft.get_peft_model(theirs, peft.LoraConfig(r=2, target_modules=["c_attn", "c_proj"], init_lora_weights=False, **patterns))
    wrapped.eval().save_pretrained(tmp_path / "adapter")
    load_adapter(ours, tmp_path / "adapter")
    assert_same(wrapped, ours)
    query = lora_layers(ours.transformer)["decoder.blocks.0.attention.query"]
    with torch.no_grad():
        query.A.mul_(1.5)  # as after a step of training: query, key and value no longer share their A
    save_adapter(ours, tmp_path / "again")
    tensors = load_file(tmp_path / "again/adapter_model.safetensors")
    ranks = {name.split("transformer.")[1].split(".lora")[0]: t.shape[0] for name, t in tensors.items() if ".lora_A." in name}
    assert ranks["h.0.attn.c_attn"] == 6 and ranks["h.1.attn.c_attn"] == 5 and ranks["h.0.mlp.c_proj"] == 3
    assert_same(peft.PeftModel.from_pretrained(opened("gpt2", tmp_path / "base")[0], tmp_path / "again").eval(), ours)


def test_a_fused_module_of_which_one_layer_is_adapted(tmp_path: Path) -> None:
    theirs, ours = opened("neox", tmp_path / "base")
    adapt(ours, LoraOptions(rank=2, targets=("value",)))
    save_adapter(ours, tmp_path / "adapter", base="somewhere/base")
    assert_same(peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval(), ours)
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["target_modules"] == ["query_key_value"] and config["base_model_name_or_path"] == "somewhere/base"
    assert config["task_type"] == "CAUSAL_LM" and config["r"] == 2 and config["lora_alpha"] == 16


def test_names_that_are_no_end_of_their_own_are_written_whole(tmp_path: Path) -> None:
    _, ours = opened("bert", tmp_path / "base")
    adapt(ours, LoraOptions(targets=("blocks.0.feed_forward.up",)))
    save_adapter(ours, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["target_modules"] == ["bert.encoder.layer.0.intermediate.dense"] and config["task_type"] is None


def test_a_saved_model_has_its_lora_folded_in(tmp_path: Path) -> None:
    _, ours = opened("gpt2", tmp_path / "base")
    adapt(ours, LoraOptions(targets="all"))
    ours.save(tmp_path / "folded")
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "folded", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert_same(theirs.eval(), ours)


def test_a_classifier(tmp_path: Path) -> None:
    """PEFT would expect a trained head inside an adapter of this task: what is written names none, and it opens."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=12, num_hidden_layers=1, num_attention_heads=3, intermediate_size=20, num_labels=3
    )
    theirs = transformers.BertForSequenceClassification(config).eval()
    theirs.save_pretrained(tmp_path / "base")
    ours = adapt(LanguageModel.load(tmp_path / "base"), LoraOptions(targets="all"))
    save_adapter(ours, tmp_path / "adapter")
    ids = torch.randint(3, VOCABULARY, (2, 9))
    plain = theirs(ids).logits
    wrapped = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    found = ours.transformer.classify(ours.transformer.hidden(ids))
    assert (wrapped(ids).logits - found).abs().max() < 1e-5 and (plain - found).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"use_dora": True}, "use_dora = True is not supported"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"a_setting_of_tomorrow": 3}, "a_setting_of_tomorrow = 3"),
        ({"peft_type": "IA3"}, "not a LoRA adapter"),
        ({"r": 9}, "has rank 4, the config says 9"),
        ({"alpha_pattern": {"(?=x)": 2}}, "not a pattern that Norma can read"),
    ],
)
def test_settings_that_cannot_be_honoured(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    _, ours = opened("llama", tmp_path / "base")
    save_adapter(adapt(ours, LoraOptions(rank=4)), tmp_path / "adapter")
    path = tmp_path / "adapter/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    plain = LanguageModel.load(tmp_path / "base")
    with pytest.raises(NormaError, match=said.replace("(", r"\(")):
        load_adapter(plain, tmp_path / "adapter")
    assert not lora_layers(plain.transformer) and all(p.requires_grad for p in plain.transformer.parameters())


def test_tensors_that_do_not_fit_name_themselves(tmp_path: Path) -> None:
    _, ours = opened("llama", tmp_path / "base")
    save_adapter(adapt(ours, LoraOptions(rank=4)), tmp_path / "adapter")
    weights = tmp_path / "adapter/adapter_model.safetensors"
    whole = load_file(weights)
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"

    def load_with(tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, weights)
        load_adapter(LanguageModel.load(tmp_path / "base"), tmp_path / "adapter")

    with pytest.raises(NormaError, match=r"lora_A of model\.layers\.1\.self_attn\.q_proj is missing"):
        load_with({n: t for n, t in whole.items() if n != name})
    with pytest.raises(NormaError, match=r"layers\.1\.self_attn\.q_proj: A \(4, 5\)"):
        load_with(whole | {name: torch.zeros(4, 5)})
    with pytest.raises(NormaError, match=r"model\.layers\.7\.self_attn\.q_proj is no linear layer of this llama"):
        load_with({n.replace("layers.1", "layers.7"): t for n, t in whole.items()})
    with pytest.raises(NormaError, match=r"model\.norm is no linear layer"):
        load_with({f"base_model.model.model.norm.lora_{half}.weight": torch.zeros(2, 2) for half in "AB"})
    with pytest.raises(NormaError, match=r"embed_tokens\.lora_embedding_A is not the A or B"):
        load_with(whole | {"base_model.model.model.embed_tokens.lora_embedding_A": torch.zeros(4, 4)})
    with pytest.raises(NormaError, match=r"lm_head\.base_layer\.weight differs from the model's own"):
        load_with(whole | {"base_model.model.lm_head.base_layer.weight": torch.zeros(VOCABULARY, 12)})
    with pytest.raises(NormaError, match="the adapter is empty"):
        load_with({})


def test_folders_that_are_no_adapter_and_models_without_or_with_lora(tmp_path: Path) -> None:
    _, ours = opened("llama", tmp_path / "base")
    with pytest.raises(NormaError, match="carries no LoRA"):
        save_adapter(ours, tmp_path / "adapter")
    with pytest.raises(NormaError, match=r"adapter_config\.json is missing"):
        load_adapter(ours, tmp_path / "base")
    save_adapter(adapt(ours, LoraOptions()), tmp_path / "adapter")
    with pytest.raises(NormaError, match="carries LoRA already"):
        load_adapter(ours, tmp_path / "adapter")
    remove_lora(ours.transformer)
    (tmp_path / "adapter/adapter_model.safetensors").rename(tmp_path / "adapter/adapter_model.bin")
    with pytest.raises(NormaError, match="file not found") as caught:
        load_adapter(ours, tmp_path / "adapter")
    assert "pickle" in str(caught.value)
