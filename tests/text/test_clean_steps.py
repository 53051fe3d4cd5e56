"""Cleaning steps: what goes in comes out or is counted with its reason; lengths; the steps of a recipe in their order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from norma.base.errors import NormaError
from norma.text.clean import (
    Aside,
    CleanOptions,
    Document,
    Exact,
    ExactOptions,
    Length,
    LengthOptions,
    Quality,
    QualityOptions,
    Step,
    build_steps,
    documents_of,
    run,
)
from norma.text.clean.length import outside
from norma.text.clean.options import Bounds
from norma.text.clean.units import lines, paragraphs, units
from norma.text.quarantine import Quarantine
from norma.text.readers import read

texts = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(["the", "and", "of", "的", "在", "他", "。", "\n", "...", "#", "- x", "99", " "]), max_size=80).map(" ".join),
)


def documents(given: list[str], language: str = "") -> list[Document]:
    return [Document("f.jsonl", i, text, language=language) for i, text in enumerate(given, 1)]


class Even(Step):
    """Keeps documents of an even line."""

    name = "even"

    def judge(self, document: Document) -> Document | Aside:
        return document if document.line % 2 == 0 else Aside("odd", f"line {document.line}")


def test_counts_by_hand() -> None:
    quarantine = Quarantine()
    step = Even(quarantine)
    kept = list(step(documents(["a", "bb", "ccc", "dddd", "e" * 500, "f", "g", "h", "i"])))
    assert [d.line for d in kept] == [2, 4, 6, 8]
    report = step.counts.report()
    assert report["before"] == {"documents": 9, "characters": 1 + 2 + 3 + 4 + 500 + 4}
    assert report["after"] == {"documents": 4, "characters": 2 + 4 + 1 + 1}
    odd = report["reasons"]["odd"]
    assert odd["documents"] == 5 and odd["characters"] == 1 + 3 + 500 + 1 + 1
    assert odd["examples"] == [
        {"place": "f.jsonl:1", "detail": "line 1", "text": "a"},
        {"place": "f.jsonl:3", "detail": "line 3", "text": "ccc"},
        {"place": "f.jsonl:5", "detail": "line 5", "text": "e" * 200},
    ]
    assert quarantine.first[0] == ("f.jsonl", 1, "even: odd (line 1)") and quarantine.reasons == {"even: odd": 5}
    assert step.counts.summary() == "even: 9 → 4 documents, 514 → 8 characters (set aside: 5 odd)"
    json.dumps(report)


def test_steps_stream_one_document_at_a_time() -> None:
    taken: list[int] = []

    def source() -> list[Document]:
        for document in documents(["a"] * 10):
            taken.append(document.line)
            yield document

    stream = run([Even(), Even()], source())
    assert next(stream).line == 2 and taken == [1, 2]


@given(st.lists(texts, max_size=12), st.sampled_from(["", "en", "zh", "de", "unknown"]))
def test_a_step_changes_nothing_keeps_order_and_accounts_for_all(given_texts: list[str], language: str) -> None:
    stream = documents(given_texts, language)
    options = LengthOptions(least_characters=3, most_words=40)
    makers = [
        lambda: Exact(ExactOptions()),
        lambda: Length(options),
        lambda: Quality(QualityOptions.model_validate({"gopher": {"least_words": 3}, "c4": {}})),
    ]
    for make in makers:
        step = make()
        kept = list(step(stream))
        assert kept == [d for d in stream if d in kept]  # the same documents in the same order
        assert {d.line for d in kept} <= {d.line for d in stream}
        counts = step.counts
        assert counts.documents_before == len(stream) and counts.documents_after == len(kept)
        assert counts.documents_before == counts.documents_after + sum(r.documents for r in counts.reasons.values())
        assert counts.characters_before == counts.characters_after + sum(r.characters for r in counts.reasons.values())
        assert counts.characters_after == sum(len(d.text) for d in kept)
        assert all(len(r.examples) == min(3, r.documents) for r in counts.reasons.values())
        assert list(make()(stream)) == kept  # deterministic
        again = make()
        assert list(again(kept)) == kept and not again.counts.reasons  # what was kept is kept


def test_units_by_hand() -> None:
    assert units("The cat's 3 mats, naïve!") == ["The", "cat", "s", "3", "mats", "naïve"]
    assert units("他在2024年去了 Paris。") == ["他", "在", "2024", "年", "去", "了", "Paris"]
    assert units("カタカナとไทย") == [*"カタカナとไทย"]
    assert lines(" a \n\n b\r\n") == ["a", "b"]
    assert paragraphs("a\nb\n \n\nc\n\n") == ["a\nb", "c"]


def test_lengths_by_hand() -> None:
    bounds = Bounds(least_characters=4, most_characters=20, least_words=2, most_words=3)
    said = {
        "abc": "too few characters (3, least 4)",
        "abcd": "too few words (1, least 2)",
        "ab cd": "",
        "a b c d": "too many words (4, most 3)",
        "a" * 21: "too many characters (21, most 20)",
    }
    for text, wanted in said.items():
        found = outside(text, "en", bounds)
        assert (f"{found.reason} ({found.detail})" if found else "") == wanted
    assert outside("我们在北京", "zh", Bounds(least_words=5, most_words=5)) is None  # each character counts
    assert outside("我们在北京", "en", Bounds(least_words=5)) is not None


def test_lengths_by_language() -> None:
    options = LengthOptions.model_validate(
        {"least_characters": 6, "by_language": {"zh": {"least_characters": 3}, "unknown": {"most_characters": 2}}}
    )
    judge = Length(options).judge
    for text, language, kept in [
        ("abcde", "en", False),
        ("abcdef", "en", True),
        ("我们在", "zh", True),
        ("我们在", "", True),  # as its script says
        ("我们", "zh", False),
        ("我们在", "unknown", False),
        ("ok", "unknown", True),
    ]:
        assert isinstance(judge(Document("f", 1, text, language=language)), Document) == kept, (text, language)


def test_options_are_strict_and_empty_options_only_drop_exact_copies() -> None:
    for wrong in ({"nearly": {}}, {"length": {"least": 3}}, {"near": {"threshold": 1.5}}, {"length": {"least_words": 5, "most_words": 4}}):
        with pytest.raises(ValidationError):
            CleanOptions.model_validate(wrong)
    assert [step.name for step in build_steps(CleanOptions())] == ["exact"]
    assert build_steps(CleanOptions(exact=None)) == []


def test_steps_of_a_recipe_run_in_their_order() -> None:
    pytest.importorskip("rensa")
    pytest.importorskip("py3langid")
    options = CleanOptions.model_validate({"near": {}, "quality": {}, "length": {}, "language": {"keep": ["en"]}})
    assert [step.name for step in build_steps(options)] == ["exact", "language", "length", "quality", "near"]


@pytest.mark.parametrize(("library", "options"), [("rensa", {"near": {}}), ("py3langid.langid", {"language": {}})])
def test_a_missing_library_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, library: str, options: dict[str, object]) -> None:
    import sys

    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(NormaError, match=r"pip install 'norma-lm\[data\]'"):
        build_steps(CleanOptions.model_validate(options))


def test_records_become_documents_and_chats_do_not(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"title": "A", "text": "One text about one thing."}\n{"title": "B", "text": "Another text about it."}\n', encoding="utf-8"
    )
    (tmp_path / "b.jsonl").write_text('{"instruction": "Say hello", "output": "Hello"}\n', encoding="utf-8")
    quarantine = Quarantine()
    found = list(documents_of(read(tmp_path, quarantine), quarantine))
    assert [(d.place, d.title, d.text, d.language) for d in found] == [
        ("a.jsonl:1", "A", "One text about one thing.", ""),
        ("a.jsonl:2", "B", "Another text about it.", ""),
    ]
    assert quarantine.first == [("b.jsonl", 1, "not plain text (conversation)")]
