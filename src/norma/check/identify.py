"""Which language an answer is in, by py3langid (naive Bayes over byte n-grams; Lui and Baldwin 2012), and the checker of it."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from norma.base.errors import nearest
from norma.check.program import Outcome, Params, program
from norma.check.segment import family
from norma.spec.types import CheckerFailure, Item

# Members of ISO 639-3 macrolanguages that the model tells apart, badly in short texts.
MACROLANGUAGE = {"wuu": "zh", "yue": "zh", "ary": "ar", "arz": "ar", "nn": "no", "nb": "no", "sdh": "ku", "uzs": "uz", "ltg": "lv"}
_CODE = re.compile(r"```.*?```|`[^`\n]*`|https?://\S+", re.DOTALL)
_NEEDS = "telling languages apart needs py3langid: pip install 'norma-lm[data]'"


@cache
def _model() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise CheckerFailure(_NEEDS) from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def needs_identification() -> None:
    """Raises ValueError, which names the package to install, when languages cannot be told apart here."""
    try:
        _model()
    except CheckerFailure as error:
        raise ValueError(str(error)) from None


def checked_language(value: str) -> str:
    """The language without script and region, if the model knows it."""
    needs_identification()
    known = {MACROLANGUAGE.get(label, label) for label in _model().labels} - {"zxx"}
    wanted = MACROLANGUAGE.get(family(value), family(value))
    if wanted not in known:
        raise ValueError(f"'{value}' is no language that can be told. {nearest(wanted, known)}")
    return wanted


def tell(text: str, wanted: str = "") -> tuple[str, float]:
    """The language of a text, and the probability of ``wanted`` (by default of that language)."""
    scores: dict[str, float] = {}
    for label, probability in _model().rank(text):
        tag = MACROLANGUAGE.get(label, label)
        scores[tag] = scores.get(tag, 0.0) + float(probability)
    best = max(scores, key=lambda tag: scores[tag])
    return best, scores.get(wanted or best, 0.0)


class LanguageParams(Params):
    """Which language an answer must be in."""

    language: str = Field(default="item", description="Language of the answer (BCP-47, without regard to region); item: the question's.")
    code: Literal["ignored", "read"] = Field(default="ignored", description="Whether code in back quotes and addresses count.")

    @field_validator("language")
    @classmethod
    def _known(cls, value: str) -> str:
        return value if value == "item" else checked_language(value)

    @model_validator(mode="after")
    def _can_be_told(self) -> Self:
        needs_identification()
        return self


@program("language", LanguageParams, catches=("other_language",), threshold=0.5, packages=("py3langid",))
def language(item: Item, text: str, params: LanguageParams) -> Outcome:
    """The answer is in the wanted language; score: its probability. Complies from .5 on."""
    wanted = checked_language(item.language) if params.language == "item" else params.language
    prose = _CODE.sub(" ", text) if params.code == "ignored" else text
    if not any(c.isalpha() for c in prose):
        return Outcome(0.0, (), "nothing but code or marks")
    found, probability = tell(prose, wanted)
    return Outcome(min(1.0, probability), (), f"reads as {found}", probability - 0.5)
