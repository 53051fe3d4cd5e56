"""A score is a function of summed statistics: each row gives a vector, vectors add up, the score reads the sum.

    row ─→ (K,) vector ─┐
    row ─→ (K,) vector ─┼─ sum over the rows ─→ score
    row ─→ (K,) vector ─┘

An accuracy (right, 1), bits per byte (bits, bytes), BLEU (matches and counts of n-grams, two lengths) and macro F1 (counts of each label)
all have that form, so that one bootstrap and one permutation test serve every one of them (:mod:`.intervals`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from norma.base.errors import NormaError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """A number of a task.

    Attributes:
        of: the score of a sum of statistics, (K,).
        mean: whether it is a mean of values in [0, 1] (then K = 2: value, 1), for which there are exact intervals and tests.
        lower_is_better: as bits per byte.
        unit: "share" (0 to 1), "points" (0 to 100) or what people read behind the number.
    """

    name: str
    of: Callable[[Floats], float]
    mean: bool = False
    lower_is_better: bool = False
    unit: str = "share"


def ratio(total: Floats) -> float:
    """A sum over another: (2,)."""
    return float(total[0] / total[1]) if total[1] else 0.0


def exponential(total: Floats) -> float:
    """exp of nats over tokens: perplexity."""
    return math.exp(min(700.0, ratio(total)))


def macro_f1(total: Floats) -> float:
    """The mean F1, 2 TP / (2 TP + FP + FN), of the labels that occur; (3 L,): TP, FP, FN of each label."""
    tp, fp, fn = total.reshape(-1, 3).T
    there = tp + fn > 0
    return float(np.mean(2 * tp[there] / (2 * tp + fp + fn)[there])) if there.any() else 0.0


def label_counts(answer: int, predicted: int, labels: int) -> list[float]:
    """What :func:`macro_f1` sums: (3 L,)."""
    out = np.zeros((labels, 3))
    if answer == predicted:
        out[answer, 0] = 1
    else:
        out[predicted, 1] = out[answer, 2] = 1
    return [float(v) for v in out.reshape(-1)]


def mean(value: float) -> list[float]:
    """A row of a mean."""
    return [float(value), 1.0]


# ── BLEU and chrF: sacrebleu's own numbers, so that they are those of papers ──
def bleu_tokenizer(language: str) -> str:
    """sacrebleu's tokenisation for a target language: 13a, or characters of Chinese."""
    return {"zh": "zh", "ja": "char", "ko": "char"}.get(language.split("-")[0], "13a")


@cache
def _bleu(tokenizer: str) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokenizer, effective_order=False)


@cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def bleu_counts(text: str, references: Sequence[str], language: str = "en") -> list[float]:
    """(10,): matching 1- to 4-grams, all of them, the text's length and the closest reference's (Papineni et al. 2002)."""
    found = _bleu(bleu_tokenizer(language)).corpus_score([text], [[r] for r in references])
    return [float(v) for v in (*found.counts, *found.totals, found.sys_len, found.ref_len)]


def bleu(total: Floats) -> float:
    """Corpus BLEU, 0 to 100, of summed counts, as ``sacrebleu`` smooths it (exp)."""
    values = [int(v) for v in total]
    found: float = (
        _bleu("13a").compute_bleu(correct=values[:4], total=values[4:8], sys_len=values[8], ref_len=values[9], smooth_method="exp").score
    )
    return found


def chrf_counts(text: str, references: Sequence[str]) -> list[float]:
    """Character n-grams of the text, of the reference that fits best, and those in both, for each order (Popovic 2015)."""
    # sacrebleu keeps its sufficient statistics behind an underscore; tests/evaluate/test_benchmarks.py holds them to corpus_score.
    found = _chrf()._extract_corpus_statistics([text], [[r] for r in references])[0]
    return [float(v) for v in found]


def chrf(total: Floats) -> float:
    """Corpus chrF2, 0 to 100, of summed counts."""
    found: float = _chrf()._compute_score_from_stats([int(v) for v in total]).score
    return found


# ── ROUGE ──
class _Words:
    """ROUGE's tokens where words are not written apart: characters of Chinese, Japanese; else as rouge_score takes them."""

    def tokenize(self, text: str) -> list[str]:
        from norma.check.segment import units

        return [unit.text.lower() for unit in units(text)]


@cache
def _rouge(language: str) -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise NormaError("ROUGE needs the package rouge-score", mend="pip install 'norma-lm[evaluate]'") from None
    apart = language.split("-")[0] not in ("zh", "ja")
    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=apart, tokenizer=None if apart else _Words())


def rouge_values(text: str, references: Sequence[str], language: str = "en") -> dict[str, float]:
    """F-measures of ROUGE-1, -2, -L (Lin 2004) against the reference that fits each best; stemmed words of English, units of Chinese."""
    found = [_rouge(language).score(reference, text) for reference in references]
    return {name: max(float(f[key].fmeasure) for f in found) for name, key in ROUGE.items()}


ROUGE = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}

SCORES: dict[str, Score] = {
    s.name: s
    for s in (
        Score("accuracy", ratio, mean=True),
        Score("accuracy_per_byte", ratio, mean=True),
        Score("accuracy_calibrated", ratio, mean=True),
        Score("macro_f1", macro_f1),
        Score("exact_match", ratio, mean=True),
        Score("f1", ratio, mean=True),
        Score("rouge_1", ratio, mean=True),
        Score("rouge_2", ratio, mean=True),
        Score("rouge_l", ratio, mean=True),
        Score("bleu", bleu, unit="points"),
        Score("chrf", chrf, unit="points"),
        Score("bits_per_byte", ratio, lower_is_better=True, unit="bits"),
        Score("perplexity", exponential, lower_is_better=True, unit="per token"),
        Score("word_perplexity", exponential, lower_is_better=True, unit="per word"),
    )
}
