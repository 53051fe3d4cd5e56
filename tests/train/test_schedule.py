"""Learning rates by hand, and which weights are moved by which rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from norma.lm import LanguageModel
from norma.train.muon import Muon
from norma.train.optimiser import GroupRow, group_rows, make_optimisers, schedule_factor, set_learning_rate


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        # 10 steps, 2 of warm-up. wsd: the last 4 fall by a quarter each, to one quarter.
        ("wsd", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("constant", [0.5] + [1.0] * 9),
        ("cosine", [0.5, 1.0, 1.0, 0.96194, 0.85355, 0.69134, 0.5, 0.30866, 0.14645, 0.03806]),
    ],
)
def test_schedules_by_hand(kind: str, wanted: list[float]) -> None:
    made = [schedule_factor(s, steps=10, warmup=2, kind=kind) for s in range(10)]  # type: ignore[arg-type]
    assert made == pytest.approx(wanted, abs=1e-5)
    assert schedule_factor(0, steps=1, warmup=0, kind=kind) == 1.0  # type: ignore[arg-type]


def test_a_floor_is_kept() -> None:
    assert schedule_factor(9, steps=10, warmup=0, kind="wsd", floor=0.1) == pytest.approx(0.1 + 0.9 * 0.25)
    assert schedule_factor(5, steps=10, warmup=0, kind="cosine", floor=0.1) == pytest.approx(0.1 + 0.9 * 0.5)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_every_weight_has_one_owner(kind: str, make_model: Callable[..., LanguageModel]) -> None:
    model = make_model().transformer
    made = make_optimisers(model, kind=kind, learning_rate=1e-3, matrix_learning_rate=1e-2, weight_decay=0.1)
    names = {id(p): n for n, p in model.named_parameters()}
    owned = [names[id(p)] for o in made for g in o.param_groups for p in g["params"]]
    assert sorted(owned) == sorted(names.values())
    muon = {names[id(p)] for o in made if isinstance(o, Muon) for g in o.param_groups for p in g["params"]}
    matrices = {n for n, p in model.named_parameters() if p.dim() == 2 and ".blocks." in n}
    assert muon == (matrices if kind == "muon" else set())
    decay = {names[id(p)]: g["weight_decay"] for o in made for g in o.param_groups for p in g["params"]}
    assert all((d == 0) == ("norm" in n) for n, d in decay.items())
    set_learning_rate(made, 0.5)
    set_learning_rate(made, 0.5)
    assert {g["lr"] for o in made for g in o.param_groups} == ({5e-4, 5e-3} if kind == "muon" else {5e-4})


def test_groups_as_a_table(make_model: Callable[..., LanguageModel]) -> None:
    model = make_model().transformer  # 24 wide, 2 blocks, 4 heads and 2 of keys of 6, 40 inside, tied embeddings
    made = make_optimisers(model, kind="muon", learning_rate=1e-3, matrix_learning_rate=1e-2, weight_decay=0.1)
    vocabulary = model.config.vocab_size
    block = 24 * 24 + 24 * 12 * 2 + 24 * 24 + 3 * 24 * 40
    wanted = [
        GroupRow("other matrices", "AdamW", 1, vocabulary * 24, 1e-3, 0.1),
        GroupRow("norms and biases", "AdamW", 5, 5 * 24, 1e-3, 0.0),
        GroupRow("matrices of blocks", "Muon", 14, 2 * block, 1e-2, 0.1),
    ]
    assert group_rows(made) == wanted
    set_learning_rate(made, 0.1)
    assert group_rows(made) == wanted  # the peak, whatever the moment
    plain = group_rows(make_optimisers(model, kind="adamw", learning_rate=1e-3, matrix_learning_rate=1e-2, weight_decay=0.1))
    assert [(r.group, r.rule) for r in plain] == [("matrices", "AdamW"), ("norms and biases", "AdamW")]
    assert sum(r.parameters for r in plain) == sum(p.numel() for p in model.parameters())
