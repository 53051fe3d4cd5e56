"""``rollouts:``: a server writes what a stage learns from, and has the weights of now whenever it is asked."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
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


def written(folder: Path, stage: dict[str, Any]) -> Path:
    """The recipe of a run in ``folder``/run."""
    recipe = {"norma": 1, "name": "tiny", "seed": 1, "spec": str(ROOT / "recipes" / "grpo-verifiable.spec.yaml")}
    folder.mkdir(exist_ok=True)
    path = folder / "recipe.json.yaml"
    stages = TINY | {"stage": {"from": "worked", **stage}}
    path.write_text(json.dumps(recipe | {"output": str(folder / "run"), "stages": stages}), encoding="utf-8")
    return path


def run(folder: Path, stage: dict[str, Any]) -> Path:
    norma.run(str(written(folder, stage)))
    return folder / "run" / "stage"


def run_on_two_ranks(folder: Path, stage: dict[str, Any]) -> Path:
    """As :func:`run`, as torchrun starts it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    env |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "norma", "run", str(written(folder, stage))]
    both: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    ranks = [subprocess.Popen(command, env=env | {"RANK": str(r), "LOCAL_RANK": str(r)}, **both) for r in range(2)]
    said = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks), "\n".join(text[-3000:] for text in said)
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


@pytest.mark.slow
def test_ranks_share_a_server(tmp_path: Path, server: Server) -> None:
    """Each rank asks for its share, the first alone sends weights; the first rollout's answers are those of one process."""
    stage = {**STAGES["grpo"], "rollouts": {"url": server.url, "model": "policy"}}

    def steps(folder: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]

    def sent() -> int:
        return sum(path == "/collective_rpc" for path, _, _ in server.asked)

    one = steps(run(tmp_path / "one", stage))
    alone, questions = sent(), server.questions
    folder = run_on_two_ranks(tmp_path / "two", stage)
    two, shared = steps(folder), server.questions[len(questions) :]
    assert sent() == 2 * alone == 2 * SENT["grpo"]
    journals = [(folder / f"rollouts-{rank}.jsonl").read_text(encoding="utf-8").splitlines() for rank in range(2)]
    assert [len(journal) for journal in journals] == [4 * 1 * 3] * 2, "a question of three answers each, in four rollouts"

    def first(asked: list[dict[str, Any]]) -> list[str]:
        return sorted(json.dumps(body, sort_keys=True) for body in asked[: 2 * 3])

    assert first(shared) == first(questions)
    assert two[0]["reward"] == one[0]["reward"] and two[0]["loss"] == pytest.approx(one[0]["loss"], abs=1e-3)
    assert all(0 <= row["mismatch"] < 0.02 for row in two)
