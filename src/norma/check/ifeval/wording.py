"""Instructions about wording: language and case, commas, quotation marks, first and last words, two answers, the request repeated."""

from __future__ import annotations

import re
from typing import Self

from pydantic import Field, field_validator, model_validator

from norma.check.identify import checked_language, needs_identification, tell
from norma.check.ifeval.common import Kwargs, is_chinese, yes_or_no
from norma.check.ifeval.layout import NoKwargs
from norma.check.program import Outcome, Params, program
from norma.spec.types import Item


class ResponseLanguage(Kwargs):
    """Which language."""

    language: str = Field(description="Language of the whole answer, ISO 639-1 (en, zh, hi, ...).")

    @field_validator("language")
    @classmethod
    def _known(cls, value: str) -> str:
        return checked_language(value)


class InEnglish(NoKwargs):
    """Nothing to set."""

    @model_validator(mode="after")
    def _can_be_told(self) -> Self:
        needs_identification()
        return self


@program("language:response_language", ResponseLanguage, packages=("py3langid",))
def response_language(item: Item, text: str, params: ResponseLanguage) -> Outcome:
    """The answer is in the language; score: its probability where it is not."""
    found, probability = tell(text, params.language)
    return Outcome(1.0 if found == params.language else min(probability, 0.99), (), f"reads as {found}")


@program("change_case:english_capital", InEnglish, packages=("py3langid",))
def english_capital(item: Item, text: str, params: Params) -> Outcome:
    """English in capital letters only."""
    return _english(text, text.isupper(), "capital")


@program("change_case:english_lowercase", InEnglish, packages=("py3langid",))
def english_lowercase(item: Item, text: str, params: Params) -> Outcome:
    """English in lower-case letters only."""
    return _english(text, text.islower(), "lower-case")


def _english(text: str, right_case: bool, case: str) -> Outcome:
    if not right_case:
        return Outcome(0.0, (), f"not all letters are {case}")
    found, _ = tell(text.lower(), "en")  # the model has seen few texts in capitals
    return yes_or_no(found == "en", f"reads as {found}")


_COMMAS = re.compile("[,，﹐︐]")


@program("punctuation:no_comma", NoKwargs)
def no_comma(item: Item, text: str, params: Params) -> Outcome:
    """No comma, half-width or full-width; the enumeration comma 、 is another mark."""
    spans = tuple(m.span() for m in _COMMAS.finditer(text))
    return yes_or_no(not spans, f"{len(spans)} commas", spans)


@program("startend:quotation", NoKwargs)
def quotation(item: Item, text: str, params: Params) -> Outcome:
    """The whole answer stands in double quotation marks; in Chinese also “这样” and 「这样」."""
    body = text.strip()
    pairs = ('""', "“”", "「」", "『』") if is_chinese(body) else ('""',)
    return yes_or_no(len(body) > 1 and body[0] + body[-1] in pairs, "not in double quotation marks")


class EndPhrase(Kwargs):
    """How the answer ends."""

    end_phrase: str = Field(min_length=1, description="The last words; case and quotation marks around the answer count for nothing.")


@program("startend:end_checker", EndPhrase)
def end_checker(item: Item, text: str, params: EndPhrase) -> Outcome:
    """The answer ends with the phrase and nothing after it."""
    body = text.strip().strip('"“”「」『』' if is_chinese(text) else '"').lower()
    return yes_or_no(body.endswith(params.end_phrase.strip().lower()), f"does not end with {params.end_phrase!r}")


@program("combination:two_responses", NoKwargs)
def two_responses(item: Item, text: str, params: Params) -> Outcome:
    """Two different answers, divided by six asterisks."""
    parts = [part.strip() for part in text.split("******")]
    said = [part for part in parts if part]
    follows = all(parts[1:-1]) and len(said) == 2 and said[0] != said[1]
    return yes_or_no(follows, f"{len(said)} answers" if len(said) != 2 else "both answers are the same")


class RepeatPrompt(Kwargs):
    """What is to be repeated."""

    prompt_to_repeat: str = Field(min_length=1, description="The request, word for word.")


@program("combination:repeat_prompt", RepeatPrompt)
def repeat_prompt(item: Item, text: str, params: RepeatPrompt) -> Outcome:
    """The answer begins with the request, word for word; case counts for nothing."""
    return yes_or_no(text.strip().lower().startswith(params.prompt_to_repeat.strip().lower()), "does not begin with the request")
