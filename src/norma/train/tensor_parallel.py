"""Layers that ranks divide between them: tensor parallelism (Megatron-LM, 1909.08053, section 3) by PyTorch's own engine.

    x ─→ columns of query, key, value, gate and up ─→ a rank's own heads and features ─→ rows of output and down ─→ summed over the group

Only the matrices of blocks are divided. All ranks of a group read the same rows and hold the same residual stream, so a block costs
two sums forward and two backward. The model knows nothing of it: a divided attention is one with fewer heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm

from norma.base.errors import NormaError
from norma.nn import ModelConfig
from norma.nn.layers import Linear

COLUMNS = ("query", "key", "value", "gate", "up")
ROWS = ("output", "down")


class Divided(Linear):
    """A layer of which a rank holds a part: it runs by itself, joined with no other (``norma.nn.layers.together``)."""


def must_divide(config: ModelConfig, count: int) -> None:
    """Raise NormaError that names what keeps a model's layers from being divided over ``count`` ranks."""
    whole = {
        "experts": config.experts is not None,
        "position biases shared by all layers": config.positions == "relative",
        "norms of queries and keys": config.qk_norm != "none",
    }
    sizes = {"attention_heads": config.attention_heads, "kv_heads": config.kv_heads, "feed_forward_width": config.feed_forward_width}
    reasons = [f"{what} cannot be divided" for what, there in whole.items() if there]
    reasons += [f"{name} is {size}, no multiple of {count}" for name, size in sizes.items() if size % count]
    if reasons:
        mend = "Leave tensor_parallel out: FSDP2 alone divides the weights of every family"
        raise NormaError(f"{config.family} cannot be trained with tensor_parallel: {count}: {'; '.join(reasons)}", mend=mend)


def divide_block(block: nn.Module, mesh: Any) -> None:
    """Divide a block's matrices over the ranks of ``mesh``: this rank computes its heads and its inner features."""
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    plan: dict[str, Any] = {}
    for name, layer in block.named_modules():
        if type(layer) is Linear:
            plan[name] = ColwiseParallel() if name.rpartition(".")[2] in COLUMNS else RowwiseParallel()
            layer.__class__ = Divided
    assert {name.rpartition(".")[2] for name in plan} <= {*COLUMNS, *ROWS}, "a matrix of a block that this module does not know"
    parallelize_module(block, mesh, plan)


def clip_gradient(parameters: list[nn.Parameter], limit: float) -> Tensor:
    """Scale gradients whose norm together exceeds ``limit``; returns the norm before. As torch's, which wants all divided alike."""
    from torch.distributed.tensor import DTensor

    groups: dict[Any, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(getattr(parameter, "device_mesh", None), []).append(parameter)
    if len(groups) < 2:
        return clip_grad_norm_(parameters, limit)
    gradients = [[p.grad for p in group if p.grad is not None] for group in groups.values()]
    norms = [get_total_norm(group) for group in gradients if group]
    norm: Tensor = torch.linalg.vector_norm(torch.stack([n.full_tensor() if isinstance(n, DTensor) else n for n in norms]))
    for group in groups.values():
        clip_grads_with_norm_(group, limit, norm)
    return norm
