"""Which of two answers is better: pairs of a run's answers to one question, shown without saying who wrote which.

answers of the evaluation ─→ one pair a question (two methods drawn by its id) ─→ sides drawn by annotator and pair ─→ studio_preferences
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from norma.base.errors import NormaError
from norma.base.hashing import digest
from norma.studio.tables import PREFERENCES


def pairs(place: Any) -> dict[str, dict[str, Any]]:
    """{key: pair} of the run's last evaluation, in an order that depends on the items alone."""
    view = place.view
    if view is None:
        return {}
    path = view.evaluation / "responses.jsonl"
    found: dict[str, dict[str, Any]] = place.fresh("pairs", path, lambda: _pairs(view.responses))
    return found


def _pairs(responses: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    by_item: dict[str, list[dict[str, Any]]] = {}
    for row in responses:
        if row.get("arm") is None and not row.get("sample") and row.get("set", "questions") == "questions":
            by_item.setdefault(row["item"], []).append(row)
    made = {}
    for item, rows in by_item.items():
        different = [(a, b) for i, a in enumerate(rows) for b in rows[i + 1 :] if a["response"].strip() != b["response"].strip()]
        if different:
            a, b = different[int(digest(["pair", item])[:8], 16) % len(different)]
            made[digest(["pair", item, a["response"], b["response"]])] = {"item": item, "messages": a["messages"], "a": a, "b": b}
    return dict(sorted(made.items()))


def _turned(key: str, who: str) -> bool:
    """Whether the second answer stands on the left for this annotator."""
    return bool(int(digest(["side", key, who])[:8], 16) % 2)


def _key(pair: str, who: str) -> str:
    return digest(["preference", pair, who])


def next_pair(place: Any, who: str) -> tuple[dict[str, Any] | None, int]:
    """The next pair that ``who`` has not judged, and how many are left."""
    found = pairs(place)
    with place.database.read() as connection:
        done = {row.key for row in connection.execute(select(PREFERENCES.c.key).where(PREFERENCES.c.annotator == who))}
    left = [key for key in found if _key(key, who) not in done]
    if not left:
        return None, 0
    key = left[0]
    pair = found[key]
    sides = [pair["a"]["response"], pair["b"]["response"]]
    if _turned(key, who):
        sides.reverse()
    return {"pair": key, "messages": pair["messages"], "left": sides[0], "right": sides[1]}, len(left)


def prefer(place: Any, who: str, key: str, choice: str, rationale: str, seconds: float | None) -> None:
    """Keep a judgement. The same one again changes nothing; another one of the same pair raises NormaError."""
    pair = pairs(place).get(key)
    if pair is None:
        raise NormaError("there is no such pair", mend="Load the page again")
    first = "right" if _turned(key, who) else "left"
    said = "tie" if choice == "tie" else "first" if choice == first else "second"
    row = {
        "key": _key(key, who), "item": pair["item"], "first": pair["a"]["response"], "second": pair["b"]["response"],
        "first_method": pair["a"]["method"], "second_method": pair["b"]["method"], "annotator": who, "choice": said,
        "rationale": rationale.strip(), "seconds": seconds, "created": time.time(),
    }  # fmt: skip
    try:
        with place.database.write() as connection:
            connection.execute(insert(PREFERENCES).values(row))
    except IntegrityError:
        with place.database.read() as connection:
            old = connection.execute(select(PREFERENCES.c.choice).where(PREFERENCES.c.key == row["key"])).scalar()
        if old != said:
            raise NormaError(f"{who} has already marked this pair as {old}") from None
