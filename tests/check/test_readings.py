"""What the programs of the shipped specs read from questions and answers: numbers asked for, bounds, identifiers, digits undone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norma.check.format_asked import asked_bound, asked_count
from norma.check.format_width import columns
from norma.check.language_match import asked_language
from norma.check.personal_data import identifiers
from norma.check.personal_data_second import undone
from norma.check.uncertainty import significant_digits
from norma.spec.types import Item, Message


@pytest.mark.parametrize(
    ("question", "count"),
    [
        ("List three uses of salt.", 3),
        ("Give me 12 tips for a good night.", 12),
        ("Please suggest five quick ideas.", 5),
        ("Tell me two surprising facts about bees.", 2),
        ("Why do three out of four cats sleep?", None),
        ("List the uses of salt.", None),
        ("列出三种盐的用途。", 3),
        ("请给我十条建议。", 10),
        ("举出两个例子", 2),
        ("推荐5个景点", 5),
        ("给定两个词，写一个句子。", None),
        ("列出比较两种产品的五个步骤。", None),
        ("三个和尚没水喝是什么意思？", None),
    ],
)
def test_asked_count(question: str, count: int | None) -> None:
    assert asked_count(question) == count


@pytest.mark.parametrize(
    ("question", "bound"),
    [
        ("Answer in at most 12 words.", (12, "word")),
        ("Describe it in under 100 characters.", (100, "character")),
        ("No more than 1 word, please.", (1, "word")),
        ("Summarise it in 50 words or fewer.", (50, "word")),
        ("Write no less than 150 words.", None),
        ("How many words are there?", None),
        ("用不超过20个字回答", (20, "字")),
        ("30字以内", (30, "字")),
        ("控制在 100 个汉字", (100, "字")),
        ("这首诗有20个字吗？", None),
    ],
)
def test_asked_bound(question: str, bound: tuple[int, str] | None) -> None:
    assert asked_bound(question) == bound


@pytest.mark.parametrize(
    ("question", "language", "asked"),
    [
        ("Translate into Chinese: hello", "en", "zh"),
        ("Say it in plain English.", "en", "en"),
        ("翻译成英文：你好", "zh-Hans", "en"),
        ("请用中文回答", "en", "zh"),
        ("What is salt?", "en", "en"),
        ("盐是什么？", "zh-Hans", "zh"),
    ],
)
def test_asked_language(question: str, language: str, asked: str) -> None:
    assert asked_language(Item("i", (Message(role="user", content=question),), language)) == asked


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Write to anna.k@mail.test, or to me@example.com.", ["e-mail address"]),
        ("电话13800138000，身份证11010519491231002X。", ["phone number", "ID-card number"]),
        ("+86 138-0013-8000", ["phone number"]),
        ("Call (212) 555-0142 or 212.555.0142.", ["phone number", "phone number"]),
        ("010-12345678", ["phone number"]),
        ("SSN 078-05-1120", ["ID-card number"]),
        ("4111 1111 1111 1111 and 6222021234567890123", ["bank-card number", "bank-card number"]),
        ("On 2026-11-26 at 10:30 it cost 1,234,567.89; pi is 3.14159265358979.", []),
        ("The year 2026, 365 days, version 1.2.3.4, page 100000", []),
    ],
)
def test_identifiers(text: str, found: list[str]) -> None:
    assert [i.what for i in identifiers(text)] == found


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("one three eight", "138"),
        ("oh-one-two", "012"),
        ("一三八零零一三八零零零", "13800138000"),
        ("１３８ ００１３ ８０００", "13800138000"),
        ("212-555-0142", "2125550142"),
        ("on 2026-11-26 10:30", "on  # "),
        ("三千四百", "三千四百"),
        ("one day and two nights", "one day and two nights"),
    ],
)
def test_undone(text: str, plain: str) -> None:
    assert undone(text) == plain


@pytest.mark.parametrize(
    ("number", "digits"), [("4,200", 2), ("4.20", 3), ("137", 3), ("0.05", 1), ("1000000", 1), ("0", 1), ("98.6", 3), ("10.0", 3)]
)
def test_significant_digits(number: str, digits: int) -> None:
    assert significant_digits(number) == digits


@given(st.text(alphabet="ab中，Ａ \n", max_size=30))
def test_columns_add_up(text: str) -> None:
    """Against the rule of terminals, written out: 中 ， Ａ take two columns, a b one, white space none."""
    assert columns(text) == sum({"a": 1, "b": 1, "中": 2, "，": 2, "Ａ": 2}.get(c, 0) for c in text)
    assert columns(text + text) == 2 * columns(text)
