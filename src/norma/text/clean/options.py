"""The ``clean`` part of a recipe: which steps run, and their numbers. A step whose options are absent (null) does not run.

Defaults of the quality rules are the papers': Gopher (Rae et al., 2112.11446, appendix A.1.1 and table A1), C4 (Raffel et al.,
1910.10683, section 2.2). Null turns a rule off.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]

# Gopher's eight; for Chinese, where the paper has none, ten frequent function words, three of them also common in the old style.
STOP_WORDS = {
    "en": ["the", "be", "to", "of", "and", "that", "have", "with"],
    "zh": ["的", "是", "在", "和", "有", "不", "為/为", "於/于", "以", "之"],
}


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ExactOptions(_Options):
    """Exact copies: nothing to set."""


class NearOptions(_Options):
    """Near copies."""

    threshold: float = Field(0.8, gt=0, lt=1, description="Jaccard similarity of the sets of n-grams from which on a document is a copy")
    ngram: int = Field(5, ge=1, le=50, description="Length of an n-gram: words in spaced scripts, characters in Chinese and the like")
    permutations: int = Field(256, ge=16, le=4096, description="Hash functions of a sketch; more tell more exactly, and take more memory")


class LanguageOptions(_Options):
    """Language tags."""

    keep: list[str] | None = Field(None, min_length=1, description="Languages kept (ISO 639, `unknown` too); null: all, only tagged")
    least_confidence: Share = Field(0.5, description="A tag of lower probability becomes `unknown`")
    least_letters: int = Field(20, ge=0, description="A text of fewer letters (Chinese: characters) is `unknown`")
    sample: int = Field(2000, ge=50, description="The language is told by so many characters from the beginning")


class Bounds(_Options):
    """Least and most; null: no bound."""

    least_characters: int | None = Field(None, ge=0, description="A shorter document is set aside")
    most_characters: int | None = Field(None, ge=1, description="A longer document is set aside")
    least_words: int | None = Field(None, ge=0, description="Words (between spaces); in Chinese and the like every character counts as one")
    most_words: int | None = Field(None, ge=1, description="The same, at most")

    @model_validator(mode="after")
    def _ordered(self) -> Bounds:
        for what in ("characters", "words"):
            least, most = getattr(self, f"least_{what}"), getattr(self, f"most_{what}")
            if least is not None and most is not None and least > most:
                raise ValueError(f"least_{what} ({least}) is more than most_{what} ({most})")
        return self


class LengthOptions(Bounds):
    """Lengths."""

    by_language: dict[str, Bounds] = Field({}, description="Language (ISO 639 or `unknown`) -> its bounds, instead of the general ones")


class GopherOptions(_Options):
    """Gopher's quality rules (appendix A.1.1)."""

    least_words: int | None = Field(50, ge=0, description="Words at least; in Chinese and the like characters, so the bound is laxer there")
    most_words: int | None = Field(100_000, ge=1, description="Words at most; in Chinese and the like characters, so stricter there")
    least_word_length: float | None = Field(3, ge=0, description="Mean length of words at least; off in languages without spaces")
    most_word_length: float | None = Field(10, ge=0, description="Mean length of words at most; off in languages without spaces")
    most_hashes: float | None = Field(0.1, ge=0, description="Hash symbols a word at most")
    most_ellipses: float | None = Field(0.1, ge=0, description="Ellipses a word at most")
    most_bullet_lines: Share | None = Field(0.9, description="Share of lines that begin with a bullet, at most")
    most_ellipsis_lines: Share | None = Field(0.3, description="Share of lines that end with an ellipsis, at most")
    least_alphabetic: Share | None = Field(0.8, description="Share of words with a letter (Chinese characters are letters), at least")
    least_stop_words: int | None = Field(2, ge=0, description="Different stop words at least; languages without a list are not asked")
    stop_words: dict[str, list[str]] = Field(STOP_WORDS, description="Language -> its stop words; `a/b` are two spellings of one")


class RepetitionOptions(_Options):
    """Gopher's repetition rules (table A1). N-grams are of words; in Chinese and the like of twice as many characters."""

    duplicate_lines: Share | None = Field(0.30, description="Share of lines that stood before, at most")
    duplicate_paragraphs: Share | None = Field(0.30, description="Share of paragraphs that stood before, at most")
    duplicate_line_characters: Share | None = Field(0.20, description="Share of characters in lines that stood before, at most")
    duplicate_paragraph_characters: Share | None = Field(0.20, description="Share of characters in paragraphs that stood before, at most")
    top_ngrams: dict[int, Share] = Field(
        {2: 0.20, 3: 0.18, 4: 0.16}, description="n -> share of characters in the most frequent n-gram, at most"
    )
    duplicate_ngrams: dict[int, Share] = Field(
        {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10},
        description="n -> share of characters in n-grams that stood before, at most",
    )


class C4Options(_Options):
    """C4's rules for pages (section 2.2). Its rules for lines cut text out; here they decide which lines' sentences count."""

    least_sentences: int | None = Field(3, ge=0, description="Sentences at least, in the lines that C4 would keep")
    least_line_words: int = Field(5, ge=0, description="A line of fewer words does not count")
    lorem_ipsum: bool = Field(True, description="Set aside what holds the placeholder text `lorem ipsum`")
    curly_bracket: bool = Field(True, description="Set aside what holds a curly bracket, as code does; false where code or TeX is wanted")


class QualityOptions(_Options):
    """Quality rules, in three groups; null turns a group off."""

    gopher: GopherOptions | None = Field(default_factory=GopherOptions, description="Words, symbols, bullets, stop words")
    repetition: RepetitionOptions | None = Field(default_factory=RepetitionOptions, description="Repeated lines, paragraphs and n-grams")
    c4: C4Options | None = Field(None, description="Sentences, placeholders and code; made for web pages. {}: on, with the paper's numbers")


class CleanOptions(_Options):
    """The steps, in the order in which they run. `{}` turns a step on with its defaults."""

    exact: ExactOptions | None = Field(default_factory=ExactOptions, description="Exact copies; null turns this off")
    language: LanguageOptions | None = Field(None, description="Language tags; needs py3langid")
    length: LengthOptions | None = Field(None, description="Too short and too long")
    quality: QualityOptions | None = Field(None, description="The rules of Gopher and C4")
    near: NearOptions | None = Field(None, description="Near copies; needs rensa")
