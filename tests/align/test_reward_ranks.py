"""Two processes train a policy as one does: same rollouts, same advantages, same gradient, same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from processes import run_ranks

SCRIPT = Path(__file__).with_name("ranked_policy.py")
pytestmark = pytest.mark.slow


def run(folder: Path, count: int, **asked: Any) -> list[dict[str, Any]]:
    run_ranks(SCRIPT, folder, asked, count=count)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"method": "grpo"}, id="grpo"),
        pytest.param({"method": "ppo"}, id="ppo, a critic of its own"),
        pytest.param({"method": "ppo", "value": {"backbone": "shared"}, "minibatches": 3}, id="ppo, shared, a rank without questions"),
        pytest.param({"method": "grpo", "lora": True}, id="grpo, LoRA: its own reference"),
        pytest.param({"method": "dapo", "epochs": 1, "minibatches": 1}, id="dapo, one step a rollout"),
    ],
)
def test_equal_to_one_process(tmp_path: Path, asked: dict[str, Any]) -> None:
    one, two = run(tmp_path / "one", 1, **asked), run(tmp_path / "two", 2, **asked)
    assert len(one) == len(two) == 8
    for a, b in zip(one, two, strict=True):
        for name in a.keys() - {"seconds", "eta", "tokens_per_s"}:
            assert a[name] == pytest.approx(b[name], rel=1e-3, abs=2e-5), (a["step"], name)
    ours, theirs = load_file(tmp_path / "one" / "end.safetensors"), load_file(tmp_path / "two" / "end.safetensors")
    assert max(float((ours[n] - theirs[n]).abs().max()) for n in ours) < 2e-5
    states = [json.loads((tmp_path / side / "state.json").read_text()) for side in ("one", "two")]
    assert states[0].keys() == states[1].keys() and states[0].get("multipliers") == pytest.approx(states[1].get("multipliers"))
