"""Problems: right by Python's own arithmetic, each once, the same for the same seed; files of word problems."""

from __future__ import annotations

from norma.text.problems import arithmetic, texts, word_problem


def test_arithmetic_is_right_and_complete() -> None:
    rows = list(arithmetic(["+", "-", "*"], -2, 9, seed=3, chinese_share=0.5))
    assert len({r["id"] for r in rows}) == len(rows) == 3 * 12 * 12
    for row in rows:
        a, sign, b = row["id"].rsplit(" ", 2)
        right = eval(f"({a}) {sign.replace('×', '*')} ({b})")  # Python's own arithmetic
        assert row["facts"] == {"answer": str(right)}
        question, answer = row["messages"]
        assert row["id"] in question["content"] and answer["content"] == f"{row['id']} = {right}\n#### {right}"
        assert ("等于" in question["content"]) == (row["language"] == "zh")
    assert 0.35 < sum(r["language"] == "zh" for r in rows) / len(rows) < 0.65


def test_the_step_between_is_right_too() -> None:
    rows = list(arithmetic(["+", "-", "*"], -12, 25, seed=3, chinese_share=0, working=True))
    for row in rows:
        first, step, right = row["messages"][1]["content"].partition("\n")[0].split(" = ")
        assert eval(first.replace("×", "*")) == eval(step) == int(right)  # Python's own arithmetic
    steps = {row["id"]: row["messages"][1]["content"] for row in rows}
    assert steps["17 + 25"] == "17 + 25 = 30 + 12 = 42\n#### 42" and steps["12 - 24"] == "12 - 24 = -10 - 2 = -12\n#### -12"
    assert steps["12 × 14"] == "12 × 14 = 120 + 48 = 168\n#### 168"


def test_the_order_is_drawn_by_the_seed() -> None:
    def ids(seed: int) -> list[str]:
        return [r["id"] for r in arithmetic(["+"], 0, 9, seed=seed, chinese_share=0)]

    assert ids(1) == ids(1) != ids(2) and sorted(ids(1)) == sorted(ids(2)) and ids(1) != sorted(ids(1))


def test_word_problems() -> None:
    row = word_problem({"question": " How many? ", "answer": "2 x 3 = <<2*3=6>>6 eggs\n#### 1,006"}, "f:1")
    assert isinstance(row, dict)
    assert row["messages"] == [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "2 x 3 = 6 eggs\n#### 1006"}]
    assert row["facts"] == {"answer": "1006"} and row["id"] == "f:1"
    for bad in (
        {},
        {"question": "Q"},
        {"question": "Q", "answer": "5"},
        {"question": "Q", "answer": "#### five"},
        {"question": " ", "answer": "#### 5"},
    ):
        assert isinstance(word_problem(bad, "f:1"), str)
    assert next(texts([row]))["text"] == "How many?\n2 x 3 = 6 eggs\n#### 1006"
