"""Every objective of pretraining, killed with -9 at chosen moments and continued, beside a run left in peace.

    python tests/pipeline/kill_matrix.py [--only NAME ...] [--json]        prints a table in Markdown, exits 1 when a run differs

Rows are packed, and a step is made of micro-batches that do not divide it. Each attempt is a forked process that kills itself:
    first     after the gradient of step 0, when nothing is saved
    parts     in step 5, between two micro-batches of one gradient
    file      with half a file of a checkpoint written, before step 8
    row       with half a row of metrics.jsonl written, at step 10
    decay     while the learning rate falls, after the update of step 13 and before its row and its checkpoint
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # here, where every fork has it: an optimiser's first step would load it again in each
from safetensors.torch import save

import norma.evaluate.likelihood
import norma.evaluate.samples
import norma.generate
import norma.pipeline
import norma.train.pretraining
import norma.train.seq2seq
import norma.train.spread
from norma.train import checkpoint, loop, metrics

STEPS = 16
MOMENTS = ("first", "parts", "file", "row", "decay")
DECODER, ENCODER = {"preset": "llama"}, {"preset": "bert", "head": "pretraining"}
GRADED = {"shards": "graded/train", "grades": {"how": "unlikelihood", "threshold": 0.95, "alpha": 0.3}}
ALTERNATING = [{"objective": "masked-next", "mask": {"rate": 0.3, "final_rate": 0.15}}, {"objective": "generative"}]
OBJECTIVES: dict[str, dict[str, Any]] = {
    "generative": {"mix": [{"objective": "generative"}], "model": DECODER},
    "compiled": {"mix": [{"objective": "generative"}], "model": DECODER, "train": {"compile": True}},
    "rows": {"data": [{"rows": "corpus/text.train.jsonl"}], "model": DECODER},
    "masked": {"mix": [{"objective": "masked", "mask": {"unit": "word"}}], "model": {"preset": "bert"}},
    "next-sentence": {"mix": [{"objective": "next-sentence"}], "model": ENCODER},
    "sentence-order": {"mix": [{"objective": "sentence-order"}], "model": ENCODER},
    "masked-next": {"mix": ALTERNATING[:1], "model": DECODER},
    "alternating-rows": {"mix": ALTERNATING, "model": DECODER},
    "alternating-steps": {"mix": ALTERNATING, "turns": "step", "model": DECODER},
    "infilling": {"mix": [{"objective": "infilling"}], "model": DECODER},
    "spans": {"mix": [{"objective": "spans"}], "model": {"preset": "t5"}},
    "denoising": {"mix": [{"objective": "denoising"}], "model": {"preset": "bart"}},
    "given": {"mix": [{"objective": "given", "shards": "corpus/qa.train.jsonl"}], "model": {"preset": "t5"}, "sequence": 256},
    "unlikelihood": {"mix": [GRADED], "model": DECODER},
    "weighted": {"mix": [GRADED | {"grades": {"how": "weighted", "beta": 0.2}}], "model": DECODER},
    "experts": {
        "mix": [{"objective": "generative"}],
        "model": {"preset": "qwen3-moe", "settings": {"experts": 4, "per_token": 1, "normalise": False, "tie_embeddings": True}},
    },
}
TRAINED = {
    "kind": "pretrain",
    "sequence": 64,
    "batch": 7,
    "micro_batch": 3,
    "steps": STEPS,
    "validation_bytes": 1000,
    "train": {"warmup": 2, "ema": 0.9, "checkpoint_seconds": 1e-6, "learning_rate": 0.005, "matrix_learning_rate": 0.02},
}


def recipe(folder: Path, names: list[str]) -> Path:
    """A recipe that trains a tiny model by each of the objectives, on docstrings of the standard library."""
    spec = Path(__file__).resolve().parents[2] / "recipes" / "plain-prose.spec.yaml"
    (folder / "spec.yaml").write_text(spec.read_text(encoding="utf-8"), encoding="utf-8")
    stages: dict[str, Any] = {
        "corpus": {"kind": "corpus", "sources": [{"docstrings": ["stdlib"]}], "max_entries": 300},
        "tokenizer": {"kind": "tokenizer", "vocab_size": 600, "objectives": ["masked", "pairs", "infilling", "spans", "norms"]},
        "tokens": {"kind": "tokens", "text": "corpus"},
        "graded": {"kind": "rate", "threshold": 0.95},
    }
    shape = {"width": 32, "layers": 2, "head_size": 16, "dropout": 0.1}
    for name in names:
        own = OBJECTIVES[name]
        stages[name] = TRAINED | own | {"model": shape | own["model"], "train": TRAINED["train"] | own.get("train", {})}
    path = folder / "recipe.yaml"
    path.write_text(json.dumps({"norma": 1, "name": "kill-matrix", "seed": 1, "spec": "spec.yaml", "stages": stages}))
    return path


def arm(moment: str | None) -> None:
    """Make this process kill itself at a moment of its training."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    gradient, save_file, write = loop._gradient, checkpoint.save_file, metrics.JsonLines.write
    now = [0]

    def stepped(model: Any, losses: Any, step: int, *rest: Any) -> Any:
        now[0] = step

        def parts(number: int) -> Iterator[Any]:
            for count, part in enumerate(losses(number)):
                if moment == "parts" and step == 5 and count:
                    die()
                yield part

        found = gradient(model, parts, step, *rest)
        if moment == "first":
            die()
        return found

    def half_file(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
        if moment == "file" and now[0] == 7 and path.name == "optimiser.safetensors":
            data = save(dict(tensors))
            path.write_bytes(data[: len(data) // 2])
            die()
        save_file(dict(tensors), path)

    def half_row(self: metrics.JsonLines, row: Mapping[str, Any]) -> None:
        if moment == "row" and row["step"] == 10:
            with self.path.open("ab") as handle:
                handle.write(json.dumps(row).encode()[:20])
            die()
        if moment == "decay" and row["step"] == 13:  # the update is done, its row and its checkpoint are not
            die()
        write(self, row)

    loop._gradient, checkpoint.save_file, metrics.JsonLines.write = stepped, half_file, half_row  # type: ignore[assignment, method-assign]


def run(path: Path, output: Path, until: str, moment: str | None) -> bool:
    """Run in a fork up to a stage; True when it ended by itself, False when it was killed."""
    process = os.fork()
    if process:
        _, status = os.waitpid(process, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if not killed and status:
            raise RuntimeError(f"the run of {until} failed")
        return not killed
    code = 1
    try:
        torch.set_num_threads(1)
        arm(moment)
        norma.pipeline.run(path, [f"output={output}"], until=until)
        code = 0
    except BaseException as error:
        print(f"{until}, {moment}: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def end(stage: Path) -> tuple[str, list[dict[str, Any]]]:
    """(SHA-256 of the trained weights, the rows of metrics.jsonl without what clocks say)."""
    rows = [json.loads(line) for line in (stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    weights = hashlib.sha256((stage / "model.safetensors").read_bytes()).hexdigest()
    return weights, [{k: v for k, v in row.items() if k not in metrics.CLOCKS} for row in rows]


def matrix(folder: Path, names: list[str]) -> Iterator[dict[str, Any]]:
    """A row for each objective."""
    os.environ["OMP_NUM_THREADS"] = "1"
    path = recipe(folder, names)
    for name in names:
        assert run(path, folder / "peace", name, None)
        died = [moment for moment in MOMENTS if not run(path, folder / "killed", name, moment)]
        assert run(path, folder / "killed", name, None)
        (one, rows), (other, again) = end(folder / "peace" / name), end(folder / "killed" / name)
        losses = [row["loss"] for row in rows]
        yield {
            "objective": name,
            "killed": died,
            "unbroken": one,
            "continued": other,
            "equal": one == other and rows == again,
            "steps": [row["step"] for row in again],
            "learns": sum(losses[-3:]) < sum(losses[:3]),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill every objective at every moment.")
    parser.add_argument("--only", nargs="+", choices=list(OBJECTIVES), default=list(OBJECTIVES))
    parser.add_argument("--json", action="store_true", help="a row of JSON for each objective instead of the table")
    asked = parser.parse_args()
    if not asked.json:
        print("| objective | killed | unbroken | continued | equal |\n|---|---|---|---|---|", flush=True)
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for row in matrix(Path(folder), asked.only):
            good &= row["equal"] and row["killed"] == list(MOMENTS)
            equal = "yes" if row["equal"] else "**no**"
            cells = (row["objective"], ", ".join(row["killed"]), f"`{row['unbroken'][:12]}`", f"`{row['continued'][:12]}`", equal)
            print(json.dumps(row) if asked.json else "| " + " | ".join(cells) + " |", flush=True)
    sys.exit(not good)


if __name__ == "__main__":
    main()
