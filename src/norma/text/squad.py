"""Exact match and F1 of answers to questions by the published rules: SQuAD's (English) and CMRC 2018's (Chinese).

SQuAD (Rajpurkar et al., 1606.05250, section 6.1, and the task's evaluate-v2.0.py): lower case, without punctuation and a, an, the; F1
over the bags of words; the best of the given answers. CMRC 2018 (Cui et al., 1810.07366, and cmrc2018_evaluate.py): characters of
Chinese and words of other scripts, punctuation left out; F1 of the longest common run.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

Rules = Literal["squad", "cmrc"]

# The signs that cmrc2018_evaluate.py leaves out; ASCII full stops and commas are not among them, so that 3.5 stays a word.
_CMRC_SIGNS = frozenset("-:_*^/\\~`+=，。：？！“”；’《》……·、「」（）－～『』")
_HAN = re.compile("[\u4e00-\u9fa5]")


def squad_words(text: str) -> list[str]:
    """The words that SQuAD compares."""
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def cmrc_units(text: str) -> list[str]:
    """The characters and words that CMRC 2018 compares. Other scripts are split at spaces, ASCII punctuation stands alone."""
    units: list[str] = []
    other = ""
    for c in text.lower().strip():
        if c in _CMRC_SIGNS:
            continue
        if _HAN.match(c):
            units += _words(other)
            units.append(c)
            other = ""
        else:
            other += c
    return units + _words(other)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+(?:[.,']\w+)*|[^\w\s]", text)


def exact(predicted: str, answers: Sequence[str], rules: Rules = "squad") -> float:
    """1 where the answer is one of the given ones; no answer (``""``) is right where none is given."""
    if rules == "cmrc":
        plain: Callable[[str], object] = lambda text: "".join(c for c in text.lower().strip() if c not in _CMRC_SIGNS)  # noqa: E731
    else:
        plain = squad_words
    return float(any(plain(predicted) == plain(answer) for answer in answers or [""]))


def f1(predicted: str, answers: Sequence[str], rules: Rules = "squad") -> float:
    """The best F1 over the given answers."""
    one = _cmrc_f1 if rules == "cmrc" else _squad_f1
    return max(one(predicted, answer) for answer in answers or [""])


def _squad_f1(predicted: str, answer: str) -> float:
    said, given = squad_words(predicted), squad_words(answer)
    if not said or not given:
        return float(said == given)
    return _harmonic((Counter(said) & Counter(given)).total(), len(said), len(given))


def _cmrc_f1(predicted: str, answer: str) -> float:
    said, given = cmrc_units(predicted), cmrc_units(answer)
    if not said or not given:
        return float(said == given)
    return _harmonic(longest_run(said, given), len(said), len(given))


def _harmonic(common: int, said: int, given: int) -> float:
    precision, recall = common / said, common / given
    return 0.0 if common == 0 else 2 * precision * recall / (precision + recall)


def longest_run(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest run that both hold, neighbours in both."""
    best, before = 0, [0] * (len(second) + 1)
    for a in first:
        now = [0] * (len(second) + 1)
        for j, b in enumerate(second):
            if a == b:
                now[j + 1] = before[j] + 1
                best = max(best, now[j + 1])
        before = now
    return best
