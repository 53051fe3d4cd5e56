"""The reward stage as a whole: PPO with a reward model, rules and other rows mixed in; what is refused; what is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import norma
from norma.base.errors import NormaError
from tiny_problems import TINY

ROOT = Path(__file__).parents[2]


def run(folder: Path, **reward: Any) -> list[dict[str, Any]]:
    stage = {"kind": "reward", "from": "worked", "questions": "problems/qa.train.jsonl", "steps": 5} | reward
    recipe = {"norma": 1, "name": "tiny", "seed": 1, "spec": str(ROOT / "recipes" / "grpo-verifiable.spec.yaml")}
    path = folder / "recipe.json.yaml"
    path.write_text(json.dumps(recipe | {"output": str(folder / "run"), "stages": TINY | {"reward": stage}}), encoding="utf-8")
    norma.run(str(path))
    return [json.loads(line) for line in (folder / "run" / "reward" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reward model that likes long answers."""

    class RewardModel:
        names = ("reward",)

        @staticmethod
        def load(folder: Path) -> RewardModel:
            assert (folder / "config.json").is_file()
            return RewardModel()

        def scores(self, prompts: Any, answers: Any) -> torch.Tensor:
            return torch.tensor([[float(len(a))] for a in answers])

    module = ModuleType("norma.align.reward_model")
    module.RewardModel = RewardModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "norma.align.reward_model", module)


SMALL = {"questions": 2, "group": 3, "max_new_tokens": 6}


def test_ppo_by_a_reward_model_with_other_rows_mixed_in(tmp_path: Path, scorer: None) -> None:
    mixed = {"data": [{"rows": "problems/examples.train.jsonl"}], "coefficient": 0.5, "batch": 2, "sequence": 64}
    rows = run(tmp_path, policy={"method": "ppo", **SMALL}, reward_model="worked", rules=False, pretraining=mixed)
    assert [r["step"] for r in rows] == list(range(5))
    first, last = rows[0], rows[4]
    names = {"reward", "kl", "kl_coefficient", "entropy", "answer_tokens", "unfinished", "masked", "clip_share", "value_loss", "loss"}
    assert names | {"explained_variance", "pretraining_loss", "model/reward"} <= first.keys()
    assert first["kl"] == pytest.approx(0, abs=1e-4) and first["clip_share"] == 0
    assert first["reward"] == rows[3]["reward"] != last["reward"], "four steps a rollout"
    plan = json.loads((tmp_path / "run" / "reward" / "plan.json").read_text())
    assert first["reward"] == pytest.approx(first["model/reward"] - plan["reward_shift"] - 0.5 * first["unfinished"], abs=1e-5)
    log = (tmp_path / "run" / "reward" / "log.txt").read_text(encoding="utf-8")
    assert "that counts as 0" in log and "2 x 3 answers = 6 a rollout" in log
    assert {part for _, part in plan["row"]} == {"read", "learnt", "unlearnt"}, "the longest answer over the shortest, coloured"
    assert (tmp_path / "run" / "reward" / "model.safetensors").is_file()


def test_grpo_by_rules_is_the_default(tmp_path: Path) -> None:
    rows = run(tmp_path, policy=SMALL, steps=2)
    assert {"rule/answer.right", "held_out/answer.right", "reward_held_out", "flat_groups"} <= rows[0].keys()
    assert "held_out/answer.right" not in rows[1] and rows[0]["kl_coefficient"] == 0.05
    if rows[0]["flat_groups"] == rows[1]["flat_groups"] == 1:
        log = (tmp_path / "run" / "reward" / "log.txt").read_text(encoding="utf-8")
        assert "100% of groups gave no signal because all answers got the same reward" in log


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"rules": False}, "needs a reward_model"),
        ({"policy": {"top_p": 0.9}}, "whole distribution"),
        ({"policy": {"method": "pro"}}, "ppo"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(NormaError, match=why) as error:
        run(tmp_path, **options)
    assert "\n" not in str(error.value)
