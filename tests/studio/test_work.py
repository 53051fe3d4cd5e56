"""The queue: who gets what, what a mark changes, what undo leaves; nothing is lost when several submit at once."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from norma.base.errors import NormaError
from norma.labels.queues import Candidate, Drawn
from norma.labels.rows import current
from norma.studio.work import WITHDRAWN, Work


def drawn(count: int, rule: str = "style.polite", response: str = "Yes.") -> list[Drawn]:
    return [Drawn("d", n, f"q{n}", response, rule, "f" * 64, "en", f"c{n}", "uniform", 0.5) for n in range(count)]


def key(n: int) -> str:
    """The task of ``drawn``'s n-th answer, as the queues name it."""
    return Candidate(f"q{n}", "Yes.", "style.polite", "f" * 64).key


def fill(work: Work, count: int = 3, **machine: tuple[str, str]) -> None:
    assert work.fill(drawn(count), machine, overlap=0.0) == count


def test_a_task_goes_to_one_person_at_a_time_and_is_done_after_one_mark(work: Work) -> None:
    fill(work)
    ann, ben = work.next("ann", count=2), work.next("ben", count=2)
    assert [t.key for t in ann] == [key(0), key(1)] and [t.key for t in ben] == [key(2)]
    assert work.mark(key(0), "ann", "compliant") == {"marks": 1, "wanted": 1, "state": "done"}
    assert [t.key for t in work.next("ann", held=[key(1)])] == []
    assert work.progress("ann")["left"] == 2 and work.progress("ann")["done"] == 1
    assert work.fill(drawn(3), {}) == 0  # what is there already is no new work


def test_the_same_mark_again_is_one_row_and_another_one_is_refused(work: Work) -> None:
    fill(work)
    for _ in range(2):
        work.mark(key(0), "ann", "violation", seconds=2.5, spans=((0, 3),))
    with pytest.raises(NormaError, match="has already marked"):
        work.mark(key(0), "ann", "compliant")
    with pytest.raises(NormaError, match="revision 2"):
        work.mark(key(0), "ann", "compliant", revision=2)
    (row,) = work.database.labels.rows()
    assert (row.verdict, row.spans, row.seconds, row.queue, row.inclusion_probability) == ("violation", ((0, 3),), 2.5, "uniform", 0.5)


def test_undo_takes_a_mark_back_without_deleting_it_and_the_next_is_a_new_revision(work: Work) -> None:
    fill(work)
    work.mark(key(0), "ann", "violation")
    work.mark(key(1), "ann", "compliant")
    found = work.undo("ann")
    assert found is not None and found[0] == key(1) and found[1].verdict == "compliant"
    assert work.task(key(1)).state == "open" and work.task(key(1)).marks == 0 and work.progress("ann")["today"] == 1
    assert [t.key for t in work.next("ann")] == [key(1), key(2)]
    assert work.mark(key(1), "ann", "violation", revision=2)["state"] == "done"
    rows = [r for r in work.database.labels.rows() if r.item == "q1"]
    assert sorted((r.revision, r.verdict, r.rationale) for r in rows) == [
        (0, "compliant", ""), (1, "unsure", WITHDRAWN), (2, "violation", "")
    ]  # fmt: skip
    assert [r.verdict for r in current(rows)] == ["violation"]  # every other reader of the store sees the last word only
    assert work.undo("ann") is not None and work.undo("ann") is not None and work.undo("ann") is None


def test_a_contradicted_checker_and_an_unsure_person_send_the_task_to_a_second_one(work: Work) -> None:
    fill(work, 3, **{key(0): ("violation", "m"), key(1): ("compliant", "m")})
    assert work.mark(key(0), "ann", "compliant") == {"marks": 1, "wanted": 2, "state": "open"}
    assert work.mark(key(1), "ann", "compliant")["state"] == "done"
    assert work.mark(key(2), "ann", "unsure")["state"] == "open"
    assert [t.key for t in work.next("ann")] == []
    assert {t.key for t in work.next("ben")} == {key(0), key(2)}
    assert work.mark(key(0), "ben", "compliant")["state"] == "done"


def test_two_who_contradict_each_other_make_a_conflict_that_a_reviewer_settles(work: Work) -> None:
    assert work.fill(drawn(1), {}, overlap=1.0) == 1
    assert work.mark(key(0), "ann", "compliant")["state"] == "open"
    assert work.mark(key(0), "ben", "violation")["state"] == "conflict"
    assert work.next("eve") == []  # not for everybody
    assert [t.key for t in work.next("rita", reviewer=True)] == [key(0)]
    assert sorted((m.annotator, m.verdict) for m in work.marks([work.task(key(0))])[key(0)]) == [("ann", "compliant"), ("ben", "violation")]
    assert work.mark(key(0), "rita", "violation", gold=True)["state"] == "done"
    assert work.agreement() == [
        (("style.polite", "f" * 64, "en"), {"ann": "compliant", "ben": "violation", "rita": "violation"}, 1)
    ]


def test_skipping_gives_it_to_others_and_back_on_request(work: Work) -> None:
    fill(work, 1)
    work.next("ann")
    work.skip(key(0), "ann")
    assert work.next("ann") == [] and work.progress("ann")["skipped"] == 1
    assert work.unskip("ann") == 1 and len(work.next("ann")) == 1


def test_many_people_submitting_the_same_items_at_once_lose_nothing(work: Work) -> None:
    names, count = [f"a{n}" for n in range(6)], 8
    assert work.fill(drawn(count), {}, overlap=1.0) == count
    errors: list[Any] = []
    barrier = threading.Barrier(len(names))

    def person(name: str) -> None:
        try:
            barrier.wait()
            for n in range(count):
                work.mark(key(n), name, "compliant" if name < "a4" else "violation")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=person, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    rows = work.database.labels.rows()
    assert sorted((r.item, r.annotator) for r in rows) == sorted((f"q{n}", name) for n in range(count) for name in names)
    for n in range(count):
        assert (work.task(key(n)).marks, work.task(key(n)).state) == (6, "done")  # four against two


def test_marks_from_before_there_was_a_task_are_counted(work: Work) -> None:
    from norma.labels import Label

    work.database.labels.add([Label("q0", "Yes.", "style.polite", "f" * 64, "zoe", "violation", language="en")])
    assert work.fill(drawn(2), {}, overlap=0.0) == 2
    assert work.task(key(0)).state == "done" and work.task(key(1)).state == "open"


def test_a_kill_between_mark_and_receipt_is_mended_by_sending_again(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(work, 1)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(work, "settle", killed)
        with pytest.raises(KeyboardInterrupt):
            work.mark(key(0), "ann", "compliant")
    assert work.database.labels.count() == 1 and work.task(key(0)).state == "open"
    assert work.mark(key(0), "ann", "compliant")["state"] == "done" and work.database.labels.count() == 1
