"""The layers everything is made of. Weights are kept in fp32; they work in the type of what flows through them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from norma.nn import kernels
from norma.nn.config import Activation, ModelConfig
from norma.nn.kernels.linear import learns, linear


class Linear(nn.Linear):
    """y = x W^T + b, computed in the type of ``x`` (bf16 activations with fp32 master weights, as mixed precision has it)."""

    working: Tensor | None = None  # the weight in the working type while `working_weights` holds

    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight if self.working is None else self.working, self.bias)

    def work_in(self, dtype: torch.dtype | None) -> None:
        """Keep the weight in ``dtype`` as well, until called with None."""
        self.working = None if dtype is None else packed(self.weight.detach().to(dtype))


def plain(layer: nn.Module) -> TypeGuard[Linear]:
    """Whether a layer is nothing but a :class:`Linear`: no LoRA on it, nothing kept in another type."""
    return type(layer) is Linear and layer.working is None


def packed(weight: Tensor) -> Tensor:
    """The weight of a linear layer as oneDNN wants it, where a CPU multiplies bf16: otherwise every product of few rows lays it out anew.

    For :func:`product` alone; the numbers stay the same to the bit. Measured with 64 rows on a Zen 4 core: 20 to 25% faster.
    """
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or not torch._C._has_mkldnn:
        return weight
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():  # as for AVX2
        return weight
    made: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), FEW)
    return made


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b in the type of ``x``; the weight may be :func:`packed`."""
    if learns(x, weight):
        return linear(x, [weight], [bias])
    bias = None if bias is None else bias.to(x.dtype)
    if not weight.is_mkldnn:
        return F.linear(x, weight.to(x.dtype), bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


FEW = 64  # rows that packed weights are laid out for


@runtime_checkable
class Works(Protocol):
    """A module with weights that can be kept in another type as well."""

    def work_in(self, dtype: torch.dtype | None) -> None:
        """Keep them in ``dtype`` as well, until called with None."""


@contextmanager
def working_weights(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Convert every linear weight to ``dtype`` once, for many forward passes without gradients (generation).

    A module takes part by having a method ``work_in``.
    """
    workers = [m for m in model.modules() if isinstance(m, Works)]
    try:
        for worker in workers:
            worker.work_in(dtype)
        yield
    finally:
        for worker in workers:
            worker.work_in(None)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * (weight + offset) (Zhang and Sennrich, 1910.07467, eq. 4); the mean is taken in fp32."""

    def __init__(self, width: int, eps: float, offset: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), 1.0 - offset))
        self.eps, self.offset = eps, offset

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if not self.offset else self.weight + self.offset
        if kernels.norms(x, weight):
            return kernels.rms_norm(x, weight, self.eps)
        return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), self.eps)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(var + eps) * (weight + offset) + bias (Ba et al., 1607.06450, eq. 4); the bias is optional."""

    def __init__(self, width: int, eps: float, offset: float = 0.0, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((width,), 1.0 - offset))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.eps, self.offset = eps, offset

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if not self.offset else self.weight + self.offset
        if kernels.wide() and kernels.norms(x, weight) and (self.bias is None or self.bias.dtype == torch.float32):
            return kernels.layer_norm(x, weight, self.bias, self.eps)
        return F.layer_norm(x, (x.shape[-1],), weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype), self.eps)


def together(layers: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
    """The outputs of several linear layers that read the same ``x``, by one matrix product where that is faster.

    A wide product runs nearer to the machine's peak than narrow ones (measured: 4 to 10%). Joining the weights is a copy, which
    only many tokens are worth; layers that are more than a plain :class:`Linear` (LoRA) run by themselves.
    """
    joint = joined(layers, x)
    if joint is None:
        return [layer(x) for layer in layers]
    widths: list[Any] = [layer.out_features for layer in layers]
    return list(torch.split(joint, widths, dim=-1))


def joined(layers: Sequence[nn.Module], x: Tensor) -> Tensor | None:
    """What :func:`together` gives, side by side as one product makes it; None where the layers run by themselves."""
    layers = [layer.get_submodule("base") if getattr(layer, "off", False) else layer for layer in layers]  # LoRA, switched off
    simple = [layer for layer in layers if plain(layer)]
    if len(simple) < len(layers) or x.numel() < JOIN * x.shape[-1]:
        return None
    if all(learns(x, layer.weight) for layer in simple):
        return linear(x, [layer.weight for layer in simple], [layer.bias for layer in simple])
    weight = torch.cat([layer.weight.to(x.dtype) for layer in simple])
    bias = None if simple[0].bias is None else torch.cat([layer.bias.to(x.dtype) for layer in simple])
    return F.linear(x, weight, bias)


JOIN = 2048  # tokens from which layers that read the same are joined


def make_norm(config: ModelConfig) -> nn.Module:
    """The norm of the residual stream, as the config has it."""
    if config.norm == "rms":
        return RMSNorm(config.width, config.norm_eps, config.norm_offset)
    return LayerNorm(config.width, config.norm_eps, config.norm_offset, config.norm_bias)


def activate(name: Activation, x: Tensor) -> Tensor:
    """The activation of a feed-forward layer.

    gelu: x Phi(x) (Hendrycks and Gimpel, 1606.08415); gelu_tanh: its approximation by tanh, as GPT and BERT's first code have it.
    """
    if name == "silu":
        return F.silu(x)
    if name == "relu":
        return F.relu(x)
    if name == "gelu_tanh" and torch.compiler.is_compiling():
        # (1 + tanh u) / 2 = sigmoid(2 u): the same function, and a compiled kernel's exp is cheaper than its tanh.
        return x * torch.sigmoid(x * (1.5957691216057308 + 0.07135481627260025 * x * x))
    return F.gelu(x, approximate="tanh" if name == "gelu_tanh" else "none")


def activated(layer: nn.Module, name: Activation, x: Tensor) -> Tensor:
    """act(layer(x)). Our own kernel adds a plain layer's bias where it computes the activation, and sums its gradient there."""
    if plain(layer) and kernels.activates(x, layer.out_features):
        return kernels.activation(product(x, layer.weight), layer.bias, name)
    return activate(name, layer(x))


def gated(gate: nn.Module, up: nn.Module, name: Activation, x: Tensor) -> Tensor:
    """act(gate(x)) * up(x) (Shazeer, 2002.05202), where one product gives both without taking that apart."""
    joint = joined((gate, up), x)
    if joint is None:
        inner: Tensor = activate(name, gate(x)) * up(x)
        return inner
    if kernels.activates(joint, joint.shape[-1] // 2):
        return kernels.gated(joint, name)
    left, right = joint.chunk(2, dim=-1)
    return activate(name, left) * right
