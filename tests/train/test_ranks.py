"""Several processes train as one does: same losses, same gradients, same weights; their checkpoints open on any number.

With -s each test prints how far they are apart: the table of docs/pretraining.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from norma.base.ranks import Ranks
from norma.train.checkpoint import read_manifest
from processes import run_ranks

SCRIPT = Path(__file__).with_name("ranked.py")
HEAD = 16  # features of a head in ranked.py; GPT-NeoX rotates a quarter of them
pytestmark = pytest.mark.slow


def run(folder: Path, count: int, dies: bool = False, **asked: Any) -> list[dict[str, Any]]:
    """Train with ``count`` processes; returns the rows of metrics.jsonl."""
    run_ranks(SCRIPT, folder, asked, count=count, wanted=None if dies else 0)
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def far(a: Path, b: Path, rotary: int | None = None) -> float:
    """The largest difference of two runs' last weights.

    ``rotary``: features of a head that are rotated. In the others a key's bias adds the same to all scores of a query, which softmax
    takes away: its gradient is zero, what is computed is rounding, and AdamW makes steps of full length of that. It is left out.
    """
    one, two = load_file(a / "end.safetensors"), load_file(b / "end.safetensors")
    assert one.keys() == two.keys()
    for name in one if rotary is not None else ():
        if name.endswith("key.bias"):
            one[name], two[name] = (bias.view(-1, HEAD)[:, :rotary] for bias in (one[name], two[name]))
    most = max(float((one[name] - two[name]).abs().max()) for name in one)
    print(f"weights {most:.1e}")
    return most


def alike(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> None:
    assert [row["step"] for row in one] == [row["step"] for row in two]
    apart = {"loss": 0.0, "gradient_norm": 0.0}
    for a, b in zip(one, two, strict=True):
        assert a["tokens"] == b["tokens"]
        for name in (name for name in a if name.startswith("loss") or name == "gradient_norm"):
            assert a[name] == pytest.approx(b[name], rel=1e-5), (a["step"], name)
            if name in apart:
                apart[name] = max(apart[name], abs(a[name] / b[name] - 1))
    print(f"{len(one)} steps, relative: loss {apart['loss']:.1e}, gradient norm {apart['gradient_norm']:.1e}", end="; ")


@pytest.mark.parametrize(
    ("count", "asked"),
    [
        pytest.param(2, {}, id="muon, two objectives"),
        pytest.param(3, {}, id="shares that are not equal"),
        pytest.param(2, {"train": {"optimiser": "adamw", "ema": 0.9, "averaged": True}}, id="adamw, averaged"),
        pytest.param(2, {"recompute": True, "settings": {"tie_embeddings": True}}, id="activations made again"),
        pytest.param(2, {"preset": "t5"}, id="encoder-decoder"),
    ],
)
def test_equal_to_one_process(tmp_path: Path, count: int, asked: dict[str, Any]) -> None:
    alike(run(tmp_path / "one", 1, **asked), run(tmp_path / "many", count, **asked))
    assert json.loads((tmp_path / "many" / "ranks.json").read_text()) == count
    assert far(tmp_path / "one", tmp_path / "many") < 1e-5


GPT3 = {"preset": "gpt3", "train": {"tensor_parallel": 2, "optimiser": "adamw"}}
PARTED = {"train": {"tensor_parallel": 2}}


@pytest.mark.parametrize(
    ("count", "asked"),
    [
        pytest.param(2, PARTED, id="muon, two objectives"),
        pytest.param(2, GPT3, id="adamw, biases"),
        pytest.param(2, {"preset": "bart", "train": {"tensor_parallel": 2, "ema": 0.9, "averaged": True}}, id="two stacks, averaged"),
        pytest.param(2, {"preset": "gpt-neox", "recompute": True, **PARTED}, id="parallel blocks, activations made again"),
        pytest.param(4, PARTED, id="muon, two groups of two"),
        pytest.param(4, GPT3, id="adamw, two groups of two"),
    ],
)
def test_divided_layers_equal_one_process(tmp_path: Path, count: int, asked: dict[str, Any]) -> None:
    """Tensor parallel: each group of two divides the blocks' matrices; losses, gradient norms and weights are those of one process."""
    alike(run(tmp_path / "one", 1, **asked), run(tmp_path / "many", count, **asked))
    assert far(tmp_path / "one", tmp_path / "many", HEAD // 4 if asked.get("preset") == "gpt-neox" else None) < 1e-5


@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 1), (1, 2)])
def test_divided_layers_go_on_with_another_number_of_ranks(tmp_path: Path, before: int, after: int) -> None:
    goes_on(tmp_path, before, after, {"train": {"tensor_parallel": 2, "ema": 0.9}})


def test_muon_as_it_is(tmp_path: Path) -> None:
    """Its bf16 iteration rounds gradients that differ in the last bit to other values: the first step is equal, later ones nearly so."""
    one, many = run(tmp_path / "one", 1, exact=False), run(tmp_path / "many", 2, exact=False)
    alike(one[:1], many[:1])
    assert one[-1]["loss"] == pytest.approx(many[-1]["loss"], rel=1e-4)


@pytest.mark.parametrize(("before", "after"), [(2, 2), (2, 1), (1, 2)])
def test_goes_on_with_another_number_of_ranks(tmp_path: Path, before: int, after: int) -> None:
    goes_on(tmp_path, before, after, {"train": {"ema": 0.9}})


def goes_on(tmp_path: Path, before: int, after: int, asked: dict[str, Any]) -> None:
    unbroken = run(tmp_path / "unbroken", after, **asked)
    run(tmp_path / "broken", before, dies=True, die_at=4, **asked)
    newest = sorted((tmp_path / "broken").glob("checkpoint-*"))[-1]
    manifest = read_manifest(newest)
    assert manifest is not None and manifest["step"] >= 3
    assert (newest / "shards").is_dir() == (before > 1)
    alike(unbroken, run(tmp_path / "broken", after, **asked))
    if before == after:
        assert far(tmp_path / "unbroken", tmp_path / "broken") == 0.0
    else:
        assert far(tmp_path / "unbroken", tmp_path / "broken") < 1e-5


def test_shares_cover_every_row_once() -> None:
    for size in range(1, 12):
        for count in range(1, 7):
            shares = [list(range(size))[Ranks(r, count).share(size)] for r in range(count)]
            assert [row for share in shares for row in share] == list(range(size))
            assert max(map(len, shares)) == Ranks(0, count).most(size)


def test_alone_nothing_is_imported() -> None:
    code = "import sys; from norma.base.ranks import join; assert join().count == 1; assert 'torch' not in sys.modules"
    environment = {k: v for k, v in os.environ.items() if k != "WORLD_SIZE"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert torch.__version__
