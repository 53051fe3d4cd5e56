"""The head's product and the loss exist for a few tokens at a time, whatever the objective: the full matrix of logits never does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from norma.nn import Transformer, preset, with_head
from norma.objectives import likelihood
from norma.text.packing import IGNORE
from norma.train.examples import Examples, Scoring, examples_loss, target_nats

V, B, T, CHUNK = 97, 4, 32, 16


class Widest(TorchDispatchMode):
    """Remembers the most rows of V scores that any operation has made."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        made = function(*arguments, **(named or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.ndim and tensor.shape[-1] == V:
                self.rows = max(self.rows, tensor.numel() // V)
        return made


@pytest.mark.parametrize(
    ("family", "scored"),
    [
        ("llama", {}),
        ("bert", {}),
        ("t5", {}),
        ("bart", {}),
        ("gemma2", {}),
        ("llama", {"z_loss": 1e-4}),
        ("llama", {"smoothing": 0.1}),
        ("llama", {"weights": True}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value), "plain"),
)
def test_logits_are_never_whole(family: str, scored: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "CHUNK", CHUNK)
    config = preset(family, vocab_size=V, width=32, layers=2, head_size=16, max_positions=64)
    model = Transformer(with_head(config, "pretraining") if family == "bert" else config).initialise(torch.Generator().manual_seed(0))
    random = np.random.default_rng(0)
    ids = random.integers(0, V, (B, T))
    targets = np.where(random.random((B, T)) < 0.8, random.integers(0, V, (B, T)), IGNORE)
    places = np.broadcast_to(np.arange(T), (B, T)).copy()
    ones = np.ones_like(ids)
    two = config.kind == "encoder-decoder"
    weights = random.standard_normal((B, T)).astype(np.float32) if scored.get("weights") else None
    source = {"source": ids, "source_documents": ones} if two else {}
    examples = Examples(ids, targets, ones, places, causal=config.kind != "encoder", weights=weights, **source)
    how = Scoring(scored.get("z_loss", 0.0), scored.get("smoothing", 0.0), None)
    with Widest() as training:
        loss = examples_loss(model, examples, torch.float32, how).minimised
        loss.backward()  # type: ignore[no-untyped-call]
    with Widest() as scoring:
        target_nats(model, examples, torch.float32)
    assert examples.predicted > 5 * CHUNK
    # What has V columns besides: rows of the head's weight turned, (W, V), which do not grow with the text.
    assert training.rows <= max(CHUNK, config.width) and scoring.rows <= max(CHUNK, config.width)
