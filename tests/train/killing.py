"""Kill a run at random instants, again and again, and compare its end with that of a run left in peace.

    python killing.py FOLDER POLICY:SEED...      POLICY: stop, skip or rollback, what happens at the two bad steps (none for stop)

Each attempt is a forked child. It dies by a SIGKILL from outside at a random time, or by its own hand: before a random change to
the disk, with half a checkpoint file written, or with half a row written. Prints one JSON row per POLICY:SEED.
"""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from norma.base.progress import Silent
from norma.nn import ModelConfig, Transformer
from norma.text.packing import Batches, Rows
from norma.train import checkpoint, loop, metrics
from norma.train.averaging import WeightAverage
from norma.train.optimiser import optimiser_tensors
from norma.train.options import TrainOptions
from norma.train.step import language_losses

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, and imported by tests
import dying

STEPS, ATTEMPTS, BAD = 26, 7, (13, 18)


def options_for(policy: str, seed: int) -> TrainOptions:
    return TrainOptions.model_validate(
        {
            "optimiser": "muon" if seed % 2 else "adamw",
            "warmup": 3,
            "ema": 0.9,
            "checkpoint_seconds": 0.03,
            "keep_every": 7,
            "keep_best": "loss",
            "on_spike": policy,
            "spike_factor": 3.0,
            "pass_over": 3,
            "sample_every": 4,
        }
    )


def work(folder: Path, policy: str, seed: int) -> None:
    """Train to the end and write digests of all there is."""
    config = dataclasses.replace(ModelConfig("llama", 64, 24, 2, 4, 2, 6, 40, 96), dropout=0.1)
    model = Transformer(config).initialise(torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(2, 64, (n,), generator=generator).tolist() for n in torch.randint(3, 20, (40,), generator=generator).tolist()]
    batches = Batches(Rows.build(((r, [True] * len(r)) for r in rows), 24), length=24, size=4, seed=seed, pad=0)
    state: dict[str, Any] = {"multiplier": 1.0}
    made = dying.keep_optimisers()

    def losses(step: int) -> Iterator[tuple[torch.Tensor, dict[str, float]]]:
        bad = policy != "stop" and step in BAD
        state["multiplier"] *= 1.01
        for loss, numbers in language_losses(model, batches, step, micro=3, dtype=torch.float32):
            if bad and step == BAD[0]:
                yield loss * float("nan"), numbers
            else:
                yield loss * state["multiplier"], {**numbers, "loss": numbers["loss"] * (10.0 if bad else 1.0)}

    class Kept(WeightAverage):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made["average"] = self

    loop.WeightAverage = Kept  # type: ignore[misc]
    loop.train(
        model,
        losses,
        steps=STEPS,
        options=options_for(policy, seed),
        folder=folder,
        progress=Silent(),
        state=state,
        seed=seed,
        sample=lambda step: f"步 {step} {float(next(model.parameters()).sum()):.9f}",
    )
    parts = {
        "weights": dict(model.state_dict()),
        "optimiser": optimiser_tensors(model, made["optimisers"]),
        "average": made["average"].tensors,
    }
    end = dying.digests(parts) | {"multiplier": state["multiplier"]}
    end |= {name: dying.rows(folder / f"{name}.jsonl") for name in ("metrics", "samples")}
    (folder / "end.json").write_text(json.dumps(end))


def arm(kind: str, count: int) -> None:
    """Make this process kill itself at the ``count``-th chance."""
    left = [count]

    def due() -> bool:
        left[0] -= 1
        return left[0] < 0

    if kind == "disk":
        dying.before_a_change(count)
    elif kind == "file":
        whole = checkpoint.save_file

        def half_file(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
            if due():
                data = save(dict(tensors))
                path.write_bytes(data[: len(data) // 2])
                dying.die()
            whole(dict(tensors), path)

        checkpoint.save_file = half_file  # type: ignore[assignment]
    elif kind == "row":
        write = metrics.JsonLines.write

        def half_row(self: metrics.JsonLines, row: Mapping[str, Any]) -> None:
            if due():
                with self.path.open("ab") as handle:
                    text = json.dumps(row, ensure_ascii=False).encode()
                    handle.write(text[: max(1, text.find("步".encode()) + 1 or len(text) // 2)])  # within a character where there is one
                dying.die()
            write(self, row)

        metrics.JsonLines.write = half_row  # type: ignore[method-assign]


def child(folder: Path, policy: str, seed: int, kind: str = "peace", at: float = 0) -> tuple[bool, float]:
    """Run in a fork that dies as ``kind`` says."""

    def attempt() -> None:
        arm(kind, int(at))
        work(folder, policy, seed)

    return dying.child(attempt, after=at if kind == "time" else None)


def main() -> None:
    torch.set_num_threads(1)
    for word in sys.argv[2:]:
        policy, seed = word.split(":")[0], int(word.split(":")[1])
        home, chance = Path(sys.argv[1]) / f"{policy}-{seed}", random.Random(f"{policy}{seed}")
        _, seconds = child(home / "peace", policy, seed)
        deaths: list[str] = []
        for attempt in range(ATTEMPTS):
            kind = ("time", "disk", "file", "row")[(attempt + seed) % 4]
            most = {"time": seconds, "disk": 90, "file": 12, "row": 12}[kind]
            alive, _ = child(home / "killed", policy, seed, kind, chance.uniform(0.0, most))
            if alive:
                break
            deaths.append(kind)
        else:
            child(home / "killed", policy, seed)
        equal, end = dying.compared(home)
        row = {
            "run": word,
            "deaths": deaths,
            "equal": equal,
            "steps": [r["step"] for r in end["metrics"]],
            "skipped": [r["step"] for r in end["metrics"] if r.get("skipped")],
            "samples": [r["step"] for r in end["samples"]],
            "left_over": end["left_over"],
        }
        print(json.dumps(row), flush=True)
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
