"""Log-likelihood of target tokens from hidden states, without ever holding the full matrix of logits.

Letters: N tokens, W width, V vocabulary. The head's product is made a chunk of tokens at a time.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor
from torch.nn import functional as F

from norma.text.packing import IGNORE

CHUNK = 2048  # tokens whose logits exist at one time


def cross_entropy_sum(hidden_NW: Tensor, weight_VW: Tensor, targets_N: Tensor) -> Tensor:
    """Sum of -log p(target) in nats over the targets that are not ``IGNORE``: generative language modelling.

    L = -sum_t log p(x_t | x_<t)            (GPT-1, Radford et al. 2018, eq. 1)

    A sum, not a mean: the caller divides by the number of targets of the whole step, so that gradient accumulation,
    padding and ranks do not change the gradient. Gradients of both arguments are made in the forward pass, chunk by chunk.
    """
    if not torch.is_grad_enabled():  # inside a Function this can no longer be told, and the gradients cost twice the loss
        hidden_NW, weight_VW = hidden_NW.detach(), weight_VW.detach()
    kept = targets_N != IGNORE
    if not bool(kept.all()):
        hidden_NW, targets_N = hidden_NW[kept], targets_N[kept]
    loss: Tensor = _CrossEntropySum.apply(hidden_NW, weight_VW, targets_N)  # type: ignore[no-untyped-call]  # torch has no types here
    return loss


class _CrossEntropySum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        w = weight.to(hidden.dtype)
        needs = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        grad_hidden = torch.empty_like(hidden) if needs else None
        grad_weight = torch.zeros_like(weight) if needs else None
        total = hidden.new_zeros((), dtype=torch.float32)
        for start in range(0, len(targets), CHUNK):
            h, t = hidden[start : start + CHUNK], targets[start : start + CHUNK]
            log_p = F.log_softmax(F.linear(h, w).float(), dim=-1)
            total -= log_p.gather(1, t[:, None]).sum()
            if grad_hidden is not None and grad_weight is not None:
                p = log_p.exp_()
                p[torch.arange(len(t), device=t.device), t] -= 1.0  # d(-log p_t)/d logits = p - onehot
                p = p.to(hidden.dtype)
                torch.mm(p, w, out=grad_hidden[start : start + CHUNK])
                grad_weight += torch.mm(p.t(), h)
        ctx.grads = (grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (scale,) = grad_outputs
        grad_hidden, grad_weight = ctx.grads
        return grad_hidden * scale.to(grad_hidden.dtype), grad_weight * scale, None


def token_logprobs(hidden_NW: Tensor, weight_VW: Tensor, targets_N: Tensor, temperature: float = 1.0) -> Tensor:
    """log p(target) in nats for every token, (N,) fp32, differentiable; logits are divided by ``temperature`` first.

    Each chunk's logits are made again in the backward pass, so memory does not grow with V.
    """
    chunks = [
        torch.utils.checkpoint.checkpoint(_chunk_logprobs, h, weight_VW, t, temperature, use_reentrant=False)
        for h, t in zip(torch.split(hidden_NW, CHUNK), torch.split(targets_N, CHUNK), strict=True)
    ]
    return torch.cat(chunks) if chunks else hidden_NW.new_zeros(0, dtype=torch.float32)


def _chunk_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
    logits = F.linear(hidden, weight.to(hidden.dtype)).float() / temperature
    return logits.gather(1, targets[:, None]).squeeze(1) - logits.logsumexp(dim=-1)
