"""A real training, started, stopped and resumed from the Runs page: through the routes, with `norma run` as the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from norma.studio import Place, build_app

STEPS = 400
RECIPE = f"""\
norma: 1
name: small
seed: 1
stages:
  stream: {{kind: stream, path: text.txt, validation_share: 0.1}}
  tokenizer: {{kind: tokenizer, corpus: stream, unit: characters}}
  tokens: {{kind: tokens, text: stream, marks: false}}
  pretrain:
    kind: pretrain
    mix: [{{objective: generative}}]
    model: {{preset: qwen3, width: 32, layers: 1, head_size: 16, max_positions: 32}}
    validation: stream/text.validation.jsonl
    sequence: 17
    batch: 4
    steps: {STEPS}
"""


def wait_for(what: Callable[[], Any], why: Callable[[], str]) -> Any:
    end = time.monotonic() + 240
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError(why())


def gone(process: int) -> bool:
    """Whether a process has ended and was waited for."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    source = str(Path(__file__).parents[2] / "src")
    monkeypatch.setenv("PYTHONPATH", source)
    (tmp_path / "text.txt").write_text("To be, or not to be, that is the question.\n" * 200, encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    command = [sys.executable, "-m", "norma", "run", "recipe.yaml", "--until", "stream"]
    done = subprocess.run(command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    with closing(Place(tmp_path / "runs" / "small", secret=b"k" * 32, local="me")) as place:
        app = build_app(place)
        opened = TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)
        opened.get(f"/open?token={app.state.door.token}")
        opened.headers["x-csrf-token"] = opened.get("/chat").text.partition('name="csrf" content="')[2].partition('"')[0]
        yield opened
        if opened.get("/api/run").json()["running"]:  # a failed assertion leaves no training behind
            opened.post("/api/run/stop", json={"run": "small"})


@pytest.mark.slow
def test_a_training_is_started_stopped_with_its_checkpoint_and_resumed(client: TestClient, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "small"

    def state() -> Any:
        return client.get("/api/run").json()

    def log() -> str:
        return str(state()["log"])

    def steps(folder: Path) -> list[int]:
        path = folder / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        return [json.loads(line)["step"] for line in lines if line.endswith("\n")]

    def stage() -> str:
        return str(next(s["state"] for s in state()["stages"] if s["name"] == "pretrain"))

    work = run / ".work" / "pretrain"
    process = client.post("/api/run/start", json={"run": "small"}).json()["process"]
    wait_for(lambda: len(steps(work)) >= 5, log)
    assert state()["running"] and client.post("/api/run/start", json={"run": "small"}).status_code == 400
    assert client.post("/api/run/stop", json={"run": "small"}).json()["process"] == process
    wait_for(lambda: gone(process), log)  # ended, and no zombie of the studio's
    assert not state()["running"]

    saved = [int(p.name.partition("-")[2]) for p in work.glob("checkpoint-*")]
    done = steps(work)
    assert done and max(saved) == max(done) + 1 < STEPS  # the step in hand was finished and saved
    assert stage() == "stopped" and "Stopped. To go on" in log()

    client.post("/api/run/start", json={"run": "small"})
    wait_for(lambda: (run / "pretrain" / "model.safetensors").is_file() and not state()["running"], log)
    assert steps(run / "pretrain") == list(range(STEPS))  # no step twice, none left out
    assert json.loads((run / "pretrain" / "lineage.json").read_text(encoding="utf-8"))["sessions"] == 2
    assert stage() == "done"
