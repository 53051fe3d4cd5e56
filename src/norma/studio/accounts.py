"""Who may come in, and what they may do.

    name + password ─→ rate limit ─→ argon2id ─→ session: a random secret in a signed cookie, its digest in the table ─→ User(name, role)
    one-time token of a local studio ─────────────────────────────────────────────────────────────────────────────┘

Passwords are hashed by argon2-cffi (argon2id, the library's parameters, rehashed when they grow). Roles grow: annotator, reviewer, admin.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from norma.base.errors import NormaError, nearest
from norma.studio.database import Database, audit
from norma.studio.tables import ATTEMPTS, SESSIONS, USERS

ROLES = ("annotator", "reviewer", "admin")  # each may all that those before it may
HOURS = 12  # a session lasts
TRIES, WINDOW = 5, 300.0  # failed logins of one name, or three times as many from one address, in so many seconds
SHORTEST, LONGEST = 10, 256  # characters of a password
_NAME = re.compile(r"[\w][\w.@-]{0,63}")
_hasher = PasswordHasher()
_NOBODY = _hasher.hash(secrets.token_hex(16))  # an unknown name takes as long as a wrong password


@dataclass(frozen=True)
class User:
    """Who is logged in. ``session`` is the session's secret, from which its CSRF token is made."""

    name: str
    role: str
    session: str = ""

    def may(self, role: str) -> bool:
        """Whether this user has ``role`` or a higher one."""
        return ROLES.index(self.role) >= ROLES.index(role)


class Refused(Exception):
    """A login that is not let in; ``retry`` seconds to wait, 0 for a wrong name or password."""

    def __init__(self, retry: int = 0) -> None:
        super().__init__("too many tries" if retry else "wrong name or password")
        self.retry = retry


class Accounts:
    """Users and sessions in the studio's database. ``secret`` signs CSRF tokens."""

    def __init__(self, database: Database, secret: bytes) -> None:
        self.database, self.secret = database, secret

    def add(self, name: str, password: str, role: str = "annotator") -> None:
        """A new user. Raises NormaError for a name that is taken or no name, a short password, an unknown role."""
        if not _NAME.fullmatch(name):
            raise NormaError("a name has 1 to 64 letters, digits, '.', '-', '_' or '@'", where=name)
        _check(password, role)
        try:
            with self.database.write() as connection:
                row = {"name": name, "password": _hasher.hash(password), "role": role, "active": True, "created": time.time()}
                connection.execute(insert(USERS).values(row))
        except IntegrityError:
            raise NormaError(f"the name '{name}' is taken", mend="Choose another") from None

    def change(self, name: str, *, password: str | None = None, role: str | None = None, active: bool | None = None) -> None:
        """Change a user; all sessions of theirs end. The last active admin stays one."""
        _check(password, role)
        values = {"role": role, "active": active, "password": None if password is None else _hasher.hash(password)}
        with self.database.write() as connection:
            old = connection.execute(select(USERS).where(USERS.c.name == name)).first()
            if old is None:
                raise NormaError(f"there is no user '{name}'")
            loses = old.role == "admin" and old.active and (active is False or role not in (None, "admin"))
            admins = select(func.count()).select_from(USERS).where(USERS.c.role == "admin", USERS.c.active)
            if loses and connection.execute(admins).scalar_one() < 2:
                raise NormaError(f"'{name}' is the last admin", mend="Make somebody else an admin first")
            connection.execute(update(USERS).where(USERS.c.name == name).values({k: v for k, v in values.items() if v is not None}))
            connection.execute(delete(SESSIONS).where(SESSIONS.c.user == name))

    def list(self) -> list[dict[str, object]]:
        """All users, without their passwords."""
        with self.database.read() as connection:
            query = select(USERS.c.name, USERS.c.role, USERS.c.active, USERS.c.created).order_by(USERS.c.name)
            return [dict(row._mapping) for row in connection.execute(query)]

    def login(self, name: str, password: str, address: str) -> str:
        """A new session's secret. Raises Refused."""
        now, marks = time.time(), (f"name:{name[:64]}", f"from:{address}")
        with self.database.write() as connection:
            connection.execute(delete(ATTEMPTS).where(ATTEMPTS.c.time < now - WINDOW))
            for mark, most in zip(marks, (TRIES, 3 * TRIES), strict=True):
                times = [row.time for row in connection.execute(select(ATTEMPTS.c.time).where(ATTEMPTS.c.who == mark).order_by("time"))]
                if len(times) >= most:
                    raise Refused(int(times[-most] + WINDOW - now) + 1)
            # The attempt is counted before the slow hash: a hundred tries at once are not a hundred free tries.
            ids = [connection.execute(insert(ATTEMPTS).values(who=mark, time=now)).inserted_primary_key for mark in marks]
            row = connection.execute(select(USERS).where(USERS.c.name == name)).first()
        good = _verify(row.password if row is not None else _NOBODY, password[:LONGEST])
        with self.database.write() as connection:
            if row is None or not good or not row.active:
                audit(connection, name[:64], "login refused", address)
            else:
                connection.execute(delete(ATTEMPTS).where(ATTEMPTS.c.id.in_([key[0] for key in ids if key])))
                if _hasher.check_needs_rehash(row.password):
                    connection.execute(update(USERS).where(USERS.c.name == name).values(password=_hasher.hash(password)))
                audit(connection, name, "login", address)
                return self._open(connection, name)
        raise Refused

    def open_local(self, name: str) -> str:
        """A session of the only user of a local studio."""
        with self.database.write() as connection:
            audit(connection, name, "login by the printed address")
            return self._open(connection, name)

    def _open(self, connection: object, name: str) -> str:
        secret, now = secrets.token_urlsafe(32), time.time()
        connection.execute(delete(SESSIONS).where(SESSIONS.c.expires < now))  # type: ignore[attr-defined]
        row = {"digest": _digest(secret), "user": name, "created": now, "expires": now + HOURS * 3600}
        connection.execute(insert(SESSIONS).values(row))  # type: ignore[attr-defined]
        return secret

    def user(self, secret: str, local: str | None = None) -> User | None:
        """Whose session this is; None when it has ended. ``local``: the name of a local studio's only user."""
        with self.database.read() as connection:
            query = select(SESSIONS.c.user).where(SESSIONS.c.digest == _digest(secret), SESSIONS.c.expires > time.time())
            name = connection.execute(query).scalar()
            if name is None:
                return None
            if local is not None:
                return User(name, "admin", secret) if name == local else None
            row = connection.execute(select(USERS.c.role, USERS.c.active).where(USERS.c.name == name)).first()
        return User(name, row.role, secret) if row is not None and row.active else None

    def logout(self, secret: str) -> None:
        with self.database.write() as connection:
            connection.execute(delete(SESSIONS).where(SESSIONS.c.digest == _digest(secret)))

    def csrf(self, secret: str) -> str:
        """The token that must come with every request of this session that changes something."""
        return hmac.new(self.secret, b"csrf:" + secret.encode(), hashlib.sha256).hexdigest()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _verify(hashed: str, password: str) -> bool:
    try:
        return _hasher.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False


def _check(password: str | None, role: str | None) -> None:
    if role is not None and role not in ROLES:
        raise NormaError(f"unknown role '{role}'", mend=nearest(role, ROLES))
    if password is not None and not SHORTEST <= len(password) <= LONGEST:
        raise NormaError(f"a password has {SHORTEST} to {LONGEST} characters")
