"""Label Studio: tasks with annotations (people) and predictions (checkers), and the labelling configuration that shows them.

    {"data": {"item", "prompt", "response", ...}, "annotations": [{"completed_by", "lead_time", "ground_truth", "result": [...]}],
     "predictions": [{"model_version", "result": [...]}]}

A result is a region of a control tag: ``choices`` named like the rule is the verdict, ``labels`` are spans of the answer, ``textarea``
named ``corrected:<rule>`` and ``rationale:<rule>`` the texts. The layout is that of Label Studio's JSON export and import (its guide, "Task
format").
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from norma.base.errors import NormaError
from norma.base.hashing import digest
from norma.labels.formats.batch import Batch, Reading, Task, shown
from norma.labels.rows import Label
from norma.spec.types import Item

_RESPONSE = ("response", "completion", "answer", "output", "text")
_PROMPT = ("prompt", "question", "instruction", "input")


def configuration(rules: Iterable[str]) -> str:
    """The labelling configuration (XML) of a project that can show and edit what ``write`` gives."""
    names = list(rules)
    parts = ["<View>", '  <Text name="prompt" value="$prompt"/>']
    if names:
        parts += ['  <Labels name="spans" toName="response">', *(f"    <Label value={quoteattr(n)}/>" for n in names), "  </Labels>"]
    parts.append('  <Text name="response" value="$response"/>')
    for name in names:
        parts += [
            f"  <Header value={quoteattr(name)}/>",
            f'  <Choices name={quoteattr(name)} toName="response" choice="single">',
            *(f'    <Choice value="{verdict}"/>' for verdict in ("compliant", "violation", "not_applicable", "unsure")),
            "  </Choices>",
            f'  <TextArea name={quoteattr("corrected:" + name)} toName="response" maxSubmissions="1" editable="true"/>',
            f'  <TextArea name={quoteattr("rationale:" + name)} toName="response" maxSubmissions="1" editable="true"/>',
        ]
    return "\n".join([*parts, "</View>", ""])


def write(tasks: Iterable[Task], items: Mapping[str, Item]) -> list[dict[str, Any]]:
    """Tasks for import into Label Studio."""
    rows = []
    for task in tasks:
        item = items.get(task.item)
        people: dict[tuple[str, bool], list[Label]] = defaultdict(list)
        checkers: dict[tuple[str, str, str], list[Label]] = defaultdict(list)
        for mark in task.labels:
            if mark.source == "human":
                people[mark.annotator, mark.gold].append(mark)
            else:
                checkers[mark.source, mark.annotator, mark.checker].append(mark)
        data = {
            "item": task.item,
            "prompt": shown(item.messages) if item else "",
            "messages": [dict(m) for m in item.messages] if item else [],
            "response": task.response,
            "language": task.language,
            "rules": dict(task.rules),
            "queue": task.queue,
            "inclusion_probability": task.inclusion_probability,
            "guideline": task.guideline,
        }
        rows.append(
            {
                "data": data,
                "annotations": [
                    {
                        "completed_by": {"email": annotator},
                        "ground_truth": gold,
                        "was_cancelled": False,
                        **({"lead_time": sum(m.seconds or 0 for m in marks)} if any(m.seconds is not None for m in marks) else {}),
                        "result": _regions(marks),
                    }
                    for (annotator, gold), marks in people.items()
                ],
                "predictions": [
                    {
                        "model_version": f"{source}/{annotator}/{checker}",
                        **({"score": marks[0].score} if len(marks) == 1 and marks[0].score is not None else {}),
                        "result": _regions(marks),
                    }
                    for (source, annotator, checker), marks in checkers.items()
                ],
            }
        )
    return rows


def _regions(marks: Sequence[Label]) -> list[dict[str, Any]]:
    result = []
    for mark in marks:
        values: list[tuple[str, str, dict[str, Any]]] = [(mark.rule, "choices", {"choices": [mark.verdict]})]
        values += [("spans", "labels", {"start": a, "end": b, "text": mark.response[a:b], "labels": [mark.rule]}) for a, b in mark.spans]
        if mark.corrected is not None:
            values.append((f"corrected:{mark.rule}", "textarea", {"text": [mark.corrected]}))
        if mark.rationale:
            values.append((f"rationale:{mark.rule}", "textarea", {"text": [mark.rationale]}))
        for number, (name, kind, value) in enumerate(values):
            region = {"id": digest([mark.key, number])[:10], "from_name": name, "to_name": "response", "type": kind, "value": value}
            result.append(region)
    return result


def read(rows: Iterable[Any], reading: Reading, where: str = "tasks") -> Batch:
    """Labels of exported tasks: annotations are people's, predictions are checkers'. Skipped annotations are passed over and counted."""
    batch, skipped = Batch([]), 0
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        place = f"{where}, task {number}"
        if not isinstance(row, dict) or not isinstance(row.get("data"), dict):
            raise NormaError("not a Label Studio task: it needs 'data'", where=place, mend="Export the project as JSON")
        data = row["data"]
        response = next((data[name] for name in _RESPONSE if isinstance(data.get(name), str)), None)
        if response is None:
            raise NormaError(f"no text to be marked in 'data' (its fields: {', '.join(data)})", where=place, mend="Name it 'response'")
        item = str(data.get("item") or row.get("id") or digest(["task", data])[:16])
        prompt = next((data[name] for name in _PROMPT if data.get(name) and isinstance(data[name], str)), "")
        messages = data.get("messages") or ([{"role": "user", "content": prompt}] if prompt else [])
        language = str(data.get("language") or reading.language)
        if messages and item not in seen:
            seen.add(item)
            batch.items.append(Item(item, tuple({"role": str(m["role"]), "content": str(m["content"])} for m in messages), language))
        common = {
            "item": item,
            "response": response,
            "language": language,
            "queue": str(data.get("queue") or ""),
            "inclusion_probability": data.get("inclusion_probability"),
            "guideline": str(data.get("guideline") or reading.guideline),
        }
        hashes = data.get("rules") if isinstance(data.get("rules"), dict) else {}
        for annotation in row.get("annotations") or row.get("completions") or []:
            if annotation.get("was_cancelled"):
                skipped += 1
                continue
            who = {"annotator": _person(annotation.get("completed_by"), reading), "gold": bool(annotation.get("ground_truth"))}
            marks = _marks(annotation.get("result") or [], {**common, **who}, hashes, reading, place)
            seconds = annotation.get("lead_time")
            if seconds is not None and marks:  # one clock for all rules of the annotation
                marks = [{**mark, "seconds": float(seconds) / len(marks)} for mark in marks]
            batch.labels.extend(Label(**mark) for mark in marks)
        for prediction in row.get("predictions") or []:
            source, _, rest = str(prediction.get("model_version") or "model").partition("/")
            annotator, _, checker = rest.rpartition("/")
            known = source in ("checker", "judge")
            who = {
                "annotator": annotator if known else f"model:{prediction.get('model_version')}",
                "source": source if known else "judge",
                "checker": checker if known else "",
            }
            marks = _marks(prediction.get("result") or [], {**common, **who}, hashes, reading, place)
            if len(marks) == 1 and known:
                marks[0]["score"] = prediction.get("score")
            batch.labels.extend(Label(**mark) for mark in marks)
    if skipped:
        batch.notes.append(f"{skipped:,} skipped annotations were passed over")
    return batch


def _person(completed_by: Any, reading: Reading) -> str:
    if isinstance(completed_by, dict):
        return str(completed_by.get("email") or completed_by.get("id") or reading.annotator or "unknown")
    return str(completed_by) if completed_by is not None else reading.annotator or "unknown"


def _marks(
    regions: Sequence[Any], common: Mapping[str, Any], hashes: Mapping[str, str], reading: Reading, place: str
) -> list[dict[str, Any]]:
    """The fields of one mark for each rule that the regions give a verdict on."""
    marks: dict[str, dict[str, Any]] = {}
    spans: dict[str, list[tuple[int, int]]] = defaultdict(list)
    texts: dict[tuple[str, str], str] = {}
    for region in regions:
        kind, value, name = region.get("type"), region.get("value") or {}, str(region.get("from_name", ""))
        if kind in ("choices", "rating", "number"):
            rule = reading.rule_of(name, place)
            given = value.get(kind)
            verdict, score = reading.mark(given[0] if isinstance(given, list) and given else given, place)
            hash = str(hashes.get(rule) or reading.hashes.get(rule, ""))
            marks[rule] = {**common, "rule": rule, "rule_hash": hash, "verdict": verdict, "score": score}
        elif kind in ("labels", "hypertextlabels"):
            for label in value.get(kind) or []:
                spans[reading.names.get(label, label)].append((int(value["start"]), int(value["end"])))
        elif kind == "textarea":
            what, _, rule = name.partition(":")
            given = value.get("text")
            texts[what, reading.names.get(rule, rule)] = "\n".join(given) if isinstance(given, list) else str(given)
    for rule, mark in marks.items():
        mark["spans"] = tuple(spans.get(rule, ()))
        mark["corrected"] = texts.get(("corrected", rule))
        mark["rationale"] = texts.get(("rationale", rule), "")
    return list(marks.values())
