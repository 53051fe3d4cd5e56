"""A digest of what a function does: its source and, transitively, the source and constants of Norma that it refers to.

    function ─→ names in its code ─→ functions and classes (source), constants (value) ─→ ... ─→ SHA-256

So a changed word list or helper changes the digest of exactly the checkers that use it, and a reformatted neighbour changes none.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

from norma.base.hashing import digest

_PACKAGE = "norma.check"


def code_digest(*roots: Callable[..., Any] | type) -> str:
    """SHA-256 over ``roots`` and everything of this package, or of the roots' own packages or files, that they reach."""
    homes = {_PACKAGE, *(_home(root.__module__) for root in roots)}
    seen: dict[str, str] = {}
    pending: list[tuple[str, Any]] = [(_name(root), root) for root in roots]
    while pending:
        name, value = pending.pop()
        if name in seen:
            continue
        seen[name] = _text(value)
        if isinstance(value, FunctionType):
            for used in _globals(value.__code__):
                if used in value.__globals__ and _ours(target := value.__globals__[used], homes):
                    pending.append((_name(target) if hasattr(target, "__qualname__") else f"{value.__module__}.{used}", target))
        elif isinstance(value, Mapping):
            pending += [(_name(part), part) for part in value.values() if isinstance(part, FunctionType)]
        elif isinstance(value, type):
            # The methods that a dataclass generates have no file; the class's own source covers them.
            methods = [
                m for m in vars(value).values() if isinstance(m, FunctionType) and m.__code__.co_filename == inspect.getsourcefile(value)
            ]
            pending += [(_name(part), part) for part in (*methods, *value.__bases__) if _ours(part, homes)]
    return digest(seen)


@lru_cache(maxsize=4096)
def _globals(code: CodeType) -> tuple[str, ...]:
    return tuple(sorted(set(_names(code))))


@lru_cache(maxsize=4096)
def _source(value: FunctionType | type) -> str:
    return inspect.getsource(value)  # slow, and a function's text does not change while it lives


def _names(code: CodeType) -> Iterator[str]:
    # Comprehensions are code objects of their own before Python 3.12: walking constants finds the same names everywhere.
    # Global names only: an attribute may be called as something else here is.
    yield from (i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _home(module: str) -> str:
    """What belongs together: the checkers of Norma, a package of somebody else's, or a file that a recipe names."""
    return _PACKAGE if module.startswith(_PACKAGE) else module.partition(".")[0]


def _ours(value: Any, homes: set[str]) -> bool:
    if isinstance(value, (FunctionType, type)):
        return any(value.__module__ == home or value.__module__.startswith(home + ".") for home in homes)
    return isinstance(value, (str, int, float, tuple, frozenset, dict, Mapping)) or hasattr(value, "pattern")


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _text(value: Any) -> str:
    if isinstance(value, (FunctionType, type)):
        return _source(value)
    if hasattr(value, "pattern"):
        return f"pattern {value.pattern!r} {int(getattr(value, 'flags', 0))}"
    return digest(_sorted(value))


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _sorted(part) for key, part in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(_sorted(part) for part in value)
    if isinstance(value, tuple):
        return [_sorted(part) for part in value]
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, FunctionType) or hasattr(value, "pattern"):
        return _text(value)
    raise TypeError(
        f"a checker refers to a constant {type(value).__name__}: only text, numbers, patterns, tuples, sets, mappings have a lasting digest"
    )
