"""Log-likelihood of target tokens from hidden states, without ever holding the full matrix of logits.

Letters: N tokens, W width, V vocabulary. The head's product is made a chunk of tokens at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from norma.nn import kernels
from norma.nn.kernels.linear import add_weight_gradient, adds
from norma.text.packing import IGNORE

CHUNK = 2048  # tokens whose logits exist at one time


def cross_entropy_sum(
    hidden_NW: Tensor,
    weight_VW: Tensor,
    targets_N: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    compiled: bool = False,
) -> Tensor:
    """Sum of -log p(target) in nats over the targets that are not ``IGNORE``: generative language modelling.

    L = -sum_t log p(x_t | x_<t)            (GPT-1, Radford et al. 2018, eq. 1)

    A sum, not a mean: the caller divides by the number of targets of the whole step, so that gradient accumulation,
    padding and ranks do not change the gradient. Gradients are made in the forward pass, chunk by chunk.

    Scores are hidden weight^T + ``bias`` (V,), then cap * tanh(scores / cap) where there is a ``softcap`` (Gemma 2, 2408.00118).
    ``compiled``: what happens between the matrix products is one fused kernel made by torch.compile.
    """
    return cross_entropy(hidden_NW, weight_VW, targets_N, bias=bias, softcap=softcap, compiled=compiled)[0]


def cross_entropy(
    hidden_NW: Tensor,
    weight_VW: Tensor,
    targets_N: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    compiled: bool = False,
    z_loss: float = 0.0,
    smoothing: float = 0.0,
    weights_N: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """(what is minimised, a sum; -log p(target) in nats of each target that is not ``IGNORE``, (M,), in order, without gradient).

    Arguments as :func:`cross_entropy_sum`, and
        z_loss: that many times the squared logarithm of the softmax's sum is added, which keeps scores from drifting (PaLM,
            2204.02311, section 5: 1e-4).
        smoothing: this share of the target is spread over the whole vocabulary (label smoothing, 1512.00567, section 7).
        weights_N: how much each target counts, fp32. Below 0 it is to be unlikely: |w| times -log(1 - p(target)) (unlikelihood,
            1908.04319, eq. 4). Not together with the two above.
    """
    if weights_N is not None and (z_loss or smoothing):
        raise ValueError("weights of targets go with neither z_loss nor smoothing")
    if not torch.is_grad_enabled():  # inside a Function this can no longer be told, and the gradients cost twice the loss
        hidden_NW, weight_VW, bias = hidden_NW.detach(), weight_VW.detach(), None if bias is None else bias.detach()
    kept = targets_N != IGNORE
    if not bool(kept.all()):
        hidden_NW, targets_N = hidden_NW[kept], targets_N[kept]
        weights_N = None if weights_N is None else weights_N[kept]
    how = (softcap, compiled, z_loss, smoothing)
    loss: tuple[Tensor, Tensor] = _CrossEntropy.apply(hidden_NW, weight_VW, targets_N, bias, weights_N, *how)  # type: ignore[no-untyped-call]  # torch has no types here
    return loss


class _Sums:
    """The gradients that chunks add to; None where nobody asks: a frozen head (LoRA) has none."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, asked: tuple[bool, ...]) -> None:
        self.hidden = torch.empty_like(hidden) if asked[0] else None
        self.weight = torch.zeros_like(weight) if asked[1] else None
        self.bias = torch.zeros_like(bias) if bias is not None and asked[3] else None

    def add(self, rows: slice, p: Tensor, h: Tensor, w: Tensor) -> None:
        """``p``: the gradient by the scores of some rows, ``h`` their hidden states."""
        if self.bias is not None:
            self.bias += p.sum(0, dtype=torch.float32)
        if self.hidden is not None:
            torch.mm(p, w, out=self.hidden[rows])
        if self.weight is not None and adds(self.weight, p):
            add_weight_gradient(self.weight, p, h)
        elif self.weight is not None:
            self.weight += torch.mm(p.t(), h)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        bias: Tensor | None,
        weights: Tensor | None,
        softcap: float | None,
        compiled: bool,
        z_loss: float,
        smoothing: float,
    ) -> tuple[Tensor, Tensor]:
        w, sums, learns = weight.to(hidden.dtype), _Sums(hidden, weight, bias, ctx.needs_input_grad), any(ctx.needs_input_grad)
        total, every = hidden.new_zeros((), dtype=torch.float32), hidden.new_empty(len(targets), dtype=torch.float32)
        for start in range(0, len(targets), CHUNK):
            rows = slice(start, start + CHUNK)
            h = hidden[rows]
            minimised, nats, p = nats_and_gradient(
                F.linear(h, w), targets[rows], bias, softcap, z_loss, smoothing, gradient=learns, compiled=compiled
            )
            if weights is not None:
                minimised, factor = weighted(nats, weights[rows])
                p *= factor[:, None].to(p.dtype)
            total += minimised
            every[rows] = nats
            if learns:
                sums.add(rows, p, h, w)
        ctx.sums = sums
        ctx.mark_non_differentiable(every)
        return total, every

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        sums, scale = ctx.sums, grad_outputs[0]
        hidden = None if sums.hidden is None else sums.hidden * scale.to(sums.hidden.dtype)
        weight, bias = (None if grad is None else grad * scale for grad in (sums.weight, sums.bias))
        return hidden, weight, None, bias, None, None, None, None, None


def weighted(nats_N: Tensor, weights_N: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of the losses of targets with weights, (N,) by what the gradient of -log p is multiplied).

    -log(1 - p) has the gradient p / (1 - p) times that of log p: one direction serves both signs.
    """
    p = (-nats_N).exp().clamp(max=1 - 1e-6)
    losses = torch.where(weights_N >= 0, weights_N * nats_N, weights_N * torch.log1p(-p))
    return losses.sum(), torch.where(weights_N >= 0, weights_N, weights_N * p / (1 - p))


def nats_and_gradient(
    raw_NV: Tensor,
    targets_N: Tensor,
    bias: Tensor | None,
    softcap: float | None,
    z_loss: float = 0.0,
    smoothing: float = 0.0,
    temperature: float = 1.0,
    factor_N: Tensor | None = None,
    *,
    gradient: bool = True,
    compiled: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """(the sum that is minimised, -log p(target) of each (N,), the sum's gradient (N, V) by the raw scores, in their type).

    Finished scores are divided by ``temperature``; ``factor`` (N,) multiplies each row's gradient. The gradient may stand where the raw
    scores stood; without ``gradient`` it may be anything.
    """
    if kernels.fits_scores(raw_NV):
        how: dict[str, Any] = {"softcap": softcap, "temperature": temperature, "z_loss": z_loss, "smoothing": smoothing}
        losses, nats = kernels.softmax_loss(raw_NV, targets_N, bias_V=bias, factor_N=factor_N, gradient=gradient, **how)
        return losses.sum(), nats, raw_NV
    between = _fused() if compiled else written_out
    return between(raw_NV, targets_N, bias, softcap, z_loss, smoothing, temperature, factor_N, gradient)


def written_out(
    raw_NV: Tensor,
    targets_N: Tensor,
    bias: Tensor | None,
    softcap: float | None,
    z_loss: float,
    smoothing: float,
    temperature: float,
    factor_N: Tensor | None,
    gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`nats_and_gradient` in PyTorch's operators."""
    capped = _finish(raw_NV, bias, softcap)
    scores = capped if temperature == 1.0 else capped / temperature
    log_p = F.log_softmax(scores, dim=-1)
    nats = -log_p.gather(1, targets_N[:, None]).squeeze(1)
    minimised, grow = nats.sum(), None
    spread = smoothing / raw_NV.shape[1]
    if smoothing:
        minimised = (1 - smoothing) * minimised - spread * log_p.sum()
    if z_loss:
        log_z = scores[:, :1] - log_p[:, :1]
        minimised, grow = minimised + z_loss * log_z.square().sum(), 1.0 + 2.0 * z_loss * log_z
    if not gradient:
        return minimised, nats, raw_NV
    # d(-log p_t) / d score = p - onehot. A kernel compares while it writes; step by step, touching the N places is cheaper.
    if torch.compiler.is_compiling():
        here = torch.arange(raw_NV.shape[1], device=raw_NV.device) == targets_N[:, None]
        p = (log_p.exp() if grow is None else log_p.exp() * grow) - (1 - smoothing) * here.float()
        p = p - spread if smoothing else p
    else:
        p = log_p.exp_()
        if grow is not None:
            p *= grow
        p[torch.arange(len(targets_N), device=targets_N.device), targets_N] -= 1 - smoothing
        if smoothing:
            p -= spread
    if softcap is not None:
        p = p * (1.0 - (capped / softcap).square())  # d cap tanh(x / cap) / dx
    if temperature != 1.0:
        p /= temperature
    if factor_N is not None:
        p *= factor_N[:, None]
    return minimised, nats, p.to(raw_NV.dtype)


@cache
def _fused() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    return torch.compile(written_out, dynamic=False)


def _finish(raw: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    """Scores in fp32 of what the head's product gives."""
    scores = raw.float() if bias is None else raw.float() + bias
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def token_logprobs(
    hidden_NW: Tensor,
    weight_VW: Tensor,
    targets_N: Tensor,
    temperature: float = 1.0,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
) -> Tensor:
    """log p(target) in nats for every token, (N,) fp32, differentiable; logits are divided by ``temperature`` first.

    Each chunk's logits are made again in the backward pass, so memory does not grow with V.
    """
    log_p: Tensor = _LogProbs.apply(hidden_NW, weight_VW, targets_N, bias, temperature, softcap)  # type: ignore[no-untyped-call]  # torch has no types here
    return log_p


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, temperature: float, softcap: float | None
    ) -> Tensor:
        w, log_p = weight.to(hidden.dtype), hidden.new_empty(len(targets), dtype=torch.float32)
        for start in range(0, len(targets), CHUNK):
            rows = slice(start, start + CHUNK)
            raw = F.linear(hidden[rows], w)
            log_p[rows] = -nats_and_gradient(raw, targets[rows], bias, softcap, temperature=temperature, gradient=False)[1]
        ctx.save_for_backward(hidden, weight, targets, bias)
        ctx.how = {"softcap": softcap, "temperature": temperature}
        return log_p

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, bias = ctx.saved_tensors
        w, sums = weight.to(hidden.dtype), _Sums(hidden, weight, bias, ctx.needs_input_grad)
        for start in range(0, len(targets), CHUNK):
            rows = slice(start, start + CHUNK)
            h = hidden[rows]
            sums.add(rows, nats_and_gradient(F.linear(h, w), targets[rows], bias, factor_N=-grad_outputs[0][rows], **ctx.how)[2], h, w)
        return sums.hidden, sums.weight, None, sums.bias, None, None
