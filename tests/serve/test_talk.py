"""The conversation in the terminal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.evaluate.sampling import Options
from norma.serve.talk import Talk, harmless, questions, verdict_lines
from norma.spec import Status, Verdict


def feed(*lines: str) -> list[str]:
    rest = list(lines)

    def read(prompt: str) -> str:
        if not rest:
            raise EOFError
        return rest.pop(0)

    return list(questions(False, read))


def test_questions_are_lines_and_a_backslash_joins_them() -> None:
    assert feed("one", "", "  two ", "a\\", "b\\", "c", "/quit") == ["one", "two", "a\nb\nc", "/quit"]
    assert feed("cut\\") == ["cut"]


def test_a_turn_with_verdicts(fake_model: Any, fake_spec: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model = fake_model(answer=lambda messages, seed: "Certainly: no end")
    talk = Talk(model, Options(), fake_spec(), render="applicable")
    talk.turn("你好")
    assert capsys.readouterr().out == "Certainly: no end\n  ✓ style.polite\n  ✗ form.stop\n"
    assert model.asked[0][0][0]["content"] == "Be polite (zh)."
    talk.turn("and now")
    assert [m["role"] for m in model.asked[1][0]] == ["system", "user", "assistant", "user"]


def test_the_oldest_turn_is_forgotten_when_the_model_can_read_no_more(fake_model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model = fake_model()
    stream = model.stream

    def narrow(messages: Any, **sampling: Any) -> Any:
        if len(messages) > 3:
            raise NormaError("the prompt is too long")
        return stream(messages, **sampling)

    model.stream = narrow
    talk = Talk(model, Options(), system=None)
    for word in ("a", "b", "c"):
        talk.turn(word)
    assert "its oldest turn is left out" in capsys.readouterr().out
    assert [m["content"] for m in talk.history] == ["b", "Certainly: b", "c", "Certainly: c"]


def test_a_question_that_cannot_be_read_leaves_the_conversation_as_it_was(fake_model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def never(messages: Any, **sampling: Any) -> Any:
        raise NormaError("the prompt is too long")

    model = fake_model()
    model.stream = never
    talk = Talk(model, Options())
    talk.turn("x")
    assert talk.history == [] and capsys.readouterr().err == "error: the prompt is too long\n"


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(fake_model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(messages: Any, **sampling: Any) -> Any:
        yield "half"
        raise KeyboardInterrupt

    model = fake_model()
    model.stream = interrupted
    talk = Talk(model, Options())
    talk.turn("x")
    assert talk.history[-1]["content"] == "half" and capsys.readouterr().out == "half (stopped)\n"


def test_verdict_lines_say_what_is_known() -> None:
    def verdict(rule: str, status: Status, note: str = "") -> Verdict:
        return Verdict(rule, "h", "i", "c", "d", "report", status, None, note=note)

    lines = verdict_lines(
        [
            verdict("a", Status.COMPLIANT, "fine"),
            verdict("b", Status.VIOLATION, "31 words\x1b[2J"),
            verdict("c", Status.NOT_APPLICABLE),
            verdict("d", Status.ERROR, "no such language"),
            verdict("e", Status.NOT_APPLICABLE),
        ]
    )
    assert lines == ["  ✓ a", "  ✗ b: 31 words\ufffd[2J", "  ! d (error): no such language", "  - does not apply: c, e"]


@given(st.text())
def test_no_answer_can_steer_the_terminal(text: str) -> None:
    shown = harmless(text)
    assert len(shown) == len(text) and not any(c in shown for c in "\x1b\x07\x08\r\x9b\x00")
    shown.encode()
