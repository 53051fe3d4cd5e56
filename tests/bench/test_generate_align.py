"""Sampling and post-training beside peers: that the work is the same, that a step is a step, and (slow) that whole runs go through."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from norma.base.files import read_jsonl
from norma.bench import align, align_norma, generate, generate_work

TINY = align.Shape(width=64, layers=1, vocabulary=600, rows=4, questions=2, group=3, new_tokens=6, length=256)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    align.write_work(TINY, folder)
    return folder


def job(folder: Path, method: str, **more: Any) -> dict[str, Any]:
    (made,) = align.systems(method, TINY, "float32", folder, 1, [])
    return {**made.job, **more}


def test_rows_have_natural_lengths_and_no_answer_is_its_own_rejected_one(work: Path) -> None:
    rows = read_jsonl(work / "rows.jsonl")
    lengths = torch.tensor([len(r["chosen"]) for r in rows], dtype=torch.float32)
    assert len(rows) > 500 and all(r["chosen"] != r["rejected"] for r in rows)
    assert lengths.std() > lengths.mean() / 2, "long ones and short ones"
    assert rows == [json.loads(line) for line in (work / "rows.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("method", "samples"), [("dpo", 4), ("kto", 4), ("reward-model", 4), ("grpo", 6)])
def test_a_step_moves_the_weights_and_says_what_it_took(work: Path, method: str, samples: int) -> None:
    step = align_norma.step_of(job(work, method))
    loss, taken, tokens = step().tolist()
    assert taken == samples and tokens > 5 * samples and torch.isfinite(torch.tensor(loss))


def test_a_step_of_packed_texts_takes_about_as_many_as_a_peers(work: Path) -> None:
    step = align_norma.step_of(job(work, "sft", rows=40))
    taken = [step().tolist() for _ in range(3)]
    assert 25 < sum(t[1] for t in taken) / 3 < 55
    assert all(t[2] > 5 * t[1] for t in taken)


def test_the_reward_is_the_same_for_all() -> None:
    assert [align_norma.reward_of("a " * n) for n in (80, 0, 120)] == [0.0, -1.0, -0.5]


def test_sampling_has_the_same_prompts_and_ends_where_it_should(tmp_path: Path) -> None:
    shape = generate.Shape(width=64, layers=1, vocabulary=640, prompts=3, group=2, prompt_tokens=12, new_tokens=40)
    (ours,) = generate.systems(shape, "varied", "float32", tmp_path, 1, [])
    prompts = generate_work.prompts_of(ours.job)
    assert prompts == generate_work.prompts_of(ours.job) and max(map(len, prompts)) == 12
    for kind, low, high in (("varied", 5, 39), ("fixed", 40, 40)):
        generate.model_folder(shape, kind, tmp_path)
        lengths = [float(generate_work.norma_step({**ours.job, "folder": str(tmp_path)})()) for _ in range(2)]
        assert all(low <= n <= high for n in lengths)
    assert {w.group for w in generate.systems(shape, "fixed", "bfloat16", tmp_path, 1, ["hf"])} == {
        "norma",
        "transformers as installed",
        "tuned",
    }


@pytest.mark.slow
def test_both_benchmarks_from_end_to_end(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    console, out = Console(file=io.StringIO(), width=200), tmp_path / "rows.json"
    how: dict[str, Any] = {"rounds": 1, "threads": 1, "json_path": out, "console": console}
    shape = generate.Shape(width=64, layers=1, vocabulary=640, prompts=2, group=2, prompt_tokens=12, new_tokens=5)
    assert len(generate.run(shape, ["fixed"], "float32", peers=["hf"], **how)) == 3
    rows = align.run(align.METHODS, TINY, "float32", peers=["trl"], **how)
    assert len(rows) == 15 and rows[0].ratio == 1.0 and all(r.samples_per_s and r.tokens_per_s > 0 for r in rows)
    written = json.loads(out.read_text())
    assert {"system", "work", "setting", "tokens_per_s", "samples_per_s", "peak_mb", "ratio"} <= set(written[0])
