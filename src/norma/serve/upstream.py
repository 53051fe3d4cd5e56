"""Another OpenAI-compatible server as a backend: Norma's spec, keys, limits and audit in front of vLLM, llama.cpp, Ollama or a provider.

    Job ─→ POST URL/chat/completions, streamed ─→ server-sent events ─→ Pieces
    raw texts (``passing``) ─→ POST URL/completions, URL/embeddings ─→ as the client asked

Chat is always streamed, whatever the client asked for: a client that goes away then stops the other server's work too. Fields that the
client left out are left out here, so that the other server's defaults hold.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx

from norma.base.endpoints import is_local, retry_after
from norma.base.errors import NormaError
from norma.serve.answering import Job, Piece, Pieces
from norma.serve.protocol import ApiError, for_model
from norma.serve.worker import Busy
from norma.spec import Message

CONNECT, READ = 10.0, 300.0  # seconds; READ: between two pieces
_FINISHES = frozenset({"stop", "length", "content_filter"})


class Spent:
    """The other server's counts of tokens, out of its events: one count at the end for all choices, or (llama.cpp) one for each."""

    def __init__(self) -> None:
        self.read, self._along, self._apart = 0, 0, 0

    def hear(self, event: Mapping[str, Any]) -> None:
        counts = event.get("usage")
        if not isinstance(counts, Mapping):
            return
        read, written = (n if isinstance(n := counts.get(name), int) else 0 for name in ("prompt_tokens", "completion_tokens"))
        self.read = max(self.read, read)
        if event.get("choices"):
            self._along = max(self._along, written)
        else:
            self._apart += written

    @property
    def written(self) -> int:
        return max(self._along, self._apart)


class Upstream:
    """``norma.serve.answering.Backend`` in front of ``url`` (ends with /v1). ``key``: the other server's; it is never shown or logged.

    ``name``: the other server's model; None: the only one it lists. Raises NormaError where nobody answers or the name is not known.
    """

    gifts = frozenset({"logprobs", "response_format"})
    positions: int | None = None
    lost = False  # the other server may come back

    def __init__(
        self,
        url: str,
        name: str | None = None,
        *,
        key: str | None = None,
        waiting: int = 64,
        transport: Any = None,
        sync_transport: Any = None,
    ) -> None:
        self.url, self._limit, self._transport = url, waiting, transport
        self._headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._trust = not is_local(url)  # a company's proxy cannot reach this machine's own addresses
        self._client: httpx.AsyncClient | None = None
        self.load = 0
        self.name = self._model(name, sync_transport)

    def _model(self, name: str | None, transport: Any) -> str:
        try:
            with httpx.Client(headers=self._headers, timeout=CONNECT, trust_env=self._trust, transport=transport) as client:
                response = client.get(f"{self.url}/models")
            response.raise_for_status()
            known = [str(m["id"]) for m in response.json()["data"]]
        except httpx.HTTPStatusError as error:
            if name is not None:
                return name  # some servers list nothing to some keys
            raise NormaError(
                f"the upstream server answered {error.response.status_code} when asked for its models",
                where=self.url,
                mend="Check its key (--upstream-key-env), or name the model with --name",
            ) from None
        except httpx.HTTPError as error:
            raise NormaError(
                f"nobody answers ({type(error).__name__})", where=self.url, mend="Start that server first, or check --upstream"
            ) from None
        except (ValueError, KeyError, TypeError):
            raise NormaError("this is no OpenAI-compatible server", where=self.url, mend="Give its address up to /v1") from None
        if name is not None:
            if known and name not in known:
                raise NormaError(
                    f"the upstream server has no model '{name}'", where=self.url, mend=f"Known: {', '.join(sorted(known)[:20])}"
                )
            return name
        if len(known) != 1:
            raise NormaError(f"the upstream server has {len(known)} models", where=self.url, mend="Choose one with --name")
        return known[0]

    @property
    def full(self) -> bool:
        return self.load >= self._limit

    def patience(self) -> int:
        return 1

    def measure(self, messages: Sequence[Message]) -> tuple[int, tuple[int, ...]]:
        return 0, ()  # only the other server knows its tokens

    def _body(self, job: Job) -> dict[str, Any]:
        sampling = job.sampling
        fields = {
            "temperature": sampling["temperature"],
            "top_p": sampling["top_p"],
            "top_k": sampling["top_k"],
            "seed": sampling["seed"],
            "stop": list(job.stop),
            "n": job.choices,
        }
        body: dict[str, Any] = {"model": self.name, "messages": [dict(m) for m in for_model(job.messages)], "stream": True}
        body |= {"stream_options": {"include_usage": True}} | {k: v for k, v in fields.items() if k in job.given}
        if job.given & {"max_tokens", "max_completion_tokens"}:
            body["max_tokens"] = job.limit
        if job.top is not None:
            body |= {"logprobs": True, "top_logprobs": job.top}
        return {**body, **job.passed_on}

    async def write(self, job: Job) -> Pieces:
        async with aclosing(self.events("chat/completions", self._body(job))) as events:
            async for item in self._pieces(events, job):
                yield item

    async def whole(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The other server's answer to a request that is not streamed."""
        async with self._ask(path, body) as response:
            try:
                found = json.loads(await response.aread())
            except ValueError:
                raise _broken("sent something that is not JSON") from None
        if not isinstance(found, dict):
            raise _broken("sent something else than an object")
        return found

    async def events(self, path: str, body: Mapping[str, Any]) -> AsyncGenerator[Mapping[str, Any], None]:
        """The events of a streamed answer."""
        async with self._ask(path, body) as response:
            async for event in _events(response):
                if "error" in event:
                    raise _broken(f"broke off: {_message(event)}")
                yield event

    @asynccontextmanager
    async def _ask(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[httpx.Response]:
        """An answer whose body is still to come. Raises Busy, and ApiError for whatever goes wrong there, also while the body is read."""
        if self.full:
            raise Busy(self.patience())
        if self._client is None:
            timeout = httpx.Timeout(READ, connect=CONNECT)
            limits = httpx.Limits(max_connections=self._limit)
            self._client = httpx.AsyncClient(
                headers=self._headers, timeout=timeout, limits=limits, trust_env=self._trust, transport=self._transport
            )
        self.load += 1
        try:
            async with self._client.stream("POST", f"{self.url}/{path}", json=body) as response:
                if response.status_code != 200:
                    raise _refused(response, await response.aread())
                yield response
        except httpx.TimeoutException:
            raise ApiError(504, "the upstream server does not answer in time", code="upstream_timeout") from None
        except httpx.HTTPError as error:
            raise ApiError(502, f"the upstream server cannot be reached ({type(error).__name__})", code="upstream_unreachable") from None
        finally:
            self.load -= 1

    async def _pieces(self, events: AsyncIterator[Mapping[str, Any]], job: Job) -> AsyncIterator[tuple[int, Piece]]:
        finishes: dict[int, str] = {}
        spent = Spent()
        async for event in events:
            spent.hear(event)
            for choice in event.get("choices", ()):
                index, delta = int(choice.get("index", 0)), choice.get("delta") or {}
                if not 0 <= index < job.choices:
                    raise _broken("sent a choice that was not asked for")
                text = delta.get("content") or ""
                entries = tuple(((choice.get("logprobs") or {}).get("content")) or ()) if job.top is not None else ()
                if text or entries:
                    yield index, Piece(str(text), logprobs=entries)
                if choice.get("finish_reason"):
                    finishes[index] = choice["finish_reason"]
        if len(finishes) < job.choices:
            raise _broken("ended its answer too early")
        for index, finish in sorted(finishes.items()):  # the counts come last, for all choices together
            counts = (spent.written, spent.read) if index == 0 else (0, 0)
            yield index, Piece("", finish if finish in _FINISHES else "stop", counts[0], read=counts[1])

    def close(self) -> None:
        self._client = None


async def _events(response: httpx.Response) -> AsyncIterator[Mapping[str, Any]]:
    async for line in response.aiter_lines():
        data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
        if data == "[DONE]":
            return
        if data:
            try:
                event = json.loads(data)
            except ValueError:
                raise _broken("sent something that is not JSON") from None
            if isinstance(event, dict):
                yield event


def _broken(what: str) -> ApiError:
    return ApiError(502, f"the upstream server {what}", code="upstream_error")


def _refused(response: httpx.Response, body: bytes) -> ApiError:
    """The other server's refusal, as our client's; what it says of our key is not passed on."""
    status = response.status_code
    if status in (401, 403):
        return ApiError(502, "the upstream server does not accept this server's key", code="upstream_unauthorised")
    if status == 429:
        return ApiError(
            429, "the upstream server is busy", code="busy", retry=max(1, round(retry_after(response.headers.get("retry-after")) or 1))
        )
    try:
        message = _message(json.loads(body))
    except ValueError:
        message = ""
    if status == 501:
        return ApiError(501, f"the upstream server does not offer this: {message}", code="upstream_refused")
    if 400 <= status < 500:
        return ApiError(400, f"the upstream server refuses this request: {message or status}", code="upstream_refused")
    return _broken(f"failed ({status})")


def _message(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    found = error.get("message") if isinstance(error, dict) else error
    return " ".join(str(found or "").split())[:300]
