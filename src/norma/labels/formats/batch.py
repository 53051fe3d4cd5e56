"""What readers give and writers take: labels with their inputs, and tasks (an answer with the rules to be marked and the marks so far)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from norma.base.errors import NormaError
from norma.labels.queues import Drawn
from norma.labels.rows import Label
from norma.spec.types import Item, Message, Status

VERDICTS = frozenset(s.value for s in Status)


@dataclass(frozen=True)
class Batch:
    """Labels and the inputs they are of. ``notes``: what was passed over, one line each."""

    labels: list[Label]
    items: list[Item] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """How foreign values become labels.

    Attributes:
        rule: the rule that is marked, where the file does not say.
        hashes: {rule: meaning hash}.
        names: {their name of a question: rule}.
        verdicts: {their word (lower case): verdict}, besides the verdicts' own names.
        scale: (worst, best) of their scores, mapped to [0, 1].
        threshold: the score in [0, 1] from which an answer complies.
        annotator, language, guideline: where the file does not say.
    """

    rule: str = ""
    hashes: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    verdicts: Mapping[str, str] = field(default_factory=dict)
    scale: tuple[float, float] | None = None
    threshold: float = 0.5
    annotator: str = ""
    language: str = ""
    guideline: str = ""

    def mark(self, value: Any, where: object) -> tuple[str, float | None]:
        """(verdict, score) of their value: a word, true or false, or a number on the scale."""
        word = str(value).strip().lower()
        if word in self.verdicts:
            return self.verdicts[word], None
        if word in VERDICTS:
            return word, None
        if isinstance(value, bool):
            return ("compliant" if value else "violation"), None
        try:
            number = float(value)
        except (TypeError, ValueError):
            mend = f"Say what it means: --verdict {word.replace(' ', '_') or 'WORD'}=compliant"
            raise NormaError(f"'{value}' is not a verdict", where=where, mend=mend) from None
        if self.scale is None:
            raise NormaError(f"a score of {value} without a scale", where=where, mend="Give the worst and the best score: --scale 1:5")
        worst, best = self.scale
        score = (number - worst) / (best - worst)
        if not 0 <= score <= 1:
            raise NormaError(f"a score of {value} lies outside the scale {worst:g} to {best:g}", where=where)
        return ("compliant" if score >= self.threshold else "violation"), score

    def rule_of(self, name: str, where: object) -> str:
        """The rule that their question asks about."""
        rule = self.names.get(name) or name or self.rule
        if not rule:
            raise NormaError("nothing says which rule is marked", where=where, mend="Name it: --rule ID")
        return rule


@dataclass(frozen=True)
class Task:
    """An answer as an annotation tool shows it. ``rules``: {rule: meaning hash} to be marked."""

    item: str
    response: str
    rules: Mapping[str, str]
    language: str = ""
    queue: str = ""
    inclusion_probability: float | None = None
    guideline: str = ""
    labels: tuple[Label, ...] = ()


def tasks_from_labels(labels: Iterable[Label]) -> list[Task]:
    """One task an answer and meaning of its rules, with all its marks; in the order of the labels.

    Marks of one answer that came through different queues, guidelines, languages or meanings are different tasks.
    """
    groups: dict[tuple[Any, ...], list[Label]] = defaultdict(list)
    meanings: dict[tuple[Any, ...], dict[str, str]] = defaultdict(dict)
    for label in labels:
        place = (label.item, label.response, label.language, label.queue, label.inclusion_probability, label.guideline)
        number = 0
        # A second mark of the same person under the same rule (another meaning, another checker version) needs a task of its own.
        while meanings[*place, number].get(label.rule, label.rule_hash) != label.rule_hash or any(
            (m.rule, m.annotator, m.source) == (label.rule, label.annotator, label.source) for m in groups[*place, number]
        ):
            number += 1
        meanings[*place, number][label.rule] = label.rule_hash
        groups[*place, number].append(label)
    return [
        Task(
            item,
            response,
            meanings[item, response, language, queue, probability, guideline, number],
            language,
            queue,
            probability,
            guideline,
            tuple(marks),
        )
        for (item, response, language, queue, probability, guideline, number), marks in groups.items()
        if marks
    ]


def tasks_from_draws(draws: Iterable[Drawn], labels: Iterable[Label] = ()) -> list[Task]:
    """What a queue showed, without people's marks; checkers' marks among ``labels`` go along as suggestions."""
    suggestions: dict[tuple[str, str, str], list[Label]] = defaultdict(list)
    for label in labels:
        if label.source != "human":
            suggestions[label.item, label.response, label.rule].append(label)
    return [
        Task(
            d.item,
            d.response,
            {d.rule: d.rule_hash},
            d.language,
            d.queue,
            d.inclusion_probability,
            "",
            tuple(suggestions[d.item, d.response, d.rule]),
        )
        for d in draws
    ]


def shown(messages: Iterable[Message]) -> str:
    """A conversation as one text: the words of a lone user message, else a line that names each role."""
    turns = list(messages)
    if len(turns) == 1 and turns[0]["role"] == "user":
        return turns[0]["content"]
    return "\n\n".join(f"[{m['role']}]\n{m['content']}" for m in turns)


def lost(written: Iterable[Label], read: Iterable[Label], tool: str) -> list[str]:
    """What a format could not hold: the labels that were written beside the labels read back from it, a line for each kind of loss."""
    there = {(m.item, m.response, m.rule, m.rule_hash, m.annotator, m.checker): m for m in read}
    missing, differs = 0, Counter[str]()
    for label in written:
        back = there.get((label.item, label.response, label.rule, label.rule_hash, label.annotator, label.checker))
        if back is None:
            missing += 1
            continue
        differs.update(f.name for f in fields(Label) if getattr(label, f.name) != getattr(back, f.name))
    notes = [f"{tool} cannot hold {missing:,} of the marks"] if missing else []
    return notes + [f"{tool} cannot hold '{name}' ({count:,} marks)" for name, count in sorted(differs.items())]
