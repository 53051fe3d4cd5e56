"""Regular expressions from a spec. They run on RE2, in time linear in the answer, whatever a stranger wrote."""

from __future__ import annotations

from typing import Literal

import re2
from pydantic import Field, field_validator

from norma.check.mentions import checked_pattern
from norma.check.program import Outcome, Params, program
from norma.spec.types import Item


class PatternParams(Params):
    """A pattern and what is expected of it."""

    pattern: str = Field(description="RE2 pattern, for example (?i)\\bhello\\b.")
    expect: Literal["present", "absent", "whole"] = Field(
        default="present",
        description="present: found somewhere; absent: nowhere; whole: the pattern is the whole answer, white space aside.",
    )

    @field_validator("pattern")
    @classmethod
    def _pattern(cls, value: str) -> str:
        return checked_pattern(value)


@program("regex", PatternParams)
def regex(item: Item, text: str, params: PatternParams) -> Outcome:
    """The pattern is present in, absent from, or the whole of the answer; score: 1 or 0."""
    if params.expect == "whole":
        return Outcome(float(re2.fullmatch(params.pattern, text.strip()) is not None))
    found = re2.search(params.pattern, text)
    evidence = (found.span(),) if found and found.end() > found.start() else ()
    return Outcome(float((found is not None) == (params.expect == "present")), evidence)
