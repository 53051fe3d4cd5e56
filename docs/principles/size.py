"""Large models carry more: held-out bits per byte against the number of parameters, every model having read the same tokens.

Four decoders from one mould (heads of 32 features, feed-forward 8/3 x width). Each learns with a rate three times as high as before
until that makes it worse, and the best counts: no size wins by a rate that happens to suit it (a larger model wants a smaller one).
"""

from __future__ import annotations

from typing import Any

import torch
from common import BLUE, SKY, Text, figure, fit, parameters, read_text, run, text_loss, transformer

SHAPES = ((32, 2), (64, 3), (128, 4), (256, 5))  # width, layers


def measure(
    text: Text | None = None, shapes: tuple[tuple[int, int], ...] = SHAPES, first_rate: float = 2e-3, steps: int = 500
) -> dict[str, Any]:
    text = text or read_text()
    batches, vocabulary = text.batches(), text.tokenizer.backend.get_vocab_size()
    result: dict[str, Any] = {"steps": steps, "tokens": steps * batches.size * batches.length, "models": []}
    for width, layers in shapes:
        rate, found, better = first_rate, dict[float, float](), True
        while better:
            model = transformer(vocabulary, width, layers)
            fit(model, text_loss(model, batches), steps, learning_rate=rate)
            bits = text.bits_per_byte(model)
            better = all(bits < before for before in found.values())
            found[round(rate, 6)] = bits
            print(width, layers, rate, bits, flush=True)
            rate *= 3
        shape = {"width": width, "layers": layers, "parameters": parameters(model), "inside blocks": parameters(model.decoder)}
        result["models"].append({**shape, "bits per byte": found, "best": min(found.values())})
    result["exponent"] = slope([m["parameters"] for m in result["models"]], [m["best"] for m in result["models"]])
    return result


def slope(x: list[int], y: list[float]) -> float:
    """a of y = c x^a, by least squares of the logarithms."""
    u, v = (torch.tensor(values, dtype=torch.float64).log() for values in (x, y))
    return float(((u - u.mean()) * (v - v.mean())).sum() / (u - u.mean()).square().sum())


def draw(result: dict[str, Any]) -> Any:
    drawn, (axis,) = figure("Larger models carry more, at equal tokens", "词元数相同，模型越大，承载越多", 1, 5.2)
    sizes = [m["parameters"] for m in result["models"]]
    tried = [(m["parameters"], bits) for m in result["models"] for bits in m["bits per byte"].values()]
    axis.plot(*zip(*tried, strict=True), "_", color=SKY, label="every learning rate")
    axis.plot(sizes, [m["best"] for m in result["models"]], "o-", color=BLUE, label="the best")
    for model in result["models"]:
        name = f"{model['width']} x {model['layers']}"
        axis.annotate(name, (model["parameters"], model["best"]), xytext=(0, -14), textcoords="offset points", ha="center", fontsize=8)
    axis.set(xscale="log", xlabel="parameters (labels: width x layers)", ylabel="held-out bits per byte")
    axis.margins(y=0.15)
    axis.legend()
    return drawn


if __name__ == "__main__":
    run("size", measure, draw)
