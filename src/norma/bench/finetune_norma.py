"""Norma's side of ``norma bench finetune``: one epoch of what the stage ``task`` does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from norma.bench.worker import Step

if TYPE_CHECKING:
    from torch import Tensor


def step_of(job: dict[str, Any]) -> Step:
    """An epoch: losses, backward, clipping, AdamW, as ``norma.train.loop`` has them; its mean loss, samples, tokens of real text."""
    import torch

    from norma.base.files import read_jsonl
    from norma.lm import LanguageModel
    from norma.tasks.learning import Example, TaskTraining
    from norma.train.optimiser import make_optimisers
    from norma.train.reading import Reading
    from norma.train.tensor_parallel import clip_gradient

    folder = Path(job["folder"])
    network = LanguageModel.load(folder / "model").transformer
    rows = read_jsonl(folder / "rows.jsonl")
    examples = [Example(Reading(row["ids"], [0] * len(row["ids"])), (row["label"],)) for row in rows]
    training = TaskTraining(examples, rows=job["rows"], seed=0, dtype=getattr(torch, job["dtype"]))
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimisers = make_optimisers(network, kind="adamw", learning_rate=job["rate"], matrix_learning_rate=job["rate"], weight_decay=0.01)
    done = 0

    def epoch() -> Tensor:
        nonlocal done
        network.train()
        total = tokens = 0.0
        for _ in range(training.steps_per_epoch):
            for loss, numbers in training.losses(network, done):
                loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
                total, tokens = total + numbers["loss"], tokens + numbers["tokens"]
            clip_gradient(parameters, 1.0)
            for optimiser in optimisers:
                optimiser.step()
            network.zero_grad(set_to_none=True)
            done += 1
        return torch.tensor([total / training.steps_per_epoch, len(examples), tokens])

    return epoch
