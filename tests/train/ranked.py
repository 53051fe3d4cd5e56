"""A training run for torchrun: ``ranked.py FOLDER OPTIONS`` trains the same tiny model on the same rows for any number of ranks."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from norma.base.progress import Silent
from norma.base.ranks import join, leave
from norma.nn import Transformer, preset
from norma.text.packing import IGNORE
from norma.train import optimiser, train
from norma.train.examples import Examples
from norma.train.options import TrainOptions
from norma.train.pretraining import Pretraining
from norma.train.spread import collect, recompute, spread


class Toy:
    """Rows made from their numbers: next tokens, or some masked and to be guessed from both sides."""

    def __init__(self, name: str, source: bool = False) -> None:
        self.name, self.source = name, source

    def __len__(self) -> int:
        return 1000

    def rows(self, numbers: np.ndarray, step: int) -> Examples:
        made = [np.random.default_rng((len(self.name), int(n))) for n in numbers]
        ids = np.stack([random.integers(3, 40, 24) for random in made])
        targets = np.full_like(ids, IGNORE)
        if self.name == "generative":
            targets[:, :-1] = ids[:, 1:]
            for row, n in enumerate(numbers.tolist()):
                targets[row, : 5 + n % 7] = IGNORE  # rows predict unlike numbers of tokens
        else:
            hidden = np.stack([random.random(24) < 0.3 for random in made])
            targets[hidden] = ids[hidden]
            ids[hidden] = 2
        positions = np.broadcast_to(np.arange(24), ids.shape).copy()
        source = np.stack([random.integers(3, 40, 16) for random in made]) if self.source else None
        read = None if source is None else np.ones_like(source)
        causal = self.name == "generative"
        return Examples(ids, targets, np.ones_like(ids), positions, causal=causal, source=source, source_documents=read)


def main(folder: Path, asked: dict[str, object]) -> None:
    torch.set_num_threads(1)
    ranks = join()
    # In bf16 the last bit of a gradient decides how Muon's iteration rounds.
    optimiser.working_dtype = lambda *_: torch.float32 if asked.get("exact", True) else torch.bfloat16  # type: ignore[attr-defined]
    family = str(asked.get("preset", "llama"))
    shape = {"width": 32, "layers": 2, "head_size": 16, "max_positions": 64}
    more = dict(asked.get("settings", {}))  # type: ignore[call-overload]
    config = replace(preset(family, vocab_size=40, **shape, **more), dropout=0.0)  # ranks draw other numbers than one process does
    model = Transformer(config).initialise(torch.Generator().manual_seed(0))
    streams = [Toy("generative", source=model.config.kind == "encoder-decoder")]
    if model.config.kind == "decoder" and not asked.get("single"):
        streams.append(Toy("masked"))
    work = Pretraining(streams, [2.0, 1.0][: len(streams)], size=6, length=24, seed=3)
    options = TrainOptions(**{"optimiser": "muon", "warmup": 2, "checkpoint_seconds": 1e-6, **asked.get("train", {})})  # type: ignore[dict-item]
    ranks = ranks.grouped(options.tensor_parallel)
    network = spread(model, ranks)
    if asked.get("recompute"):
        recompute(network)
    losses = partial(work.losses, network, micro=2, dtype=torch.float32, ranks=ranks)
    die = asked.get("die_at")

    def watched(step: int):  # type: ignore[no-untyped-def]
        if step == die:
            time.sleep(0.5)  # let the last checkpoint come to its end
            os._exit(9)
        yield from losses(step)

    train(network, watched, steps=int(str(asked.get("steps", 6))), options=options, folder=folder, progress=Silent(), ranks=ranks)
    collect(network, model, ranks)
    if ranks.first:
        save_file({n: p.detach().contiguous() for n, p in model.named_parameters()}, folder / "end.safetensors")
        (folder / "ranks.json").write_text(json.dumps(ranks.count))
    leave(ranks)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})
