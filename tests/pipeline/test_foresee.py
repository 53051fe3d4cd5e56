"""norma plan: shapes of stages are found where the recipe says them, and the numbers are those of the footprint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from norma.base.errors import NormaError
from norma.cli import main
from norma.nn import preset
from norma.nn.lora import LoraOptions
from norma.nn.presets import published
from norma.pipeline import load_recipe
from norma.pipeline.foresee import foresee
from norma.train.footprint import Machine, memory, peak

RECIPES = Path(__file__).parents[2] / "recipes"


def test_the_demo() -> None:
    rows = {row.stage: row for row in foresee(load_recipe(RECIPES / "courteous-docs.yaml", ["output=/nonexistent"]))}
    assert list(rows) == ["pretrain", "instruct", "prompting", "correction", "reward", "task", "task-replay"]
    config = preset("llama", vocab_size=4096, width=256, layers=4, max_positions=512)
    assert all(row.config == config and row.learnt == config.parameters() for row in rows.values())
    reward = rows["reward"]
    assert (reward.shape.questions, reward.shape.group, reward.shape.new, reward.steps) == (8, 8, 48, 60)
    assert reward.shape.reference == "copy" and rows["correction"].shape.reference == "none"
    # 128 + 8 x 48 = 512 tokens of a question with its answers; 8 of them fit into 4,096.
    assert reward.shape.length == 512 and reward.shape.tokens == 4096 and reward.tokens == 4096
    assert rows["instruct"].steps is None and rows["task"].steps == 60
    assert reward.peak == peak(memory(config, reward.shape)) and reward.seconds is None


def test_a_7b_model_in_place_of_the_demo_s() -> None:
    loaded = load_recipe(RECIPES / "courteous-docs.yaml", ["output=/nonexistent"])
    how = {"weights": 2, "activations": 2, "recompute": True}
    rows = foresee(loaded, model=published("llama-2-7b"), lora=LoraOptions(16, targets="all"), machine=Machine(4e14, 2e12), **how)  # type: ignore[arg-type]
    reward = next(row for row in rows if row.stage == "reward")
    assert reward.learnt == 39_976_960 and reward.shape.reference == "shared"
    assert 13.5e9 < reward.peak < 24e9 and reward.seconds is not None and set(reward.seconds) == {"training", "rollout"}
    whole = next(row for row in foresee(loaded, model=published("llama-2-7b")) if row.stage == "reward")
    assert whole.peak > 20 * 6.7e9, "all weights in fp32, their gradients, moments, and a second copy"
    assert next(row for row in rows if row.stage == "pretrain").learnt == 6_738_415_616, "nothing is adapted before there is a model"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(RECIPES / "courteous-docs.yaml")
    machine = ["--flops", "1e12", "--bandwidth", "1e10", "--activations", "fp32", f"output={tmp_path}"]
    assert main(["plan", recipe, "--scale", "ci", "--json", *machine]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["stage"] == "pretrain" and rows[-3]["seconds"]["rollout"] > 0
    assert sum(part["bytes"] for part in rows[0]["parts"]) == rows[0]["peak_bytes"]
    assert main(["plan", recipe, "--model", "llama-2-7b", "--lora", "8", "--parts", *machine]) == 0
    said = capsys.readouterr().out
    assert "key/value cache" in said and "6.7G" in said and "which no training reaches" in said


def test_a_recipe_without_a_shape_says_so(tmp_path: Path) -> None:
    text = "norma: 1\nname: x\nstages:\n  corpus: {kind: corpus, sources: [{path: x.jsonl}]}\n  tokenizer: {kind: tokenizer}\n"
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(NormaError, match="no stage of this recipe trains a model whose shape is known yet"):
        foresee(load_recipe(tmp_path / "recipe.yaml"))
