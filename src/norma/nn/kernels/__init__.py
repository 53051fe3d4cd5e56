"""Operators of our own for a CPU, where PyTorch's leave much of the machine unused. Each has a fallback, so all of this is optional.

    norma.nn.attention.attend   ─┬→ fits()        ─→ attention()    attention.cpp
                                 └→ decodes()     ─→ decode()       decode.cpp
    norma.nn.layers.RMSNorm     ─┬→ norms()       ─→ rms_norm()     rms_norm.cpp
                      LayerNorm ─┘                └→ layer_norm()   layer_norm.cpp
    norma.nn.layers.activated   ─┬→ activates()   ─→ activation()   activation.cpp
                      gated     ─┘                └→ gated()
    norma.nn.layers.Linear      ───→ learns()      ─→ linear()       weight_gradient.cpp (linear.py)
    norma.nn.feed_forward       ───→ both          ─→ activated_linear()   the two in one (activated.py)
    norma.nn.positions.rotate   ───→ rotates()     ─→ rotary()       rotary.cpp
    norma.objectives.likelihood ───→ fits_scores() ─→ softmax_loss() softmax_loss.cpp

All are compiled at first use (build.py); what autograd and torch.compile know of them is in declare.py.

Letters: B texts, T queries, S keys, H heads, G key/value heads, D features of a head; N rows of V scores.
"""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from norma.base.platform import bf16_on_cpu
from norma.nn.kernels import build, declare

_left_out = False
_first = threading.Lock()
FOLDER = Path(__file__).parent
ROWS = 64  # rows from which a norm of our own pays
SCORES = 2**14  # scores of all rows from which their loss pays
FEWEST = 16  # queries from which attention pays: keys and values are laid out anew first, which a single query (generation) is not worth
TILE = 64  # queries, and keys, that it computes at one time, whether there are so many or not (attention.cpp, BLOCK)


def attention(q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor, bias: Tensor | None, causal: bool, scale: float) -> Tensor:
    """softmax(scale q k^T + bias) v in tiles, (B, H, T, D) with the heads of a token side by side; only where :func:`fits` says so.

    ``bias`` broadcasts to (B, H, T, S); ``causal``: no query sees keys after its own place, counted from the end. A query that sees
    nothing at all (all its scores are around ``norma.nn.mask.HIDDEN``) gets the mean of the values and passes no gradient.
    """
    out: Tensor = torch.ops.norma_cpu.attention(q_BHTD, k_BGSD, v_BGSD, bias, causal, scale)[0]
    return out


def fits(q_BHTD: Tensor, k_BGSD: Tensor, bias: Tensor | None, causal: bool, scale: float) -> bool:
    """Whether :func:`attention` takes these, and has been built."""
    if q_BHTD.device.type != "cpu" or q_BHTD.dtype not in (torch.float32, torch.bfloat16) or k_BGSD.dtype != q_BHTD.dtype:
        return False
    _, H, T, D = q_BHTD.shape
    S = k_BGSD.shape[2]
    if T < FEWEST or (causal and T > S) or D % 32 or scale <= 0:
        return False
    if bias is not None and (bias.dtype != q_BHTD.dtype or (bias.requires_grad and bias.shape != (1, H, T, S))):
        return False
    built: bool = ready(q_BHTD.dtype)
    return built


def pays(queries: int, keys: int) -> bool:
    """Whether :func:`attention` is worth what its tiles compute for nothing.

    Always on AVX-512. On AVX2 in fp32 PyTorch's products are faster by 2 at 32 tokens and by 1.25 at 96; slower by 1.05 at 64, by 1.2 at
    128 and by 1.3 at 256.
    """
    return wide() or -(-queries // TILE) * -(-keys // TILE) * TILE**2 <= 1.5 * queries * keys


def decode(q_BH1D: Tensor, k_RGSD: Tensor, v_RGSD: Tensor, begin_B: Tensor, end_B: Tensor, rows_B: Tensor | None, scale: float) -> Tensor:
    """Attention of one query a row to slots ``begin`` up to ``end`` of its keys, (B, H, 1, D); only where :func:`decodes` says so.

    ``rows`` (B,) names the row of keys that each query reads; None: its own. A row's numbers depend on that row alone.
    """
    out: Tensor = torch.ops.norma_cpu.decode(q_BH1D, k_RGSD, v_RGSD, begin_B, end_B, rows_B, scale)
    return out


def decodes(q_BHTD: Tensor, k_RGSD: Tensor) -> bool:
    """Whether :func:`decode` takes these, and has been built. It has no backward pass."""
    if q_BHTD.device.type != "cpu" or q_BHTD.dtype not in (torch.float32, torch.bfloat16) or k_RGSD.dtype != q_BHTD.dtype:
        return False
    _, _, T, D = q_BHTD.shape
    return bool(T == 1 and D % 32 == 0 and not torch.is_grad_enabled() and not torch.compiler.is_compiling() and ready(q_BHTD.dtype))


def rms_norm(x: Tensor, weight_W: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) weight over the last axis, in the type of ``x``; only where :func:`norms` says so."""
    out: Tensor = torch.ops.norma_cpu.rms_norm(x, weight_W, eps)[0]
    return out


def layer_norm(x: Tensor, weight_W: Tensor, bias_W: Tensor | None, eps: float) -> Tensor:
    """(x - mean) / sqrt(var + eps) weight + bias over the last axis, in the type of ``x``; only where :func:`norms` says so."""
    out: Tensor = torch.ops.norma_cpu.layer_norm(x, weight_W, bias_W, eps)[0]
    return out


def norms(x: Tensor, weight_W: Tensor) -> bool:
    """Whether :func:`rms_norm` and :func:`layer_norm` take these, and have been built.

    Compiled code is left alone: there a norm is fused with its neighbours.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.bfloat16):
        return False
    width = x.shape[-1]
    return bool(weight_W.dtype == torch.float32 and width % 32 == 0 and x.numel() >= ROWS * width and ready(x.dtype))


def rotary(x_BHTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs (i, i + n) of the first 2n features turned by angles (B or 1, 1, T, n), (B, H, T, D); where :func:`rotates` says so."""
    out: Tensor = torch.ops.norma_cpu.rotary(x_BHTD, cos, sin, False)
    return out


def rotates(x_BHTD: Tensor, cos: Tensor) -> bool:
    """Whether :func:`rotary` takes these, and has been built. Compiled code is left alone, as with norms; few tokens are not worth it."""
    if torch.compiler.is_compiling() or x_BHTD.device.type != "cpu" or x_BHTD.dtype not in (torch.float32, torch.bfloat16):
        return False
    many = x_BHTD.shape[0] * x_BHTD.shape[2] >= ROWS
    return bool(many and cos.dtype == x_BHTD.dtype and cos.shape[1] == 1 and cos.shape[3] % 32 == 0 and ready(x_BHTD.dtype))


def softmax_loss(
    scores_NV: Tensor,
    targets_N: Tensor,
    *,
    bias_V: Tensor | None = None,
    factor_N: Tensor | None = None,
    softcap: float | None = None,
    temperature: float = 1.0,
    z_loss: float = 0.0,
    smoothing: float = 0.0,
    gradient: bool = True,
) -> tuple[Tensor, Tensor]:
    """((N,) losses, (N,) -log p(target) in nats), fp32; with ``gradient`` the gradient OVERWRITES the scores. Where :func:`fits_scores`.

    A loss is -log softmax(cap tanh((score + bias) / cap) / temperature) of the target, smoothed, and with its z-loss. The gradient is that
    of the sum of ``factor`` times loss; no ``factor``: of their sum. Raises IndexError for a target that is none of the V.
    """
    how = (softcap or 0.0, temperature, z_loss, smoothing, gradient)
    losses, nats = torch.ops.norma_cpu.softmax_loss_(scores_NV, targets_N, bias_V, factor_N, *how)
    return losses, nats


def fits_scores(scores_NV: Tensor) -> bool:
    """Whether :func:`softmax_loss` takes these, and has been built."""
    if scores_NV.device.type != "cpu" or scores_NV.dtype not in (torch.float32, torch.bfloat16):
        return False
    return bool(scores_NV.is_contiguous() and scores_NV.numel() >= SCORES and ready(scores_NV.dtype))


def activation(x: Tensor, bias_F: Tensor | None, name: str) -> Tensor:
    """act(x + bias), ``name`` as in ``ModelConfig.activation``, in the type of ``x`` (..., F); only where :func:`activates` says so."""
    out: Tensor = torch.ops.norma_cpu.activation(x, bias_F, name)
    return out


def gated(x: Tensor, name: str) -> Tensor:
    """act(g) u of g and u side by side in ``x`` (..., 2 F); only where :func:`activates` says so of F features."""
    out: Tensor = torch.ops.norma_cpu.gated(x, name)
    return out


def activates(x: Tensor, features: int) -> bool:
    """Whether :func:`activation` and :func:`gated` take rows of ``features`` of the type of ``x`` (..., W), and have been built."""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.bfloat16):
        return False
    return bool(features % 32 == 0 and x.numel() >= ROWS * x.shape[-1] and ready(x.dtype))


def wide() -> bool:
    """Whether vectors have 512 bits: on 256, PyTorch's layer norm in fp32 is at least as fast as ours (RMS norm is not, by 1.8 to 4)."""
    capability: str = torch.backends.cpu.get_cpu_capability()
    return capability == "AVX512"


def ready(dtype: torch.dtype) -> bool:
    """Whether there is a kernel for this type. The first call builds it."""
    return not _left_out and (dtype == torch.float32 or takes_bf16()) and state() is None


# One answer for a whole process: torch.compile asks once. torch.compiler.assume_constant_result says so too, and loads the compiler for
# it: 1.7 s in each command that needs none.
for question in (wide, ready):
    question._dynamo_marked_constant = True  # type: ignore[union-attr]


def takes_bf16() -> bool:
    """Whether there are kernels for bf16: where it is arithmetic, which is where vectors are wide."""
    return bf16_on_cpu() and wide()


def leave_out(out: bool) -> None:
    """From now on do without the kernels, or with them again: a run goes on as it began, since its last bits depend on them."""
    global _left_out
    _left_out = out


@cache
def state() -> str | None:
    """None when the kernels are loaded (they are built now, if need be); else why they are not."""
    with _first:  # two threads may ask first at one time, and an operator that is declared twice is an error
        return _loaded()


@cache
def _loaded() -> str | None:
    why = build.load(FOLDER)
    if why is None:
        declare.declare()
    return why
