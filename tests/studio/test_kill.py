"""kill -9 in the middle of saves: every mark whose receipt was sent is in the store of the studio that starts next."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from norma.labels import LabelStore
from norma.labels.queues import Drawn
from norma.studio import Place
from norma.studio.work import Work

SERVER = Path(__file__).parent / "serving.py"


def start(run: Path, *more: str) -> tuple[subprocess.Popen[str], str]:
    """The process and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-u", str(SERVER), str(run), "0", *(more or ("accounts",))], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found, line
    return process, found[0]


def enter(base: str, name: str) -> httpx.Client:
    client = httpx.Client(base_url=base, timeout=60)
    for _ in range(100):
        try:
            assert client.post("/login", data={"name": name, "password": f"password of {name}"}).status_code == 303
            break
        except httpx.TransportError:
            time.sleep(0.1)
    page = client.get("/account").text
    client.headers["x-csrf-token"] = page.partition('name="csrf" content="')[2].partition('"')[0]
    return client


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.15, 0.6])
def test_nothing_acknowledged_is_lost_when_the_server_is_killed(run: Path, after: float) -> None:
    place = Place(run, secret=b"k" * 32)
    names = ["ann", "ben", "cat"]
    for name in names:
        place.accounts.add(name, f"password of {name}")
    rows = [Drawn("d", n, f"q{n}", "Yes.", "style.polite", "f" * 64, "en", f"c{n}", "uniform", 0.5) for n in range(400)]
    place.work.fill(rows, {}, overlap=1.0)
    place.close()
    process, base = start(run)
    clients = [enter(base, name) for name in names]
    receipts: dict[tuple[str, str], str] = {}
    saving = threading.Event()

    def annotate(name: str, client: httpx.Client) -> None:
        try:
            for n, d in enumerate(rows):
                verdict = ("compliant", "violation", "unsure")[n % 3]
                answer = client.post("/api/mark", json={"task": d.answer, "verdict": verdict, "rationale": "because " * 20})
                if answer.status_code == 200 and answer.json()["saved"]:
                    receipts[name, d.item] = verdict
                    saving.set()
        except httpx.HTTPError:
            pass  # killed

    threads = [threading.Thread(target=annotate, args=pair) for pair in zip(names, clients, strict=True)]
    for thread in threads:
        thread.start()
    assert saving.wait(60)
    time.sleep(after)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for thread in threads:
        thread.join()
    assert receipts
    with LabelStore(run / "studio" / "labels.sqlite") as store:
        kept = {(r.annotator, r.item): r.verdict for r in store.rows()}
    assert receipts.items() <= kept.items()
    assert len(kept) - len(receipts) <= len(names)  # at most the one that each was sending
    print(f"receipts {len(receipts)}, rows after the kill {len(kept)}")
    # What was saved without a receipt is sent again by the browser: it is one row, and the task counts it.
    place = Place(run, secret=b"k" * 32)
    work: Work = place.work
    for (name, item), verdict in kept.items():
        work.mark(next(d.answer for d in rows if d.item == item), name, verdict, rationale="because " * 20)
    assert place.database.labels.count() == len(kept)
    counted: dict[str, Any] = {item: work.task(d.answer).marks for d in rows for item in [d.item]}
    assert all(counted[item] == sum(i == item for _, i in kept) for item in counted)
    place.close()
