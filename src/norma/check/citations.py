"""Citations: whether an answer says where it has its knowledge from, and whether what it cites and quotes is there.

[1], [2-3], (Kiss and Strunk, 2006), addresses, 《书名》 ─→ citations
"quoted passages" of some length ─→ must stand in the question (the passages that the model was given)
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field

from norma.check.program import Outcome, Params, program
from norma.check.segment import sentences, units
from norma.spec.types import Item

Style = Literal["number", "author_year", "address", "title"]
_STYLES = {
    "number": re.compile(r"[\[［【]\s*\d{1,3}(?:\s*[-–,，、]\s*\d{1,3})*\s*[\]］】](?!\()"),
    "author_year": re.compile(r"[(（][^()（）\n]{0,80}?[^\W\d_][^()（）\n]{0,40}?[,，\s]\s*(?:1[5-9]|20)\d\d[a-z]?[^()（）\n]{0,40}[)）]"),
    "address": re.compile(r"https?://[^\s)\]>）】]+|\bdoi:\s*10\.\d{4,9}/\S+", re.IGNORECASE),
    "title": re.compile(r"《[^《》\n]+》"),
}


class CitationParams(Params):
    """Which citations, and how many."""

    styles: tuple[Style, ...] = Field(
        default=("number", "author_year", "address", "title"), min_length=1, description="What counts as a citation."
    )
    min: int = Field(default=1, ge=0, description="Fewest citations.")
    every_sentence: bool = Field(default=False, description="Whether every sentence must hold one.")
    known: bool = Field(default=False, description="Whether a cited number or address must stand in the question.")


@program("citations", CitationParams)
def citations(item: Item, text: str, params: CitationParams) -> Outcome:
    """The answer cites, often enough and only what it was given; score: the smallest share of the demands that is met."""
    spans = sorted(match.span() for style in params.styles for match in _STYLES[style].finditer(text))
    scores = [min(1.0, len(spans) / params.min) if params.min else 1.0]
    notes = [f"{len(spans)} citations"]
    if params.every_sentence:
        whole = sentences(text)
        bare = [s for s in whole if not any(s[0] <= start < s[1] for start, _ in spans)]
        scores.append(1 - len(bare) / max(1, len(whole)))
        notes += [f"{len(bare)} of {len(whole)} sentences without"] if bare else []
    if params.known:
        asked = "\n".join(m["content"] for m in item.messages)
        strange = [span for span in spans if not _known(text[slice(*span)], asked)]
        scores.append(1 - len(strange) / max(1, len(spans)))
        notes += [f"not in the question: {text[slice(*strange[0])]}"] if strange else []
    return Outcome(min(scores), tuple(spans), "; ".join(notes))


def _known(citation: str, asked: str) -> bool:
    numbers = re.findall(r"\d{1,3}", citation) if _STYLES["number"].fullmatch(citation) else []
    if numbers:
        return all(re.search(rf"[\[［【]\s*{number}\s*[\]］】]|^\s*{number}[.)、]", asked, re.MULTILINE) for number in numbers)
    return citation.rstrip(".,;。，；").strip("()（）") in asked


class QuoteParams(Params):
    """Which quotations are checked."""

    words: int = Field(default=4, ge=1, description="Shorter quotations are not checked; a Chinese character counts as a word.")


_QUOTES = re.compile(r"\"([^\"\n]+)\"|“([^”\n]+)”|「([^」\n]+)」|『([^』\n]+)』")


@program("quotes_are_real", QuoteParams)
def quotes_are_real(item: Item, text: str, params: QuoteParams) -> Outcome:
    """What stands in quotation marks stands in the question, white space and case aside; score: the share that does."""
    asked = _plain("\n".join(m["content"] for m in item.messages))
    checked = [(m.span(), next(g for g in m.groups() if g)) for m in _QUOTES.finditer(text)]
    checked = [(span, quote) for span, quote in checked if len(units(quote)) >= params.words]
    strange = tuple(span for span, quote in checked if _plain(quote) not in asked)
    return Outcome(
        1 - len(strange) / max(1, len(checked)), strange, f"{len(strange)} of {len(checked)} quotations are not there" if strange else ""
    )


def _plain(text: str) -> str:
    """Without white space, case and closing marks: a quotation may end with a full stop of the sentence around it."""
    return re.sub(r"\s+", "", text).casefold().rstrip(".,;!?。，；！？…")
