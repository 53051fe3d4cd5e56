"""Kind ``reward``: a reward model folder with a scalar head; its number becomes a score in [0, 1] by a logistic curve.

    r ─→ score = 1 / (1 + exp(-(r - centre) / scale)) ─threshold on r─→ compliant or violation, unsure within `abstain`

A reward is known up to a constant (Bradley and Terry 1952), so the threshold and the scale are to be set from marked answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from scipy.special import expit

from norma.base.errors import NormaError
from norma.base.hashing import digest
from norma.check import folders
from norma.check.binding import parameters
from norma.check.program import hollow
from norma.check.segment import visible
from norma.check.source_digest import code_digest
from norma.spec.types import Finding, Item, Status


class RewardParams(BaseModel):
    """Parameters of a reward model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float = Field(description="Reward from which an answer complies; there the score is one half.")
    scale: float = Field(default=1.0, gt=0, description="Difference of rewards that moves the score from .5 to .73.")
    abstain: float = Field(default=0.0, ge=0, description="Half-width, in reward, of the zone around the threshold that is unsure.")
    reads: folders.Reads = Field(default="chat", description="chat (the whole conversation), pair (question and answer) or response.")
    languages: tuple[str, ...] = Field(default=(), description="Languages that the model was trained for (BCP-47); none: every one.")


@dataclass(frozen=True)
class RewardModel:
    """A reward model with its parameters bound."""

    id: str
    folder: Path
    model: str  # digest of the folder
    params: RewardParams
    digest: str
    languages: frozenset[str]

    def check(self, item: Item, response: str) -> Finding:
        """Judge one response; raises CheckerFailure where the model cannot read it."""
        said = hollow(item, response)
        if said is not None:
            return said
        (reward,) = folders.logits(self.folder, self.model, self.params.reads, item, visible(response)[0])
        margin = reward - self.params.threshold
        note = f"reward {reward:.3f}"
        if abs(margin) < self.params.abstain:
            return Finding(Status.UNSURE, None, (), f"{note}, too near {self.params.threshold}", margin)
        return Finding(Status.COMPLIANT if margin >= 0 else Status.VIOLATION, float(expit(margin / self.params.scale)), (), note, margin)


def build(use: str, params: dict[str, Any], where: str) -> RewardModel:
    """Bind the model folder ``use`` (entry point ``norma.checkers: reward``). The model is opened when it is first asked."""
    values = parameters(RewardParams, "reward", params, where)
    folder = Path(use).expanduser()
    names = folders.labels_of(folder, where)
    if len(names) != 1:
        raise NormaError(f"a reward model has one output, '{use}' has {len(names)}", where=where, mend="Use it as kind: classifier")
    model = folders.identity(folder)
    code = code_digest(RewardModel, folders.logits, RewardParams)
    made = digest(["reward", model, values.model_dump(mode="json"), code])
    return RewardModel(folder.name, folder, model, values, made, frozenset(values.languages))
