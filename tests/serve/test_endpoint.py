"""The endpoint client against a scripted transport: what is asked again, what is given up, what is never an answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from email.utils import formatdate
from time import time
from typing import Any

import httpx
import pytest

from norma.base.errors import NormaError
from norma.evaluate.endpoint import EndpointAnswerer, base_url
from norma.evaluate.sampling import Answer, Options
from norma.spec import Item


def items(count: int = 1) -> list[Item]:
    return [Item(f"q{i}", ({"role": "user", "content": f"question {i}"},)) for i in range(count)]


def said(text: Any, finish: str = "stop", **message: Any) -> httpx.Response:
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return httpx.Response(200, json={"choices": [choice], "usage": {"completion_tokens": 3}})


class Script:
    """Answers request after request from a list; remembers requests and waits."""

    def __init__(self, *steps: Any) -> None:
        self.steps, self.requests, self.waits = list(steps), [], []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        return step

    def ask(self, options: Options | None = None, **settings: Any) -> EndpointAnswerer:
        client = httpx.Client(transport=httpx.MockTransport(self))
        settings = {"concurrency": 1, "attempts": 4, **settings}
        return EndpointAnswerer("http://server.test", "m", options, client=client, wait=self.waits.append, **settings)


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("http://h:1", "http://h:1/v1"),
        ("http://h:1/", "http://h:1/v1"),
        ("h:1/v1", "http://h:1/v1"),
        ("https://h/v1/", "https://h/v1"),
        ("https://h/v1/chat/completions", "https://h/v1"),
        ("https://h/openai/deployments/x?y=1", "https://h/openai/deployments/x"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ],
)
def test_addresses_as_people_paste_them(given: str, base: str) -> None:
    assert base_url(given) == base


@pytest.mark.parametrize("given", ["ftp://h/v1", "http://", "http://user:secret@h/v1", "http://h:99999999/v1"])
def test_addresses_that_are_none(given: str) -> None:
    with pytest.raises(NormaError) as caught:
        base_url(given)
    assert "secret" not in str(caught.value)


def test_a_request_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-1")
    script = Script(said("Certainly."))
    answers = script.ask(Options(9, 0.5, 0.9, 7, 3), key_env="MY_KEY").answer(items())
    assert answers == [Answer("q0", "Certainly.", None, "stop", 3)]
    request = script.requests[0]
    assert str(request.url) == "http://server.test/v1/chat/completions" and request.headers["authorization"] == "Bearer sk-1"
    assert json.loads(request.content) == {
        "model": "m",
        "messages": [{"role": "user", "content": "question 0"}],
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "seed": 3,
    }


def test_without_a_key_no_header_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    script = Script(said("x"))
    script.ask().answer(items())
    assert "authorization" not in script.requests[0].headers
    with pytest.raises(NormaError, match="NO_SUCH_KEY is not set"):
        script.ask(key_env="NO_SUCH_KEY")


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.Response(429),
        httpx.Response(408),
        httpx.Response(500, text="oops"),
        httpx.Response(503),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut"),
        httpx.ConnectError("refused"),
    ],
)
def test_passing_troubles_are_asked_again_with_growing_waits(trouble: Any) -> None:
    script = Script(trouble, trouble, said("at last"))
    assert script.ask().answer(items())[0].text == "at last"
    assert len(script.requests) == 3 and 0.25 <= script.waits[0] <= 0.5 <= script.waits[1] <= 1.0


def test_the_servers_own_waiting_time_is_kept() -> None:
    date = formatdate(time() + 20, usegmt=True)
    steps = [httpx.Response(429, headers={"retry-after": value}) for value in ("7", date, "soon", "9999")]
    script = Script(*steps, said("x"))
    script.ask(attempts=5).answer(items())
    assert script.waits[0] == 7 and 15 < script.waits[1] <= 20 and 1 <= script.waits[2] <= 2 and script.waits[3] == 60


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (httpx.Response(500, text="oops"), "HTTP 500: oops, after 4 tries"),
        (httpx.ReadTimeout("slow"), "did not answer in time, after 4 tries"),
        (httpx.Response(400, json={"error": {"message": "bad temperature"}}), "HTTP 400: bad temperature"),
        (httpx.Response(422, json={"detail": "no"}), "HTTP 422: no"),
        (httpx.Response(200, text="<html>"), "not JSON"),
        (httpx.Response(200, json={"choices": []}), "no message"),
        (httpx.Response(200, json=[1]), "no message"),
        (said(None), "no text"),
        (said("", "content_filter"), "content filter"),
    ],
)
def test_a_failed_answer_is_an_error_and_never_an_empty_text(step: Any, words: str) -> None:
    answer = Script(step).ask().answer(items())[0]
    assert answer.text is None and answer.error is not None and words in answer.error


def test_an_empty_text_that_the_model_really_wrote_is_an_answer_and_so_is_a_refusal() -> None:
    assert Script(said("")).ask().answer(items())[0].text == ""
    assert Script(said(None, refusal="I will not.")).ask().answer(items())[0].text == "I will not."


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (httpx.Response(401, json={"error": {"message": "bad key sk-secret"}}), "refuses the key"),
        (httpx.Response(403), "refuses the key"),
        (httpx.Response(404, json={"error": {"message": "unknown model"}}), "knows no model 'm'"),
        (httpx.Response(429, json={"error": {"message": "pay", "code": "insufficient_quota"}}), "quota is used up"),
        (httpx.ConnectError("refused"), "nobody answers at http://server.test/v1"),
    ],
)
def test_what_would_fail_for_every_prompt_ends_the_check(step: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with pytest.raises(NormaError) as caught:
        Script(step).ask(concurrency=3).answer(items(20))
    assert words in str(caught.value) and "sk-secret" not in str(caught.value)


def test_a_server_that_answered_before_may_restart() -> None:
    script = Script(said("one"), httpx.ConnectError("restarting"))
    answers = script.ask().answer(items(2))
    assert [a.error is None for a in answers] == [True, False] and "no connection" in str(answers[1].error)


def test_newer_models_get_the_field_they_know() -> None:
    refusal = httpx.Response(400, json={"error": {"message": "Use 'max_completion_tokens' instead of 'max_tokens'"}})
    script = Script(refusal, said("x"))
    answers = script.ask().answer(items(2))
    assert [a.text for a in answers] == ["x", "x"] and script.waits == []
    assert "max_completion_tokens" in json.loads(script.requests[-1].content)


def test_requests_run_side_by_side_and_answers_come_in_order() -> None:
    together = threading.Barrier(4, timeout=10)
    seen: list[str] = []

    def server(request: httpx.Request) -> httpx.Response:
        together.wait()  # passes only when four requests are here at once
        return said(json.loads(request.content)["messages"][0]["content"])

    each: Callable[[Answer], None] = lambda answer: seen.append(answer.item)  # noqa: E731 -- a def would hide what is passed
    client = httpx.Client(transport=httpx.MockTransport(server))
    answers = EndpointAnswerer("http://s", "m", client=client, concurrency=4).answer(items(8), each)
    assert [a.text for a in answers] == [f"question {i}" for i in range(8)] and sorted(seen) == sorted(a.item for a in answers)


def test_text_that_utf8_cannot_hold_is_sent_as_escapes() -> None:
    script = Script(said("x"))
    script.ask().answer([Item("q", ({"role": "user", "content": "\ud800"},))])
    assert json.loads(script.requests[0].content)["messages"][0]["content"] == "\ud800"


def test_identity_tells_models_options_and_servers_apart() -> None:
    script = Script(said("x"))
    one = script.ask().identity
    assert one == script.ask(concurrency=2).identity
    assert one != script.ask(Options(seed=1)).identity
    assert one != EndpointAnswerer("http://other", "m").identity
