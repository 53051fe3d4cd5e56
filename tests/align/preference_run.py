"""A pairs stage and a preference stage on a tiny model, in a process of their own: alone, killed, or as one of several ranks.

    python preference_run.py FOLDER OPTIONS      OPTIONS: JSON of {rows, stage, preset, die_at}

FOLDER/model holds the model before; FOLDER/people and FOLDER/preference are made. ``die_at``: kill -9 after the gradient of that step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import norma.base.platform
from norma.base.files import write_jsonl
from norma.base.progress import Silent
from norma.base.ranks import Ranks, join, leave
from norma.lm import LanguageModel
from norma.nn import Transformer, preset
from norma.pipeline.plan import Plan
from norma.pipeline.stage import Context, Stage
from norma.pipeline.stages.pairs import Pairs
from norma.pipeline.stages.preference import Preference
from norma.text.tokenizer import train_tokenizer
from norma.train import loop

WORDS = ["Certainly: it writes text.", "No! Go away, what do you want?", "Of course, here it is.", "What does it do, please?"] * 9


def model(folder: Path, name: str) -> None:
    """Write a tiny model with weights that are not at their initial zeros, without dropout."""
    tokenizer = train_tokenizer(WORDS, 300)
    config = replace(preset(name, vocab_size=len(tokenizer), width=32, layers=1, head_size=16, max_positions=96), dropout=0.0)
    network = Transformer(config).initialise(torch.Generator().manual_seed(0))
    start = {"decoder_start_token_id": tokenizer.pad_id} if config.kind == "encoder-decoder" else {}
    LanguageModel(network, tokenizer, kept=start).save(folder)


def rows(count: int, marks: bool) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for i in range(count):
        good, bad = "Certainly: it writes." + " ab" * (i % 5), "No! Go away." + " c" * (i % 3)
        asked = f"What does it do, {i}?"
        if marks:
            made += [{"prompt": asked, "completion": good, "label": True}, {"prompt": asked, "completion": bad, "label": False}]
        else:
            made.append({"prompt": asked, "chosen": good, "rejected": bad})
    return made


def stage(kind: Stage[Any], folder: Path, name: str, options: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    home = folder / name
    home.mkdir(exist_ok=True)
    inputs = {other: folder / other for other in ("model", "people")}
    values = kind.Options.model_validate({"kind": kind.kind, **options})
    return kind.run(Context(name, home, inputs, values, None, 3, Silent(), Plan(home, ranks), folder, ranks))


def main(folder: Path, asked: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    norma.base.platform.working_dtype = lambda *_: torch.float32  # bf16 rounds micro-batches of other shapes to other values
    ranks = join()
    method = asked.get("stage", {}).get("method", "dpo")
    marks = bool(asked.get("marks"))
    if ranks.first and not (folder / "people").exists():
        folder.mkdir(parents=True, exist_ok=True)
        model(folder / "model", asked.get("preset", "llama"))
        write_jsonl(folder / "rows.jsonl", rows(int(asked.get("rows", 40)), marks))
        stage(Pairs(), folder, "people", {"sources": [{"path": str(folder / "rows.jsonl")}], "validation_share": 0.25}, Ranks())
    ranks.wait()
    if "die_at" in asked:
        gradient = loop._gradient

        def deadly(network: Any, losses: Any, step: int, *rest: Any) -> Any:
            found = gradient(network, losses, step, *rest)
            if step == asked["die_at"]:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        loop._gradient = deadly  # type: ignore[assignment]
    kind = "marks" if marks else "pairs"
    train = {"optimiser": "adamw", "learning_rate": 0.003, "warmup": 2, "checkpoint_seconds": 1e-6, "keep_last": 2}
    options = {
        "from": "model",
        "method": method,
        "data": f"people/{kind}.train.jsonl",
        "validation": f"people/{kind}.validation.jsonl",
        "steps": 8,
        "pairs": {"pairs": 7, "micro_tokens": 256},
        "train": train,
        **asked.get("stage", {}),
    }
    summary = stage(Preference(), folder, "preference", options, ranks)
    if ranks.first:
        (folder / "summary.json").write_text(json.dumps(summary))
    leave(ranks)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})
