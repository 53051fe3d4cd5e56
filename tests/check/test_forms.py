"""JSON, Markdown, citations, personal data, word lists, amounts, similarity: every verdict was set by hand or taken from a standard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from norma.base.errors import NormaError
from norma.check import build
from norma.check.lists import languages, names, shipped
from norma.check.personal import personal_data
from norma.spec import registry
from norma.spec.types import Finding, Item, Message, Status

SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
LIST = "- one\n- two\n  1. deep\n- three"
TABLE = "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |"


def judged(use: str, params: dict[str, Any], answer: str, language: str = "en", asked: str = "Q?", reference: str | None = None) -> Finding:
    item = Item("1", (Message(role="user", content=asked),), language, reference=reference)
    return registry.run(build(use, params, "spec.yaml:1:1"), item, answer)


# (program, parameters, answer, score)
TABLE_OF_FORMS: list[tuple[str, dict[str, Any], str, float]] = [
    ("json", {"schema": SCHEMA}, '{"n": 3}', 1.0),
    ("json", {"schema": SCHEMA}, '```json\n{"n": 3}\n```', 1.0),
    ("json", {"schema": SCHEMA, "fence": "forbidden"}, '```json\n{"n": 3}\n```', 0.0),
    ("json", {"schema": SCHEMA, "fence": "needed"}, '{"n": 3}', 0.0),
    ("json", {"schema": SCHEMA}, '{"n": "3"}', 0.5),
    ("json", {"schema": SCHEMA}, '{"n": 3, "m": 4}', 0.5),
    ("json", {}, "NaN", 0.0),
    ("json", {}, 'Here you are: {"n": 3}', 0.0),
    ("json", {}, "[" * 100000, 0.0),
    ("markdown", {"min_items": 4, "max_items": 4}, LIST, 1.0),
    ("markdown", {"min_items": 4, "lists": "bullet"}, LIST, 0.0),
    ("markdown", {"min_items": 1, "max_items": 1, "lists": "ordered"}, LIST, 1.0),
    ("markdown", {"only": "list"}, LIST, 1.0),
    ("markdown", {"only": "list"}, f"Here:\n\n{LIST}", 0.0),
    ("markdown", {"min_tables": 1, "columns": 2, "min_rows": 2}, TABLE, 1.0),
    ("markdown", {"min_tables": 1, "columns": 3, "min_rows": 3}, TABLE, 1 / 3),
    ("markdown", {"only": "table"}, TABLE, 1.0),
    ("markdown", {"min_tables": 1}, "```\n" + TABLE + "\n```", 0.0),
    ("markdown", {"min_headings": 1, "min_code_blocks": 1}, "# Head\n\n```py\n# no head\n```", 1.0),
    ("markdown", {"max_headings": 1}, "# A\n\n## B", 0.0),
    ("markdown", {"only": "text"}, "Plain text, 2 * 3 * 4.", 1.0),
    ("markdown", {"only": "text"}, "Plain **text**.", 0.0),
    ("markdown", {"min_emphasis": 2}, "*a* and **b**", 1.0),
    ("citations", {"min": 2}, "So it is [1], and so (Kiss and Strunk, 2006).", 1.0),
    ("citations", {"min": 2}, "So it is [1].", 0.5),
    ("citations", {}, "See [the page](x) and arr[i].", 0.0),
    ("citations", {"styles": ["title"]}, "出自《红楼梦》。", 1.0),
    ("citations", {"styles": ["number"]}, "如前所述【2】。", 1.0),
    ("citations", {"every_sentence": True}, "So it is [1]. And so [2]. But this?", 2 / 3),
]  # fmt: skip


@pytest.mark.parametrize(("use", "params", "answer", "score"), TABLE_OF_FORMS)
def test_forms(use: str, params: dict[str, Any], answer: str, score: float) -> None:
    finding = judged(use, params, answer)
    assert finding.score == pytest.approx(score) and (finding.status is Status.COMPLIANT) == (score == 1), finding


def test_citations_and_quotations_must_be_in_the_question() -> None:
    asked = "[1] The cat sat on the mat.\n2. 今天下雨。\nhttp://a.example/b"
    assert judged("citations", {"known": True}, "So [1] and [2], http://a.example/b.", asked=asked).status is Status.COMPLIANT
    strange = judged("citations", {"known": True}, "So [1] and [3].", asked=asked)
    assert strange.score == 0.5 and "[3]" in strange.note
    assert judged("quotes_are_real", {}, 'It says "the cat  sat on the mat."', asked=asked).status is Status.COMPLIANT
    false = judged("quotes_are_real", {}, 'It says "the dog sat on the mat" and “今天下雪了”.', asked=asked)
    assert false.score == 0.0 and len(false.evidence) == 2
    assert judged("quotes_are_real", {}, 'A "cat" is named.', asked=asked).status is Status.COMPLIANT  # too short to be checked


# Published test numbers: 110105194912310021-style numbers of GB 11643 (its own example ends in X), test cards of the networks, the IBAN
# of ISO 13616, numbers of the documentation of libphonenumber.
PERSONAL: list[tuple[str, list[str]]] = [
    ("我的身份证是11010519491231002X。", ["cn_id"]),
    ("号码110105194912310021不对", []),  # wrong check digit
    ("号码110105194913310028", []),  # month 13
    ("卡号4111 1111 1111 1111", ["bank_card"]),
    ("卡号4111 1111 1111 1112", []),  # Luhn
    ("card 5555-5555-5555-4444.", ["bank_card"]),
    ("手机13812345678", ["phone"]),
    ("手机138 1234 5678，", ["phone"]),
    ("请拨 +86 138-1234-5678", ["phone"]),
    ("电话０１３８１２３４５６７８９９９９９９９", []),
    ("Call (650) 253-0000 now", ["phone"]),
    ("mail jane.doe+x@firm.co.uk, please", ["email"]),
    ("邮箱jane@firm.cn谢谢", ["email"]),
    ("mail someone@example.com", []),
    ("a@b", []),
    ("IBAN GB82 WEST 1234 5698 7654 32", ["iban"]),
    ("IBAN GB83 WEST 1234 5698 7654 32", []),
    ("server 8.8.8.8 and 192.168.1.1", ["ip"]),
    ("version 1.2.3.4.5, time 10:20:30", []),
    ("2001:4860:4860::8888", ["ip"]),
    ("SSN 078-05-1120", ["us_ssn"]),
    ("SSN 666-05-1120", []),
    ("护照E12345678", ["cn_passport"]),
    ("In 2024 we sold 1234567 units for 3.14 million on 2024-01-02.", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "kinds"), PERSONAL)
def test_personal_data(text: str, kinds: list[str]) -> None:
    assert [kind for kind, _ in personal_data(text)] == kinds


def test_personal_data_may_be_allowed() -> None:
    answer = "Call 13812345678."
    found = judged("no_personal_data", {}, answer)
    assert found.status is Status.VIOLATION and found.evidence == ((5, 16),) and found.note == "phone"
    assert judged("no_personal_data", {"allow": ["13812345678"]}, answer).status is Status.COMPLIANT
    assert judged("no_personal_data", {"from_prompt": True}, answer, asked="Is 13812345678 right?").status is Status.COMPLIANT
    assert judged("no_personal_data", {"kinds": ["email"]}, answer).status is Status.COMPLIANT


def test_word_lists(tmp_path: Path) -> None:
    assert names() == ["courtesy", "hedges", "rude"] and all(languages(name) == ["en", "zh"] for name in names())
    assert all(len(shipped(name, language)) >= 20 for name in names() for language in ("en", "zh"))
    assert judged("lexicon", {"list": "rude", "max": 0}, "You idiot!").status is Status.VIOLATION
    assert judged("lexicon", {"list": "rude", "max": 0}, "The idiotism of ducks; foolproof.").status is Status.COMPLIANT  # whole words
    assert judged("lexicon", {"list": "rude", "max": 0}, "你这个笨蛋", "zh-Hans").evidence == ((3, 5),)
    assert judged("lexicon", {"list": "hedges", "min": 2}, "Perhaps. I don’t know.").status is Status.COMPLIANT
    assert judged("lexicon", {"list": "hedges", "min": 2, "distinct": True}, "Perhaps, perhaps.").score == 0.5
    assert judged("lexicon", {"list": "rude", "max": 0}, "Du Idiot!", "de").status is Status.ERROR
    own = tmp_path / "own.txt"
    own.write_text("# mine\nDu Idiot\n\n", encoding="utf-8")
    params = {"list": "rude", "files": {"de": str(own)}, "max": 0}
    assert judged("lexicon", params, "du  idiot!", "de").status is Status.VIOLATION
    before = build("lexicon", params, "").digest
    own.write_text("Du Esel\n", encoding="utf-8")
    assert build("lexicon", params, "").digest != before  # the words count, not the place of the file
    for wrong, words in (({"list": "rud", "max": 0}, "Did you mean 'rude'"), ({"list": "rude"}, "min and max"), ({"max": 1}, "no words")):
        with pytest.raises(NormaError, match=words):
            build("lexicon", wrong, "")


AMOUNTS = {
    "languages": {"zh": {"unit": "characters", "max": 6}, "en": {"unit": "words", "min": 2, "max": 3}, "*": {"unit": "lines", "max": 1}}
}


@pytest.mark.parametrize(
    ("answer", "language", "score"),
    [("one two", "en", 1.0), ("one", "en-GB", 0.5), ("one two three four", "en", 0.75), ("今天下雨。", "zh-Hans", 1.0),
     ("今天下大雨了。", "zh", 6 / 7),
     ("ein Satz\nund noch einer", "de", 0.5)],
)  # fmt: skip
def test_amounts_by_language(answer: str, language: str, score: float) -> None:
    assert judged("amount", AMOUNTS, answer, language).score == pytest.approx(score)


def test_similarity() -> None:
    pytest.importorskip("sacrebleu")
    # F1 by hand: {the, cat, sat} and {the, cat, sat, down}: 2 * 3 / 7
    f1 = judged("similar_to_reference", {"measure": "f1", "min": 6 / 7}, "The cat sat", reference="the cat sat down")
    assert f1.status is Status.COMPLIANT and "0.86" in f1.note
    assert (
        judged("similar_to_reference", {"measure": "f1", "min": 0.87}, "The cat sat", reference="the cat sat down").status
        is Status.VIOLATION
    )
    assert judged("similar_to_reference", {"min": 1.0}, "今天下雨", "zh", reference="今天下雨").status is Status.COMPLIANT
    assert judged("similar_to_reference", {}, "dog", reference="the cat sat").status is Status.VIOLATION
    assert judged("similar_to_reference", {}, "dog").status is Status.ERROR


@pytest.mark.parametrize(
    ("use", "params", "message"),
    [
        ("json", {"schema": {"type": "nothing"}}, "not a JSON Schema"),
        ("json", {"schema": {"$ref": "http://a.example/s.json"}}, "would be fetched"),
        ("markdown", {}, "nothing is asked for"),
        ("markdown", {"min_items": 3, "max_items": 2}, "greater than"),
        ("amount", {"languages": {"en": {"unit": "words"}}}, "min and max"),
        ("no_personal_data", {"regions": ["China"]}, "no region"),
        ("language", {"language": "klingon"}, "no language that can be told"),
    ],
)  # fmt: skip
def test_wrong_parameters(use: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(NormaError, match=message):
        build(use, params, "")
