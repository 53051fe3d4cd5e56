"""The command line around the commands: help, usage errors, endings, speed of the start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from norma.base.errors import NormaError
from norma.cli import main
from norma.cli.app import COMMANDS
from norma.cli.debug import guarded

SOURCE = Path(__file__).parents[2] / "src"


def norma(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.run([sys.executable, "-m", "norma", *arguments], env=environment, capture_output=True, text=True, **options)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name.split()[0] in shown for name in COMMANDS)
    assert main([]) == 0
    assert main(["spec"]) == 0
    assert "lint" in capsys.readouterr().out


def test_start_is_quick_and_loads_no_torch() -> None:
    code = (
        "import sys; from norma.cli import main; main(['--help']); assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    best = 99.0
    for _ in range(3):  # other work on the machine only ever adds time
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SOURCE)}, check=True, capture_output=True)
        best = min(best, time.monotonic() - began)
    assert best < 1.5  # 0.3 s on an idle machine


def test_status_of_the_demo_loads_no_torch(tmp_path: Path) -> None:
    recipe = SOURCE.parent / "recipes" / "courteous-docs.yaml"
    code = f"import sys; from norma.cli import main; assert main(['status', {str(recipe)!r}]) == 0; assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "pretrain" in done.stdout and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["rum"], "No such command 'rum'"),
        (["run"], "For help: norma run --help."),
        (["run", "--untill", "x", "r.yaml"], "No such option: --untill"),
        (["status", "nowhere.yaml"], "nowhere.yaml: file not found"),
        (["status", "."], "no Norma run in this folder"),
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], expected: str, tmp_path: Path) -> None:
    done = norma(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert expected in done.stderr


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("norma 0.")


def raising(error: BaseException) -> Callable[[list[str]], int]:
    def call(arguments: list[str]) -> int:
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (NormaError("no such thing", where="a.yaml:1:2", mend="Look again"), 2, "error: a.yaml:1:2: no such thing. Look again.\n"),
        (ValueError("a\nb"), 1, "error: ValueError: a b. To see where, run again with --debug.\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
    ],
)
def test_endings(error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(["x"], raising(error)) == code
    assert capsys.readouterr().err == line
    assert guarded(["x", "--debug"], raising(error)) == code
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback") and shown.endswith(line)


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    command = f"{sys.executable} -m norma --help | true"
    done = subprocess.run(["bash", "-c", command], env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True)
    assert done.stderr == ""
