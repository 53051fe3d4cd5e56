"""Argilla 2: records as ``dataset.records.to_json`` writes them and ``from_json`` reads them.

    {"id", "fields": {"prompt": [messages], "response"}, "metadata": {...}, "responses": {question: [{"value", "user_id"}]},
     "suggestions": {question: {"value", "score", "agent"}}}

A question of labels named like the rule (dots are not allowed there: ``style.polite`` is ``style-polite``) is the verdict;
``corrected_<rule>`` and ``rationale_<rule>`` are text questions, ``spans`` is a span question on ``response``. People are UUIDs there: a
name becomes the UUID that it determines, and stays readable in the metadata. Only one suggestion a question is possible.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from norma.base.errors import NormaError
from norma.base.hashing import digest
from norma.labels.formats.batch import Batch, Reading, Task
from norma.labels.rows import Label
from norma.spec.types import Item

_RESPONSE = ("response", "completion", "answer", "output", "text")


def question(rule: str) -> str:
    """The rule's name as Argilla allows it."""
    return re.sub(r"[^a-z0-9_-]+", "-", rule.lower())


def user_id(annotator: str) -> str:
    """A person's UUID: the name itself where it is one."""
    try:
        return str(uuid.UUID(annotator))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"norma:annotator:{annotator}"))


def write(tasks: Iterable[Task], items: Mapping[str, Item]) -> list[dict[str, Any]]:
    """Records for ``rg.Record.from_dict`` or ``dataset.records.from_json``."""
    records = []
    for number, task in enumerate(tasks):
        names = {question(rule): rule for rule in task.rules}
        if len(names) < len(task.rules):
            raise NormaError(f"two rules have one name in Argilla: {', '.join(sorted(task.rules))}", mend="Rename one of them")
        responses: dict[str, list[dict[str, Any]]] = defaultdict(list)
        suggestions: dict[str, dict[str, Any]] = {}
        people: dict[str, str] = {}
        spans: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for mark in task.labels:
            name = question(mark.rule)
            if mark.source != "human":
                agent = f"{mark.source}/{mark.annotator}/{mark.checker}"
                suggestions.setdefault(name, {"value": mark.verdict, "score": mark.score, "agent": agent})
                continue
            person = user_id(mark.annotator)
            people[person] = mark.annotator
            responses[name].append({"value": mark.verdict, "user_id": person})
            if mark.corrected is not None:
                responses[f"corrected_{name}"].append({"value": mark.corrected, "user_id": person})
            if mark.rationale:
                responses[f"rationale_{name}"].append({"value": mark.rationale, "user_id": person})
            spans[person] += [{"label": name, "start": a, "end": b} for a, b in mark.spans]
        responses["spans"] += [{"value": found, "user_id": person} for person, found in spans.items() if found]
        item = items.get(task.item)
        metadata = {
            "item": task.item,
            "language": task.language,
            "queue": task.queue,
            "inclusion_probability": task.inclusion_probability,
            "guideline": task.guideline,
            "rules": json.dumps({name: [rule, task.rules[rule]] for name, rule in names.items()}, ensure_ascii=False),
            "annotators": json.dumps(people, ensure_ascii=False) if any(k != v for k, v in people.items()) else "",
        }
        records.append(
            {
                "id": digest(["record", number, task.item, task.response, dict(task.rules)])[:32],
                "fields": {"prompt": [dict(m) for m in item.messages] if item else [], "response": task.response},
                "metadata": {name: value for name, value in metadata.items() if value not in ("", None)},
                "suggestions": suggestions,
                "responses": {name: given for name, given in responses.items() if given},
                "vectors": {},
            }
        )
    return records


def read(rows: Iterable[Any], reading: Reading, where: str = "records") -> Batch:
    """Labels of exported records: responses are people's, suggestions are their agents'."""
    batch = Batch([])
    seen: set[str] = set()
    other: set[str] = set()
    for number, row in enumerate(rows, 1):
        place = f"{where}, record {number}"
        if not isinstance(row, dict) or not isinstance(row.get("fields"), dict):
            raise NormaError("not an Argilla record: it needs 'fields'", where=place, mend="Export with dataset.records.to_json")
        given, metadata = row["fields"], row.get("metadata") or {}
        response = next((given[name] for name in _RESPONSE if isinstance(given.get(name), str)), None)
        if response is None:
            raise NormaError(f"no text to be marked (its fields: {', '.join(given)})", where=place, mend="Name the field 'response'")
        item = str(metadata.get("item") or row.get("id") or digest(["record", given])[:16])
        language = str(metadata.get("language") or reading.language)
        if item not in seen and (messages := _messages(given)):
            seen.add(item)
            batch.items.append(Item(item, messages, language))
        rules = {name: (rule, hash) for name, (rule, hash) in json.loads(metadata.get("rules") or "{}").items()}
        people = json.loads(metadata.get("annotators") or "{}")
        common = {
            "item": item,
            "response": response,
            "language": language,
            "queue": metadata.get("queue", ""),
            "inclusion_probability": metadata.get("inclusion_probability"),
            "guideline": metadata.get("guideline") or reading.guideline,
        }
        responses = row.get("responses") or {}
        extra = {(name, r["user_id"]): r["value"] for name, found in responses.items() for r in found if r.get("user_id")}
        for name, found in [*responses.items(), *((n, [s]) for n, s in (row.get("suggestions") or {}).items())]:
            if name == "spans" or name.startswith(("corrected_", "rationale_")):
                continue
            rule, hash = rules.get(name) or (reading.rule_of(name, place), "")
            for one in found:
                if not isinstance(one["value"], (str, int, float)):
                    other.add(name)
                    continue
                person = one.get("user_id")
                verdict, score = reading.mark(one["value"], place)
                who = (
                    _agent(one)
                    if person is None
                    else {
                        "annotator": people.get(person, person),
                        "corrected": extra.get((f"corrected_{name}", person)),
                        "rationale": extra.get((f"rationale_{name}", person), ""),
                        "spans": tuple((s["start"], s["end"]) for s in extra.get(("spans", person), ()) if s["label"] == name),
                        "score": score,
                    }
                )
                hash = hash or reading.hashes.get(rule, "")
                batch.labels.append(Label(**common, **who, rule=rule, rule_hash=hash, verdict=verdict))
    batch.notes.extend(f"answers to the question '{name}' are not verdicts, and were passed over" for name in sorted(other))
    return batch


def _messages(given: Mapping[str, Any]) -> tuple[Any, ...]:
    prompt = given.get("prompt") or given.get("instruction") or given.get("question") or []
    if isinstance(prompt, str):
        return ({"role": "user", "content": prompt},)
    return tuple({"role": str(m["role"]), "content": str(m["content"])} for m in prompt)


def _agent(suggestion: Mapping[str, Any]) -> dict[str, Any]:
    source, _, rest = str(suggestion.get("agent") or "model").partition("/")
    annotator, _, checker = rest.rpartition("/")
    if source not in ("checker", "judge"):
        return {"annotator": f"model:{suggestion.get('agent')}", "source": "judge"}
    return {"annotator": annotator, "source": source, "checker": checker, "score": suggestion.get("score")}
