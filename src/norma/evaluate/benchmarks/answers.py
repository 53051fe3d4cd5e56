"""Answers to questions, marked as SQuAD marks them (Rajpurkar et al., 1606.05250, section 6.1) and, in Chinese, as CMRC 2018 does.

Lower case, no punctuation, no articles, single spaces: then exact match, and F1 over the words that both hold. Chinese is compared
character by character. Where several answers are right, the best counts. "" as the only right answer: there is none.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\\s\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")


def words(text: str, language: str = "en") -> list[str]:
    """What an answer is compared by: words, characters of Chinese."""
    text = text.lower()
    if language.split("-")[0] == "zh":
        bare = "".join(" " if unicodedata.category(c)[0] in "PSZ" else c for c in text)
        return _HAN.findall(bare)
    bare = "".join(c for c in text if c not in string.punctuation)
    return _ARTICLES.sub(" ", bare).split()


def exact_match(said: str, right: Sequence[str], language: str = "en") -> float:
    """1 where the answer equals one of the right ones."""
    return float(any(words(said, language) == words(r, language) for r in right or [""]))


def f1(said: str, right: Sequence[str], language: str = "en") -> float:
    """F1 over words against the right answer that fits best; where there is no answer, 1 for saying nothing."""
    return max(_f1(words(said, language), words(r, language)) for r in right or [""])


def _f1(said: Sequence[str], right: Sequence[str]) -> float:
    if not said or not right:
        return float(list(said) == list(right))
    common = sum((Counter(said) & Counter(right)).values())
    if not common:
        return 0.0
    precision, recall = common / len(said), common / len(right)
    return 2 * precision * recall / (precision + recall)
