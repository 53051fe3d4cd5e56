"""``norma bench serve``: how an OpenAI-compatible server answers many who stream at the same time. Any such server, ours or a peer's.

    requests ─→ so many at once ─→ POST URL/chat/completions, streamed ─→ seconds to the first piece and to the last, tokens

Each request goes out as soon as a client is free and is never sent twice: a refusal (429) is counted, not waited for. Seconds are the
client's, HTTP and queue with them.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from norma.base.endpoints import is_local
from norma.base.errors import NormaError
from norma.base.files import write_text

PATIENCE = 600.0  # seconds without a byte after which a request has failed
QUESTIONS = (
    "When do you open on Saturday?",
    "My kettle arrived broken. What now?",
    "How does a bicycle stay upright?",
    "Which colours does the backpack come in?",
    "What is the capital of France?",
    "Write two sentences about the sea.",
    "Why is the sky blue?",
    "How do I boil an egg?",
)


@dataclass(frozen=True)
class Load:
    """So many requests, ``clients`` of them at the same time, each for at most ``tokens`` tokens."""

    clients: int = 50
    requests: int = 50
    tokens: int = 48

    def __str__(self) -> str:
        return f"{self.clients} clients, {self.requests} requests, at most {self.tokens} tokens each"


@dataclass(frozen=True)
class Heard:
    """One request's answer: HTTP status, text, tokens by the server's count (0: none given), seconds to first and last piece."""

    status: int
    text: str = ""
    tokens: int = 0
    first: float = float("nan")
    whole: float = float("nan")


@dataclass(frozen=True)
class Served:
    """One server under one load. Times in seconds, of the answers that were given; None where none had any text."""

    system: str
    work: str
    setting: str
    answered: int
    refused: int
    tokens_per_s: float
    requests_per_s: float
    first_p50: float | None
    first_p95: float | None
    whole_p50: float
    whole_p95: float


def bodies(model: str, questions: Sequence[str], count: int, tokens: int) -> list[dict[str, Any]]:
    """``count`` greedy requests; each is numbered, so that no two begin alike."""
    asked = (f"{n}. {text}" for n, text in enumerate(itertools.cycle(questions), 1))
    return [
        {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": tokens, "temperature": 0}
        for text in itertools.islice(asked, count)
    ]


async def ask_all(
    url: str, requests: Sequence[Mapping[str, Any]], clients: int, key: str | None = None, transport: Any = None
) -> tuple[list[Heard], float]:
    """(answers in the order of the requests, seconds in all), ``clients`` at once. Raises NormaError where nobody answers."""
    free = asyncio.Semaphore(clients)
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    limits, trust = httpx.Limits(max_connections=clients), not is_local(url)
    async with httpx.AsyncClient(headers=headers, timeout=PATIENCE, limits=limits, trust_env=trust, transport=transport) as client:

        async def one(body: Mapping[str, Any]) -> Heard:
            async with free:
                return await _ask(client, url, {**body, "stream": True, "stream_options": {"include_usage": True}})

        begun = time.monotonic()
        try:
            found = await asyncio.gather(*map(one, requests))
        except httpx.HTTPError as error:
            raise NormaError(f"nobody answers ({type(error).__name__})", where=url, mend="Start that server first") from None
        return found, time.monotonic() - begun


async def _ask(client: httpx.AsyncClient, url: str, body: Mapping[str, Any]) -> Heard:
    begun, first, text, tokens = time.monotonic(), float("nan"), "", 0
    async with client.stream("POST", f"{url}/chat/completions", json=body) as response:
        if response.status_code != 200:
            await response.aread()
            return Heard(response.status_code)
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if "error" in event:
                return Heard(500, text)
            for choice in event.get("choices", ()):
                if piece := (choice.get("delta") or {}).get("content"):
                    first = time.monotonic() - begun if not text else first
                    text += piece
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    return Heard(200, text, tokens, first, time.monotonic() - begun)


def summed(system: str, shape: Load, heard: Sequence[Heard], seconds: float) -> Served:
    """One row of the table. Raises NormaError where an answer went wrong, or there was none."""
    good = [h for h in heard if h.status == 200]
    refused = sum(h.status == 429 for h in heard)
    if len(good) + refused < len(heard) or not good:
        raise NormaError(f"answered with {sorted({h.status for h in heard})}", where=system, mend="Look into that server's log")
    firsts, wholes = [h.first for h in good if h.text], [h.whole for h in good]
    speed = sum(h.tokens for h in good) / seconds, len(good) / seconds
    first: tuple[float | None, float | None] = (_quantile(firsts, 0.5), _quantile(firsts, 0.95)) if firsts else (None, None)
    whole = _quantile(wholes, 0.5), _quantile(wholes, 0.95)
    return Served(system, "serve", str(shape), len(good), refused, *speed, *first, *whole)


def _quantile(times: Sequence[float], share: float) -> float:
    return float(np.quantile(times, share))


def run(
    urls: Sequence[str], model: str | None, questions: Sequence[str], shape: Load, key: str | None, json_path: Path | None, console: Console
) -> list[Served]:
    """Ask one server after the other, and say how it went. ``model``: None where each has but one."""
    rows = []
    for url in urls:
        asked = bodies(model or _only_model(url, key), questions, shape.requests, shape.tokens)
        rows.append(summed(url, shape, *asyncio.run(ask_all(url, asked, shape.clients, key))))
    table = Table(title=str(shape), title_justify="left")
    table.add_column("server")
    for column in ("answered", "refused", "tokens/s", "requests/s", "first token p50", "p95", "whole p50", "p95"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        times = ["–" if t is None else f"{t:.2f} s" for t in (row.first_p50, row.first_p95, row.whole_p50, row.whole_p95)]
        table.add_row(Text(row.system), str(row.answered), str(row.refused), f"{row.tokens_per_s:.1f}", f"{row.requests_per_s:.2f}", *times)
    console.print(table)
    if json_path is not None:
        write_text(json_path, json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return rows


def _only_model(url: str, key: str | None) -> str:
    try:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        response = httpx.get(f"{url}/models", headers=headers, timeout=30, trust_env=not is_local(url))
        known = [str(m["id"]) for m in response.raise_for_status().json()["data"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise NormaError(f"no models are listed ({type(error).__name__})", where=url, mend="Start that server first") from None
    if len(known) != 1:
        raise NormaError(f"this server has {len(known)} models", where=url, mend="Choose one with --model")
    return known[0]
