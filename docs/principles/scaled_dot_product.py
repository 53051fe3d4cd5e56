"""Scaling by sqrt(d_k) prevents saturated gradients (Vaswani et al., 1706.03762, 3.2.1, footnote 4).

Queries and keys of d_k independent features with variance 1; a query's scores are s = scale * K q, its weights p = softmax(s).

    saturation: |dp/ds|, dp/ds = diag(p) - p p^T        gradient: |dp/dq| = |dp/ds scale K|        entropy of p in bits

and what it does to learning: a one-head model on the recall task of distance.py, trained with scale 1 / sqrt(d_k) and with scale 1.
"""

from __future__ import annotations

from typing import Any

import torch
from common import BLUE, ORANGE, figure, fit, run, transformer
from distance import make_batch, recall_loss
from torch import Tensor

SIZES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)


def jacobian_norms(query: Tensor, keys: Tensor, scale: float) -> tuple[float, float, float]:
    """Frobenius norms of dp/ds and dp/dq, and the entropy of p in bits, for ``query`` (D,) and ``keys`` (S, D)."""
    p = (scale * (keys @ query)).softmax(dim=0)
    inner = torch.diag(p) - torch.outer(p, p)
    entropy = -torch.special.xlogy(p, p).sum() / torch.log(torch.tensor(2.0, dtype=p.dtype))
    return float(inner.norm()), float((scale * inner @ keys).norm()), float(entropy)


def gradients(sizes: tuple[int, ...] = SIZES, keys: int = 64, queries: int = 400) -> dict[str, Any]:
    """For each d_k and both scales: median and mean over random queries."""
    found: dict[str, Any] = {"d_k": list(sizes)}
    for name in ("scaled", "unscaled"):
        rows = []
        for size in sizes:
            generator = torch.Generator().manual_seed(size)
            draws = [torch.randn(keys + 1, size, generator=generator, dtype=torch.float64) for _ in range(queries)]
            rows.append(torch.tensor([jacobian_norms(d[0], d[1:], size**-0.5 if name == "scaled" else 1.0) for d in draws]))
        for i, what in enumerate(("saturation", "gradient", "entropy")):
            found[f"{name} {what}"] = {
                "median": [float(r[:, i].median()) for r in rows],
                "mean": [float(r[:, i].mean()) for r in rows],
            }
    return found


def learning(
    sizes: tuple[int, ...] = (16, 64, 256), rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2), steps: int = 300, seeds: int = 2
) -> dict[str, Any]:
    """Recall loss at the end (nats, mean of the last tenth of the steps, best learning rate by the mean over seeds) for each d_k."""
    found: dict[str, Any] = {"d_k": list(sizes), "chance": float(torch.log(torch.tensor(8.0)))}
    for name in ("scaled", "unscaled"):
        found[name] = []
        for size in sizes:
            means = []
            for rate in rates:
                ends = []
                for seed in range(seeds):
                    scale = None if name == "scaled" else 1.0
                    model = transformer(512, size, 2, size, seed=seed, attention_scale=scale, feed_forward_width=64)
                    batches = [make_batch(16, 64, seed=seed * steps + s) for s in range(steps)]
                    losses = fit(model, lambda step, m=model, b=batches: recall_loss(m, *b[step]), steps, learning_rate=rate)
                    ends.append(sum(losses[-steps // 10 :]) / len(losses[-steps // 10 :]))
                means.append(sum(ends) / len(ends))
                print(name, size, rate, ends, flush=True)
            found[name].append(min(means))
    return found


def measure(**small: Any) -> dict[str, Any]:
    return {"gradients": gradients(**small.get("gradients", {})), "learning": learning(**small.get("learning", {}))}


def draw(result: dict[str, Any]) -> Any:
    drawn, axes = figure("Scaling by 1/√d_k keeps the softmax away from saturation", "除以 √d_k，softmax 不饱和，梯度不消失", 3, 3.2)
    found, learnt = result["gradients"], result["learning"]
    looks = (("scaled", BLUE, "o-", "with 1/√d_k"), ("unscaled", ORANGE, "s--", "without"))
    for name, colour, line, label in looks:
        axes[0].plot(found["d_k"], found[f"{name} saturation"]["median"], line, color=colour, label=label)
        axes[1].plot(found["d_k"], found[f"{name} entropy"]["median"], line, color=colour, label=label)
        axes[2].plot(learnt["d_k"], learnt[name], line, color=colour, label=label)
    axes[0].set(xscale="log", yscale="log", xlabel="d_k (features)", ylabel="‖∂p/∂s‖, median")
    axes[1].set(xscale="log", xlabel="d_k (features)", ylabel="entropy of the weights (bits), median", ylim=(0, 6.2))
    axes[2].set(xscale="log", xlabel="d_k (features)", ylabel="recall loss after training (nats)", ylim=(0, None))
    for axis, ticks in zip(axes, ((4, 32, 256, 1024), (4, 32, 256, 1024), learnt["d_k"]), strict=True):
        axis.set_xticks(ticks, [str(t) for t in ticks], minor=False)
        axis.minorticks_off()
    axes[0].legend()
    return drawn


if __name__ == "__main__":
    run("scaled_dot_product", measure, draw)
