"""kill -9 in the middle of PPO and GRPO, within a rollout too: the run that goes on ends bit-equal to the one left in peace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KEPT = {
    "ppo": ["kl_coefficient", "multipliers", "rollout"],
    "grpo": ["multipliers", "rollout"],
    "dapo": ["multipliers", "rollout"],
    "reinforce": ["baseline", "multipliers"],
}


@pytest.mark.parametrize("names", [["grpo"], pytest.param(["ppo", "dapo", "reinforce"], marks=pytest.mark.slow)])
def test_killed_at_random_instants(names: list[str], tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).with_name("killing_policy.py")), str(tmp_path), *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["run"] for r in rows] == names
    for row in rows:
        assert all(row["equal"].values()), row
        assert row["steps"] == list(range(14)) and not row["left_over"], row
        assert row["state"] == KEPT[row["run"]], row  # 14 steps end in the middle of a rollout where it has 4 or 3 steps
        assert row["deaths"][:5] == ["step", "disk", "step", "disk", "step"], row
