"""recipes/claude.yaml at its smallest scale, end to end: revisions, comparisons, preference model, RL, report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from norma.base.files import read_json, read_jsonl

RECIPE = Path(__file__).parents[2] / "recipes" / "claude.yaml"


@pytest.mark.slow
def test_the_smallest_scale(tmp_path: Path) -> None:
    output = tmp_path / "run"
    command = [sys.executable, "-m", "norma", "run", str(RECIPE), "--scale", "ci", f"output={output}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ, "NO_COLOR": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    revisions = read_jsonl(output / "constitution" / "revisions.jsonl")
    assert any(r["accepted"] for r in revisions) and {r["critic"] for r in revisions} == {"checkers"}
    assert read_jsonl(output / "constitution" / "pairs.train.jsonl")
    assert [m["method"] for m in read_json(output / "report.json")["methods"]] == ["helpful", "sl", "rl"]


def test_the_recipe_is_short() -> None:
    assert len(RECIPE.read_text(encoding="utf-8").splitlines()) < 60
