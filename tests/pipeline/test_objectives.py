"""Every objective, killed with -9 at every moment, ends with an unbroken run's bits; recipes/objectives.yaml does at its smallest scale.

The table of docs/pretraining.md: ``python -m pytest -m slow tests/pipeline/test_objectives.py -s``, or tests/pipeline/kill_matrix.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from norma.pipeline.recipe import load_recipe

sys.path.insert(0, str(Path(__file__).parent))
from kill_matrix import MOMENTS, OBJECTIVES

MATRIX = Path(__file__).with_name("kill_matrix.py")
RECIPE = Path(__file__).parents[2] / "recipes" / "objectives.yaml"
STAGES = ("generative", "masked", "next-sentence", "alternating", "infilling", "spans", "denoising", "given")
STEPS = 12
KILLED_AFTER = {"next-sentence": 3, "denoising": 7}  # rows of metrics.jsonl
SETTINGS = [f"{stage}.steps={STEPS}" for stage in STAGES] + [f"{stage}.train.checkpoint_seconds=0.01" for stage in STAGES]
SETTINGS += [f"{stage}.micro_batch=6" for stage in STAGES]  # accumulation, in parts that do not divide the batch


def start(output: Path, *more: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "norma", "run", str(RECIPE), "--scale", "ci", f"output={output}", *SETTINGS, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "NO_COLOR": "1"})


def finish(output: Path) -> str:
    process = start(output)
    text = process.communicate(timeout=600)[0].decode()
    assert process.returncode == 0, text
    return text


def test_the_recipe_names_every_objective() -> None:
    nodes = load_recipe(RECIPE).nodes
    named = {part["objective"] for stage in STAGES for part in nodes[stage].options.resolved()["mix"]}
    assert named == {"generative", "masked", "next-sentence", "masked-next", "infilling", "spans", "denoising", "given"}


@pytest.mark.slow
def test_every_objective_at_every_moment() -> None:
    """Each is killed by its own hand: before anything is saved, within a gradient, with half a checkpoint, with half a row, in decay."""
    done = subprocess.run([sys.executable, str(MATRIX), "--json"], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["objective"] for row in rows] == list(OBJECTIVES)
    print(*(f"{row['objective']:18} {row['unbroken'][:12]} {row['continued'][:12]}" for row in rows), sep="\n")
    for row in rows:
        assert row["killed"] == list(MOMENTS) and row["unbroken"] == row["continued"] and row["equal"], row
        assert row["steps"] == list(range(len(row["steps"]))), f"{row['objective']}: a gap or a double row"
        assert row["learns"], f"{row['objective']} learns nothing"


@pytest.mark.slow
def test_the_recipe_killed_from_outside_and_unbroken_end_bit_identical(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(whole)
    for stage, rows in KILLED_AFTER.items():
        metrics = broken / ".work" / stage / "metrics.jsonl"
        process = start(broken)
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            if metrics.exists() and metrics.read_bytes().count(b"\n") >= rows:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        process.wait(timeout=60)
        assert process.returncode == -signal.SIGKILL, f"the run was over before it could be killed in {stage}"
    finish(broken)
    for stage in STAGES:
        digests = [hashlib.sha256((run / stage / "model.safetensors").read_bytes()).hexdigest() for run in (whole, broken)]
        assert digests[0] == digests[1], stage
        rows_of = [[json.loads(line) for line in (run / stage / "metrics.jsonl").read_text().splitlines()] for run in (whole, broken)]
        assert [row["step"] for row in rows_of[1]] == list(range(STEPS)), f"{stage}: a gap or a double row"
        assert [row["loss"] for row in rows_of[0]] == [row["loss"] for row in rows_of[1]], stage
        assert rows_of[0][-1]["loss"] < rows_of[0][0]["loss"], f"{stage} learns nothing"
