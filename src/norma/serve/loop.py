"""The loop closes: what went wrong in service becomes work for annotators, in the label store.

    served answer ─ a broken rule, a low R ──────┐ with consent
    feedback      ─ thumbs down ─────────────────┴─→ item (the conversation), checkers' marks, a place in a queue ─→ people ─→ training

A stranger's thumb is no label: it decides what people look at, not what is true, so that nobody can train the model from outside.
Queues: ``rare`` for a broken rule or a low R, ``uncertain`` where a user contradicts the checkers (``norma.labels.queues``). Nothing here
has an inclusion probability: rates of the service cannot be estimated from these rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from norma.base.hashing import digest
from norma.labels import LabelStore
from norma.labels.queues import Drawn
from norma.labels.rows import marks
from norma.serve.audit import Served
from norma.serve.redact import redacted, redacted_messages
from norma.spec import Item, Message, Status, Verdict


class Loop:
    """Puts answers into a label store.

    Args:
        low: an answer with R(x, y) below this is looked at; None: only broken rules are.
        redact: replace personal data first.
    """

    def __init__(self, store: LabelStore, *, low: float | None = None, redact: bool = True) -> None:
        self.store, self.low, self.redact = store, low, redact

    def wants(self, row: Served) -> tuple[str, ...]:
        """The rules of an answer that people should look at unasked; () for none, or without consent."""
        if not row.consent or row.response is None:
            return ()
        verdicts = [Verdict.from_row(v) for v in row.verdicts]
        broken = tuple(dict.fromkeys(v.rule for v in verdicts if v.status is Status.VIOLATION))
        if broken or self.low is None or row.reward is None or row.reward >= self.low:
            return broken
        return tuple(dict.fromkeys(v.rule for v in verdicts if v.status in (Status.COMPLIANT, Status.UNSURE)))

    def observe(self, rows: Iterable[Served]) -> int:
        """Put what :meth:`wants` says into the store; returns how many places in the queue that made."""
        return sum(self.put(row, rules, "rare") for row in rows if (rules := self.wants(row)))

    def thumbs_down(self, row: Served, rule: str | None) -> int:
        """A user did not like this answer: its active rules, or the one that was named, are looked at. The caller has seen to consent."""
        if row.response is None:
            return 0
        judged = tuple(dict.fromkeys(v["rule"] for v in row.verdicts if v["status"] != Status.NOT_APPLICABLE.value))
        return self.put(row, (rule,) if rule else judged, "uncertain")

    def put(self, row: Served, rules: Iterable[str], queue: str) -> int:
        """The answer's conversation, what checkers said of ``rules``, and a place in ``queue`` for each; doing it twice doubles nothing."""
        assert row.response is not None
        messages: Sequence[Mapping[str, Any]] = row.messages
        response = row.response
        verdicts = [Verdict.from_row(v) for v in row.verdicts]
        if self.redact and not row.redacted:
            messages, clean = redacted_messages(messages), redacted(response)
            if clean != response:  # places belong to the text that was
                verdicts = [replace(v, evidence=(), note=redacted(v.note)) for v in verdicts]
            response = clean
        name = f"served/{row.answer}"
        item = Item(name, tuple(Message(role=m["role"], content=m["content"]) for m in messages), row.language, row.facts, name)
        chosen = set(rules)
        said = [replace(v, item=name) for v in verdicts if v.rule in chosen]
        hashes = {v.rule: v.rule_hash for v in said}
        head = digest(["served", row.answer, row.choice, queue])
        draws = [
            Drawn(head, place, name, response, rule, hashes[rule], row.language, name, queue, None)
            for place, rule in enumerate(r for r in dict.fromkeys(rules) if r in hashes)
        ]
        self.store.add_items([item])
        self.store.add(marks((v for v in said if v.status is not Status.NOT_APPLICABLE), response, row.language))
        return self.store.add_draws(draws)
