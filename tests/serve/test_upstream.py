"""The spec layer in front of another OpenAI-compatible server: here a Norma of its own, and servers that misbehave."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
import openai
import pytest

from norma.base.errors import NormaError
from norma.serve.ruling import Policy, Ruling
from norma.serve.upstream import Upstream

ASK: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "Why."}]}


def test_rules_go_out_and_verdicts_come_back(alive: Any, fake_model: Any, fake_spec: Any) -> None:
    model = fake_model()
    behind = alive(model)
    front = alive(Upstream(behind.url), fake_spec())
    with openai.OpenAI(base_url=front.url, api_key="none", max_retries=0) as client:
        assert [m.id for m in client.models.list()] == ["fake"]
        whole = client.chat.completions.create(model="fake", messages=ASK["messages"], n=2, max_tokens=9, stop=["zzz"])
        assert [c.message.content for c in whole.choices] == ["Certainly: Why."] * 2
        assert whole.usage is not None and (whole.usage.completion_tokens, whole.usage.prompt_tokens) == (4, 4)
        assert [v["status"] for v in whole.model_extra["norma"]["verdicts"]] == ["compliant"] * 4  # type: ignore[index]
        pieces, norma = "", None
        for chunk in client.chat.completions.create(model="fake", messages=ASK["messages"], stream=True):
            pieces += "".join(c.delta.content or "" for c in chunk.choices)
            norma = (chunk.model_extra or {}).get("norma", norma)
        assert pieces == "Certainly: Why." and norma is not None
    messages, sampling = model.asked[0]
    assert messages[0] == {"role": "system", "content": "Be polite (en)."} and sampling["max_new_tokens"] == 9


def test_enforce_and_best_of_work_in_front_of_it(alive: Any, fake_model: Any, fake_spec: Any) -> None:
    behind = alive(fake_model(answer=lambda messages, seed: "Certainly." if seed == 2 else "No."))
    front = alive(Upstream(behind.url), ruling=Ruling(fake_spec(), policies={"style.polite": Policy("best-of", 3)}))
    body = httpx.post(f"{front.url}/chat/completions", json={**ASK, "seed": 0}, timeout=20).json()
    assert body["choices"][0]["message"]["content"] == "Certainly." and body["norma"]["choices"][0]["tried"] == 3
    strict = alive(Upstream(behind.url), ruling=Ruling(fake_spec(), policies={"style.polite": Policy("enforce")}))
    body = httpx.post(f"{strict.url}/chat/completions", json={**ASK, "seed": 0}, timeout=20).json()
    assert body["choices"][0]["finish_reason"] == "content_filter"


def test_a_client_that_goes_away_stops_the_other_servers_work(alive: Any, fake_model: Any, wait_until: Any) -> None:
    gate = threading.Semaphore(3)
    model = fake_model(answer=lambda messages, seed: "w " * 5000, gate=gate, positions=10000)
    behind = alive(model)
    front = alive(Upstream(behind.url))
    with httpx.stream("POST", f"{front.url}/chat/completions", json={**ASK, "stream": True, "max_tokens": 4000}, timeout=20) as response:
        lines = response.iter_lines()  # kept: a dropped iterator closes the connection
        next(lines)
        wait_until(lambda: model.written == 3)
    wait_until(lambda: front.backend.load == 0)
    wait_until(lambda: behind.backend.load == 0)
    gate.release(5000)
    wait_until(lambda: model.closed == 1)
    assert model.written <= 4


def scripted(handler: Any) -> Upstream:
    def models(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"data": [{"id": "m"}]})

    return Upstream(
        "http://up.example/v1", transport=httpx.MockTransport(handler), sync_transport=httpx.MockTransport(models), key="sk-secret"
    )


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (httpx.Response(401, json={"error": {"message": "bad key sk-secret"}}), 502, "does not accept this server's key"),
        (httpx.Response(429, headers={"retry-after": "7"}), 429, "busy"),
        (httpx.Response(400, json={"error": {"message": "no such thing"}}), 400, "no such thing"),
        (httpx.Response(503, text="down"), 502, "failed"),
        (httpx.Response(200, text='data: {"choices": []}\n\ndata: [DONE]\n\n'), 502, "too early"),
        (httpx.Response(200, text="data: <html>\n\n"), 502, "not JSON"),
        (httpx.Response(200, text='data: {"choices": [{"index": 7, "delta": {"content": "x"}}]}\n\n'), 502, "not asked for"),
        (httpx.Response(200, text='data: {"error": {"message": "out of memory"}}\n\n'), 502, "out of memory"),
    ],
)
def test_what_goes_wrong_there_is_told_here(alive: Any, answer: httpx.Response, status: int, words: str) -> None:
    front = alive(scripted(lambda request: answer))
    response = httpx.post(f"{front.url}/chat/completions", json={**ASK, "model": "m"}, timeout=20)
    assert response.status_code == status and words in response.json()["error"]["message"] and "sk-secret" not in response.text
    if status == 429:
        assert response.headers["retry-after"] == "7"


def test_only_what_the_client_said_is_passed_on(alive: Any) -> None:
    seen: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append((json.loads(request.content), request.headers["authorization"]))
        return httpx.Response(
            200, text='data: {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
        )

    front = alive(scripted(handler))
    form = {"type": "json_schema", "json_schema": {"name": "t", "schema": {"type": "object"}}}
    httpx.post(f"{front.url}/chat/completions", json={**ASK, "model": "m"}, timeout=20)
    httpx.post(f"{front.url}/chat/completions", json={**ASK, "model": "m", "temperature": 0.3, "response_format": form}, timeout=20)
    plain = {"model": "m", "messages": ASK["messages"], "stream": True, "stream_options": {"include_usage": True}}
    assert seen[0] == (plain, "Bearer sk-secret")
    assert seen[1][0] == {**plain, "temperature": 0.3, "response_format": form}


def test_nobody_there() -> None:
    with pytest.raises(NormaError, match="nobody answers"):
        Upstream("http://127.0.0.1:9/v1")
