"""kill -9 anywhere, then the same command: equal artefacts, no finished stage made again, no step of a stage done twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def sweep(project: Any, *options: str) -> list[dict[str, Any]]:
    command = [sys.executable, str(Path(__file__).with_name("sweep.py")), str(project.folder), *options]
    done = subprocess.run(command, env=project.environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    "options",
    [pytest.param((), id="a new run"), pytest.param(("--again",), id="replacing finished artefacts", marks=pytest.mark.slow)],
)
def test_kill_before_every_change_to_the_disk(project: Any, options: tuple[str, ...]) -> None:
    rows = sweep(project, *options)
    assert len(rows) > 40  # the sweep did reach the end of a run
    assert [r["alive"] for r in rows] == [False] * (len(rows) - 1) + [True]
    for row in rows:
        assert row["equal"] and not row["finished_redone"] and not row["steps_redone"], row
        assert not row["left_over"] and not row["unfinished"], row


@pytest.mark.parametrize("point", ["first:2", "second:enter", "second:3", "end:enter"])
def test_kill_of_the_command_itself(project: Any, other_project: Any, point: str) -> None:
    unbroken = other_project()
    assert unbroken.norma("run", "recipe.yaml", "--trust").returncode == 0
    assert project.norma("run", "recipe.yaml", "--trust", NORMA_TEST_DIE=point).returncode == -9
    before = project.calls()
    assert project.norma("run", "recipe.yaml", "--trust").returncode == 0
    after = project.calls()[len(before) :]
    stage = point.split(":")[0]
    order = ["first", "second", "aside", "end"]
    entered = [call.split(":")[0] for call in after if call.endswith(":enter")]
    assert entered == order[order.index(stage) :]
    for name in order:
        rows = [json.loads((p.run_folder / name / "lineage.json").read_text()) for p in (unbroken, project)]
        assert rows[0]["content"] == rows[1]["content"] and rows[0]["digest"] == rows[1]["digest"]
        assert rows[1]["sessions"] == (2 if name == stage else 1)


def test_a_plan_is_measured_once(project: Any) -> None:
    project.norma("run", "recipe.yaml", "--trust", NORMA_TEST_DIE="first:1")
    chosen = json.loads((project.run_folder / ".work" / "first" / "plan.json").read_text())
    assert project.norma("run", "recipe.yaml", "--trust").returncode == 0
    assert json.loads((project.run_folder / "first" / "plan.json").read_text()) == chosen
    assert json.loads((project.run_folder / "first" / "lineage.json").read_text())["summary"]["micro"] == chosen["micro"]
