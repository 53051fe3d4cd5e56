"""The self-test passes for the shipped programs and finds what is wrong with bad ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from norma.check import build, known_programs, selftest
from norma.spec.types import Finding, Item, Status

PARAMS: dict[str, dict[str, Any]] = {
    "words": {"words": ["lays"]},
    "regex": {"pattern": "lays"},
    "length": {"max_words": 30, "max_characters": 30},
    "lexicon": {"list": "courtesy", "min": 1},
    "amount": {"languages": {"*": {"unit": "words", "max": 30}}},
    "markdown": {"min_items": 1},
    "similar_to_reference": {"min": 0.5},
    "keywords:existence": {"keywords": ["lays"]},
    "keywords:frequency": {"keyword": "lays", "frequency": 1, "relation": "at least"},
    "keywords:forbidden_words": {"forbidden_words": ["sad"]},
    "keywords:letter_frequency": {"letter": "q", "let_frequency": 1, "let_relation": "less than"},
    "length_constraints:number_words": {"num_words": 40, "relation": "less than"},
    "length_constraints:number_sentences": {"num_sentences": 3, "relation": "less than"},
    "length_constraints:number_paragraphs": {"num_paragraphs": 1},
    "length_constraints:nth_paragraph_first_word": {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "certainly"},
    "detectable_format:multiple_sections": {"section_spliter": "Section", "num_sections": 2},
    "detectable_format:number_bullet_lists": {"num_bullets": 1},
    "detectable_format:number_highlighted_sections": {"num_highlights": 1},
    "detectable_content:number_placeholders": {"num_placeholders": 1},
    "detectable_content:postscript": {"postscript_marker": "P.S."},
    "language:response_language": {"language": "en"},
    "change_case:capital_word_frequency": {"capital_frequency": 2, "capital_relation": "less than"},
    "combination:repeat_prompt": {"prompt_to_repeat": "What does it do?"},
    "startend:end_checker": {"end_phrase": "Good bye."},
}


@pytest.mark.parametrize("use", sorted(known_programs()))
def test_every_program_passes(use: str, ask: Callable[..., Item]) -> None:
    assert selftest(build(use, PARAMS.get(use, {}), "")) == []


class Careless:
    """A checker that passes everything that does not begin with white space, with a score of 2 for long answers."""

    id, digest, languages = "careless", "", frozenset[str]()

    def check(self, item: Item, response: str) -> Finding:
        long = len(response) > 70
        return Finding(
            Status.VIOLATION if response.startswith("<think>\nA plan.") else Status.COMPLIANT,
            2.0 if long else 1.0,
            ((0, 99),) if long else (),
        )


def test_bad_checkers_are_found_out(ask: Callable[..., Item]) -> None:
    faults = selftest(Careless(), [(ask(), "Certainly: it adds.")])
    text = "\n".join(faults)
    for part in (
        "en, empty: passes",
        "zh, echo: passes",
        "en, think: passes",
        "white space: passes",
        "score 2.0",
        "lies outside",
        "think block: turns",
    ):
        assert part in text
    assert "boilerplate: passes" not in text  # a foreign checker promises nothing
