"""Checkpoints of a running stage: safetensors and a manifest with checksums. No pickle; whole or ignored.

checkpoint-00000120/  model.safetensors  optimiser.safetensors  manifest.json {step, files: {name: sha256}, numbers}
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from norma.base.errors import NormaError
from norma.base.files import commit_folder, disk_errors, read_json, write_json
from norma.base.hashing import file_digest
from norma.train.optimiser import optimiser_tensors, restore_optimisers

KEPT = 2  # the newest and the one before it, should the newest be damaged


def save(folder: Path, step: int, model: nn.Module, optimisers: list[torch.optim.Optimizer], numbers: dict[str, Any]) -> None:
    """Write ``checkpoint-<step>`` whole (rename at the end) and drop older ones but one."""
    final = folder / f"checkpoint-{step:08d}"
    temporary = folder / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    with disk_errors(folder):
        temporary.mkdir(parents=True)
        save_file({n: p.detach().contiguous() for n, p in model.named_parameters()}, temporary / "model.safetensors")
        save_file({n: t.contiguous() for n, t in optimiser_tensors(model, optimisers).items()}, temporary / "optimiser.safetensors")
    files = {p.name: file_digest(p) for p in sorted(temporary.glob("*.safetensors"))}
    write_json(temporary / "manifest.json", {"step": step, "files": files, "numbers": numbers})
    commit_folder(temporary, final)
    for old in sorted(folder.glob("checkpoint-*"))[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def restore(folder: Path, model: nn.Module, optimisers: list[torch.optim.Optimizer]) -> tuple[int, dict[str, Any]]:
    """Load the newest whole checkpoint; returns the steps done (0 when there is none) and the saved numbers.

    One whose checksums do not match (a disk that filled up, a bit that flipped) is passed over for the one before it.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*"), reverse=True):
        try:
            manifest = read_json(checkpoint / "manifest.json")
        except NormaError:
            continue
        if any(not (checkpoint / n).exists() or file_digest(checkpoint / n) != d for n, d in manifest["files"].items()):
            continue
        state = load_file(checkpoint / "model.safetensors")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(state[name])
        restore_optimisers(model, optimisers, load_file(checkpoint / "optimiser.safetensors"))
        return int(manifest["step"]), dict(manifest["numbers"])
    return 0, {}


def remove(folder: Path) -> None:
    """Drop the checkpoints of a finished stage."""
    for path in [*folder.glob("checkpoint-*"), *folder.glob(".checkpoint-*")]:
        shutil.rmtree(path, ignore_errors=True)
