"""``rollouts:``: a server writes what a stage learns from, and has the weights of now whenever it is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import norma
from norma.base.errors import NormaError
from norma.lm import LanguageModel
from norma.pipeline.stage import SCRATCH
from rollout_server import Server
from tiny_problems import TINY

ROOT = Path(__file__).parents[2]
ASKS = {"questions": "problems/qa.train.jsonl"}
SMALL = {"questions": 2, "max_new_tokens": 6}
STAGES: dict[str, dict[str, Any]] = {
    "grpo": {"kind": "reward", **ASKS, "steps": 4, "policy": {**SMALL, "group": 3}},
    "ppo": {"kind": "reward", **ASKS, "steps": 4, "policy": {**SMALL, "group": 1, "method": "ppo", "epochs": 2}},
    "online": {"kind": "preference", **ASKS, "steps": 3, "online": {**SMALL, "answers": 3}},
    "best-of": {"kind": "best-of", **ASKS, "rounds": 2, "count": 3, "answers": 3, "max_new_tokens": 60, "least": None},
}
SENT = {"grpo": 5, "ppo": 3, "online": 4, "best-of": 3}  # once when the stage begins, then for each rollout


def run(folder: Path, stage: dict[str, Any]) -> Path:
    recipe = {"norma": 1, "name": "tiny", "seed": 1, "spec": str(ROOT / "recipes" / "grpo-verifiable.spec.yaml")}
    path = folder / "recipe.json.yaml"
    stages = TINY | {"stage": {"from": "worked", **stage}}
    path.write_text(json.dumps(recipe | {"output": str(folder / "run"), "stages": stages}), encoding="utf-8")
    norma.run(str(path))
    return folder / "run" / "stage"


@pytest.fixture
def server(make_model: Any) -> Iterator[Server]:
    made = Server(make_model())  # answers by weights of its own until it is sent others: they would not even have this vocabulary
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.mark.parametrize("name", STAGES)
def test_every_answer_is_the_servers_by_the_weights_of_now(tmp_path: Path, server: Server, name: str) -> None:
    folder = run(tmp_path, {**STAGES[name], "rollouts": {"url": server.url, "model": "policy"}})
    sent = [body["kwargs"]["weights_path"] for path, body, _ in server.asked if path == "/collective_rpc"]
    assert len(sent) == SENT[name]
    assert Path(sent[0]).parent.name == SCRATCH and not (folder / SCRATCH).exists(), "what only the server needed is dropped"
    journal = [json.loads(line) for line in (folder / "rollouts-0.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(journal) == len(server.questions) > 0
    if name == "grpo":
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        assert len(journal) == 4 * 2 * 3 and [r["step"] for r in rows] == list(range(4))
        assert all(0 <= r["mismatch"] < 0.02 for r in rows), "log p on the wire is the trainer's, but for rounding in bf16"
        served, before = (m.transformer.state_dict() for m in (server.model, LanguageModel.load(tmp_path / "run" / "worked")))
        assert any(not served[key].equal(before[key]) for key in before), "what was sent last had learnt"


def test_rollouts_without_questions_are_refused(tmp_path: Path) -> None:
    stage = {"kind": "preference", "data": "worked/pairs.jsonl", "rollouts": {"url": "http://127.0.0.1:9", "model": "policy"}}
    with pytest.raises(NormaError, match="rollouts writes answers to questions"):
        run(tmp_path, stage)
