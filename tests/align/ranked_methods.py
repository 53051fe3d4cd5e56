"""Stages of norm training, one after another, as one of any number of ranks.

    python ranked_methods.py FOLDER CELLS      CELLS: JSON list of {name, kind, preset, stage}; FOLDER/name is made

The model of a preset, FOLDER/preset, is taught a little first, so that its answers end and some of them hold the letter that the spec
asks for.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import norma.base.platform
from norma.align.answers import AnswerTraining, written
from norma.base.files import write_jsonl
from norma.base.progress import Silent
from norma.base.ranks import Ranks, join, leave
from norma.generate import engine
from norma.lm import LanguageModel
from norma.nn import Transformer, preset
from norma.pipeline.plan import Plan
from norma.pipeline.stage import Context
from norma.pipeline.stages import find
from norma.spec import Spec
from norma.text.tokenizer import train_tokenizer
from norma.train import TrainOptions, train

SPEC = """
norma: 1
spec: {id: s, version: "1", languages: [en]}
rules:
- id: letters
  statement: {en: "Say an a."}
  checkers: [{id: p, kind: program, use: regex, params: {pattern: "a"}}]
"""
SAID = ["a", "b", "ab", "ba"]
OPTIONS: dict[str, dict[str, Any]] = {
    "reward": {"questions": "data/rows.jsonl", "steps": 4},
    "reward-model": {"data": ["data/pairs.jsonl"], "validation": ["data/pairs.jsonl"], "epochs": 2, "learning": {"rows": 5}},
    "preference": {"data": "data/pairs.jsonl", "steps": 4, "pairs": {"pairs": 5, "micro_tokens": 256}},
    "correction": {
        "questions": "data/rows.jsonl",
        "count": 12,
        "answers": 6,
        "temperature": 1.5,
        "max_new_tokens": 8,
        "epochs": 1,
        "pairs": {"pairs": 5, "micro_tokens": 256},
    },
    "sft": {"data": [{"rows": "data/rows.jsonl"}], "steps": 4, "batch": 3, "sequence": 48},
    "best-of": {"questions": "data/rows.jsonl", "count": 9, "answers": 4, "rounds": 2, "batch": 4, "max_new_tokens": 8},
    "distil": {"questions": "data/rows.jsonl", "count": 9, "answers": 2, "batch": 4, "max_new_tokens": 8},
    "constitution": {
        "questions": "data/rows.jsonl",
        "max_new_tokens": 8,
        "validation_share": 0.0,
        "revise": {"count": 20, "batch": 5, "critic": {"by": "checkers"}},
        "compare": {"count": 8, "judge": {"by": "checkers"}},
    },
}


def data(folder: Path) -> None:
    """Questions with answers, pairs of answers, marks."""
    asked = [[{"role": "user", "content": f"Letter {n}?"}] for n in range(20)]
    rows = [{"id": str(n), "source": str(n), "language": "en", "messages": m} for n, m in enumerate(asked)]
    answer = {"role": "assistant", "content": "a"}
    write_jsonl(folder / "rows.jsonl", (row | {"messages": [*row["messages"], answer]} for row in rows))
    pairs = ({"chosen": ("a", "ab", "ba")[n % 3], "rejected": "b" * (1 + n % 2)} for n in range(20))
    write_jsonl(folder / "pairs.jsonl", (row | pair for row, pair in zip(rows, pairs, strict=True)))
    good = [{"answer": said, "desirable": "a" in said, "score": n / 3, "rules": {"letters": "a" in said}} for n, said in enumerate(SAID)]
    write_jsonl(folder / "marks.jsonl", (row | good[n % 4] for n, row in enumerate(rows)))


def teach(folder: Path, name: str) -> None:
    """A tiny model that answers a, b, ab or ba."""
    tokenizer = train_tokenizer(["Letter 1? a b ab ba"] * 9, 280)
    config = replace(preset(name, vocab_size=len(tokenizer), width=32, layers=1, head_size=16, max_positions=256), dropout=0.0)
    model = LanguageModel(Transformer(config).initialise(torch.Generator().manual_seed(0)), tokenizer)
    groups = [written(model, [{"role": "user", "content": f"Letter {n}?"}], SAID[n % 4]) for n in range(20)]
    training = AnswerTraining(model, groups, size=20, micro_tokens=4096, seed=0, dtype=torch.float32)
    how = TrainOptions(optimiser="adamw", learning_rate=3e-3, warmup=2, schedule="constant", checkpoint_seconds=1e9)
    train(model.transformer, training.losses, steps=40, options=how, folder=folder / "data" / name, progress=Silent())
    model.save(folder / name)


def stage(folder: Path, cell: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Run a cell's stage; what it says in the end."""
    kind, home = find(cell["kind"]), folder / cell["name"]
    # epsilon is above rounding: with 1e-8 a gradient next to zero, mostly rounding, moves its weight by a whole step.
    learning = {"optimiser": "adamw", "learning_rate": 3e-3, "epsilon": 1e-5, "warmup": 2, "checkpoint_seconds": 1e9}
    options = {"kind": kind.kind, "from": cell["preset"], "train": learning} | OPTIONS[kind.kind] | cell["stage"]
    values = kind.Options.model_validate({name: value for name, value in options.items() if value is not None})
    inputs = {name: folder / name for name in (cell["preset"], "data")}
    if ranks.first:
        home.mkdir()
    ranks.wait()
    return kind.run(Context("stage", home, inputs, values, Spec.parse(SPEC), 3, Silent(), Plan(home, ranks), folder, ranks))


def main(folder: Path, cells: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)
    norma.base.platform.working_dtype = lambda *_: torch.float32  # bf16 rounds micro-batches of other shapes to other values
    engine.working_dtype = lambda *_: torch.float32  # type: ignore[attr-defined]
    ranks = join()
    if ranks.first:
        (folder / "data").mkdir(parents=True)
        data(folder / "data")
        for name in sorted({cell["preset"] for cell in cells}):
            (folder / "data" / name).mkdir()
            teach(folder, name)
    ranks.wait()
    said = {cell["name"]: stage(folder, cell, ranks) for cell in cells}
    if ranks.first:
        (folder / "summary.json").write_text(json.dumps(said))
    leave(ranks)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
