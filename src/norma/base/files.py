"""Files that are whole or absent: write beside, fsync, rename. A full disk or a kill leaves the old file as it was."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from norma.base.errors import NormaError

TORN = re.compile(r"\..+\.\d+\.tmp")  # the name of a file that was being written when its writer was killed (see atomic_writer)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a read-only or forbidden place into one clear line."""
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: ("no space left on the disk", "Free some space and run the same command again: it goes on where it stopped"),
            errno.EDQUOT: ("the disk quota is used up", "Free some space and run the same command again"),
            errno.EROFS: ("the file system is read-only", "Choose another output folder"),
            errno.EACCES: ("writing here is not permitted", "Choose another output folder, or change its permissions"),
            errno.EEXIST: ("a file stands where a folder should be", "Choose another output folder"),
            errno.ENOTDIR: ("a part of this path is a file, not a folder", "Choose another output folder"),
        }
        if error.errno in reasons:
            what, mend = reasons[error.errno]
            raise NormaError(what, where=path, mend=mend) from error
        raise


def fsync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable (no effect on systems without folder handles)."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def atomic_writer(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path``; rename it to ``path`` when the block ends without an error."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open(mode, encoding=None if "b" in mode else "utf-8", newline=None if "b" in mode else "\n") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            temporary.replace(path)
            fsync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def drop_torn(folder: Path, *, within: bool = False) -> None:
    """Remove what killed :func:`atomic_writer` calls left in ``folder`` (and, ``within``, below it). Nobody else may be writing there."""
    with disk_errors(folder):
        for path in (folder.rglob if within else folder.glob)(".*.tmp"):
            if TORN.fullmatch(path.name):
                path.unlink()


def write_text(path: Path, text: str) -> None:
    with atomic_writer(path) as handle:
        handle.write(text)


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON as Norma writes it: readable UTF-8; a lone surrogate, which UTF-8 cannot hold, turns that value's text to escapes."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent, allow_nan=False)
    return text


def write_json(path: Path, value: Any) -> None:
    """Indented UTF-8 JSON, written whole or not at all."""
    write_text(path, to_json(value, indent=2) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """One JSON value a line; returns the number of rows."""
    count = 0
    with atomic_writer(path) as handle:
        for row in rows:
            handle.write(to_json(row) + "\n")
            count += 1
    return count


def read_json(path: Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NormaError("file not found", where=path) from None
    except IsADirectoryError:
        raise NormaError("this is a folder, not a file", where=path) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NormaError(f"not readable as JSON ({error})", where=path) from None


def read_jsonl(path: Path) -> list[Any]:
    """All rows of a JSON-lines file that Norma itself wrote (strict: a bad line is an error with its number)."""
    rows = []
    try:
        with Path(path).open(encoding="utf-8") as handle:
            for number, line in enumerate(handle, 1):
                if line.strip():
                    try:
                        rows.append(json.loads(line))
                    except json.JSONDecodeError as error:
                        raise NormaError(f"not JSON ({error.msg})", where=f"{path}:{number}") from None
    except FileNotFoundError:
        raise NormaError("file not found", where=path) from None
    except IsADirectoryError:
        raise NormaError("this is a folder, not a file", where=path) from None
    except UnicodeDecodeError as error:
        raise NormaError(f"not UTF-8 text ({error.reason})", where=path) from None
    return rows


def commit_folder(temporary: Path, final: Path) -> None:
    """Rename a finished work folder to its final name; an older artefact of that name is replaced."""
    with disk_errors(final):
        for path in temporary.rglob("*"):
            if path.is_file():
                with path.open("rb") as handle:
                    os.fsync(handle.fileno())
        if final.exists():
            old = final.with_name(f".{final.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            final.replace(old)
            temporary.replace(final)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.replace(final)
        fsync_folder(final.parent)
