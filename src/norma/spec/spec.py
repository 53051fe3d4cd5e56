"""`Spec`: one file of rules, ready for use. Ties the room together; every part below is a module of its own.

Spec.load(path) ─→ loader (strict) ─→ rules with facet hashes ─→ expressions compiled, checkers built, conflict edges fixed: once
per item:  resolve (cached by input) ─→ render | verdicts ─→ rewards
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from norma.base.errors import NormaError, nearest
from norma.base.hashing import digest
from norma.base.strict_yaml import Document, parse_yaml
from norma.spec import compose, languages, loader, registry, render, shipped
from norma.spec import resolve as resolution
from norma.spec.expression import variables
from norma.spec.include import Joined
from norma.spec.rule import Rule, rule_from
from norma.spec.schema import CheckerEntry, ComposeEntry, Mode, Role, SpecFile, Split, plain
from norma.spec.types import Checker, Item, Message, Resolution, Reward, Standing, Status, Verdict
from norma.spec.values import Unknown
from norma.spec.writing import yaml_text

CACHE = 16384  # inputs whose resolution is remembered; then the memory starts anew


class Spec:
    """A loaded spec; it does not change. Get one with ``Spec.load(path or shipped name)`` or ``Spec.parse(text)``."""

    def __init__(self, file: SpecFile, document: Document, source: Path | None = None, build: bool = True) -> None:
        self.file, self.document, self.source = file, document, source
        self.id: str = file.spec.id
        self.version: str = file.spec.version
        self.source_language: str = file.spec.source_language
        self.languages: tuple[str, ...] = tuple(file.spec.languages)
        self.levels: tuple[str, ...] = tuple(file.levels)
        budgets = {rule: constraint.budget for rule, constraint in file.compose.constraints.items()}
        self.rules: tuple[Rule, ...] = tuple(rule_from(entry, self.source_language, budgets.get(entry.id)) for entry in file.rules)
        self.composition: ComposeEntry = file.compose
        self.digest: str = digest(plain(file))
        self._by_id = {rule.id: rule for rule in self.rules}
        self._by_alias = {alias: rule for rule in self.rules for alias in rule.aliases}
        self._expressions = loader.compile_expressions(file, document)
        self._edges = resolution.edges(self.rules, self.levels)
        self._checkers: dict[str, list[tuple[str, tuple[str, ...], Checker]]] = {rule.id: [] for rule in self.rules}
        if build:
            self._build()
        self.plan = compose.Plan(
            {r.id: compose.Term(r.mode, r.reward.weight, 2 * self.levels.index(r.level) + (0 if r.must else 1)) for r in self.rules},
            file.compose.objective,
            file.compose.kappa,
            file.compose.grid,
        )
        self._cache: dict[tuple[Any, ...], Resolution] = {}

    @staticmethod
    def load(path: str | Path, *, checkers: bool = True) -> Spec:
        """Read a spec file, or the shipped spec of that name (``norma spec list``). Raises NormaError.

        ``checkers=False`` does not build checkers (documentation, prompts only).
        """
        source = shipped.find(path)
        file, document = loader.read(source)
        return Spec(file, document, source, checkers)

    @staticmethod
    def parse(text: str, name: str = "<spec>", *, path: Path | None = None, checkers: bool = True) -> Spec:
        """A spec from YAML text. ``path``: the file that the text is to stand in, from which what it includes is looked for."""
        return Spec(*loader.parse(text, name, path), None, checkers)

    @property
    def included(self) -> tuple[str, ...]:
        """The files, other than the main one, that rules of this spec stand in."""
        origins = self.document.origins.values() if isinstance(self.document, Joined) else ()
        return tuple(dict.fromkeys(document.name for document, _ in origins if document.name != self.document.name))

    def one_file(self) -> str:
        """The spec as the text of one file, what it includes written out; a file that includes nothing stays as people wrote it."""
        text = None if self.source is None else self.source.read_bytes().decode("utf-8-sig")
        if text is None or "include" in parse_yaml(text, str(self.source)).data:
            return yaml_text(self.document.data)
        return text

    def _build(self) -> None:
        for i, rule in enumerate(self.rules):
            for j, entry in enumerate(rule.checkers):
                checker = registry.build(entry, self._place(i, j), rule)
                if checker is not None:
                    self._checkers[rule.id].append((entry.id, tuple(entry.roles), checker))

    def _place(self, rule: int, checker: int) -> Callable[[str], str]:
        return lambda key: self.document.where(("rules", rule, "checkers", checker, key))

    def __repr__(self) -> str:
        return f"Spec({self.id} {self.version}, {len(self.rules)} rules, {self.digest[:12]})"

    def rule(self, id: str) -> Rule:
        """The rule of that id, or of that former id. Raises NormaError with the nearest name."""
        found = self._by_id.get(id) or self._by_alias.get(id)
        if found is None:
            raise NormaError(f"unknown rule '{id}'", where=self.source, mend=nearest(id, self._by_id))
        return found

    # ---- which rules are active ----

    def resolve(self, item: Item) -> Resolution:
        """Every rule's standing for ``item`` and why. The same input gives the same object, remembered."""
        key = (
            tuple((m["role"], m["content"]) for m in item.messages),
            item.language,
            json.dumps(dict(item.facts), sort_keys=True) if item.facts else "",
        )
        found = self._cache.get(key)
        if found is None:
            found = resolution.resolve(item, self.rules, self.levels, self._expressions, self._edges)
            if len(self._cache) >= CACHE:
                self._cache.clear()
            self._cache[key] = found
        return found

    def beaten_by(self, rule: str) -> tuple[resolution.Edge, ...]:
        """Who could set ``rule`` aside, and by which step; independent of any input."""
        return self._edges[rule]

    def applies(self, rule: str, item: Item) -> bool | None:
        """The rule's own predicate for ``item``: True, False, or None where the item lacks what it asks for."""
        found = self.predicate(rule, item)
        return found if isinstance(found, bool) else None

    def predicate(self, rule: str, item: Item) -> bool | str:
        """The same; a text says why it is unknown."""
        try:
            return self._expressions[rule](variables(item))
        except Unknown as error:
            return str(error)

    # ---- instructive prompting ----

    def instruction(self, rules: Iterable[str], language: str = "en") -> str:
        """The text that tells a model to keep ``rules``: a head line, one numbered line a rule; "" for none."""
        return render.instruction([self.rule(r) for r in rules], language)

    def render(
        self,
        messages: Sequence[Message],
        item: Item | None = None,
        language: str | None = None,
        rules: Literal["applicable", "all", "none"] | Sequence[str] = "applicable",
        position: Literal["system", "prefix"] = "system",
    ) -> list[Message]:
        """``messages`` with the rules in front: the active ones, all, none, or those named. ``language``: default the item's, else en."""
        language = language or (item.language if item else "en")
        if rules == "none":
            chosen: Sequence[str] = ()
        elif rules == "all":
            chosen = [rule.id for rule in self.rules]
        elif rules == "applicable":
            asked = item or Item(id="", messages=tuple(messages), language=language)
            chosen = self.resolve(asked).active
        elif isinstance(rules, str):
            raise NormaError(f"unknown choice of rules '{rules}'", mend="Use applicable, all, none, or a list of rule ids")
        else:
            chosen = rules
        return render.insert(messages, self.instruction(chosen, language), position)

    # ---- verdicts ----

    def checkers(self, role: Role) -> dict[str, list[Checker]]:
        """{rule: its checkers of that role}, rules without one left out."""
        found = {rule: [c for _, roles, c in bound if role in roles] for rule, bound in self._checkers.items()}
        return {rule: checkers for rule, checkers in found.items() if checkers}

    def bound(self, rule: str) -> list[tuple[CheckerEntry, Checker]]:
        """The rule's checkers as they were built, each with its entry; people are not among them."""
        found = self.rule(rule)
        entries = {entry.id: entry for entry in found.checkers}
        return [(entries[name], checker) for name, _, checker in self._checkers[found.id]]

    def verdicts(self, item: Item, response: str, role: Role) -> list[Verdict]:
        """One verdict per rule and checker of ``role``: not_applicable where resolution says so, unsure where it cannot be resolved."""
        result = []
        statuses = self.resolve(item).statuses
        for rule in self.rules:
            standing = statuses[rule.id]
            for name, roles, checker in self._checkers[rule.id]:
                if role not in roles:
                    continue
                head = (rule.id, rule.hash, item.id, name, checker.digest, role)
                if standing.status is Standing.ACTIVE:
                    f = registry.run(checker, item, response)
                    result.append(Verdict(*head, f.status, f.score, f.evidence, f.note, f.margin))
                elif standing.status is Standing.UNRESOLVED:
                    result.append(Verdict(*head, Status.UNSURE, None, note=f"unresolved: {standing.reason}"))
                else:
                    result.append(Verdict(*head, Status.NOT_APPLICABLE, None, note=f"{standing.status.value}: {standing.reason}"))
        return result

    def check(
        self, messages: Sequence[Message], response: str, language: str | None = None, facts: Mapping[str, Any] | None = None
    ) -> list[Verdict]:
        """Verdicts (role report) on one answer to a conversation. ``language``: default guessed from the last user message."""
        probe = Item(id="", messages=tuple(messages), facts=dict(facts or {}))
        language = language or languages.guess(probe.user, self.languages, self.source_language)
        key = digest([[dict(m) for m in messages], language, dict(probe.facts)])[:16]
        return self.verdicts(Item(key, probe.messages, language, probe.facts), response, "report")

    # ---- R(x, y) ----

    def rewards(
        self, items: Item | Sequence[Item], group: Sequence[Sequence[Verdict]], *, lambdas: Mapping[str, float] | None = None
    ) -> list[Reward]:
        """R(x, y) of several answers to ONE input ``items`` (given once or per answer); ``group[k]``: the train verdicts on answer k.

        Unresolved rules are left out; an unsure or error verdict of an active rule masks its answer. ``lambdas``: constraints' multipliers.
        """
        asked = [items] if isinstance(items, Item) else list(items)
        if not group:
            return []
        if len(asked) not in (1, len(group)):
            raise ValueError(f"{len(asked)} items for {len(group)} answers")
        if any(i.messages != asked[0].messages or i.facts != asked[0].facts or i.language != asked[0].language for i in asked[1:]):
            raise ValueError("a group holds answers to one input; these items differ")
        judged = {v.rule for verdicts in group for v in verdicts}
        active = [r for r in self.resolve(asked[0]).active if r in judged and self.plan.terms[r].mode is not Mode.NONE]
        return compose.compose(self.plan, [compose.answer(verdicts, active) for verdicts in group], active, lambdas)

    # ---- prompts that put the rules to the test ----

    def elicit(self, split: Split | None = None) -> list[Item]:
        """The elicitation prompts as items, one per prompt and language (of one split, or all); id ``rule/prompt#language``."""
        result = []
        for rule in self.rules:
            splits = {e.id: e.split for e in rule.elicit}
            for entry in rule.elicit:
                own = entry.split or splits.get(entry.benign_pair_of or "") or "test"
                if split is not None and own != split:
                    continue
                for language, text in entry.prompt.items():
                    system = entry.system.get(language)
                    head = (Message(role="system", content=system),) if system else ()
                    messages = (*head, Message(role="user", content=text))
                    name = f"{rule.id}/{entry.id}"
                    result.append(Item(f"{name}#{language}", messages, language, dict(entry.facts), name))
        return result
