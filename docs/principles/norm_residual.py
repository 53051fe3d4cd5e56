"""Layer norm and residuals speed up training: loss curves of the full block and with each taken away.

    full           x + f(norm(x))        without norms     x + f(x)
    no residuals   f(norm(x))            without both      f(x)

The product has no switch for this. Norms are taken away by setting a block's norms (and the stack's last one) to None, which a pre-norm
block reads as "none"; residuals by `Chain`, a subclass of Block whose only change is that nothing is added. Every variant gets the
learning rate that ends lowest for it, from the same list, and the same seeds and batches. Feed-forward layers are the first paper's kind,
act(x W_up) W_down: a gated one multiplies two outputs, and without norms its values explode before anything is learnt.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common import BLUE, GREEN, ORANGE, RED, Text, figure, fit, read_text, run, text_loss, transformer
from torch import Tensor, nn

from norma.nn import Transformer
from norma.nn.block import Block

VARIANTS = {"full": (True, True), "without norms": (False, True), "without residuals": (True, False), "without both": (False, False)}

UNGATED: dict[str, Any] = {"gated": False, "activation": "gelu"}


class Chain(Block):
    """A block whose sublayers follow each other without a way around them."""

    def _residual(self, x: Tensor, sublayer: Callable[[Tensor], Tensor], norm: nn.Module | None, output_norm: nn.Module | None) -> Tensor:
        return sublayer(x if norm is None else norm(x))


def variant(model: Transformer, norms: bool, residuals: bool) -> Transformer:
    """``model`` changed in place."""
    assert model.decoder is not None and model.config.norm_placement == "pre"
    for block in model.decoder.blocks:
        if not norms:
            block.attention_norm = block.feed_forward_norm = None
        if not residuals:
            block.__class__ = Chain
    if not norms:
        model.decoder.norm = None
    return model


def measure(
    text: Text | None = None, width: int = 128, layers: int = 6, steps: int = 200, rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
) -> dict[str, Any]:
    text = text or read_text(held_out=40_000)
    batches = text.batches(size=8)
    vocabulary = text.tokenizer.backend.get_vocab_size()
    result: dict[str, Any] = {"layers": layers, "width": width, "steps": steps, "rates": list(rates), "variants": {}}
    for name, (norms, residuals) in VARIANTS.items():
        runs = []
        for rate in rates:
            model = variant(transformer(vocabulary, width, layers, **UNGATED), norms, residuals)
            losses = fit(model, text_loss(model, batches), steps, learning_rate=rate)
            last = losses[-max(1, steps // 10) :]
            end = sum(last) / len(last)
            runs.append({"rate": rate, "end": end if end == end else float("inf"), "losses": losses, "model": model})
            print(name, rate, end, flush=True)
        best = min(runs, key=lambda run: run["end"])
        result["variants"][name] = {
            "best rate": best["rate"],
            "ends": [run["end"] if run["end"] < 1e9 else None for run in runs],  # None: it diverged
            "bits per byte": text.bits_per_byte(best["model"]),
            "losses": [round(x, 4) for x in best["losses"]],
        }
    full = result["variants"]["full"]["losses"]
    for found in result["variants"].values():
        found["full is there after steps"] = reached(full, _mean(found["losses"][-max(1, steps // 10) :]))
    return result


def reached(losses: list[float], level: float, span: int = 10) -> int:
    """The first step after which the mean loss of ``span`` steps is at most ``level``; all steps when that never happens."""
    return next((i + span for i in range(len(losses) - span + 1) if _mean(losses[i : i + span]) <= level), len(losses))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def draw(result: dict[str, Any]) -> Any:
    drawn, axes = figure(f"Layer norm and residuals speed up training ({result['layers']} layers)", "层归一化与残差连接加速训练", 2, 4.0)
    for (name, found), colour, line in zip(result["variants"].items(), (BLUE, ORANGE, GREEN, RED), ("-", "--", "-.", ":"), strict=True):
        smooth = [_mean(found["losses"][max(0, i - 9) : i + 1]) for i in range(len(found["losses"]))]
        axes[0].plot(range(1, len(smooth) + 1), smooth, line, color=colour, label=f"{name} (learning rate {found['best rate']:g})")
        points = [(rate, end) for rate, end in zip(result["rates"], found["ends"], strict=True) if end is not None]
        axes[1].plot(*zip(*points, strict=True), line, marker="o", color=colour)
    most = max(result["variants"]["full"]["losses"]) + 0.5  # what diverges leaves the picture
    axes[0].set(xlabel="steps", ylabel="loss (nats a token, mean of 10 steps)", ylim=(None, most))
    axes[0].legend(fontsize=7.5)
    axes[1].set(xscale="log", xlabel="learning rate", ylabel="loss at the end (nats a token)", ylim=(None, most))
    return drawn


if __name__ == "__main__":
    run("norm_residual", measure, draw)
