"""Kind ``classifier``: any sequence-classification model folder, with a calibrated threshold and a zone in which it abstains.

    logits ─/ temperature─→ softmax ─→ p = P(label that means: kept) ─┬─ p within `abstain` of the threshold ─→ unsure
                            sigmoid, where labels are rules           └─ above ─→ compliant, below ─→ violation

A ``reward-model`` stage with ``heads: rules`` makes one whose labels are the rules' ids (``problem_type: multi_label_classification``).
The temperature (Guo et al. 2017, 1706.04599), the threshold and the zone come from marked answers: :func:`norma.check.calibrate.calibrate`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from norma.base.errors import NormaError, nearest
from norma.base.hashing import digest
from norma.check import folders
from norma.check.source_digest import code_digest
from norma.spec.types import Finding, Item


class ClassifierParams(folders.FolderParams):
    """Parameters of a classifier."""

    label: str = Field(description="Label that means that the rule is kept: its name in config.json, or its number.")
    temperature: float = Field(default=1.0, gt=0, description="Divides the logits.")
    threshold: float = Field(default=0.5, gt=0, lt=1, description="Probability from which an answer complies.")
    abstain: float = Field(default=0.0, ge=0, lt=1, description="Half-width of the zone around the threshold that is unsure.")


@dataclass(frozen=True)
class Classifier:
    """A classifier with its parameters bound."""

    id: str
    folder: folders.Folder
    label: int
    params: ClassifierParams
    digest: str
    languages: frozenset[str]

    def check(self, item: Item, response: str) -> Finding:
        """Judge one response; raises CheckerFailure where the model cannot read it."""
        found = self.folder.judge(item, response)
        if isinstance(found, Finding):
            return found
        scores, label = ([found[self.label]], 0) if self.folder.independent else (found, self.label)
        p, threshold = probability(scores, label, self.params.temperature), self.params.threshold
        return folders.finding(p, p - threshold, self.params.abstain, f"p = {p:.3f}", threshold)


def probability(scores: list[float], label: int, temperature: float) -> float:
    """P(label): softmax of the logits over ``temperature``; one logit alone is a sigmoid."""
    if len(scores) == 1:
        scores = [0.0, scores[0]]
        label = 1
    exponents = [value / temperature for value in scores]
    most = max(exponents)
    weights = [math.exp(value - most) for value in exponents]
    return weights[label] / sum(weights)


def build(use: str, params: dict[str, Any], where: str) -> Classifier:
    """Bind the model folder ``use`` (entry point ``norma.checkers: classifier``). The model is opened when it is first asked."""
    folder, values = folders.bind(use, "classifier", ClassifierParams, params, where, default="response")
    if values.label in folder.labels:
        label = folder.labels.index(values.label)
    elif values.label.isdigit() and int(values.label) < len(folder.labels):
        label = int(values.label)
    else:
        raise NormaError(f"the classifier '{use}' has no label '{values.label}'", where=where, mend=nearest(values.label, folder.labels))
    code = code_digest(Classifier, folders.Folder, folders.reading, folders.finding, ClassifierParams)
    made = digest(["classifier", folder.digest, label, folder.reads, values.model_dump(mode="json", exclude={"label", "reads"}), code])
    return Classifier(folder.path.name, folder, label, values, made, frozenset(values.languages))
