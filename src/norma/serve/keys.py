"""API keys: who may ask, and how much. The file holds hashes, never keys.

    norma keys add NAME ─→ the key, shown once          keys.json: id, name, SHA-256 of the key, limits, created, revoked
    request: Authorization: Bearer KEY ─→ KeyFile.find ─→ Key, or None

A key is 256 random bits, so that a plain SHA-256 hides it (slow password hashes are for words that people choose). The file is readable by
its owner alone, and read again when it has changed: a revoked key stops working without a restart.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from norma.base.errors import NormaError, nearest
from norma.base.files import disk_errors, read_json, write_json

PREFIX = "nk-"


@dataclass(frozen=True)
class Key:
    """One key; limits are None where there are none. ``created`` and ``revoked`` in Unix seconds."""

    id: str
    name: str
    hash: str
    created: float
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None
    max_tokens: int | None = None  # of one answer
    revoked: float | None = None


def hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


class KeyFile:
    """The keys in one JSON file."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._seen: tuple[int, int, int] | None = None
        self._by_hash: dict[str, Key] = {}

    def all(self) -> list[Key]:
        """All keys, revoked ones too, the oldest first. Raises NormaError for a file that is not one of keys."""
        if not self.path.exists():
            return []
        found = read_json(self.path)
        names = {f.name for f in fields(Key)}
        try:
            return [Key(**{name: value for name, value in row.items() if name in names}) for row in found["keys"]]
        except (TypeError, KeyError, AttributeError) as error:
            raise NormaError(f"not a file of keys ({error})", where=self.path, mend="Make one with: norma keys add NAME") from None

    def find(self, secret: str) -> Key | None:
        """The key that is not revoked, or None."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return None
        seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        if seen != self._seen:
            self._by_hash = {key.hash: key for key in self.all() if key.revoked is None}
            self._seen = seen
        return self._by_hash.get(hashed(secret))

    def add(self, name: str, **limits: int | None) -> tuple[Key, str]:
        """A new key and its secret, which is kept nowhere. Raises NormaError where a key in use has that name."""
        if not name.strip() or len(name) > 64 or not name.isprintable():
            raise NormaError("a key needs a name of up to 64 printable characters")
        secret = PREFIX + secrets.token_urlsafe(32)
        key = Key(secrets.token_hex(4), name, hashed(secret), time.time(), **limits)
        with self._locked() as keys:
            if any(k.name == name and k.revoked is None for k in keys):
                raise NormaError(f"there is a key named '{name}' already", where=self.path, mend="Revoke it first, or choose another name")
            keys.append(key)
        return key, secret

    def revoke(self, name: str) -> Key:
        """The key of that name or id does not work any more; its row stays, so that audit rows can be read."""
        with self._locked() as keys:
            for i, key in enumerate(keys):
                if name in (key.id, key.name) and key.revoked is None:
                    keys[i] = replace(key, revoked=time.time())
                    return keys[i]
            raise NormaError(
                f"no key in use is called '{name}'", where=self.path, mend=nearest(name, [k.name for k in keys if not k.revoked])
            )

    @contextmanager
    def _locked(self) -> Iterator[list[Key]]:
        """The keys, written back whole when the block ends without an error; one writer at a time."""
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path.with_name(f".{self.path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        mask = os.umask(0o077)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            keys = self.all()
            yield keys
            rows: list[dict[str, Any]] = [asdict(key) for key in keys]
            write_json(self.path, {"keys": rows})
        finally:
            os.umask(mask)
            os.close(handle)
