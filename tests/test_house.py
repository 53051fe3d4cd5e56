"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LOADS = {
    "pickle": {"load", "loads", "Unpickler"},
    "yaml": {"load", "load_all", "full_load", "unsafe_load"},
    "marshal": {"load", "loads"},
    "torch": {"load"},
}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


LIGHT = ["norma", "norma.spec", "norma.cli", "norma.train", "norma.train.options", "norma.align.preference_options"]


@pytest.mark.parametrize("module", LIGHT)
def test_light_imports_load_no_torch(module: str) -> None:
    done = python("-c", f"import {module}, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)")
    assert done.returncode == 0, f"{module} loads torch\n{done.stderr}"


def test_imports_point_downwards_only() -> None:
    pytest.importorskip("importlinter")
    done = python("-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache")
    assert done.returncode == 0 and "1 kept, 0 broken" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_files_are_short_and_open_nothing_that_can_run_code(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.attr not in LOADS.get(node.value.id, ()), f"line {node.lineno}: {node.value.id}.{node.attr}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not {"pickle", "marshal", "shelve", "dill"} & set(names), f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec"), f"line {node.lineno}: {node.func.id}"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False
