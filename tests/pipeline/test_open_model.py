"""The open stage, and LoRA in a stage: what is saved, what is frozen, and that a killed run ends with the same bits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from norma.base.errors import NormaError
from norma.base.files import write_json, write_jsonl
from norma.base.progress import Silent
from norma.pipeline.plan import Plan
from norma.pipeline.recipe import load_recipe
from norma.pipeline.stage import Context
from norma.pipeline.stages import find
from norma.pipeline.stages.open import Open, OpenOptions
from norma.pipeline.stages.sft import Sft, SftOptions

if TYPE_CHECKING:
    from norma.lm import LanguageModel

RECIPES = Path(__file__).parents[2] / "recipes"
LORA = {"rank": 4, "alpha": 8.0, "base": "bfloat16"}
TRAIN = {"optimiser": "adamw", "learning_rate": 0.02, "warmup": 1, "checkpoint_seconds": 1e-9}


@pytest.fixture
def models(tmp_path: Path, make_model: Callable[..., LanguageModel]) -> dict[str, Path]:
    """A model outside the run and conversations of several turns."""
    make_model(3).save(tmp_path / "base")
    turn = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "It sorts."}]
    rows = [{"id": f"q{i}", "messages": [*turn, {"role": "user", "content": f"And {i}?"}, turn[1]]} for i in range(9)]
    write_jsonl(tmp_path / "corpus" / "qa.train.jsonl", rows)
    return {"base": tmp_path / "base", "corpus": tmp_path / "corpus"}


def opening(folder: Path, **options: Any) -> Context[OpenOptions]:
    parsed = OpenOptions(kind="open", **options)
    return Context("open", folder, {}, parsed, None, 1, Silent(), Plan(folder), folder.parent)


# ── opening ──
def test_a_folder_becomes_an_artefact(models: dict[str, Path], tmp_path: Path) -> None:
    from norma.lm import LanguageModel

    (tmp_path / "work").mkdir()
    summary = Open().run(opening(tmp_path / "work", path="base", dtype="bfloat16"))
    theirs, ours = LanguageModel.load(models["base"]), LanguageModel.load(tmp_path / "work")
    assert summary == {"model": True, "family": "llama", "parameters": theirs.config.parameters()}
    state = theirs.transformer.state_dict()
    assert all(torch.equal(t, state[n].bfloat16().float()) for n, t in ours.transformer.state_dict().items())
    assert ours.tokenizer.encode("It sorts.") == theirs.tokenizer.encode("It sorts.")
    assert ours.lineage["imported"]["from"] == str(models["base"])


def test_a_changed_file_makes_it_stale(models: dict[str, Path], tmp_path: Path) -> None:
    stage, options = Open(), OpenOptions(kind="open", path="base")
    before = stage.fingerprint(options, tmp_path)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(before)
    (models["base"] / "notes.md").write_text("a remark")
    assert stage.fingerprint(options, tmp_path) == before
    write_json(models["base"] / "generation_config.json", {"do_sample": True})
    after = stage.fingerprint(options, tmp_path)
    assert [name for name in after if after[name] != before.get(name)] == ["generation_config.json"]
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert list(stage.fingerprint(OpenOptions(kind="open", path="m.gguf"), tmp_path)) == ["m.gguf"]


def test_what_is_missing_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(NormaError, match=r"there is no model to open.*open\.path=FILE"):
        Open().run(opening(tmp_path / "work", path="nowhere.gguf"))
    for wrong in ({}, {"path": "x", "stand_in": True}):
        with pytest.raises(ValueError, match="needs a path, or stand_in"):
            OpenOptions(kind="open", **wrong)


def test_a_stand_in_reads_and_writes(tmp_path: Path) -> None:
    import norma

    (tmp_path / "work").mkdir()
    Open().run(opening(tmp_path / "work", stand_in=True))
    model = norma.load(tmp_path / "work")
    assert model.lineage["stand_in"] is True and isinstance(model.chat([{"role": "user", "content": "hi 您好"}], max_new_tokens=4)[0], str)


# ── LoRA ──
def tuning(folder: Path, models: dict[str, Path], **options: Any) -> Context[SftOptions]:
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {
        "kind": "sft", "from": "base", "data": [{"rows": "corpus/qa.train.jsonl", "trained": "last"}], "steps": 6, "batch": 2,
        "micro_batch": 1, "sequence": 64, "lora": LORA, "train": TRAIN,
    } | options  # fmt: skip
    return Context("tune", folder, models, SftOptions.model_validate(values), None, 7, Silent(), Plan(folder), folder.parent)


@pytest.mark.parametrize("base", ["float32", "bfloat16"])
def test_a_lora_run_saves_the_merged_model_and_the_adapter(base: str, models: dict[str, Path], tmp_path: Path) -> None:
    from norma.lm import LanguageModel
    from norma.lm.adapter import load_adapter

    work = tmp_path / "run" / "tune"
    Sft().run(tuning(work, models, lora=LORA | {"base": base}))
    assert not list(work.glob("checkpoint-*")) and (work / "adapter/adapter_model.safetensors").is_file()
    merged, beside = LanguageModel.load(work), LanguageModel.load(models["base"], matrices=getattr(torch, base))
    plain = {n: t.float() for n, t in beside.transformer.state_dict().items()}
    load_adapter(beside, work / "adapter")
    from norma.nn.lora import plain_state

    wanted = plain_state(beside.transformer)
    assert all(torch.equal(t, wanted[n].float()) for n, t in merged.transformer.state_dict().items())
    moved = {n for n, t in merged.transformer.state_dict().items() if not torch.equal(t, plain[n])}
    assert moved == {n for n in plain if ".blocks." in n and "norm" not in n}  # linear layers and nothing else
    config = json.loads((work / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "../../base" and (config["r"], config["lora_alpha"]) == (4, 8)


class Killed(Exception):
    """Stands for a SIGKILL."""


def test_a_killed_lora_run_ends_with_the_same_bits_and_small_checkpoints(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import norma.train.step as step_module

    Sft().run(tuning(tmp_path / "whole", models))
    plain = step_module.language_losses

    def dying(at: int, network: Any, batches: Any, step: int, **how: Any) -> Iterator[Any]:
        for number, part in enumerate(plain(network, batches, step, **how)):
            if (step, number) == (at, 1):
                raise Killed
            yield part

    for at in (2, 4):
        monkeypatch.setattr(step_module, "language_losses", partial(dying, at))
        with pytest.raises(Killed):
            Sft().run(tuning(tmp_path / "killed", models))
    (newest,) = sorted((tmp_path / "killed").glob("checkpoint-*"))[-1:]
    held, moments = (load_file(newest / f"{name}.safetensors") for name in ("model", "optimiser"))
    assert held and all(name.endswith((".A", ".B")) for name in held)
    assert {name.rpartition("/")[0] for name in moments} == set(held)
    monkeypatch.setattr(step_module, "language_losses", plain)
    Sft().run(tuning(tmp_path / "killed", models))
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_only_the_last_turn_was_trained(models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from norma.pipeline.stages._learning import load_rows
    from norma.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(models["base"])
    shares = []
    for trained in ("answers", "last", [0], [0, -1], "everything"):
        context = tuning(tmp_path / "rows", models, data=[{"rows": "corpus/qa.train.jsonl", "trained": trained}])
        shares.append(int(load_rows(context, tokenizer, context.options.data, 64).trained.sum()))
    answers, last, first, both, everything = shares
    assert last == first == answers // 2 and both == answers < everything


def test_options_are_checked_and_have_descriptions() -> None:
    fields = find("sft").Options.model_fields
    assert fields["lora"].description and "adapter" in fields["lora"].description
    with pytest.raises(ValueError, match="rank"):
        SftOptions.model_validate({"kind": "sft", "from": "a", "data": [], "lora": {"rank": 0}})


# ── the recipe ──
def test_the_recipe_of_smollm2_is_checked_whole() -> None:
    for scale in (None, "ci"):
        nodes = load_recipe(RECIPES / "align-smollm2.yaml", scale=scale).nodes
        assert nodes["open"].options.resolved()["stand_in"] is (scale == "ci")
    text = (RECIPES / "align-smollm2.yaml").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60


def test_the_recipe_of_chatgpt_is_checked_whole() -> None:
    """Chats of several turns, a reward model from rankings, PPO, in under 60 lines; both scales are recipes."""
    for scale in (None, "ci"):
        nodes = load_recipe(RECIPES / "chatgpt.yaml", scale=scale).nodes
        assert set(nodes["ppo"].inputs) == {"sft", "reward-model", "chats"} and nodes["reward-model"].stage.kind == "reward-model"
    assert len((RECIPES / "chatgpt.yaml").read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.slow
def test_the_recipe_of_smollm2_runs_without_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from norma.cli import main

    copied = tmp_path / "recipes"
    shutil.copytree(RECIPES, copied, symlinks=False)
    assert main(["run", str(copied / "align-smollm2.yaml"), "--scale", "ci", f"output={tmp_path / 'run'}"]) == 0
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert [m["method"] for m in report["methods"]] == ["open", "prompt", "correct", "align"]
    assert all((tmp_path / "run" / stage / "adapter" / "adapter_config.json").is_file() for stage in ("correct", "align"))
