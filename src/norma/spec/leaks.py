"""Near-copies across splits: what is measured must not have been seen in training.

Two texts are near-copies when the Jaccard similarity of their runs of four characters is at least 0.8 (letters and digits only, case
folded, as by Broder 1997); short texts (fewer than 20 such characters) only when they are equal. Compared are the answers of examples
whose conversations are near-copies too, and the prompts of `elicit`. Candidates come from an index of rare runs, not from all pairs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from norma.spec.spec import Spec

RUN, SHORT, LEAST = 4, 20, 0.8


@dataclass(frozen=True)
class Leak:
    """A text at ``path`` of ``rule`` that also stands in another split."""

    rule: str
    path: tuple[str | int, ...]
    text: str


@dataclass(frozen=True)
class _Text:
    rule: str
    path: tuple[str | int, ...]
    split: str
    prompt: frozenset[str]
    answer: frozenset[str] | None  # None: a prompt alone
    what: str


def runs(text: str) -> frozenset[str]:
    """The text's runs of four characters; of a short text the whole as its only one."""
    bare = "".join(c for c in text.casefold() if c.isalnum())
    return frozenset({bare} if len(bare) < SHORT else (bare[i : i + RUN] for i in range(len(bare) - RUN + 1)))


def similarity(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard similarity, in [0, 1]."""
    return len(a & b) / len(a | b) if a or b else 1.0


def leaks(spec: Spec) -> Iterator[Leak]:
    """One finding for each text that has a near-copy, earlier in the file, in another split."""
    texts = list(_texts(spec))
    index: dict[str, list[int]] = defaultdict(list)
    frequency: dict[str, int] = defaultdict(int)
    for text in texts:
        for run in text.prompt:
            frequency[run] += 1
    told: set[tuple[str | int, ...]] = set()
    for number, text in enumerate(texts):
        # At 0.8, two sets share a run among the rarest fifth of either (the prefix filter of set-similarity joins).
        rare = sorted(text.prompt, key=lambda run: (frequency[run], run))[: len(text.prompt) - int(LEAST * len(text.prompt)) + 1]
        near = sorted({other for run in rare for other in index[run]})
        first = next((texts[o] for o in near if texts[o].split != text.split and _near(texts[o], text)), None)
        if first is not None and text.path not in told:
            told.add(text.path)
            said = f"rule '{text.rule}': {text.what} of split {text.split} also stands in split {first.split} of '{first.rule}'"
            yield Leak(text.rule, text.path, said)
        for run in rare:
            index[run].append(number)


def _near(a: _Text, b: _Text) -> bool:
    if (a.answer is None) != (b.answer is None) or similarity(a.prompt, b.prompt) < LEAST:
        return False
    return a.answer is None or b.answer is None or similarity(a.answer, b.answer) >= LEAST


def _texts(spec: Spec) -> Iterator[_Text]:
    for i, rule in enumerate(spec.rules):
        for j, example in enumerate(rule.examples):
            prompt = runs(" ".join(m.content for m in example.messages))
            answers: Sequence[str] = (*example.good, *example.bad)
            for answer in answers:
                yield _Text(rule.id, ("rules", i, "examples", j), example.split, prompt, runs(answer), "an example")
        splits = {e.id: e.split for e in rule.elicit}
        for j, e in enumerate(rule.elicit):
            split = e.split or splits.get(e.benign_pair_of or "") or "test"
            for tag, text in e.prompt.items():
                yield _Text(rule.id, ("rules", i, "elicit", j, "prompt", tag), split, runs(text), None, f"the prompt '{e.id}'")
