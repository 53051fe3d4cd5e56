"""A client for any OpenAI-compatible server: ``POST {base}/chat/completions``.

    item ─→ request ─→ 200 with text                       ─→ Answer(text)
                   ├─→ 429, 408, 5xx, timeout, broken line ─→ wait (Retry-After, else doubling with jitter), ask again
                   ├─→ refused for good, or tries used up  ─→ Answer(error): an error row, never an empty answer
                   └─→ key refused, no such model, nobody there ─→ NormaError: every further answer would fail the same way

The key comes from an environment variable that is named, never from the command line; it is never written or shown.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from typing import Any

import httpx

from norma.base.endpoints import LONGEST_WAIT, base_url, is_local, key_from, retry_after
from norma.base.errors import NormaError
from norma.base.files import to_json
from norma.base.hashing import digest
from norma.evaluate.sampling import Answer, Options, ignore
from norma.spec import Item


class EndpointAnswerer:
    """Answers through a server, several requests at a time.

    Args:
        url: the server's address, see :func:`base_url`.
        model: the name of the served model.
        key_env: environment variable that holds the key. None: ``OPENAI_API_KEY`` if it is set, else no key.
        concurrency: requests under way at once.
        attempts: tries for one answer.
        timeout: seconds until a silent server counts as a failed try.
        client, wait: for tests: an httpx client, and what to call with the seconds to wait.
    """

    atomic = False

    def __init__(
        self,
        url: str,
        model: str,
        options: Options | None = None,
        *,
        key_env: str | None = None,
        concurrency: int = 4,
        attempts: int = 6,
        timeout: float = 120.0,
        client: httpx.Client | None = None,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        if concurrency < 1 or attempts < 1:
            raise NormaError("concurrency and attempts must be at least 1")
        self.url, self.name, self.options = base_url(url), model, options or Options()
        self.batch = concurrency * 8
        self._concurrency, self._attempts = concurrency, attempts
        self._key = key_from(key_env)
        self._stop = threading.Event()
        self._wait = wait or self._stop.wait
        self._answered = False
        self._length_field = "max_tokens"
        self._client = client or httpx.Client(
            timeout=httpx.Timeout(timeout, connect=10.0),
            limits=httpx.Limits(max_connections=concurrency),
            trust_env=not is_local(self.url),  # a company's proxy cannot reach this machine's own server
        )

    @property
    def identity(self) -> str:
        return digest({"endpoint": self.url, "model": self.name, "options": asdict(self.options)})

    def answer(self, items: Sequence[Item], each: Callable[[Answer], None] = ignore) -> list[Answer]:
        self._stop.clear()
        answers: dict[str, Answer] = {}
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="norma-ask")
        try:
            for future in as_completed([pool.submit(self._ask, item) for item in items]):
                answer = future.result()
                answers[answer.item] = answer
                each(answer)
        finally:
            self._stop.set()  # wakes requests that wait for another try when Ctrl-C or a hopeless error ends the loop
            pool.shutdown(wait=True, cancel_futures=True)
        return [answers[item.id] for item in items]

    def close(self) -> None:
        self._client.close()

    def _ask(self, item: Item) -> Answer:
        reason = "not asked"
        for attempt in range(self._attempts):
            if self._stop.is_set():
                return Answer(item.id, None, f"given up: {reason}")
            delay = min(LONGEST_WAIT, 0.5 * 2**attempt) * random.uniform(0.5, 1.0)
            try:
                response = self._post(item)
            except httpx.ConnectError as error:
                reason = f"no connection to {self.url} ({error})"
                # A server that has never answered is not there; one that has may be restarting.
                if attempt + 1 == min(3, self._attempts) and not self._answered:
                    raise NormaError(
                        f"nobody answers at {self.url}", mend="Start the server, for example 'norma serve MODEL', or check the address"
                    ) from None
            except httpx.TimeoutException:
                reason = "the server did not answer in time"
            except httpx.TransportError as error:
                reason = f"the connection broke ({error})"
            else:
                if response.status_code == 200:
                    self._answered = True
                    return self._read(item, response)
                reason = self._reason(response)
                if response.status_code == 400 and "max_completion_tokens" in reason and self._length_field == "max_tokens":
                    self._length_field = "max_completion_tokens"  # some newer models take only this name
                    continue
                self._hopeless(response.status_code, reason)
                if response.status_code not in (408, 409, 425, 429) and response.status_code < 500:
                    return Answer(item.id, None, reason)
                delay = retry_after(response.headers.get("retry-after")) or delay
            if attempt + 1 < self._attempts:
                self._wait(delay)
        return Answer(item.id, None, f"{reason}, after {self._attempts} tries")

    def _post(self, item: Item) -> httpx.Response:
        o = self.options
        body: dict[str, Any] = {"model": self.name, "messages": list(item.messages), self._length_field: o.max_new_tokens}
        body["temperature"] = o.temperature
        if o.top_p < 1:
            body["top_p"] = o.top_p
        if o.top_k:
            body["top_k"] = o.top_k  # known to vLLM and Norma, not to OpenAI
        if o.temperature > 0:
            body["seed"] = o.seed
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {self._key}"} if self._key else {})
        return self._client.post(f"{self.url}/chat/completions", content=to_json(body).encode(), headers=headers)

    def _read(self, item: Item, response: httpx.Response) -> Answer:
        """The text of a 200; anything that is not the agreed shape is an error."""
        try:
            body = response.json()
        except ValueError:
            return Answer(item.id, None, "the server's answer is not JSON")
        choices = body.get("choices") if isinstance(body, Mapping) else None
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, Mapping) else None
        if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
            return Answer(item.id, None, "the server's answer holds no message")
        finish = str(choice.get("finish_reason") or "")
        if finish == "content_filter":
            return Answer(item.id, None, "the server's content filter withheld the answer")
        content = message.get("content")
        text = content if isinstance(content, str) else message.get("refusal")
        if not isinstance(text, str):
            return Answer(item.id, None, "the server's answer holds no text")
        usage = body.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
        return Answer(item.id, text, None, finish, tokens if isinstance(tokens, int) else None)

    def _reason(self, response: httpx.Response) -> str:
        """Status and message of a refusal in one short line, without the key should the server repeat it."""
        try:
            body = response.json()
        except ValueError:
            body = None
        error = body.get("error", body.get("detail", body)) if isinstance(body, Mapping) else response.text
        text = str(error.get("message") or error.get("code") or error) if isinstance(error, Mapping) else str(error or "")
        if isinstance(error, Mapping) and error.get("code") == "insufficient_quota":
            text = f"insufficient_quota: {text}"
        text = text.replace(self._key, "***") if self._key else text
        return f"HTTP {response.status_code}: {' '.join(text.split())[:300]}".rstrip(": ")

    def _hopeless(self, status: int, reason: str) -> None:
        if status in (401, 403):
            mend = "Put a valid key into the environment variable that --api-key-env names (default OPENAI_API_KEY)"
            raise NormaError(f"the server refuses the key ({reason})", where=self.url, mend=mend)
        if status == 404:
            raise NormaError(
                f"the server knows no model '{self.name}' at this address ({reason})",
                where=self.url,
                mend="Check the address and --model-name; GET /v1/models lists the names",
            )
        if status == 429 and "insufficient_quota" in reason:
            raise NormaError(f"the account's quota is used up ({reason})", where=self.url)
