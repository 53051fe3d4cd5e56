"""What the report says of a training is what its files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from norma.base.files import write_json
from norma.cli.training import trained_stages, training_view
from norma.evaluate.report import render_training
from norma.evaluate.report.training import calm, panels
from norma.pipeline.training import batch_table, describe, read_training, thinned, trained


def stage(run: Path, name: str, kind: str, rows: list[dict[str, Any]], inputs: tuple[str, ...] = (), **plan: Any) -> Path:
    folder = run / name
    folder.mkdir(parents=True)
    write_json(folder / "lineage.json", {"stage": name, "identity": {"kind": kind, "inputs": dict.fromkeys(inputs, "x"), "options": {}}})
    write_json(folder / "plan.json", plan)
    if rows:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def policy_rows(steps: int = 60) -> list[dict[str, Any]]:
    return [
        {"step": t, "reward": t / steps, "kl": 0.001 * t, "rule/form.brief": 0.5, "held_out/form.brief": 0.4, "flat_groups": 0.37,
         "answer_tokens": 20.0, "seconds": 1.5, "tokens_per_s": 1e4, "eta": 3.0, "learning_rate": 1e-4}
        for t in range(steps)
    ]  # fmt: skip


def test_ancestors_come_first_and_stages_that_learn_nothing_are_left_out(tmp_path: Path) -> None:
    stage(tmp_path, "corpus", "corpus", [])
    stage(tmp_path, "pretrain", "pretrain", [{"step": 0, "loss": 4.0}], ("corpus",))
    stage(tmp_path, "judge", "reward-model", [{"step": 0, "loss": 0.7, "accuracy": 0.5}], ("pretrain",))
    last = stage(tmp_path, "reward", "reward", policy_rows(), ("pretrain", "judge"))
    records = trained([last], {"reward": {"en": "R", "zh": "奖"}})
    assert [r["stage"] for r in records] == ["pretrain", "judge", "reward"]
    assert records[-1]["label"] == {"en": "R", "zh": "奖"} and records[0]["label"]["zh"] == "pretrain"
    assert records[-1]["said"][0]["en"] == "37% of groups gave no signal because all answers got the same reward."


def test_clocks_stay_out(tmp_path: Path) -> None:
    """Two equal runs on machines of other speed have equal reports."""
    rows = policy_rows()
    slow = [row | {"seconds": 9.0, "tokens_per_s": 1.0, "eta": 900.0} for row in rows]
    assert describe("r", "reward", {}, {}, rows) == describe("r", "reward", {}, {}, slow)
    assert {c["name"] for c in describe("r", "reward", {}, {}, rows)["curves"]} == {
        *("reward", "kl", "rule/form.brief", "held_out/form.brief", "flat_groups", "answer_tokens")
    }


def test_a_running_stage_with_half_a_line_and_skipped_steps(tmp_path: Path) -> None:
    folder = tmp_path / "reward"
    folder.mkdir()
    rows = [{"step": 0, "loss": 1.0}, {"step": 1, "skipped": True, "why": "the loss is not finite"}, {"step": 2, "loss": None}]
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 3, "lo'
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    record = read_training(folder)
    assert record is not None and record["steps"] == 2 and record["stage"] == "reward"
    assert record["said"][-1]["en"] == "1 of 3 steps did not count: the loss is not finite."
    assert record["curves"] == [{"name": "loss", "steps": [0.0], "values": [1.0]}]


def test_curves_are_thinned_to_means() -> None:
    rows = [{"step": t, "loss": float(t % 2)} for t in range(1000)]
    found = thinned(rows, "loss", points=100)
    assert len(found["values"]) == 100 and set(found["values"]) == {0.5}  # ten neighbours each: five of one, five of the other
    assert found["steps"][0] == 4.5 and found["steps"][-1] == 994.5
    assert thinned(rows[:3], "loss") == {"steps": [0.0, 1.0, 2.0], "values": [0.0, 1.0, 0.0]}
    assert calm([1.0, 2.0]) == [1.0, 2.0] and calm([1.0] * 30) == pytest.approx([1.0] * 30)


def test_the_batch_table_by_hand() -> None:
    policy = {"policy": {"questions": 8, "group": 4, "micro_tokens": 4096}}
    assert batch_table(policy, {}, [{"answer_tokens": 20.0}, {"answer_tokens": 30.0}]) == {
        "sequences": 32, "tokens": 800, "micro_tokens": 4096, "processes": 1, "steps": 2,
    }  # fmt: skip
    plan = {"micro_batch": 4, "batch": {"sequences": 16, "length": 256, "processes": 2, "steps_per_epoch": 8}}
    assert batch_table({"batch": 16}, plan, [{"tokens": 3000}] * 4) == {
        "sequences": 16, "tokens": 4096, "micro_batch": 4, "processes": 2, "steps": 4, "epochs": 0.5,
    }  # fmt: skip
    assert batch_table({}, {}, []) == {"processes": 1, "steps": 0}


def test_panels_draw_what_there_is() -> None:
    """Numbers of other kinds of training may be absent, and ones that nobody foresaw are shown below."""
    rows = [row | {"reward_held_out": 0.2, "novelty": 3.0} for row in policy_rows()]
    record = describe("r", "reward", {}, {}, rows) | {"label": {"en": "r", "zh": "r"}}
    (panel,) = panels([record])
    assert [len(chart["lines"]) for chart in panel["charts"]] == [2, 1, 1, 1]  # reward and held-out, KL, length, flat groups
    assert [chart["title"][0] for chart in panel["more"]] == ["novelty"]
    assert panel["sparks"][0]["trained_last"] == 0.5 and panel["sparks"][0]["held_last"] == pytest.approx(0.4)
    assert [a["kind"] for a in panel["alarms"]] == ["hack_gap"]
    preference = [{"step": t, "loss": 0.6, "chosen_reward": 0.1 * t, "rejected_reward": -0.1 * t, "pairs_correct": 0.7} for t in range(9)]
    (panel,) = panels([describe("p", "preference", {}, {}, preference) | {"label": {"en": "p", "zh": "p"}}])
    assert [chart["title"][0] for chart in panel["charts"]] == ["Implicit reward", "Pairs in the right order", "Loss"]
    (panel,) = panels([describe("p", "sft", {}, {}, [{"step": 0, "loss": 1.0}]) | {"label": {"en": "p", "zh": "p"}}])
    assert panel["charts"] == [] and "One step" in render_training(
        [describe("p", "sft", {}, {}, []) | {"label": {"en": "p", "zh": "p"}}], "x"
    )


def test_the_page_and_the_terminal(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>[red]"
    rows = [row | {f"rule/{evil}": 0.5} for row in policy_rows()]
    stage(tmp_path, "reward", "reward", rows, row=[[evil, "read"], ["good", "learnt"], ["bad", "unlearnt"]])
    (tmp_path / ".work" / "later").mkdir(parents=True)
    (tmp_path / ".work" / "later" / "metrics.jsonl").write_text('{"step": 0, "loss": 2.0}\n{"step": 1, "loss": 1.0}\n', encoding="utf-8")
    records = trained_stages(tmp_path)
    assert [r["stage"] for r in records] == ["reward", "later"]
    page = render_training(records, "my-run")
    assert page.count("<script>") == 1 and "alert(1)</script>" not in page and "https://" not in page and "http://" not in page
    assert '<span class="unlearnt">bad</span>' in page
    console = Console(width=100, record=True)
    for record in records:
        console.print(training_view(record))
    text = console.export_text()
    assert "reward" in text and "→ 0.983" in text and "37% of groups" in text and "[red]" in text and "1 process, 60 steps" in text
