"""Fine-tuning beside transformers' Trainer: that the rows are what they should be, that both sides see the same losses."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from norma.base.errors import NormaError
from norma.base.files import read_jsonl
from norma.bench import finetune, finetune_norma

TINY = finetune.Shape(width=64, layers=1, vocabulary=600, rows=4, texts=24, length=64)


@pytest.fixture(scope="module", params=["bert", "llama"])
def work(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    finetune.write_work(finetune.Shape(request.param, 64, 1, 600, 4, 24, 64), None, folder)
    return folder


def test_rows_are_of_natural_length_and_of_both_labels(work: Path) -> None:
    rows = read_jsonl(work / "rows.jsonl")
    lengths = torch.tensor([len(row["ids"]) for row in rows], dtype=torch.float32)
    assert len(rows) == 24 and {row["label"] for row in rows} == {0, 1}
    assert lengths.max() <= 64 and lengths.std() > 5


def test_an_epoch_is_every_row_once_and_its_loss_that_of_transformers(work: Path) -> None:
    transformers = pytest.importorskip("transformers")
    (ours,) = finetune.systems(TINY, "float32", work, 1, [])
    loss, samples, tokens = finetune_norma.step_of(ours.job)().tolist()
    rows = read_jsonl(work / "rows.jsonl")
    assert samples == 24 and tokens == sum(len(row["ids"]) for row in rows)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(work / "model").eval()
    with torch.no_grad():
        each = [model(input_ids=torch.tensor([row["ids"]]), labels=torch.tensor([row["label"]])).loss for row in rows]
    assert loss == pytest.approx(float(torch.stack(each).mean()), abs=1e-5)
    assert torch.stack(each).std() > 0.01, "scores that are all alike would hide any mistake"


def test_your_own_rows_and_too_few_of_them(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"text": f"row {i}", "label": "yn"[i % 2]}) + "\n" for i in range(9)), encoding="utf-8")
    assert finetune.labelled(path)[1] == ("row 1", "n")
    about = finetune.write_work(TINY, path, tmp_path)
    assert about.startswith("8 texts of ")
    with pytest.raises(NormaError, match="9 rows do not make one step of 10"):
        finetune.write_work(finetune.Shape(rows=10, width=64, layers=1, vocabulary=600), path, tmp_path)


@pytest.mark.slow
def test_the_benchmark_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("transformers", "accelerate", "datasets"):
        pytest.importorskip(name)
    full = finetune.systems
    monkeypatch.setattr(finetune, "systems", lambda *given: [w for w in full(*given) if not w.job.get("compile")])  # minutes of compiling
    console, out = Console(file=io.StringIO(), width=200), tmp_path / "rows.json"
    how: dict[str, Any] = {"text": None, "rounds": 1, "threads": 1, "peers": ["hf"], "json_path": out, "console": console}
    rows = finetune.run([TINY], "float32", **how)
    assert [r.system.split(":")[0] for r in rows] == ["norma", "Trainer as installed", "best tuned"]
    assert max(r.loss for r in rows) - min(r.loss for r in rows) < 1e-3 and all(r.samples_per_s and r.peak_mb > 0 for r in rows)
    assert {"system", "work", "setting", "tokens_per_s", "samples_per_s", "peak_mb", "ratio"} <= set(json.loads(out.read_text())[0])
    monkeypatch.setattr(finetune, "APART", {"float32": -1.0})
    with pytest.raises(NormaError, match="do not do the same work"):
        finetune.measure(TINY, "float32", _written(tmp_path), rounds=1, threads=1, peers=[], console=console)


def _written(folder: Path) -> Path:
    finetune.write_work(TINY, None, folder)
    return folder
