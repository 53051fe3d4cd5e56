"""The preference family by hand, against slow loops from the papers, by finite differences, and against TRL where it is installed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from norma.objectives.preference import (
    dpo,
    ipo,
    kto,
    kto_baseline,
    log_complement,
    orpo,
    simpo,
    unlikelihood,
    weighted_likelihood,
)


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# ── by hand ──
def test_dpo_by_hand() -> None:
    # Margin 0.5 * ((-1 - -2) - (-3 - -2)) = 1; loss = ln(1 + e^-1); d loss / d chosen = -0.5 * sigmoid(-1).
    chosen, rejected = torch.tensor([-1.0], requires_grad=True), torch.tensor([-3.0], requires_grad=True)
    result = dpo(chosen, rejected, torch.tensor([-2.0]), torch.tensor([-2.0]), beta=0.5)
    assert result.loss.item() == pytest.approx(math.log(1 + math.exp(-1)))
    assert (result.chosen_reward.tolist(), result.rejected_reward.tolist()) == ([0.5], [-0.5])
    result.loss.backward()
    assert chosen.grad is not None and rejected.grad is not None
    slope = 0.5 / (1 + math.e)
    assert (float(chosen.grad), float(rejected.grad)) == (pytest.approx(-slope), pytest.approx(slope))


def test_a_policy_that_is_its_reference_pays_ln_2() -> None:
    same = torch.tensor([-4.0, -9.0])
    for smoothing in (0.0, 0.3):
        result = dpo(same, same - 1, same, same - 1, beta=0.1, smoothing=smoothing)
        assert float(result.loss) == pytest.approx(2 * math.log(2)) and result.chosen_reward.tolist() == [0, 0]


def test_cdpo_by_hand() -> None:
    # Margin ln 3: sigmoid 3/4. A quarter of the pairs are swapped: -(3/4) ln(3/4) - (1/4) ln(1/4), and there the slope is 0.
    chosen = t(math.log(3)).requires_grad_()
    result = dpo(chosen, t(0), t(0), t(0), beta=1.0, smoothing=0.25)
    assert float(result.loss) == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    result.loss.backward()
    assert float(chosen.grad) == pytest.approx(0, abs=1e-12)  # type: ignore[arg-type]


def test_ipo_by_hand() -> None:
    # Ratios +2 over 4 tokens and -1 over 2: h = 0.5 + 0.5 = 1. beta 1/4 asks for 2, so the loss is 1; beta 1/2 asks for 1: 0.
    given = (t(-6), t(-5), t(-8), t(-4), t(4), t(2))
    assert float(ipo(*given, beta=0.25).loss) == pytest.approx(1.0)
    assert float(ipo(*given, beta=0.5).loss) == pytest.approx(0.0)


def test_orpo_by_hand() -> None:
    # p = 1/2 has odds 1, p = 1/5 odds 1/4: the odds ratio is 4, and -log sigmoid(ln 4) = ln(5/4).
    assert float(orpo(t(math.log(0.5)), t(math.log(0.2)), beta=0.1).loss) == pytest.approx(0.1 * math.log(1.25))


def test_simpo_by_hand() -> None:
    # 2 (-1 + 2) - 2 = 0: the margin is just reached, ln 2.
    result = simpo(t(-1), t(-2), beta=2.0, margin=2.0)
    assert float(result.loss) == pytest.approx(math.log(2)) and float(result.rejected_reward) == -4


def test_kto_by_hand() -> None:
    # beta 1, z0 = ln 2. A desirable ratio of ln 6: sigmoid(ln 3) = 3/4. An undesirable one of ln 4: sigmoid(-ln 2) = 1/3.
    desirable = torch.tensor([True, False])
    found = kto(t(math.log(6), math.log(4)), t(0, 0), desirable, math.log(2), beta=1.0, desirable_weight=2.0, undesirable_weight=3.0)
    assert float(found.loss) == pytest.approx(2 * 0.25 + 3 * (2 / 3))
    assert found.reward.tolist() == pytest.approx([math.log(6), math.log(4)])


def test_z0_is_a_mean_that_is_never_negative() -> None:
    assert kto_baseline(6.0, 4) == 1.5 and kto_baseline(-6.0, 4) == 0.0


def test_unlikelihood_by_hand() -> None:
    p = torch.tensor([0.5, 0.2, 0.9], dtype=torch.float64)
    logp = p.log().requires_grad_()
    loss = unlikelihood(logp)
    assert float(loss) == pytest.approx(-math.log(0.5 * 0.8 * 0.1))
    loss.backward()
    assert logp.grad is not None and logp.grad.tolist() == pytest.approx([1.0, 0.25, 9.0])  # p / (1 - p)


def test_what_is_certain_still_unlearns() -> None:
    """At p = 1 the loss is finite, and its slope does not vanish."""
    logp = torch.zeros(1, requires_grad=True)
    loss = unlikelihood(logp)
    loss.backward()
    assert float(loss) == pytest.approx(-math.log(1e-6), rel=1e-3)
    assert logp.grad is not None and float(logp.grad) == pytest.approx(1e6, rel=0.1)


def test_weighted_by_hand() -> None:
    assert float(weighted_likelihood(t(-2, -3), t(0.5, 2.0))) == 7.0


# ── slow loops ──
def draw(rows: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(policy, reference, tokens), each (2, rows): the better answers and the worse."""
    random = np.random.default_rng(0)
    tokens = random.integers(3, 30, (2, rows)).astype(np.float64)
    policy = -tokens * random.uniform(0.2, 3, (2, rows))
    return policy, policy + random.normal(0, 4, (2, rows)), tokens


def loop(name: str, policy: np.ndarray, reference: np.ndarray, tokens: np.ndarray) -> float:
    """Written from the papers, a pair or an answer at a time, with plain exponentials."""
    total = 0.0
    for i in range(policy.shape[1]):
        (w, v), (ref_w, ref_v), (n, m) = policy[:, i], reference[:, i], tokens[:, i]
        if name in ("dpo", "cdpo"):
            win = 1 / (1 + math.exp(-0.3 * ((w - ref_w) - (v - ref_v))))
            swapped = 0.2 if name == "cdpo" else 0.0
            total += -(1 - swapped) * math.log(win) - swapped * math.log(1 - win)
        elif name == "ipo":
            total += (((w - ref_w) / n - (v - ref_v) / m) - 1 / (2 * 0.3)) ** 2
        elif name == "orpo":
            p, q = math.exp(w) ** (1 / n), math.exp(v) ** (1 / m)
            ratio = (p / (1 - p)) / (q / (1 - q))
            total += 0.3 * -math.log(ratio / (1 + ratio))
        elif name == "simpo":
            total += -math.log(1 / (1 + math.exp(-(0.3 * w / n - 0.3 * v / m - 0.7))))
        elif name == "kto":
            total += 1.2 * (1 - 1 / (1 + math.exp(-0.3 * ((w - ref_w) - 0.4))))
            total += 0.8 * (1 - 1 / (1 + math.exp(-0.3 * (0.4 - (v - ref_v)))))
    return total


def ours(name: str, policy: Tensor, reference: Tensor, tokens: Tensor) -> Tensor:
    mean = policy / tokens
    calls: dict[str, Callable[[], Any]] = {
        "dpo": lambda: dpo(*policy, *reference, beta=0.3),
        "cdpo": lambda: dpo(*policy, *reference, beta=0.3, smoothing=0.2),
        "ipo": lambda: ipo(*policy, *reference, *tokens, beta=0.3),
        "orpo": lambda: orpo(*mean, beta=0.3),
        "simpo": lambda: simpo(*mean, beta=0.3, margin=0.7),
        "kto": lambda: kto(
            policy.flatten(),
            reference.flatten(),
            torch.arange(2).repeat_interleave(policy.shape[1]) == 0,
            0.4,
            beta=0.3,
            desirable_weight=1.2,
            undesirable_weight=0.8,
        ),
    }
    loss: Tensor = calls[name]().loss
    return loss


@pytest.mark.parametrize("name", ["dpo", "cdpo", "ipo", "orpo", "simpo", "kto"])
def test_against_a_loop_and_by_finite_differences(name: str) -> None:
    policy, reference, tokens = draw()
    leaf = torch.from_numpy(policy.copy()).requires_grad_()
    loss = ours(name, leaf, torch.from_numpy(reference), torch.from_numpy(tokens))
    assert float(loss) == pytest.approx(loop(name, policy, reference, tokens), rel=1e-9)
    loss.backward()
    for side, row in ((0, 3), (1, 17)):
        step = np.zeros_like(policy)
        step[side, row] = 1e-6
        slope = (loop(name, policy + step, reference, tokens) - loop(name, policy - step, reference, tokens)) / 2e-6
        assert leaf.grad is not None and float(leaf.grad[side, row]) == pytest.approx(slope, rel=1e-4, abs=1e-8)


@settings(deadline=None)
@given(st.floats(-60, -1e-5))
def test_log_complement_is_exact_at_both_ends(logp: float) -> None:
    wanted = np.log1p(-np.exp(np.longdouble(logp)))
    assert float(log_complement(torch.tensor(logp, dtype=torch.float64))) == pytest.approx(float(wanted), rel=1e-9, abs=1e-300)


@settings(deadline=None)
@given(st.floats(-50, -0.01), st.floats(-50, -0.01), st.floats(0.05, 2))
def test_raising_the_better_answer_never_costs(better: float, worse: float, beta: float) -> None:
    """Every pairwise loss falls when the better answer becomes likelier, except IPO's beyond its target."""
    for loss in (
        lambda x: dpo(x, t(worse), t(-20), t(-20), beta=beta).loss,
        lambda x: orpo(x, t(worse), beta=beta).loss,
        lambda x: simpo(x, t(worse), beta=beta, margin=0.5).loss,
    ):
        leaf = t(better).requires_grad_()
        loss(leaf).backward()
        assert leaf.grad is not None and float(leaf.grad) <= 0


# ── TRL ──
@pytest.fixture(scope="module")
def trl() -> Any:
    return pytest.importorskip("trl", reason="TRL is not installed: it is one oracle of several")


def trainer(**more: Any) -> Any:
    """What a TRL trainer's loss reads of its trainer."""
    accelerator = SimpleNamespace(device="cpu", gather_for_metrics=lambda x: x, gather=lambda x: x)
    plain = {"_metrics": defaultdict(lambda: defaultdict(list)), "_total_train_tokens": 0, "_tp_size": 1, "aux_loss_enabled": False}
    own = {"model": SimpleNamespace(training=True), "accelerator": accelerator, "beta": 0.3, "precompute_ref_logps": True}
    return SimpleNamespace(**own, **plain, **more)


def spoken(logp_AT: Tensor) -> Callable[..., Any]:
    """A model that says what is given."""
    blank = torch.zeros_like(logp_AT)
    return lambda **_: SimpleNamespace(log_probs=logp_AT, entropy=blank, mean_logits=blank, is_top1=blank.bool())


def tokens_of(policy: np.ndarray, tokens: np.ndarray) -> tuple[Tensor, Tensor]:
    """(A, T) log p of tokens that sum to each answer's, and (A, T + 1) where answers stand behind a prompt token."""
    flat, counts = policy.flatten(), tokens.flatten().astype(int)
    logp = torch.zeros(len(flat), counts.max(), dtype=torch.float64)
    mask = torch.zeros(len(flat), counts.max() + 1, dtype=torch.long)
    for i, (value, n) in enumerate(zip(flat, counts, strict=True)):
        logp[i, :n], mask[i, 1 : n + 1] = value / n, 1
    return logp, mask


@pytest.mark.slow
@pytest.mark.parametrize(("name", "theirs"), [("dpo", "sigmoid"), ("ipo", "ipo")])
def test_trl_dpo_trainer(trl: Any, name: str, theirs: str) -> None:
    policy, reference, tokens = draw(8)
    logp, mask = tokens_of(policy, tokens)
    more = {"ld_alpha": None, "f_divergence_type": "reverse_kl", "loss_types": [theirs], "loss_weights": [1.0], "label_smoothing": 0.0}
    inputs = {"input_ids": mask, "attention_mask": mask, "completion_mask": mask}
    inputs |= dict(zip(("ref_chosen_logps", "ref_rejected_logps"), torch.from_numpy(reference), strict=True))
    found = trl.DPOTrainer._compute_loss(trainer(use_weighting=False, **more), spoken(logp), inputs, False)
    mine = ours(name, *map(torch.from_numpy, (policy, reference, tokens)))
    assert float(mine) / 8 == pytest.approx(float(found), rel=1e-6)


@pytest.mark.slow
def test_trl_kto_trainer(trl: Any) -> None:
    policy, reference, tokens = draw(8)
    logp, mask = tokens_of(policy, tokens)
    label = torch.arange(2).repeat_interleave(8) == 0
    apart, apart_before = torch.linspace(-30, -20, 16, dtype=torch.float64), torch.linspace(-31, -20, 16, dtype=torch.float64)
    inputs = {"input_ids": mask, "attention_mask": mask, "completion_mask": mask, "label": label}
    inputs |= {"ref_logps": torch.from_numpy(reference.flatten()), "ref_KL_logps": apart_before}
    weights = {"desirable_weight": 1.2, "undesirable_weight": 0.8}
    stand_in = trainer(calculate_KL=True, loss_type="kto", _compute_kl_logps=lambda model, batch: apart, **weights)
    found = trl.KTOTrainer._compute_loss(stand_in, spoken(logp), inputs, False)
    z0 = kto_baseline(float((apart - apart_before).sum()), 16)
    assert z0 == pytest.approx(0.5), "the baseline has a part in this"
    mine = kto(*map(torch.from_numpy, (policy.flatten(), reference.flatten())), label, z0, beta=0.3, **weights)
    assert float(mine.loss) / 16 == pytest.approx(float(found), rel=1e-6)


@pytest.mark.slow
def test_trl_orpo_and_simpo(trl: Any) -> None:
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    policy, reference, tokens = draw(8)
    mean = torch.from_numpy(policy / tokens)
    losses, *_ = ORPOTrainer.odds_ratio_loss(trainer(), *mean)
    # Theirs is beta log sigmoid, which the trainer takes off the likelihood.
    assert float(ours("orpo", *map(torch.from_numpy, (policy, reference, tokens)))) == pytest.approx(-float(losses.sum()), rel=1e-5)
    stand_in = trainer(loss_type="simpo", simpo_gamma=0.7, label_smoothing=0.0, alpha=0.0)
    losses, *_ = CPOTrainer.cpo_loss(stand_in, *mean)
    assert float(ours("simpo", *map(torch.from_numpy, (policy, reference, tokens)))) == pytest.approx(float(losses.sum()), rel=1e-6)
