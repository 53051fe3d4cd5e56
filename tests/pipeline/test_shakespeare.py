"""The stream stage, and recipes/shakespeare.yaml at its smallest scale where the text is there."""

from __future__ import annotations

import gzip
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.pipeline.recipe import load_recipe
from norma.pipeline.stages.stream import divide, read_whole

RECIPE = Path(__file__).parents[2] / "recipes" / "shakespeare.yaml"


@pytest.fixture(scope="module")
def shakespeare() -> Path:
    given = os.environ.get("NORMA_TEST_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[3] / "shared" / "data"
    path = folder / "text" / "tinyshakespeare.txt.gz"
    if not path.is_file():
        pytest.skip("no tinyshakespeare.txt.gz here: set NORMA_TEST_DATA to a folder that holds text/tinyshakespeare.txt.gz")
    return path


@given(st.text(), st.floats(0.01, 0.99))
def test_nothing_is_lost_or_changed_by_the_division(text: str, share: float) -> None:
    train, held = divide(text, share)
    assert train + held == text and abs(len(held) - share * len(text)) < 1 + 1e-6


def test_files_are_read_to_the_byte_or_named(tmp_path: Path) -> None:
    text = "One\r\n\n\n  two, 您好\n"
    (tmp_path / "a.txt").write_bytes(text.encode())
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    assert read_whole(tmp_path / "a.txt") == read_whole(tmp_path / "a.txt.gz") == text
    (tmp_path / "b.txt").write_bytes(b"abc\xff")
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(text.encode() * 99)[:40])
    for name, why in (("b.txt", "not UTF-8 text .at byte 3"), ("c.txt.gz", "broken"), ("d.txt", "not found")):
        with pytest.raises(NormaError, match=why):
            read_whole(tmp_path / name)


def test_the_budget_is_nanogpts(shakespeare: Path) -> None:
    """2,000 steps of 12 x 64 predicted characters, at most 0.8 M weights; its prepare.py names the sizes of the two parts."""
    options = load_recipe(RECIPE).nodes["pretrain"].options.resolved()
    assert options["steps"] * options["batch"] * (options["sequence"] - 1) == 1_536_000
    assert load_recipe(RECIPE).nodes["score"].options.resolved()["window"] == 64
    assert tuple(map(len, divide(read_whole(shakespeare), 0.1))) == (1_003_854, 111_540)


@pytest.mark.slow
def test_the_recipe_runs_and_learns(shakespeare: Path, tmp_path: Path) -> None:
    values = [f"stream.path={shakespeare}", f"output={tmp_path / 'run'}"]
    command = [sys.executable, "-m", "norma", "run", str(RECIPE), "--scale", "ci", *values]
    began = time.monotonic()
    found = subprocess.run(command, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stderr
    row = json.loads((tmp_path / "run" / "score" / "scores.json").read_text())["models"][0]
    assert max(row["nats_sliding"], row["nats"]) < math.log(65) - 1.4, f"after {time.monotonic() - began:.0f} s"
    assert "nats/token" in found.stdout
