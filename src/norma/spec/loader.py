"""spec.yaml → SpecFile, strictly: every error says file:line:column, what is wrong, and the nearest right name.

    text ──strict YAML──→ plain data ──include──→ all rules ──facts, params: JSON──→ pydantic ──ids, levels, languages, circles──→ SpecFile

Plain scalars stay text until the schema says otherwise. `facts` and `params` have no schema here, so there a plain (unquoted) true, false
or number becomes JSON, but only where that loses nothing: `1.10` and `no` stay text, as does everything quoted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from norma.base.errors import NormaError, nearest
from norma.base.strict_yaml import Document, load_yaml, parse_yaml, validate
from norma.spec import include
from norma.spec.expression import Expression
from norma.spec.schema import Mode, Objective, RuleEntry, SpecFile

Place = tuple[str | int, ...]
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")


def read(path: Path) -> tuple[SpecFile, Document]:
    """The spec in a YAML file, checked as far as that goes without building checkers. Raises NormaError."""
    load_yaml(path)  # the clear errors for a missing file, a folder, text that is not UTF-8
    return parse(Path(path).read_bytes().decode("utf-8-sig"), str(path), Path(path))


def parse(text: str, name: str = "<spec>", path: Path | None = None) -> tuple[SpecFile, Document]:
    """The spec in YAML text; ``name`` stands in error places, ``path`` is where included files are looked for."""
    document = parse_yaml(text, name)
    if document.data is not None and not isinstance(document.data, dict):
        raise NormaError("a spec is a mapping of keys", where=document.where(), mend="Start with 'norma: 1'")
    if document.data is not None:
        document, marks = include.join(document, include.quoted(text), path)
        _type_json(document, marks)
    file = validate(document, SpecFile)
    if not file.rules:
        raise NormaError("a spec needs at least one rule", where=document.where(("rules",)), mend="Add a rule under 'rules:'")
    _check(file, document)
    return file, document


def compile_expressions(file: SpecFile, document: Document) -> dict[str, Expression]:
    """Each rule's `applies`, compiled. Raises NormaError at the key."""
    result = {}
    for i, rule in enumerate(file.rules):
        result[rule.id] = Expression(rule.applies, document.where(("rules", i, "applies")))
    return result


# ---- JSON values inside facts and params ----


def _type_json(document: Document, quoted: set[Place]) -> None:
    def typed(value: Any, path: Place) -> Any:
        if isinstance(value, dict):
            return {key: typed(part, (*path, key)) for key, part in value.items()}
        if isinstance(value, list):
            return [typed(part, (*path, i)) for i, part in enumerate(value)]
        return value if path in quoted or not isinstance(value, str) else _scalar(value)

    def walk(value: Any, path: Place) -> Any:
        if isinstance(value, dict):
            in_rule = bool(path) and path[0] == "rules" and len(path) >= 4
            return {key: (typed if in_rule and key in ("facts", "params") else walk)(part, (*path, key)) for key, part in value.items()}
        if isinstance(value, list):
            return [walk(part, (*path, i)) for i, part in enumerate(value)]
        return value

    document.data = walk(document.data, ())


def _scalar(text: str) -> Any:
    """true, false and numbers that JSON writes the same way; everything else stays text."""
    if text in ("true", "false"):
        return text == "true"
    if _NUMBER.fullmatch(text):
        number = json.loads(text)
        if json.dumps(number) == text:
            return number
    return text


# ---- cross-checks ----


def _check(file: SpecFile, document: Document) -> None:
    ids: dict[str, int] = {}
    for i, rule in enumerate(file.rules):
        if rule.id in ids:
            first = document.where(("rules", ids[rule.id], "id"))
            raise NormaError(
                f"the rule id '{rule.id}' is used twice (first at {first})", where=document.where(("rules", i, "id")), mend="Rename one"
            )
        ids[rule.id] = i
    _check_aliases(file, ids, document)
    header = file.spec
    if header.source_language not in header.languages:
        raise NormaError(
            f"the source language '{header.source_language}' is not among the languages ({', '.join(header.languages)})",
            where=document.where(("spec", "source_language")),
            mend=f"Add it to 'languages', or choose one of them: {', '.join(header.languages)}",
        )
    for i, rule in enumerate(file.rules):
        _check_rule(file, rule, i, ids, document)
    _check_compose(file, ids, document)
    for key in ("unless", "overrides"):
        _check_circle(file, key, document)


def _check_aliases(file: SpecFile, ids: dict[str, int], document: Document) -> None:
    owners: dict[str, str] = {}
    for i, rule in enumerate(file.rules):
        for j, alias in enumerate(rule.aliases):
            where = document.where(("rules", i, "aliases", j))
            if alias in ids:
                raise NormaError(f"the alias '{alias}' is the id of a rule", where=where, mend="An alias is a former id, no longer in use")
            if alias in owners:
                raise NormaError(f"the alias '{alias}' also stands in '{owners[alias]}'", where=where, mend="Keep one of the two")
            owners[alias] = rule.id


def _check_rule(file: SpecFile, rule: RuleEntry, i: int, ids: dict[str, int], document: Document) -> None:
    at: Place = ("rules", i)
    if rule.level not in file.levels:
        raise NormaError(f"unknown level '{rule.level}'", where=document.where((*at, "level")), mend=nearest(rule.level, file.levels))
    for language in file.spec.languages:
        if language not in rule.statement:
            where = document.where((*at, "statement"))
            raise NormaError(f"rule '{rule.id}' has no statement in '{language}'", where=where, mend=f"Add '{language}:' to 'statement'")
    for key in ("statement", "title", "translations"):
        for language in getattr(rule, key):
            if language in file.spec.languages:
                continue
            where = document.where((*at, key, language))
            raise NormaError(f"'{language}' is not a language of this spec", where=where, mend=nearest(language, file.spec.languages))
    if file.spec.source_language in rule.translations:
        where = document.where((*at, "translations", file.spec.source_language))
        raise NormaError(f"'{file.spec.source_language}' is the source language: it is translated from nothing", where=where)
    for key in ("unless", "overrides", "conflicts_with"):
        for j, other in enumerate(getattr(rule, key)):
            where = document.where((*at, key, j))
            if other == rule.id:
                raise NormaError(f"rule '{rule.id}' names itself in '{key}'", where=where, mend="Remove it")
            _known(other, ids, f"'{key}' names an unknown rule '{other}'", where)
    _once((c.id for c in rule.checkers), "checker id", (*at, "checkers"), document)
    _once((e.id for e in rule.elicit), "prompt id", (*at, "elicit"), document)
    prompts = {e.id for e in rule.elicit}
    for j, e in enumerate(rule.elicit):
        if e.benign_pair_of is not None:
            where = document.where((*at, "elicit", j, "benign_pair_of"))
            _known(e.benign_pair_of, prompts - {e.id}, f"'benign_pair_of' names an unknown prompt '{e.benign_pair_of}'", where)
        if e.attack is not None and (e.split or "test") != "attack":
            where = document.where((*at, "elicit", j, "attack"))
            raise NormaError("'attack' says of what kind a prompt of split attack is", where=where, mend="Add 'split: attack'")
        for key in ("prompt", "system"):
            for tag in getattr(e, key):
                if tag not in file.spec.languages:
                    where = document.where((*at, "elicit", j, key, tag))
                    raise NormaError(f"'{tag}' is not a language of this spec", where=where, mend=nearest(tag, file.spec.languages))


def _check_compose(file: SpecFile, ids: dict[str, int], document: Document) -> None:
    for j, gate in enumerate(file.compose.gates or ()):
        _known(gate, ids, f"'gates' names an unknown rule '{gate}'", document.where(("compose", "gates", j)))
    for rule in file.compose.constraints:
        _known(rule, ids, f"'constraints' names an unknown rule '{rule}'", document.where(("compose", "constraints", rule)))
    constrained = bool(file.compose.constraints) or any(r.reward.mode is Mode.CONSTRAINT for r in file.rules)
    if file.compose.objective is Objective.LEXICOGRAPHIC and constrained:
        raise NormaError(
            "constraints cannot be used with the lexicographic objective",
            where=document.where(("compose", "objective")),
            mend="Use 'objective: weighted_mean', or remove the constraints",
        )


def _known(name: str, known: Iterable[str], what: str, where: str) -> None:
    names = list(known)
    if name not in names:
        raise NormaError(what, where=where, mend=nearest(name, names) if names else "Remove it")


def _once(names: Iterable[str], what: str, at: Place, document: Document) -> None:
    seen: set[str] = set()
    for j, name in enumerate(names):
        if name in seen:
            raise NormaError(f"the {what} '{name}' is used twice in one rule", where=document.where((*at, j, "id")), mend="Rename one")
        seen.add(name)


def _check_circle(file: SpecFile, key: str, document: Document) -> None:
    """No rule may reach itself along `key`."""
    graph: dict[str, Sequence[str]] = {rule.id: getattr(rule, key) for rule in file.rules}
    done: set[str] = set()
    for rule in file.rules:
        path = [rule.id]
        stack = [iter(graph[rule.id])]
        while stack and rule.id not in done:
            following = next(stack[-1], None)
            if following is None:
                stack.pop()
                done.add(path.pop())
            elif following in path:
                circle = " -> ".join([*path[path.index(following) :], following])
                start = next(k for k, r in enumerate(file.rules) if r.id == following)
                raise NormaError(
                    f"'{key}' goes round in a circle: {circle}", where=document.where(("rules", start, key)), mend="Remove one of these"
                )
            elif following not in done:
                path.append(following)
                stack.append(iter(graph[following]))
