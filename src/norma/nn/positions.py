"""How a model knows where a token stands: rotary angles, sinusoids, relative buckets. Pure functions of positions.

Shapes: B batch (1 where all rows are alike), T queries, S keys, D features of a head, W width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from norma.nn import kernels
from norma.nn.config import ModelConfig, RotaryScaling


def follow(real_BT: Tensor) -> Tensor:
    """(B, T) int64: the position of each real token among the real ones; padding before the first has position 0."""
    return (real_BT.long().cumsum(1) - 1).clamp(min=0)


def frequencies(size: int, theta: float, scaling: RotaryScaling | None, device: torch.device) -> Tensor:
    """(size / 2,) fp32 angles a position turns by (RoFormer, 2104.09864, eq. 15), stretched as ``scaling`` says."""
    inverse = 1.0 / (theta ** (torch.arange(0, size, 2, device=device, dtype=torch.float32) / size))
    if scaling is None:
        return inverse
    if scaling.kind == "linear":  # position interpolation (2306.15595)
        return inverse / scaling.factor
    # Llama 3.1: long wavelengths are stretched, short ones stay, in between a blend (2407.21783, 3.4.2 and the released code).
    wavelength = 2 * math.pi / inverse
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    blend = ((scaling.original_positions / wavelength - low) / (high - low)).clamp(0.0, 1.0)
    return (1 - blend) * inverse / scaling.factor + blend * inverse


def rotary_table(config: ModelConfig, positions_BT: Tensor, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary angles, each (B, 1, T, rotary / 2), computed in fp32."""
    inverse = frequencies(config.rotary, theta, config.rope_scaling, positions_BT.device)
    angles = positions_BT[:, None, :, None].float() * inverse
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x_BHTD: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """Turn pairs of features by the angle of their position: pairs (i, i + n) of the first 2n features, or (2i, 2i + 1)."""
    if not interleaved and kernels.rotates(x_BHTD, cos):
        return kernels.rotary(x_BHTD, cos, sin)
    size = 2 * cos.shape[-1]
    turned, rest = (x_BHTD, None) if size == x_BHTD.shape[-1] else (x_BHTD[..., :size], x_BHTD[..., size:])
    if interleaved:
        first, second = turned[..., 0::2], turned[..., 1::2]
        out = torch.stack((first * cos - second * sin, second * cos + first * sin), dim=-1).flatten(-2)
    else:
        first, second = turned.chunk(2, dim=-1)
        out = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
    return out if rest is None else torch.cat((out, rest), dim=-1)


def sinusoids(positions_BT: Tensor, width: int) -> Tensor:
    """(B, T, W): sines in the first half, cosines in the second (1706.03762, 3.5; the paper interleaves them, the layout does not).

    Computed in fp64: at position 512 an fp32 angle is already off by 3e-5.
    """
    exponent = torch.arange(0, width, 2, device=positions_BT.device, dtype=torch.float64) / width
    angles = positions_BT[..., None].double() / 10000.0**exponent
    return torch.cat((angles.sin(), angles[..., : width // 2].cos()), dim=-1).float()


def relative_bucket(distance: Tensor, *, bidirectional: bool, buckets: int, farthest: int) -> Tensor:
    """T5's bucket of ``distance`` = key position - query position (1910.10683, 2.1): exact when near, logarithmic when far."""
    bucket = torch.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        bucket = (distance > 0).long() * buckets
        near = distance.abs()
    else:
        near = (-distance).clamp(min=0)
    exact = buckets // 2
    far = exact + (torch.log(near.clamp(min=1).float() / exact) / math.log(farthest / exact) * (buckets - exact)).long()
    return bucket + torch.where(near < exact, near, far.clamp(max=buckets - 1))
