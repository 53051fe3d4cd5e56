"""Tensors of which each rank holds a part, to and from safetensors files: PyTorch's distributed checkpoint, without pickle.

    write:  {name: part} ─→ copied ─→ in the background a file for each rank, with the places of its parts in their whole
    read:   the files ─→ parts as this run divides them, be it over more ranks, fewer, or one
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@cache
def _line() -> Any:
    """A connection of its own, so that a checkpoint's messages do not meet those of the training."""
    return dist.new_group(backend="gloo")


def write(folder: Path, tensors: dict[str, Tensor]) -> Future[Any]:
    """Begin to write; the tensors may change as soon as this returns. Every rank must call it."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import async_save

    # A checkpoint's file has no tensor of no dimensions that several ranks hold alike: it is a row of one there.
    values: dict[str, Any] = {name: tensor.detach().reshape(1) if tensor.ndim == 0 else tensor.detach() for name, tensor in tensors.items()}
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    future: Future[Any] = async_save(values, storage_writer=writer, process_group=_line())  # type: ignore[assignment]
    return future


def read(folder: Path, *, like: Callable[[str, torch.Size], Tensor | None], alone: bool) -> dict[str, Tensor]:
    """All tensors of a folder. ``like`` names the tensor that one is divided as; None: it is whole on each rank."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    reader = HuggingFaceStorageReader(str(folder))
    found: dict[str, Any] = {}
    for name, facts in reader.read_metadata().state_dict_metadata.items():
        model = like(name, facts.size)  # type: ignore[union-attr]  # tensors, all of them
        dtype = facts.properties.dtype  # type: ignore[union-attr]
        found[name] = torch.empty(facts.size, dtype=dtype) if model is None else torch.empty_like(model, dtype=dtype)  # type: ignore[union-attr]
    load(found, storage_reader=reader, no_dist=alone)
    return {name: tensor.reshape(()) if tensor.shape == (1,) and name.endswith("/step") else tensor for name, tensor in found.items()}


def divide(tensor: Tensor, like: Tensor | None) -> Tensor:
    """A whole tensor, divided over the ranks as ``like`` is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
