"""Personal data replaced by its kind, by the patterns of the personal-data checkers (``norma.check.personal``, ``personal_data``).

    "Write to ann@corp.io or 6222 0210 ..." ─→ "Write to [email] or [bank_card]"

Patterns find what has a form (addresses, numbers with check digits); names and stories have none, and stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def redacted(text: str) -> str:
    """``text`` with every place that either checker sees replaced by ``[kind]``."""
    from norma.check.personal import personal_data
    from norma.check.personal_data import identifiers

    places: list[tuple[int, int, str]] = [(a, b, kind) for kind, (a, b) in personal_data(text)]
    for found in identifiers(text):
        a, b = found.span
        if all(b <= start or a >= end for start, end, _ in places):
            places.append((a, b, found.what.split()[0].lower().replace("-", "_")))
    for start, end, kind in sorted(places, reverse=True):
        text = f"{text[:start]}[{kind}]{text[end:]}"
    return text


def redacted_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**m, "content": redacted(str(m["content"]))} for m in messages]
