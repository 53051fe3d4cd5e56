"""A model with a task's head in the place of its own, what of it learns, and what its folder says of the task.

model ─→ begin: another head, new weights there ─→ freeze: all, or the last blocks ─→ learning ─→ save: folder, labels, norma.json
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from norma.base.errors import NormaError
from norma.base.files import read_json, write_json
from norma.lm import LanguageModel
from norma.nn import Transformer, with_head
from norma.nn.lora import plain_state
from norma.text.tokenizer import framed

HEADS: Mapping[str, str] = {"labels": "classify", "tokens": "tokens", "questions": "span"}
"""Shape of a task → the head."""


def begin(model: LanguageModel, shape: str, labels: Sequence[str], *, dropout: float | None, seed: int) -> LanguageModel:
    """``model`` with a new head of as many outputs as ``labels``; its weights are copies, and what it has of the new head stays.

    The head begins normal with ``initializer_range``. ``dropout``: None leaves the model's. Raises NormaError for a family whose layout
    has no such head: decoders, alone or behind an encoder, have no labels of tokens.
    """
    config = with_head(model.config, HEADS[shape], 0 if shape == "questions" else len(labels))
    if config.kind == "decoder":
        config = replace(config, classifier_bias=False)  # their layouts have no place for it
    if dropout is not None:
        config = replace(config, dropout=dropout)
    generator = torch.Generator().manual_seed(seed)
    network = Transformer(config).initialise(generator)
    new = network.state_dict()
    new["classifier.weight"].normal_(0.0, config.initializer_range, generator=generator)
    old = {name: tensor for name, tensor in plain_state(model.transformer).items() if name in new and tensor.shape == new[name].shape}
    network.load_state_dict(new | old)
    tokenizer = framed(model.tokenizer)
    pad = None if tokenizer.pad_id == tokenizer.eos_id else tokenizer.pad_id
    kept = dict(model.kept) | {"pad_token_id": pad}
    if shape != "questions":
        kept |= {"id2label": {str(i): name for i, name in enumerate(labels)}, "label2id": {name: i for i, name in enumerate(labels)}}
        kept |= {"problem_type": "single_label_classification"} if shape == "labels" else {}
    return LanguageModel(network.to(model.transformer.device).eval(), tokenizer, kept=kept, name=model.name)


def fresh(model: LanguageModel) -> tuple[str, ...]:
    """Names of the modules of the head, which have much to learn: trained whole, whatever else is frozen."""
    names = ("classifier", "pooler", "head_transform", "head_norm")
    return tuple(name for name in names if getattr(model.transformer, name) is not None)


def freeze(model: LanguageModel, last_layers: int) -> int:
    """Leave only the last ``last_layers`` blocks, the final norm and the head to learn; returns how many numbers that are."""
    network = model.transformer
    blocks = list(network.stack.blocks)
    if last_layers > len(blocks):
        raise NormaError(f"last_layers is {last_layers}, the model has {len(blocks)}", mend="Leave it out to train all of them")
    network.requires_grad_(False)
    for module in (*blocks[len(blocks) - last_layers :], network.stack.norm, *map(network.get_submodule, fresh(model))):
        if module is not None:
            module.requires_grad_(True)
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def save(model: LanguageModel, folder: Path, task: Mapping[str, Any], **lineage: Any) -> None:
    """Write the model folder; ``task`` stands in norma.json, for :class:`norma.tasks.model.TaskModel`."""
    model.lineage = {**lineage, "task": dict(task)}
    model.save(folder)
    if model.config.kind == "decoder" and model.kept.get("pad_token_id") is None:
        for name in ("config.json", "generation_config.json"):  # else transformers would read the token before the padding
            write_json(folder / name, read_json(folder / name) | {"pad_token_id": None})
