"""A toy project in a temporary folder, and a way to run ``norma`` on it in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RECIPE = """\
norma: 1
name: toy
seed: 5
trust: [kinds.py]
stages:
  first:
    kind: chain
    steps: 3
    file: input.txt
  second: {kind: chain, from: first, steps: 4}
  aside: {kind: chain, steps: 2}
  end: {kind: join, parts: [second, aside]}
scales:
  ci: {first.steps: 1, second.steps: 1}
"""


class Project:
    """A folder with a recipe; every command runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.recipe, self.calls_file = folder, folder / "recipe.yaml", folder / "calls.txt"
        shutil.copy(Path(__file__).with_name("kinds.py"), folder / "kinds.py")
        (folder / "input.txt").write_text("hello\n", encoding="utf-8")
        self.recipe.write_text(RECIPE, encoding="utf-8")

    @property
    def run_folder(self) -> Path:
        return self.folder / "runs" / "toy"

    def environment(self, **more: str) -> dict[str, str]:
        source = Path(__file__).parents[2] / "src"
        return {**os.environ, "PYTHONPATH": str(source), "NORMA_TEST_CALLS": str(self.calls_file), **more}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "norma", *arguments]

    def norma(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), cwd=self.folder, env=self.environment(**environment), capture_output=True, text=True, timeout=60
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments), cwd=self.folder, env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def edit(self, old: str, new: str) -> None:
        text = self.recipe.read_text(encoding="utf-8")
        assert old in text
        self.recipe.write_text(text.replace(old, new), encoding="utf-8")

    def calls(self) -> list[str]:
        return self.calls_file.read_text(encoding="utf-8").split() if self.calls_file.exists() else []


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


@pytest.fixture
def other_project(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Project]:
    return lambda: Project(tmp_path_factory.mktemp("project"))
