"""GGUF files that we write: read back by our own reader, by gguf-py, and, where it is installed, run by llama.cpp itself."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from norma.base.errors import NormaError
from norma.cli import main
from norma.generate.engine import generate
from norma.generate.sampling import Sampling
from norma.lm import LanguageModel
from norma.lm.gguf import read_gguf
from norma.lm.gguf_export import turn, write_gguf
from norma.lm.gguf_tokenizer import build_tokenizer
from norma.nn import Transformer, from_hf
from norma.nn.config import RotaryScaling
from norma.nn.layout import config_from_hf

gguf = pytest.importorskip("gguf")
TEXTS = ["What does `json.dumps` do?", " naïve 轮子 don't\n\n  indent", "12 seconds 2024", "", "您好：返回"]


def back(path: Path) -> LanguageModel:
    read = read_gguf(path, torch.float32)
    config = config_from_hf(read.values, path)
    with torch.device("meta"):
        network = Transformer(config)
    network.load_state_dict(from_hf(config, read.weights, path), assign=True)
    return LanguageModel(network.eval(), read.tokenizer)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize(("kind", "most"), [("fp32", 1e-5), ("bf16", 0.06), ("fp16", 0.01), ("q8_0", 0.2)])
def test_there_and_back(make_model: Callable[..., LanguageModel], tmp_path: Path, family: str, kind: str, most: float) -> None:
    model = make_model(2, 0.15, family)
    done = write_gguf(model, tmp_path / "m.gguf", kind)
    assert done.tensors == len(gguf.GGUFReader(done.path).tensors) and done.bytes == done.path.stat().st_size
    twin = back(done.path)
    ids = torch.tensor([model.tokenizer.encode("What does it do, and for whom?")])
    assert (model.logits(ids) - twin.logits(ids)).abs().max() < most
    for text in TEXTS:
        assert twin.tokenizer.encode(text) == model.tokenizer.encode(text)
    for name in ("bos_id", "eos_id", "pad_id", "chat_template", "special_ids"):
        assert getattr(twin.tokenizer, name) == getattr(model.tokenizer, name)


def test_rows_are_turned_as_llama_cpp_has_them() -> None:
    weight = torch.arange(16.0).reshape(8, 2)  # two heads of four rows
    assert turn(weight, 2)[:, 0].tolist() == [0, 4, 2, 6, 8, 12, 10, 14]


def test_llama_3s_wavelengths(make_model: Callable[..., LanguageModel], tmp_path: Path) -> None:
    base = make_model(1)
    sizes = {"width": 64, "layers": 1, "attention_heads": 1, "kv_heads": 1, "head_size": 64, "rope_theta": 500000.0}
    config = replace(base.config, **sizes, rope_scaling=RotaryScaling("llama3", 8.0, 1.0, 4.0, 8192))
    model = LanguageModel(Transformer(config).eval(), base.tokenizer)
    twin = back(write_gguf(model, tmp_path / "m.gguf", "fp32").path)
    assert twin.config.rope_scaling == config.rope_scaling


def test_what_has_no_place_is_refused(make_model: Callable[..., LanguageModel], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from norma.nn.presets import preset

    other = LanguageModel(Transformer(preset("gpt2", vocab_size=380, width=64, layers=1, max_positions=32)), None)
    with pytest.raises(NormaError, match="not written for the family"):
        write_gguf(other, tmp_path / "m.gguf")
    assert not list(tmp_path.iterdir())
    make_model(1).save(tmp_path / "model")
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "m.gguf"), "--dtype", "fp32"]) == 0
    said = capsys.readouterr().out
    assert "NFC" in said and "20 tensors" in said  # 2 layers of 9, embedding, last norm


LLAMA = """
import json, sys, xllamacpp
settings = xllamacpp.CommonParams()
settings.model.path, settings.n_ctx, settings.warmup, settings.n_parallel = sys.argv[1], 512, False, 1
server = xllamacpp.Server(settings)
asked = {"n_predict": int(sys.argv[3]), "temperature": 0, "cache_prompt": False}
print("TEXTS" + json.dumps([server.handle_completions({"prompt": p, **asked})["choices"][0]["text"] for p in json.loads(sys.argv[2])]))
"""


def stories_model(stories: Path) -> LanguageModel:
    """stories260K with the tokenizer that llama2.c has for it, as SentencePiece's BPE."""
    where = Path(__file__).with_name("test_stories.py")
    found = importlib.util.spec_from_file_location("stories_of_llama2c", where)
    assert found is not None and found.loader is not None
    there = importlib.util.module_from_spec(found)
    found.loader.exec_module(there)
    data, at, tokens, scores = (stories / "tok512.bin").read_bytes(), 4, [], []
    for _ in range(512):
        score, length = struct.unpack_from("fi", data, at)
        tokens.append(data[at + 8 : at + 8 + length].decode().strip("\n").replace(" ", "▁") if len(tokens) != 13 else "<0x0A>")
        scores.append(score)
        at += 8 + length
    tokens[:3] = ["<unk>", "<s>", "</s>"]
    ids = {f"tokenizer.ggml.{name}_token_id": i for i, name in enumerate(("unknown", "bos", "eos"))}
    types = {"tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * 253}
    words = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.scores": scores}
    return LanguageModel(there.read(stories / "stories260K.bin"), build_tokenizer(ids | types | words, stories), name="stories260K")


def test_a_real_checkpoint_there_and_back(stories: Path, tmp_path: Path) -> None:
    model = stories_model(stories)
    twin = back(write_gguf(model, tmp_path / "stories.gguf", "fp32").path)
    text = "Once upon a time, there was a little girl named Lily. She saw 12 dogs."
    assert twin.tokenizer.encode(text) == model.tokenizer.encode(text)
    ids = torch.tensor([model.tokenizer.encode(text)])
    assert torch.equal(model.logits(ids), twin.logits(ids))


@pytest.mark.slow
@pytest.mark.skipif(
    "NORMA_LLAMA_PYTHON" not in os.environ, reason="set NORMA_LLAMA_PYTHON to a Python with xllamacpp (llama.cpp in a wheel)"
)
@pytest.mark.parametrize("kind", ["fp32", "fp16"])
def test_llama_cpp_writes_the_same_greedy_text(stories: Path, tmp_path: Path, kind: str) -> None:
    """The text that llama.cpp writes from our file is the one that we write."""
    model = stories_model(stories)
    path = write_gguf(model, tmp_path / "stories.gguf", kind).path
    prompts = ["Once upon a time", "The little dog", "Lily was 12"]
    command = [os.environ["NORMA_LLAMA_PYTHON"], "-c", LLAMA, str(path), json.dumps(prompts), "60"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    texts = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("TEXTS")).removeprefix("TEXTS"))
    asked = [[1, *model.tokenizer.encode(p)] for p in prompts]
    ours = [c.text for c in generate(model, asked, Sampling(60), dtype=torch.float32)]
    assert [t.strip() for t in texts] == [t.strip() for t in ours]
