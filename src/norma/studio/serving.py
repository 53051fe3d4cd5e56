"""Listening: on this machine's loopback address unless told otherwise, and never elsewhere without accounts."""

from __future__ import annotations

import errno
import getpass
import os
import secrets
import socket
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import uvicorn

from norma.base.errors import NormaError
from norma.base.files import disk_errors
from norma.studio.app import build_app
from norma.studio.place import Place
from norma.studio.security import LOOPBACK


def secret_of(folder: Path) -> bytes:
    """The key that signs cookies, made once, readable by its owner only."""
    path = folder / "secret.key"
    with disk_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            pass
        key = path.read_bytes()
    if len(key) < 32:
        raise NormaError("the key of this studio is cut off", where=path, mend="Delete it: a new one is made, and people log in again")
    return key


def folder_of(target: Path) -> Path:
    target = target.expanduser().absolute()
    if not target.exists():
        raise NormaError("file or folder not found", where=target, mend="Give a run folder (such as runs/NAME) or a spec file")
    return target / "studio" if target.is_dir() else target.with_suffix(".studio")


def add_user(target: Path, labels: str | None, name: str, password: str, role: str) -> None:
    """A new user, from the shell."""
    with closing(Place(target, secret=secret_of(folder_of(target)), labels=labels)) as place:
        place.accounts.add(name, password, role)
        place.database.note("(shell)", "add user", name=name, role=role)


def serve(
    target: Path, *, labels: str | None, models: Sequence[Path], port: int, host: str, accounts: bool, names: Sequence[str] = ()
) -> None:
    """Serve until Ctrl-C or SIGTERM. Without accounts a one-time address is printed, and a new one each time it was used."""
    if host not in LOOPBACK and not accounts:
        raise NormaError(
            "a studio that other machines can reach needs accounts", mend="Add --accounts, and users with --add-user NAME:admin"
        )
    for path in models:
        if not (path / "config.json").is_file():
            raise NormaError("this is not a model folder", where=path)
    place = Place(target, secret=secret_of(folder_of(target)), labels=labels, models=models, local=None if accounts else getpass.getuser())
    if accounts and not place.accounts.list():
        raise NormaError("nobody may come in yet", mend="norma studio RUN --add-user NAME:admin")
    bound = _listen(host, port)
    base = f"http://{'localhost' if host == '::1' else host}:{bound.getsockname()[1]}"

    def say(token: str) -> None:
        print(f"Open once: {base}/open?token={token}", flush=True)

    hosts = LOOPBACK | frozenset(names) | ({host} if host not in ("0.0.0.0", "::") else frozenset())
    app = build_app(place, hosts=hosts, say=say)
    with bound:
        bound.listen(128)
        print(f"Norma studio on {place.name} at {base} (Ctrl-C stops)", flush=True)
        if not accounts:
            say(app.state.door.token)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=3, server_header=False)
        uvicorn.Server(config).run(sockets=[bound])


def _listen(host: str, port: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise NormaError(f"port {port} is taken", mend="Choose another with --port, or 0 for any free one") from None
        raise NormaError(f"{host}:{port} cannot be listened on ({error})", mend="Choose another --host or --port") from None
    return bound
