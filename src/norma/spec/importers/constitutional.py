"""Constitutional AI (Bai et al. 2022): critique and revision requests, and the questions by which answers are compared.

{name: {prompt: [critique request], edit_request: revision request}} ─→ a rule each: the request as its statement, and how to correct
["Please choose the response that ... Options:", ...]                ─→ a rule each: what the better answer is like
"""

from __future__ import annotations

import json
import re
from typing import Any

from norma.base.errors import NormaError
from norma.spec.importers.draft import Draft, Rule, name, plural, unique
from norma.spec.languages import guess

HELP = "Constitutional-AI JSON: {name: {prompt, edit_request}}, or a list of comparison questions"

_TAGS = re.compile(r"^\s*(?:CritiqueRequest|RevisionRequest|Critique|Revision)\s*:\s*|\s*(?:Critique|Revision|Options)\s*:\s*$")


def read(text: str, place: str, language: str | None) -> Draft:
    """A rule for each entry. Raises NormaError, with the entry's name, for what is neither of the two shapes."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise NormaError(f"not JSON ({error})", where=place) from None
    tag = language or guess(text, ["en", "zh-Hans"], "en")
    draft = Draft(tag)
    same: dict[str, str] = {}
    if isinstance(data, dict):
        for key, entry in data.items():
            rule = _critique(str(key), entry, place, tag)
            first = same.setdefault(rule["statement"][tag] + rule["correct"]["instruction"][tag], rule["id"])
            if first != rule["id"]:
                draft.notes.append(f"'{key}' says the same as '{first}' and was left out")
            else:
                draft.rules.append({**rule, "id": unique(rule["id"], [r["id"] for r in draft.rules])})
        draft.notes.append("the source corrects answers and has no judge: the rules are marked by people until you add one")
    elif isinstance(data, list):
        for number, question in enumerate(data, 1):
            if not isinstance(question, str):
                raise NormaError("a comparison question is text", where=f"{place}, entry {number}")
            draft.rules.append(_rule(f"comparison-{number}", _bare(question), tag))
        draft.notes.append(f"{plural(len(data), 'question')} compare two answers; as rules they are marked one answer at a time")
    else:
        raise NormaError("neither an object of critiques nor a list of questions", where=place, mend=f"Expected: {HELP}")
    return draft


def _critique(key: str, entry: Any, place: str, language: str) -> Rule:
    where = f"{place}, entry '{key}'"
    if not isinstance(entry, dict) or not {"prompt", "edit_request"} <= entry.keys():
        raise NormaError("an entry has 'prompt' and 'edit_request'", where=where)
    prompt, edit = entry["prompt"], entry["edit_request"]
    critiques = [prompt] if isinstance(prompt, str) else prompt
    edits = [edit] if isinstance(edit, str) else edit
    if not all(isinstance(part, list) and part and all(isinstance(p, str) for p in part) for part in (critiques, edits)):
        raise NormaError("'prompt' and 'edit_request' are text, or lists of text", where=where)
    statement = "\n\n".join(_bare(c) for c in critiques)
    instruction = "\n\n".join(_bare(e) for e in edits)
    return _rule(name(key), statement, language) | {"correct": {"instruction": {language: instruction}, "max_edit_ratio": 1.0}}


def _rule(id: str, statement: str, language: str) -> Rule:
    return {"id": id, "statement": {language: statement}, "checkers": [{"id": "people", "kind": "human", "roles": ["gold"]}]}


def _bare(text: str) -> str:
    """Without the labels that the prompt format puts around it."""
    before = None
    while before != text:
        before, text = text, _TAGS.sub("", text).strip()
    return text
