"""The pairs and preference stages as they run: killed with -9 and continued, on several ranks, on both kinds of model, on two recipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from norma.pipeline.recipe import load_recipe
from norma.train.metrics import CLOCKS
from processes import run_ranks

SCRIPT = Path(__file__).with_name("preference_run.py")
RECIPES = Path(__file__).parents[2] / "recipes"
METHODS = ["dpo", "cdpo", "ipo", "orpo", "simpo", "kto", "unlikelihood", "weighted", "sft"]


def run(folder: Path, count: int = 1, wanted: int = 0, **asked: Any) -> list[dict[str, Any]]:
    """Run with ``count`` processes; the rows of metrics.jsonl without what clocks say."""
    run_ranks(SCRIPT, folder, asked, count=count, wanted=wanted, timeout=400)
    metrics = folder / "preference" / "metrics.jsonl"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []  # none where the first step was its last
    return [{k: v for k, v in json.loads(line).items() if k not in CLOCKS} for line in lines]


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def far(a: Path, b: Path) -> float:
    """The largest difference of two runs' last weights."""
    one, two = (load_file(folder / "preference" / "model.safetensors") for folder in (a, b))
    return max(float((one[name] - two[name]).abs().max()) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "marks"), [("dpo", False), ("kto", True)])
def test_killed_and_continued_it_ends_with_the_same_bytes(tmp_path: Path, method: str, marks: bool) -> None:
    asked: dict[str, Any] = {"stage": {"method": method}, "marks": marks}
    peace = run(tmp_path / "peace", **asked)
    for step in (0, 5):
        run(tmp_path / "killed", wanted=-signal.SIGKILL, die_at=step, **asked)
    again = run(tmp_path / "killed", **asked)
    assert [row["step"] for row in again] == list(range(8)) and again == peace
    for name in ("model.safetensors", "reference.json", "reference.validation.json", "evaluation.before.json", "evaluation.after.json"):
        ours, theirs = ((tmp_path / run_ / "preference" / name).read_bytes() for run_ in ("peace", "killed"))
        assert ours == theirs, name
    assert not list((tmp_path / "killed" / "preference").glob("checkpoint*"))
    found = summary(tmp_path / "killed")
    assert found["before"]["pairs_correct"] == 0.5 and found["after"]["pairs_correct"] > 0.9
    assert found["after"]["chosen_nats_per_token"] > 0 < found["after"]["rejected_nats_per_token"]
    asked_for, answered = found["before"]["questions"], found["after"]["answers"]
    assert asked_for == found["after"]["questions"] and len(answered) == len(asked_for) == len(found["before"]["answers"]) == 3
    if not marks:
        assert answered != found["before"]["answers"], "it has learnt to answer otherwise"


@pytest.mark.slow
@pytest.mark.parametrize(("method", "marks", "count"), [("dpo", False, 2), ("kto", True, 2), ("unlikelihood", False, 3)])
def test_ranks_equal_one_process(tmp_path: Path, method: str, marks: bool, count: int) -> None:
    asked: dict[str, Any] = {"stage": {"method": method}, "marks": marks}
    one, many = run(tmp_path / "one", **asked), run(tmp_path / "many", count, **asked)
    for a, b in zip(one, many, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name] == pytest.approx(b[name], rel=2e-4, abs=2e-5), (a["step"], name)
    assert far(tmp_path / "one", tmp_path / "many") < 1e-4
    ours, theirs = (summary(tmp_path / name)["after"] for name in ("many", "one"))
    assert ours.pop("questions") == theirs.pop("questions") and len(ours.pop("answers")) == len(theirs.pop("answers"))
    assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("base", ["float32", "bfloat16"])
def test_lora_on_two_processes_equals_one(tmp_path: Path, base: str) -> None:
    """Frozen matrices in bf16 beside fp32 ones that learn are divided too, and the adapter off is the reference."""
    asked: dict[str, Any] = {"stage": {"method": "dpo", "lora": {"rank": 4, "alpha": 8.0, "base": base}}}
    one, two = run(tmp_path / "one", **asked), run(tmp_path / "two", 2, **asked)
    for a, b in zip(one, two, strict=True):
        for name in a.keys() & {"loss", "gradient_norm", "pairs_correct"}:
            assert a[name] == pytest.approx(b[name], rel=2e-4, abs=2e-5), (a["step"], name)
    assert far(tmp_path / "one", tmp_path / "two") < 1e-4
    assert {p.name for p in (tmp_path / "two" / "preference" / "adapter").iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["t5", "bart"])
@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_two_stacks(tmp_path: Path, preset: str, method: str) -> None:
    """An encoder reads the question, the decoder's answers are compared; micro-batches change nothing there either."""
    run(tmp_path / "a", preset=preset, stage={"method": method, "steps": 20})
    found = summary(tmp_path / "a")
    assert found["before"]["pairs_correct"] == 0.5 and found["after"]["pairs_correct"] > 0.9
    small = run(tmp_path / "small", preset=preset, stage={"method": method, "steps": 2})
    large = run(tmp_path / "large", preset=preset, stage={"method": method, "steps": 2, "pairs": {"pairs": 7, "micro_tokens": 8192}})
    assert [r["loss"] for r in small] == pytest.approx([r["loss"] for r in large], rel=1e-4)


@pytest.mark.slow
def test_every_method_runs_as_a_stage(tmp_path: Path) -> None:
    for method in METHODS:
        run(tmp_path / method, stage={"method": method, "steps": 3})
        assert summary(tmp_path / method)["method"] == method
        assert (tmp_path / method / "preference" / "config.json").is_file()


# ── the recipes ──
def test_the_recipes_are_short_and_complete() -> None:
    for name, kind in (("dpo", "pairs"), ("kto-marks", "marks")):
        path = RECIPES / f"{name}.yaml"
        assert len(path.read_text(encoding="utf-8").splitlines()) < 60
        nodes = load_recipe(path, scale="ci").nodes
        last = list(nodes)[-1]
        options = nodes[last].options.resolved()
        assert options["data"] == f"people/{kind}.train.jsonl" and options["validation"] == f"people/{kind}.validation.jsonl"


def recipe(name: str, data: Path, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "norma", "run", str(RECIPES / f"{name}.yaml"), "--scale", "ci", f"output={folder}"]
    how: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 600, "env": {**os.environ, "NO_COLOR": "1"}}
    done = subprocess.run([*command, f"people.sources.0.path={data}"], **how)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Held-out rows" in done.stdout
    found: dict[str, Any] = json.loads((folder / name.split("-")[0] / "lineage.json").read_text())["summary"]
    return found


@pytest.mark.slow
def test_the_recipes_run(tmp_path: Path) -> None:
    pairs = [{"prompt": f"What is {i}?", "chosen": f"Certainly: {i} is a number.", "rejected": f"No idea what {i} is"} for i in range(150)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    found = recipe("dpo", tmp_path / "pairs.jsonl", tmp_path / "dpo")
    assert found["after"]["pairs_correct"] > 0.9 and found["before"]["pairs_correct"] == 0.5
    marks = [f"x,{i % 2},{'Would you please look at' if i % 2 == 0 else 'Shut up about'} number {i}" for i in range(300)]
    (tmp_path / "marks.csv").write_text("topic,label,TEXT\n" + "".join(row + "\n" for row in marks))
    found = recipe("kto-marks", tmp_path / "marks.csv", tmp_path / "kto")
    assert found["after"]["pairs_correct"] > 0.7
