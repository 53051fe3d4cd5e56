"""Answers of a server: vLLM, or another that speaks its dialect of OpenAI's /v1/completions with token ids.

    prompts ─→ key of each (version, prompt, sampling, row) ─found─→ the answer that was journaled first
                                                            └absent─→ POST /v1/completions ─→ journaled, on the disk ─→ used
    weights ─→ a model folder that both machines see ─→ POST /collective_rpc reload_weights ─→ POST /reset_prefix_cache

What was sampled is what is trained: an answer without token ids is refused, text is never encoded again. A run that was killed and
goes on finds in the journal what it was answered, and ends as the unbroken one does, though the server would now answer otherwise.

Start the server as ``VLLM_SERVER_DEV_MODE=1 vllm serve FOLDER --logprobs-mode processed_logprobs``, so that log-probabilities are at
the sampling's temperature, as a trainer's are.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx

from norma.base.endpoints import LONGEST_WAIT, base_url, is_local, key_from, retry_after
from norma.base.errors import NormaError
from norma.base.files import disk_errors, to_json
from norma.base.hashing import digest
from norma.base.ranks import ALONE, Ranks
from norma.generate.engine import finish
from norma.generate.reading import check_prompts
from norma.generate.sampling import Completion, Sampling
from norma.lm import LanguageModel

PARALLEL = 64  # questions that are open at one time


class EndpointEngine:
    """Rollouts by a server, behind the interface of :class:`norma.generate.LocalEngine`."""

    def __init__(
        self,
        url: str,
        *,
        model: str,
        weights: Path | None = None,
        journal: Path | None = None,
        key_env: str | None = None,
        timeout: float = 600.0,
        attempts: int = 5,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        """
        Args:
            url: of the server, with or without /v1.
            model: the name under which it serves the model.
            weights: folder into which :meth:`publish` writes the model, on a disk that the server sees under the same name. None: the
                server's weights are never changed.
            journal: file of all answers, JSON lines.
            key_env: environment variable that holds the server's key.
        """
        self.url, self.model, self.weights, self.attempts, self.wait = base_url(url), model, weights, attempts, wait
        self.version = ""
        self._journal = None if journal is None else Journal(journal)
        self._key = key_from(key_env)
        self._client = httpx.Client(timeout=httpx.Timeout(timeout, connect=min(10.0, timeout)), trust_env=not is_local(self.url))

    def publish(self, model: LanguageModel, version: str, ranks: Ranks = ALONE) -> None:
        """Write the weights, and have the server load them. Answers journaled under another version are not found again."""
        self.version = version
        if self.weights is None:
            return
        if ranks.first:
            model.save(self.weights)
            root = self.url.removesuffix("/v1")
            self._post(f"{root}/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(self.weights.resolve())}})
            self._post(f"{root}/reset_prefix_cache", {})
        ranks.wait()

    def generate(
        self, model: LanguageModel, prompts: Sequence[Sequence[int]], sampling: Sampling, *, rows: Sequence[int] | None = None
    ) -> list[Completion]:
        """As :func:`norma.generate.generate`; ``model`` gives the tokenizer and the limits. Every row has a seed of its own."""
        check_prompts(model, prompts)
        numbers = range(len(prompts)) if rows is None else rows
        with ThreadPoolExecutor(PARALLEL) as pool:
            asked = [pool.submit(self._answer, model, list(p), sampling, n) for p, n in zip(prompts, numbers, strict=True)]
            try:
                return [a.result() for a in asked]
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def complete(self, model: LanguageModel, prompts: list[list[int]], **sampling: Any) -> list[str]:
        return [c.text for c in self.generate(model, prompts, Sampling(**sampling))]

    def stream(self, model: LanguageModel, prompt: list[int], **sampling: Any) -> Iterator[str]:
        """The whole answer as one piece."""
        yield from self.complete(model, [prompt], **sampling)

    def _answer(self, model: LanguageModel, prompt: list[int], sampling: Sampling, row: int) -> Completion:
        key = digest([self.version, self.model, prompt, asdict(sampling), row])
        found = None if self._journal is None else self._journal.find(key)
        if found is None:
            room = model.config.max_positions - len(prompt)
            found = _reply(self._post(f"{self.url}/completions", self._request(prompt, sampling, row, room)), self.url)
            if self._journal is not None:
                found = self._journal.add(key, found)
        done = finish(model, found["ids"], sampling)
        # A server may stop at a string without saying which tokens; its word counts.
        return replace(done, finish_reason=found["finish_reason"], logprobs=tuple(found["logprobs"]))

    def _request(self, prompt: list[int], sampling: Sampling, row: int, room: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model, "prompt": prompt, "max_tokens": min(sampling.max_new_tokens, room), "logprobs": 0,
            "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k or -1,
            "seed": int(digest([sampling.seed, row])[:12], 16),
            "return_token_ids": True, "return_tokens_as_token_ids": True, "skip_special_tokens": False,
        }  # fmt: skip
        if sampling.stop:
            body |= {"stop": list(sampling.stop), "include_stop_str_in_output": True}
        if sampling.banned:
            body["logit_bias"] = {str(token): -100.0 for token in sampling.banned}
        return body

    def _post(self, url: str, body: Mapping[str, Any]) -> httpx.Response:
        """Ask, and again where waiting may help. Raises NormaError."""
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {self._key}"} if self._key else {})
        reason = ""
        for attempt in range(self.attempts):
            delay = min(LONGEST_WAIT, 0.5 * 2**attempt)
            try:
                response = self._client.post(url, content=to_json(body).encode(), headers=headers)
            except httpx.TransportError as error:
                reason = f"no answer ({type(error).__name__})"
            else:
                if response.status_code == 200:
                    return response
                text = response.text.replace(self._key, "***") if self._key else response.text
                reason = f"HTTP {response.status_code} {' '.join(text.split())[:200]}".strip()
                if response.status_code not in (408, 409, 425, 429) and response.status_code < 500:
                    break
                delay = retry_after(response.headers.get("retry-after")) or delay
            if attempt + 1 < self.attempts:
                self.wait(delay)
        mend = "Look at the server's own messages"
        if url.endswith(("/collective_rpc", "/reset_prefix_cache")):
            mend = "Start vLLM with VLLM_SERVER_DEV_MODE=1, or give no weights folder"
        raise NormaError(f"the rollout server does not do what it is asked: {reason}", where=url, mend=mend)


def _reply(response: httpx.Response, url: str) -> dict[str, Any]:
    """ids, logprobs and finish_reason of a 200; anything that is not the agreed shape is an error."""
    try:
        choice = response.json()["choices"][0]
        told = choice.get("logprobs") or {}
        ids = choice.get("token_ids")
        if ids is None:  # older servers write them as "token_id:123"
            ids = [int(token.removeprefix("token_id:")) for token in told["tokens"]]
        logprobs = told["token_logprobs"]
        reason = choice["finish_reason"]
        if len(ids) != len(logprobs) or reason not in ("stop", "length") or not all(isinstance(i, int) for i in ids):
            raise ValueError
        return {"ids": ids, "logprobs": [float(x) for x in logprobs], "finish_reason": reason}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        mend = "Use vLLM 0.10 or newer: what is trained must be what was sampled"
        raise NormaError("the rollout server gave no token ids with their log-probabilities", where=url, mend=mend) from None


class Journal:
    """Answers in a file of JSON lines: on the disk before they are used. The first answer under a key stands."""

    def __init__(self, path: Path) -> None:
        self._lock, self._path = threading.Lock(), path
        self._found: dict[str, dict[str, Any]] = {}
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = 0
            if path.exists():
                for line in path.read_bytes().splitlines(keepends=True):
                    try:
                        row = json.loads(line)
                    except ValueError:
                        break  # what a kill cut off, and nothing is behind it
                    self._found.setdefault(row.pop("key"), row)
                    whole += len(line)
                os.truncate(path, whole)
            self._file = path.open("ab")

    def find(self, key: str) -> dict[str, Any] | None:
        with self._lock:
            return self._found.get(key)

    def add(self, key: str, answer: dict[str, Any]) -> dict[str, Any]:
        """Write an answer; it is on the disk when this returns. The answer that stands."""
        with self._lock, disk_errors(self._path):
            if key not in self._found:
                self._file.write((to_json({"key": key, **answer}) + "\n").encode())
                self._file.flush()
                os.fsync(self._file.fileno())
                self._found[key] = answer
            return self._found[key]
