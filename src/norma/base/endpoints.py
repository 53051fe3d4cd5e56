"""Addresses, keys and waiting times of OpenAI-compatible servers; whoever asks one uses these.

The key comes from an environment variable that is named, never from a file or the command line; it is never written, hashed or shown.
"""

from __future__ import annotations

import math
import os
from email.utils import parsedate_to_datetime
from time import time

import httpx

from norma.base.errors import NormaError

DEFAULT_KEY_ENV = "OPENAI_API_KEY"
LONGEST_WAIT = 60.0  # seconds


def base_url(url: str) -> str:
    """The ``/v1`` address from whatever people paste: with or without ``/v1``, ``/chat/completions`` or a final slash."""
    try:
        parsed = httpx.URL(url if "://" in url else f"http://{url}")
    except httpx.InvalidURL as error:
        raise NormaError(f"not an address ({error})", where=url) from None
    if parsed.scheme not in ("http", "https") or not parsed.host or not 0 < (parsed.port or 80) < 65536:
        raise NormaError("not an http or https address", where=url, mend="Give one such as http://127.0.0.1:8000/v1")
    if parsed.userinfo:
        raise NormaError("an address must not hold a name or password", where=parsed.host, mend="Put the key into an environment variable")
    path = parsed.path.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    return str(parsed.copy_with(path=path or "/v1", query=None, fragment=None)).rstrip("/")


def is_local(url: str) -> bool:
    """Whether an address is this machine's own: a company's proxy cannot reach it."""
    return httpx.URL(url).host in ("localhost", "127.0.0.1", "::1")


def key_from(env: str | None) -> str | None:
    """The key in the environment variable ``env`` (None: OPENAI_API_KEY if it is set). Raises NormaError when a named one is missing."""
    key = os.environ.get(env or DEFAULT_KEY_ENV, "").strip()
    if env and not key:
        raise NormaError(f"the environment variable {env} is not set", mend=f"export {env}=... before running the check")
    if not key.isascii() or any(c.isspace() for c in key):
        raise NormaError(f"the key in {env or DEFAULT_KEY_ENV} holds characters that no key has", mend="Copy the key again")
    return key or None


def retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header, which may be a number or a date; at most a minute."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), LONGEST_WAIT) if math.isfinite(seconds) else None
