"""The experiments of docs/principles: their measures against hand-worked numbers, and each of them once, small."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "principles"
NAMES = ("scaled_dot_product", "distance", "heads", "norm_residual", "size", "traditional")


@pytest.fixture(scope="module")
def load() -> Iterator[Any]:
    """A script of the folder as a module."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        if name in NAMES or name == "common":
            del sys.modules[name]


@pytest.fixture(scope="module")
def text(load: Any) -> Any:
    """A little language: each word decides the next but one choice."""
    words = [f"w{a}{b}" for a in "abcde" for b in "xyz"]
    random = torch.Generator().manual_seed(0)
    texts = []
    for _ in range(60):
        at = int(torch.randint(len(words), (1,), generator=random))
        line = []
        for _ in range(30):
            line.append(words[at])
            at = (3 * at + int(torch.randint(2, (1,), generator=random))) % len(words)
        texts.append(" ".join(line))
    return load("common").encode(texts[:50], texts[50:], 300)


# ── measures ──
def test_the_softmax_gradient_of_two_equal_scores(load: Any) -> None:
    """p = (1/2, 1/2): dp/ds = [[1, -1], [-1, 1]] / 4, of Frobenius norm 1/2; one bit of entropy."""
    inner, outer, bits = load("scaled_dot_product").jacobian_norms(torch.tensor([0.0]), torch.tensor([[1.0], [2.0]]), 1.0)
    assert inner == pytest.approx(0.5)
    assert outer == pytest.approx(math.sqrt(2) / 4)  # dp/dq = dp/ds (1, 2) = (-1, 1) / 4
    assert bits == pytest.approx(1.0)


def test_dividing_by_the_root_of_d_k_keeps_the_gradient(load: Any) -> None:
    found = load("scaled_dot_product").gradients(sizes=(4, 1024), keys=32, queries=50)
    scaled, unscaled = found["scaled saturation"]["median"], found["unscaled saturation"]["median"]
    assert scaled[1] > 0.5 * scaled[0]
    assert unscaled[1] < 1e-3 * unscaled[0]


def test_divergence_of_equal_and_of_disjoint_rows(load: Any) -> None:
    p, q = torch.tensor([0.5, 0.5, 0.0, 0.0]), torch.tensor([0.0, 0.0, 0.5, 0.5])
    divergence = load("heads").divergence
    assert float(divergence(p, p)) == pytest.approx(0.0, abs=1e-6)
    assert float(divergence(p, q)) == pytest.approx(1.0)
    # p and (1/2, 0, 1/2, 0): the mean (1/2, 1/4, 1/4, 0) has 1.5 bits, each of them 1
    assert float(divergence(p, torch.tensor([0.5, 0.0, 0.5, 0.0]))) == pytest.approx(0.5)


def test_kneser_ney_by_hand(load: Any) -> None:
    """Bigrams of "0 1 2 / 0 1 1": c(01) = 2, c(12) = 1, c(11) = 1; one gram seen twice, two once: D = 2 / (2 + 2) = 1/2.

    Before 1 stood {0, 1}, before 2 stood {1}: the lower order has 2/3 and 1/3, with D = 1 / (1 + 2) = 1/3 and p_0 = 1/4:
    p_1(2) = (1 - 1/3) / 3 + (1/3)(2/3)(1/4) = 2/9 + 1/18 = 5/18; p(2 | 1) = (1 - 1/2) / 2 + (1/2)(2/2) 5/18 = 1/4 + 5/36 = 7/18.
    """
    model = load("traditional").KneserNey([[0, 1, 2], [0, 1, 1]], 2, 4)
    assert model.discount == {2: 0.5, 1: pytest.approx(1 / 3)}
    assert model.probability(2, ()) == pytest.approx(5 / 18)
    assert model.probability(2, (0, 1)) == pytest.approx(7 / 18)  # the 0 is out of its sight
    assert model.probability(2, (3,)) == pytest.approx(5 / 18)  # a history never seen
    assert model.nats([0, 1, 2]) == pytest.approx(-math.log(model.probability(1, (0,))) - math.log(7 / 18))


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_kneser_ney_sums_to_one_after_every_history(load: Any, order: int) -> None:
    random = torch.Generator().manual_seed(order)
    texts = [[0, *torch.randint(1, 6, (9,), generator=random).tolist()] for _ in range(8)]
    model = load("traditional").KneserNey(texts, order, 7)
    histories = [(), (0,), (0, 3), (6, 1), *(tuple(t[:i]) for t in texts for i in range(10))]
    for history in histories:
        assert sum(model.probability(token, history) for token in range(7)) == pytest.approx(1.0)


def test_recall_batches_ask_for_what_was_given(load: Any) -> None:
    distance = load("distance")
    ids, targets, distances = distance.make_batch(8, 64, seed=3)
    rows, places = (targets != -100).nonzero(as_tuple=True)
    assert len(rows) > 20
    for row, place in zip(rows.tolist(), places.tolist(), strict=True):
        pair = int(ids[row, place - int(distances[row, place])])
        assert divmod(pair, distance.VALUES) == (int(ids[row, place]) - distance.QUESTIONS, int(targets[row, place]))


def test_slope_of_a_power(load: Any) -> None:
    assert load("size").slope([10, 100, 1000], [5 * n**-0.07 for n in (10, 100, 1000)]) == pytest.approx(-0.07)


def test_variants_of_the_block_are_what_they_say(load: Any) -> None:
    """Zero output projections: with residuals the blocks are the identity, without them nothing of the input is left."""
    module, common = load("norm_residual"), load("common")
    ids = torch.randint(50, (2, 7), generator=torch.Generator().manual_seed(0))
    for name, (norms, residuals) in module.VARIANTS.items():
        model = module.variant(common.transformer(50, 32, 2), norms, residuals)
        assert ("norm" in " ".join(n for n, _ in model.named_parameters())) == norms, name
        for block in model.decoder.blocks:
            block.attention.output.weight.data.zero_()
            block.feed_forward.down.weight.data.zero_()
        spread = model.hidden(ids).std().item()
        assert (spread > 0.1) == residuals, name


# ── the whole of each, small ──
SMALL: dict[str, dict[str, Any]] = {
    "scaled_dot_product": {
        "gradients": {"sizes": (4, 64), "keys": 8, "queries": 5},
        "learning": {"sizes": (16,), "rates": (1e-3,), "steps": 3, "seeds": 1},
    },
    "distance": {"steps": 3, "seeds": 1, "length": 40, "width": 32, "rows": 32, "batch": 2},
    "heads": {"width": 32, "layers": 2, "head_size": 16, "steps": 3, "texts": 3},
    "norm_residual": {"width": 32, "layers": 2, "steps": 12, "rates": (1e-3,)},
    "size": {"shapes": ((32, 1), (64, 1)), "first_rate": 0.1, "steps": 3},
    "traditional": {"width": 32, "layers": 1, "orders": (1, 2, 3), "passes": (1,), "rates": (2e-3,)},
}


@pytest.mark.parametrize("name", NAMES)
def test_runs_and_draws(load: Any, text: Any, name: str) -> None:
    pytest.importorskip("matplotlib", reason="the plots of docs/principles need matplotlib: pip install 'norma-lm[docs]'")
    module = load(name)
    words = () if name in ("scaled_dot_product", "distance") else (text,)
    result = json.loads(json.dumps(module.measure(*words, **SMALL[name])))
    module.draw(result)


@pytest.mark.parametrize("name", NAMES)
def test_the_published_numbers_can_be_drawn_again(load: Any, name: str) -> None:
    pytest.importorskip("matplotlib", reason="the plots of docs/principles need matplotlib: pip install 'norma-lm[docs]'")
    load(name).draw(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))
    assert (FOLDER / f"{name}.svg").stat().st_size > 1000
