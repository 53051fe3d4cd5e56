"""Attention relates any two positions: recall against distance, beside an LSTM of equal parameters and a model that sees a window only.

A row begins with 8 tokens, each a key (of 32) with a value (of 8). Noise follows, and in it questions: a key that was given, and the
model says its value. The farther the question, the longer the pair must be remembered (LSTM) or the farther be looked for (attention).

    [k5=3][k9=0]...[k2=7] noise noise [k9?] noise ... [k2?] noise ...        targets: 0 at [k9?], 7 at [k2?]
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from common import BLUE, GREEN, ORANGE, RED, figure, fit, parameters, run, transformer
from torch import Tensor, nn
from torch.nn import functional as F

PAIRS, KEYS, VALUES, NOISE = 8, 32, 8, 64
VOCABULARY = 512  # 32 * 8 pairs, then 32 questions, then 64 noise tokens; the rest is never used
QUESTIONS = KEYS * VALUES
EDGES = (1, 5, 9, 17, 33, 65, 129, 257)  # distances 1-4, 5-8, 9-16, ..., 129-256


def make_batch(size: int, length: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """ids (B, T); the value asked for and how far back it was given, both (B, T), -100 and 0 where nothing is asked."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.rand(size, KEYS, generator=generator).argsort(dim=1)[:, :PAIRS]
    values = torch.randint(VALUES, (size, PAIRS), generator=generator)
    ids = QUESTIONS + KEYS + torch.randint(NOISE, (size, length), generator=generator)
    ids[:, :PAIRS] = keys * VALUES + values
    asked = torch.rand(size, length, generator=generator) < 0.125
    asked[:, :PAIRS] = False
    which = torch.randint(PAIRS, (size, length), generator=generator)
    ids = torch.where(asked, QUESTIONS + keys.gather(1, which), ids)
    return ids, torch.where(asked, values.gather(1, which), -100), torch.where(asked, torch.arange(length) - which, 0)


class Recurrent(nn.Module):
    """Embedding, LSTM (Hochreiter and Schmidhuber 1997) of two layers, projection to the embedding's width, tied head."""

    def __init__(self, vocab_size: int, width: int, hidden: int, seed: int, layers: int = 2) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(vocab_size, width)
        self.lstm = nn.LSTM(width, hidden, layers, batch_first=True)
        self.output = nn.Linear(hidden, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        for layer in range(layers):  # the forget gate begins open (Jozefowicz et al. 2015): without it nothing far away is learnt
            getattr(self.lstm, f"bias_ih_l{layer}").data[hidden : 2 * hidden] = 1.0

    def forward(self, ids: Tensor) -> Tensor:
        x, _ = self.lstm(self.embedding(ids) * self.embedding.weight.shape[1] ** 0.5)
        return F.linear(self.output(x), self.embedding.weight)


def equal_lstm(vocab_size: int, width: int, wanted: int, seed: int, make: Any = Recurrent) -> Any:
    """The LSTM whose number of parameters comes nearest to ``wanted``."""
    with torch.device("meta"):
        hidden = min(range(8, 1025, 4), key=lambda h: abs(parameters(make(vocab_size, width, h, seed)) - wanted))
    return make(vocab_size, width, hidden, seed)


def recall_loss(model: nn.Module, ids: Tensor, targets: Tensor, distances: Tensor) -> Tensor:
    """Nats a question; the answer v is the token v."""
    asked = targets != -100
    return F.cross_entropy(model(ids)[asked][:, :VALUES], targets[asked])


@torch.no_grad()
def recall(model: nn.Module, length: int, rows: int, seed: int) -> list[float]:
    """The share of questions answered rightly, for the distances between each two ``EDGES``."""
    right, asked = torch.zeros(len(EDGES) - 1), torch.zeros(len(EDGES) - 1)
    for part in range(max(1, rows // 32)):
        ids, targets, distances = make_batch(32, length, seed + part)
        good = model(ids)[..., :VALUES].argmax(dim=-1) == targets
        for i in range(len(EDGES) - 1):
            here = (distances >= EDGES[i]) & (distances < EDGES[i + 1])
            right[i] += (good & here).sum()
            asked[i] += here.sum()
    return [float(r / a) if a else 0.0 for r, a in zip(right, asked, strict=True)]


def measure(steps: int = 500, seeds: int = 3, length: int = 264, width: int = 64, rows: int = 256, batch: int = 16) -> dict[str, Any]:
    result: dict[str, Any] = {"distance": [f"{a}-{b - 1}" for a, b in pairwise(EDGES)], "chance": 1 / VALUES, "models": {}}
    for seed in range(seeds):
        full = transformer(VOCABULARY, width, 2, seed=seed)
        models = {
            "Transformer": (full, steps),
            "LSTM": (equal_lstm(VOCABULARY, width, parameters(full), seed), steps),
            "LSTM, four times the steps": (equal_lstm(VOCABULARY, width, parameters(full), seed), 4 * steps),
            "Window of 16": (transformer(VOCABULARY, width, 2, seed=seed, windows=(16,)), steps),
        }
        for name, (model, own_steps) in models.items():
            def loss(step: int, model: nn.Module = model, first: int = 10**6 * (seed + 1)) -> Tensor:
                return recall_loss(model, *make_batch(batch, length, first + step))

            losses = fit(model, loss, own_steps, learning_rate=3e-3)
            found = result["models"].setdefault(name, {"parameters": parameters(model), "recall": [], "last loss": []})
            found["recall"].append(recall(model, length, rows, seed=10**9))
            found["last loss"].append(sum(losses[-20:]) / len(losses[-20:]))
            print(name, seed, found["last loss"][-1], found["recall"][-1], flush=True)
    return result


def draw(result: dict[str, Any]) -> Any:
    drawn, (axis,) = figure("Recall against distance", "回忆的准确率与距离", 1, 5.2)
    x = range(len(result["distance"]))
    for (name, found), colour, line in zip(result["models"].items(), (BLUE, ORANGE, RED, GREEN), ("o-", "s--", "v-.", "^:"), strict=True):
        values = torch.tensor(found["recall"])
        spread = values.std(dim=0).tolist() if len(values) > 1 else [0.0] * len(x)
        label = f"{name}, {found['parameters']:,} parameters"
        axis.errorbar(x, values.mean(dim=0), yerr=spread, fmt=line, color=colour, capsize=2, label=label)
    axis.axhline(result["chance"], color="grey", linewidth=0.8)
    axis.text(0, result["chance"] + 0.015, "chance", color="grey", fontsize=8)
    axis.set_xticks(list(x), result["distance"])
    axis.set(xlabel="distance between question and pair (tokens)", ylabel="share answered rightly", ylim=(0, 1.03))
    axis.legend(loc="center left", bbox_to_anchor=(0, 0.62))
    return drawn


if __name__ == "__main__":
    run("distance", measure, draw)
