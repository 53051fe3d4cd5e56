"""The stage kinds: one file per kind, one line per kind here. Modules are imported when a recipe names their kind."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

from norma.base.errors import NormaError, nearest
from norma.base.hashing import file_digest
from norma.pipeline.stage import Stage

KINDS: dict[str, str] = {
    "corpus": "norma.pipeline.stages.corpus:Corpus",
    "problems": "norma.pipeline.stages.problems:Problems",
    "clean": "norma.pipeline.stages.clean:Clean",
    "stream": "norma.pipeline.stages.stream:Stream",
    "tokenizer": "norma.pipeline.stages.tokenizer:Tokenizer",
    "tokens": "norma.pipeline.stages.tokens:Tokens",
    "rate": "norma.pipeline.stages.rate:Rate",
    "open": "norma.pipeline.stages.open:Open",
    "pretrain": "norma.pipeline.stages.pretrain:Pretrain",
    "sft": "norma.pipeline.stages.sft:Sft",
    "prompting": "norma.pipeline.stages.prompting:Prompting",
    "pairs": "norma.pipeline.stages.pairs:Pairs",
    "preference": "norma.pipeline.stages.preference:Preference",
    "distil": "norma.pipeline.stages.distil:Distil",
    "constitution": "norma.pipeline.stages.constitution:ConstitutionStage",
    "best-of": "norma.pipeline.stages.best_of:BestOfStage",
    "correction": "norma.pipeline.stages.correction:Correction",
    "reward-model": "norma.pipeline.stages.reward_model:RewardModelStage",
    "reward": "norma.pipeline.stages.reward:Reward",
    "score": "norma.pipeline.stages.score:Score",
    "evaluate": "norma.pipeline.stages.evaluate:Evaluate",
    "openings": "norma.pipeline.stages.openings:Openings",
    "sampled": "norma.pipeline.stages.sampled:Sampled",
    "task-data": "norma.pipeline.stages.task_data:TaskData",
    "task": "norma.pipeline.stages.task:Task",
    "task-score": "norma.pipeline.stages.task_score:TaskScore",
    "contrastive": "norma.pipeline.stages.contrastive:Contrastive",
    "learning-curve": "norma.pipeline.stages.learning_curve:LearningCurve",
    "frontier": "norma.pipeline.stages.frontier:Frontier",
}

_ADDED: dict[str, tuple[Stage[Any], str]] = {}  # kind -> stage, digest of the file it is written in


def register(stage: Stage[Any]) -> None:
    """Add a kind from Python code (a file named under ``trust:`` in a recipe, or a test)."""
    if stage.kind in KINDS:
        raise NormaError(f"the stage kind '{stage.kind}' is built in", mend="Give your kind another name")
    try:
        code = file_digest(Path(inspect.getfile(type(stage))))
    except (TypeError, OSError):  # written at a prompt: there is no file to look at
        code = ""
    _ADDED[stage.kind] = (stage, code)


def find(kind: str, where: object = None) -> Stage[Any]:
    """The stage of a kind. Raises NormaError naming the nearest known kind."""
    if kind in _ADDED:
        return _ADDED[kind][0]
    if kind not in KINDS:
        raise NormaError(f"unknown stage kind '{kind}'", where=where, mend=nearest(kind, [*KINDS, *_ADDED]))
    module, _, name = KINDS[kind].partition(":")
    stage: Stage[Any] = getattr(import_module(module), name)()
    return stage


def code_digest(kind: str) -> str | None:
    """Digest of the user's own Python file that the kind came from; None for built-in kinds, which have a version."""
    return _ADDED[kind][1] if kind in _ADDED else None
