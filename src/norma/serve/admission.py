"""Who comes in: the key of a request, and its limits.

    Authorization ─→ Key, or 401 ─→ requests a minute, tokens a minute, requests at once ─→ in, or 429 with Retry-After

Windows are counted by the ``limits`` package (the one behind Flask-Limiter and SlowAPI), in this process's memory: a restart begins anew,
and several server processes count each for itself. Tokens are known when an answer is finished: a key may overdraw its minute once.
"""

from __future__ import annotations

import math
import time
from collections import Counter

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

from norma.serve.keys import Key, KeyFile
from norma.serve.protocol import ApiError

ANONYMOUS = Key("anonymous", "anonymous", "", 0.0)
OPEN = frozenset({"/health"})  # without a key


class Admission:
    """``keys``: None lets everybody in, as the server listens on this machine only. ``anonymous``: the limits of callers without a key."""

    def __init__(self, keys: KeyFile | None = None, anonymous: Key = ANONYMOUS) -> None:
        self.keys, self.anonymous = keys, anonymous
        storage = MemoryStorage()
        self._requests, self._tokens = MovingWindowRateLimiter(storage), FixedWindowRateLimiter(storage)
        self._running: Counter[str] = Counter()

    def who(self, path: str, authorization: str | None) -> Key:
        """Raises ApiError (401) for a missing, wrong or revoked key."""
        if self.keys is None or path in OPEN:
            return self.anonymous
        kind, _, secret = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not secret.strip():
            raise ApiError(401, "an API key is needed: send the header 'Authorization: Bearer KEY'", code="missing_api_key")
        key = self.keys.find(secret.strip())
        if key is None:
            raise ApiError(401, "this API key is wrong or revoked", code="invalid_api_key")
        return key

    def enter(self, key: Key) -> None:
        """One more request of this key; :meth:`leave` follows. Raises ApiError (429)."""
        if key.concurrent is not None and self._running[key.id] >= key.concurrent:
            raise ApiError(429, f"this key may have {key.concurrent} requests at once", code="concurrency_limit_exceeded", retry=1)
        if key.tokens_per_minute is not None:
            item = RateLimitItemPerMinute(key.tokens_per_minute, namespace="tokens")
            if not self._tokens.test(item, key.id):
                retry = _seconds(self._tokens.get_window_stats(item, key.id).reset_time)
                raise ApiError(429, f"this key may use {key.tokens_per_minute} tokens a minute", code="rate_limit_exceeded", retry=retry)
        if key.requests_per_minute is not None:
            item = RateLimitItemPerMinute(key.requests_per_minute, namespace="requests")
            if not self._requests.hit(item, key.id):
                retry = _seconds(self._requests.get_window_stats(item, key.id).reset_time)
                raise ApiError(
                    429, f"this key may send {key.requests_per_minute} requests a minute", code="rate_limit_exceeded", retry=retry
                )
        self._running[key.id] += 1

    def leave(self, key: Key) -> None:
        self._running[key.id] -= 1
        if self._running[key.id] <= 0:
            del self._running[key.id]

    def spent(self, key: Key, tokens: int) -> None:
        """Tokens that a request read and wrote."""
        if key.tokens_per_minute is not None and tokens:
            self._tokens.hit(RateLimitItemPerMinute(key.tokens_per_minute, namespace="tokens"), key.id, cost=tokens)


def _seconds(until: float) -> int:
    return max(1, min(60, math.ceil(until - time.time())))
