"""A model that is spread over ranks: each holds a part of every weight, of its gradient and of its moments.

    model ─→ spread ─→ train (losses times the number of ranks) ─→ collect ─→ model, whole again
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from norma.base.ranks import Ranks
from norma.nn import Transformer
from norma.train.tensor_parallel import divide_block, must_divide


def spread(model: Transformer, ranks: Ranks) -> Transformer:
    """The model that a rank trains: ``model`` itself when it is alone, else a copy of which each rank holds a part.

    Weights, gradients and moments are divided by ``fully_shard`` (FSDP2), a block at a time: a block's weights are whole only while
    it computes. With ``ranks.tensor`` a group of ranks divides a block's matrices first, and they are whole nowhere. Losses must be
    multiplied by the number of readers, over whom gradients are averaged.
    """
    if ranks.count == 1:
        return model
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    if ranks.tensor > 1:
        must_divide(model.config, ranks.tensor)
    parts = copy.deepcopy(model)
    device = next(model.parameters()).device.type
    mesh = init_device_mesh(device, (ranks.count,))
    both = init_device_mesh(device, (ranks.readers, ranks.tensor), mesh_dim_names=("data", "tensor")) if ranks.tensor > 1 else None
    for stack in (parts.encoder, parts.decoder):
        for block in () if stack is None else stack.blocks:
            if both is not None:
                divide_block(block, both["tensor"])
            fully_shard(block, mesh=mesh if both is None else both["data"])
    fully_shard(parts, mesh=mesh)  # embeddings and head: every rank holds a part, whatever its group
    for entrance in ("hidden", "encode"):  # the ways in besides forward()
        register_fsdp_forward_method(parts, entrance)
    return parts


@torch.no_grad()
def collect(parts: Transformer, model: Transformer, ranks: Ranks) -> None:
    """Put the weights that ``spread`` divided, trained since, back into ``model``, whole, on every rank."""
    if parts is model:
        return
    for into, part in zip([*model.parameters(), *model.buffers()], [*parts.parameters(), *parts.buffers()], strict=True):
        into.copy_(whole(part))


def whole(tensor: Tensor) -> Tensor:
    """A divided tensor put together on every rank; others as they are."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


@torch.no_grad()
def agree(model: nn.Module, ranks: Ranks) -> None:
    """Give every rank the mean of the buffers that move while training (an expert's balance): each has seen other tokens."""
    if ranks.count > 1:
        import torch.distributed as dist

        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= ranks.count


def recompute(model: Transformer) -> None:
    """Activation checkpointing (1604.06174): of each block only the input is kept, and the rest made again when going backward."""
    from torch.utils.checkpoint import checkpoint

    for stack in (model.encoder, model.decoder):
        for block in () if stack is None else stack.blocks:
            inner = block.forward

            def forward(*inputs: Any, _inner: Any = inner, **more: Any) -> Any:
                if not torch.is_grad_enabled():
                    return _inner(*inputs, **more)
                return checkpoint(_inner, *inputs, use_reentrant=False, **more)

            block.forward = forward
