"""Every page and what is behind it, over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from norma.spec import Spec
from norma.studio import Place

ATTACK = "<script>document.title='owned'</script>"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_page_opens_in_both_languages_and_escapes_what_models_and_people_wrote(enter: Any, language: str) -> None:
    ada = enter("ada")
    for path in ("/annotate", "/prefer", "/review", "/look", "/chat", "/compliance", "/runs", "/spec", "/people", "/account"):
        answer = ada.get(f"{path}?lang={language}&theme=dark")
        assert answer.status_code == 200, (path, answer.text[:400])
        assert f'data-lang="{language}" data-theme="dark"' in answer.text
        assert ("标注" in answer.text) == (language == "zh"), path
        assert ATTACK not in answer.text and "<b>numbers</b>" not in answer.text
    assert ada.get("/nowhere").status_code == 404 and ada.get("/report").status_code == 200


def test_drawing_annotating_and_agreeing(people: Place, enter: Any) -> None:
    rita, ann, ben = enter("rita"), enter("ann"), enter("ben")
    assert rita.post("/api/fill", json={"count": 50}).json()["made"] == 6  # of two rules that exclude each other one applies
    assert rita.post("/api/fill", json={"count": 50}).json()["made"] == 0
    first = ann.get("/api/next").json()
    assert len(first["items"]) == 3 and first["progress"]["left"] == 6
    item = first["items"][0]
    assert item["messages"] and item["guideline"]["statement"]["zh-Hans"] and "machine" not in item and "method" not in item
    end = len(item["response"])
    body = {"task": item["task"], "verdict": "violation", "spans": [[0, 2]], "corrected": "Certainly: yes.", "seconds": 4.2}
    receipt = ann.post("/api/mark", json=body).json()
    assert receipt["saved"] and receipt["progress"]["today"] == 1
    assert ann.post("/api/mark", json=body).status_code == 200  # sent again: one row
    assert ann.post("/api/mark", json={**body, "verdict": "compliant"}).status_code == 409
    assert ann.post("/api/mark", json={**body, "spans": [[0, end + 5]]}).status_code == 400
    assert ann.post("/api/mark", json={**body, "verdict": "lovely"}).status_code == 422
    (label,) = people.database.labels.rows(source="human")
    assert (label.annotator, label.corrected, label.spans, label.guideline) == (
        "ann",
        "Certainly: yes.",
        ((0, 2),),
        item["guideline"]["digest"],
    )
    back = ann.post("/api/undo", json={}).json()["item"]
    assert back["task"] == item["task"] and back["before"]["verdict"] == "violation" and back["revision"] == 2
    assert ann.post("/api/mark", json={"task": back["task"], "verdict": "compliant", "revision": 2}).status_code == 200
    ben.post("/api/mark", json={"task": item["task"], "verdict": "violation"})
    assert [c["task"] for c in rita.get("/api/conflicts").json()["items"]] == [item["task"]]
    assert rita.post("/api/mark", json={"task": item["task"], "verdict": "compliant"}).json()["state"] == "done"
    (row,) = [r for r in ann.get("/api/agreement").json()["rows"] if r["question"] == "kept"]
    assert row["items"] == 1 and row["annotators"] == 3
    gold = [m for m in people.database.labels.rows(annotator="rita") if m.gold]
    assert len(gold) == 1


def test_a_correction_is_checked_as_it_is_typed(enter: Any) -> None:
    ada = enter("ada")
    ada.post("/api/fill", json={"count": 50})
    items = [ada.get("/api/next").json()["items"][0]]
    found = ada.post("/api/check", json={"task": items[0]["task"], "text": "Certainly: it is so."}).json()
    after = {r["rule"]: r["after"] for r in found["rules"]}
    assert after["style.polite"] == "compliant"
    long = ada.post("/api/check", json={"task": items[0]["task"], "text": "No " * 30}).json()
    assert {r["rule"]: r["after"] for r in long["rules"]}["style.polite"] == "violation"


def test_preferences_hide_who_wrote_what_and_are_kept_once(people: Place, enter: Any) -> None:
    from norma.studio.tables import PREFERENCES

    ann = enter("ann")
    seen = 0
    while (found := ann.get("/api/pair").json())["pair"]:
        assert set(found["pair"]) == {"pair", "messages", "left", "right"}
        better = "left" if found["pair"]["left"].startswith("Certainly") else "right"
        for _ in range(2):
            assert ann.post("/api/prefer", json={"pair": found["pair"]["pair"], "choice": better}).status_code == 200
        assert ann.post("/api/prefer", json={"pair": found["pair"]["pair"], "choice": "tie"}).status_code == 409
        seen += 1
    with people.database.read() as connection:
        rows = connection.execute(PREFERENCES.select()).all()
    assert seen == len(rows) == 3
    for row in rows:  # whichever side it stood on, the polite model won
        assert (row.first_method if row.choice == "first" else row.second_method) == "reward"


def test_imported_items_become_tasks_and_a_bad_row_stops_the_whole_file(people: Place, enter: Any) -> None:
    rita = enter("rita")
    row = {"messages": [{"role": "user", "content": "它做什么？"}], "response": ATTACK, "rule": "style.polite"}
    body = json.dumps(row) + "\n" + json.dumps({**row, "response": "x", "rule": None}) + "\n"
    assert rita.post("/api/items", content=body.encode()).json() == {"rows": 2, "made": 1 + 1}
    for bad in (b"{", b'{"messages": []}', b"\xff", b'{"messages": [{"role": "root", "content": "x"}], "response": "y"}', b"[" * 100_000):
        assert rita.post("/api/items", content=bad).status_code == 400, bad[:40]
    assert rita.get("/api/tasks").json()["total"] == 2
    assert rita.get("/api/next").json()["items"][0]["response"] == ATTACK  # JSON: the page makes text of it


def test_the_items_behind_a_bar(enter: Any) -> None:
    ann = enter("ann")
    found = ann.get("/api/behind?method=base&rule=style.polite").json()
    assert found["total"] == 3 and found["counts"] == {"violation": 3} and found["rows"][0]["response"]
    assert ann.get("/api/behind?method=reward&rule=style.polite&status=compliant&count=2").json()["counts"] == {"compliant": 3}
    assert ann.get("/api/behind?method=nobody").json()["total"] == 0


def test_a_chats_answer_goes_to_the_head_of_the_queue(enter: Any) -> None:
    ann = enter("ann")
    body = {"messages": [{"role": "user", "content": "Hi?"}], "response": "No.", "rules": ["form.brief"], "model": "m"}
    assert ann.post("/api/annotate", json=body).json() == {"made": 1}
    item = ann.get("/api/next").json()["items"][0]
    assert item["queue"] == "chat" and item["rule"] == "form.brief" and item["response"] == "No."
    assert ann.post("/api/annotate", json={**body, "rules": ["no.such"]}).status_code == 400


def test_refusals_are_said_in_the_readers_language(enter: Any) -> None:
    rita = enter("rita")
    for language, said in (("zh-CN", "队列中没有该条目"), ("en", "there is no such item in the queue")):
        answer = rita.post("/api/mark", json={"task": "x", "verdict": "compliant"}, headers={"accept-language": language})
        assert answer.status_code == 400 and answer.json()["error"] == said
    assert rita.get("/people?lang=zh").text.count("此操作需要管理员权限") == 1
    stranger = rita.post("/api/unskip", json={}, headers={"origin": "https://other.example", "accept-language": "zh"})
    assert stranger.status_code == 403 and stranger.json()["error"] == "拒绝来自其他网站的请求"


# ── the spec ──
@pytest.fixture
def spec_file(tmp_path: Path, run: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text((run / "spec.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return path


def open_spec(path: Path) -> Any:
    from fastapi.testclient import TestClient

    from norma.studio import build_app

    place = Place(path, secret=b"k" * 32, local="me")
    app = build_app(place)
    client = TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)
    client.get(f"/open?token={app.state.door.token}")
    client.headers["x-csrf-token"] = client.get("/chat").text.partition('name="csrf" content="')[2].partition('"')[0]
    return client


def test_an_edited_spec_is_checked_shown_and_saved_whole(spec_file: Path) -> None:
    client = open_spec(spec_file)
    old, text = Spec.load(spec_file), spec_file.read_text(encoding="utf-8")
    edited = text.replace("At most ten words.", "At most ten words, please.")
    found = client.post("/api/spec/check", json={"text": edited, "base": old.digest}).json()
    (rule,) = found["diff"]["rules"]
    assert rule["new"] == "form.brief" and "meaning" in {c["facet"] for c in rule["changes"]} and found["changed"]
    assert spec_file.read_text(encoding="utf-8") == text  # checking writes nothing
    wrong = client.post("/api/spec/check", json={"text": edited.replace("statement:", "statment:"), "base": old.digest})
    assert wrong.status_code == 400 and "statement" in wrong.json()["mend"] and ":" in wrong.json()["where"]
    assert client.post("/api/spec/save", json={"text": edited, "base": old.digest}).status_code == 200
    assert spec_file.read_text(encoding="utf-8") == edited and client.get("/spec").status_code == 200
    late = client.post("/api/spec/save", json={"text": text, "base": old.digest})  # somebody who read the old version
    assert late.status_code == 409 and spec_file.read_text(encoding="utf-8") == edited
    assert client.post("/api/spec/save", json={"text": "nonsense: [", "base": old.digest}).status_code == 400
    assert [p.name for p in spec_file.parent.iterdir() if p.name.startswith(".")] == []


def test_a_spec_that_includes_another_is_checked_and_saved_with_it(tmp_path: Path, spec_file: Path) -> None:
    head, _, rules = spec_file.read_text(encoding="utf-8").partition("rules:\n")
    polite, _, brief = rules.partition("- id: form.brief")
    (tmp_path / "style.yaml").write_text("rules:\n" + polite, encoding="utf-8")
    text = head + "include: [style.yaml]\nrules:\n- id: form.brief" + brief
    spec_file.write_text(text, encoding="utf-8")
    client, old = open_spec(spec_file), Spec.load(spec_file)
    assert old.included == (str(tmp_path / "style.yaml"),)
    page = client.get("/spec?lang=en").text
    assert "style.yaml</code>" in page and "readonly" not in page
    edited = text.replace("At most ten words.", "At most ten words, please.")
    found = client.post("/api/spec/check", json={"text": edited, "base": old.digest}).json()
    assert [r["new"] for r in found["diff"]["rules"]] == ["form.brief"]
    # A rule of the included file is known: naming one that stands nowhere is the error, in the edited file's own line.
    wrong = client.post("/api/spec/check", json={"text": edited.replace("[style.polite]", "[style.polit]"), "base": old.digest})
    assert wrong.status_code == 400 and wrong.json()["where"].startswith("tiny.yaml:")
    for name in ("/etc/passwd", "../secret.yaml"):
        other = client.post("/api/spec/check", json={"text": edited.replace("style.yaml", name), "base": old.digest})
        assert other.status_code == 400 and "not included yet" in other.json()["error"]
    assert client.post("/api/spec/save", json={"text": edited, "base": old.digest}).status_code == 200
    assert spec_file.read_text(encoding="utf-8") == edited and (tmp_path / "style.yaml").read_text(encoding="utf-8") == "rules:\n" + polite


def test_a_run_without_a_report_and_a_spec_without_a_run_say_so(spec_file: Path) -> None:
    client = open_spec(spec_file)
    for path in ("/compliance", "/runs"):
        assert "Nothing to show yet" in client.get(f"{path}?lang=en").text
    assert client.get("/api/run").status_code == 404 and client.post("/api/fill", json={}).status_code == 400
    spec_file.write_text("norma: 1\nrules: [", encoding="utf-8")
    assert "cannot be read" in client.get("/spec").text
