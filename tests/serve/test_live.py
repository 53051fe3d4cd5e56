"""A real socket: the openai client, curl, `norma check --endpoint`, closed connections, Ctrl-C."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from norma.base.errors import NormaError
from norma.evaluate.endpoint import EndpointAnswerer
from norma.evaluate.gate import check_model
from norma.serve.run import HOST, listen

ASK: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "Why."}]}


def test_the_openai_client(alive: Any, fake_model: Any, fake_spec: Any) -> None:
    server = alive(fake_model(), fake_spec())
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
        assert [m.id for m in client.models.list()] == ["fake"]
        whole = client.chat.completions.create(model="fake", messages=ASK["messages"], n=2, max_tokens=9, seed=1, stop=["zzz"])
        assert [c.message.content for c in whole.choices] == ["Certainly: Why."] * 2 and whole.choices[0].finish_reason == "stop"
        assert whole.usage is not None and whole.usage.completion_tokens == 4
        assert [v["status"] for v in whole.model_extra["norma"]["verdicts"]] == ["compliant"] * 4  # type: ignore[index]
        pieces, usage, norma = [], None, None
        for chunk in client.chat.completions.create(
            model="fake", messages=ASK["messages"], stream=True, stream_options={"include_usage": True}
        ):
            pieces += [c.delta.content or "" for c in chunk.choices]
            usage, norma = chunk.usage or usage, (chunk.model_extra or {}).get("norma", norma)
        assert "".join(pieces) == "Certainly: Why." and usage is not None and usage.total_tokens == 6
        assert norma is not None and norma["active"] == ["style.polite", "form.stop"]
        with pytest.raises(openai.NotFoundError, match="'fake' is"):
            client.chat.completions.create(model="gpt", messages=ASK["messages"])
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="fake", messages=ASK["messages"], temperature=3)
        assert caught.value.param == "temperature"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed here")
def test_curl_as_the_server_suggests_it(alive: Any, fake_model: Any) -> None:
    server = alive(fake_model())
    command = ["curl", "-sS", f"{server.url}/chat/completions", "-H", "content-type: application/json", "-d", json.dumps(ASK)]
    body = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=20).stdout)
    assert body["choices"][0]["message"]["content"] == "Certainly: Why."


def test_norma_check_against_a_live_server_agrees_with_the_model_itself(
    alive: Any, fake_model: Any, fake_spec: Any, tmp_path: Path
) -> None:
    def sometimes(messages: Any, seed: int) -> str:
        return "Yes." if "7" in messages[-1]["content"] or "11" in messages[-1]["content"] else "Certainly."

    server, spec = alive(fake_model(answer=sometimes)), fake_spec()
    result = check_model(spec, spec.elicit(), EndpointAnswerer(server.url, "fake"), tmp_path)
    row = result.report["methods"][0]["rules"][0]
    assert (row["rule"], row["compliant"], row["applicable"], result.exit_code) == ("style.polite", 10, 12, 1)
    with pytest.raises(NormaError, match="knows no model 'other'"):
        check_model(spec, spec.elicit(), EndpointAnswerer(server.url, "other"), tmp_path)


def test_nobody_listens() -> None:
    with listen(0) as bound:
        port = bound.getsockname()[1]
    with pytest.raises(NormaError, match="nobody answers"):
        EndpointAnswerer(f"http://{HOST}:{port}", "m", wait=lambda seconds: None).answer([_item()])


def _item() -> Any:
    from norma.spec import Item

    return Item("x", ({"role": "user", "content": "x"},))


@pytest.mark.parametrize("stream", [False, True])
def test_a_closed_connection_stops_the_generation(alive: Any, fake_model: Any, stream: bool, wait_until: Any) -> None:
    gate = threading.Semaphore(3)
    model = fake_model(answer=lambda messages, seed: "w " * 5000, gate=gate, positions=10000)
    server = alive(model)
    body = json.dumps({**ASK, "stream": stream, "max_tokens": 4000}).encode()
    with socket.create_connection((HOST, server.port)) as connection:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body)
        wait_until(lambda: model.written == 3)
    wait_until(lambda: server.backend.load == 0)  # the server has noticed; the model is waiting for its fourth word
    gate.release(5000)
    wait_until(lambda: model.closed == 1)
    assert model.written <= 4  # the word it was at, and not one more
    answer = httpx.post(f"{server.url}/chat/completions", json={**ASK, "max_tokens": 2}, timeout=20).json()
    assert answer["choices"][0]["finish_reason"] == "length"  # the next one is served


def test_a_waiting_request_whose_client_has_gone_is_never_begun(alive: Any, fake_model: Any, wait_until: Any) -> None:
    gate = threading.Semaphore(0)
    model = fake_model(gate=gate)
    server = alive(model)
    first = threading.Thread(target=lambda: httpx.post(f"{server.url}/chat/completions", json=ASK, timeout=30))
    first.start()
    wait_until(lambda: len(model.asked) == 1)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/chat/completions", json={**ASK, "messages": [{"role": "user", "content": "second"}]}, timeout=0.3)
    wait_until(lambda: server.backend.load == 1)
    gate.release(100)
    first.join(timeout=10)
    assert len(model.asked) == 1


def test_one_at_a_time_in_order_and_a_full_queue_is_refused(alive: Any, fake_model: Any, wait_until: Any) -> None:
    gate = threading.Semaphore(0)
    model = fake_model(gate=gate)
    server = alive(model, waiting=3)
    texts: dict[int, str] = {}

    def ask(i: int) -> None:
        body = {**ASK, "messages": [{"role": "user", "content": f"number {i}"}]}
        texts[i] = httpx.post(f"{server.url}/chat/completions", json=body, timeout=30).json()["choices"][0]["message"]["content"]

    threads = []
    for i in range(3):
        threads.append(threading.Thread(target=ask, args=(i,)))
        threads[-1].start()
        wait_until(lambda i=i: server.backend.load == i + 1)
    refused = httpx.post(f"{server.url}/chat/completions", json=ASK, timeout=10)
    assert refused.status_code == 429 and refused.json()["error"]["code"] == "busy"
    gate.release(100)
    for thread in threads:
        thread.join(timeout=10)
    assert texts == {i: f"Certainly: number {i}" for i in range(3)}
    assert [messages[-1]["content"] for messages, _ in model.asked] == ["number 0", "number 1", "number 2"]


def test_a_taken_port_is_one_clear_line() -> None:
    with listen(0) as bound:
        bound.listen()
        with pytest.raises(NormaError, match="is taken"):
            listen(bound.getsockname()[1])
    with pytest.raises(NormaError, match="not a port"):
        listen(70000)
