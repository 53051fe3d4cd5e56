"""Large models carry more: held-out bits per byte against the number of parameters, every model having read the same tokens.

Four decoders from one mould (heads of 32 features, feed-forward 8/3 x width). Each learns with every rate of the list; the best counts,
so that no size wins by a rate that happens to suit it (Kaplan et al., 2001.08361, tuned alike).
"""

from __future__ import annotations

from typing import Any

import torch
from common import BLUE, SKY, Text, figure, fit, parameters, read_text, run, text_loss, transformer

SHAPES = ((32, 2), (64, 3), (128, 4), (256, 5))  # width, layers


def measure(
    text: Text | None = None, shapes: tuple[tuple[int, int], ...] = SHAPES, rates: tuple[float, ...] = (2e-3, 6e-3), steps: int = 500
) -> dict[str, Any]:
    text = text or read_text()
    batches, vocabulary = text.batches(), text.tokenizer.backend.get_vocab_size()
    result: dict[str, Any] = {"steps": steps, "tokens": steps * batches.size * batches.length, "rates": list(rates), "models": []}
    for width, layers in shapes:
        found = []
        for rate in rates:
            model = transformer(vocabulary, width, layers)
            fit(model, text_loss(model, batches), steps, learning_rate=rate)
            found.append(text.bits_per_byte(model))
            print(width, layers, rate, found[-1], flush=True)
        shape = {"width": width, "layers": layers, "parameters": parameters(model), "inside blocks": parameters(model.decoder)}
        result["models"].append({**shape, "bits per byte": found, "best": min(found)})
    result["exponent"] = slope([m["parameters"] for m in result["models"]], [m["best"] for m in result["models"]])
    return result


def slope(x: list[int], y: list[float]) -> float:
    """a of y = c x^a, by least squares of the logarithms."""
    u, v = (torch.tensor(values, dtype=torch.float64).log() for values in (x, y))
    return float(((u - u.mean()) * (v - v.mean())).sum() / (u - u.mean()).square().sum())


def draw(result: dict[str, Any]) -> Any:
    drawn, (axis,) = figure("Larger models carry more, at equal tokens", "词元数相同，模型越大，承载越多", 1, 5.2)
    sizes = [m["parameters"] for m in result["models"]]
    for i, rate in enumerate(result["rates"]):
        axis.plot(sizes, [m["bits per byte"][i] for m in result["models"]], "^:" if i else "v:", color=SKY, label=f"learning rate {rate:g}")
    axis.plot(sizes, [m["best"] for m in result["models"]], "o-", color=BLUE, label="the better of them")
    for model in result["models"]:
        name = f"{model['width']} x {model['layers']}"
        axis.annotate(name, (model["parameters"], model["best"]), xytext=(0, -14), textcoords="offset points", ha="center", fontsize=8)
    axis.set(xscale="log", xlabel="parameters (labels: width x layers)", ylabel="held-out bits per byte")
    axis.margins(y=0.15)
    axis.legend()
    return drawn


if __name__ == "__main__":
    run("size", measure, draw)
