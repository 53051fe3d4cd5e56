"""Spikes and what is not finite: found by hand-worked numbers, and left out as a loop that never saw them leaves them out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import STEPS, Said, losses_of, model, options_of, run, weights

from norma.base.errors import NormaError
from norma.train.guard import LEAST, Guard, spike
from norma.train.metrics import CLOCKS
from norma.train.optimiser import make_optimisers, schedule_factor, set_learning_rate

NAN = float("nan")


def rows_in(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in CLOCKS} for row in rows]


def by_hand(left_out: set[int]) -> torch.Tensor:
    """The weights after a bare loop in which these steps do nothing."""
    made = model()
    optimisers = make_optimisers(made, kind="adamw", learning_rate=1e-2, matrix_learning_rate=1e-2, weight_decay=0.05)
    losses = losses_of(made)
    for step in range(STEPS):
        if step in left_out:
            continue
        set_learning_rate(optimisers, schedule_factor(step, steps=STEPS, warmup=2, kind="constant"))
        next(losses(step))[0].backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimisers[0].step()
        optimisers[0].zero_grad()
    return weights(made)


def test_a_spike_by_hand() -> None:
    window = [1.0, 2.0, 3.0, 4.0, 5.0] * 2  # median 3; distances 2 1 0 1 2 twice: median 1
    assert spike(6.0, window, factor=2.0, mads=None) is None
    assert spike(6.1, window, factor=2.0, mads=None) == "the loss 6.1 is 2.03 times the median 3 of the last 10 steps"
    assert spike(7.0, window, factor=None, mads=4.0) is None
    assert spike(7.5, window, factor=None, mads=4.0) == "the loss 7.5 is 4.5 deviations above the median 3 of the last 10 steps"
    assert spike(1e9, window, factor=None, mads=None) is None
    assert spike(1e9, window[: LEAST - 1], factor=2.0, mads=4.0) is None  # too few to judge by
    assert spike(5.0, [-1.0] * 10, factor=2.0, mads=4.0) is None  # neither median nor spread says anything


@given(
    st.lists(st.floats(0.5, 5), min_size=LEAST, max_size=50),
    st.floats(0.1, 100),
    st.floats(1.5, 10),
    st.floats(1, 20),
    st.floats(0.01, 100),
)
def test_a_spike_does_not_depend_on_order_or_unit(window: list[float], loss: float, factor: float, mads: float, unit: float) -> None:
    found = spike(loss, window, factor=factor, mads=None) is not None
    middle = sorted(window)[len(window) // 2] if len(window) % 2 else sum(sorted(window)[len(window) // 2 - 1 :][:2]) / 2
    if not math.isclose(loss, factor * middle, rel_tol=1e-9):  # at the edge rounding decides
        assert found == (loss > factor * middle)
        assert found == (spike(loss * unit, [x * unit for x in reversed(window)], factor=factor, mads=None) is not None)
    if spike(loss, window, factor=None, mads=mads):
        assert spike(loss * 2, window, factor=None, mads=mads)  # a higher one is one too
    assert spike(min(window), window, factor=factor, mads=mads) is None


def test_spikes_stay_out_of_the_window() -> None:
    guard = Guard(options_of(spike_factor=2.0))
    for step in range(60):
        loss = 1000.0 if step >= 20 and step % 2 else 1.0 + step % 3 / 10
        why = guard.judge(loss, 1.0)
        assert (why is not None) == (loss == 1000.0)
        if why is None:
            guard.accept(loss)
    assert max(guard.losses) < 2 and len(guard.losses) == 40
    assert guard.judge(None, 1.0) is None and guard.judge(None, float("inf")) == "the gradient is not finite (inf)"
    assert guard.judge(NAN, 1.0) == "the loss is not finite (nan)"


@pytest.mark.parametrize("seconds", [1e-9, 1e9])
@pytest.mark.parametrize(
    ("policy", "pass_over", "bad", "number", "left_out"),
    [
        ("skip", 10, {12: NAN}, {}, {12}),
        ("skip", 10, {}, {12: 50.0, 20: NAN}, {12, 20}),
        ("skip", 10, {5: float("inf"), 6: NAN}, {}, {5, 6}),
        ("rollback", 1, {12: NAN}, {}, {12}),
        ("rollback", 4, {12: NAN}, {}, {9, 10, 11, 12}),
        ("rollback", 4, {1: NAN}, {}, {0, 1}),
        ("rollback", 4, {12: NAN, 13: NAN, 20: 1.0}, {20: 50.0}, {9, 10, 11, 12, 13, 17, 18, 19, 20}),
        ("rollback", 6, {20: NAN, 22: NAN}, {}, {15, 16, 17, 18, 19, 20, 21, 22}),
    ],
)
def test_left_out_as_if_never_seen(
    policy: str, pass_over: int, bad: dict[int, float], number: dict[int, float], left_out: set[int], seconds: float, tmp_path: Path
) -> None:
    """Whatever the clock makes of the checkpoints: the end is that of a bare loop without these steps."""
    made, said = model(), Said()
    options = options_of(on_spike=policy, pass_over=pass_over, spike_factor=5.0, checkpoint_seconds=seconds)
    last = run(made, tmp_path, options, bad=bad, number=number, said=said)
    assert torch.equal(weights(made), by_hand(left_out))
    rows = rows_in(tmp_path)
    assert [r["step"] for r in rows] == list(range(STEPS))
    assert {r["step"] for r in rows if r.get("skipped")} == left_out and all("why" in r for r in rows if r.get("skipped"))
    assert last == {k: v for k, v in rows[-1].items() if k != "step"}
    for step in sorted({*[s for s, v in bad.items() if v != 1.0], *number}):
        assert any(line.startswith(f"step {step} does not count: the ") for line in said.lines)
    assert len([line for line in said.lines if line.startswith("back to step")]) == (
        len({*[s for s, v in bad.items() if v != 1.0], *number}) if policy == "rollback" else 0
    )


def test_stop_names_the_step_and_changes_nothing(tmp_path: Path) -> None:
    made, said = model(), Said()
    with pytest.raises(NormaError, match=r"at step 15 the loss .* times the median .* of the last 15 steps\. Lower the learning rate"):
        run(made, tmp_path, options_of(spike_factor=5.0), number={15: 50.0}, said=said)
    assert torch.equal(weights(made), by_hand(set(range(15, STEPS))))
    assert rows_in(tmp_path)[-1]["step"] == 15 and rows_in(tmp_path)[-1]["skipped"] is True
    assert said.lines == [f"step 15 does not count: {rows_in(tmp_path)[-1]['why']}"]
    run(made, tmp_path / "off", options_of(), number={15: 50.0})  # spikes are not looked for unless asked


@pytest.mark.parametrize("policy", ["skip", "rollback"])
def test_too_many_in_a_row_stop(policy: str, tmp_path: Path) -> None:
    options = options_of(on_spike=policy, most_skips=3, pass_over=2)
    run(model(), tmp_path / "fine", options, bad={12: NAN, 13: NAN, 14: NAN, 16: NAN})
    with pytest.raises(NormaError, match="4 steps in a row had to be left out, up to step 15, where the loss is not finite"):
        run(model(), tmp_path / "bad", options, bad={12: NAN, 13: NAN, 14: NAN, 15: NAN})


def test_a_step_that_does_not_count_leaves_no_trace_in_the_state(tmp_path: Path) -> None:
    state: dict[str, Any] = {"seen": []}
    run(model(), tmp_path, options_of(on_spike="skip"), bad={12: NAN}, state=state, call=lambda step: state["seen"].append(step))
    assert state["seen"] == [s for s in range(STEPS) if s != 12]
    state = {"seen": []}
    options = options_of(on_spike="rollback", pass_over=4)
    run(model(), tmp_path / "b", options, bad={12: NAN}, state=state, call=lambda step: state["seen"].append(step))
    assert state["seen"] == [s for s in range(STEPS) if s not in (9, 10, 11, 12)]


def test_no_checkpoint_to_go_back_to(tmp_path: Path) -> None:
    def damage(step: int) -> None:
        if step == 12:
            for path in tmp_path.glob("checkpoint-*/model.safetensors"):
                path.write_bytes(b"")

    with pytest.raises(NormaError, match="no whole checkpoint of step 9 or before to go back to"):
        run(model(), tmp_path, options_of(on_spike="rollback", pass_over=4, checkpoint_seconds=1e-9), bad={12: NAN}, call=damage)
