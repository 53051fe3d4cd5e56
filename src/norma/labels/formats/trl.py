"""TRL's and Hugging Face's training rows as labels: preference pairs, KTO rows and SFT rows.

    prompt, chosen, rejected   two marks: chosen complies; rejected is a violation, corrected to chosen
    prompt, completion, label  one mark: True complies, False is a violation
    messages, or prompt and completion   one mark: complies (somebody chose it to be learnt)

These formats hold neither rule nor annotator: they come from the options. An item is its prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from norma.base.errors import NormaError
from norma.base.hashing import digest
from norma.labels.formats.batch import Batch, Reading
from norma.labels.rows import Label
from norma.spec.types import Item, Message
from norma.text.shapes import LAYOUTS, Completion, Conversation, Misfit, Preference, recognise

_ANNOTATOR = "dataset"


def fits(row: Mapping[str, Any]) -> bool:
    """Whether this is a training row with an answer in it."""
    return recognise(row) not in (None, "text", "transcripts")


def read(rows: Iterable[tuple[str, Mapping[str, Any]]], reading: Reading) -> Batch:
    """Labels of training rows in any layout that ``norma.text.shapes`` knows."""
    batch = Batch([])
    seen: set[str] = set()
    for place, row in rows:
        prompt, answers = _answers(row, place)
        messages = tuple(Message(role=str(m["role"]), content=str(m["content"])) for m in prompt)
        item = str(row.get("id") or digest(["prompt", [dict(m) for m in messages]])[:16])
        language = str(row.get("language") or reading.language)
        if item not in seen:
            seen.add(item)
            batch.items.append(Item(item, messages, language or "en"))
        rule = reading.rule_of(str(row.get("rule") or ""), place)
        hash = str(row.get("rule_hash") or reading.hashes.get(rule, ""))
        annotator = str(row.get("annotator") or reading.annotator or _ANNOTATOR)
        for response, verdict, corrected in answers:
            batch.labels.append(
                Label(item, response, rule, hash, annotator, verdict, language=language, corrected=corrected, guideline=reading.guideline)
            )
    return batch


def _answers(row: Mapping[str, Any], place: str) -> tuple[tuple[Any, ...], list[tuple[str, str, str | None]]]:
    """The prompt, and (answer, verdict, corrected) of each answer in the row."""
    layout = recognise(row)
    if layout is None or layout == "text":
        raise NormaError(f"not a training row (columns: {', '.join(row)})", where=place, mend="It needs prompt, and chosen and rejected")
    try:
        shape = LAYOUTS[layout](row)
    except Misfit as error:
        raise NormaError(str(error), where=place) from None
    if isinstance(shape, Preference):
        chosen, rejected = _text(shape.chosen, place), _text(shape.rejected, place)
        return shape.prompt, [(chosen, "compliant", None), (rejected, "violation", chosen)]
    if isinstance(shape, Completion):
        verdict = "violation" if shape.label is False else "compliant"
        return shape.prompt, [(_text(shape.completion, place), verdict, None)]
    if isinstance(shape, Conversation) and len(shape.messages) > 1 and shape.messages[-1]["role"] == "assistant":
        return shape.messages[:-1], [(shape.messages[-1]["content"], "compliant", None)]
    raise NormaError("a row without an answer cannot be a label", where=place)


def _text(turns: tuple[Any, ...], place: str) -> str:
    if len(turns) != 1:
        raise NormaError(f"an answer of {len(turns)} turns cannot be one label", where=place)
    return str(turns[0]["content"])
