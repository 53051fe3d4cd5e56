"""The dial in a recipe: it fills what is left open, keeps what is given, is frozen, and is one dial."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import norma
from norma.base.errors import NormaError
from norma.pipeline.recipe import load_recipe

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "pretrain.yaml"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for i in range(60):
        words = " ".join(f"the {a} {b} says number {i * 7 % 13}." for a in ("red", "blue", "old") for b in ("cat", "dog", "bird"))
        (folder / f"{i}.txt").write_text(f"Text {i}. {words}\n")
    return folder


def run(texts: Path, out: Path, *more: str) -> Path:
    overrides = {"clean.sources.0.path": str(texts), "clean.steps.exact": None, "output": str(out)}
    norma.run(str(RECIPE), scale="ci", overrides=overrides | dict(item.split("=", 1) for item in more))
    return out


def test_the_dial_fills_what_is_left_open(texts: Path, tmp_path: Path) -> None:
    out = run(texts, tmp_path / "run", "pretrain.train.warmup=3")
    plan = json.loads((out / "pretrain" / "plan.json").read_text())
    dialled = plan["dial"]
    config = json.loads((out / "pretrain" / "config.json").read_text())
    assert (config["hidden_size"], config["num_hidden_layers"]) == (dialled["width"], dialled["layers"])
    assert plan["steps"] == 8, "the recipe's steps stand"
    assert dialled["tokens"] <= 4.2 * 60 * 120, "no more than four passes"
    rows = [json.loads(line) for line in (out / "pretrain" / "metrics.jsonl").read_text().splitlines()]
    rates = [row["learning_rate"] for row in rows]
    assert max(rates) == pytest.approx(dialled["learning_rate"], rel=1e-6)
    assert rates[0] == pytest.approx(dialled["learning_rate"] / 3), "and its warm-up"
    samples = [json.loads(line) for line in (out / "pretrain" / "samples.jsonl").read_text().splitlines()]
    assert [row["step"] for row in samples] == [3, 7]
    assert all("→" in row["text"] for row in samples)


def test_the_resolved_copy_leaves_open_what_the_recipe_left_open(texts: Path, tmp_path: Path) -> None:
    """Written out, a default would be taken for given: another rate, or two dials."""
    copy = load_recipe(str(run(texts, tmp_path / "run", "pretrain.train.warmup=3") / "recipe.yaml"))
    original = load_recipe(str(RECIPE), scale="ci", overrides={"pretrain.train.warmup": 3})
    (same, once) = (loaded.nodes["pretrain"].options for loaded in (copy, original))
    assert same.resolved() == once.resolved()
    assert same.train.model_fields_set >= {"warmup"} and not same.train.model_fields_set & {"learning_rate", "matrix_learning_rate"}
    assert not same.model.model_fields_set & {"width", "layers", "head_size"} and "steps" in same.model_fields_set
    again = norma.run(str(tmp_path / "run" / "recipe.yaml"))
    assert not any(stage.made for stage in again.stages.values()), "nothing is stale"


GIVEN = {"pretrain.train.learning_rate": 0.01, "pretrain.train.warmup": 2}


@pytest.mark.parametrize(("more", "rate", "warmup"), [({}, 1e-3, 50), (GIVEN, 1e-2, 2)])
def test_bert_is_trained_at_rates_that_it_bears(texts: Path, tmp_path: Path, more: dict[str, float], rate: float, warmup: int) -> None:
    shape = {"preset": "bert", "width": 64, "layers": 1, "head_size": 32}
    bert = {"pretrain.size": None, "pretrain.model": shape, "pretrain.mix": [{"objective": "masked"}], "pretrain.steps": 3}
    masked = {"tokenizer.objectives": ["masked"], "clean.sources.0.path": str(texts), "clean.steps.exact": None}
    norma.run(str(RECIPE), scale="ci", overrides=bert | masked | more | {"output": str(tmp_path / "run")})
    rows = [json.loads(line) for line in (tmp_path / "run" / "pretrain" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["learning_rate"] == pytest.approx(rate / warmup), "a step of the warm-up"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("pretrain.budget=10min", "one dial"),
        ("pretrain.model.width=64", "size sets model.width"),
        ("pretrain.size=big", "no size of a model"),
    ],
)
def test_bad_settings_are_one_line(given: str, says: str, texts: Path, tmp_path: Path) -> None:
    with pytest.raises(NormaError, match=says):
        run(texts, tmp_path / "run", given)
