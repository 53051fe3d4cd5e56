"""The race with nanoGPT: its schedule, its accounting, one measure for both sides, and a tiny race from end to end with a stand-in."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from norma.bench.held_out import bits_per_byte, held_out
from norma.bench.nanogpt import curve_steps, learning_rate, steps_that_fit, warmup_steps
from norma.bench.time_to_loss import Race, Result, curves_csv, passed, reached, recipe, rows_of
from norma.pipeline.recipe import load_recipe
from norma.text.packing import IGNORE
from norma.text.shards import Made, Shards, ShardWriter

STAND_IN = '''
"""What train.py needs of nanoGPT's model.py, at its smallest: scores of a token from the one before it."""
from dataclasses import dataclass
import torch
from torch import nn
from torch.nn import functional as F

@dataclass
class GPTConfig:
    vocab_size: int
    n_layer: int
    n_head: int
    n_embd: int
    block_size: int
    dropout: float
    bias: bool

class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.table = nn.Embedding(config.vocab_size, config.n_embd)
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=config.bias)
        print("number of parameters: said to stdout, as nanoGPT does")

    def forward(self, ids, targets=None):
        scores = self.head(self.table(ids))
        if targets is None:
            return scores[:, [-1]], None
        return scores, F.cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=-1)
'''


def result(system: str, curve: list[tuple[int, float, float]], parameters: int = 1000) -> Result:
    points = [{"step": float(s), "tokens": s * 100.0, "seconds": t, "bits_per_byte": b} for s, t, b in curve]
    return Result(system, "set", parameters, curve[-1][0], curve[-1][0] * 100, curve[-1][1], 1.0, curve[-1][2], points)


# ── the peer's schedule ──
def test_its_learning_rate_is_that_of_train_py() -> None:
    """By hand, of 1,000 steps: 100 of warm-up (a 101st of the way each), half a cosine from 1e-3 to 1e-4."""
    assert learning_rate(0, 1000) == pytest.approx(1e-3 / 101)
    assert learning_rate(99, 1000) == pytest.approx(1e-3 * 100 / 101)
    assert learning_rate(100, 1000) == pytest.approx(1e-3)
    assert learning_rate(550, 1000) == pytest.approx((1e-3 + 1e-4) / 2)  # half way: the cosine is 0
    assert learning_rate(999, 1000) == pytest.approx(1e-4, rel=1e-3)


@given(st.integers(1, 3000))
def test_its_schedule_is_complete_whatever_the_number_of_steps(steps: int) -> None:
    rates = [learning_rate(step, steps) for step in range(steps)]
    peak = warmup_steps(steps)
    assert all(0 < rate <= 1e-3 for rate in rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    if steps > 100:  # the last step stands one before the end of the cosine
        assert rates[-1] == pytest.approx(1e-4, abs=3e-6)


def test_steps_that_fit() -> None:
    assert steps_that_fit(1200, 2.65) == 453  # 452.8
    assert steps_that_fit(0.1, 5.0) == 1


@given(st.integers(1, 5000))
def test_a_curve_ends_at_the_end(steps: int) -> None:
    points = curve_steps(steps)
    assert points[-1] == steps and points[0] >= 1 and len(points) == min(8, steps)
    assert points == sorted(set(points))


# ── accounting ──
def test_what_was_reached_and_what_passes() -> None:
    race = Race(Path("t"), Path("n"))
    peer = result("nanoGPT", [(10, 50.0, 3.0), (20, 100.0, 2.0)])
    ours = result("Norma", [(5, 20.0, 2.4), (10, 40.0, 2.0), (12, 48.0, 1.9)])
    assert reached(ours.curve, 2.0) == 40.0  # at it counts
    assert reached(ours.curve, 1.5) is None
    assert passed(race, peer, ours)
    assert not passed(race, peer, result("Norma", [(10, 51.0, 1.0)]))  # later than half
    assert not passed(race, peer, result("Norma", [(10, 40.0, 2.01)]))  # not there
    assert not passed(race, peer, result("Norma", [(10, 40.0, 1.0)], parameters=1021))  # too large
    first, second = rows_of(race, [peer, ours])
    assert (first["ratio"], second["ratio"], second["ratio_of_schedules"], second["tokens_per_s"]) == (1.0, 0.4, 0.48, 25.0)
    lines = list(csv.DictReader(io.StringIO(curves_csv([peer, ours]))))
    assert [(line["system"], line["step"]) for line in lines] == [("nanoGPT", "10.0"), ("nanoGPT", "20.0")] + [
        ("Norma", f"{s}.0") for s in (5, 10, 12)
    ]


def test_our_side_is_a_recipe_of_equal_size(tmp_path: Path) -> None:
    """nanoGPT's weights by hand: token and position tables, 12 d^2 a block, norms without biases."""
    from norma.nn import preset

    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe(Race(tmp_path / "t.jsonl", tmp_path))), encoding="utf-8")
    nodes = load_recipe(tmp_path / "recipe.yaml").nodes
    trial, pretrain = (nodes[name].options.resolved() for name in ("trial", "pretrain"))
    differ = {name for name in pretrain if pretrain[name] != trial[name]}
    assert differ == {"steps", "train"}, "the trial must take the steps of the training"
    shape = pretrain["model"]
    sizes = {name: shape[name] for name in ("width", "layers", "head_size", "max_positions")}
    ours = preset(shape["preset"], vocab_size=8192, **sizes, **shape["settings"])
    d, theirs = 384, 8192 * 384 + 256 * 384 + 6 * (12 * 384 * 384) + 13 * 384
    assert d == shape["width"] and abs(ours.parameters() / theirs - 1) < 0.02


# ── one measure ──
@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    """Two documents, of 6 and 3 tokens; token 0 is the end and stands for no byte, token i for i bytes."""
    with ShardWriter(tmp_path / "s", Made("x", 4, 0, False, "")) as writer:
        tokens = np.array([1, 2, 3, 2, 1, 0, 3, 3, 0])
        writer.add(tokens, np.zeros(9, dtype=np.uint8), np.array([6, 3]), 0)
    return Shards(tmp_path / "s")


def test_every_token_but_a_documents_first_is_predicted_once(shards: Shards) -> None:
    text = held_out(shards, 4, np.arange(4))
    assert text.ids.tolist() == [[1, 2, 3, 2], [1, 0, 0, 0], [3, 3, 0, 0]]
    assert text.targets.tolist() == [[2, 3, 2, 1], [0, IGNORE, IGNORE, IGNORE], [3, 0, IGNORE, IGNORE]]
    assert text.bytes == 2 + 3 + 2 + 1 + 0 + 3 + 0


def test_bits_per_byte_of_equal_chances(shards: Shards) -> None:
    """Four tokens, equally likely: 2 bits each, 7 of them for 11 bytes."""

    def scores(ids: Tensor) -> Tensor:
        return torch.zeros(*ids.shape, 4)

    assert bits_per_byte(scores, held_out(shards, 4, np.arange(4))) == pytest.approx(14 / 11)


# ── from end to end ──
def words(count: int) -> Iterator[str]:
    random = np.random.Generator(np.random.Philox(key=3))
    stems = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrs"]
    for _ in range(count):
        yield " ".join(stems[i] for i in random.zipf(1.5, 400) % len(stems))


@pytest.mark.slow
def test_a_tiny_race(tmp_path: Path) -> None:
    """Both sides for seconds: steps times tokens add up, the second call measures nothing again."""
    with gzip.open(tmp_path / "text.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in words(300))
    (tmp_path / "nanoGPT").mkdir()
    (tmp_path / "nanoGPT" / "model.py").write_text(STAND_IN, encoding="utf-8")
    sizes = {"minutes": 0.02, "share": 2.0, "width": 64, "layers": 1, "vocabulary": 300, "length": 32, "rows": 4}
    options = [word for name, value in sizes.items() for word in (f"--{name}", str(value))] + ["--no-compile"]
    files = ["--text", "text.jsonl.gz", "--nanogpt", "nanoGPT", "--out", "out", "--json", "rows.json"]
    command = [sys.executable, "-m", "norma", "bench", "time-to-loss", "batch=2", "train.warmup=1", *options, *files]
    environment = {**os.environ, "NO_COLOR": "1"}

    def race() -> tuple[list[dict[str, Any]], str]:
        found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert found.returncode in (0, 1), found.stderr
        return json.loads((tmp_path / "rows.json").read_text()), found.stdout

    rows, said = race()
    assert [row["system"] for row in rows] == ["nanoGPT", "Norma"]
    for row, batch in zip(rows, (4, 2), strict=True):
        assert row["tokens"] == row["steps"] * batch * 32
        assert row["curve"][-1]["step"] == row["steps"] and row["curve"][-1]["bits_per_byte"] == row["bits_per_byte"]
        assert row["curve"][-1]["seconds"] == pytest.approx(row["seconds"])
        times = [point["seconds"] for point in row["curve"]]
        assert times == sorted(times) and math.isfinite(row["bits_per_byte"])
    assert rows[1]["curve"][-1]["bits_per_byte"] < rows[1]["curve"][0]["bits_per_byte"], "ours learns nothing"
    assert rows[0]["ratio"] == pytest.approx(1.0)
    assert "nanoGPT's last loss" in said
    before = {path: (tmp_path / "out" / path).stat().st_mtime_ns for path in ("nanogpt.json", "norma.json")}
    again, _ = race()
    assert again == rows
    assert before == {path: (tmp_path / "out" / path).stat().st_mtime_ns for path in before}
