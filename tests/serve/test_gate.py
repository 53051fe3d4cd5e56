"""The gate: what is asked, what a kill leaves, and which exit code follows from which answers."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from norma.base.errors import NormaError
from norma.base.files import read_json, read_jsonl
from norma.cli.check import verdict_table
from norma.evaluate.gate import check_model, default_folder
from norma.evaluate.prompts import language_of, read_prompts, wording_for
from norma.evaluate.sampling import Answer, Journal, LocalAnswerer, Options, journaled
from norma.spec import Item


def items(count: int) -> list[Item]:
    return [Item(f"e{i}", ({"role": "user", "content": f"question {i}."},)) for i in range(count)]


class Canned:
    """Answers from a table; a missing item is a failed request. ``stop_after`` kills the process, so to speak."""

    name, identity, batch, atomic = "canned", "1", 4, False

    def __init__(self, texts: dict[str, str], stop_after: int | None = None) -> None:
        self.texts, self.stop_after, self.asked = texts, stop_after, []

    def answer(self, items: Any, each: Any = None) -> list[Answer]:
        answers = []
        for item in items:
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(item.id)
            text = self.texts.get(item.id)
            answers.append(Answer(item.id, text, None if text is not None else "HTTP 500"))
            each(answers[-1])
        return answers


def polite(good: int, bad: int = 0) -> dict[str, str]:
    """Answers of which ``good`` begin politely and ``bad`` do not; all end with a full stop."""
    return {f"e{i}": "Certainly: yes." if i < good else "Yes." for i in range(good + bad)}


@pytest.mark.parametrize(
    ("good", "bad", "failed", "gate", "code"),
    [
        (12, 0, 0, "point", 0),
        (11, 1, 0, "point", 0),  # 91.7% against 90%
        (10, 2, 0, "point", 1),  # 83.3%
        (12, 0, 0, "lower", 2),  # Wilson's lower bound of 12/12 is 75.8%
        (0, 12, 0, "lower", 1),
        (11, 0, 1, "point", 0),  # were the lost answer a violation: 91.7%
        (10, 0, 2, "point", 2),  # were both violations: 83.3%. An error is never a pass
        (0, 0, 12, "point", 2),
    ],
)
def test_exit_codes(tmp_path: Path, fake_spec: Any, good: int, bad: int, failed: int, gate: Any, code: int) -> None:
    result = check_model(fake_spec(), items(good + bad + failed), Canned(polite(good, bad)), tmp_path, gate=gate)
    assert result.exit_code == code
    row = next(r for r in result.report["methods"][0]["rules"] if r["rule"] == "style.polite")
    assert (row["applicable"], row["compliant"], row["error"]) == (good + bad + failed, good, failed)
    assert len(result.failures) == failed


def test_wilsons_bound_by_hand() -> None:
    """n/(n + z^2) is Wilson's lower bound when all of n comply: why 12 of 12 cannot pass 90%, and 35 of 35 can."""
    z = 1.959964
    assert round(12 / (12 + z * z), 3) == 0.758 and 35 / (35 + z * z) > 0.9 > 34 / (34 + z * z)
    assert math.isclose(z * z, 3.8415, abs_tol=1e-3)


def test_thirty_five_of_thirty_five_pass_the_lower_gate(tmp_path: Path, fake_spec: Any) -> None:
    assert check_model(fake_spec(), items(35), Canned(polite(35)), tmp_path / "a", gate="lower").exit_code == 0
    assert check_model(fake_spec(), items(34), Canned(polite(34)), tmp_path / "b", gate="lower").exit_code == 2


def test_fail_under_is_a_target_for_every_rule(tmp_path: Path, fake_spec: Any) -> None:
    no_stop = {f"e{i}": "Certainly: yes" for i in range(12)}
    assert check_model(fake_spec(), items(12), Canned(no_stop), tmp_path / "a").exit_code == 0
    result = check_model(fake_spec(), items(12), Canned(no_stop), tmp_path / "b", fail_under=0.5)
    assert result.exit_code == 1 and {o.rule: o.found for o in result.outcomes} == {"style.polite": "passed", "form.stop": "failed"}
    assert check_model(fake_spec(None), items(12), Canned(polite(0, 12)), tmp_path / "c").exit_code == 0  # no target, no gate
    with pytest.raises(NormaError, match="between 0 and 1"):
        check_model(fake_spec(), items(1), Canned({}), tmp_path / "d", fail_under=95)


def test_a_target_that_no_prompt_tests_is_undecided(tmp_path: Path, fake_spec: Any) -> None:
    terse = [Item("e0", ({"role": "user", "content": "q"},), facts={"terse": True})]
    result = check_model(fake_spec(), terse, Canned(polite(1)), tmp_path)
    assert result.exit_code == 2 and result.outcomes[0].why == "no prompt tests this rule"


def test_the_files_that_are_written(tmp_path: Path, fake_spec: Any) -> None:
    check_model(fake_spec(), items(12), Canned(polite(9, 2)), tmp_path)
    report = read_json(tmp_path / "report.json")
    assert report["methods"][0]["method"] == "canned" and report["methods"][0]["heldout"]["rules"][0]["rule"] == "form.stop"
    assert "<html" in (tmp_path / "report.html").read_text()
    assert ElementTree.parse(tmp_path / "junit.xml").getroot().attrib["failures"] == "1"
    verdicts = read_jsonl(tmp_path / "verdicts.jsonl")
    assert {(v["role"], v["rule"]) for v in verdicts} == {("report", "style.polite"), ("report", "form.stop"), ("heldout", "form.stop")}
    lost = [v for v in verdicts if v["item"] == "e11"]
    assert {v["status"] for v in lost} == {"error"} and all(v["score"] is None and "HTTP 500" in v["note"] for v in lost)
    assert len(read_jsonl(tmp_path / "responses.jsonl")) == 11  # an answer that never came is in no row
    assert len(read_jsonl(tmp_path / "answers.jsonl")) == 12


def test_the_table_shows_the_gate_on_a_narrow_screen(tmp_path: Path, fake_spec: Any) -> None:
    result = check_model(fake_spec(), items(12), Canned(polite(9, 2)), tmp_path)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(verdict_table(result))
    row = next(line.split() for line in console.export_text().splitlines() if "style.polite" in line)
    # 9 of 11 is 81.8%; Wilson by hand: centre (9/11 + 1.9207/11) / (1 + 3.8415/11), 52.3 to 94.9
    assert row == ["style.polite", "9/12", "1", "81.8%", "[52.3,", "94.9]", "90.0%", "failed"]


def test_rules_in_the_prompt_on_request(tmp_path: Path, fake_spec: Any) -> None:
    for render, first in (("none", "user"), ("applicable", "system")):
        check_model(fake_spec(), items(2), Canned(polite(2)), tmp_path / render, render=render)  # type: ignore[arg-type]
        assert read_jsonl(tmp_path / render / "answers.jsonl")[0]["messages"][0]["role"] == first


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 7, 11])
def test_a_check_that_was_stopped_goes_on_and_asks_nothing_twice(tmp_path: Path, fake_spec: Any, stop: int) -> None:
    whole = check_model(fake_spec(), items(12), Canned(polite(10, 2)), tmp_path / "whole").report
    first = Canned(polite(10, 2), stop_after=stop)
    with pytest.raises(KeyboardInterrupt):
        check_model(fake_spec(), items(12), first, tmp_path / "cut")
    with (tmp_path / "cut" / "answers.jsonl").open("ab") as handle:
        handle.write(b'{"key": "half a li')  # what a kill in the middle of a write leaves
    second = Canned(polite(10, 2))
    assert check_model(fake_spec(), items(12), second, tmp_path / "cut").report == whole
    assert sorted(first.asked + second.asked) == sorted(item.id for item in items(12))


def test_failed_requests_are_asked_again(tmp_path: Path, fake_spec: Any) -> None:
    assert check_model(fake_spec(), items(3), Canned(polite(2)), tmp_path).exit_code == 2
    again = Canned(polite(3))
    assert check_model(fake_spec(), items(3), again, tmp_path).exit_code == 0
    assert again.asked == ["e2"]


def test_answers_of_another_model_are_not_taken(tmp_path: Path, fake_spec: Any) -> None:
    check_model(fake_spec(), items(3), Canned(polite(3)), tmp_path)
    other = Canned(polite(0, 3))
    other.identity = "2"
    assert check_model(fake_spec(), items(3), other, tmp_path).exit_code == 1


def test_a_local_model_is_asked_in_whole_batches_with_seeds_of_their_own(tmp_path: Path, fake_model: Any) -> None:
    model = fake_model(answer=lambda messages, seed: f"{seed}")
    answerer = LocalAnswerer(model, Options(temperature=1.0), batch=2)
    with Journal(tmp_path / "a.jsonl") as journal:
        whole = [a.text for a in journaled(items(5), answerer, journal)]
    assert len(set(whole)) == 3  # a seed a batch
    (tmp_path / "b.jsonl").write_text("".join((tmp_path / "a.jsonl").read_text().splitlines(keepends=True)[:3]))
    asked = len(model.asked)
    with Journal(tmp_path / "b.jsonl") as journal:
        assert [a.text for a in journaled(items(5), answerer, journal)] == whole
    assert len(model.asked) - asked == 3  # the second batch whole, and the third


def test_one_prompt_that_cannot_be_read_does_not_take_its_neighbours_along(fake_model: Any) -> None:
    long = Item("long", ({"role": "user", "content": "x" * 2000},))
    answers = LocalAnswerer(fake_model()).answer([*items(1), long])
    assert answers[0].text == "Certainly: question 0." and answers[1].error == "the prompt is too long"


def test_an_answer_is_a_text_or_an_error() -> None:
    for text, error in ((None, None), ("a", "b")):
        with pytest.raises(ValueError, match="not both"):
            Answer("x", text, error)
    for wrong in ({"max_new_tokens": 0}, {"temperature": -1.0}, {"temperature": math.nan}, {"top_p": 0.0}, {"top_k": -1}):
        with pytest.raises(NormaError):
            Options(**wrong)


def test_a_prompts_file_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    rows: list[Any] = [
        {"prompt": "What does `a` do?"},
        {"id": "zh", "messages": [{"role": "user", "content": "`json.dumps` 有什么作用？\nSerialize obj to a JSON formatted str."}]},
        {
            "id": "json.dumps#en",
            "source": "json.dumps",
            "language": "en",
            "facts": {"about": True},
            "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "the reference"}],
        },
        "only text",
    ]
    path.write_text("\n".join(json.dumps(r) for r in rows) + "\n\n")
    first, second, third, fourth = read_prompts(path)
    assert (first.id, first.language, first.source) == ("prompt-1", "en", "prompt-1")
    assert (second.id, second.language) == ("zh", "zh")
    assert (third.source, third.facts, third.reference, len(third.messages)) == ("json.dumps", {"about": True}, "the reference", 1)
    assert fourth.user == "only text"
    (tmp_path / "p.txt").write_text("\ufeffone\n\n 你好 \n")
    assert [(i.id, i.user, i.language) for i in read_prompts(tmp_path / "p.txt")] == [("prompt-1", "one", "en"), ("prompt-3", "你好", "zh")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no prompts"),
        (b"{", ":1: not JSON"),
        (b"\n[1]", ":2: a row must be a JSON object"),
        (b'{"text": "x"}', "neither 'messages' nor 'prompt'"),
        (b'{"messages": [{"role": "tool", "content": "x"}]}', "a message needs"),
        (b'{"messages": [{"role": "assistant", "content": "x"}]}', "no user message"),
        (b'{"prompt": "x", "facts": []}', "'facts' must be"),
        (b'{"prompt": "x", "id": 3}', "'id' must be text"),
        (b'{"prompt": "x", "id": "a"}\n{"prompt": "y", "id": "a"}', "stands on line 1 too"),
        (b'"\xff"', "not UTF-8"),
    ],
)
def test_bad_prompt_rows_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "p.jsonl").write_bytes(content)
    with pytest.raises(NormaError) as caught:
        read_prompts(tmp_path / "p.jsonl")
    assert words in str(caught.value)
    with pytest.raises(NormaError, match="file not found"):
        read_prompts(tmp_path / "absent.jsonl")


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("What does `json.dumps` do?", "en"),
        ("`json.dumps` 有什么作用？", "zh"),
        ("请说明 networkx.algorithms.approximation.clique.max_clique。", "zh"),
        ("What does 你好 mean in English when people meet each other?", "en"),
        ("これは何ですか", "ja"),
        ("", "en"),
        ("12 + 3 = ?", "en"),
    ],
)
def test_the_language_of_a_question(text: str, language: str) -> None:
    assert language_of(text) == language


@given(st.text())
def test_every_text_has_a_language(text: str) -> None:
    assert language_of(text) in ("en", "zh", "ja")


def test_the_wording_for_a_language() -> None:
    assert wording_for(["en", "zh-Hans"], "zh") == "zh-Hans"
    assert wording_for(["en", "zh-Hans"], "zh-Hans") == "zh-Hans"
    assert wording_for(["en", "zh-Hans"], "fr") == "en"


def test_default_folder_names_are_safe(fake_spec: Any) -> None:
    assert default_folder(fake_spec(), "../meta/Llama 3") == Path("norma-check/fake_spec-meta_Llama_3")
