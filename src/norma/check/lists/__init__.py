"""Word lists in English and Chinese, own work, CC0-1.0: ``<name>.<language>.txt``, one word or phrase a line, ``#`` begins a comment."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from norma.base.errors import NormaError


def names() -> list[str]:
    """The names of the shipped lists."""
    return sorted({file.name.split(".")[0] for file in files(__name__).iterdir() if file.name.endswith(".txt")})


def languages(name: str) -> list[str]:
    """The languages in which the list ``name`` is shipped."""
    return sorted(file.name.split(".")[1] for file in files(__name__).iterdir() if file.name.startswith(name + "."))


@cache
def shipped(name: str, language: str) -> tuple[str, ...]:
    """The words of a shipped list, in the order of the file."""
    return parse(files(__name__).joinpath(f"{name}.{language}.txt").read_text(encoding="utf-8"))


def read(path: Path) -> tuple[str, ...]:
    """The words of a file of somebody's own. Raises NormaError when it cannot be read or is empty."""
    try:
        words = parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise NormaError(f"the word list cannot be read ({error})", where=path) from None
    if not words:
        raise NormaError("the word list is empty", where=path, mend="One word or phrase a line")
    return words


def parse(text: str) -> tuple[str, ...]:
    """Lines without comments and white space, each once."""
    return tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")))
