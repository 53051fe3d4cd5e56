"""Compared with traditional NLP models: n-grams, an LSTM and a Transformer on the same tokens of the same text, in bits per byte.

    text ─→ tokens ─┬→ counts of n-grams ─→ Kneser-Ney
                    ├→ LSTM          ┐ the same batches, equal parameters, each with the best of several learning rates
                    └→ Transformer   ┘ after one pass over the text, and after several

The n-gram model is interpolated Kneser-Ney with one discount (Chen and Goodman 1998, section 2.7; discount n1 / (n1 + 2 n2), eq. 22):

    p_n(w | h) = max(c(h w) - D, 0) / c(h) + D types(h) / c(h) * p_{n-1}(w | h without its first token)

where below the highest order c(x) counts the different tokens seen before x, and p_0 is uniform.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from common import BLACK, BLUE, ORANGE, Text, figure, fit, parameters, read_text, run, text_loss, transformer
from distance import Recurrent, equal_lstm
from torch import Tensor

Gram = tuple[int, ...]


class KneserNey:
    """Counts of every order up to ``order`` in ``texts``; tokens are 0 to ``vocab_size`` - 1."""

    def __init__(self, texts: Sequence[Sequence[int]], order: int, vocab_size: int) -> None:
        self.order, self.vocab_size = order, vocab_size
        highest: Counter[Gram] = Counter()
        starts: Counter[Gram] = Counter()  # shorter n-grams that begin a text: nothing stands before them, they count as they are
        for ids in texts:
            highest.update(zip(*(ids[i:] for i in range(order)), strict=False))
            starts.update(tuple(ids[:n]) for n in range(2, min(order, len(ids) + 1)))
        self.counts = {order: highest}
        for n in range(order - 1, 0, -1):
            before = Counter(gram[1:] for gram in self.counts[n + 1])
            self.counts[n] = before + Counter({gram: count for gram, count in starts.items() if len(gram) == n})
        self.totals: dict[Gram, int] = Counter()
        self.types: dict[Gram, int] = Counter()
        self.discount = {}
        for n, counts in self.counts.items():
            for gram, count in counts.items():
                self.totals[gram[:-1]] += count
                self.types[gram[:-1]] += 1
            ones, twos = (sum(1 for count in counts.values() if count == wanted) for wanted in (1, 2))
            self.discount[n] = ones / (ones + 2 * twos) if ones and twos else 0.5

    def probability(self, token: int, history: Gram) -> float:
        """p(token | history), the history cut to what the order sees."""
        p = 1 / self.vocab_size
        history = history[len(history) - min(len(history), self.order - 1) :]
        for n in range(len(history) + 1):
            seen = history[len(history) - n :]
            total = self.totals.get(seen, 0)
            if not total:
                break  # a history never seen: the shorter one decides
            discount = self.discount[n + 1]
            p = max(self.counts[n + 1].get((*seen, token), 0) - discount, 0) / total + discount * self.types[seen] / total * p
        return p

    def nats(self, ids: Sequence[int]) -> float:
        """-log p of all tokens but the first."""
        return -sum(math.log(self.probability(ids[t], tuple(ids[max(0, t - self.order + 1) : t]))) for t in range(1, len(ids)))


class RecurrentLM(Recurrent):
    """The LSTM as the training step wants a model. It reads through the ends of texts, in training as in the test."""

    head_bias = None
    config = SimpleNamespace(logit_softcap=None, experts=None)
    device = torch.device("cpu")

    def hidden(self, ids: Tensor, mask: Any, positions: Any, **_: Any) -> Tensor:
        x, _ = self.lstm(self.embedding(ids) * self.embedding.weight.shape[1] ** 0.5)
        found: Tensor = self.output(x)
        return found

    def features(self, hidden: Tensor) -> Tensor:
        return hidden

    def head_weight(self) -> Tensor:
        return self.embedding.weight


def ngram_bits(model: KneserNey, text: Text) -> float:
    """Bits per byte of the held-out texts, as :meth:`Text.bits_per_byte` counts them."""
    assert text.tokenizer.bos_id is not None and text.tokenizer.eos_id is not None
    ids = ([text.tokenizer.bos_id, *found, text.tokenizer.eos_id] for found in text.tokenizer.encode_batch(text.held_out))
    return sum(map(model.nats, ids)) / math.log(2) / sum(len(t.encode()) for t in text.held_out)


def measure(
    text: Text | None = None,
    width: int = 128,
    layers: int = 4,
    orders: tuple[int, ...] = (1, 2, 3, 4, 5),
    passes: tuple[int, ...] = (1, 3),
    rates: tuple[float, ...] = (2e-3, 6e-3),
) -> dict[str, Any]:
    text = text or read_text()
    vocabulary, batches = text.tokenizer.backend.get_vocab_size(), text.batches()
    result: dict[str, Any] = {"tokens": text.tokens, "passes": list(passes), "rates": list(rates), "n-gram": {}, "models": {}}
    for order in orders:
        result["n-gram"][order] = ngram_bits(KneserNey(text.train, order, vocabulary), text)
        print(order, result["n-gram"][order], flush=True)
    full = transformer(vocabulary, width, layers)
    makers = {
        "LSTM": lambda: equal_lstm(vocabulary, width, parameters(full), 0, RecurrentLM),
        "Transformer": lambda: transformer(vocabulary, width, layers),
    }
    for name, make in makers.items():
        found: dict[str, Any] = {"parameters": parameters(make()), "bits per byte": []}
        best = rates
        for times in passes:
            ends = {}
            for rate in best:
                model = make()
                fit(model, text_loss(model, batches), round(times * text.tokens / batches.size / batches.length), learning_rate=rate)
                ends[rate] = text.bits_per_byte(model)
                print(name, times, rate, ends[rate], flush=True)
            best = (min(ends, key=ends.__getitem__),)  # chosen at the first number of passes, kept for the others
            found["bits per byte"].append(ends[best[0]])
        result["models"][name] = {**found, "rate": best[0]}
    return result


def draw(result: dict[str, Any]) -> Any:
    drawn, (axis,) = figure("n-grams, LSTM and Transformer on the same text", "同一文本上的 n 元模型、LSTM 与 Transformer", 1, 7.0)
    orders = list(result["n-gram"])
    names = [f"{n}-gram" for n in orders]
    values, colours = list(result["n-gram"].values()), [BLACK] * len(orders)
    for (name, found), colour in zip(result["models"].items(), (ORANGE, BLUE), strict=True):
        for times, bits in zip(result["passes"], found["bits per byte"], strict=True):
            names.append(f"{name},\n{times} pass{'es' * (times > 1)}")
            values.append(bits)
            colours.append(colour)
    axis.bar(names, values, color=colours, alpha=0.85)
    for i, value in enumerate(values):
        axis.text(i, value, f"{value:.2f}", ha="center", va="bottom", fontsize=8)
    axis.set(ylabel="held-out bits per byte")
    axis.tick_params(axis="x", labelsize=7)
    axis.grid(axis="x", visible=False)
    return drawn


if __name__ == "__main__":
    run("traditional", measure, draw)
