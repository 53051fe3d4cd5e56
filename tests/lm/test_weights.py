"""Weights in one file or many: what transformers shards, Norma reads, and the other way; and how much memory writing takes."""

from __future__ import annotations

import json
import re
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file

import norma.lm.weights as weights
from norma.base.errors import NormaError
from norma.lm import LanguageModel
from norma.lm.weights import read_weights, weight_files, write_weights
from norma.nn import ModelConfig, Transformer, to_hf

CONFIG = ModelConfig("llama", 61, 16, 3, 4, 2, 4, 24, 32, tie_embeddings=False)
GPT2 = {"vocab_size": 61, "n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 32, "bos_token_id": 0, "eos_token_id": 0}
INDEX = "model.safetensors.index.json"


def state_of(config: ModelConfig = CONFIG) -> dict[str, torch.Tensor]:
    state = Transformer(config).state_dict()
    return {n: torch.randn(t.shape, generator=torch.Generator().manual_seed(i)) for i, (n, t) in enumerate(state.items())}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return set(a) == set(b) and all(torch.equal(a[n], b[n]) and a[n].dtype == b[n].dtype for n in a)


def gpt2_folder(folder: Path, **options: Any) -> Any:
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2)).eval()
    model.save_pretrained(folder, **options)
    return model


def test_shards_of_transformers_are_read(tmp_path: Path) -> None:
    theirs = gpt2_folder(tmp_path, max_shard_size=6000)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 3
    assert weight_files(tmp_path)[0] == INDEX and len(weight_files(tmp_path)) > 4
    ids = torch.arange(20)[None]
    with torch.no_grad():
        wanted = theirs(ids).logits
    found = LanguageModel.load(tmp_path).logits(ids)
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_shards_of_norma_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    if family == "gpt2":
        gpt2_folder(tmp_path / "source")
        model = LanguageModel.load(tmp_path / "source")
    else:
        model = LanguageModel(Transformer(CONFIG), None)
        model.transformer.load_state_dict(state_of())
    model.save(tmp_path / "ours", max_shard_bytes=4000)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    ids = torch.arange(20)[None]
    with torch.no_grad():
        wanted = theirs.eval()(ids).logits
    assert (model.logits(ids) - wanted).abs().max() < 1e-5 * wanted.abs().max()

    files = sorted(p.name for p in (tmp_path / "ours").glob("*.safetensors"))
    count = len(files)
    assert count > 4 and files == [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]
    index = json.loads((tmp_path / "ours" / INDEX).read_text())
    held = {name: tensor for file in files for name, tensor in load_file(tmp_path / "ours" / file).items()}
    assert {n: f for f in files for n in load_file(tmp_path / "ours" / f)} == index["weight_map"]
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in held.values())
    for file in files:
        tensors = load_file(tmp_path / "ours" / file)
        assert sum(t.nbytes for t in tensors.values()) <= 4000 or len(tensors) == 1

    theirs.save_pretrained(tmp_path / "theirs", max_shard_size=4000)
    back = LanguageModel.load(tmp_path / "theirs").transformer.state_dict()
    assert equal(back, model.transformer.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("limit", [weights.MAX_SHARD_BYTES, 3000])
def test_what_is_written_is_read_back_by_the_format_s_own_reader(dtype: torch.dtype, limit: int, tmp_path: Path) -> None:
    state = state_of()
    files = write_weights(tmp_path, CONFIG, state, dtype, limit)
    wanted = {name: tensor.to(dtype) for name, tensor in to_hf(CONFIG, state).items()}
    assert equal(read_weights(tmp_path), wanted)
    assert (len(files) == 1) == (limit > 3000) and not list(tmp_path.glob("*.tmp"))
    with safe_open(tmp_path / files[0], "pt") as handle:
        assert handle.metadata() == {"format": "pt"}


def test_types_are_kept_where_none_is_given(tmp_path: Path) -> None:
    state = state_of()
    state["decoder.norm.weight"] = state["decoder.norm.weight"][:16].double()
    state["embedding.weight"] = state["embedding.weight"].half()  # an odd number of 2-byte numbers would leave the rest unaligned
    state["head.weight"] = state["head.weight"].bfloat16()
    write_weights(tmp_path, CONFIG, state)
    assert equal(read_weights(tmp_path), to_hf(CONFIG, state))


def test_an_older_save_leaves_nothing_behind(tmp_path: Path) -> None:
    first, second = state_of(), {n: t + 1 for n, t in state_of().items()}
    (tmp_path / "model_of_something_else.safetensors").write_bytes(b"not ours")

    def names() -> set[str]:
        return {p.name for p in tmp_path.iterdir()} - {"model_of_something_else.safetensors"}

    for limit, state in ((3000, first), (9000, second), (10**9, first), (3000, second)):
        files = write_weights(tmp_path, CONFIG, state, max_shard_bytes=limit)
        assert names() == set(files) | ({INDEX} if len(files) > 1 else set())
        assert equal(read_weights(tmp_path), to_hf(CONFIG, state))
    with pytest.raises(NormaError, match="shard of 0 bytes"):
        write_weights(tmp_path, CONFIG, first, max_shard_bytes=0)


def test_a_failed_save_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_weights(tmp_path, CONFIG, state_of(), max_shard_bytes=3000)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    rows = weights._rows

    def fail(*arguments: Any) -> Any:
        yield from list(rows(*arguments))[:5]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "_rows", fail)
    with pytest.raises(NormaError, match="no space left"):
        write_weights(tmp_path, CONFIG, {n: t + 1 for n, t in state_of().items()}, max_shard_bytes=3000)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_writing_holds_one_row_of_the_table_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is converted and alive at once, counted: never more than one row, in one file as in many."""
    state, alive, most = state_of(), [0], [0]
    real = torch.Tensor.to

    def counted(self: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        made: torch.Tensor = real(self, *arguments, **options)
        if made is not self and made.device.type == "cpu":
            alive[0] += made.nbytes
            most[0] = max(most[0], alive[0])
            weakref.finalize(made, lambda size: alive.__setitem__(0, alive[0] - size), made.nbytes)
        return made

    monkeypatch.setattr(torch.Tensor, "to", counted)
    tracemalloc.start()
    write_weights(tmp_path, CONFIG, state, torch.bfloat16)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    largest = max(t.nbytes for t in state.values()) // 2
    assert largest <= most[0] <= 2 * largest  # a tensor, and the next before the name of the first is free
    assert peak < 400_000  # Python's own bytes: no copy of a file


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f, m: (f / m["weight_map"]["lm_head.weight"]).unlink(), r"model-\d{5}-of-\d{5}.safetensors: file not found.*index.json"),
        (lambda f, m: m["weight_map"].update({"lm_head.weight": "../a.safetensors"}), r"outside the folder: \.\./a\.safetensors"),
        (lambda f, m: m["weight_map"].update({"lm_head.weight": "/etc/passwd"}), "outside the folder: /etc/passwd"),
        (lambda f, m: m["weight_map"].update({"ghost.weight": m["weight_map"]["lm_head.weight"]}), "the index promises ghost.weight in"),
        (lambda f, m: m.pop("weight_map"), "the index has no weight_map"),
        (lambda f, m: m["weight_map"].update({"lm_head.weight": 3}), "the index has no weight_map"),
        (lambda f, m: (f / m["weight_map"]["lm_head.weight"]).write_bytes(b"\x08" * 40), "not readable as safetensors"),
    ],
)
def test_damaged_folders_say_what_is_wrong(damage: Any, said: str, tmp_path: Path) -> None:
    write_weights(tmp_path, CONFIG, state_of(), max_shard_bytes=3000)
    index = json.loads((tmp_path / INDEX).read_text())
    damage(tmp_path, index)
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(NormaError) as caught:
        read_weights(tmp_path)
    assert re.search(said, str(caught.value)), caught.value
