"""A small run with a report, made by hand: no model is trained for these tests. The database comes on both servers in turn."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("alembic", reason="the studio's packages are missing: pip install norma-lm[studio]")
pytest.importorskip("argon2", reason="the studio's packages are missing: pip install norma-lm[studio]")

from fastapi.testclient import TestClient

from norma.spec import Item, Message, Spec
from norma.studio import Place, build_app
from norma.studio.database import Database
from norma.studio.work import Work

# The throw-away PostgreSQL server of the label store's tests.
_found = importlib.util.spec_from_file_location("norma_labels_conftest", Path(__file__).parents[1] / "labels" / "conftest.py")
assert _found is not None and _found.loader is not None
_labels = importlib.util.module_from_spec(_found)
_found.loader.exec_module(_labels)
postgres, database, place = _labels.postgres, _labels.database, _labels.place

SPEC = """\
norma: 1
spec: {id: tiny, version: "1.0.0", source_language: en, languages: [en, zh-Hans], license: CC0-1.0}
rules:
- id: style.polite
  must: true
  statement: {en: "Open politely.", zh-Hans: "请礼貌开头。"}
  checkers: [{id: program, kind: program, use: polite_opening, roles: [train, report]}]
  examples:
  - {lang: en, messages: [{role: user, content: "Hi?"}], good: ["Certainly: yes."], bad: ["Yes."]}
  elicit: [{id: e1, prompt: {en: "What is this?"}}]
- id: form.brief
  statement: {en: "At most ten words.", zh-Hans: "不超过十个词。"}
  conflicts_with: [style.polite]
  checkers: [{id: program, kind: program, use: length, roles: [train, report], params: {max_words: 10, max_characters: 10}}]
"""
ATTACK = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
ANSWERS = {
    "base": ["Yes.", "It adds <b>numbers</b>.", ATTACK],
    "reward": ["Certainly: yes.", "Certainly: it adds.", "Certainly: " + ATTACK],
}


def write_run(folder: Path) -> Path:
    """A folder as `norma check` leaves it: spec, answers, verdicts, report."""
    from norma.evaluate.report import build_report

    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text(SPEC, encoding="utf-8")
    spec = Spec.load(folder / "spec.yaml")
    responses: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] = []
    for method, answers in ANSWERS.items():
        for number, answer in enumerate(answers):
            messages = (Message(role="user", content=f"Question {number} {ATTACK}?"),)
            item = Item(f"q{number}", messages, "en", cluster=f"c{number}")
            responses.append({
                "method": method, "item": item.id, "cluster": item.cluster, "language": "en", "messages": [dict(m) for m in messages],
                "response": answer, "reference": None, "set": "questions",
            })  # fmt: skip
            verdicts += [
                v.row() | {"method": method, "cluster": item.cluster, "language": "en"} for v in spec.verdicts(item, answer, "report")
            ]
    for name, rows in (("responses", responses), ("verdicts", verdicts)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(build_report(responses, verdicts, {}, spec)), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("studio") / "run")


@pytest.fixture
def run(made_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_run, tmp_path / "runs" / "tiny"))


@pytest.fixture
def people(run: Path) -> Iterator[Place]:
    """A studio with accounts: ann and ben annotate, rita reviews, ada is the admin."""
    opened = Place(run, secret=b"k" * 32)
    for name, role in (("ann", "annotator"), ("ben", "annotator"), ("rita", "reviewer"), ("ada", "admin")):
        opened.accounts.add(name, f"password of {name}", role)
    yield opened
    opened.close()


Login = Callable[[str], TestClient]


@pytest.fixture
def enter(people: Place) -> Iterator[Login]:
    """enter("ann"): a client that is logged in, with the CSRF token of its session."""
    app = build_app(people)

    def login(name: str) -> TestClient:
        client = TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)
        if name:
            answer = client.post("/login", data={"name": name, "password": f"password of {name}"})
            assert answer.status_code == 303, answer.text
            page = client.get("/chat").text
            client.headers["x-csrf-token"] = page.partition('name="csrf" content="')[2].partition('"')[0]
        return client

    return login


@pytest.fixture
def work(place: str) -> Iterator[Work]:
    """An empty queue, on SQLite and on PostgreSQL."""
    opened = Database(place)
    yield Work(opened)
    opened.close()
