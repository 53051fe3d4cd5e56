"""Rule-Based Rewards (Mu et al. 2024): yes/no propositions about an answer, and which of them the ideal answer of a class has.

    simple_propositions   {name: {prompt: yes/no question}}
    derived_propositions  {name: {proposition: true | false, ...}}     all of these hold
    completion_classes    {class: {behaviour: {proposition: true | false}}}; the first of completion_class_order is what is wanted
    weights               {proposition: number}, optional: of a fitted reward; the sign is in what is wanted, its size becomes the weight

A rule per proposition and wanted answer, for the behaviours that want it: `applies` asks the trusted fact `behavior`. A short form is read
too: {propositions: [{id, text, desired: yes | no, class?, weight?}]}. A derived proposition that must NOT hold is one rule: its parts
may each hold, only not all together.
"""

from __future__ import annotations

import json
from typing import Any

from norma.base.errors import NormaError
from norma.base.strict_yaml import parse_yaml
from norma.spec.importers.draft import Draft, Rule, name, plural, unique
from norma.spec.languages import guess

HELP = "Rule-Based-Rewards propositions (YAML or JSON): yes/no questions, classes, weights"

_YES = {True: True, False: False, "true": True, "yes": True, "false": False, "no": False}


def read(text: str, place: str, language: str | None) -> Draft:
    """A rule per proposition and wanted answer."""
    try:
        data = json.loads(text)
    except ValueError:
        data = parse_yaml(text, place).data  # plain scalars stay text: "true" here
    if not isinstance(data, dict):
        raise NormaError("a file of propositions is a mapping", where=place, mend=f"Expected: {HELP}")
    draft = Draft(language or guess(text, ["en", "zh-Hans"], "en"))
    if "propositions" in data:
        _short(data["propositions"], draft, place)
    else:
        _classes(data, draft, place)
    draft.notes.append("the source's propositions are asked of a language model: the rules are marked by people until you add a judge")
    return draft


def _short(rows: Any, draft: Draft, place: str) -> None:
    if not isinstance(rows, list):
        raise NormaError("'propositions' is a list", where=place)
    for number, row in enumerate(rows, 1):
        where = f"{place}, proposition {number}"
        if not isinstance(row, dict):
            raise NormaError("a proposition is a mapping", where=where)
        said = row.get("text") or row.get("prompt") or row.get("question")
        if not isinstance(said, str):
            raise NormaError("a proposition needs 'text'", where=where)
        wanted = _boolean(row.get("desired", row.get("desirable", True)), where)
        behaviours = row.get("class", row.get("classes", []))
        behaviours = [behaviours] if isinstance(behaviours, str) else list(behaviours or [])
        id = str(row.get("id") or row.get("name") or f"proposition-{number}")
        _add(draft, id, said, wanted, behaviours, _weight(row.get("weight"), where))


def _classes(data: dict[str, Any], draft: Draft, place: str) -> None:
    for key in ("simple_propositions", "completion_classes"):
        if not isinstance(data.get(key), dict) or not data[key]:
            raise NormaError(f"'{key}' is missing", where=place, mend=f"Expected: {HELP}")
    simple = {k: v["prompt"] if isinstance(v, dict) else v for k, v in data["simple_propositions"].items()}
    derived = data.get("derived_propositions") or {}
    order = data.get("completion_class_order") or list(data["completion_classes"])
    if order[0] not in data["completion_classes"]:
        raise NormaError(f"the class '{order[0]}' is not among 'completion_classes'", where=place)
    weights = data.get("weights") or {}
    wanted: dict[tuple[str, bool], list[str]] = {}
    for behaviour, conditions in data["completion_classes"][order[0]].items():
        for proposition, value in conditions.items():
            for leaf, answer in _leaves(proposition, _boolean(value, place), simple, derived, place, ()):
                of = wanted.setdefault((leaf, answer), [])
                if behaviour not in of:
                    of.append(behaviour)
    behaviours = list(data["completion_classes"][order[0]])
    for (leaf, answer), of in wanted.items():
        said = simple.get(leaf) or _negated(leaf, derived[leaf])
        _add(draft, leaf, said, answer, [] if of == behaviours else of, _weight(weights.get(leaf), place))
    unused = [p for p in simple if not any(p == leaf for leaf, _ in wanted)]
    if unused:
        draft.notes.append(f"{plural(len(unused), 'proposition')} that the ideal class does not ask for left out: {', '.join(unused)}")
    draft.notes.append(f"taken from the class '{order[0]}'; the other classes ({', '.join(order[1:])}) only rank worse answers")


def _leaves(
    proposition: str, wanted: bool, simple: dict[str, str], derived: dict[str, Any], place: str, chain: tuple[str, ...]
) -> list[tuple[str, bool]]:
    """The simple propositions behind one; a derived one that must not hold stays whole."""
    if proposition in simple:
        return [(proposition, wanted)]
    if proposition not in derived:
        raise NormaError(f"unknown proposition '{proposition}'", where=place, mend="Add it to simple_propositions")
    if proposition in chain:
        raise NormaError(f"derived propositions go round in a circle: {' -> '.join((*chain, proposition))}", where=place)
    if not wanted:
        return [(proposition, False)]
    found = []
    for part, value in derived[proposition].items():
        found += _leaves(part, _boolean(value, place), simple, derived, place, (*chain, proposition))
    return found


def _negated(proposition: str, parts: dict[str, Any]) -> str:
    listed = "; ".join(f"{part} is {'yes' if _YES.get(value, value) else 'no'}" for part, value in parts.items())
    return f"These hold all together ({proposition}): {listed}."


_HEADS = {
    "en": {True: "The answer to this is yes: ", False: "The answer to this is no: "},
    "zh": {True: "下列问题的答案应为“是”：", False: "下列问题的答案应为“否”："},
}


def _add(draft: Draft, id: str, text: str, wanted: bool, behaviours: list[str], weight: float | None) -> None:
    heads = _HEADS.get(draft.language.partition("-")[0], _HEADS["en"])
    rule: Rule = {
        "id": unique(name(id), [r["id"] for r in draft.rules]),
        "statement": {draft.language: heads[wanted] + text.strip()},
    }
    if behaviours:
        listed = ", ".join(json.dumps(b, ensure_ascii=False) for b in behaviours)
        rule["applies"] = f"has(facts.behavior) && facts.behavior in [{listed}]"
    rule["checkers"] = [{"id": "people", "kind": "human", "roles": ["gold"]}]
    if weight is not None:
        rule["reward"] = {"mode": "weighted", "weight": weight}
    draft.rules.append(rule)


def _boolean(value: Any, where: str) -> bool:
    key = value.lower() if isinstance(value, str) else value
    if not isinstance(key, (str, bool)) or key not in _YES:
        raise NormaError(f"{value!r} is not yes or no", where=where)
    return _YES[key]


def _weight(value: Any, where: str) -> float | None:
    if value is None:
        return None
    try:
        return abs(float(value))
    except (TypeError, ValueError):
        raise NormaError(f"{value!r} is not a weight", where=where) from None
