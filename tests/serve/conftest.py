"""A model that writes what a test tells it to, and a spec of two rules, so that nothing here needs training or torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from norma.base.errors import NormaError
from norma.spec import Item, Resolution, RuleStatus, Standing, Status, Verdict

Messages = Sequence[Mapping[str, str]]


def echo(messages: Messages, seed: int) -> str:
    return f"Certainly: {messages[-1]['content']}"


@dataclass
class FakeModel:
    """Speaks word by word; one word is one token. ``gate``, when set, is waited for before each word."""

    name: str = "fake"
    answer: Callable[[Messages, int], str] = echo
    positions: int = 100
    gate: threading.Semaphore | None = None
    asked: list[tuple[Messages, dict[str, Any]]] = field(default_factory=list)
    written: int = 0
    closed: int = 0

    def prompt_tokens(self, messages: Messages) -> int:
        return sum(len(m["content"].split()) for m in messages)

    def tokens(self, text: str) -> int:
        return len(text.split())

    def stream(self, messages: Messages, **sampling: Any) -> Iterator[str]:
        self.asked.append((messages, sampling))
        words = self.answer(messages, sampling["seed"]).split(" ")[: sampling["max_new_tokens"]]
        try:
            for i, word in enumerate(words):
                if self.gate is not None:
                    self.gate.acquire(timeout=20)
                self.written += 1
                yield word if i == 0 else " " + word
        finally:
            self.closed += 1

    def chat(self, conversations: Any, **sampling: Any) -> list[str]:
        for messages in conversations:
            if len(messages[-1]["content"]) > 1000:
                raise NormaError("the prompt is too long")
        return ["".join(self.stream(messages, **sampling)) for messages in conversations]


class FakeSpec:
    """style.polite (target 0.9): the answer begins with "Certainly"; form.stop: it ends with a full stop (also held out)."""

    id, version, digest, languages = "fake-spec", "1", "d" * 64, ("en", "zh")

    def __init__(self, target: float | None = 0.9) -> None:
        self.rules = tuple(
            SimpleNamespace(id=name, hash="h", statement={"en": name}, level="guideline", must=False, target=SimpleNamespace(min_rate=rate))
            for name, rate in (("style.polite", target), ("form.stop", None))
        )

    def resolve(self, item: Item) -> Resolution:
        off = item.facts.get("terse")
        polite = RuleStatus(Standing.NOT_APPLICABLE, "terse") if off else RuleStatus(Standing.ACTIVE, "applies")
        return Resolution(
            {"style.polite": polite, "form.stop": RuleStatus(Standing.ACTIVE, "applies")},
            ("form.stop",) if off else ("style.polite", "form.stop"),
        )

    def render(
        self, messages: Messages, item: Any = None, language: str = "en", rules: Any = "applicable", position: str = "system"
    ) -> Any:
        return list(messages) if rules == "none" else [{"role": "system", "content": f"Be polite ({language})."}, *messages]

    def verdicts(self, item: Item, response: str, role: str) -> list[Verdict]:
        def verdict(rule: str, good: bool) -> Verdict:
            active = rule in self.resolve(item).active
            status = Status.NOT_APPLICABLE if not active else Status.COMPLIANT if good else Status.VIOLATION
            return Verdict(rule, "h", item.id, f"{rule}-{role}", "c", role, status, float(good) if active else None)

        polite, stop = verdict("style.polite", response.startswith("Certainly")), verdict("form.stop", response.endswith("."))
        return {"report": [polite, stop], "heldout": [stop]}.get(role, [])

    def rewards(self, item: Item, group: Any) -> list[Any]:
        """This spec has no train checkers, hence no R."""
        return [SimpleNamespace(value=None) for _ in group]

    def elicit(self, split: str | None = None) -> list[Item]:
        return [Item(f"e{i}", ({"role": "user", "content": f"question {i}."},)) for i in range(12)]


@pytest.fixture
def fake_model() -> type[FakeModel]:
    return FakeModel


@pytest.fixture
def fake_spec() -> type[FakeSpec]:
    return FakeSpec


class Live:
    """uvicorn in a thread, on a free port."""

    def __init__(self, author: Any, spec: Any = None, **options: Any) -> None:
        import uvicorn

        from norma.serve.app import build_app
        from norma.serve.run import HOST, listen

        app = build_app(author, spec, **options)
        self.backend = app.state.backend
        self._socket = listen(0)
        self.port = self._socket.getsockname()[1]
        self.root = f"http://{HOST}:{self.port}"
        self.url = f"{self.root}/v1"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=2))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        until(lambda: self._server.started)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=10)
        self._socket.close()
        assert not self._thread.is_alive()


def until(done: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture
def alive() -> Iterator[Callable[..., Live]]:
    """Servers on real sockets, stopped at the end of the test."""
    started: list[Live] = []

    def start(*args: Any, **options: Any) -> Live:
        started.append(Live(*args, **options))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def wait_until() -> Callable[..., None]:
    return until
