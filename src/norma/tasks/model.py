"""A task model answers on new input: labels, labels of tokens, answers found in a text, texts.

model folder ─→ TaskModel (its head says which task, norma.json how it reads) ─→ predict(rows) ─→ a row of answers for each
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from norma.base.errors import NormaError
from norma.lm import LanguageModel
from norma.tasks import encode, spans, writing
from norma.tasks.heads import HEADS
from norma.tasks.learning import Floats, scores_of
from norma.tasks.scores import probabilities

Row = Mapping[str, Any]


class TaskModel:
    """A model with a task's head.

    Attributes:
        model: the network and its tokenizer.
        shape: labels, tokens, questions or texts.
        names: of the labels, in order.
        told: what norma.json says of the task: length, stride, temperature, threshold, ...
    """

    def __init__(self, model: LanguageModel, told: Mapping[str, Any] | None = None) -> None:
        self.model, self.told = model, dict(told if told is not None else model.lineage.get("task") or {})
        self.shape = {head: shape for shape, head in HEADS.items()}.get(model.config.head, "texts")
        by_number = model.kept.get("id2label") or {str(i): f"LABEL_{i}" for i in range(model.config.labels)}
        self.names = [str(by_number[key]) for key in sorted(by_number, key=int)] if self.shape in ("labels", "tokens") else []

    @staticmethod
    def load(folder: Path) -> TaskModel:
        """Open a folder of ours, or another program's ...ForSequenceClassification and the like."""
        from norma.generate import LocalEngine

        model = LanguageModel.load(folder)
        model.engine = LocalEngine()
        return TaskModel(model)

    @property
    def length(self) -> int:
        return int(self.told.get("length") or self.model.config.max_positions)

    @property
    def temperature(self) -> float:
        return float(self.told.get("temperature") or 1.0)

    # ── what the head says ──
    def label_logits(self, rows: Sequence[Row]) -> Floats:
        """(N, L) of texts, or of pairs where rows have one."""
        pairs = [row["pair"] for row in rows] if any("pair" in row for row in rows) else None
        read = encode.readings(self.model, [row["text"] for row in rows], pairs, self.length)
        found = scores_of(self.model.transformer, read)
        return np.stack(found) if found else np.zeros((0, len(self.names)))

    def token_logits(self, rows: Sequence[Row]) -> list[Floats]:
        """(tokens, L) of each row; a token that was cut off has zeros."""
        read = encode.token_readings(self.model, [row["tokens"] for row in rows], self.length)
        found = scores_of(self.model.transformer, [r.reading for r in read])
        nothing = np.zeros(len(self.names))
        return [np.stack([s[p] if p >= 0 else nothing for p in r.places]) for r, s in zip(read, found, strict=True)]

    def found(self, rows: Sequence[Row]) -> list[spans.Found]:
        """The best span of each question."""
        made = spans.windows(self.model, rows, length=self.length, stride=int(self.told.get("stride") or 128))
        scores = scores_of(self.model.transformer, [w.reading for w in made])
        return spans.answers_of(rows, made, scores, longest=int(self.told.get("longest") or 30))

    # ── answers ──
    def predict(self, rows: Sequence[Row], **writing_options: Any) -> list[dict[str, Any]]:
        """A row of answers for each row of input, the input with it.

        Raises NormaError, naming the row, where one has not what the task reads. ``writing_options``: :func:`norma.tasks.writing.write`.
        """
        needed = {"labels": ("text",), "tokens": ("tokens",), "questions": ("question", "context"), "texts": ("source",)}[self.shape]
        for number, row in enumerate(rows, 1):
            missing = [name for name in needed if not row.get(name)]
            if missing:
                raise NormaError(f"a row without '{missing[0]}'", where=f"row {number}", mend=f"This model reads {' and '.join(needed)}")
        if not rows:
            return []
        answers: list[dict[str, Any]] = {
            "labels": self._labels, "tokens": self._tokens, "questions": self._answers, "texts": self._texts,
        }[self.shape](rows, **writing_options)  # fmt: skip
        return [{**row, **answer} for row, answer in zip(rows, answers, strict=True)]

    def _labels(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        return [self.said(p) for p in probabilities(self.label_logits(rows), self.temperature)]

    def said(self, p: Floats) -> dict[str, Any]:
        """The likeliest label, its probability, and those of all."""
        best = int(p.argmax())
        every = {name: round(float(x), 6) for name, x in zip(self.names, p, strict=True)}
        return {"predicted": self.names[best], "probability": round(float(p[best]), 6), "probabilities": every}

    def _tokens(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        out = []
        for scores in self.token_logits(rows):
            p = probabilities(scores, self.temperature)
            best = p.argmax(axis=1)
            out.append({"predicted": [self.names[i] for i in best], "probability": [round(float(x), 6) for x in p.max(axis=1)]})
        return out

    def _answers(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        threshold = self.told.get("null_threshold")
        out = []
        for found in self.found(rows):
            silent = threshold is not None and found.margin <= threshold
            said = {"predicted": "", "start": -1} if silent else {"predicted": found.text, "start": found.start}
            out.append(said | {"margin": round(found.margin, 6)})
        return out

    def _texts(self, rows: Sequence[Row], **options: Any) -> list[dict[str, Any]]:
        return [{"predicted": text} for text in writing.write(self.model, [row["source"] for row in rows], **options)]
