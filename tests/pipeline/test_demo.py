"""The demo's own recipe at its smallest scale, end to end: killed with -9 in three stages it ends with the bits of an unbroken run."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from norma.pipeline.rehash import rehash
from norma.pipeline.trace import trace

RECIPE = Path(__file__).parents[2] / "recipes" / "courteous-docs.yaml"
KILLED_IN = {"pretrain": 60, "correction": 2, "reward": 4}  # stage -> rows of metrics.jsonl after which the process is killed
SETTINGS = [
    "pretrain.steps=120",
    "pretrain.train.checkpoint_seconds=0.3",
    "correction.train.checkpoint_seconds=0.01",
    "correction.pairs.pairs=8",
    "reward.steps=8",
    "reward.train.checkpoint_seconds=0.01",
]


def start(output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "norma", "run", str(RECIPE), "--scale", "ci", f"output={output}", *SETTINGS]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "NO_COLOR": "1"})


def finish(output: Path) -> str:
    process = start(output)
    text = process.communicate(timeout=600)[0].decode()
    assert process.returncode == 0, text
    return text


def digests(output: Path) -> dict[str, str]:
    return {p.parent.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(output.glob("*/model.safetensors"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("demo") / "whole"
    finish(folder)
    return folder


@pytest.mark.slow
def test_killed_three_times_and_unbroken_end_bit_identical(whole: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    for stage, rows in KILLED_IN.items():
        metrics = broken / ".work" / stage / "metrics.jsonl"
        process = start(broken)
        deadline = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < deadline:
            if metrics.exists() and metrics.read_bytes().count(b"\n") >= rows:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.005)
        process.wait(timeout=60)
        assert process.returncode == -signal.SIGKILL, f"the run was over before it could be killed in {stage}"
        assert metrics.exists(), f"killed outside {stage}"
    text = finish(broken)
    assert "going on at step" in text
    expected = digests(whole)
    assert set(expected) == {"pretrain", "instruct", "prompting", "correction", "reward", "task", "task-replay"}
    assert digests(broken) == expected
    for stage in expected:
        steps = [json.loads(line)["step"] for line in (broken / stage / "metrics.jsonl").read_text().splitlines()]
        assert steps == list(range(len(steps))), f"{stage}: a gap or a double row"
    assert "done in" not in finish(broken), "a finished stage was made again"


@pytest.mark.slow
def test_the_report_of_the_smallest_scale_is_whole(whole: Path) -> None:
    report = json.loads((whole / "report.json").read_text())
    assert [m["method"] for m in report["methods"]][:2] == ["base", "instruct"]
    assert all(0 <= m["overall"]["rate"] <= 1 for m in report["methods"])
    assert (whole / "junit.xml").read_text().startswith("<?xml")
    # the probe: rules on and off, attacks, groups, for the methods that it names and no others
    assert {row["method"] for name in ("control", "attack") for row in report[name]} == {"prompt", "reward"}
    assert {row["kind"] for row in report["attack"]} >= {"instruction_override", "quoted_injection"}
    assert {row["kind"] for row in report["gaps"]} == {"language", "gender"} and {r["measure"] for r in report["tax"]} == {
        "bits_per_byte",
        "chrf",
    }
    assert any(len(row["shown"]) == 2 and row["never_together"] is False for row in report["control"])
    assert [row["method"] for row in report["over_refusal"]] == ["prompt", "reward"] and report["data"]["trials"] > 100
    assert rehash(whole).damage == []
    assert trace(whole, "reward/form.brief/rate").parts[0].line.endswith("the same")
