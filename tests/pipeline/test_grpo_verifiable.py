"""The recipe of verifiable rewards at its small scale: the accuracy on problems that no training saw rises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import norma
from norma.pipeline.recipe import load_recipe

ROOT = Path(__file__).parents[2]


def test_it_is_short_and_says_what_it_takes() -> None:
    path = ROOT / "recipes" / "grpo-verifiable.yaml"
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60
    load_recipe(path)


@pytest.mark.slow
def test_accuracy_rises_on_held_out_problems(tmp_path: Path) -> None:
    norma.run(str(ROOT / "recipes" / "grpo-verifiable.yaml"), scale="ci", overrides={"output": str(tmp_path)})
    rows = [json.loads(line) for line in (tmp_path / "grpo" / "metrics.jsonl").read_text().splitlines()]
    assert {"reward", "rule/answer.right", "held_out/answer.right", "reward_held_out", "kl", "entropy", "flat_groups"} <= rows[0].keys()
    report = json.loads((tmp_path / "report.json").read_text())
    rates = {m["method"]: m["overall"] for m in report["methods"]}
    assert rates["grpo"]["rate"] > rates["worked"]["rate"] + 0.1, rates
    (change,) = [c for c in report["comparisons"] if c["rule"] is None and c["after"] == "grpo"]
    assert change["low"] > 0, change
