"""Problems with an answer that can be verified: arithmetic made on the spot, and files of word problems (GSM8K's layout).

    17 + 25 ─→ {"messages": [{user: "What is 17 + 25?"}, {assistant: "17 + 25 = 42\n#### 42"}], "facts": {"answer": "42"}}

Rows have the shape of question rows. What is right stands in ``facts``, which no message can change.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from norma.base.random import keyed
from norma.text.languages import Language
from norma.text.shapes import Message

ASK: dict[Language, str] = {"en": "What is {problem}?", "zh": "{problem} 等于多少？"}
SIGNS = {"+": "+", "-": "-", "*": "×"}
MARKER = "####"
_CALCULATOR = re.compile(r"<<[^>]*>>")  # GSM8K's notes for a calculator


def arithmetic(
    operations: Sequence[str], smallest: int, largest: int, *, seed: int, chinese_share: float, working: bool = False
) -> Iterator[dict[str, Any]]:
    """Every problem ``a op b`` with both numbers from ``smallest`` to ``largest``, once, in an order that ``seed`` draws.

    ``working``: the answer shows the step between, 17 + 25 = 30 + 12 = 42, as a pupil would.
    """
    span = largest - smallest + 1
    random = keyed(seed, 0, use="arithmetic")
    for number in random.permutation(len(operations) * span * span).tolist():
        which, rest = divmod(number, span * span)
        a, b, sign = smallest + rest // span, smallest + rest % span, operations[which]
        result = {"+": a + b, "-": a - b, "*": a * b}[sign]
        problem = f"{a} {SIGNS[sign]} {b}"
        step = f"{_step(a, b, sign)} = " if working else ""
        language: Language = "zh" if keyed(seed, number, use="language").random() < chinese_share else "en"
        yield _row(problem, language, ASK[language].format(problem=problem), f"{problem} = {step}{result}\n{MARKER} {result}", str(result))


def _step(a: int, b: int, sign: str) -> str:
    """The problem by place value: what the tens give and what the ones give. Of a product: by the tens and by the ones of ``b``."""

    def ones(n: int) -> int:
        return n % 10 if n >= 0 else -(-n % 10)

    small = {"+": ones(a) + ones(b), "-": ones(a) - ones(b), "*": a * ones(b)}[sign]
    large = {"+": a + b, "-": a - b, "*": a * b}[sign] - small
    return f"{large} {'-' if small < 0 else '+'} {abs(small)}"


def word_problem(fields: dict[str, Any], name: str) -> dict[str, Any] | str:
    """A row of GSM8K's layout (``question``; ``answer`` that ends with ``#### 18``) as a question row; a text says why it is none."""
    question, answer = fields.get("question"), fields.get("answer")
    if not isinstance(question, str) or not isinstance(answer, str) or not question.strip():
        return "no question or no answer (GSM8K's layout has both)"
    working, found, final = answer.rpartition(MARKER)
    number = final.strip().replace(",", "")
    if not found or not re.fullmatch(r"-?\d+(\.\d+)?", number):
        return f"the answer does not end with '{MARKER}' and a number"
    worked = _CALCULATOR.sub("", working).strip()
    return _row(name, "en", question.strip(), f"{worked}\n{MARKER} {number}".strip(), number)


def texts(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same as running text, for a tokenizer and for bits per byte."""
    for row in rows:
        yield {"id": row["id"], "text": "\n".join(m["content"] for m in row["messages"]), "language": row["language"]}


def _row(name: str, language: Language, question: str, answer: str, right: str) -> dict[str, Any]:
    return {
        "id": name,
        "source": name,
        "language": language,
        "messages": [Message(role="user", content=question), Message(role="assistant", content=answer)],
        "facts": {"answer": right},
    }
