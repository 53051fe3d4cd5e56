"""Raw texts and vectors through another server: as it would answer itself, within this server's keys, limits and audit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch

from norma.lm import LanguageModel
from norma.serve.admission import Admission
from norma.serve.audit import Audit
from norma.serve.keys import KeyFile
from norma.serve.local import Local
from norma.serve.upstream import Upstream


@pytest.fixture
def behind(alive: Any, make_model: Callable[..., LanguageModel]) -> Any:
    return alive(Local(make_model(11, 0.2, max_positions=400), "tiny", rows=3, dtype=torch.float32))


def test_the_same_as_from_the_other_server_itself(alive: Any, behind: Any, fake_spec: Any, tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.sqlite", "full")
    front = alive(Upstream(behind.url), fake_spec(), audit=audit)
    asked: Any = {"model": "tiny", "prompt": ["What does", "waits"], "max_tokens": 9, "temperature": 1, "seed": 4, "n": 2, "logprobs": 2}
    with (
        openai.OpenAI(base_url=behind.url, api_key="none", max_retries=0) as direct,
        openai.OpenAI(base_url=front.url, api_key="none", max_retries=0) as through,
    ):
        wanted, found = direct.completions.create(**asked), through.completions.create(**asked)
        assert [c.model_dump() for c in found.choices] == [c.model_dump() for c in wanted.choices] and found.usage == wanted.usage
        assert found.id != wanted.id and found.model == "tiny"
        pieces, counts = [""] * 4, None
        for chunk in through.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
            counts = chunk.usage or counts
            for c in chunk.choices:
                pieces[c.index] += c.text or ""
        assert pieces == [c.text for c in wanted.choices] and counts == wanted.usage
        echo: Any = {"model": "tiny", "prompt": "It writes text", "max_tokens": 0, "echo": True, "logprobs": 1}
        assert through.completions.create(**echo).choices == direct.completions.create(**echo).choices
        vectors = through.embeddings.create(model="tiny", input=["What does it do?", "time"])
        assert vectors.data == direct.embeddings.create(model="tiny", input=["What does it do?", "time"]).data
    rows = audit.rows()
    assert sorted(r["response"] for r in rows[:4]) == sorted(c.text for c in wanted.choices)
    assert [r["messages"][0]["content"] for r in sorted(rows[:4], key=lambda r: r["choice"])] == ["What does"] * 2 + ["waits"] * 2
    assert len(rows) == 9 and {r["spec"] for r in rows} == {""} and rows[0]["answer"] == found.id


def test_a_model_in_this_process_is_audited_too(alive: Any, make_model: Callable[..., LanguageModel], tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.sqlite", "full")
    server = alive(Local(make_model(11, 0.2), "tiny", dtype=torch.float32), audit=audit)
    for stream in (False, True):
        body = {"model": "tiny", "prompt": "What does", "max_tokens": 5, "temperature": 1, "seed": 2, "stream": stream}
        assert httpx.post(f"{server.url}/completions", json=body, timeout=20).status_code == 200
    one, two = audit.rows()
    assert one["response"] == two["response"] != "" and one["messages"] == [{"role": "user", "content": "What does"}]


def test_keys_and_their_limits_hold(alive: Any, behind: Any, tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    _, secret = keys.add("alice", max_tokens=3, tokens_per_minute=40)
    front = alive(Upstream(behind.url), admission=Admission(keys))
    body = {"model": "tiny", "prompt": "What does", "max_tokens": 50, "temperature": 1, "seed": 1}
    headers = {"authorization": f"Bearer {secret}"}
    assert httpx.post(f"{front.url}/completions", json=body).status_code == 401
    assert httpx.post(f"{front.url}/embeddings", json={"model": "tiny", "input": "x"}).status_code == 401
    codes, written = [], []
    for _ in range(12):
        answer = httpx.post(f"{front.url}/completions", json=body, headers=headers, timeout=20)
        codes.append(answer.status_code)
        written += [answer.json()["usage"]["completion_tokens"]] if answer.status_code == 200 else []
    assert set(written) == {3} and codes[0] == 200 and codes[-1] == 429
    large = httpx.post(f"{front.url}/completions", content=b" " * (5 * 2**20), headers={**headers, "content-type": "application/json"})
    assert large.status_code == 413


def scripted(answer: Callable[[Any], httpx.Response], seen: list[Any]) -> Upstream:
    def handle(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.path, json.loads(request.content)))
        return answer(seen[-1][1])

    models = httpx.MockTransport(lambda request: httpx.Response(200, json={"data": [{"id": "m"}]}))
    return Upstream("http://up.example/v1", transport=httpx.MockTransport(handle), sync_transport=models, key="sk-secret")


def test_only_what_the_client_said_is_passed_on(alive: Any) -> None:
    seen: list[Any] = []
    front = alive(scripted(lambda body: httpx.Response(200, json={"choices": [{"index": 0, "text": "x", "finish_reason": "stop"}]}), seen))
    answer = httpx.post(f"{front.url}/completions", json={"model": "m", "prompt": [1, 2], "user": "u"}, timeout=20).json()
    assert seen == [("/v1/completions", {"model": "m", "prompt": [1, 2]})]
    assert answer["choices"][0]["text"] == "x" and answer["usage"]["total_tokens"] == 0


@pytest.mark.parametrize(
    ("path", "answer", "status", "words"),
    [
        ("completions", httpx.Response(401, json={"error": {"message": "sk-secret"}}), 502, "does not accept"),
        ("completions", httpx.Response(400, json={"error": {"message": "no echo"}}), 400, "no echo"),
        ("completions", httpx.Response(200, text="<html>"), 502, "not JSON"),
        ("completions", httpx.Response(200, json=[]), 502, "object"),
        ("completions", httpx.Response(200, json={"choices": []}), 502, "more or fewer"),
        ("completions", httpx.Response(200, json={"choices": [{"index": 5, "text": ""}]}), 502, "not asked for"),
        ("embeddings", httpx.Response(200, json={"data": []}), 502, "one vector"),
        ("embeddings", httpx.Response(503), 502, "failed"),
        ("embeddings", httpx.Response(501, json={"error": {"message": "start it with --embeddings"}}), 501, "start it with --embeddings"),
    ],
)
def test_what_goes_wrong_there_is_told_here(alive: Any, path: str, answer: httpx.Response, status: int, words: str) -> None:
    front = alive(scripted(lambda body: answer, []))
    response = httpx.post(f"{front.url}/{path}", json={"model": "m", "prompt": "x", "input": "x"}, timeout=20)
    assert response.status_code == status and words in response.json()["error"]["message"] and "sk-secret" not in response.text


def test_a_stream_that_breaks_off_says_so(alive: Any) -> None:
    front = alive(scripted(lambda body: httpx.Response(200, text='data: {"choices": [{"index": 0, "text": "x"}]}\n\ndata: [DONE]\n\n'), []))
    text = httpx.post(f"{front.url}/completions", json={"model": "m", "prompt": "x", "stream": True}, timeout=20).text
    assert '"text":"x"' in text.replace(" ", "") and "too early" in text and "[DONE]" not in text


def test_numbers_of_a_prompt_that_is_not_repeated_are_no_numbers(alive: Any) -> None:
    """llama.cpp passes over ``echo``, and sends its chat's kind of table."""
    body = {"model": "m", "prompt": [[5, 6]], "max_tokens": 1, "echo": True, "logprobs": 1}
    for table in ({"content": [{"token": "x", "logprob": -1.0}]}, {"tokens": ["x"], "token_logprobs": [-1.0]}, None):
        answer = httpx.Response(200, json={"choices": [{"index": 0, "text": "x", "logprobs": table, "finish_reason": "length"}]})
        response = httpx.post(f"{alive(scripted(lambda body, answer=answer: answer, [])).url}/completions", json=body, timeout=20)
        assert response.status_code == 501 and response.json()["error"]["param"] == "echo"


def test_tokens_of_a_server_that_counts_choice_by_choice(alive: Any) -> None:
    ends = [{"choices": [{"index": i, "text": "x", "delta": {"content": "x"}, "finish_reason": "stop"}]} for i in range(2)]
    counts = [{"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": n}} for n in (2, 3)]
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in (ends[1], counts[0], ends[0], counts[1])) + "data: [DONE]\n\n"
    front = alive(scripted(lambda body: httpx.Response(200, text=text), []))
    with openai.OpenAI(base_url=front.url, api_key="none", max_retries=0) as client:
        chat = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], n=2)
        last = list(client.completions.create(model="m", prompt="x", n=2, stream=True, stream_options={"include_usage": True}))[-1]
    for usage in (chat.usage, last.usage):
        assert usage is not None and (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (7, 5, 12)
