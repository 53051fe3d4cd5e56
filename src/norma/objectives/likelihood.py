"""Log-likelihood of target tokens from hidden states, without ever holding the full matrix of logits.

Letters: N tokens, W width, V vocabulary. The head's product is made a chunk of tokens at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor
from torch.nn import functional as F

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
        w, between = weight.to(hidden.dtype), _fused() if compiled else nats_and_gradient
        needs = any(ctx.needs_input_grad)
        grad_hidden = torch.empty_like(hidden) if needs else None
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None  # a frozen head (LoRA) asks for none
        grad_bias = torch.zeros_like(bias) if needs and bias is not None else None
        total, every = hidden.new_zeros((), dtype=torch.float32), hidden.new_empty(len(targets), dtype=torch.float32)
        for start in range(0, len(targets), CHUNK):
            h, t = hidden[start : start + CHUNK], targets[start : start + CHUNK]
            minimised, nats, p = between(F.linear(h, w), t, bias, softcap, z_loss, smoothing)
            if weights is not None:
                minimised, factor = weighted(nats, weights[start : start + CHUNK])
                p *= factor[:, None].to(p.dtype)
            total += minimised
            every[start : start + CHUNK] = nats
            if grad_bias is not None:
                grad_bias += p.sum(0, dtype=torch.float32)
            if grad_hidden is not None:
                torch.mm(p, w, out=grad_hidden[start : start + CHUNK])
            if grad_weight is not None and adds(grad_weight, p):
                add_weight_gradient(grad_weight, p, h)
            elif grad_weight is not None:
                grad_weight += torch.mm(p.t(), h)
        ctx.grads = (grad_hidden, grad_weight, grad_bias)
        ctx.mark_non_differentiable(every)
        return total, every

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = grad_outputs[0]
        grad_hidden, grad_weight, grad_bias = ctx.grads
        bias, weight = (None if grad is None else grad * scale for grad in (grad_bias, grad_weight))
        return grad_hidden * scale.to(grad_hidden.dtype), weight, None, bias, None, None, None, None, None


def weighted(nats_N: Tensor, weights_N: Tensor) -> tuple[Tensor, Tensor]:
    """(sum of the losses of targets with weights, (N,) by what the gradient of -log p is multiplied).

    -log(1 - p) has the gradient p / (1 - p) times that of log p: one direction serves both signs.
    """
    p = (-nats_N).exp().clamp(max=1 - 1e-6)
    losses = torch.where(weights_N >= 0, weights_N * nats_N, weights_N * torch.log1p(-p))
    return losses.sum(), torch.where(weights_N >= 0, weights_N, weights_N * p / (1 - p))


def nats_and_gradient(
    raw_NV: Tensor, targets_N: Tensor, bias: Tensor | None, softcap: float | None, z_loss: float = 0.0, smoothing: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """(the sum that is minimised, -log p(target) of each (N,), the sum's gradient (N, V) by the raw scores, in their type)."""
    scores = _finish(raw_NV, bias, softcap)
    log_p = F.log_softmax(scores, dim=-1)
    nats = -log_p.gather(1, targets_N[:, None]).squeeze(1)
    minimised, grow = nats.sum(), None
    spread = smoothing / raw_NV.shape[1]
    if smoothing:
        minimised = (1 - smoothing) * minimised - spread * log_p.sum()
    if z_loss:
        log_z = scores[:, :1] - log_p[:, :1]
        minimised, grow = minimised + z_loss * log_z.square().sum(), 1.0 + 2.0 * z_loss * log_z
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
        p = p * (1.0 - (scores / softcap).square())  # d cap tanh(x / cap) / dx
    return minimised, nats, p.to(raw_NV.dtype)


@cache
def _fused() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    return torch.compile(nats_and_gradient, dynamic=False)


def _finish(raw: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    """Scores in fp32 of what the head's product gives."""
    scores = raw.float() if bias is None else raw.float() + bias
    return scores if softcap is None else softcap * torch.tanh(scores / softcap)


def _scores(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    return _finish(F.linear(hidden, weight), bias, softcap)


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
    chunks = [
        torch.utils.checkpoint.checkpoint(_chunk_logprobs, h, weight_VW, t, temperature, bias, softcap, use_reentrant=False)
        for h, t in zip(torch.split(hidden_NW, CHUNK), torch.split(targets_N, CHUNK), strict=True)
    ]
    return torch.cat(chunks) if chunks else hidden_NW.new_zeros(0, dtype=torch.float32)


def _chunk_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, bias: Tensor | None, softcap: float | None
) -> Tensor:
    logits = _scores(hidden, weight.to(hidden.dtype), bias, softcap) / temperature
    return logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(dim=-1)
