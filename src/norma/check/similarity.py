"""How near an answer comes to the item's reference: chrF (Popović 2015, by sacrebleu) or the F1 of its words (Rajpurkar et al. 2016)."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field

from norma.check.program import Outcome, Params, program
from norma.check.segment import units
from norma.spec.types import CheckerFailure, Item


class SimilarityParams(Params):
    """How near is near enough."""

    measure: Literal["chrf", "f1"] = Field(default="chrf", description="chrf: character n-grams; f1: words and Chinese characters.")
    min: float = Field(default=0.5, gt=0, le=1, description="Smallest similarity, between 0 and 1.")


@program("similar_to_reference", SimilarityParams, packages=("sacrebleu",))
def similar_to_reference(item: Item, text: str, params: SimilarityParams) -> Outcome:
    """The answer is as near to the reference as asked; score: the similarity over the bound, at most 1."""
    if not item.reference:
        raise CheckerFailure("this item has no reference to compare with")
    value = _f1(text, item.reference) if params.measure == "f1" else _chrf().sentence_score(text, [item.reference]).score / 100
    note = f"{params.measure} {value:.2f}"
    # Rounding must not let a value just under the bound pass.
    score = 1.0 if value >= params.min else min(value / params.min, 1 - 1e-9)
    return Outcome(score, (), note, value - params.min)


def _f1(text: str, reference: str) -> float:
    """2 x common / (words of both), each word as often as it stands in both."""
    ours, theirs = (Counter(unit.text.lower() for unit in units(t)) for t in (text, reference))
    return 2 * (ours & theirs).total() / max(1, ours.total() + theirs.total())


@lru_cache(maxsize=1)
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF  # takes half a second to import

    return CHRF()
