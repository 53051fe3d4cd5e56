"""Starting and stopping runs: which command is started, who is signalled, and who is not."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from norma.base.errors import NormaError
from norma.studio import processes

HOLDER = """
import fcntl, os, signal, sys, time
handle = open(sys.argv[1], "a+")
fcntl.flock(handle, fcntl.LOCK_EX)
handle.truncate(0); handle.write(str(os.getpid())); handle.flush()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("held", flush=True)
while True: time.sleep(0.05)
"""


@pytest.fixture
def recorded(run: Path) -> Path:
    """A run with a record, as `norma run` leaves it."""
    recipe = run.parent / "recipe.yaml"
    recipe.write_text("name: tiny\n", encoding="utf-8")
    record = {
        "name": "tiny",
        "recipe": str(recipe),
        "scale": "ci",
        "overrides": ["seed=3", f"output={run}"],
        "stages": {"corpus": {"seconds": 1.5}},
    }
    (run / "lineage.json").write_text(json.dumps(record), encoding="utf-8")
    return run


def test_a_start_repeats_the_recorded_command_in_a_session_of_its_own(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Process:
        pid = 4711

        def __init__(self, command: list[str], **how: Any) -> None:
            seen.append((command, how))

        def poll(self) -> None:
            return None

        def wait(self) -> int:
            return 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    assert processes.start(recorded, recorded / "studio" / "run.log") == 4711
    ((command, how),) = seen
    assert command == [
        sys.executable, "-m", "norma", "run", str(recorded.parent / "recipe.yaml"), f"output={recorded}", "seed=3", "--scale", "ci"
    ]  # fmt: skip
    assert how["start_new_session"] and "shell" not in how


def test_a_run_that_cannot_start_says_why_in_its_log(recorded: Path) -> None:
    log = recorded / "studio" / "run.log"
    with contextlib.suppress(NormaError):  # on a quick machine the refusal is seen at once
        processes.start(recorded, log)
    end = time.monotonic() + 60
    while "recipe.yaml:" not in processes.tail(log) and time.monotonic() < end:
        time.sleep(0.1)
    assert "the key 'norma' is missing" in processes.tail(log)


def test_stop_signals_the_holder_of_the_lock_and_nobody_else(recorded: Path) -> None:
    (recorded / ".lock").write_text(str(1), encoding="utf-8")
    with pytest.raises(NormaError, match="nothing is at work"):  # a number in a file that nobody holds is no process of ours
        processes.stop(recorded)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(recorded / ".lock")], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(NormaError, match="under way already"):
            processes.start(recorded, recorded / "studio" / "run.log")
        assert processes.at_a_glance(recorded)["running"]
        assert processes.stop(recorded) == holder.pid and holder.wait(10) == 0
    finally:
        holder.kill()


def test_only_runs_beside_the_opened_one_have_names(recorded: Path) -> None:
    (recorded.parent / "not-a-run").mkdir()
    assert list(processes.neighbours(recorded)) == ["tiny"] and processes.neighbours(None) == {}
    for name in ("../tiny", "/etc", "not-a-run"):
        with pytest.raises(NormaError, match="there is no run"):
            processes.pick(recorded, name)


def test_a_log_shows_its_end_without_control_sequences(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_bytes(b"x" * 9000 + b"\n\x1b[31mred\x1b[0m \xff end\n")
    assert processes.tail(path).endswith("[31mred[0m \ufffd end\n") and "\x1b" not in processes.tail(path)
    assert processes.tail(tmp_path / "none") == ""
