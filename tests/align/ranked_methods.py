"""A stage that samples and then trains, as one of any number of ranks.

    python ranked_methods.py FOLDER OPTIONS      OPTIONS: JSON of {kind, preset, stage}; FOLDER/stage is made

FOLDER/model is taught a little first, so that its answers end and some of them hold the letter that the spec asks for.
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
from norma.base.ranks import join, leave
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
OPTIONS: dict[str, dict[str, Any]] = {
    "best-of": {"questions": "data/rows.jsonl", "count": 9, "answers": 4, "rounds": 2, "batch": 4, "max_new_tokens": 8},
    "distil": {"questions": "data/rows.jsonl", "count": 9, "answers": 2, "batch": 4, "max_new_tokens": 8},
    "constitution": {
        "questions": "data/rows.jsonl",
        "max_new_tokens": 8,
        "validation_share": 0.0,
        "revise": {"count": 20, "batch": 5, "critic": {"by": "checkers"}},
        "compare": {"count": 8, "judge": {"by": "checkers"}},
    },
    "preference": {
        "method": "dpo",
        "questions": "data/rows.jsonl",
        "steps": 6,
        "online": {"questions": 5, "answers": 4, "max_new_tokens": 8},
        "pairs": {"micro_tokens": 256},
    },
}


def prepare(folder: Path, name: str) -> None:
    """The questions, and a tiny model that answers a, b, ab or ba."""
    (folder / "data").mkdir(parents=True)
    asked = [[{"role": "user", "content": f"Letter {n}?"}] for n in range(20)]
    rows = [{"id": str(n), "source": str(n), "language": "en", "messages": m} for n, m in enumerate(asked)]
    said = ["a", "b", "ab", "ba"]
    answer = {"role": "assistant", "content": "a"}
    write_jsonl(folder / "data" / "rows.jsonl", (row | {"messages": [*row["messages"], answer]} for row in rows))
    tokenizer = train_tokenizer(["Letter 1? a b ab ba"] * 9, 280)
    config = replace(preset(name, vocab_size=len(tokenizer), width=32, layers=1, head_size=16, max_positions=256), dropout=0.0)
    network = Transformer(config).initialise(torch.Generator().manual_seed(0))
    start = {"decoder_start_token_id": tokenizer.pad_id} if config.kind == "encoder-decoder" else {}
    model = LanguageModel(network, tokenizer, kept=start)
    groups = [written(model, m, said[n % 4]) for n, m in enumerate(asked)]
    training = AnswerTraining(model, groups, size=20, micro_tokens=4096, seed=0, dtype=torch.float32)
    how = TrainOptions(optimiser="adamw", learning_rate=3e-3, warmup=2, schedule="constant", checkpoint_seconds=1e9)
    train(network, training.losses, steps=40, options=how, folder=folder / "data", progress=Silent())
    model.save(folder / "model")


def main(folder: Path, asked: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    norma.base.platform.working_dtype = lambda *_: torch.float32  # bf16 rounds micro-batches of other shapes to other values
    engine.working_dtype = lambda *_: torch.float32  # type: ignore[attr-defined]
    ranks = join()
    if ranks.first:
        prepare(folder, asked.get("preset", "llama"))
        (folder / "stage").mkdir()
    ranks.wait()
    kind = find(asked["kind"])
    learning = {"optimiser": "adamw", "learning_rate": 3e-3, "warmup": 2, "checkpoint_seconds": 1e9}
    options = {"kind": kind.kind, "from": "model", "train": learning} | OPTIONS[kind.kind] | asked.get("stage", {})
    inputs = {name: folder / name for name in ("model", "data")}
    home = folder / "stage"
    values = kind.Options.model_validate(options)
    summary = kind.run(Context("stage", home, inputs, values, Spec.parse(SPEC), 3, Silent(), Plan(home, ranks), folder, ranks))
    if ranks.first:
        (folder / "summary.json").write_text(json.dumps(summary))
    leave(ranks)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
