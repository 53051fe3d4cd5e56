"""`include:` - one spec from several files, without forgetting where each rule stands.

    spec.yaml  include: [style.yaml, safety.yaml]  ──┐
    style.yaml    rules: [...]   ────────────────────┼──→ rules of style, of safety, then its own; errors name the right file and line
    safety.yaml   include: [...]  rules: [...]  ─────┘

Paths are relative to the file that names them. A file stands once in a spec; files that name each other are an error. A spec that
comes with Norma is included by its name (`include: [polite-support]`): its rules are taken, and the main file says how they compose.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from norma.base.errors import NormaError
from norma.base.strict_yaml import Document, load_yaml, validate
from norma.spec import shipped
from norma.spec.schema import Fragment

Place = tuple[str | int, ...]


class Joined(Document):
    """A document whose rules come from several files. ``origins``: rule index -> (document, index of the rule there)."""

    def __init__(self, main: Document) -> None:
        super().__init__(main.data, dict(main.places), main.name)
        self.origins: dict[int, tuple[Document, int]] = {}

    def where(self, path: Place = ()) -> str:
        """``file:line:column``, in the file that holds the place."""
        if len(path) >= 2 and path[0] == "rules" and isinstance(path[1], int) and path[1] in self.origins:
            document, index = self.origins[path[1]]
            return document.where(("rules", index, *path[2:]))
        return super().where(path)


def quoted(text: str) -> set[Place]:
    """The places of quoted scalars: they stay text."""
    found: set[Place] = set()

    def walk(node: yaml.Node | None, path: Place) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                walk(value, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for i, value in enumerate(node.value):
                walk(value, (*path, i))
        elif isinstance(node, yaml.ScalarNode) and node.style:  # None or "": plain
            found.add(path)

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
    walk(yaml.compose(text, Loader=loader), ())
    return found


def shipped_spec(name: str, here: Path | None) -> Path | None:
    """The file of the shipped spec called ``name``, unless a file of that name stands beside ``here``."""
    beside = here is not None and (here.parent / name).is_file()
    return None if beside or name not in shipped.names() else shipped.path(name).resolve()


def join(main: Document, main_quoted: set[Place], path: Path | None) -> tuple[Joined, set[Place]]:
    """``main`` with the rules of the files it includes, and the quoted places of all. ``path``: where ``main`` was read, None: nowhere."""
    joined, marks = Joined(main), {place for place in main_quoted if place[:1] != ("rules",)}
    rules: list[Any] = []

    def take(document: Document, marked: set[Place]) -> None:
        for index, rule in enumerate(document.data.get("rules") or ()):
            number = len(rules)
            rules.append(rule)
            joined.origins[number] = (document, index)
            marks.update(("rules", number, *place[2:]) for place in marked if place[:2] == ("rules", index))
            for place, position in document.places.items():  # what pydantic's places are looked up in
                if place[:2] == ("rules", index):
                    joined.places[("rules", number, *place[2:])] = position

    def visit(document: Document, marked: set[Place], here: Path | None, chain: tuple[Path, ...]) -> None:
        names = document.data.get("include")
        for j, name in enumerate(names if isinstance(names, list) else ()):
            where = document.where(("include", j))
            if own := shipped_spec(str(name), here):
                target = own
            elif here is None:
                raise NormaError("'include' needs a spec that was read from a file", where=where, mend="Load the spec by its path")
            else:
                target = (here.parent / str(name)).resolve()
            if target in chain:
                circle = " -> ".join(p.name for p in (*chain[chain.index(target) :], target))
                raise NormaError(f"'include' goes round in a circle: {circle}", where=where, mend="Remove one of these")
            if target in seen:
                raise NormaError(f"'{name}' is included twice", where=where, mend="Include it once")
            seen.add(target)
            if not target.is_file():
                raise NormaError(f"the included file '{name}' is not there", where=where, mend="Paths are relative to this file")
            part = load_yaml(target)
            if not isinstance(part.data, dict):
                raise NormaError("an included file is a mapping of keys", where=part.where(), mend="Start with 'rules:'")
            if own:
                part = Document({"rules": part.data["rules"]}, part.places, part.name)
            for key in ("spec", "levels", "compose"):
                if key in part.data:
                    raise NormaError(f"'{key}' belongs into the main file", where=part.where((key,)), mend=f"Move it to {main.name}")
            rules_only = Document({**part.data, "rules": []}, part.places, part.name)
            validate(rules_only, Fragment)  # the rules themselves are checked with all others
            if not isinstance(part.data.get("rules") or [], list):
                raise NormaError("'rules' is a list", where=part.where(("rules",)), mend="Start each rule with '- id:'")
            visit(part, quoted(target.read_bytes().decode("utf-8-sig")), target, (*chain, target))
        take(document, marked)

    seen: set[Path] = set()
    start = None if path is None else path.resolve()
    if not isinstance(main.data.get("rules") or [], list):
        return joined, set(main_quoted)  # the schema says what is wrong
    if start is not None:
        seen.add(start)
    joined.places = {place: at for place, at in main.places.items() if len(place) < 2 or place[0] != "rules"}
    visit(main, main_quoted, start, () if start is None else (start,))
    data = dict(main.data)
    if isinstance(data.get("include"), list):
        validate(Document({"include": data.pop("include")}, main.places, main.name), Fragment)
    if rules or "rules" in main.data:
        data["rules"] = rules
    joined.data = data
    return joined, marks
