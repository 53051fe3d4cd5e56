"""The capability tax: what following rules costs elsewhere, as paired changes against the baseline.

bits of blocks of validation text, per method ─→ change of bits per byte ± bootstrap over blocks, p by sign flips
answers to questions with references          ─→ change of chrF (polite opening removed) ± bootstrap over sources
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from norma.base.hashing import digest
from norma.evaluate import quality, statistics
from norma.evaluate.compliance import adjust

Block = Sequence[float]  # (bits, bytes) of one block of text


def tax(
    bits: Mapping[str, Sequence[Block]],
    responses: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
    baseline: str,
    *,
    openings: Sequence[str] = quality.OPENINGS,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[dict[str, Any]]:
    """One row per method and measure (bits_per_byte: lower is better; chrf: higher is better); Holm over all of them."""
    rows: list[dict[str, Any]] = []
    references = {m: [r for r in responses if r["method"] == m and r.get("reference")] for m in methods}
    for method in methods:
        own = int(digest([seed, "tax", baseline, method])[:8], 16)
        if method == baseline:
            continue
        if bits.get(method) and len(bits[method]) == len(bits.get(baseline, ())):
            rows.append(_row(method, baseline, "bits_per_byte", _bits_change(bits[baseline], bits[method], own, confidence)))
        if references[method] and references.get(baseline):
            found = _chrf_change(references[baseline], references[method], openings, own, confidence)
            if found:
                rows.append(_row(method, baseline, "chrf", found))
    adjust(rows)
    return rows


def _row(method: str, baseline: str, measure: str, found: Mapping[str, Any]) -> dict[str, Any]:
    return {"method": method, "before": baseline, "measure": measure, "family": "tax", "p_holm": None, **found}


def _bits_change(old: Sequence[Block], new: Sequence[Block], seed: int, confidence: float) -> dict[str, Any]:
    """Change of total bits / total bytes; blocks of text are drawn with replacement, the same for both models."""
    change = np.array([after[0] - before[0] for before, after in zip(old, new, strict=True)])
    size = np.array([block[1] for block in old], dtype=np.float64)
    weights = _weights(len(change), seed)
    low, high = _interval((weights @ change) / (weights @ size), confidence)
    delta = float(change.sum() / size.sum())
    p = statistics.sign_flip(change.tolist(), [str(i) for i in range(len(change))], seed=seed) if len(change) > 1 else None
    return {"delta": delta, "low": min(low, delta), "high": max(high, delta), "p": p, "n": len(change)}


def _chrf_change(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]], openings: Sequence[str], seed: int, confidence: float
) -> dict[str, Any] | None:
    """Change of corpus chrF on the questions that both answered, whole sources drawn with replacement."""
    sides = [{(str(r["item"]), int(r.get("sample", 0))): r for r in rows} for rows in (old, new)]
    common = [key for key in sides[0] if key in sides[1]]
    sources = [str(sides[0][key].get("cluster") or key[0]) for key in common]
    index = {source: i for i, source in enumerate(dict.fromkeys(sources))}
    if len(index) < 2:
        return None
    sums = []
    for side in sides:
        counts: NDArray[np.float64] = np.zeros((len(index), quality.ORDER, 3))
        for key, source in zip(common, sources, strict=True):
            row = side[key]
            counts[index[source]] += quality.ngram_counts(quality.remove_opening(str(row["response"]), openings), str(row["reference"]))
        sums.append(counts.reshape(len(index), -1))
    weights = _weights(len(index), seed)
    scores = [quality.chrf_score((weights @ s).reshape(-1, quality.ORDER, 3)) for s in sums]
    before, after = (float(quality.chrf_score(s.sum(axis=0).reshape(quality.ORDER, 3))) for s in sums)
    low, high = _interval(scores[1] - scores[0], confidence)
    delta = after - before
    return {"delta": delta, "low": min(low, delta), "high": max(high, delta), "p": None, "n": len(common)}


def _weights(groups: int, seed: int) -> NDArray[np.float64]:
    """(resamples, groups): how often each group is drawn."""
    drawn = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=quality.RESAMPLES)
    return drawn.astype(np.float64)


def _interval(values: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - confidence) / 2, 1 - (1 - confidence) / 2])
    return float(low), float(high)
