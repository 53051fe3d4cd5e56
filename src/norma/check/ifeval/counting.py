"""Instructions that count: keywords, letters, words, sentences, words in capitals."""

from __future__ import annotations

import re

from pydantic import Field

from norma.check.ifeval.common import RELATION, Kwargs, Relation, compared, keyword_pattern
from norma.check.ifeval.sentences import count_sentences
from norma.check.program import Outcome, program
from norma.check.segment import HAN
from norma.spec.types import Item

# A run of letters and digits as \w+ has it, but each Chinese character by itself.
_WORD = re.compile(rf"[{HAN}]|(?:(?![{HAN}])\w)+")


class Keywords(Kwargs):
    """Words that must occur."""

    keywords: tuple[str, ...] = Field(
        min_length=1, description="Texts that must all occur, also inside a longer word; case counts for nothing."
    )


@program("keywords:existence", Keywords)
def keywords_existence(item: Item, text: str, params: Keywords) -> Outcome:
    """Every keyword occurs; score: the share that does."""
    found = {keyword: keyword_pattern(keyword).search(text) for keyword in params.keywords}
    missing = [keyword for keyword, match in found.items() if match is None]
    spans = tuple(match.span() for match in found.values() if match)
    return Outcome(1 - len(missing) / len(found), spans, f"missing: {', '.join(missing)}" if missing else "")


class Frequency(Kwargs):
    """How often a keyword occurs."""

    keyword: str = Field(min_length=1, description="Text to count, also inside a longer word; case counts for nothing.")
    frequency: int = Field(ge=0, description="Number of times.")
    relation: Relation = RELATION


@program("keywords:frequency", Frequency)
def keywords_frequency(item: Item, text: str, params: Frequency) -> Outcome:
    """The keyword occurs at least, or less than, a number of times."""
    spans = tuple(m.span() for m in keyword_pattern(params.keyword.strip()).finditer(text))
    return compared(len(spans), params.frequency, params.relation, f"times {params.keyword!r}", spans)


class ForbiddenWords(Kwargs):
    """Words that may not occur."""

    forbidden_words: tuple[str, ...] = Field(min_length=1, description="Words that must not occur as whole words; case counts for nothing.")


@program("keywords:forbidden_words", ForbiddenWords)
def keywords_forbidden_words(item: Item, text: str, params: ForbiddenWords) -> Outcome:
    """None of the words occurs; in Chinese, where words have no spaces between them, a forbidden word may not occur at all."""
    found = {word: keyword_pattern(word, whole=True).search(text) for word in params.forbidden_words}
    spans = tuple(match.span() for match in found.values() if match)
    return Outcome(1 - len(spans) / len(found), spans, f"holds {', '.join(w for w, m in found.items() if m)}" if spans else "")


class LetterFrequency(Kwargs):
    """How often a letter occurs."""

    letter: str = Field(min_length=1, max_length=1, description="One character; case counts for nothing.")
    let_frequency: int = Field(ge=0, description="Number of times.")
    let_relation: Relation = RELATION


@program("keywords:letter_frequency", LetterFrequency)
def keywords_letter_frequency(item: Item, text: str, params: LetterFrequency) -> Outcome:
    """A letter (or other character) occurs at least, or less than, a number of times."""
    return compared(text.lower().count(params.letter.lower()), params.let_frequency, params.let_relation, f"times {params.letter!r}")


class NumberWords(Kwargs):
    """How many words."""

    num_words: int = Field(ge=0, description="Number of words; a Chinese character counts as one.")
    relation: Relation = RELATION


@program("length_constraints:number_words", NumberWords)
def number_words(item: Item, text: str, params: NumberWords) -> Outcome:
    """At least, or less than, a number of words (runs of letters and digits; each Chinese character by itself)."""
    return compared(sum(1 for _ in _WORD.finditer(text)), params.num_words, params.relation, "words")


class NumberSentences(Kwargs):
    """How many sentences."""

    num_sentences: int = Field(ge=0, description="Number of sentences.")
    relation: Relation = RELATION


@program("length_constraints:number_sentences", NumberSentences)
def number_sentences(item: Item, text: str, params: NumberSentences) -> Outcome:
    """At least, or less than, a number of sentences; Chinese ones end with 。！？."""
    return compared(count_sentences(text), params.num_sentences, params.relation, "sentences")


class CapitalWords(Kwargs):
    """How many words in capitals."""

    capital_frequency: int = Field(ge=0, description="Number of words in all capital letters.")
    capital_relation: Relation = RELATION


# Treebank rules (Marcus et al. 1993) as far as they bear on capitals: marks that stand alone, and contractions, of which N'T and 'S are
# words of their own. A full stop ends a word only at the end of a sentence, so that U.S. is one.
_MARKS = re.compile(rf"[,;:@#$%&?!\"“”«»()\[\]{{}}<>…]|\.{{2,}}|--+|(?<=[{HAN}])|(?=[{HAN}])")
_CONTRACTION = re.compile(r"(?i)(?<=\w)(?=(?:n['’]t|['’](?:s|m|d|ll|re|ve))$)")


@program("change_case:capital_word_frequency", CapitalWords)
def capital_word_frequency(item: Item, text: str, params: CapitalWords) -> Outcome:
    """Words in all capital letters occur at least, or less than, a number of times."""
    words = [part for word in _MARKS.sub(" ", text).split() for part in _CONTRACTION.split(word.rstrip("'"))]
    return compared(sum(word.isupper() for word in words), params.capital_frequency, params.capital_relation, "words in capitals")
