"""Who is asked: a server that speaks OpenAI's protocol, or a model folder of ours. Both give text and count tokens.

messages ─Endpoint─→ POST {base}/chat/completions ─┬─ 200 ───────────────────────────────→ Reply
                                                   ├─ 429, 408, 5xx, timeout, broken line → wait (Retry-After, else doubling), again
                                                   └─ refused, or tries used up ─────────→ CheckerFailure
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from norma.base.endpoints import LONGEST_WAIT, is_local, key_from, retry_after
from norma.base.files import to_json
from norma.spec.types import CheckerFailure

if TYPE_CHECKING:
    from norma.lm import LanguageModel

Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class Reply:
    """What came back; token counts are None where the server does not say. ``fault``: why it was paid for and cannot be used."""

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    fault: str = ""


class Model(Protocol):
    """Something that answers messages. Raises CheckerFailure."""

    def ask(self, messages: Messages, *, temperature: float, max_tokens: int, seed: int) -> Reply: ...


@dataclass(frozen=True)
class Endpoint:
    """A server. The key is read from its environment variable at the first question and kept in memory only."""

    url: str
    model: str
    key_env: str | None
    timeout: float
    attempts: int
    wait: Callable[[float], object] = time.sleep
    _client: list[tuple[httpx.Client, str | None]] = field(default_factory=list, compare=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def ask(self, messages: Messages, *, temperature: float, max_tokens: int, seed: int) -> Reply:
        body: dict[str, Any] = {"model": self.model, "messages": list(messages), "max_tokens": max_tokens, "temperature": temperature}
        if temperature > 0:
            body["seed"] = seed
        return _reply(self._send(body))

    def first_tokens(self, messages: Messages, most: int = 20) -> tuple[str, dict[str, float]]:
        """The likeliest first token of the answer, and the log-probabilities of the ``most`` likeliest; {} where the server tells none."""
        body = {
            "model": self.model,
            "messages": list(messages),
            "max_tokens": 1,
            "temperature": 0.0,
            "logprobs": True,
            "top_logprobs": most,
        }
        response = self._send(body)
        return _reply(response).text, _first(response)

    def _send(self, body: dict[str, Any]) -> httpx.Response:
        """Post until the server answers. Raises CheckerFailure where it refuses, or tries are used up."""
        reason = ""
        for attempt in range(self.attempts):
            delay = min(LONGEST_WAIT, 0.5 * 2**attempt) * random.uniform(0.5, 1.0)
            try:
                response = self._post(body)
            except httpx.TimeoutException:
                reason = "the judge did not answer in time"
            except httpx.TransportError as error:
                reason = f"no connection to the judge ({error})"
            else:
                if response.status_code == 200:
                    return response
                reason = self._reason(response)
                if response.status_code == 400 and "max_completion_tokens" in reason and "max_tokens" in body:
                    body["max_completion_tokens"] = body.pop("max_tokens")  # some newer models take only this name
                    continue
                if response.status_code not in (408, 409, 425, 429) and response.status_code < 500:
                    raise CheckerFailure(reason)
                delay = retry_after(response.headers.get("retry-after")) or delay
            if attempt + 1 < self.attempts:
                self.wait(delay)
        raise CheckerFailure(f"{reason}, after {self.attempts} tries")

    def _post(self, body: dict[str, Any]) -> httpx.Response:
        with self._lock:
            if not self._client:
                client = httpx.Client(
                    timeout=httpx.Timeout(self.timeout, connect=min(10.0, self.timeout)), trust_env=not is_local(self.url)
                )
                self._client.append((client, key_from(self.key_env)))
            client, key = self._client[0]
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        return client.post(f"{self.url}/chat/completions", content=to_json(body).encode(), headers=headers)

    def _reason(self, response: httpx.Response) -> str:
        """Status and message in one short line, without the key should the server repeat it."""
        key = self._client[0][1]
        text = response.text.replace(key, "***") if key else response.text
        return f"the judge's server answers HTTP {response.status_code}: {' '.join(text.split())[:200]}".rstrip(": ")


def _reply(response: httpx.Response) -> Reply:
    """The text of a 200; anything that is not the agreed shape is a failure."""
    try:
        body = response.json()
    except ValueError:
        raise CheckerFailure("the judge's server sent something that is not JSON") from None
    choices = body.get("choices") if isinstance(body, Mapping) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    text = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(choice, Mapping) or not isinstance(text, str):
        raise CheckerFailure("the judge's server sent no text")
    finish = choice.get("finish_reason")
    fault = f"the judge's reply was cut off ({finish})" if finish in ("length", "content_filter") else ""
    usage = body.get("usage")
    counts = [usage.get(name) if isinstance(usage, Mapping) else None for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (count if isinstance(count, int) and count >= 0 else None for count in counts)
    return Reply(text, prompt, completion, fault)


def _first(response: httpx.Response) -> dict[str, float]:
    """Log-probabilities of the first token's candidates, as OpenAI's protocol has them; {} where they are not there."""
    try:
        found = response.json()["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        return {str(entry["token"]): float(entry["logprob"]) for entry in found}
    except (LookupError, TypeError, ValueError):
        return {}


@dataclass(frozen=True)
class Local:
    """A model folder; opened at the first question."""

    folder: Path
    digest: str

    def ask(self, messages: Messages, *, temperature: float, max_tokens: int, seed: int) -> Reply:
        with _one_at_a_time:
            model = _opened(self.folder, self.digest)
            (text,) = model.chat(messages, temperature=temperature, max_new_tokens=max_tokens, seed=seed)
        return Reply(text)


_one_at_a_time = threading.Lock()  # one model on one machine: two threads would only slow each other


@lru_cache(maxsize=2)
def _opened(folder: Path, digest: str) -> LanguageModel:
    from norma.generate import load

    return load(folder)
