"""Weights of 8 or 4 bits for serving: torch's own kernels, on the CPU too.

    Linear (out, in) fp32 ─→ int8: a scale for each row                     ─→ torch._weight_int8pack_mm
                          ─→ int4: a scale and a zero for 32 weights in row ─→ aten._weight_int4pack_mm_for_cpu

Rounding to nearest, no calibration data (as in Dettmers et al., 2208.07339, section 2.1, without outliers). Activations are bf16, for which
these kernels are made: in fp32 they are many times slower than a plain product. Embedding, head, norms, biases, routers and experts stay
as they are. torchao was looked at (0.18): its int8 works on a CPU but is ten times slower there than a plain product when not compiled;
its int4 needs CUDA or mslk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from norma.base.errors import NormaError
from norma.lm.model import LanguageModel
from norma.nn.layers import Linear

GROUP = 32  # weights that share a scale in int4
Kind = Literal["int8", "int4"]


class Int8Linear(nn.Module):
    """y = x (s q)^T + b with int8 q (out, in) and a bf16 scale s for each row."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        q, scale = int8(weight)
        self.q, self.scale = nn.Buffer(q), nn.Buffer(scale.to(torch.bfloat16))
        self.bias = None if bias is None else nn.Buffer(bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).to(torch.bfloat16)
        out: Tensor = torch._weight_int8pack_mm(flat, self.q, self.scale)
        return _finished(out, x, self.bias)


class Int4Linear(nn.Module):
    """y = x W^T + b with two 4-bit weights in a byte; scale and zero, bf16, for each :data:`GROUP` weights of a row."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        q, scale, zero = int4(weight)
        self.q = nn.Buffer(torch.ops.aten._convert_weight_to_int4pack_for_cpu(q, 1))
        self.scale_zero = nn.Buffer(torch.stack((scale, zero), dim=-1).transpose(0, 1).contiguous().to(torch.bfloat16))
        self.bias = None if bias is None else nn.Buffer(bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).to(torch.bfloat16).contiguous()
        out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(flat, self.q, GROUP, self.scale_zero)
        return _finished(out, x, self.bias)


def _finished(out: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    out = out.reshape(*x.shape[:-1], -1).to(x.dtype)
    return out if bias is None else out + bias.to(x.dtype)


def int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(q, scale): weight ~ q * scale; q (out, in) int8 in [-127, 127], scale (out,) fp32."""
    scale = (weight.detach().float().abs().amax(dim=1) / 127).clamp(min=1e-10)
    return (weight.detach().float() / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def int4(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(q, scale, zero): weight ~ (q - 8) * scale + zero; q (out, in) int32 in [0, 15], scale and zero (out, in / GROUP) fp32."""
    groups = weight.detach().float().reshape(len(weight), -1, GROUP)
    low, high = groups.amin(dim=-1), groups.amax(dim=-1)
    scale = ((high - low) / 15).clamp(min=1e-10)
    q = ((groups - low[..., None]) / scale[..., None]).round().clamp(0, 15)
    return q.flatten(1).to(torch.int32), scale, low + 8 * scale


@dataclass(frozen=True)
class Shrunk:
    """What became of a model: linear layers that were changed, and bytes of all weights before and after."""

    layers: int
    before: int
    after: int


def quantise(model: LanguageModel, kind: Kind) -> Shrunk:
    """Change a model's linear layers in place; it can be served, not trained or saved. Raises NormaError where nothing can be changed."""
    if model.transformer.device.type != "cpu" and kind == "int4":
        raise NormaError("4-bit weights are for the CPU here", where=model.name, mend="Use --weights int8")
    before, changed = weight_bytes(model.transformer), 0
    for parent in list(model.transformer.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is not Linear or name == "head" or "router" in name:
                continue
            wide = child.in_features
            # The kernels do not check their blocks: a width that is no multiple of 16 reads beyond the weights (torch 2.13: a crash).
            if wide % (GROUP if kind == "int4" else 16) or (kind == "int4" and child.out_features % 16):
                continue
            made = Int8Linear(child.weight, child.bias) if kind == "int8" else Int4Linear(child.weight, child.bias)
            setattr(parent, name, made)
            changed += 1
    if not changed:
        raise NormaError(f"no layer of this model fits {kind}", where=model.name, mend="Serve it with --weights float")
    return Shrunk(changed, before, weight_bytes(model.transformer))


def weight_bytes(network: nn.Module) -> int:
    """Bytes of all parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))
