"""Trouble in training is said when it begins, once, with the step and the number; healthy runs are left alone."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from norma.align.alarms import Lookout, alarms, deviations, flat_words, standard_errors
from norma.pipeline.observe import Logged


def series(steps: int, seed: int = 0, **numbers: Any) -> list[dict[str, Any]]:
    """Rows whose numbers are (function of the step) + noise of the given size."""
    draw = random.Random(seed)
    return [{"step": t, **{name: f(t) + draw.gauss(0, noise) for name, (f, noise) in numbers.items()}} for t in range(steps)]


def kinds(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {alarm.kind: alarm.step for alarm in alarms(rows)}


def ramp(low: float, high: float, begin: int, end: int) -> Any:
    return lambda t: low + (high - low) * min(1.0, max(0.0, (t - begin) / (end - begin)))


def test_entropy_that_collapses_is_said_once_when_it_begins() -> None:
    found = alarms(series(200, entropy=(ramp(2.0, 0.1, 50, 100), 0.05)))
    assert [a.kind for a in found] == ["entropy"]
    # 30% of 2.0 is 0.6: the ramp is there at step 86.8, the mean of ten steps about five steps later.
    assert 87 <= found[0].step <= 96 and 0.5 < found[0].value < 0.6
    assert f"{found[0].value:.3g} nats" in found[0].en and "熵" in found[0].zh
    assert kinds(series(200, entropy=(ramp(2.0, 0.9, 50, 100), 0.05))) == {}  # sharper is what training is for
    assert kinds(series(200, entropy=(ramp(0.04, 0.001, 50, 100), 0.0))) == {}  # as sure as that from the start


def test_a_hack_gap_is_told_from_learning() -> None:
    rises = ramp(0.3, 0.9, 20, 80)
    hacked = series(120, reward=(rises, 0.05), reward_held_out=(lambda t: 0.3, 0.05))
    assert 30 < kinds(hacked)["hack_gap"] < 70
    falls = [a for a in alarms(series(120, reward=(rises, 0.05), reward_held_out=(ramp(0.5, 0.2, 20, 80), 0.05))) if a.kind == "hack_gap"]
    assert "fell by" in falls[0].en and "下降" in falls[0].zh
    assert kinds(series(120, reward=(rises, 0.05), reward_held_out=(ramp(0.3, 0.75, 20, 80), 0.05))) == {}
    assert kinds(series(120, reward=(lambda t: 0.5, 0.05), reward_held_out=(ramp(0.5, 0.2, 20, 80), 0.05))) == {}  # nothing was gained
    assert kinds(series(120, reward=(rises, 0.05))) == {}  # without a held-out reward nothing can be known


def test_the_gap_is_paired_by_step_and_names_the_rule() -> None:
    """Noise that both sides share (easy and hard questions) hides nothing: 0.1 of it, and a gap of 0.2."""
    draw = random.Random(3)
    rows = []
    for t in range(150):
        both, step_up = draw.gauss(0, 0.1), ramp(0.4, 0.6, 60, 61)(t)
        rows.append({
            "step": t,
            "rule/form.brief": step_up + both, "held_out/form.brief": 0.4 + both + draw.gauss(0, 0.02),
            "rule/form.kind": step_up + both, "held_out/form.kind": step_up + both + draw.gauss(0, 0.02),
        })  # fmt: skip
    found = alarms(rows)
    assert {a.kind for a in found} == {"hack_gap:form.brief"} and "rule form.brief" in found[0].en
    # Held-out checkers that judge every third step only are paired with the reward of those steps.
    sparse = [row if row["step"] % 3 == 0 else {"step": row["step"], "rule/form.brief": row["rule/form.brief"]} for row in rows]
    assert set(kinds(sparse)) <= {"hack_gap:form.brief"}


@pytest.mark.parametrize(
    ("name", "bad", "good", "kind"),
    [
        ("flat_groups", 0.99, 0.8, "flat_groups"),
        ("clip_share", 0.4, 0.2, "clip_share"),
        ("mismatch", 0.2, 0.02, "mismatch"),
        ("masked", 0.7, 0.3, "masked"),
        ("unfinished", 0.97, 0.4, "unfinished"),
        ("kl", 3.0, 0.3, "kl"),
    ],
)
def test_levels(name: str, bad: float, good: float, kind: str) -> None:
    late = series(60, **{name: (lambda t: good if t < 30 else bad, 0.0)})
    step = kinds(late)[kind]
    assert 30 <= step <= 39, "said when the mean of ten steps says so, not later"
    assert len(alarms(late)) == 1
    assert kinds(series(60, **{name: (lambda t: good, 0.0)})) == {}
    assert kinds(series(60, **{name: (lambda t: bad if t == 30 else good, 0.0)})) == {}, "one bad step is no news"


def test_answers_that_grow_to_the_limit() -> None:
    (alarm,) = alarms(series(100, unfinished=(ramp(0.05, 0.7, 30, 80), 0.02), answer_tokens=(ramp(20, 46, 30, 80), 1.0)))
    assert alarm.kind == "unfinished" and "answers grow" in alarm.en and "tokens on average" in alarm.en
    assert kinds(series(100, unfinished=(lambda t: 0.6, 0.02))) == {}, "as many as from the start"


def test_kl_that_runs_away_and_kl_that_creeps() -> None:
    assert "kl" in kinds(series(80, kl=(lambda t: 0.01 * 1.1**t, 0.0)))
    assert kinds(series(300, kl=(ramp(0.0, 1.0, 0, 300), 0.005))) == {}, "slow, and below the top"
    assert kinds(series(300, kl=(ramp(0.0, 0.2, 0, 20), 0.02))) == {}


def test_chosen_falls_with_rejected() -> None:
    falls = series(100, chosen_nats_per_token=(ramp(1.5, 2.2, 10, 80), 0.1), rejected_nats_per_token=(ramp(1.6, 3.0, 10, 80), 0.1))
    assert set(kinds(falls)) == {"chosen_falls"}
    assert (
        kinds(series(100, chosen_nats_per_token=(ramp(1.5, 1.2, 10, 80), 0.1), rejected_nats_per_token=(ramp(1.6, 3.0, 10, 80), 0.1))) == {}
    )


def test_false_alarms_by_simulation() -> None:
    """150 healthy trainings of 300 steps: rewards rise with held-out rewards behind them, noise is that of 64 answers a step and hangs
    together from step to step. About one in a hundred is warned of."""
    draw, wrong = random.Random(11), 0
    for _ in range(150):
        end, share, drag = draw.uniform(0.3, 0.95), draw.uniform(0.5, 1.0), 0.0
        lookout, said = Lookout(), 0
        for t in range(300):
            drag = 0.6 * drag + draw.gauss(0, 0.03)
            true = 0.3 + (end - 0.3) * min(1.0, t / 150)
            held = 0.3 + (true - 0.3) * share
            row = {
                "step": t,
                "reward": true + drag + draw.gauss(0, 0.06),
                "reward_held_out": held + drag + draw.gauss(0, 0.06),
                "entropy": 2.0 - 1.2 * min(1.0, t / 150) + draw.gauss(0, 0.1),
                "kl": 0.15 * min(1.0, t / 150) + abs(draw.gauss(0, 0.03)),
                "flat_groups": sum(draw.random() < 0.6 for _ in range(8)) / 8,
                "unfinished": max(0.0, 0.1 + draw.gauss(0, 0.05)),
                "clip_share": abs(draw.gauss(0.08, 0.05)),
                "mismatch": abs(draw.gauss(0.02, 0.01)),
                "masked": sum(draw.random() < 0.1 for _ in range(64)) / 64,
                "chosen_nats_per_token": 1.5 + draw.gauss(0, 0.2),
                "rejected_nats_per_token": 1.5 + min(1.0, t / 100) + draw.gauss(0, 0.2),
            }
            said += len(lookout.add(row))
        wrong += said > 0
    assert wrong <= 4, f"{wrong} of 150 healthy trainings were warned of"


@pytest.mark.parametrize(("every", "repeats"), [(5, 1), (1, 4), (5, 4)])
def test_no_false_alarms_where_held_out_checkers_look_seldom_and_rollouts_last_several_steps(every: int, repeats: int) -> None:
    """100 healthy trainings of 300 steps: PPO goes over a rollout four times and logs its numbers each time; that is no more evidence."""
    draw, wrong = random.Random(13), 0
    for _ in range(100):
        end, share = draw.uniform(0.3, 0.95), draw.uniform(0.5, 1.0)
        lookout, said = Lookout(), 0
        for rollout in range(300 // repeats):
            true = 0.3 + (end - 0.3) * min(1.0, 2 * rollout * repeats / 300)
            row = {"reward": true + draw.gauss(0, 0.06), "answer_tokens": draw.gauss(20, 1), "flat_groups": draw.choice([0.5, 0.75, 0.9])}
            if rollout % every == 0:
                row["reward_held_out"] = 0.3 + (true - 0.3) * share + draw.gauss(0, 0.06)
            for within in range(repeats):
                said += len(lookout.add({**row, "step": rollout * repeats + within, "kl": draw.gauss(0.1, 0.02)}))
        wrong += said > 0
    assert wrong <= 3, f"{wrong} of 100"


def test_a_gap_is_found_where_held_out_checkers_look_every_fifth_rollout() -> None:
    draw, found = random.Random(14), 0
    for _ in range(50):
        rows = []
        for t in range(100):
            row = {"step": t, "reward": 0.3 + 0.4 * min(1.0, t / 50) + draw.gauss(0, 0.04), "answer_tokens": draw.gauss(20, 1)}
            rows.append(row | ({"reward_held_out": 0.3 + draw.gauss(0, 0.04)} if t % 5 == 0 else {}))
        found += "hack_gap" in kinds(rows)
    assert found >= 44


def test_what_is_seldom_missed_by_simulation() -> None:
    """100 trainings that hack their checker by 0.3, with the same noise: nearly all are found."""
    draw, found = random.Random(12), 0
    for _ in range(100):
        rows, drag = [], 0.0
        for t in range(200):
            drag = 0.6 * drag + draw.gauss(0, 0.03)
            true = 0.3 + 0.3 * min(1.0, t / 100)
            rows.append({"step": t, "reward": true + drag + draw.gauss(0, 0.06), "reward_held_out": 0.3 + drag + draw.gauss(0, 0.06)})
        found += "hack_gap" in kinds(rows)
    assert found >= 95


def test_rows_that_do_not_count_and_numbers_that_are_none() -> None:
    rows = series(60, entropy=(lambda t: 2.0, 0.0))
    assert alarms([row | {"skipped": True, "entropy": 0.0} for row in rows]) == []
    assert alarms([row | {"kl": None, "reward": float("nan"), "why": "text"} for row in rows]) == []
    assert alarms([]) == [] and alarms([{"step": 0, "reward": 1.0}]) == []


def test_standard_errors_by_hand() -> None:
    # Means 2 and 6, variances 1 and 4 (n - 1), three each: 4 / sqrt(1/3 + 4/3) = 4 / 1.29099
    assert standard_errors([1, 2, 3], [4, 6, 8]) == pytest.approx(3.0983866769659336)
    assert standard_errors([1, 1], [1, 1]) == 0.0 and standard_errors([1, 1], [2, 2]) == float("inf")
    # Student's t with 10 degrees of freedom exceeds 2.763769 with a chance of 1%; the normal distribution 2.326348.
    assert deviations([0.0] * 3 + [2.0] * 3, [x + 2.763769 * math.sqrt(2 * 1.2 / 6) for x in [0.0] * 3 + [2.0] * 3]) == pytest.approx(
        2.326348, abs=0.01
    )
    assert flat_words(0.37)[0] == "37% of groups gave no signal because all answers got the same reward."


class Ears:
    def __init__(self) -> None:
        self.said: list[str] = []

    def update(self, step: int, total: int, **numbers: float) -> None:
        pass

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_stage_says_it_once_and_a_resumed_one_not_again(tmp_path: Path) -> None:
    rows = series(200, entropy=(ramp(2.0, 0.1, 50, 100), 0.0))
    metrics = tmp_path / "metrics.jsonl"

    def go_on(first: int, last: int) -> list[str]:
        ears = Ears()
        logged = Logged(ears, tmp_path / "log.txt")
        for row in rows[first:last]:  # as the loop does: the row is written, then shown
            with metrics.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(row) + "\n")
            logged.update(row["step"] + 1, 200, **{k: v for k, v in row.items() if k != "step"})
        return ears.said

    step = alarms(rows)[0].step
    said = go_on(0, step + 1)
    assert len(said) == 1 and f"step {step}" in said[0] and "Entropy collapses" in (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert go_on(step + 1, 200) == []
    metrics.unlink()
    assert go_on(0, 60) == [] and len(go_on(60, 200)) == 1, "what came before the kill is remembered"
