"""A throw-away PostgreSQL server for the label store: a cluster in a folder of its own, reached by a socket there and by nothing else."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def _program(name: str) -> str | None:
    """Debian keeps the server's programs out of PATH, one folder a version."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: int(p.parts[4]) if p.parts[4].isdigit() else 0)
    return str(versions[-1]) if versions else shutil.which(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a server's maintenance database. Skips where there is no server, or nobody whom it would run as."""
    pytest.importorskip("psycopg", reason="no psycopg: install norma-lm[postgres]")
    initdb, control = _program("initdb"), _program("pg_ctl")
    if initdb is None or control is None:
        pytest.skip("no PostgreSQL server here (initdb, pg_ctl): apt-get install postgresql")
    owner, runs = "", []
    if os.geteuid() == 0:  # the server refuses to run as root
        owner = next((name for name in ("postgres", "nobody") if _has_user(name)), "")
        if not owner or shutil.which("runuser") is None:
            pytest.skip("root, and no other user to run PostgreSQL as")
        runs = ["runuser", "-u", owner, "--"]
    folder = Path(tempfile.mkdtemp(prefix="norma-pg-", dir="/tmp"))  # a socket's path may have 107 characters only
    if owner:
        shutil.chown(folder, owner)

    def server(*arguments: str) -> None:
        done = subprocess.run([*runs, *arguments], capture_output=True, text=True, timeout=60, check=False, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr

    try:
        server(initdb, "-D", f"{folder}/data", "-U", "norma", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C")
        # No TCP at all; what is written need not outlive the machine, only the processes.
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off -c max_connections=20"
        server(control, "-D", f"{folder}/data", "-w", "-t", "30", "-l", f"{folder}/log", "-o", options, "start")
        yield f"postgresql://norma@/postgres?host={folder}"
    finally:
        subprocess.run([*runs, control, "-D", f"{folder}/data", "-m", "immediate", "stop"], capture_output=True, check=False, cwd=folder)
        shutil.rmtree(folder, ignore_errors=True)


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


@pytest.fixture
def database(postgres: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database."""
    from sqlalchemy import create_engine, text

    name = f"t{abs(hash(request.node.nodeid)) % 10**12}"
    engine = create_engine(postgres.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield postgres.replace("/postgres?", f"/{name}?")
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where to keep labels: both databases in turn."""
    return str(tmp_path / "labels.sqlite") if request.param == "sqlite" else str(request.getfixturevalue("database"))
