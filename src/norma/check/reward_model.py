"""Kind ``reward``: a reward model folder with a scalar head; its number becomes a score in [0, 1] by a logistic curve.

    r ─→ score = 1 / (1 + exp(-(r - threshold) / scale)) ─threshold on r─→ compliant or violation, unsure within `abstain`

A reward is known up to a constant (Bradley and Terry 1952), so the threshold and the scale are to be set from marked answers. A folder
of Norma's own says where its reference answers lie on average (norma.json): there r is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field
from scipy.special import expit

from norma.base.errors import NormaError
from norma.base.hashing import digest
from norma.check import folders
from norma.check.source_digest import code_digest
from norma.spec.types import Finding, Item


class RewardParams(folders.FolderParams):
    """Parameters of a reward model."""

    threshold: float = Field(description="Reward from which an answer complies; there the score is one half.")
    scale: float = Field(default=1.0, gt=0, description="Difference of rewards that moves the score from .5 to .73.")
    abstain: float = Field(default=0.0, ge=0, description="Half-width, in reward, of the zone around the threshold that is unsure.")


@dataclass(frozen=True)
class RewardModel:
    """A reward model with its parameters bound."""

    id: str
    folder: folders.Folder
    params: RewardParams
    digest: str
    languages: frozenset[str]

    def check(self, item: Item, response: str) -> Finding:
        """Judge one response; raises CheckerFailure where the model cannot read it."""
        found = self.folder.judge(item, response)
        if isinstance(found, Finding):
            return found
        (reward,), threshold = found, self.params.threshold
        score = float(expit((reward - threshold) / self.params.scale))
        return folders.finding(score, reward - threshold, self.params.abstain, f"reward {reward:.3f}", threshold)


def build(use: str, params: dict[str, Any], where: str) -> RewardModel:
    """Bind the model folder ``use`` (entry point ``norma.checkers: reward``). The model is opened when it is first asked."""
    folder, values = folders.bind(use, "reward", RewardParams, params, where, default="chat")
    if len(folder.labels) != 1:
        mend = "Use it as kind: classifier"
        raise NormaError(f"a reward model has one output, '{use}' has {len(folder.labels)}", where=where, mend=mend)
    code = code_digest(RewardModel, folders.Folder, folders.reading, folders.finding, RewardParams)
    made = digest(["reward", folder.digest, folder.reads, values.model_dump(mode="json", exclude={"reads"}), code])
    return RewardModel(folder.path.name, folder, values, made, frozenset(values.languages))
