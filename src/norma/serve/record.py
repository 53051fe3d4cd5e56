"""What is written down of each request: Prometheus metrics and one line of JSON. Never a prompt, an answer or a key.

request ─→ Recorder (ASGI) ─→ the application fills `Facts` ─→ counters, histograms, a log line
"""

from __future__ import annotations

import json
import logging
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from norma.generate.prefixes import Prefixes

log = logging.getLogger("norma.serve.requests")
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


@dataclass
class Facts:
    """What the application knows of a request, for its line in the log."""

    request: str
    begun: float = field(default_factory=time.monotonic)
    key: str = ""
    answer: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_token: float | None = None  # seconds
    compliance: str = ""
    stream: bool = False

    def speaks(self) -> None:
        """The first piece of an answer has come."""
        if self.first_token is None:
            self.first_token = time.monotonic() - self.begun


def facts(scope: Scope) -> Facts:
    """The facts of the request that is being answered."""
    found: Facts = scope["state"]["norma"]
    return found


class Meters:
    """One server's metrics, in a registry of their own."""

    def __init__(self, load: Callable[[], int], rows: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        shared: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("norma_requests", "Requests by path and status", ("path", "status"), **shared)
        self.seconds = Histogram("norma_request_seconds", "Time to the last byte", ("path",), buckets=SECONDS, **shared)
        self.first_token = Histogram("norma_first_token_seconds", "Time to the first piece of an answer", buckets=SECONDS, **shared)
        self.tokens = Counter("norma_tokens", "Tokens read and written", ("kind",), **shared)
        self.verdicts = Counter("norma_verdicts", "Verdicts on answers", ("rule", "status"), **shared)
        self.actions = Counter("norma_actions", "Answers by what the spec led to", ("action",), **shared)
        self.feedback = Counter("norma_feedback", "Feedback of users", ("rating",), **shared)
        self.items = Counter("norma_annotation_items", "Answers put into the annotation queue", ("why",), **shared)
        Gauge("norma_requests_waiting_or_running", "Requests now", **shared).set_function(lambda: float(load()))
        Gauge("norma_rows_writing", "Answers being written now", **shared).set_function(lambda: float(rows()))

    def watch(self, prefixes: Prefixes) -> None:
        """Report what the cache of prompts' beginnings holds, and how often it helps."""
        self.registry.register(_PrefixMetrics(prefixes))

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _PrefixMetrics(Collector):
    def __init__(self, prefixes: Prefixes) -> None:
        self.prefixes = prefixes

    def collect(self) -> Iterator[Metric]:
        held = self.prefixes
        yield CounterMetricFamily("norma_prefix_asked_tokens", "Prompt tokens looked up in the cache of beginnings", held.asked)
        yield CounterMetricFamily("norma_prefix_found_tokens", "Prompt tokens that did not have to be read", held.found)
        yield GaugeMetricFamily("norma_prefix_bytes", "Held by the cache of beginnings", held.bytes)


class Recorder:
    """ASGI middleware, outermost: gives each request an id (``X-Request-Id``), counts it and writes its line."""

    def __init__(self, app: ASGIApp, meters: Meters, paths: frozenset[str]) -> None:
        self.app, self.meters, self.paths = app, meters, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        known = Facts(uuid.uuid4().hex)
        scope["state"] = {**scope.get("state", {}), "norma": known}
        status = 499  # nothing was answered: the client has gone

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).append("x-request-id", known.request)
            await send(message)

        try:
            await self.app(scope, receive, tell)
        finally:
            self._note(scope, known, status)

    def _note(self, scope: Scope, known: Facts, status: int) -> None:
        path = scope["path"] if scope["path"] in self.paths else "other"  # else strangers make as many time series as they like
        seconds = time.monotonic() - known.begun
        meters = self.meters
        meters.requests.labels(path, str(status)).inc()
        meters.seconds.labels(path).observe(seconds)
        meters.tokens.labels("prompt").inc(known.prompt_tokens)
        meters.tokens.labels("completion").inc(known.completion_tokens)
        if known.first_token is not None:
            meters.first_token.observe(known.first_token)
        row = {
            "request": known.request,
            "method": scope["method"],
            "path": path,
            "status": status,
            "seconds": round(seconds, 4),
            "first_token_seconds": None if known.first_token is None else round(known.first_token, 4),
            "key": known.key,
            "answer": known.answer,
            "stream": known.stream,
            "prompt_tokens": known.prompt_tokens,
            "completion_tokens": known.completion_tokens,
            "compliance": known.compliance,
        }
        log.info("request", extra={"row": row})


class JsonLines(logging.Formatter):
    """A record as one JSON object: time (UTC), level, logger, message, and the fields of ``row``."""

    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        row = {"time": when, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        row |= getattr(record, "row", {})
        if record.exc_info:
            row["error"] = self.formatException(record.exc_info)
        return json.dumps(row, ensure_ascii=False)


def log_to(place: str | Path) -> None:
    """Send this server's and uvicorn's records as JSON lines to a file, or with ``-`` to standard error."""
    handler = logging.StreamHandler(sys.stderr) if str(place) == "-" else logging.FileHandler(place, encoding="utf-8")
    handler.setFormatter(JsonLines())
    for name in ("norma.serve", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)
