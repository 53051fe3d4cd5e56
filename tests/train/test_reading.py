"""Texts laid side by side in rows: each is read as if it stood alone, and little is wasted."""

from __future__ import annotations

import random

import pytest
import torch

from norma.nn import Mask, Transformer, preset, with_head
from norma.train.laying import WIDEST, laid
from norma.train.reading import Reading, parts, states

FAMILIES = {"bert": "classify", "modernbert": "classify", "roberta": "tokens", "llama": "classify", "bert-span": "span"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_among_others_is_read_as_alone_and_learns_the_same(family: str) -> None:
    name, chance = family.split("-")[0], random.Random(1)
    config = with_head(preset(name, vocab_size=50, width=32, layers=2, head_size=16, max_positions=64), FAMILIES[family], 3)
    network = Transformer(config).initialise(torch.Generator().manual_seed(1)).eval()  # no dropout
    with torch.no_grad():
        for p in network.parameters():
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    texts = [[chance.randrange(3, 50) for _ in range(n)] for n in (5, 33, 1, 12, 40, 7, 7)]
    readings = [Reading(ids, [int(config.segments > 1 and i > len(ids) // 2) for i in range(len(ids))]) for ids in texts]
    together, real = states(network, readings, torch.float32)
    scores = network.classify(together, real)
    found = [scores[b] if scores.dim() == 2 else scores[b, : len(ids)] for b, ids in enumerate(texts)]
    sum((x.square().sum() for x in found), torch.zeros(())).backward()
    gradients = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    total = torch.zeros(())
    for b, reading in enumerate(readings):
        segments = torch.tensor([list(reading.segments)]) if config.segments > 1 else None
        alone = network.classify(network.hidden(torch.tensor([list(reading.ids)]), Mask(), segments_BT=segments))[0]
        torch.testing.assert_close(found[b], alone, atol=2e-5, rtol=1e-4)
        total = total + alone.square().sum()
    total.backward()
    for n, p in network.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(gradients[n], p.grad, atol=1e-3 * float(p.grad.abs().max()) + 1e-6, rtol=1e-3)


def test_texts_stand_apart_and_rows_are_nearly_full() -> None:
    chance = random.Random(2)
    for lengths in ([chance.randrange(8, 60) for _ in range(16)], [300, 20, 10], [1], [chance.randrange(5, 256) for _ in range(40)]):
        made = laid(lengths)
        taken = [(row, first + i) for (row, first), n in zip(made.places, lengths, strict=True) for i in range(n)]
        assert len(set(taken)) == sum(lengths) and max(r for r, _ in taken) < made.rows and max(at for _, at in taken) < made.length
        assert made.length % 32 == 0 and made.length <= max(WIDEST, -(-max(lengths) // 32) * 32)
        padded = len(lengths) * -(-max(lengths) // 32) * 32
        assert made.rows * made.length <= padded
        if len(lengths) >= 16:
            assert made.rows * made.length < 1.15 * sum(lengths) < 0.75 * padded


def test_micro_batches_hold_what_they_may() -> None:
    sizes = [9, 3, 5, 4, 8, 30]
    assert parts(sizes, 20) == [[1, 3, 2], [4, 0], [5]], "as the longest of each"
    assert parts(sizes, 20, padded=False) == [[1, 3, 2, 4], [0], [5]], "as they are"
    assert parts([], 5) == [] and parts([7, 7], 5, padded=False) == [[0], [1]]
