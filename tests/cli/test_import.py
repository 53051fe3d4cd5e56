"""``norma import``: tiny models written by transformers, checked, rewritten and opened again."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers

import norma
from norma.base.errors import NormaError
from norma.base.hashing import file_digest
from norma.cli import main

VOCABULARY = 300
TEXTS = ["The wheel turned twelve times.", "naïve 轮子", " a [MASK] <pad>"]


def bert() -> Any:
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20, max_position_embeddings=24,
        id2label={0: "no", 1: "yes", 2: "maybe"}, label2id={"no": 0, "yes": 1, "maybe": 2},
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


def gpt2() -> Any:
    config = transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=12, n_layer=2, n_head=3, n_positions=24, bos_token_id=0, eos_token_id=0)
    return transformers.GPT2LMHeadModel(config)


def llama() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=12, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=4,
        intermediate_size=20, max_position_embeddings=24, eos_token_id=[2, 5],
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def t5() -> Any:
    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=12, d_kv=4, num_layers=2, num_heads=3, d_ff=20,
        decoder_start_token_id=3, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config)


def _byte_level(folder: Path, specials: list[str]) -> Backend:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=290, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(["The wheel turned twelve times, naïve 轮子."] * 3, trainer)
    return backend


def gpt2_words(folder: Path) -> None:
    """As GPT-2 was published: vocab.json and merges.txt, nothing that names a special token."""
    model = json.loads(_byte_level(folder, ["<|endoftext|>"]).to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")


def bert_words(folder: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "wheel", "turn", "##ed", "t", "##welve", "times", ".", "轮", "naive"]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")


def llama_words(folder: Path) -> None:
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_byte_level(folder, ["<unk>", "<s>", "</s>"]), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    tokenizer.save_pretrained(folder)


def t5_words(folder: Path) -> None:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁The", -2.0), ("▁wheel", -2.0), ("▁", -3.0)]
    backend = Backend(models.Unigram([*pieces, *((c, -6.0) for c in "abcdefghijklmnopqrstuvwxyz.")], unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    tokens = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **tokens).save_pretrained(folder)


FAMILIES: dict[str, tuple[Callable[[], Any], Callable[[Path], None]]] = {
    "gpt2": (gpt2, gpt2_words),
    "bert": (bert, bert_words),
    "llama": (llama, llama_words),
    "t5": (t5, t5_words),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def write(family: str, folder: Path, dtype: str = "fp32", words: bool = True, **options: Any) -> Any:
    """A folder of transformers with random weights; returns the model with the same numbers in fp32."""
    torch.manual_seed(3)
    theirs = FAMILIES[family][0]().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.2)
    rounded(theirs, DTYPES[dtype])
    copy.deepcopy(theirs).to(DTYPES[dtype]).save_pretrained(folder, **options)
    if words:
        FAMILIES[family][1](folder)
    return theirs


def rounded(theirs: Any, dtype: torch.dtype) -> Any:
    """Its weights rounded to ``dtype``, nothing else (``Module.to`` would round the rotary frequencies as well)."""
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(parameter.to(dtype))
    return theirs


def scores(theirs: Any, ours: Any, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model says of ids, of the two."""
    with torch.no_grad():
        if ours.config.kind == "encoder-decoder":
            return theirs(input_ids=ids, decoder_input_ids=ids.flip(1)).logits, ours.logits(ids, decoder_ids=ids.flip(1))
        wanted = theirs(ids).logits
        if ours.config.head == "classify":
            return wanted, ours.transformer.classify(ours.transformer.hidden(ids))
        return wanted, ours.logits(ids)


def assert_same(theirs: Any, ours: Any) -> None:
    ids = torch.randint(3, VOCABULARY, (2, 11), generator=torch.Generator().manual_seed(2))
    wanted, found = scores(theirs, ours, ids)
    assert (wanted - found).abs().max() < 1e-5 * wanted.abs().max()


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_import(family: str, dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = write(family, tmp_path / "theirs", dtype)
    assert_same(theirs, norma.load(tmp_path / "theirs"))  # without importing first
    assert main(["import", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 0
    shown = capsys.readouterr().out
    kept = str(DTYPES[dtype]).removeprefix("torch.")
    ours = norma.load(tmp_path / "ours")
    assert f"{family} ({ours.config.kind}" in shown and f"{theirs.num_parameters():,}" in shown and kept in shown
    assert_same(theirs, ours)

    first, last = (load_file(tmp_path / f / "model.safetensors") for f in ("theirs", "ours"))
    assert set(first) == set(last) and all(torch.equal(first[n], last[n]) and first[n].dtype == last[n].dtype for n in first)
    again, report = type(theirs).from_pretrained(tmp_path / "ours", output_loading_info=True, dtype=torch.float32)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert_same(again.eval(), ours)

    before, after = (json.loads((tmp_path / f / "config.json").read_text()) for f in ("theirs", "ours"))
    assert after["torch_dtype"] == kept
    for key in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "id2label"):
        assert after.get(key) == before.get(key)
    generation = tmp_path / "theirs/generation_config.json"
    if generation.exists():
        assert json.loads((tmp_path / "ours/generation_config.json").read_text()) == json.loads(generation.read_text())
    imported = json.loads((tmp_path / "ours/norma.json").read_text())["imported"]
    assert imported["from"] == str((tmp_path / "theirs").resolve()) and {"config.json", "model.safetensors"} <= set(imported["files"])
    assert imported["files"] == {name: file_digest(tmp_path / "theirs" / name) for name in imported["files"]}
    assert ours.lineage["imported"] == imported

    words, rewritten = (transformers.AutoTokenizer.from_pretrained(tmp_path / f) for f in ("theirs", "ours"))
    for text in TEXTS:
        wanted = words(text, add_special_tokens=False)["input_ids"]
        assert ours.tokenizer.encode(text, special=True) == wanted == rewritten(text, add_special_tokens=False)["input_ids"]
        assert words(text)["input_ids"] == rewritten(text)["input_ids"]
    assert (words.eos_token_id, words.pad_token_id) == (rewritten.eos_token_id, rewritten.pad_token_id)
    assert ours.tokenizer.eos_id == words.eos_token_id and ours.tokenizer.chat_template == words.chat_template == rewritten.chat_template


def test_dtype_and_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = write("llama", tmp_path / "theirs", "fp32", max_shard_size=9000)
    assert main(["import", str(tmp_path / "theirs"), str(tmp_path / "ours"), "--dtype", "bf16", "--max-shard-gb", "0.000005"]) == 0
    assert "files and an index" in capsys.readouterr().out and len(list((tmp_path / "ours").glob("model-*"))) > 2
    assert {t.dtype for f in (tmp_path / "ours").glob("*.safetensors") for t in load_file(f).values()} == {torch.bfloat16}
    assert_same(rounded(theirs, torch.bfloat16), norma.load(tmp_path / "ours"))
    digests = json.loads((tmp_path / "ours/norma.json").read_text())["imported"]["files"]
    assert "model.safetensors.index.json" in digests and sum(name.startswith("model-") for name in digests) > 1


def test_weights_of_several_types_stay_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("gpt2", tmp_path / "theirs", "bf16")
    path = tmp_path / "theirs/model.safetensors"
    mixed = {n: t.float() if "ln_" in n else t for n, t in load_file(path).items()}
    save_file(mixed, path)
    assert main(["import", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 0
    assert "bfloat16 (" in capsys.readouterr().out.replace("float32", "")
    last = load_file(tmp_path / "ours/model.safetensors")
    assert all(torch.equal(mixed[n], last[n]) and mixed[n].dtype == last[n].dtype for n in mixed)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_without_a_tokenizer_logits_work_and_text_says_what_is_missing(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = write(family, tmp_path / "theirs", words=False)
    assert main(["import", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 0
    assert "none: the model reads and writes ids, no text" in capsys.readouterr().out
    model = norma.load(tmp_path / "ours")
    assert_same(theirs, model)
    assert not model.has_tokenizer and not model.copy().has_tokenizer
    ways: list[Callable[[], Any]] = [
        lambda: model.generate("The wheel"),
        lambda: model.chat([{"role": "user", "content": "hi"}]),
        lambda: list(model.stream([{"role": "user", "content": "hi"}])),
        lambda: model.logprob("The", " wheel"),
        lambda: model.tokenizer,
    ]
    for way in ways:
        with pytest.raises(NormaError, match="this model has no tokenizer") as caught:
            way()
        assert "tokenizer.json" in str(caught.value)
    model.save(tmp_path / "again")
    assert_same(theirs, norma.load(tmp_path / "again"))


def test_what_is_left_out_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("gpt2", tmp_path / "theirs")
    path = tmp_path / "theirs/model.safetensors"
    save_file({**load_file(path), "transformer.h.0.attn.bias": torch.ones(1, 1, 24, 24)}, path)
    (tmp_path / "theirs/pytorch_model.bin").write_bytes(b"a pickle")
    (tmp_path / "theirs/onnx").mkdir()
    assert main(["import", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 0
    shown = capsys.readouterr().out
    assert "transformer.h.0.attn.bias" in shown and "other files: onnx, pytorch_model.bin" in shown and "summary_type" in shown
    names = {p.name for p in (tmp_path / "ours").iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors", "norma.json", "tokenizer.json", "tokenizer_config.json"}


def _no_head(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, folder / "model.safetensors")


def _set(**change: Any) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | change))

    return act


def _sentencepiece(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()
    (folder / "tokenizer.model").write_bytes(b"\x0a")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_no_head, "missing tensors for llama: model.layers.1.mlp.up_proj.weight"),
        (_set(model_type="gpt9"), "model type 'gpt9' is not supported"),
        (_set(quantization_config={"quant_method": "fp8"}), "quantised weights are not supported"),
        (_set(intermediate_size=21), "has shape"),
        (_sentencepiece, "tokenizer.model, a SentencePiece model. Convert it with transformers"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
    ],
)
def test_a_folder_that_is_wrong_leaves_nothing(
    spoil: Callable[[Path], None], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("llama", tmp_path / "theirs")
    spoil(tmp_path / "theirs")
    capsys.readouterr()
    assert main(["import", str(tmp_path / "theirs"), str(tmp_path / "ours")]) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1 and captured.out == ""
    assert {p.name for p in tmp_path.iterdir()} == {"theirs"}


def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("gpt2", tmp_path / "theirs")
    assert main(["import", str(tmp_path / "theirs"), str(tmp_path / "theirs")]) == 2
    assert "the folder is not empty" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "theirs"), str(tmp_path / "ours"), "--dtype", "bf15"]) == 2
    assert "unknown type 'bf15'. Did you mean 'bf16'." in capsys.readouterr().err
