"""A critic and judge behind an endpoint, on the loopback interface: asked once, journaled before it is used."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from norma.align.authors import EndpointAuthor, preference
from norma.check.judge_journal import Journal
from norma.check.judge_models import Endpoint
from norma.spec import Message

Reply = tuple[int, dict[str, Any]]


def said(text: str, logprobs: dict[str, float] | None = None, finish: str = "stop") -> Reply:
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    if logprobs is not None:
        top = [{"token": token, "logprob": value} for token, value in logprobs.items()]
        choice["logprobs"] = {"content": [{"token": text, "top_logprobs": top}]}
    return 200, {"choices": [choice]}


class Server:
    """Answers as a test says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any]], Reply] = lambda _: said("A")
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append(body)
                status, reply = outer.answer(body)
                payload = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def author(server: Server, tmp_path: Path) -> Callable[[], EndpointAuthor]:
    def build() -> EndpointAuthor:
        endpoint = Endpoint(server.url, "big", None, 10.0, 2, wait=lambda _: None)
        return EndpointAuthor(endpoint, Journal(tmp_path / "journal.sqlite"), 0.7, 20, concurrency=3)

    return build


TALKS = [[Message(role="user", content=text)] for text in ("one", "two", "three")]


def test_texts_are_asked_once_and_kept(server: Server, author: Callable[[], EndpointAuthor]) -> None:
    server.answer = lambda body: said(f" about {body['messages'][-1]['content']} ")
    assert author().write(TALKS, seed=5) == ["about one", "about two", "about three"]
    assert sorted(r["seed"] for r in server.requests) == [5, 6, 7] and {r["max_tokens"] for r in server.requests} == {20}
    server.answer = lambda body: said("something else")
    assert author().write(TALKS, seed=5) == ["about one", "about two", "about three"] and len(server.requests) == 3
    assert author().write(TALKS[:1], seed=6) == ["something else"], "another seed is another question"
    assert author().name == "endpoint:big"


def test_what_fails_is_none_and_is_asked_again(server: Server, author: Callable[[], EndpointAuthor]) -> None:
    server.answer = lambda body: (500, {"error": "no"}) if body["messages"][-1]["content"] == "two" else said("yes")
    assert author().write(TALKS, seed=1) == ["yes", None, "yes"]
    server.answer = lambda body: said("half", finish="length")
    assert author().write(TALKS, seed=1) == ["yes", None, "yes"], "cut off is no answer"
    server.answer = lambda body: said("now")
    assert author().write(TALKS, seed=1) == ["yes", "now", "yes"]


def test_letters_by_their_log_probabilities(server: Server, author: Callable[[], EndpointAuthor]) -> None:
    log = math.log
    server.answer = lambda body: said("A", {"A": log(0.5), " A": log(0.1), "(B": log(0.2), "The": log(0.1)})
    (p,) = author().prefer(TALKS[:1])
    assert p == pytest.approx(0.6 / 0.8)
    assert server.requests[0]["logprobs"] is True and server.requests[0]["max_tokens"] == 1 and server.requests[0]["temperature"] == 0
    server.answer = lambda body: said("B")
    assert author().prefer(TALKS) == [pytest.approx(0.75), 0.0, 0.0], "the first stands; without log-probabilities the letter counts"
    server.answer = lambda body: said("Both", {"Both": -0.1})
    assert author().prefer([[Message(role="user", content="four")]]) == [None]


def test_preference() -> None:
    assert preference({"A": -1.0, "B": -1.0}) == 0.5 and preference({"A": -2.0}) == 1.0 and preference({"B": -2.0}) == 0.0
    assert preference({"A": -1000.0, "B": -1001.0}) == pytest.approx(1 / (1 + math.exp(-1)))
