"""recipes/three-ways.yaml: one general model, two specs, and the table of docs/three_ways.py from their runs."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import pytest

import norma
from norma.base.files import read_json, read_jsonl
from norma.pipeline import load_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "recipes" / "three-ways.yaml"
SHARED = ("corpus", "tokenizer", "pretrain", "instruct")  # what does not read the spec
LABELS = ["Base", "+ Prompting", "+ Correction", "+ Reward", "+ All three"]


@pytest.mark.parametrize("scale", [None, "ci"])
@pytest.mark.parametrize("spec", ["courteous-docs", "terse-docs"])
def test_the_recipe_is_checked_whole_with_both_specs(scale: str | None, spec: str) -> None:
    loaded = load_recipe(RECIPE, [f"spec={spec}.spec.yaml"], scale=scale)
    assert loaded.spec_path == ROOT / "recipes" / f"{spec}.spec.yaml"
    assert [n for n, node in loaded.nodes.items() if not node.stage.spec_use(node.options)] == list(SHARED)
    assert set(loaded.nodes["all"].inputs) == {"correction", "corpus"} and set(loaded.nodes["reward"].inputs) == {"prompting", "corpus"}
    assert len(RECIPE.read_text(encoding="utf-8").splitlines()) < 60


@pytest.fixture(scope="module")
def three_ways() -> ModuleType:
    found = importlib.util.spec_from_file_location("three_ways", ROOT / "docs" / "three_ways.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def middle(cell: str) -> float:
    return float(cell.split(" ")[0])


@pytest.mark.slow
def test_two_specs_from_one_model(tmp_path: Path, three_ways: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("norma.base.platform.cores", lambda: 1)
    first, second = tmp_path / "courteous", tmp_path / "terse"
    norma.run(str(RECIPE), scale="ci", overrides={"output": str(first)})
    shutil.copytree(first, second)
    made = {stage: (second / stage / "lineage.json").stat().st_mtime_ns for stage in SHARED}
    norma.run(str(RECIPE), scale="ci", overrides={"output": str(second), "spec": "terse-docs.spec.yaml"})
    assert {stage: (second / stage / "lineage.json").stat().st_mtime_ns for stage in SHARED} == made, "a shared stage was made again"
    for run, spec in ((first, "courteous-docs"), (second, "terse-docs")):
        text = three_ways.tables(run)
        assert text.count(f"{spec} 1.0.0, ") == 2  # one table a language
        report = read_json(run / "report.json")
        verdicts = [v for v in read_jsonl(run / "evaluate" / "verdicts.jsonl") if v["status"] in ("compliant", "violation")]
        for tag, table in zip(("en", "zh"), text.split("\n\n")[1::2], strict=True):
            rows = [cells(line) for line in table.splitlines()[2:]]
            assert [row[0] for row in rows] == LABELS and rows[0][3:] == ["–", "–", "–"]
            for row, method in zip(rows, report["methods"], strict=True):
                for role, cell in (("report", row[1]), ("heldout", row[2])):
                    shares: dict[str, list[bool]] = {}
                    for v in verdicts:
                        if (v["method"], v["language"], v["role"]) == (method["method"], tag, role):
                            shares.setdefault(v["item"], []).append(v["status"] == "compliant")
                    mean = sum(sum(s) / len(s) for s in shares.values()) / len(shares)
                    assert middle(cell) == pytest.approx(100 * mean, abs=0.06)
            for row in rows[1:]:
                assert middle(row[3]) == pytest.approx(middle(row[1]) - middle(rows[0][1]), abs=0.11)
