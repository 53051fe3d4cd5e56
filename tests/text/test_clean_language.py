"""Language tags: clear texts of ten languages, short and mixed ones, the list of what is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from norma.base.errors import NormaError
from norma.text.clean import UNKNOWN, Document, LanguageOptions
from norma.text.clean.language import MACROLANGUAGE, Language

pytest.importorskip("py3langid")

# The first article of the Universal Declaration of Human Rights.
ARTICLE = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience.",
    "zh": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de conscience.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón y conciencia.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione e di coscienza.",
    "ru": "Все люди рождаются свободными и равными в своём достоинстве и правах. Они наделены разумом и совестью.",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "ar": "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق. وقد وهبوا عقلاً وضميراً.",
}


@pytest.fixture(scope="module")
def tell() -> Language:
    return Language(LanguageOptions())


@pytest.mark.parametrize("language", ARTICLE)
def test_clear_texts(tell: Language, language: str) -> None:
    tag, confidence = tell.tell(ARTICLE[language])
    assert tag == language and float(confidence) > 0.5


def test_traditional_and_spoken_chinese_are_chinese(tell: Language) -> None:
    for text in ("人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心。", "我哋喺香港嘅屋企食飯，你哋幾時嚟探我哋呀？聽日得唔得閒？"):
        assert tell.tell(text)[0] == "zh"
    assert MACROLANGUAGE["yue"] == "zh"


def test_short_and_wordless_texts_are_unknown(tell: Language) -> None:
    assert tell.tell("Hello there") == (UNKNOWN, "10 letters")
    assert tell.tell("1234 5678 -- 99 %" * 20)[0] == UNKNOWN
    assert tell.tell("") == (UNKNOWN, "0 letters")
    least = Language(LanguageOptions(least_letters=0, least_confidence=0.0))
    assert least.tell("Hello there, how are you?")[0] == "en"


def test_only_the_sample_is_looked_at() -> None:
    step = Language(LanguageOptions(sample=100))
    assert step.tell(ARTICLE["en"] + ARTICLE["ru"] * 50)[0] == "en"


def test_keep_sets_other_languages_aside_and_tags_the_rest() -> None:
    stream = [Document("f", i, text) for i, text in enumerate([*ARTICLE.values(), "short"])]
    step = Language(LanguageOptions(keep=["zh", "en"]))
    assert list(step(stream)) == [replace(stream[0], language="en"), replace(stream[1], language="zh")]
    assert {name: r.documents for name, r in step.counts.reasons.items()} == {
        **{f"language {tag}": 1 for tag in ARTICLE if tag not in ("en", "zh")},
        "language unknown": 1,
    }
    assert step.counts.reasons["language unknown"].examples == [{"place": "f:10", "detail": "5 letters", "text": "short"}]
    tagged = Language(LanguageOptions())
    assert [d.language for d in tagged(stream)] == [*ARTICLE, UNKNOWN] and not tagged.counts.reasons
    assert [d.line for d in Language(LanguageOptions(keep=["unknown"]))(stream)] == [10]


def test_an_unknown_name_in_keep_is_one_clear_line() -> None:
    with pytest.raises(NormaError, match=r"language.keep: 'english' is no language that can be told"):
        Language(LanguageOptions(keep=["english"]))
