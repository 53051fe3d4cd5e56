"""Answer quality: chrF against reference answers, raw and without a polite opening, beside a baseline that reads nothing.

    responses + references ─→ chrF (sacrebleu, corpus level) ± cluster bootstrap, per method
    the most frequent reference, given as every answer ─→ the figure that any real answer must beat

House rules ask for an opening ("Certainly: ...") which no reference has; chrF would charge for obedience. Both figures are shown: the
answer as it is, and with a recognised opening removed (`OPENINGS`, or the patterns that the caller passes).
chrF: Popović 2015, WMT; sacrebleu's signature is kept in the report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import re2
from numpy.typing import NDArray
from sacrebleu.metrics.chrf import CHRF

ORDER, BETA = 6, 2  # sacrebleu's defaults: character 1- to 6-grams, recall counts twice
RESAMPLES = 1000

# An opening is a short courteous phrase ended by a colon, comma, full stop or exclamation mark at the very start of the answer.
OPENINGS: tuple[str, ...] = (
    r"(?i)^\s*(?:certainly|of course|sure|gladly|happy to help|with pleasure|hello|thank you|thanks for asking)\b[^:,.!\n]{0,30}[:,.!]\s*",
    r"^\s*(?:您好|你好|好的|当然|没问题|很高兴为您解答|感谢您的提问|请看)[^：:，,。！!\n]{0,12}[：:，,。！!]\s*",
)


def remove_opening(text: str, openings: Sequence[str] = OPENINGS) -> str:
    """``text`` without the first opening that matches; unchanged when none does, or when nothing would be left."""
    for pattern in openings:
        found = re2.search(pattern, text)
        if found and found.start() == 0 and text[found.end() :].strip():
            return text[found.end() :]
    return text


def _ngrams(text: str) -> list[Counter[str]]:
    plain = "".join(text.split())  # chrF ignores white space
    return [Counter(plain[i : i + n] for i in range(len(plain) - n + 1)) for n in range(1, ORDER + 1)]


def ngram_counts(hypothesis: str, reference: str) -> NDArray[np.float64]:
    """(ORDER, 3): n-grams of the hypothesis, of the reference, and common to both."""
    ours, theirs = _ngrams(hypothesis), _ngrams(reference)
    # sacrebleu counts no hypothesis n-grams of an order that the reference has none of: they could not have matched.
    return np.array([[h.total() if r else 0, r.total(), (h & r).total()] for h, r in zip(ours, theirs, strict=True)], dtype=np.float64)


def chrf_score(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """chrF, 0 to 100, of summed counts (..., ORDER, 3): F of precision and recall averaged over the orders that both sides have."""
    ours, theirs, common = counts[..., 0], counts[..., 1], counts[..., 2]
    both = (ours > 0) & (theirs > 0)
    orders = np.maximum(both.sum(axis=-1), 1)
    precision = (common / np.maximum(ours, 1) * both).sum(axis=-1) / orders
    recall = (common / np.maximum(theirs, 1) * both).sum(axis=-1) / orders
    result: NDArray[np.float64] = 100 * (1 + BETA**2) * precision * recall / np.maximum(BETA**2 * precision + recall, 1e-16)
    return result


def chrf(
    hypotheses: Sequence[str],
    references: Sequence[str],
    clusters: Sequence[str],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Corpus-level chrF by sacrebleu with a percentile interval over whole clusters: ``{n, clusters, chrf, low, high}``."""
    if not hypotheses:
        return {"n": 0, "clusters": 0, "chrf": None, "low": None, "high": None}
    point = float(CHRF().corpus_score(list(hypotheses), [list(references)]).score)
    sums: dict[str, NDArray[np.float64]] = {}
    for hypothesis, reference, cluster in zip(hypotheses, references, clusters, strict=True):
        counts = ngram_counts(hypothesis, reference)
        sums[cluster] = sums[cluster] + counts if cluster in sums else counts
    stacked = np.stack(list(sums.values())).reshape(len(sums), -1)
    # Resampling G clusters is drawing multinomial weights: one matrix product instead of one gather a resample.
    weights = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=resamples).astype(np.float64)
    scores = chrf_score((weights @ stacked).reshape(resamples, ORDER, 3))
    low, high = np.quantile(scores, [(1 - confidence) / 2, 1 - (1 - confidence) / 2])
    return {"n": len(hypotheses), "clusters": len(sums), "chrf": point, "low": min(float(low), point), "high": max(float(high), point)}


def most_frequent(references: Iterable[str]) -> str:
    """The commonest reference; ties go to the first in alphabetical order."""
    counted = Counter(r for r in references if r.strip())
    return min(counted, key=lambda r: (-counted[r], r)) if counted else ""


def quality(
    responses: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
    *,
    frequent: str | None = None,
    openings: Sequence[str] = OPENINGS,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Any] | None:
    """chrF of every method that answered questions with a reference, and of the baseline; None when no row has a reference.

    ``frequent`` is the most frequent TRAINING reference; without it that of the evaluated rows is used, which flatters the baseline.
    """
    rows = [r for r in responses if r.get("reference")]
    if not rows:
        return None
    result: list[dict[str, Any]] = []
    for method in methods:
        own = [r for r in rows if r["method"] == method]
        if not own:
            continue
        answers, references = [str(r["response"]) for r in own], [str(r["reference"]) for r in own]
        clusters = [str(r.get("cluster") or r["item"]) for r in own]
        stripped = [remove_opening(a, openings) for a in answers]
        result.append(
            {
                "method": method,
                "raw": chrf(answers, references, clusters, seed=seed, confidence=confidence),
                "without_opening": chrf(stripped, references, clusters, seed=seed, confidence=confidence),
                "openings_removed": sum(a != b for a, b in zip(answers, stripped, strict=True)),
            }
        )
    questions = {(r["item"], int(r.get("sample", 0))): r for r in rows}.values()
    answer = frequent if frequent is not None else most_frequent(str(r["reference"]) for r in questions)
    references = [str(r["reference"]) for r in questions]
    clusters = [str(r.get("cluster") or r["item"]) for r in questions]
    signature = CHRF()
    signature.corpus_score(["a"], [["a"]])  # sacrebleu writes its signature after a first score
    return {
        "metric": "chrF2",
        "signature": str(signature.get_signature()),
        "methods": result,
        "baseline": {
            "answer": answer,
            "from": "training references" if frequent is not None else "evaluated references",
            "raw": chrf([answer] * len(references), references, clusters, seed=seed, confidence=confidence),
        },
    }
