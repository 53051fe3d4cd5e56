"""Program checkers on tricky texts in both languages; every verdict was set by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.check import build, known_programs
from norma.spec import Spec, shipped
from norma.spec.types import Item, Message, Status

# (checker, parameters, language, answer, complies, score or None); the subject asked about is json.dumps
TABLE: list[tuple[str, dict[str, Any], str, str, bool, float | None]] = [
    ("sentences", {"max": "1"}, "en", "Certainly: it works, e.g. with json.loads and 3.14.", True, 1.0),
    ("sentences", {"max": "1"}, "en", "It works. It is fast.", False, 0.5),
    ("sentences", {"max": "1"}, "en", "A. b. c. d.", False, 0.25),
    ("sentences", {"min": "2", "max": "3"}, "en", "Just one.", False, 0.5),
    ("sentences", {"max": "1"}, "zh", "您好：它返回总和。", True, 1.0),
    ("sentences", {"max": "1"}, "zh", "您好。它返回总和。", False, 0.5),
    ("length", {"max_words": "3"}, "en", "One two three.", True, 1.0),
    ("length", {"max_words": "4"}, "en", "one two three four five", False, 0.75),
    ("length", {"max_words": "2"}, "en", "a b c d e f g", False, 0.0),
    ("length", {"max_words": "30", "max_characters": "4"}, "zh", "您好：您好", True, 1.0),
    ("length", {"max_words": "30", "max_characters": "4"}, "zh", "您好：您好吗", False, 0.75),
    ("length", {"min_words": "4"}, "en", "too short", False, 0.5),
    ("ends_with_stop", {}, "en", "It ends.", True, 1.0),
    ("ends_with_stop", {}, "en", "It ends (here.)", True, 1.0),
    ("ends_with_stop", {}, "en", "It ends \n", False, 0.0),
    ("ends_with_stop", {}, "en", "It ends...", False, 0.0),
    ("ends_with_stop", {}, "en", "It ends .", False, 0.0),
    ("ends_with_stop", {}, "en", "It ends!", False, 0.0),
    ("ends_with_stop", {}, "en", "It ends.\n", True, 1.0),
    ("ends_with_stop", {}, "zh", "它结束了。", True, 1.0),
    ("ends_with_stop", {}, "zh", "它结束了.", False, 0.5),
    ("ends_with_stop", {}, "zh", "它结束了！", False, 0.0),
    ("polite_opening", {}, "en", "Certainly: it adds.", True, 1.0),
    ("polite_opening", {}, "en", "OF COURSE, it adds.", True, 1.0),
    ("polite_opening", {}, "en", "Happy to help: it adds.", True, 1.0),
    ("polite_opening", {}, "en", "Certainly it adds.", False, 0.5),
    ("polite_opening", {}, "en", "Surely: it adds.", False, 0.0),
    ("polite_opening", {}, "en", "It certainly: adds.", False, 0.0),
    ("polite_opening", {}, "en", "Certainly:", False, 0.0),
    ("polite_opening", {}, "en", "Of course, happy to help!", False, 0.0),
    ("polite_opening", {}, "en", "您好：it adds.", False, 0.0),
    ("polite_opening", {}, "zh", "您好：it adds.", True, 1.0),
    ("polite_opening", {}, "zh", "当然可以，它求和。", True, 1.0),
    ("polite_opening", {}, "zh", "您好它求和。", False, 0.5),
    ("polite_opening", {}, "zh", "Certainly: it adds.", False, 0.0),
    ("polite_opening", {}, "zh", "您好：", False, 0.0),
    ("polite_opening", {"phrases": {"en": ["Aye"]}}, "en", "Aye: it adds.", True, 1.0),
    ("polite_opening", {"phrases": {"en": ["Aye"]}}, "en", "Certainly: it adds.", False, 0.0),
    ("names_subject", {}, "en", "`json.dumps` writes.", True, 1.0),
    ("names_subject", {}, "en", "It is json.dumps.", True, 1.0),
    ("names_subject", {}, "en", "json.dumps() writes.", True, 1.0),
    ("names_subject", {}, "zh", "说明json.dumps的作用。", True, 1.0),
    ("names_subject", {}, "en", "`json.dumpster` writes.", False, 0.25),
    ("names_subject", {}, "en", "`my.json.dumps` writes.", False, 0.5),
    ("names_subject", {}, "en", "dumps writes.", False, 0.25),
    ("names_subject", {}, "en", "It writes.", False, 0.0),
    ("no_first_person", {}, "en", "It gives you the sum.", True, 1.0),
    ("no_first_person", {}, "en", "I think it adds.", False, 0.5),
    ("no_first_person", {}, "en", "I'm sure that my view is ours.", False, 0.0),
    ("no_first_person", {}, "en", "The identity matrix I, I/O, the US and `my_list` or self.me.", True, 1.0),
    ("no_first_person", {}, "en", "The index i runs.", True, 1.0),
    ("no_first_person", {}, "en", "as i think", False, 0.5),
    ("no_first_person", {}, "en", "Let's see.", False, 0.5),
    ("no_first_person", {}, "zh", "我认为它求和。", False, 0.5),
    ("no_first_person", {}, "zh", "本人和我们都认为如此。", False, 0.0),
    ("no_first_person", {}, "zh", "它会自我检查。", True, 1.0),
    ("says_missing", {}, "en", "Certainly: the entry does not say what `x` does.", True, 1.0),
    ("says_missing", {}, "en", "The documentation doesn't mention `x`.", True, 1.0),
    ("says_missing", {}, "en", "`x` is not described in this entry.", True, 1.0),
    ("says_missing", {}, "en", "There is no information about `x` in the entry.", True, 1.0),
    ("says_missing", {}, "en", "The entry is not about `x`.", True, 1.0),
    ("says_missing", {}, "en", "It does not say.", False, 0.5),
    ("says_missing", {}, "en", "The entry describes `x`.", False, 0.0),
    ("says_missing", {}, "en", "The entry adds. It does not add floats.", False, 0.0),
    ("says_missing", {}, "zh", "您好：该条目没有说明 `x` 的作用。", True, 1.0),
    ("says_missing", {}, "zh", "文档并未提到 `x`。", True, 1.0),
    ("says_missing", {}, "zh", "没有说明。", False, 0.5),
    ("says_missing", {}, "zh", "该条目说明了 `x`。", False, 0.0),
    ("says_missing", {"present": "false"}, "en", "The entry does not say what `x` does.", False, 0.0),
    ("says_missing", {"present": "false"}, "en", "`x` adds and does not return.", True, 1.0),
    ("no_repetition", {}, "en", "It adds the first and the second number.", True, 1.0),
    ("no_repetition", {}, "en", "It had had that that.", True, 1.0),
    ("no_repetition", {}, "en", "It yields `(degree, degree)` or (None, None) at the end.", True, 1.0),
    ("no_repetition", {}, "en", "It adds the the number.", False, None),
    ("no_repetition", {}, "en", "Certainly: certainly: it adds.", False, 0.75),
    ("no_repetition", {}, "en", "add the number and add the number", False, 4 / 7),
    ("no_repetition", {}, "zh", "谢谢，它常常求和。", True, 1.0),
    ("no_repetition", {}, "zh", "大家讨论讨论。", True, 1.0),
    ("no_repetition", {}, "zh", "您好：您好：它求和。", False, None),
    ("no_repetition", {}, "zh", "按顺序叠放物品，按顺序叠放物品。", False, None),
    ("words", {"words": ["sum", "add"], "expect": "all"}, "en", "The SUM only.", False, 0.5),
    ("words", {"words": ["sum"]}, "en", "A summary.", False, 0.0),
    ("words", {"words": ["求和"]}, "zh", "它求和。", True, 1.0),
    ("words", {"words": ["bad", "ugly"], "expect": "none"}, "en", "All good.", True, 1.0),
    ("regex", {"pattern": r"^\w+:"}, "en", "Certainly: it adds.", True, 1.0),
    ("regex", {"pattern": "(?i)error", "expect": "absent"}, "en", "An Error.", False, 0.0),
    ("regex", {"pattern": "[a-z ]+", "expect": "whole"}, "en", " all lower ", True, 1.0),
    # the second opinions
    ("sentences_by_tokens", {}, "en", "Certainly: it works, e.g. with json.loads and 3.14.", True, 1.0),
    ("sentences_by_tokens", {}, "en", "It works. It is fast.", False, 0.5),
    ("sentences_by_tokens", {}, "en", "Certainly: `x` writes the given object, It returns the text, The text is new.", False, 1 / 3),
    ("sentences_by_tokens", {}, "en", 'It takes an os.PathLike and formats "?" output.', True, 1.0),
    ("sentences_by_tokens", {}, "en", "It writes text.Returns the length.", False, 0.5),
    ("sentences_by_tokens", {}, "en", "Certainly: The text is written.", True, 1.0),
    ("sentences_by_tokens", {}, "zh", "您好：它返回总和。", True, 1.0),
    ("sentences_by_tokens", {}, "zh", "它返回总和。它很快。", False, 0.5),
    ("degenerate_text", {}, "en", "Certainly: `json.dumps` writes the object as text.", True, 1.0),
    ("degenerate_text", {}, "en", "Certainly: Certainly: it writes.", False, None),
    ("degenerate_text", {}, "en", "It writesssssss.", False, None),
    ("degenerate_text", {}, "zh", "您好：您好：它写出文本。", False, None),
    ("degenerate_text", {}, "zh", "您好：`json.dumps` 把对象写成文本。", True, 1.0),
    ("courtesy_marks", {}, "en", "It writes the object as text, hope this helps.", True, 0.8),
    ("courtesy_marks", {}, "en", "It makes sure that the text is written.", False, 0.0),
    ("courtesy_marks", {}, "en", "Certainly: obviously it writes the text.", False, 0.0),
    ("courtesy_marks", {}, "zh", "您好：writes the object as text.", True, 1.0),
    ("courtesy_marks", {}, "zh", "它发送请求并返回文本。", False, 0.0),
    ("courtesy_marks", {}, "zh", "您好：这都不懂，它把对象写成文本。", False, 0.0),
    ("subject_in_front", {}, "en", "Certainly: `json.dumps` writes the object as text.", True, 1.0),
    ("subject_in_front", {}, "en", "It takes many words and words and words and words before it comes to json.dumps.", False, 0.0),
    ("subject_in_front", {}, "en", "Certainly: `json.dumps` dumps objects to JSON text.", True, 1.0),
    ("subject_in_front", {}, "en", "Certainly: json.dumps dumps.", False, 0.3),
    ("subject_in_front", {}, "zh", "您好：`json.dumps` writes the object as text.", True, 1.0),
    ("denies_without_claims", {}, "en", "Certainly: the entry does not say what `x` does.", True, 1.0),
    ("denies_without_claims", {}, "en", "The entry does not say, but it writes objects.", False, 0.2),
    ("denies_without_claims", {}, "en", "Certainly: it writes objects.", False, 0.0),
    ("denies_without_claims", {}, "zh", "您好：该条目没有说明 `x` 的作用。", True, 1.0),
    ("denies_without_claims", {}, "zh", "您好：它把对象写成文本。", False, 0.0),
    ("amount", {"languages": {"en": {"unit": "words", "max": 3}}}, "en", "It adds numbers now.", False, 0.75),
    ("citations", {}, "en", "It adds [1].", True, 1.0),
    ("json", {"schema": {"type": "array"}}, "en", "[1, 2]", True, 1.0),
    ("language", {}, "en", "It adds the numbers that are given to it.", True, None),
    ("language", {}, "zh", "It adds the numbers that are given to it.", False, None),
    ("lexicon", {"list": "rude", "max": 0}, "en", "Only an idiot asks.", False, 0.0),
    ("markdown", {"min_items": 2}, "en", "- It adds.\n- It counts.", True, 1.0),
    ("no_personal_data", {}, "en", "Ask 13812345678.", False, 0.0),
    ("quotes_are_real", {}, "en", 'It says "an indent of nothing at all".', False, 0.0),
]


@pytest.mark.parametrize(("use", "params", "language", "answer", "complies", "score"), TABLE)
def test_table(
    ask: Callable[..., Item], use: str, params: dict[str, Any], language: str, answer: str, complies: bool, score: float | None
) -> None:
    finding = build(use, params, "here").check(ask("json.dumps", language), answer)
    assert (finding.status is Status.COMPLIANT) == complies, finding
    if score is not None:
        assert finding.score == pytest.approx(score), finding


def test_both_languages_are_in_the_table_for_every_bilingual_checker() -> None:
    seen = {(row[0], row[2]) for row in TABLE}
    # The examples of the shipped specs are marked by hand too; tests/spec/test_shipped.py holds the checkers to them.
    for name in shipped.names():
        for rule in Spec.load(name).rules:
            seen |= {(checker.use, example.lang.split("-")[0]) for checker in rule.checkers for example in rule.examples}
    # test_ifeval.py, test_forms.py, test_final_answer.py
    elsewhere = {name for name in known_programs() if ":" in name} | {"similar_to_reference", "final_answer", "last_number"}
    elsewhere |= {"closing_pointer", "points_in_last_clause"}  # test_closings.py
    for name, entry in known_programs().items():
        for language in entry.languages or {"en"}:
            assert (name, language) in seen or name in elsewhere


@pytest.mark.parametrize(
    ("name", "answer", "complies"),
    [
        ("os.path.join", "Certainly: `path.join` joins parts.", True),
        ("os.path.join", "Certainly: `join` joins parts.", False),
        ("print", "Certainly: print writes.", True),
        ("print", "Certainly: it prints.", False),
        ("collections.Counter.most_common", "Counter.most_common lists.", True),
    ],
)
def test_subject_by_its_last_two_parts(ask: Callable[..., Item], name: str, answer: str, complies: bool) -> None:
    assert (build("names_subject", {}, "").check(ask(name), answer).status is Status.COMPLIANT) == complies


PARAMS: dict[str, dict[str, Any]] = {
    "words": {"words": ["it"]},
    "regex": {"pattern": "it"},
    "length": {"max_words": 5, "max_characters": 5},
    "lexicon": {"words": {"en": ["it"], "zh": ["它"], "de": ["es"]}, "max": 3},
    "amount": {"languages": {"*": {"unit": "words", "max": 30}}},
    "markdown": {"min_items": 1},
    "similar_to_reference": {"min": 0.5},
    "keywords:existence": {"keywords": ["lays"]},
    "keywords:frequency": {"keyword": "lays", "frequency": 1, "relation": "at least"},
    "keywords:forbidden_words": {"forbidden_words": ["sad"]},
    "keywords:letter_frequency": {"letter": "q", "let_frequency": 1, "let_relation": "less than"},
    "length_constraints:number_words": {"num_words": 40, "relation": "less than"},
    "length_constraints:number_sentences": {"num_sentences": 3, "relation": "less than"},
    "length_constraints:number_paragraphs": {"num_paragraphs": 1},
    "length_constraints:nth_paragraph_first_word": {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "certainly"},
    "detectable_format:multiple_sections": {"section_spliter": "Section", "num_sections": 2},
    "detectable_format:number_bullet_lists": {"num_bullets": 1},
    "detectable_format:number_highlighted_sections": {"num_highlights": 1},
    "detectable_content:number_placeholders": {"num_placeholders": 1},
    "detectable_content:postscript": {"postscript_marker": "P.S."},
    "language:response_language": {"language": "en"},
    "change_case:capital_word_frequency": {"capital_frequency": 2, "capital_relation": "less than"},
    "combination:repeat_prompt": {"prompt_to_repeat": "What does it do?"},
    "startend:end_checker": {"end_phrase": "Good bye."},
}
FACTS = {"answer": "42"}  # what a verifiable answer is compared with
PIECES = st.sampled_from(
    ["Certainly", ": ", "您好", "：", "`json.dumps`", " ", ". ", "。", "I ", "我", "the ", "entry ", "does not say ", "没有说明"]
) | st.sampled_from(["\n", "<think>", "</think>", "...", "!", "\0", "😀"])


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(sorted(known_programs())),
    st.sampled_from(["en", "zh", "zh-Hans"]),
    st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=20).map("".join)),
    st.one_of(st.just("What does `json.dumps` do?"), st.text(max_size=30)),
)
def test_never_raises_and_status_follows_score(use: str, language: str, answer: str, question: str) -> None:
    checker = build(use, PARAMS.get(use, {}), "here")
    item = Item("i", (Message(role="user", content=question),), language, FACTS, reference="It adds.")
    finding = checker.check(item, answer)
    assert finding.status in (Status.COMPLIANT, Status.VIOLATION)
    assert finding.score is not None and math.isfinite(finding.score) and 0 <= finding.score <= 1
    assert (finding.status is Status.COMPLIANT) == (finding.score >= known_programs()[use].threshold)
    assert all(0 <= a <= b <= len(answer) for a, b in finding.evidence)
    assert finding == checker.check(item, answer)
    if not any(c.isalnum() for c in answer):
        assert finding.status is Status.VIOLATION and finding.score == 0


@pytest.mark.parametrize("use", sorted(known_programs()))
def test_languages_that_are_not_declared_are_errors(ask: Callable[..., Item], use: str) -> None:
    checker = build(use, PARAMS.get(use, {}), "here")
    item = Item("i", (Message(role="user", content="Was macht `x`?"),), "de", FACTS, reference="Es zählt.")
    assert (checker.check(item, "Es addiert.").status is Status.ERROR) == bool(checker.languages)


@pytest.mark.parametrize(
    ("use", "params", "message"),
    [
        ("polite_openin", {}, "spec.yaml:3:1: unknown program checker 'polite_openin'. Did you mean 'polite_opening'."),
        ("sentences", {"maks": "1"}, "the checker 'sentences' has no parameter 'maks'. Known: max, min."),
        ("no_first_person", {"x": "1"}, "has no parameter 'x'. This checker takes no parameters."),
        ("sentences", {"max": "many"}, "parameter 'max': input should be a valid integer"),
        ("sentences", {"min": "4", "max": "2"}, "min (4) is greater than max (2)"),
        ("regex", {}, "needs the parameter 'pattern'"),
        ("regex", {"pattern": "("}, "'(' is not an RE2 pattern: missing )"),
        ("names_subject", {"pattern": "x"}, "has no group"),
        ("length", {}, "at least one of min_words, max_words and max_characters"),
        ("words", {"words": []}, "parameter 'words'"),
    ],
)
def test_wrong_parameters_are_one_line(use: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(NormaError) as error:
        build(use, params, "spec.yaml:3:1")
    assert message in str(error.value) and str(error.value).startswith("spec.yaml:3:1: ") and "\n" not in str(error.value)


def test_strangers_patterns_run_in_linear_time(ask: Callable[..., Item]) -> None:
    checker = build("regex", {"pattern": "(a+)+$"}, "")  # takes 2^n steps in a backtracking engine
    assert checker.check(ask(), "a" * 5000 + "b").status is Status.VIOLATION


def test_evidence_points_into_the_response(ask: Callable[..., Item]) -> None:
    response = "<think>Shall I?</think>\nCertainly: I think that it adds."
    (span,) = build("no_first_person", {}, "").check(ask(), response).evidence
    assert response[slice(*span)] == "I" and span[0] > response.index("</think>")
    over = build("length", {"max_words": 3}, "").check(ask(), "one two three four five").evidence
    assert over == ((14, 23),)
