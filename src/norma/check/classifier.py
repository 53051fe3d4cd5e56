"""Kind ``classifier``: any sequence-classification model folder, with a calibrated threshold and a zone in which it abstains.

    logits ─/ temperature─→ softmax ─→ p = P(label that means: kept) ─┬─ p within `abstain` of the threshold ─→ unsure
                                                                     └─ above ─→ compliant, below ─→ violation

The temperature (Guo et al. 2017, 1706.04599), the threshold and the zone come from marked answers: :func:`norma.check.calibrate.calibrate`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from norma.base.errors import NormaError, nearest
from norma.base.hashing import digest
from norma.check import folders
from norma.check.binding import parameters
from norma.check.program import hollow
from norma.check.segment import visible
from norma.check.source_digest import code_digest
from norma.spec.types import Finding, Item, Status


class ClassifierParams(BaseModel):
    """Parameters of a classifier."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str = Field(description="Label that means that the rule is kept: its name in config.json, or its number.")
    reads: folders.Reads = Field(default="response", description="response, pair (question and answer) or chat (the whole conversation).")
    temperature: float = Field(default=1.0, gt=0, description="Divides the logits.")
    threshold: float = Field(default=0.5, gt=0, lt=1, description="Probability from which an answer complies.")
    abstain: float = Field(default=0.0, ge=0, lt=1, description="Half-width of the zone around the threshold that is unsure.")
    languages: tuple[str, ...] = Field(default=(), description="Languages that the model was trained for (BCP-47); none: every one.")


@dataclass(frozen=True)
class Classifier:
    """A classifier with its parameters bound."""

    id: str
    folder: Path
    model: str  # digest of the folder
    label: int
    params: ClassifierParams
    digest: str
    languages: frozenset[str]

    def check(self, item: Item, response: str) -> Finding:
        """Judge one response; raises CheckerFailure where the model cannot read it."""
        said = hollow(item, response)
        if said is not None:
            return said
        p = probability(
            folders.logits(self.folder, self.model, self.params.reads, item, visible(response)[0]), self.label, self.params.temperature
        )
        margin = p - self.params.threshold
        if abs(margin) < self.params.abstain:
            return Finding(Status.UNSURE, None, (), f"p = {p:.3f}, too near {self.params.threshold}", margin)
        return Finding(Status.COMPLIANT if margin >= 0 else Status.VIOLATION, p, (), f"p = {p:.3f}", margin)


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
    values = parameters(ClassifierParams, "classifier", params, where)
    folder = Path(use).expanduser()
    names = folders.labels_of(folder, where)
    if values.label in names:
        label = names.index(values.label)
    elif values.label.isdigit() and int(values.label) < len(names):
        label = int(values.label)
    else:
        raise NormaError(f"the classifier '{use}' has no label '{values.label}'", where=where, mend=nearest(values.label, names))
    model = folders.identity(folder)
    code = code_digest(Classifier, folders.logits, ClassifierParams)
    made = digest(["classifier", model, label, values.model_dump(mode="json", exclude={"label"}), code])
    return Classifier(folder.name, folder, model, label, values, made, frozenset(values.languages))
