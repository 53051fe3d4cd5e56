"""The server under load, under a fuzzer, and told to stop; tried with lm-eval's way of asking in ``test_local``."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from starlette.testclient import TestClient

from norma.bench.serving import ask_all
from norma.lm import LanguageModel
from norma.serve.app import build_app
from norma.serve.audit import Audit
from norma.serve.local import Local

ASKED: Any = [{"role": "user", "content": "What does `json.dumps` do?"}]


@pytest.mark.slow
def test_fifty_streaming_clients(alive: Any, make_model: Callable[..., LanguageModel]) -> None:
    """All are answered, whole, and as they would be alone; ``norma bench serve`` asks with the same clients."""
    model = make_model(11, 0.2, max_positions=400)
    server = alive(Local(model, "tiny", rows=16, waiting=64, dtype=torch.float32))
    asked = {"model": "tiny", "messages": ASKED, "max_tokens": 48, "temperature": 1}
    found, _ = asyncio.run(ask_all(server.url, [{**asked, "seed": seed % 5} for seed in range(50)], 50))
    for seed in range(5):
        whole = httpx.post(f"{server.url}/chat/completions", json={**asked, "seed": seed}, timeout=60).json()
        assert {(h.status, h.text, h.tokens) for h in found[seed::5]} == {
            (200, whole["choices"][0]["message"]["content"], whole["usage"]["completion_tokens"])
        }
    assert server.backend.load == 0


FUZZED = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/feedback")


@pytest.mark.slow
def test_no_request_is_a_server_error(make_model: Callable[..., LanguageModel], tmp_path: Path) -> None:
    """schemathesis makes bodies from the routes' own schemas, right and wrong ones; every answer is JSON, and none is a 500."""
    schemathesis = pytest.importorskip("schemathesis")
    model = make_model(11, 0.2, max_positions=64)
    app = build_app(Local(model, "tiny", dtype=torch.float32), audit=Audit(tmp_path / "audit.sqlite"))
    app.openapi_url = "/openapi.json"
    document = app.openapi()
    schema = schemathesis.openapi.from_dict(json.loads(json.dumps(document)))
    codes: Counter[int] = Counter()
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        for path in FUZZED:
            for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
                _fuzz(client, path, schema[path]["POST"].as_strategy(generation_mode=mode), codes)
    print(dict(codes))
    assert codes[400] > 20 and codes[200] > 20


def _fuzz(client: TestClient, path: str, cases: Any, codes: Counter[int]) -> None:
    @given(case=cases)
    @settings(max_examples=40, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    def one(case: Any) -> None:
        body = case.body if isinstance(case.body, dict) else {"odd": repr(case.body)}
        for fields in (body, {**body, "model": "tiny"}):
            response = client.post(path, content=json.dumps(fields, default=repr), headers={"content-type": "application/json"})
            codes[response.status_code] += 1
            assert response.status_code in (200, 400, 404, 429, 501), (response.status_code, response.text, fields)
            if not response.headers["content-type"].startswith("text/event-stream"):
                assert isinstance(response.json(), dict)

    one()


@pytest.mark.slow
def test_sigterm_lets_what_runs_finish(make_model: Callable[..., LanguageModel], tmp_path: Path) -> None:
    make_model(11, 0.2, max_positions=4000).save(tmp_path / "tiny")
    environment = {**os.environ, "PYTHONPATH": str(Path("src").absolute()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "norma", "serve", str(tmp_path / "tiny"), "--port", "0", "--log", str(tmp_path / "log.jsonl")]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found
        body = {"model": "tiny", "messages": ASKED, "max_tokens": 600, "temperature": 1, "seed": 3, "stream": True}
        with httpx.stream("POST", f"{found.group()}/chat/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            server.send_signal(signal.SIGTERM)
            rest = list(lines)
        assert rest[-2] == "data: [DONE]" or "data: [DONE]" in rest
        assert server.wait(timeout=30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{found.group()}/models")
    finally:
        if server.poll() is None:
            server.kill()
        server.communicate(timeout=10)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    [row] = [r for r in rows if r.get("path") == "/v1/chat/completions"]
    assert (
        row["status"] == 200
        and row["completion_tokens"] > 0
        and row["first_token_seconds"] <= row["seconds"]
        and "json.dumps" not in str(row)
    )
