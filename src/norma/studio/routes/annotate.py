"""Annotating: next items, marks, undo, corrections checked as they are typed, preferences, agreement, conflicts, filling the queue."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select

from norma.base.errors import NormaError
from norma.base.hashing import digest
from norma.labels.queues import Drawn
from norma.labels.schema import ITEMS
from norma.labels.summary import table_of_counts
from norma.spec import Item, Message, Status
from norma.studio import preferences
from norma.studio.database import Database
from norma.studio.security import Annotator, Reviewer
from norma.studio.tables import TASKS
from norma.studio.words import language_of, said
from norma.studio.work import standing

router = APIRouter(prefix="/api")
LONG = 20_000  # characters of a text that somebody types
Choice = Literal["compliant", "violation", "not_applicable", "unsure"]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Mark(Body):
    """A mark of one task. ``revision``: 0, or how often this person has marked it before."""

    task: str = Field(max_length=64)
    verdict: Choice
    spans: list[tuple[int, int]] = Field(default_factory=list, max_length=50)
    corrected: str | None = Field(None, max_length=LONG)
    rationale: str = Field("", max_length=2000)
    seconds: float | None = Field(None, ge=0, le=86400)
    revision: int = Field(0, ge=0, le=1000)


class Check(Body):
    task: str = Field(max_length=64)
    text: str = Field(max_length=LONG)


class Preference(Body):
    pair: str = Field(max_length=64)
    choice: Literal["left", "right", "tie"]
    rationale: str = Field("", max_length=2000)
    seconds: float | None = Field(None, ge=0, le=86400)


class Fill(Body):
    count: int = Field(100, ge=1, le=20_000)
    seed: int = Field(0, ge=0)


class Answer(Body):
    """An answer of a chat that is to be annotated."""

    messages: list[dict[str, str]] = Field(min_length=1, max_length=100)
    response: str = Field(min_length=1, max_length=LONG)
    rules: list[str] = Field(default_factory=list, max_length=100)
    model: str = Field("", max_length=200)


def shown(place: Any, tasks: Sequence[Any], who: str, reviewer: bool) -> list[dict[str, Any]]:
    """What the browser needs of tasks. The checker's verdict stays here: it would lead the annotator."""
    items, marks = _items(place.database, [t.item for t in tasks]), place.work.marks(tasks)
    views = []
    for task in tasks:
        item = items.get(task.item)
        view = {
            "task": task.key, "item": task.item, "response": task.response, "rule": task.rule, "rule_hash": task.rule_hash,
            "language": task.language, "queue": task.queue, "messages": [dict(m) for m in item.messages] if item else [],
            "guideline": place.guideline(task.rule), "revision": sum(m.annotator == who for m in marks[task.key]), "state": task.state,
        }  # fmt: skip
        if task.state == "conflict" and reviewer:
            view["marks"] = [
                {"annotator": m.annotator, "verdict": m.verdict, "corrected": m.corrected, "rationale": m.rationale, "spans": m.spans}
                for m in standing(marks[task.key])
            ]
        views.append(view)
    return views


def _items(database: Database, ids: list[str]) -> dict[str, Item]:
    with database.read() as connection:
        query = select(ITEMS).where(ITEMS.c.item.in_(ids))
        return {r.item: Item(r.item, tuple(r.messages), r.language, r.facts, r.cluster, r.reference) for r in connection.execute(query)}


@router.get("/next")
def next_items(request: Request, user: Annotator, held: str = Query("", max_length=700), rule: str = Query("", max_length=200)) -> Any:
    """Up to three items; ``held``: tasks that the browser has, comma-separated."""
    place, reviewer = request.app.state.place, user.may("reviewer")
    tasks = place.work.next(user.name, reviewer=reviewer, rule=rule, held=[h for h in held.split(",") if h])
    return {"items": shown(place, tasks, user.name, reviewer), "progress": place.work.progress(user.name)}


@router.post("/mark")
def mark(request: Request, user: Annotator, body: Mark) -> Any:
    """The receipt of a mark: it is sent when the mark is on the disk."""
    place = request.app.state.place
    task = place.work.task(body.task)
    for start, end in body.spans:
        if not 0 <= start < end <= len(task.response):
            raise NormaError("a highlighted span lies outside the answer", mend="Highlight it again")
    corrected = body.corrected if body.corrected and body.corrected != task.response else None
    guideline = place.guideline(task.rule)
    gold = task.state == "conflict" and user.may("reviewer")
    settled = place.work.mark(
        body.task, user.name, body.verdict, revision=body.revision, gold=gold, spans=tuple(sorted(body.spans)), corrected=corrected,
        rationale=body.rationale.strip(), seconds=body.seconds, guideline=guideline["digest"] if guideline else "",
    )  # fmt: skip
    return {"saved": True, **settled, "progress": place.work.progress(user.name)}


@router.post("/skip/{task}")
def skip(request: Request, user: Annotator, task: str) -> Any:
    request.app.state.place.work.skip(task, user.name)
    return {"progress": request.app.state.place.work.progress(user.name)}


@router.post("/unskip")
def unskip(request: Request, user: Annotator) -> Any:
    return {"again": request.app.state.place.work.unskip(user.name)}


@router.post("/undo")
def undo(request: Request, user: Annotator) -> Any:
    """Take the last mark back, and show its item with what was marked."""
    place = request.app.state.place
    found = place.work.undo(user.name)
    if found is None:
        return {"item": None, "progress": place.work.progress(user.name)}
    key, old = found
    place.database.note(user.name, "undo", task=key)
    (item,) = shown(place, [place.work.task(key)], user.name, user.may("reviewer"))
    item["before"] = {"verdict": old.verdict, "spans": old.spans, "corrected": old.corrected, "rationale": old.rationale}
    return {"item": item, "progress": place.work.progress(user.name)}


@router.post("/check")
def check(request: Request, user: Annotator, body: Check) -> Any:
    """What the checkers say of a correction, beside what they say of the answer; and whether it would be accepted as training data."""
    place = request.app.state.place
    task, spec = place.work.task(body.task), place.run_spec
    item = _items(place.database, [task.item]).get(task.item)
    if spec is None or item is None:
        return {"rules": [], "edit": None}
    rows: dict[str, dict[str, str]] = {}
    for which, text in (("before", task.response), ("after", body.text)):
        for v in spec.verdicts(item, text, "report"):
            if v.status != Status.NOT_APPLICABLE:
                rows.setdefault(v.rule, {"rule": v.rule, "note": ""})[which] = v.status.value
                rows[v.rule]["note"] = v.note if which == "after" else ""
    worse = [r["rule"] for r in rows.values() if r.get("before") == "compliant" and r.get("after") == "violation"]
    return {"rules": list(rows.values()), "worse": worse}


@router.get("/agreement")
def agreement(request: Request, user: Annotator) -> Any:
    """The table of norma.labels.summary over answers with two marks or more."""
    language, counted = language_of(request), request.app.state.place.work.agreement()
    rows = [row.json() for row in table_of_counts(counted, resamples=1000)]
    return {"rows": [row | {"words": said(row["words"], language)} for row in rows]}


@router.get("/conflicts")
def conflicts(request: Request, user: Reviewer) -> Any:
    place = request.app.state.place
    with place.database.read() as connection:
        rows = connection.execute(select(TASKS).where(TASKS.c.state == "conflict").order_by(TASKS.c.place).limit(10)).all()
    return {"items": shown(place, rows, user.name, True)}


# ── preferences ──
@router.get("/pair")
def pair(request: Request, user: Annotator) -> Any:
    found, left = preferences.next_pair(request.app.state.place, user.name)
    return {"pair": found, "left": left}


@router.post("/prefer")
def prefer(request: Request, user: Annotator, body: Preference) -> Any:
    preferences.prefer(request.app.state.place, user.name, body.pair, body.choice, body.rationale, body.seconds)
    return {"saved": True}


# ── what comes into the queue ──
@router.post("/fill")
def fill(request: Request, user: Reviewer, body: Fill) -> Any:
    """Draw answers of the run: 30% uniform, 40% doubtful, 20% predicted violations, 10% diverse (norma.labels.queues)."""
    place = request.app.state.place
    made = place.draw(body.count, body.seed)
    place.database.note(user.name, "fill", count=made)
    return {"made": made}


@router.post("/items")
async def items(request: Request, user: Reviewer) -> Any:
    """JSON lines {id?, messages, response, rule?, language?}: each becomes a task under its rule, or under every rule that applies."""
    import asyncio

    body = await request.body()
    return await asyncio.to_thread(_import, request.app.state.place, user.name, body)


def _import(place: Any, who: str, body: bytes) -> Any:
    rows = []
    for number, line in enumerate(body.decode("utf-8", "strict").splitlines() if _utf8(body) else [], 1):
        if line.strip():
            try:
                row = json.loads(line)
                answer = Answer(messages=row["messages"], response=row["response"], rules=[row["rule"]] if row.get("rule") else [])
            except (ValueError, KeyError, TypeError, RecursionError):
                raise NormaError("not a row with messages and response", where=f"line {number}") from None
            rows.append((answer, str(row.get("language") or "")))
    made = sum(_add(place, answer, "import", language) for answer, language in rows)
    place.database.note(who, "import items", rows=len(rows), tasks=made)
    return {"rows": len(rows), "made": made}


def _utf8(body: bytes) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NormaError(f"the file is not UTF-8 text (byte {error.start})") from None
    return True


@router.post("/annotate")
def annotate_answer(request: Request, user: Annotator, body: Answer) -> Any:
    """An answer of the chat goes to the head of the queue, under the rules named or all that apply."""
    place = request.app.state.place
    made = _add(place, body, "chat")
    place.database.note(user.name, "annotate answer", tasks=made, model=body.model)
    return {"made": made}


def _add(place: Any, answer: Answer, queue: str, language: str = "") -> int:
    from norma.evaluate import prompts

    spec = place.run_spec
    if spec is None:
        raise NormaError("there is no spec here: nothing to mark answers by", mend="Open a run with a spec, or a spec file")
    for m in answer.messages:
        if set(m) != {"role", "content"} or m["role"] not in ("system", "developer", "user", "assistant"):
            raise NormaError("a message has a role and a content")
    messages = tuple(Message(role=m["role"], content=m["content"]) for m in answer.messages)
    item = Item(f"{queue}/{digest([dict(m) for m in messages])[:16]}", messages, language or prompts.language_of(messages[-1]["content"]))
    rules = [spec.rule(r) for r in answer.rules] if answer.rules else [spec.rule(r) for r in spec.resolve(item).active]
    place.database.labels.add_items([item])
    name = digest([queue, item.id, answer.response, time.time()])
    drawn = [
        Drawn(name, n, item.id, answer.response, r.id, r.hash, item.language, item.id, queue, None) for n, r in enumerate(rules)
    ]  # fmt: skip
    made: int = place.work.fill(drawn, {}, first=queue == "chat")
    return made


@router.get("/tasks")
def tasks(
    request: Request, user: Reviewer, state: str = "", rule: str = "", after: int = Query(-(2**31)), count: int = Query(50, ge=1, le=200)
) -> Any:
    """The queue as a list, a page at a time."""
    query = select(TASKS.c.key, TASKS.c.place, TASKS.c.item, TASKS.c.rule, TASKS.c.state, TASKS.c.marks, TASKS.c.wanted, TASKS.c.response)
    query = query.where(TASKS.c.place > after).order_by(TASKS.c.place).limit(count)
    for column, value in ((TASKS.c.state, state), (TASKS.c.rule, rule)):
        if value:
            query = query.where(column == value)
    with request.app.state.place.database.read() as connection:
        rows = [dict(r._mapping) for r in connection.execute(query)]
        total = connection.execute(select(func.count()).select_from(TASKS)).scalar_one()
    return {"tasks": rows, "total": total}


@router.get("/progress")
def progress(request: Request, user: Annotator) -> Any:
    return {"progress": request.app.state.place.work.progress(user.name)}
