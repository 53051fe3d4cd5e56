"""What a spec's rules say of answers that people have put in order.

pairs (prompt, chosen, rejected) ─train checkers─→ score(chosen) - score(rejected) per rule ─→ norma.spec.fitting
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from norma.base.hashing import digest
from norma.spec import Item, Spec, languages
from norma.spec.compose import answer

if TYPE_CHECKING:
    from norma.text.shapes import Preference


def score_differences(
    spec: Spec, pairs: Iterable[Preference], rules: Sequence[str], language: str | None = None
) -> tuple[list[list[float]], list[str], int]:
    """Differences of scores (pairs, ``rules``), 0 where a rule does not apply; what each pair answers; how many pairs gave none.

    A pair gives none where no rule applies, or a checker of an active rule is unsure or fails: that is no zero.
    """
    differences, prompts, none = [], [], 0
    for pair in pairs:
        key = digest([dict(m) for m in pair.prompt])[:16]
        asked = Item(key, tuple(pair.prompt))
        tag = language or languages.guess(asked.user, spec.languages, spec.source_language)
        item = Item(key, asked.messages, tag)
        active = [rule for rule in spec.resolve(item).active if rule in rules]
        better, worse = (answer(spec.verdicts(item, turns[-1]["content"], "train"), active) for turns in (pair.chosen, pair.rejected))
        if not active or better.missing or worse.missing:
            none += 1
            continue
        differences.append([better.scores[r] - worse.scores[r] if r in active else 0.0 for r in rules])
        prompts.append(key)
    return differences, prompts, none
