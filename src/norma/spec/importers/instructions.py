"""IFEval (Zhou et al. 2023) and IFBench (Pyatkin et al. 2025) rows: prompts with instructions that a program can verify.

    {key, prompt, instruction_id_list: [id, ...], kwargs: [{...}, ...]}
      ─→ a rule for each (id, kwargs) that differ:  checkers: [{kind: program, use: id, params: kwargs}]
      ─→ each prompt once, under its first rule:    elicit: [{id, prompt, facts: {rules: [all rules that it asks for]}}]

A rule applies when the trusted fact `rules` names it, so that every prompt is judged by exactly its own instructions. kwargs that are null
say nothing and are dropped; 0, false and "" stay; numbers such as 3.0 become 3. Keys may be numbers or text; a second row of the
same key gets a number of its own. No row is dropped: one that cannot be read is an error with its line.
"""

from __future__ import annotations

import json
import math
from typing import Any

from norma.base.errors import NormaError
from norma.base.hashing import digest
from norma.spec.importers.draft import Draft, Rule, name, plural, unique
from norma.spec.importers.wording import statement
from norma.spec.languages import guess

HELP = "IFEval or IFBench rows (JSON lines or a JSON list): prompt, instruction_id_list, kwargs"


def read(text: str, place: str, language: str | None) -> Draft:
    """A rule for each instruction with its parameters; each prompt once."""
    rows = _rows(text, place)
    draft = Draft(language or guess("\n".join(str(row.get("prompt")) for _, row in rows), ["en", "zh-Hans"], "en"))
    rules: dict[str, Rule] = {}
    keys: list[str] = []
    double = 0
    for where, row in rows:
        prompt, ids, kwargs = row.get("prompt"), row.get("instruction_id_list"), row.get("kwargs")
        if not isinstance(prompt, str) or not prompt.strip():
            raise NormaError("'prompt' is not a text", where=where)
        if not isinstance(ids, list) or not ids or not all(isinstance(i, str) for i in ids):
            raise NormaError("'instruction_id_list' is not a list of ids", where=where)
        given = kwargs if isinstance(kwargs, list) else [{}] * len(ids) if kwargs is None else None
        if given is None or len(given) != len(ids):
            raise NormaError("'kwargs' is not a list with one entry for each instruction", where=where)
        asked = [_rule(rules, i, _parameters(k, where), draft.language) for i, k in zip(ids, given, strict=True)]
        key = unique(f"p-{name(str(row.get('key', len(keys) + 1)))}", keys)
        keys.append(key)
        names = list(dict.fromkeys(rule["id"] for rule in asked))
        double += len(asked) - len(names)
        entry = {"id": key, "prompt": {draft.language: prompt}, "facts": {"rules": names}, "split": "test"}
        asked[0].setdefault("elicit", []).append(entry)
    draft.rules = list(rules.values())
    types = {rule["checkers"][0]["use"] for rule in draft.rules}
    draft.notes.append(f"{plural(len(rows), 'row')} read, none dropped; {plural(len(types), 'type')} of instructions")
    if double:
        draft.notes.append(f"{plural(double, 'instruction')} asked twice in one row count once")
    return draft


def _rule(rules: dict[str, Rule], instruction: str, params: dict[str, Any], language: str) -> Rule:
    key = digest([instruction, params])
    if key not in rules:
        id = name(instruction) + (f"-{key[:8]}" if params else "")
        checker: dict[str, Any] = {"id": "program", "kind": "program", "use": instruction, "roles": ["train", "report"]}
        rules[key] = {
            "id": id,
            "statement": {language: statement(instruction, params)},
            "applies": f'has(facts.rules) && "{id}" in facts.rules',
            "checkers": [{**checker, "params": params} if params else checker],
        }
    return rules[key]


def _parameters(kwargs: Any, where: str) -> dict[str, Any]:
    if kwargs is None:
        return {}
    if not isinstance(kwargs, dict):
        raise NormaError("an entry of 'kwargs' is not an object", where=where)
    return {str(key): _plain(value) for key, value in sorted(kwargs.items(), key=lambda kv: str(kv[0])) if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list) else value


def _rows(text: str, place: str) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, Any]] = []
    if text.lstrip().startswith("["):
        try:
            found = [(f"{place}, row {n}", row) for n, row in enumerate(json.loads(text), 1)]
        except ValueError as error:
            raise NormaError(f"not JSON ({error})", where=place) from None
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                try:
                    found.append((f"{place}:{number}", json.loads(line)))
                except ValueError as error:
                    raise NormaError(f"not JSON ({error})", where=f"{place}:{number}") from None
    for where, row in found:
        if not isinstance(row, dict):
            raise NormaError("a row is a JSON object", where=where)
    return found
