"""Instructions about layout: paragraphs, sections, bullets, highlights, a title, placeholders, a postscript, JSON."""

from __future__ import annotations

import json
import re

from pydantic import Field, field_validator

from norma.check.ifeval.common import Kwargs, compared, exactly, is_chinese, yes_or_no
from norma.check.program import Outcome, Params, program
from norma.spec.types import Item


class NoKwargs(Kwargs):
    """Nothing to set."""


class NumberParagraphs(Kwargs):
    """How many paragraphs."""

    num_paragraphs: int = Field(ge=0, description="Number of paragraphs, divided by the Markdown divider ***.")


@program("length_constraints:number_paragraphs", NumberParagraphs)
def number_paragraphs(item: Item, text: str, params: NumberParagraphs) -> Outcome:
    """Exactly so many paragraphs, divided by ***; an empty one in the middle is a fault."""
    paragraphs = [p.strip() for p in re.split(r"\s?\*\*\*\s?", text)]
    if not all(paragraphs[1:-1]):
        return Outcome(0.0, (), "an empty paragraph")
    return exactly(sum(map(bool, paragraphs)), params.num_paragraphs, "paragraphs")


class FirstWord(Kwargs):
    """The first word of one paragraph."""

    num_paragraphs: int = Field(ge=0, description="Number of paragraphs, divided by empty lines.")
    nth_paragraph: int = Field(ge=1, description="The paragraph, counted from 1.")
    first_word: str = Field(min_length=1, description="Its first word; case counts for nothing.")

    @field_validator("first_word")
    @classmethod
    def _lower(cls, value: str) -> str:
        return value.lower()


_ENDS_WORD = frozenset(".,?!'\"")
_OPENS_CHINESE = "“‘「『《（"


@program("length_constraints:nth_paragraph_first_word", FirstWord)
def nth_paragraph_first_word(item: Item, text: str, params: FirstWord) -> Outcome:
    """So many paragraphs, and one of them begins with the word; a Chinese word need not end with a space."""
    paragraphs = text.split("\n\n")
    count = sum(bool(p.strip()) for p in paragraphs)
    if count != params.num_paragraphs:
        return Outcome(0.0, (), f"{count} paragraphs, exactly {params.num_paragraphs}")
    # The n-th piece, empty ones counted, as the published verdicts have it.
    chosen = paragraphs[params.nth_paragraph - 1].strip() if params.nth_paragraph <= count else ""
    if not chosen:
        return Outcome(0.0, (), f"no paragraph {params.nth_paragraph}")
    if is_chinese(params.first_word):
        begins = chosen.lower().lstrip(_OPENS_CHINESE).startswith(params.first_word)
        return yes_or_no(begins, f"paragraph {params.nth_paragraph} does not begin with {params.first_word}")
    word = chosen.split()[0].lstrip("'").lstrip('"').lower()
    end = next((i for i, c in enumerate(word) if c in _ENDS_WORD), len(word))
    return yes_or_no(word[:end] == params.first_word, f"paragraph {params.nth_paragraph} begins with {word[:end]!r}")


class MultipleSections(Kwargs):
    """How many sections."""

    section_spliter: str = Field(min_length=1, description="Word before the number of each section, spelled so in the data: Section 1.")
    num_sections: int = Field(ge=0, description="Fewest sections.")


@program("detectable_format:multiple_sections", MultipleSections)
def multiple_sections(item: Item, text: str, params: MultipleSections) -> Outcome:
    """At least so many sections, each begun with the word and a number; after a Chinese word also 一, 二, 三."""
    word = params.section_spliter.strip()
    numbers = r"(?:\d+|[一二三四五六七八九十百]+)" if is_chinese(word) else r"\d+"
    spans = tuple(m.span() for m in re.finditer(rf"{re.escape(word)}\s?{numbers}", text))
    return compared(len(spans), params.num_sections, "at least", "sections", spans)


class NumberBullets(Kwargs):
    """How many bullets."""

    num_bullets: int = Field(ge=0, description="Number of bullets, * or - at the head of a line.")


_STAR = re.compile(r"^\s*\*[^*].*$", re.MULTILINE)
_DASH = re.compile(r"^\s*-.*$", re.MULTILINE)


@program("detectable_format:number_bullet_lists", NumberBullets)
def number_bullet_lists(item: Item, text: str, params: NumberBullets) -> Outcome:
    """Exactly so many bullet points, lines that begin with * or -."""
    spans = sorted(m.span() for pattern in (_STAR, _DASH) for m in pattern.finditer(text))
    return exactly(len(spans), params.num_bullets, "bullets", tuple(spans))


class NumberHighlights(Kwargs):
    """How many highlights."""

    num_highlights: int = Field(ge=0, description="Fewest highlights, *like this* or **like this**.")


@program("detectable_format:number_highlighted_sections", NumberHighlights)
def number_highlighted_sections(item: Item, text: str, params: NumberHighlights) -> Outcome:
    """At least so many highlighted passages in one line each, *like this* or **like this**."""
    count = sum(bool(part.strip("*").strip()) for part in re.findall(r"\*[^\n*]*\*", text))
    count += sum(bool(part[2:-2].strip()) for part in re.findall(r"\*\*[^\n*]*\*\*", text))
    return compared(count, params.num_highlights, "at least", "highlights")


@program("detectable_format:title", NoKwargs)
def title(item: Item, text: str, params: Params) -> Outcome:
    """Holds a title in double angular brackets, <<like this>>; in Chinese also 《《这样》》."""
    for match in re.finditer(r"<<[^\n]+>>|《《[^\n]+》》", text):
        if match.group().strip("<>《》").strip():
            return Outcome(1.0, (match.span(),))
    return Outcome(0.0, (), "no <<title>>")


class NumberPlaceholders(Kwargs):
    """How many placeholders."""

    num_placeholders: int = Field(ge=0, description="Fewest placeholders in square brackets, such as [address].")


_PLACEHOLDER = re.compile(r"\[.*?\]")
_PLACEHOLDER_ZH = re.compile(r"\[.*?\]|［.*?］|【.*?】")


@program("detectable_content:number_placeholders", NumberPlaceholders)
def number_placeholders(item: Item, text: str, params: NumberPlaceholders) -> Outcome:
    """At least so many placeholders in square brackets; in Chinese also ［地址］ and 【地址】."""
    pattern = _PLACEHOLDER_ZH if is_chinese(text) else _PLACEHOLDER
    spans = tuple(m.span() for m in pattern.finditer(text))
    return compared(len(spans), params.num_placeholders, "at least", "placeholders", spans)


class Postscript(Kwargs):
    """How the postscript begins."""

    postscript_marker: str = Field(min_length=1, description="P.S., P.P.S, or any other text, such as 附言.")


_POSTSCRIPTS = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}


@program("detectable_content:postscript", Postscript)
def postscript(item: Item, text: str, params: Postscript) -> Outcome:
    """Holds a postscript that begins with the marker; case counts for nothing, and a space may stand inside it."""
    marker = params.postscript_marker.strip()
    found = re.search(_POSTSCRIPTS.get(marker, re.escape(marker)), text, re.IGNORECASE)
    return yes_or_no(found is not None, f"no {marker}", (found.span(),) if found else ())


@program("detectable_format:json_format", NoKwargs)
def json_format(item: Item, text: str, params: Params) -> Outcome:
    """The whole answer is JSON, bare or in a fenced code block."""
    body = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        body = body.removeprefix(fence)
    try:
        json.loads(body.removesuffix("```").strip())
    except (ValueError, RecursionError) as error:
        return Outcome(0.0, (), f"not JSON: {error}")
    return Outcome(1.0)


_OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


@program("detectable_format:constrained_response", NoKwargs)
def constrained_response(item: Item, text: str, params: Params) -> Outcome:
    """Holds one of "My answer is yes.", "My answer is no.", "My answer is maybe."."""
    return yes_or_no(any(option in text for option in _OPTIONS), "none of the three answers")
