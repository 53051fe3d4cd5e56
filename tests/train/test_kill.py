"""kill -9 at any instant, half a file and half a row included: the run that goes on ends bit-equal to the one left in peace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FEW = ["rollback:2"]
MANY = [f"{policy}:{seed}" for policy in ("stop", "skip", "rollback") for seed in (0, 1, 3)]
SKIPPED = {"stop": [], "skip": [13, 18], "rollback": [11, 12, 13, 16, 17, 18]}


@pytest.mark.parametrize("runs", [pytest.param(FEW, id="few"), pytest.param(MANY, id="many", marks=pytest.mark.slow)])
def test_killed_at_random_instants(runs: list[str], tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("killing.py")), str(tmp_path), *runs]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["run"] for r in rows] == runs
    for row in rows:
        assert all(row["equal"].values()), row
        assert row["steps"] == list(range(26)) and row["samples"] == [3, 7, 11, 15, 19, 23], row
        assert row["skipped"] == SKIPPED[row["run"].split(":")[0]], row
        assert not row["left_over"], row
    assert {kind for row in rows for kind in row["deaths"]} == {"time", "disk", "file", "row"}
