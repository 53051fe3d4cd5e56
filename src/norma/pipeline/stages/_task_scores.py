"""Predictions of task models measured: metrics of ``norma.tasks``, intervals of ``norma.evaluate.statistics``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from norma.tasks.model import TaskModel

Rows = Sequence[Mapping[str, Any]]


def scored(
    task: TaskModel, rows: Rows, *, language: str, rules: Literal["squad", "cmrc"], seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Metrics, and a row of prediction with its input for each row; ``right`` from 0 to 1 says how good it is."""
    if task.shape == "labels":
        logits = task.label_logits(rows)
        metrics = label_metrics(rows, logits.tolist(), task.names, seed=seed, temperature=task.temperature)
        return metrics, label_predictions(task, rows, logits)
    predictions = task.predict(rows)
    if task.shape == "tokens":
        return token_metrics(predictions, task.names, seed=seed), [
            {**p, "right": float(np.mean([a == b for a, b in zip(p["labels"], p["predicted"], strict=True)]))} for p in predictions
        ]
    return answer_metrics(predictions, rules, seed=seed)


def label_metrics(rows: Rows, logits: Any, names: Sequence[str], *, seed: int, temperature: float = 1.0) -> dict[str, Any]:
    """Accuracy and macro F1 with intervals, F1 of each label, the confusion matrix, and how far probabilities can be believed."""
    from norma.evaluate.statistics import clustered_rate
    from norma.tasks import scores
    from norma.tasks.rows import key

    z = np.asarray(logits, dtype=np.float64)
    labels, predicted = np.array([names.index(row["label"]) for row in rows]), z.argmax(axis=1)
    sources = [key(dict(row)) for row in rows]
    found = scores.label_scores(labels.tolist(), predicted.tolist(), names)
    low, high = scores.bootstrap(lambda drawn: scores.macro_f1(labels[drawn], predicted[drawn]), sources, seed=seed)
    raw, calibrated = (scores.probabilities(z, t) for t in (1.0, temperature))
    log_p = np.log(np.maximum(calibrated[np.arange(len(labels)), labels], 1e-300))
    return {
        "shape": "labels",
        "accuracy": asdict(clustered_rate((labels == predicted).astype(float).tolist(), sources)),
        **found,
        "macro_f1": {"rate": found["macro_f1"], "low": low, "high": high},
        "nats": float(-log_p.mean()),
        "calibration": {
            "temperature": temperature,
            "error_before": scores.calibration_error(raw, labels.tolist()),
            "error_after": scores.calibration_error(calibrated, labels.tolist()),
            "bins": scores.reliability(calibrated, labels.tolist()),
        },
    }


def label_predictions(task: TaskModel, rows: Rows, logits: Any) -> list[dict[str, Any]]:
    from norma.tasks.scores import probabilities

    said = [task.said(p) for p in probabilities(np.asarray(logits), task.temperature)]
    return [{**row, **s, "right": s["probabilities"][row["label"]]} for row, s in zip(rows, said, strict=True)]


def token_metrics(predictions: Rows, names: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Accuracy over tokens, clustered by text; macro F1; entities where labels are BIO tags."""
    from norma.evaluate.statistics import clustered_rate
    from norma.tasks import scores

    pairs = [(i, a, b) for i, p in enumerate(predictions) for a, b in zip(p["labels"], p["predicted"], strict=True)]
    labels, predicted = ([names.index(pair[k]) for pair in pairs] for k in (1, 2))
    found = scores.label_scores(labels, predicted, names)
    entities = scores.entity_scores([p["labels"] for p in predictions], [p["predicted"] for p in predictions])
    if entities:
        low, high = scores.bootstrap(lambda drawn: _entity_f1(predictions, drawn.tolist()), _numbers(predictions), seed=seed, resamples=200)
        entities["entity_f1"] = {"rate": entities["entity_f1"], "low": low, "high": high}
    accuracy = clustered_rate([float(a == b) for _, a, b in pairs], [str(i) for i, _, _ in pairs])
    return {"shape": "tokens", "accuracy": asdict(accuracy), **found, **entities}


def _entity_f1(predictions: Rows, drawn: Sequence[int]) -> float:
    from norma.tasks.scores import entity_scores

    found = entity_scores([predictions[i]["labels"] for i in drawn], [predictions[i]["predicted"] for i in drawn])
    return float(found.get("entity_f1", 0.0))


def _numbers(rows: Rows) -> list[str]:
    return [str(i) for i in range(len(rows))]


def answer_metrics(predictions: Rows, rules: Literal["squad", "cmrc"], *, seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Exact match and F1, clustered by context: several questions share a text."""
    from norma.base.hashing import digest
    from norma.evaluate.statistics import clustered_rate
    from norma.text import squad

    given = [[a["text"] for a in p["answers"]] for p in predictions]
    exact = [squad.exact(p["predicted"], a, rules) for p, a in zip(predictions, given, strict=True)]
    f1 = [squad.f1(p["predicted"], a, rules) for p, a in zip(predictions, given, strict=True)]
    sources = [digest(p["context"])[:16] for p in predictions]
    metrics: dict[str, Any] = {"shape": "questions", "rules": rules}
    metrics |= {name: asdict(clustered_rate(values, sources)) for name, values in (("exact", exact), ("f1", f1))}
    silent = [(e, source) for e, source, a in zip(exact, sources, given, strict=True) if not a]
    if silent:
        metrics["silent_rightly"] = asdict(clustered_rate([e for e, _ in silent], [source for _, source in silent]))
    return metrics, [{**p, "right": value, "exact": e} for p, value, e in zip(predictions, f1, exact, strict=True)]


def table(scores: Mapping[str, Any]) -> dict[str, Any]:
    """What is printed when the run ends: each metric that has an interval."""
    rows = [
        [name.replace("_", " "), *(_round(value[k]) for k in ("rate", "low", "high"))]
        for name, value in scores.items()
        if isinstance(value, Mapping) and "rate" in value
    ]
    rows += [
        [name, *(round(float(value[k]), 2) if k in value else "" for k in ("score", "low", "high"))]
        for name, value in scores.items()
        if isinstance(value, Mapping) and "score" in value
    ]
    crossed = scores.get("cross_validation", {})
    for name in ("accuracy", "entity_f1", "exact", "f1"):
        if name in crossed:
            title = f"{name.replace('_', ' ')}, {crossed['folds']} folds"
            rows.append([title, *(_round(crossed[name][k]) for k in ("rate", "low", "high"))])
    title = f"On {scores['rows']:,} rows of {scores['measured_on']}"
    return {"title": title, "columns": ["metric", "value", "low", "high"], "rows": rows}


def _round(value: float | None) -> float | None:
    return None if value is None else round(float(value), 4)
