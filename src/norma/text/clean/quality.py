"""Rules that tell prose from lists, code, menus and word salad: Gopher's and C4's, each a number that a bound is set to.

    document ─┬→ words ─→ mean length, share with letters, stop words   ┐
              ├→ lines ─→ bullets, ellipses at the end                  ├→ the first rule broken is the reason, its number the detail
              ├→ text ──→ symbols a word, placeholders, curly brackets  │
              └→ repeated lines, paragraphs, n-grams (repetition.py)    ┘

Sources: Gopher, Rae et al., 2112.11446, appendix A.1.1; C4, Raffel et al., 1910.10683, section 2.2. Both are for English. In Chinese and
other languages without spaces between words:

| rule | there |
|---|---|
| least and most words, symbols a word | every character counts as a word: there are more of them than words, so the bounds shift |
| mean word length | off: writing does not show where words end |
| share of words with a letter | of characters and of runs of others; punctuation counts nowhere, so only numbers weigh against a text |
| stop words | a list of our own (frequent function words); languages without a list are not asked |
| bullets, ellipses, repeated lines and paragraphs | as in English, with 、。！？…… and the bullets in use there |
| most frequent and repeated n-grams | of 2n characters for n words: Chinese words have one or two, so this errs towards keeping |
| C4: end marks, sentences | 。！？ and closing quotes too; 5 words of a line are 5 characters |

Left out of C4: its list of bad words (what must not be said is the spec's matter) and the removal of single lines and of citation marks,
since a step here changes no text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from norma.text.clean.options import C4Options, GopherOptions, QualityOptions, RepetitionOptions
from norma.text.clean.repetition import duplicate_character_share, duplicate_share, ngram_shares
from norma.text.clean.steps import Aside, Document, Step
from norma.text.clean.units import LANGUAGES_WITHOUT_SPACES, characters, language, lines, paragraphs, share, units, words
from norma.text.quarantine import Quarantine

_ELLIPSIS = re.compile(r"\.{3,}|…+|。{3,}")
_BULLET = re.compile(r"[•‣⁃◦●○▪▫■□◆◇▶►※∙‧・·]|[-*+–—](?=\s)")
_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"\w+(?:['’]\w+)?")
ENDS = (".", "!", "?", '"', "”", "。", "！", "？", "」", "』", "．")
_SENTENCE_END = re.compile(r"""[.!?]+["”'’)\]]*(?=\s|$)|[。！？．]+""")
# In n-grams of languages without spaces. With n characters for n words, 19% of Chinese Wikipedia repeats too many 5-grams, 0.3% of English.
CHARACTERS_FOR_A_WORD = 2
POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")


def mean_word_length(words: Sequence[str]) -> float:
    """Characters a word."""
    return share(characters(words), len(words))


def hashes_per_word(text: str, words: Sequence[str]) -> float:
    """Signs ``#`` for each word; where there is no word, for one."""
    return text.count("#") / max(1, len(words))


def ellipses_per_word(text: str, words: Sequence[str]) -> float:
    """Ellipses (..., …, ……) for each word; where there is no word, for one."""
    return len(_ELLIPSIS.findall(text)) / max(1, len(words))


def bullet_line_share(lines: Sequence[str]) -> float:
    """The share of lines that begin with a bullet; a dash, star or plus is one where a space follows."""
    return share(sum(_BULLET.match(line) is not None for line in lines), len(lines))


def ellipsis_line_share(lines: Sequence[str]) -> float:
    """The share of lines that end with an ellipsis."""
    return share(sum(line.endswith(("...", "…", "。。。")) for line in lines), len(lines))


def alphabetic_share(words: Sequence[str]) -> float:
    """The share of words with at least one letter (of any script) in them."""
    return share(sum(_LETTER.search(word) is not None for word in words), len(words))


def stop_words_present(text: str, stop_words: Collection[str], language: str) -> int:
    """How many different entries of ``stop_words`` occur; ``a/b`` are two spellings of one. Case does not matter."""
    held = set(units(text) if language in LANGUAGES_WITHOUT_SPACES else _WORD.findall(text.lower()))
    return sum(not held.isdisjoint(entry.split("/")) for entry in stop_words)


def lines_that_c4_keeps(lines: Sequence[str], least_words: int, language: str) -> list[str]:
    """Lines that end with an end mark but no ellipsis, have enough words, and speak neither of JavaScript nor of a site's policies."""
    return [
        line
        for line in lines
        if line.endswith(ENDS)
        and not line.endswith("...")
        and len(words(line, language)) >= least_words
        and "javascript" not in (low := line.lower())
        and not any(phrase in low for phrase in POLICY)
    ]


def sentences(lines: Sequence[str]) -> int:
    """Sentence ends in lines. An abbreviation's full stop before a space counts too, which errs towards keeping."""
    return sum(max(1, len(_SENTENCE_END.findall(line))) for line in lines)


class Quality(Step):
    """Sets aside what breaks a rule; the reason is the first rule broken, in the order of the options."""

    name = "quality"

    def __init__(self, options: QualityOptions, quarantine: Quarantine | None = None) -> None:
        super().__init__(quarantine)
        self.options = options

    def judge(self, document: Document) -> Document | Aside:
        return next(broken(document.text, language(document), self.options), None) or document


def broken(text: str, language: str, options: QualityOptions) -> Iterator[Aside]:
    """Every rule that ``text`` breaks, cheap ones first."""
    told, held = words(text, language), lines(text)
    if options.gopher is not None:
        yield from _gopher(text, told, held, language, options.gopher)
    if options.c4 is not None:
        yield from _c4(text, held, language, options.c4)
    if options.repetition is not None:
        yield from _repetition(text, told, held, language, options.repetition)


def _gopher(text: str, told: Sequence[str], held: Sequence[str], language: str, o: GopherOptions) -> Iterator[Aside]:
    yield from _within("words", len(told), o.least_words, o.most_words)
    if language not in LANGUAGES_WITHOUT_SPACES:
        yield from _within("mean word length", mean_word_length(told), o.least_word_length, o.most_word_length)
    yield from _within("hash symbols a word", hashes_per_word(text, told), None, o.most_hashes)
    yield from _within("ellipses a word", ellipses_per_word(text, told), None, o.most_ellipses)
    yield from _within("lines beginning with a bullet", bullet_line_share(held), None, o.most_bullet_lines)
    yield from _within("lines ending with an ellipsis", ellipsis_line_share(held), None, o.most_ellipsis_lines)
    yield from _within("words with a letter", alphabetic_share(told), o.least_alphabetic, None)
    if language in o.stop_words:
        yield from _within("stop words", stop_words_present(text, o.stop_words[language], language), o.least_stop_words, None)


def _c4(text: str, held: Sequence[str], language: str, o: C4Options) -> Iterator[Aside]:
    if o.lorem_ipsum and "lorem ipsum" in text.lower():
        yield Aside("lorem ipsum")
    if o.curly_bracket and "{" in text:
        yield Aside("curly bracket")
    if o.least_sentences is not None:
        found = sentences(lines_that_c4_keeps(held, o.least_line_words, language))
        yield from _within("sentences", found, o.least_sentences, None)


def _repetition(text: str, told: Sequence[str], held: Sequence[str], language: str, o: RepetitionOptions) -> Iterator[Aside]:
    parts = paragraphs(text)
    yield from _within("repeated lines", duplicate_share(held), None, o.duplicate_lines)
    yield from _within("repeated paragraphs", duplicate_share(parts), None, o.duplicate_paragraphs)
    yield from _within("characters in repeated lines", duplicate_character_share(held), None, o.duplicate_line_characters)
    yield from _within("characters in repeated paragraphs", duplicate_character_share(parts), None, o.duplicate_paragraph_characters)
    times = CHARACTERS_FOR_A_WORD if language in LANGUAGES_WITHOUT_SPACES else 1
    top = {n * times: most for n, most in o.top_ngrams.items()}
    duplicate = {n * times: most for n, most in o.duplicate_ngrams.items()}
    for kind, n, found in ngram_shares(told, top, duplicate):
        # The reason has the rule's own n, so that languages are counted together.
        if kind == "top":
            yield from _within(f"characters in the most frequent {n // times}-gram", found, None, top[n])
        else:
            yield from _within(f"characters in repeated {n // times}-grams", found, None, duplicate[n])


def _within(what: str, found: float, least: float | None, most: float | None) -> Iterator[Aside]:
    if least is not None and found < least:
        yield Aside(f"too few: {what}" if isinstance(found, int) else f"too low: {what}", f"{found:,.4g}, least {least:,g}")
    if most is not None and found > most:
        yield Aside(f"too many: {what}" if isinstance(found, int) else f"too high: {what}", f"{found:,.4g}, most {most:,g}")
