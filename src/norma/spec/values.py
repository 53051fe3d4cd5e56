"""The values of `applies` expressions: JSON kinds, kept apart as CEL keeps them (true is not 1, "3" is not 3).

Whatever has no answer raises ``Unknown``: the third truth value, which never turns into true or false by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class Unknown(Exception):
    """The expression has no value for this input; the text says why."""


def kind(value: Any) -> str:
    """null, bool, number, string, map or list."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "map" if isinstance(value, Mapping) else "list"


def want(value: Any, wanted: str, what: str) -> Any:
    """``value`` if it is of the wanted kind; ``what`` asks."""
    if kind(value) != wanted:
        raise Unknown(f"{what} needs a {wanted}, not {kind(value)}")
    return value


def equal(left: Any, right: Any) -> bool:
    """Equality within one kind; null differs from everything else; other kinds cannot be compared."""
    kinds = {kind(left), kind(right)}
    if len(kinds) > 1:
        if "null" in kinds:
            return False
        raise Unknown(f"cannot compare {kind(left)} with {kind(right)}")
    if kind(left) == "list":
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    if kind(left) == "map":
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    return bool(left == right)


def same(left: Any, right: Any) -> bool:
    """Equality inside lists and maps, where another kind is just another value."""
    return kind(left) == kind(right) and equal(left, right)


def order(left: Any, right: Any, compare: Callable[[Any, Any], bool]) -> bool:
    """Order of two numbers or two texts."""
    if kind(left) != kind(right) or kind(left) not in ("number", "string"):
        raise Unknown(f"cannot order {kind(left)} and {kind(right)}")
    return compare(left, right)


def member(container: Any, key: Any) -> Any:
    """``map.key``, ``map["key"]`` or ``list[0]``."""
    if kind(container) == "map":
        if kind(key) == "string" and key in container:
            return container[key]
        raise Unknown(f"'{key}' is missing")
    if kind(container) == "list" and kind(key) == "number" and isinstance(key, int):
        if 0 <= key < len(container):
            return container[key]
        raise Unknown(f"there is no element {key}")
    raise Unknown(f"a {kind(container)} has no '{key}'")


def contains(needle: Any, container: Any) -> bool:
    """``x in list`` or ``"key" in map``."""
    if kind(container) == "map":
        return want(needle, "string", "'in'") in container
    return any(same(needle, value) for value in want(container, "list", "'in'"))


def arithmetic(name: str, left: Any, right: Any) -> Any:
    """``+ - * / %`` of two numbers, ``+`` of two texts or lists; ``name`` is the grammar's."""
    try:
        return _calculate(name, left, right)
    except OverflowError:
        raise Unknown("the number is too large") from None


def _calculate(name: str, left: Any, right: Any) -> Any:
    common = kind(left)
    if common != kind(right) or not (common == "number" or (common in ("string", "list") and name == "addition_add")):
        raise Unknown(f"cannot calculate with {kind(left)} and {kind(right)}")
    if name == "addition_add":
        return [*left, *right] if common == "list" else left + right
    if name == "addition_sub":
        return left - right
    if name == "multiplication_mul":
        return left * right
    if right == 0:
        raise Unknown("division by zero")
    if isinstance(left, int) and isinstance(right, int):  # CEL cuts towards zero; Python's // rounds down
        quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        return quotient if name == "multiplication_div" else left - quotient * right
    if name == "multiplication_mod":
        raise Unknown("the remainder needs whole numbers")
    return left / right


def size(value: Any) -> int:
    """Characters of a text, elements of a list, keys of a map."""
    if kind(value) not in ("string", "list", "map"):
        raise Unknown(f"a {kind(value)} has no size")
    return len(value)
