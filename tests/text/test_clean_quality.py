"""Gopher's and C4's rules: each number by hand, repetition beside a slow loop, bounds at the papers' defaults."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norma.text.clean import Aside, C4Options, Document, GopherOptions, Quality, QualityOptions, RepetitionOptions
from norma.text.clean.options import STOP_WORDS
from norma.text.clean.quality import (
    alphabetic_share,
    broken,
    bullet_line_share,
    ellipses_per_word,
    ellipsis_line_share,
    hashes_per_word,
    lines_that_c4_keeps,
    mean_word_length,
    sentences,
    stop_words_present,
)
from norma.text.clean.repetition import duplicate_character_share, duplicate_share, ngram_shares

PROSE = (
    "The old harbour of the town was built before anybody kept records, and most of what we know of it comes from letters that "
    "sailors sent home. They speak of a narrow quay, of warehouses with red doors, and of a lamp that burned through every storm. "
    "When the river changed its course, ships could no longer reach the quay. Merchants moved to the coast; the warehouses stood "
    "empty until a school was opened in one of them. Today visitors walk along the dry bed and have to imagine the water."
)
PROSE_ZH = (
    "这座老港口建于何时已经没有人知道，我们所了解的大多来自水手寄回家乡的信件。信中写到狭窄的码头、红色大门的仓库，以及在每一场风暴中都亮着的灯。"
    "后来河流改道，船只再也不能靠岸，商人们搬到了海边，仓库空置多年，直到有人在其中一间办起了学校。今天的游客沿着干涸的河床散步，只能想象当年的流水。"
)


def reasons(text: str, language: str = "en", **groups: object) -> list[str]:
    options = {"gopher": None, "repetition": None, "c4": None} | groups
    return [why.reason for why in broken(text, language, QualityOptions.model_validate(options))]


def test_numbers_by_hand() -> None:
    assert mean_word_length(["a", "bbb", "cc"]) == 2 and mean_word_length([]) == 0
    assert hashes_per_word("# a #b", ["#", "a", "#b"]) == 2 / 3
    assert ellipses_per_word("so... well…… done. 。。。", ["so...", "well……", "done.", "。。。"]) == 3 / 4
    assert bullet_line_share(["• one", "- two", "-three", "* four", "*five*", "●六", "plain", "1. no"]) == 4 / 8
    assert ellipsis_line_share(["more...", "more…", "还有……", "end.", "..."]) == 4 / 5
    assert alphabetic_share(["a1", "12", "...", "é", "中"]) == 3 / 5


def test_stop_words_by_hand() -> None:
    assert stop_words_present("The cat and THE dog", STOP_WORDS["en"], "en") == 2
    assert stop_words_present("theory bean toad", STOP_WORDS["en"], "en") == 0
    assert stop_words_present("他是我的朋友", STOP_WORDS["zh"], "zh") == 2
    assert stop_words_present("為了为何", STOP_WORDS["zh"], "zh") == 1  # two spellings of one


def test_c4_lines_and_sentences_by_hand() -> None:
    lines = [
        "This line is kept, all of it.",
        "Too short a line.",
        "This one has no end mark at the end",
        "This one trails off at the end...",
        "Please enable JavaScript to view this page.",
        "We never share data: see our Privacy Policy.",
        'He said: "All is well now." Then he left!',
    ]
    assert lines_that_c4_keeps(lines, 5, "en") == [lines[0], lines[6]]
    assert sentences(lines_that_c4_keeps(lines, 5, "en")) == 3
    assert lines_that_c4_keeps(["他走了。", "他昨天走了。", "他昨天走了", "“他昨天走了。”"], 5, "zh") == ["他昨天走了。", "“他昨天走了。”"]
    assert sentences(["一。二！三？"]) == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("the cat and " * 16, "too few: words"),
        ("of the an " * 60, "too low: mean word length"),
        ("of the extraordinarily incomprehensibilities " * 30, "too high: mean word length"),
        (PROSE + " #tag" * 12, "too high: hash symbols a word"),
        (PROSE + " and..." * 15 + " on", "too high: ellipses a word"),
        ("\n".join(f"- {line}" for line in PROSE.split(". ")), "too high: lines beginning with a bullet"),
        ("\n".join(f"{line}..." for line in PROSE.split(". ")), "too high: lines ending with an ellipsis"),
        (PROSE + " 2024" * 30, "too low: words with a letter"),
        ("lorem dolor amet " * 20, "too few: stop words"),
    ],
)
def test_each_gopher_rule_at_the_papers_default(text: str, reason: str) -> None:
    assert reasons(PROSE, gopher={}) == []
    assert reasons(text, gopher={}) == [reason]
    judged = Quality(QualityOptions(repetition=None)).judge(Document("f", 1, text, language="en"))
    assert isinstance(judged, Aside) and judged.reason == reason


def test_bounds_themselves_are_kept() -> None:
    assert reasons("have " * 25 + "that " * 25, gopher={}) == []  # 50 words, two stop words
    assert reasons("the of and " * 20, gopher={"least_words": 60, "least_word_length": 2.0}) == []
    assert reasons("the of and " * 20, gopher={"least_words": 61, "least_word_length": 2.0}) == ["too few: words"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("她在港口的" * 9, "too few: words"),
        ("她去港口看船" * 20, "too few: stop words"),
        (PROSE_ZH + "1 2 3 4 5 6 7 8 9 " * 5, "too low: words with a letter"),
        ("\n".join(f"●{line}" for line in PROSE_ZH.split("，")), "too high: lines beginning with a bullet"),
        ("\n".join(f"{line}……" for line in PROSE_ZH.split("，")), "too high: lines ending with an ellipsis"),
    ],
)
def test_gopher_rules_in_chinese(text: str, reason: str) -> None:
    assert reasons(PROSE_ZH, "zh", gopher={}, repetition={}) == []
    assert reasons(text, "zh", gopher={}) == [reason]
    assert "mean word length" not in " ".join(reasons(PROSE_ZH, "zh", gopher={"least_word_length": 3, "most_word_length": 4}))


def test_languages_without_a_list_are_not_asked_for_stop_words() -> None:
    assert reasons("lorem dolor amet " * 20, "la", gopher={}) == []
    assert reasons("lorem dolor amet " * 20, "la", gopher={"stop_words": {"la": ["et", "in"]}}) == ["too few: stop words"]


def test_c4_pages() -> None:
    assert reasons(PROSE, c4={}) == []
    assert reasons(PROSE + " {x}.", c4={}) == ["curly bracket"] and reasons(PROSE + " {x}.", c4={"curly_bracket": False}) == []
    assert reasons(PROSE + " Lorem Ipsum dolor.", c4={}) == ["lorem ipsum"]
    assert reasons("One sentence that is long enough.\nA second one which is long enough.\nHome\nMenu", c4={}) == ["too few: sentences"]


def test_repeated_lines_and_paragraphs_by_hand() -> None:
    assert duplicate_share(["a", "b", "a", "a"]) == 2 / 4
    assert duplicate_character_share(["aa", "b", "aa", "ccc"]) == 2 / 8
    assert duplicate_share([]) == duplicate_character_share([]) == 0
    parts = [s.strip() for s in PROSE.split(". ")]
    said = "\n\n".join([*parts, parts[0], parts[1], parts[2]])
    assert reasons(said, repetition={"top_ngrams": {}, "duplicate_ngrams": {}}) == [
        f"too high: {what}"
        for what in ("repeated lines", "repeated paragraphs", "characters in repeated lines", "characters in repeated paragraphs")
    ]


def test_ngrams_by_hand() -> None:
    # a bb a bb c: "a bb" comes twice and covers a bb a bb, 6 of 7 characters; its second time covers 3.
    assert list(ngram_shares(["a", "bb", "a", "bb", "c"], [2], [2])) == [("top", 2, 6 / 7), ("duplicate", 2, 3 / 7)]
    # Overlapping occurrences count their characters once: four a hold "a a" three times, the later two cover three characters.
    assert list(ngram_shares(["a"] * 4, [2], [2])) == [("top", 2, 1.0), ("duplicate", 2, 3 / 4)]
    assert list(ngram_shares(["a", "b", "c"], [1, 2], [2])) == [] and list(ngram_shares([], [2], [5])) == []


def slow(words: list[str], n: int) -> tuple[float, float]:
    """Top and duplicate share by plain loops over tuples and sets of places."""
    places: dict[tuple[str, ...], list[int]] = {}
    for i in range(len(words) - n + 1):
        places.setdefault(tuple(words[i : i + n]), []).append(i)
    total = sum(map(len, words))

    def cover(starts: list[int]) -> float:
        return sum(len(words[k]) for k in {i + j for i in starts for j in range(n)}) / total

    most = max((len(p) for p in places.values()), default=0)
    best = 0.0
    if most > 1:
        tied = [gram for gram, p in places.items() if len(p) == most]
        best = cover(places[max(tied, key=lambda gram: len("".join(gram)))])  # the first of the longest
    return best, cover([i for p in places.values() for i in p[1:]]) if total else 0.0


@given(st.lists(st.sampled_from(["a", "b", "cc", "ddd"]), max_size=40))
def test_ngrams_beside_a_slow_loop(words: list[str]) -> None:
    found = {(kind, n): value for kind, n, value in ngram_shares(words, range(1, 8), range(1, 8))}
    for n in range(1, 8):
        top, duplicate = slow(words, n)
        assert found.get(("top", n), 0.0) == pytest.approx(top)
        assert found.get(("duplicate", n), 0.0) == pytest.approx(duplicate)
    assert all(0 < value <= 1 for value in found.values())


def test_repetition_at_the_papers_default() -> None:
    assert reasons(PROSE, repetition={}) == []
    phrase = "click here to read more about it "
    assert "too high: characters in repeated 5-grams" in reasons(PROSE + " " + phrase * 6, repetition={})
    chinese = PROSE_ZH + "点击这里查看更多精彩内容" * 8
    assert "too high: characters in repeated 5-grams" in reasons(chinese, "zh", repetition={})
    # Five characters are less than five words: in Chinese only runs of ten count as such.
    assert reasons(PROSE_ZH + "，".join(f"{c}沿着河床散步" for c in "你我他她它谁咱"), "zh", repetition={"top_ngrams": {}}) == []


def test_the_defaults_are_the_papers() -> None:
    gopher, repetition, c4 = GopherOptions(), RepetitionOptions(), C4Options()
    assert (gopher.least_words, gopher.most_words, gopher.least_word_length, gopher.most_word_length) == (50, 100_000, 3, 10)
    assert (gopher.most_hashes, gopher.most_ellipses, gopher.most_bullet_lines, gopher.most_ellipsis_lines) == (0.1, 0.1, 0.9, 0.3)
    assert (gopher.least_alphabetic, gopher.least_stop_words) == (0.8, 2)
    assert gopher.stop_words["en"] == ["the", "be", "to", "of", "and", "that", "have", "with"]
    assert (repetition.duplicate_lines, repetition.duplicate_paragraphs) == (0.3, 0.3)
    assert (repetition.duplicate_line_characters, repetition.duplicate_paragraph_characters) == (0.2, 0.2)
    assert repetition.top_ngrams == {2: 0.20, 3: 0.18, 4: 0.16}
    assert repetition.duplicate_ngrams == {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    assert (c4.least_sentences, c4.least_line_words) == (3, 5)
    off = {name: None for name in GopherOptions.model_fields if name != "stop_words"}
    assert reasons("# #", gopher=off, repetition={"top_ngrams": {}, "duplicate_ngrams": {}, "duplicate_lines": None}) == []
