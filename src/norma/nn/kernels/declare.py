"""What autograd, torch.compile and the flop counter must know of the operators: shapes, gradients, operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula


def declare() -> None:
    """Register all of it, once the operators are loaded."""
    torch.library.register_fake("norma_cpu::attention", _like_attention)
    torch.library.register_fake("norma_cpu::attention_backward", _like_backward)
    torch.library.register_autograd("norma_cpu::attention", _backward, setup_context=_keep)
    torch.library.register_fake("norma_cpu::rms_norm", lambda x, w, eps: (x.new_empty(x.shape), w.new_empty(x.numel() // x.shape[-1])))
    torch.library.register_fake("norma_cpu::rms_norm_backward", lambda grad, x, w, r: (x.new_empty(x.shape), w.new_empty(w.shape)))
    torch.library.register_fake("norma_cpu::weight_gradient", _like_weight)
    torch.library.register_fake("norma_cpu::add_weight_gradient", lambda to, grad, x: None)
    torch.library.register_autograd("norma_cpu::rms_norm", _norm_backward, setup_context=_norm_keep)
    torch.library.register_fake("norma_cpu::rotary", lambda x, cos, sin, back: _heads(x, x.shape[1], x.shape[2]))
    torch.library.register_autograd("norma_cpu::rotary", _turn_back, setup_context=_rotary_keep)
    torch.library.register_fake("norma_cpu::softmax_loss_", _like_losses)
    torch.library.register_fake("norma_cpu::layer_norm", _like_layer_norm)
    torch.library.register_fake(
        "norma_cpu::layer_norm_backward", lambda grad, x, w, kept: (x.new_empty(x.shape), w.new_empty(w.shape), w.new_empty(w.shape))
    )
    torch.library.register_autograd("norma_cpu::layer_norm", _layer_norm_backward, setup_context=_layer_norm_keep)
    torch.library.register_fake("norma_cpu::activation", lambda x, bias, name: x.new_empty(x.shape))
    torch.library.register_fake("norma_cpu::activation_backward", _like_activation_backward)
    torch.library.register_autograd("norma_cpu::activation", _activation_backward, setup_context=_activation_keep)
    torch.library.register_fake("norma_cpu::gated", lambda x, name: x.new_empty(*x.shape[:-1], x.shape[-1] // 2))
    torch.library.register_fake(
        "norma_cpu::gated_backward", lambda grad, x, name, again: (x.new_empty(x.shape), x.new_empty(grad.shape if again else (0,)))
    )
    torch.library.register_autograd("norma_cpu::gated", _gated_backward, setup_context=_gated_keep)
    register_flop_formula(torch.ops.norma_cpu.attention)(_flops)
    register_flop_formula(torch.ops.norma_cpu.attention_backward)(_backward_flops)
    register_flop_formula(torch.ops.norma_cpu.weight_gradient)(lambda grad, x, *rest, **more: 2 * grad[0] * grad[1] * x[1])
    register_flop_formula(torch.ops.norma_cpu.add_weight_gradient)(lambda to, grad, x, **more: 2 * grad[0] * grad[1] * x[1])


def _heads(like: Tensor, heads: int, length: int) -> Tensor:
    return like.new_empty(like.shape[0], length, heads, like.shape[3]).transpose(1, 2)


def _like_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    return _heads(q, q.shape[1], q.shape[2]), q.new_empty(q.shape[:3], dtype=torch.float32)


def _like_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, out: Tensor, lse: Tensor, causal: bool, scale: float, learn: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    to_k, to_v = _heads(k, k.shape[1], k.shape[2]), _heads(v, k.shape[1], k.shape[2])
    return _heads(q, q.shape[1], q.shape[2]), to_k, to_v, q.new_empty(int(learn), q.shape[1], q.shape[2], k.shape[2])


def _like_weight(grad: Tensor, x: Tensor, sum_too: bool) -> tuple[Tensor, Tensor]:
    width, single = grad.shape[1], torch.float32
    return grad.new_empty(width, x.shape[1], dtype=single), grad.new_empty(width if sum_too else 0, dtype=single)


def _like_losses(scores: Tensor, targets: Tensor, *rest: object) -> tuple[Tensor, Tensor]:
    return scores.new_empty(len(targets), dtype=torch.float32), scores.new_empty(len(targets), dtype=torch.float32)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, bias, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, bias, *output)


def _backward(ctx: Any, grad: Tensor, unused: Tensor | None) -> tuple[Tensor | None, ...]:
    learn = ctx.needs_input_grad[3]
    to_q, to_k, to_v, to_bias = torch.ops.norma_cpu.attention_backward(grad, *ctx.saved_tensors, ctx.causal, ctx.scale, learn)
    return to_q, to_k, to_v, to_bias if learn else None, None, None


def _norm_keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[0], inputs[1], output[1])


def _norm_backward(ctx: Any, grad: Tensor, unused: Tensor | None) -> tuple[Tensor, Tensor, None]:
    return (*torch.ops.norma_cpu.rms_norm_backward(grad, *ctx.saved_tensors), None)


def _rotary_keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1], inputs[2])
    ctx.back = inputs[3]


def _turn_back(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    return torch.ops.norma_cpu.rotary(grad, *ctx.saved_tensors, not ctx.back), None, None, None


def _like_layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(x.numel() // x.shape[-1], 2)


def _layer_norm_keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.biased = inputs[2] is not None
    ctx.save_for_backward(inputs[0], inputs[1], output[1])


def _layer_norm_backward(ctx: Any, grad: Tensor, unused: Tensor | None) -> tuple[Tensor | None, ...]:
    to_x, to_weight, to_bias = torch.ops.norma_cpu.layer_norm_backward(grad, *ctx.saved_tensors)
    return to_x, to_weight, to_bias if ctx.biased else None, None


def _like_activation_backward(grad: Tensor, x: Tensor, bias: Tensor | None, name: str, again: bool) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[-1], dtype=torch.float32), x.new_empty(x.shape if again else (0,))


def _activation_keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, bias, ctx.name = inputs
    ctx.save_for_backward(x, bias)


def _activation_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, bias = ctx.saved_tensors
    to_x, to_bias, _ = torch.ops.norma_cpu.activation_backward(grad, x, bias, ctx.name, False)
    return to_x, None if bias is None else to_bias.to(bias.dtype), None


def _gated_keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.name = inputs
    ctx.save_for_backward(x)


def _gated_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return torch.ops.norma_cpu.gated_backward(grad, *ctx.saved_tensors, ctx.name, False)[0], None


def _flops(q: tuple[int, ...], k: tuple[int, ...], *rest: object, **more: object) -> int:
    return 4 * q[0] * q[1] * q[2] * k[2] * q[3]


def _backward_flops(grad: tuple[int, ...], q: tuple[int, ...], k: tuple[int, ...], *rest: object, **more: object) -> int:
    return 10 * q[0] * q[1] * q[2] * k[2] * q[3]
