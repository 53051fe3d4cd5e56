"""The work of annotators: what is to be marked, who gets what next, and what a mark changes.

    answers of a run, of a file, of a chat ─fill─→ tasks ─next─→ an annotator's browser (three ahead, nobody else is given them for a while)
    mark ─→ 1. a Label in the label store, committed ─→ 2. the task counts anew from the marks that hold ─→ receipt
              undo: a further row that takes the mark back; nothing is ever changed or deleted

How many people see a task: one; two for a share drawn by its key (agreement needs them), where the first is unsure, and where the first
contradicts the report's checker. Two who contradict each other make a conflict, which a reviewer settles with a gold mark.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import and_, case, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Row

from norma.base.errors import NormaError
from norma.labels import Label
from norma.labels.queues import Candidate, Drawn
from norma.labels.schema import LABELS
from norma.labels.summary import Group
from norma.spec.types import Status
from norma.studio.database import Database
from norma.studio.tables import SEEN, TASKS

LEASE = 600.0  # seconds for which a task that was shown to somebody is shown to nobody else
OVERLAP = 0.1  # share of tasks that two people see in any case
WITHDRAWN = "(withdrawn)"  # rationale of a row that takes a mark back
DECIDED = (Status.COMPLIANT.value, Status.VIOLATION.value, Status.NOT_APPLICABLE.value)
AHEAD = 3
_NAMES = tuple(c.name for c in LABELS.c if c.name != "created")


class Work:
    """The queue of one studio."""

    def __init__(self, database: Database) -> None:
        self.database = database

    # ── what is to be marked ──
    def fill(self, drawn: Iterable[Drawn], machine: Mapping[str, tuple[str, str]], *, first: bool = False, overlap: float = OVERLAP) -> int:
        """Make tasks of what a queue drew; returns how many are new. ``machine``: {Drawn.answer: (checker's verdict, method)};
        ``first``: in front of all others."""
        now = time.time()
        with self.database.write() as connection:
            edge = (func.min if first else func.max)(TASKS.c.place)
            end = connection.execute(select(edge)).scalar()
            begin = 0 if end is None else int(end)
            rows: dict[str, dict[str, Any]] = {}
            for number, d in enumerate(drawn, 1):
                verdict, method = machine.get(d.answer, ("", ""))
                twice = int(d.answer[:8], 16) < overlap * 16**8
                rows.setdefault(d.answer, {
                    "key": d.answer, "place": begin - number if first else begin + number, "item": d.item, "response": d.response,
                    "response_hash": d.row()["response_hash"], "rule": d.rule, "rule_hash": d.rule_hash, "language": d.language,
                    "queue": d.queue, "inclusion_probability": d.inclusion_probability, "machine": verdict, "method": method,
                    "wanted": 2 if twice else 1, "marks": 0, "state": "open", "created": now, "said": "",
                })  # fmt: skip
            made = 0
            insert = sqlite.insert if self.database.sqlite else postgresql.insert
            values = list(rows.values())
            for at in range(0, len(values), 500):
                statement = insert(TASKS).on_conflict_do_nothing().returning(TASKS.c.key)
                new = [row.key for row in connection.execute(statement, values[at : at + 500])]
                made += len(new)
                self._adopt(connection, new)
        return made

    def _adopt(self, connection: Connection, keys: Sequence[str]) -> None:
        """Tasks whose answer was marked before they were tasks count those marks."""
        same = and_(LABELS.c.item == TASKS.c.item, LABELS.c.response_hash == TASKS.c.response_hash, LABELS.c.rule == TASKS.c.rule)
        query = select(TASKS.c.key).join(LABELS, same).where(TASKS.c.key.in_(keys), LABELS.c.source == "human").distinct()
        for row in connection.execute(query).all():
            self._settle(connection, row.key)

    # ── who gets what ──
    def next(self, who: str, *, reviewer: bool = False, rule: str = "", held: Sequence[str] = (), count: int = AHEAD) -> list[Row[Any]]:
        """The next tasks for ``who`` and nobody else for a while; a reviewer's conflicts first. ``held``: what the browser has."""
        now = time.time()
        mine = select(SEEN.c.task).where(SEEN.c.task == TASKS.c.key, SEEN.c.annotator == who, SEEN.c.how.in_(("marked", "skipped")))
        others = select(func.count()).where(SEEN.c.task == TASKS.c.key, SEEN.c.annotator != who, SEEN.c.how == "opened", SEEN.c.until > now)
        free = TASKS.c.marks + others.scalar_subquery() < TASKS.c.wanted
        found: list[Row[Any]] = []
        with self.database.write() as connection:
            for state in ("conflict", "open") if reviewer else ("open",):
                query = select(TASKS).where(TASKS.c.state == state, ~mine.exists()).order_by(TASKS.c.place)
                if state == "open":
                    query = query.where(free)
                if rule:
                    query = query.where(TASKS.c.rule == rule)
                if held:
                    query = query.where(TASKS.c.key.not_in(held))
                found += connection.execute(query.limit(count - len(found))).all()
            for task in found:
                self._see(connection, task.key, who, "opened", now + LEASE)
        return found

    def _see(self, connection: Connection, task: str, who: str, how: str, until: float = 0.0) -> None:
        insert = sqlite.insert if self.database.sqlite else postgresql.insert
        statement = insert(SEEN).values(task=task, annotator=who, how=how, until=until)
        connection.execute(statement.on_conflict_do_update(index_elements=["task", "annotator"], set_={"how": how, "until": until}))

    def task(self, key: str) -> Row[Any]:
        """One task. Raises NormaError when there is none."""
        with self.database.read() as connection:
            return _task(connection, key)

    def skip(self, key: str, who: str) -> None:
        """Pass over a task: somebody else may have it, and ``who`` again after ``unskip``."""
        with self.database.write() as connection:
            self._see(connection, _task(connection, key).key, who, "skipped")

    def unskip(self, who: str) -> int:
        """What ``who`` passed over comes again; returns how much."""
        with self.database.write() as connection:
            return connection.execute(delete(SEEN).where(SEEN.c.annotator == who, SEEN.c.how == "skipped")).rowcount

    # ── marks ──
    def mark(self, key: str, who: str, verdict: str, *, revision: int = 0, gold: bool = False, **more: Any) -> dict[str, Any]:
        """Add ``who``'s mark of a task. The same mark again changes nothing; another mark of the same revision raises NormaError."""
        task = self.task(key)
        before = self.history(task, who)
        if revision > len(before):
            raise NormaError(f"revision {revision} of a mark that has {len(before)}", mend="Load the item again")
        label = Label(
            item=task.item, response=task.response, rule=task.rule, rule_hash=task.rule_hash, annotator=who, verdict=verdict,
            language=task.language, queue=task.queue, inclusion_probability=task.inclusion_probability, revision=revision, gold=gold,
            supersedes=before[revision - 1].key if revision else None, **more,
        )  # fmt: skip
        self.database.labels.add([label])  # committed: whatever happens from here on, the mark is there
        return self.settle(key, who, "marked")

    def settle(self, key: str, who: str, how: str, until: float = 0.0) -> dict[str, Any]:
        """Count a task anew after ``who`` marked it or took a mark back."""
        with self.database.write() as connection:
            self._see(connection, key, who, how, until)
            return self._settle(connection, key)

    def _settle(self, connection: Connection, key: str) -> dict[str, Any]:
        task = _task(connection, key)
        marks = standing(_marks(connection, task))
        people, said = len(marks), Counter(m.verdict for m in marks if m.verdict in DECIDED)
        gold = any(m.gold for m in marks)
        doubt = len(said) < people or (task.machine in DECIDED and any(verdict != task.machine for verdict in said))
        wanted = max(task.wanted, 2 if doubt else 1)
        most = said.most_common(2)
        split = len(most) == 2 and (people < 3 or most[0][1] == most[1][1])
        state = "done" if gold else "conflict" if split else "done" if people >= wanted else "open"
        connection.execute(update(TASKS).where(TASKS.c.key == key).values(marks=people, wanted=wanted, state=state, said=pattern(marks)))
        if people:
            self._remember(connection, key, marks)
        return {"marks": people, "wanted": wanted, "state": state}

    def _remember(self, connection: Connection, key: str, marks: Sequence[Any]) -> None:
        insert = sqlite.insert if self.database.sqlite else postgresql.insert
        rows = [{"task": key, "annotator": m.annotator, "how": "marked", "until": 0.0} for m in marks]
        connection.execute(insert(SEEN).on_conflict_do_nothing(), rows)

    def undo(self, who: str) -> tuple[str, Label] | None:
        """Take back ``who``'s last mark that still stands; returns its task and the mark, None when there is none."""
        with self.database.read() as connection:
            taken = LABELS.alias("taken")
            gone = select(taken.c.key).where(taken.c.supersedes == LABELS.c.key)
            query = select(LABELS.c.key, TASKS.c.key.label("task")).join(TASKS, _same(LABELS)).where(
                LABELS.c.annotator == who, LABELS.c.source == "human", LABELS.c.rationale != WITHDRAWN, ~gone.exists()
            )  # fmt: skip
            last = connection.execute(query.order_by(LABELS.c.created.desc()).limit(1)).first()
        if last is None:
            return None
        mark = next(m for m in self.history(self.task(last.task), who) if m.key == last.key)
        task = self.task(last.task)
        self.database.labels.add([Label(
            item=mark.item, response=mark.response, rule=mark.rule, rule_hash=mark.rule_hash, annotator=who, verdict=Status.UNSURE.value,
            language=mark.language, rationale=WITHDRAWN, queue=mark.queue, inclusion_probability=mark.inclusion_probability,
            revision=mark.revision + 1, supersedes=mark.key,
        )])  # fmt: skip
        self.settle(task.key, who, "opened", time.time() + LEASE)
        return task.key, mark

    def history(self, task: Row[Any], who: str) -> list[Label]:
        """All of ``who``'s marks of a task, the earliest first: one a revision."""
        with self.database.read() as connection:
            query = select(LABELS).where(*_of(task), LABELS.c.annotator == who, LABELS.c.source == "human").order_by(LABELS.c.revision)
            return [_label(row) for row in connection.execute(query)]

    def marks(self, tasks: Sequence[Row[Any]]) -> dict[str, list[Label]]:
        """{task: all of people's marks of it, each person's earliest first}, by one query."""
        found: dict[str, list[Label]] = {task.key: [] for task in tasks}
        with self.database.read() as connection:
            query = select(LABELS, TASKS.c.key.label("task")).join(TASKS, _same(LABELS)).where(TASKS.c.key.in_(list(found)))
            for row in connection.execute(query.where(LABELS.c.source == "human").order_by(LABELS.c.annotator, LABELS.c.revision)):
                found[row.task].append(_label(row))
        return found

    # ── how it stands ──
    def progress(self, who: str) -> dict[str, Any]:
        """Counts for the head of the page. ``pace``: marks an hour, over the last ten minutes."""
        now = time.time()
        with self.database.read() as connection:
            states = {row[0]: row[1] for row in connection.execute(select(TASKS.c.state, func.count()).group_by(TASKS.c.state))}
            passed = case((SEEN.c.how == "skipped", 1), else_=0)
            seen = select(func.count(), func.sum(passed)).select_from(SEEN).join(TASKS, TASKS.c.key == SEEN.c.task)
            seen = seen.where(SEEN.c.annotator == who, SEEN.c.how.in_(("marked", "skipped")), TASKS.c.state == "open")
            mine, skipped = connection.execute(seen).one()
            net = func.coalesce(func.sum(case((LABELS.c.rationale == WITHDRAWN, -1), else_=1)), 0)  # a mark taken back is none
            counted = select(net, func.min(LABELS.c.created)).where(LABELS.c.annotator == who, LABELS.c.source == "human")
            recent, first = connection.execute(counted.where(LABELS.c.created > now - 600)).one()
            today = int(connection.execute(counted.where(LABELS.c.created > now - 86400)).one()[0])
        pace = round(recent / max(now - first, 30) * 3600) if recent > 1 else None
        return {
            "left": states.get("open", 0) - mine, "done": states.get("done", 0), "conflicts": states.get("conflict", 0),
            "all": sum(states.values()), "skipped": int(skipped or 0), "today": today, "pace": pace,
        }  # fmt: skip

    def agreement(self) -> list[tuple[Group, dict[str, str], int]]:
        """What agreement is made of: of answers with two marks or more, who says what, and how many answers that was said of."""
        c = TASKS.c
        query = select(c.rule, c.rule_hash, c.language, c.said, func.count()).where(c.marks >= 2)
        with self.database.read() as connection:
            rows = connection.execute(query.group_by(c.rule, c.rule_hash, c.language, c.said)).all()
        return [((rule, rule_hash, language), json.loads(said), number) for rule, rule_hash, language, said, number in rows]


def candidates(
    responses: Iterable[Mapping[str, Any]], verdicts: Iterable[Mapping[str, Any]]
) -> tuple[list[Candidate], dict[str, tuple[str, str]]]:
    """Every judged answer of a run under every rule that applies, and {its key: (checker's verdict, method)}."""
    texts = {(r["method"], r["item"]): str(r["response"]) for r in responses if not r.get("sample") and r.get("arm") is None}
    found: dict[str, Candidate] = {}
    machine: dict[str, tuple[str, str]] = {}
    for v in verdicts:
        text = texts.get((v["method"], v["item"]))
        if text is None or v["role"] != "report" or v.get("arm") is not None or v["status"] in ("not_applicable", "error"):
            continue
        score = v.get("score")
        broken = 1.0 - score if isinstance(score, (int, float)) and 0 <= score <= 1 else float(v["status"] == "violation")
        c = Candidate(v["item"], text, v["rule"], v["rule_hash"], v.get("language", ""), v.get("cluster") or v["item"], broken)
        found[c.key] = c
        machine[c.key] = (v["status"], v["method"])
    return list(found.values()), machine


def standing(marks: Iterable[Any]) -> list[Any]:
    """Of each annotator the last revision, without those that were taken back."""
    last: dict[str, Any] = {}
    for m in sorted(marks, key=lambda m: (m.annotator, m.revision)):
        last[m.annotator] = m
    return [m for m in last.values() if m.rationale != WITHDRAWN]


def pattern(marks: Iterable[Any]) -> str:
    """Who says what, of marks that stand, as one text: equal for tasks that were marked alike."""
    said = {m.annotator: m.verdict for m in sorted(marks, key=lambda m: m.annotator)}
    return json.dumps(said, ensure_ascii=False) if said else ""


def _task(connection: Connection, key: str) -> Row[Any]:
    row = connection.execute(select(TASKS).where(TASKS.c.key == key)).first()
    if row is None:
        raise NormaError("there is no such item in the queue")
    return row


def _of(task: Row[Any]) -> tuple[Any, ...]:
    c = LABELS.c
    return (c.item == task.item, c.response_hash == task.response_hash, c.rule == task.rule, c.rule_hash == task.rule_hash)


def _same(labels: Any) -> Any:
    c = labels.c
    return and_(c.item == TASKS.c.item, c.response_hash == TASKS.c.response_hash, c.rule == TASKS.c.rule, c.rule_hash == TASKS.c.rule_hash)


def _marks(connection: Connection, task: Row[Any]) -> list[Any]:
    c = LABELS.c
    query = select(c.annotator, c.verdict, c.revision, c.gold, c.rationale).where(*_of(task), c.source == "human")
    return list(connection.execute(query).all())


def _label(row: Row[Any]) -> Label:
    return Label.from_row({name: row._mapping[name] for name in _NAMES})
