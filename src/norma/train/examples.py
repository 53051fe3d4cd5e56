"""What a model is asked about a batch, whatever the objective, and the loss that follows from it.

    Examples: ids, targets, documents, positions (+ segments, + pair labels, + a source text) ─→ hidden states ─→ scores where
    there is a target ─→ -log p, summed                                                      └→ next-sentence scores ─→ -log p

An objective differs from another in what stands in ``ids`` and ``targets`` and in what attention may see; the sum is one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from norma.nn import Mask, ModelConfig, Transformer
from norma.nn.counting import flops_of_text
from norma.nn.experts import row_losses
from norma.objectives.distillation import Head, forward_kl
from norma.objectives.likelihood import cross_entropy
from norma.text.packing import IGNORE

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Examples:
    """Rows of one objective; arrays are (B, T) int64 unless said otherwise.

    Attributes:
        ids: what is read; of an encoder-decoder, what its decoder reads.
        targets: what is to be said at each place, ``IGNORE`` where nothing is.
        documents: the packed document of each token, from 1; 0 is padding. Attention stays within one.
        positions: of each token in its document.
        causal: whether attention sees the left side only.
        segments: 0 or 1, the part of a pair (BERT).
        labels: (B,) of a pair: 0, B follows A.
        weights: (B, T) fp32, how much each target counts; below 0 it is to be unlikely (norma.objectives.conditional).
        source: (B, S) what an encoder reads, in front of a decoder.
        source_documents: (B, S) as ``documents``, numbered alike: a decoder's document looks at its own source.
    """

    ids: Ints
    targets: Ints
    documents: Ints
    positions: Ints
    causal: bool = True
    segments: Ints | None = None
    labels: Ints | None = None
    source: Ints | None = None
    source_documents: Ints | None = None
    weights: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def predicted(self) -> int:
        """How many tokens are to be predicted."""
        return int((self.targets != IGNORE).sum())

    @property
    def tokens(self) -> int:
        """How many tokens are read, padding not counted."""
        return int((self.documents > 0).sum()) + (0 if self.source_documents is None else int((self.source_documents > 0).sum()))

    def blank(self) -> Examples:
        """The same rows with nothing to predict."""
        labels = None if self.labels is None else np.full_like(self.labels, IGNORE)
        read = None if self.source_documents is None else np.zeros_like(self.source_documents)
        targets, documents = np.full_like(self.targets, IGNORE), np.zeros_like(self.documents)
        return replace(self, targets=targets, documents=documents, labels=labels, source_documents=read)

    def part(self, start: int, end: int) -> Examples:
        """Some of the rows; of pairs of texts without the columns that are padding in all of them."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays: dict[str, Any] = {name: x[start:end] for name, x in values.items() if isinstance(x, np.ndarray)}
        if self.source_documents is not None:
            columns = {name: _used(arrays[name]) for name in ("documents", "source_documents")}
            for name, x in arrays.items():
                if x.ndim == 2:
                    arrays[name] = x[:, : columns["source_documents" if name.startswith("source") else "documents"]]
        return replace(self, **arrays)


@dataclass(frozen=True)
class Scoring:
    """How targets are scored.

    Attributes:
        z_loss, smoothing: see :func:`norma.objectives.likelihood.cross_entropy`.
        byte_lengths: (V,) the bytes of text that each token stands for, 0 for special ones; with them bits per byte are known.
    """

    z_loss: float = 0.0
    smoothing: float = 0.0
    byte_lengths: Ints | None = None


PLAIN = Scoring()


class Loss(NamedTuple):
    """What examples cost.

    Attributes:
        minimised: a sum over the targets: their nats, smoothed and with what z-loss adds.
        nats: the sum of -log p in nats over the targets, without gradient.
        pairs: the sum of -log p over the pairs' labels; None where there are none.
        router: the sum over the rows of what experts' routers cost in training; None without experts.
        text_nats, text_bytes: nats of the targets that stand for text, and how many bytes of it; 0 where that says nothing.
        kl: the sum over the targets of KL(reference || model) in nats; None without a reference.
    """

    minimised: Tensor
    nats: float
    pairs: Tensor | None
    router: Tensor | None
    text_nats: float
    text_bytes: int
    kl: Tensor | None = None


def on_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """An array where the model is. On the CPU both share their memory."""
    return torch.from_numpy(array).to(device, non_blocking=True)


def _used(documents_BT: Ints) -> int:
    """Columns up to the last that is not padding everywhere, in eights: few lengths keep the CPU kernels' caches small."""
    last = np.flatnonzero(documents_BT.any(axis=0))
    used = int(last[-1]) + 1 if len(last) else 1
    return min(int(documents_BT.shape[1]), -(-used // 8) * 8)


def within(documents_BT: Tensor) -> Tensor:
    """(B, T) the position of each token in its document."""
    T = documents_BT.shape[1]
    places = torch.arange(T, device=documents_BT.device).expand_as(documents_BT)
    first = torch.ones_like(documents_BT, dtype=torch.bool)
    first[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    return places - torch.where(first, places, 0).cummax(dim=1).values


def examples_flops(config: ModelConfig, examples: Examples) -> int:
    """Floating-point operations of a step on examples, forward and backward, as :func:`norma.nn.counting.flops_of_text` counts.

    What is predicted goes through the head, all else through the blocks: of masked language modelling a seventh. Rows count as full.
    """
    rows, length = examples.ids.shape
    source = 0 if examples.source is None else examples.source.shape[1]
    whole, bare = (flops_of_text(config, length, source, scored=scored) for scored in (1, 0))
    return int(rows * bare + examples.predicted * (whole - bare))


def examples_loss(
    model: Transformer, examples: Examples, dtype: torch.dtype, scoring: Scoring = PLAIN, reference: Transformer | None = None
) -> Loss:
    """What the model makes of examples. Only what is read from the left costs bits of text: a masked token is seen from both sides.

    ``reference``: a frozen model of the same vocabulary, from which the distance is measured at every target.
    """
    features, targets, hidden = _target_features(model, examples, dtype)
    minimised, nats = _cost(model, features, targets, examples, scoring)
    kl = None if reference is None else _distance(model, features, reference, examples, dtype)
    pairs = None
    if examples.labels is not None:
        scores = model.next_sentence_scores(hidden).float()
        pairs = F.cross_entropy(scores, on_device(examples.labels, model.device), reduction="sum")
    experts, router = model.config.experts, None
    if experts is not None and model.training:
        auxiliary, z = row_losses(model)
        router = (experts.auxiliary_weight * auxiliary + experts.z_weight * z).sum()
    if scoring.byte_lengths is None or not examples.causal or examples.source is not None:
        return Loss(minimised, float(nats.sum()), pairs, router, 0.0, 0, kl)
    lengths = scoring.byte_lengths[examples.targets[examples.targets != IGNORE]]
    text = float((nats * on_device(lengths > 0, nats.device)).sum())
    return Loss(minimised, float(nats.sum()), pairs, router, text, int(lengths.sum()), kl)


def target_nats(model: Transformer, examples: Examples, dtype: torch.dtype) -> Tensor:
    """-log p in nats of each target, (M,) fp32 without gradient, row by row."""
    with torch.no_grad():
        features, targets, _ = _target_features(model, examples, dtype)
        return _cost(model, features, targets, examples, PLAIN)[1]


def _distance(model: Transformer, features: Tensor, reference: Transformer, examples: Examples, dtype: torch.dtype) -> Tensor:
    """The sum over the targets of KL(reference || model); gradient to the model only."""
    with torch.no_grad():
        theirs, _, _ = _target_features(reference, examples, dtype)
    heads = [Head(m.head_weight(), m.head_bias, m.config.logit_softcap) for m in (model, reference)]
    return forward_kl(features, heads[0], theirs, heads[1])


def _target_features(model: Transformer, examples: Examples, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """(N, W) what the head's rows are compared with where there is a target, (N,) the targets, hidden states."""
    place = partial(on_device, device=model.device)
    ids, positions = place(examples.ids), place(examples.positions)
    segments = None if examples.segments is None else place(examples.segments)
    mask = Mask(causal=examples.causal, documents=place(examples.documents))
    memory = None
    if examples.source is not None and examples.source_documents is not None:
        documents = place(examples.source_documents)
        memory = model.encode(place(examples.source), Mask(documents=documents), within(documents), dtype=dtype)
    hidden = model.hidden(ids, mask, positions, dtype=dtype, segments_BT=segments, memory=memory)
    targets = examples.targets.ravel()
    found = np.flatnonzero(targets != IGNORE)  # here and not on a GPU, which would have to wait to say how many there are
    places, targets_N = place(found), place(targets[found])
    # Only what is predicted goes through the head: of masked language modelling that is a seventh of the tokens.
    return model.features(hidden.flatten(0, 1)[places]), targets_N, hidden


def _cost(model: Transformer, features: Tensor, targets: Tensor, examples: Examples, scoring: Scoring) -> tuple[Tensor, Tensor]:
    """(what is minimised, the nats of each target)."""
    how: dict[str, Any] = {"bias": model.head_bias, "softcap": model.config.logit_softcap}
    how |= {"z_loss": scoring.z_loss, "smoothing": scoring.smoothing}
    if examples.weights is not None:
        how["weights_N"] = on_device(examples.weights[examples.targets != IGNORE], model.device)
    return cross_entropy(features, model.head_weight(), targets, **how)
