"""What a task's head learns from, for :func:`norma.train.train`; and what it says of rows.

    Example (Reading, target) ─→ a step's rows ─→ micro-batches of like lengths ─→ hidden states ─→ head ─→ cross-entropy, a sum
                                                                                     / the weight of all targets of the step

Targets: a label; a label for each id (IGNORE where there is none); the first and last place of an answer. Letters: B rows, T tokens,
L labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from norma.nn import Transformer
from norma.text.packing import IGNORE
from norma.train.reading import Reading, parts, states

MICRO_TOKENS = 4096  # tokens that are in memory at one time
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Example:
    """A text and what is to be said of it: (label,), a label or IGNORE for each id, or (first, last) place of the answer."""

    reading: Reading
    target: tuple[int, ...]


def class_weights(labels: Sequence[int], count: int) -> list[float]:
    """n / (L n_l) for each label l: rare labels weigh as much together as common ones (King and Zeng 2001; scikit-learn's "balanced")."""
    n = np.bincount(np.asarray(labels, dtype=np.int64), minlength=count)
    return [float(len(labels) / (count * k)) if k else 0.0 for k in n]


class TaskTraining:
    """The losses of each step.

    Args:
        rows: of a step.
        weights: (L,) how much each label counts; None: all alike. Not of answers' places.
        smoothing: share of each target that is spread over all labels (1512.00567, section 7).
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        rows: int,
        seed: int,
        dtype: torch.dtype,
        weights: Sequence[float] | None = None,
        smoothing: float = 0.0,
        micro_tokens: int = MICRO_TOKENS,
    ) -> None:
        self.examples, self.rows, self.seed, self.dtype = examples, min(rows, len(examples)), seed, dtype
        self.weights, self.smoothing, self.micro_tokens = weights, smoothing, micro_tokens

    @property
    def steps_per_epoch(self) -> int:
        return max(1, len(self.examples) // self.rows)

    def losses(self, network: Transformer, step: int) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """Each epoch goes through all rows once (but for the rest of a division by ``rows``), in an order of its own."""
        chosen = self._step(step)
        weights = None if self.weights is None else torch.tensor(self.weights, device=network.device)
        whole = sum(self._weight(example) for example in chosen) or 1.0
        for part in parts([len(e.reading.ids) for e in chosen], self.micro_tokens, padded=False):
            own = [chosen[i] for i in part]
            hidden, real_BT = states(network, [e.reading for e in own], self.dtype)
            scores = network.classify(hidden.float(), real_BT)
            loss, correct = head_loss(network.config.head, scores, real_BT, [e.target for e in own], weights, self.smoothing)
            numbers = {"loss": float(loss.detach()) / whole, "accuracy": correct / max(1, sum(self._targets(e) for e in chosen))}
            yield loss / whole, numbers | {"tokens": float(sum(len(e.reading.ids) for e in own))}

    def _step(self, step: int) -> list[Example]:
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.Generator(np.random.Philox(key=(self.seed << 32) + epoch)).permutation(len(self.examples))
        return [self.examples[i] for i in order[place * self.rows : (place + 1) * self.rows].tolist()]

    def _targets(self, example: Example) -> int:
        return sum(t != IGNORE for t in example.target)

    def _weight(self, example: Example) -> float:
        if self.weights is None:
            return float(self._targets(example))
        return float(sum(self.weights[t] for t in example.target if t != IGNORE))


def head_loss(
    head: str, scores: Tensor, real_BT: Tensor, targets: Sequence[tuple[int, ...]], weights_L: Tensor | None, smoothing: float = 0.0
) -> tuple[Tensor, float]:
    """The weighted sum of -log p over the targets, and how many of them are the likeliest.

    An answer's places are two targets, each among all tokens of its row (BERT, 1810.04805, 4.2).
    """
    if head == "span":
        places = torch.tensor(list(targets), device=scores.device)  # (B, 2)
        over = scores.masked_fill(~real_BT[..., None], -torch.inf)
        loss = F.cross_entropy(over.transpose(1, 2).flatten(0, 1), places.flatten(), reduction="sum")
        return loss, float((over.argmax(dim=1) == places).sum())
    if head == "tokens":
        flat = torch.full(real_BT.shape, IGNORE, device=scores.device)
        for row, target in enumerate(targets):
            flat[row, : len(target)] = torch.tensor(target, device=scores.device)
        labels, scores = flat.flatten(), scores.flatten(0, 1)
    else:
        labels = torch.tensor([target[0] for target in targets], device=scores.device)
    loss = F.cross_entropy(scores, labels, weight=weights_L, ignore_index=IGNORE, label_smoothing=smoothing, reduction="sum")
    return loss, float(((scores.argmax(dim=-1) == labels) & (labels != IGNORE)).sum())


@torch.no_grad()
def scores_of(network: Transformer, texts: Sequence[Reading], micro_tokens: int = 2 * MICRO_TOKENS) -> list[Floats]:
    """What the head says of each text: (L,), or (T, L) of the text's tokens; fp32 arithmetic."""
    network.eval()
    out: list[Floats] = [np.zeros(0)] * len(texts)
    for part in parts([len(text.ids) for text in texts], micro_tokens, padded=False):
        hidden, real_BT = states(network, [texts[i] for i in part], torch.float32)
        found = network.classify(hidden, real_BT).cpu().double().numpy()
        for row, i in enumerate(part):
            out[i] = found[row] if found.ndim == 2 else found[row, : len(texts[i].ids)]
    return out
