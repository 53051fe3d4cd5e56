"""The spec between request and answer: observed, best of n, enforced; audit, feedback, annotation queue. The model is told what to say."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError
from starlette.testclient import TestClient

from norma.base.errors import NormaError
from norma.labels import LabelStore
from norma.serve.app import build_app
from norma.serve.audit import FEEDBACK, Audit, Served
from norma.serve.loop import Loop
from norma.serve.redact import redacted
from norma.serve.ruling import Judgement, Outcome, Policy, Ruling, header, refusal
from norma.spec import Status, Verdict

JSON = dict[str, Any]
ASK: JSON = {"model": "fake", "messages": [{"role": "user", "content": "what is it"}], "seed": 0}
POLITE, RUDE = "Certainly: it.", "Go away."


def by_seed(seeds: dict[int, str], other: str = RUDE) -> Callable[[Any, int], str]:
    return lambda messages, seed: seeds.get(seed, other)


@pytest.fixture
def serve(fake_model: Any, fake_spec: Any) -> Any:
    def build(answer: Any, rules: dict[str, str] | None = None, spec: Any = None, **more: Any) -> TestClient:
        ruling = Ruling(spec or fake_spec(), policies={rule: Policy.parse(p) for rule, p in (rules or {}).items()})
        app = build_app(fake_model(answer=answer), ruling=ruling, **more)
        return TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)

    return build


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_observed_rules_are_reported_in_field_and_header(serve: Any) -> None:
    with serve(by_seed({0: RUDE})) as client:
        response = client.post("/v1/chat/completions", json=ASK)
    body = response.json()
    assert body["choices"][0]["message"]["content"] == RUDE
    assert body["norma"]["choices"] == [
        {"choice": 0, "action": "served", "tried": 1, "reward": None, "status": "violation", "broken": ["style.polite"]}
    ]
    assert response.headers["x-norma-compliance"] == 'status=violation, kept=1, judged=2, broken="style.polite", action="served"'


def test_best_of_n_is_sampled_only_when_the_rule_is_broken(serve: Any, fake_model: Any) -> None:
    with serve(by_seed({0: POLITE}), {"style.polite": "best-of:4"}) as client:
        first = client.post("/v1/chat/completions", json=ASK).json()
    assert first["norma"]["choices"][0]["tried"] == 1
    with serve(by_seed({0: RUDE, 3: POLITE}), {"style.polite": "best-of:4"}) as client:
        body = client.post("/v1/chat/completions", json=ASK).json()
        asked = client.app.state.backend.author.asked
    assert body["choices"][0]["message"]["content"] == POLITE
    assert body["norma"]["choices"][0] | {"reward": None} == {
        "choice": 0, "action": "best-of", "tried": 4, "reward": None, "status": "compliant", "broken": []
    }  # fmt: skip
    assert [s["seed"] for _, s in asked] == [0, 1, 2, 3] and [s["temperature"] for _, s in asked] == [0, 0.7, 0.7, 0.7]
    assert body["usage"]["completion_tokens"] == 3 * 2 + 2  # all that was tried is paid for


def test_best_of_n_goes_by_the_reward(fake_spec: Any) -> None:
    class Paying(fake_spec):  # type: ignore[misc]
        def rewards(self, item: Any, group: Any) -> list[Any]:
            return [SimpleNamespace(value=v) for v in (0.1, 0.9, 0.5)[: len(group)]]

    ruling = Ruling(Paying(), policies={"form.stop": Policy("enforce")})
    item = SimpleNamespace(id="x", facts={}, language="en", messages=())
    judged = ruling.judge(item, ["Certainly", "Certainly: no end", "Certainly."])
    assert ruling.best(judged) == 2  # the first two may not be given out
    assert Ruling(Paying()).best(judged) == 1


@pytest.mark.parametrize(("question", "language"), [("what is it", "en"), ("这是什么？", "zh")])
def test_enforced_rules_hold_the_answer_back_in_the_askers_language(serve: Any, question: str, language: str) -> None:
    ask = {**ASK, "messages": [{"role": "user", "content": question}]}
    with serve(by_seed({}), {"style.polite": "enforce"}) as client:
        response = client.post("/v1/chat/completions", json=ask)
        stream = client.post("/v1/chat/completions", json={**ask, "stream": True})
    choice = response.json()["choices"][0]
    assert choice["message"]["content"] == choice["message"]["refusal"] == refusal(language) and choice["finish_reason"] == "content_filter"
    assert RUDE not in response.text and 'action="refused"' in response.headers["x-norma-compliance"]
    assert stream.headers["x-norma-streaming"] == "held" and RUDE not in stream.text
    chunks = events(stream.text)
    assert chunks[1]["norma"] == {"held": ["style.polite"]}
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]) == refusal(language)
    assert chunks[-1]["norma"]["choices"][0]["action"] == "refused"


def test_a_rule_that_does_not_apply_holds_nothing_back(serve: Any) -> None:
    with serve(by_seed({}), {"style.polite": "enforce"}) as client:
        response = client.post("/v1/chat/completions", json={**ASK, "stream": True, "norma": {"facts": {"terse": True}}})
    assert (
        "x-norma-streaming" not in response.headers
        and "".join(c["choices"][0]["delta"].get("content", "") for c in events(response.text) if c["choices"]) == RUDE
    )


def test_an_error_is_never_a_pass() -> None:
    def verdict(status: Status) -> Verdict:
        return Verdict("style.polite", "h", "i", "c", "d", "report", status, None)

    ruling = Ruling.__new__(Ruling)
    ruling.policies = {"style.polite": Policy("enforce")}
    assert ruling.forbidden(Judgement([verdict(Status.ERROR)])) == ("style.polite",)
    assert ruling.forbidden(Judgement([verdict(Status.UNSURE)])) == ruling.forbidden(Judgement([verdict(Status.COMPLIANT)])) == ()
    assert header([Outcome(Judgement([verdict(Status.ERROR)]))]).startswith("status=error, kept=0, judged=1")


def test_policies_are_read_strictly(fake_spec: Any) -> None:
    assert Policy.parse("best-of:3") == Policy("best-of", 3)
    for wrong in ("best-of", "best-of:1", "best-of:17", "refuse"):
        with pytest.raises(NormaError):
            Policy.parse(wrong)
    with pytest.raises(NormaError, match=r"Did you mean 'style\.polite'"):
        Ruling(fake_spec(), policies={"style.polit": Policy()})


def test_scripts_in_answers_stay_json(serve: Any) -> None:
    evil = "<script>alert(1)</script>"
    with serve(by_seed({0: evil})) as client:
        response = client.post("/v1/chat/completions", json=ASK)
    assert response.headers["content-type"] == "application/json" and response.json()["choices"][0]["message"]["content"] == evil


# ── audit and the loop ──
PRIVATE = "Certainly: write to ann.lee@corp-mail.io or 138 0013 8000."


def test_personal_data_is_replaced_by_its_kind() -> None:
    clean = redacted(PRIVATE)
    assert "ann.lee" not in clean and "8000" not in clean and clean.startswith("Certainly: write to [email]")
    assert redacted("nothing here, 12 apples") == "nothing here, 12 apples"


@pytest.mark.parametrize(("kept", "seen"), [("full", PRIVATE), ("redacted", redacted(PRIVATE)), ("none", None)])
def test_what_the_audit_keeps(serve: Any, tmp_path: Path, kept: Any, seen: str | None) -> None:
    audit = Audit(tmp_path / "audit.sqlite", kept)
    with serve(by_seed({0: PRIVATE}), audit=audit) as client:
        answer = client.post("/v1/chat/completions", json=ASK).json()["id"]
    [row] = audit.rows()
    assert (row["answer"], row["response"], row["status"], row["consent"]) == (answer, seen, "compliant", False)
    assert row["spec"] == "fake-spec" and [v["rule"] for v in row["verdicts"]] == ["style.polite", "form.stop"]
    with create_engine(f"sqlite:///{tmp_path / 'audit.sqlite'}").begin() as connection, pytest.raises(IntegrityError, match="append-only"):
        connection.execute(text("UPDATE norma_answers SET status = 'compliant'"))


def test_a_refused_answer_is_in_the_audit_as_it_was(serve: Any, tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit.sqlite", "full")
    with serve(by_seed({}), {"style.polite": "enforce"}, audit=audit) as client:
        client.post("/v1/chat/completions", json=ASK)
    [row] = audit.rows()
    assert (row["response"], row["action"]) == (RUDE, "refused")


def test_a_broken_rule_becomes_an_annotation_item_with_consent_only(serve: Any, tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "labels.sqlite")
    audit = Audit(tmp_path / "audit.sqlite", "full")
    with serve(by_seed({0: f"No. {PRIVATE}", 1: POLITE}), audit=audit, loop=Loop(store)) as client:
        client.post("/v1/chat/completions", json=ASK)
        assert store.items() == {}
        answer = client.post("/v1/chat/completions", json=ASK, headers={"x-norma-consent": "yes"}).json()["id"]
        client.post("/v1/chat/completions", json={**ASK, "seed": 1, "norma": {"consent": True}})  # nothing is wrong with it
        client.post("/v1/chat/completions", json={**ASK, "norma": {"consent": False}}, headers={"x-norma-consent": "yes"})
    assert list(store.items()) == [f"served/{answer}"]
    [drawn] = store.draws()
    assert (drawn.queue, drawn.rule, drawn.inclusion_probability) == ("rare", "style.polite", None)
    assert "ann.lee" not in drawn.response and "[email]" in drawn.response
    [mark] = store.rows()
    assert (mark.source, mark.verdict, mark.rule) == ("checker", "violation", "style.polite")


def test_feedback_is_kept_and_thumbs_down_make_work(serve: Any, tmp_path: Path) -> None:
    store, audit = LabelStore(tmp_path / "labels.sqlite"), Audit(tmp_path / "audit.sqlite", "full")
    with serve(by_seed({0: POLITE}), audit=audit, loop=Loop(store)) as client:
        answer = client.post("/v1/chat/completions", json=ASK).json()["id"]

        def say(**more: Any) -> Any:
            return client.post("/v1/feedback", json={"id": answer, "rating": "down", **more})

        assert say().json()["annotation_items"] == 0  # without consent
        assert say(rating="up", consent=True).json()["annotation_items"] == 0
        assert say(consent=True, rule="form.stop", comment="call me at ann.lee@corp-mail.io", corrected="Certainly.").json() == {
            "object": "feedback", "id": answer, "choice": 0, "rating": "down", "annotation_items": 1
        }  # fmt: skip
        assert say(consent=True, rule="form.stop").json()["annotation_items"] == 0  # twice doubles nothing
        assert say(rule="no.rule").status_code == 400
        assert say(id="chatcmpl-0").status_code == 404 and say(rating="so so").status_code == 400
    [drawn] = store.draws()
    assert (drawn.queue, drawn.rule, drawn.response) == ("uncertain", "form.stop", POLITE)
    assert store.rows(source="human") == []  # a stranger's thumb is no label
    assert [r["rating"] for r in audit.rows(FEEDBACK)] == ["down", "up", "down", "down"]
    with serve(by_seed({0: POLITE})) as client:
        assert client.post("/v1/feedback", json={"id": answer, "rating": "up"}).status_code == 501


def test_a_low_reward_is_looked_at(tmp_path: Path) -> None:
    verdict = Verdict("r", "h", "request", "c", "d", "report", Status.COMPLIANT, 0.6).row()
    row = Served(
        "a", 0, "k", "m", "s", "d", "en", [{"role": "user", "content": "q"}], {}, "x", "served", 1, 0.4, "compliant", [verdict], True
    )
    store = LabelStore(tmp_path / "labels.sqlite")
    assert Loop(store, low=0.3).observe([row]) == 0 and Loop(store).observe([row]) == 0
    assert Loop(store, low=0.5).observe([row]) == 1 and store.draws()[0].queue == "rare"


WRITER = """
import sys
from norma.serve.audit import Audit, Served
audit = Audit(sys.argv[1], "full")
for i in range(10**6):
    messages = [{"role": "user", "content": "q" * 500}]
    row = Served(f"answer-{i}", 0, "k", "m", "s", "d", "en", messages, {}, "x" * 2000, "served", 1, None, "none", [], True)
    audit.add([row])
    print(f"answer-{i}", flush=True)  # acknowledged
"""


def test_kill_9_while_the_audit_writes_loses_nothing_acknowledged(tmp_path: Path) -> None:
    place = tmp_path / "audit.sqlite"
    environment = {**os.environ, "PYTHONPATH": str(Path("src").absolute())}
    for wait in (25,):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(place)], stdout=subprocess.PIPE, text=True, env=environment)
        assert writer.stdout is not None
        said = [writer.stdout.readline().strip() for _ in range(wait)]
        writer.send_signal(signal.SIGKILL)
        said += [line.strip() for line in writer.stdout.read().splitlines() if re.fullmatch(r"answer-\d+", line.strip())]
        writer.wait(timeout=10)
        audit = Audit(place, "full")
        kept = {row["answer"] for row in audit.rows()}
        assert len(said) >= wait and set(said) <= kept
        with create_engine(f"sqlite:///{place}").connect() as connection:
            assert connection.execute(text("PRAGMA integrity_check")).scalar_one() == "ok"
        audit.close()
        place.unlink()
        for more in tmp_path.glob("audit.sqlite-*"):
            more.unlink()
