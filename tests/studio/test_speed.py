"""100,000 items in the queue, 60,000 of them marked: what the server takes for each request of the pages."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from norma.labels import Label
from norma.labels.queues import Drawn
from norma.spec import Item, Message
from norma.studio import Place, build_app

COUNT, MARKED, SLOWEST = 100_000, 60_000, 0.2  # items, of which marked, and seconds


@pytest.mark.slow
def test_pages_stay_quick_with_a_hundred_thousand_items(run: Path) -> None:
    from fastapi.testclient import TestClient

    place = Place(run, secret=b"k" * 32, local="me")
    spec = place.run_spec
    assert spec is not None
    hashes = {r.id: r.hash for r in spec.rules}
    rules = list(hashes)
    rows = [
        Drawn("d", n, f"item-{n}", f"Certainly: answer number {n}.", rules[n % 2], hashes[rules[n % 2]], "en", f"c{n // 3}", "uniform", 0.5)
        for n in range(COUNT)
    ]
    place.database.labels.add_items(Item(d.item, (Message(role="user", content=f"Question {d.place}?"),), "en") for d in rows)
    people = ["me", *(f"a{n}" for n in range(9))]
    place.database.labels.add(
        Label(d.item, d.response, d.rule, d.rule_hash, people[d.place // 3 % 10], "compliant", language="en") for d in rows[:MARKED]
    )
    place.database.labels.add(  # a tenth is marked twice: agreement
        Label(d.item, d.response, d.rule, d.rule_hash, "b", "compliant" if d.place % 7 else "violation", language="en")
        for d in rows[:MARKED:10]
    )
    place.work.fill(rows, {}, overlap=0.0)
    app = build_app(place)
    client = TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)
    client.get(f"/open?token={app.state.door.token}")
    client.headers["x-csrf-token"] = client.get("/chat").text.partition('name="csrf" content="')[2].partition('"')[0]
    taken: dict[str, list[float]] = {}

    def ask(name: str, method: str, path: str, **more: Any) -> Any:
        begin = time.perf_counter()
        answer = client.request(method, path, **more)
        taken.setdefault(name, []).append(time.perf_counter() - begin)
        assert answer.status_code == 200, answer.text
        return answer

    for n in range(12):
        for page in ("annotate", "prefer", "review", "compliance", "spec", "people", "chat", "look"):
            ask(f"GET /{page}", "GET", f"/{page}")
        item = ask("GET /api/next", "GET", "/api/next").json()["items"][0]
        body = {"task": item["task"], "verdict": "compliant", "seconds": 3.0}
        ask("POST /api/mark", "POST", "/api/mark", json=body)
        if n % 3 == 0:
            ask("POST /api/undo", "POST", "/api/undo", json={})
        ask("GET /api/progress", "GET", "/api/progress")
        ask("GET /api/tasks", "GET", "/api/tasks", params={"after": 7_000 * n})
        ask("GET /api/conflicts", "GET", "/api/conflicts")
        ask("GET /api/agreement", "GET", "/api/agreement")
    (row, *_) = client.get("/api/agreement").json()["rows"]
    assert (row["items"], row["annotators"]) == (6_000, 4)  # every tenth answer: the first rule's, marked by b and one of three others
    place.close()
    for name, seconds in taken.items():
        print(f"{name:22} median {1000 * statistics.median(seconds):6.1f} ms, most {1000 * max(seconds):6.1f} ms")
    slow = {name: statistics.median(seconds) for name, seconds in taken.items() if statistics.median(seconds) > SLOWEST}
    assert not slow
