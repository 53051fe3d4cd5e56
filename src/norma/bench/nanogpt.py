"""nanoGPT trained for a given time, in a process of its own: the peer of ``norma bench time-to-loss``.

    job (JSON on stdin) ─→ trial of eager and compiled ─→ seconds a step ─→ steps that fit ─→ training, its whole schedule ─→ result.json
                                                                                 └─ clock stands still ─→ bits per byte

Only ``model.py`` of the user's copy is imported. The loop is that of its train.py with the values its README and
config/train_shakespeare_char.py give for small models; the rest is what tuning found: fused AdamW, bf16 where the machine has it, our
allocator setting, torch.compile where it is faster.
"""

from __future__ import annotations

import importlib
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from norma.base import platform
from norma.base.files import write_json

if TYPE_CHECKING:
    from torch import Tensor

PEAK, FLOOR = 1e-3, 0.1  # learning rate "with baby networks can afford to go a bit higher"; min_lr = learning_rate / 10
WARMUP = 100  # steps; a tenth of all where that is less
BETAS, DECAY, CLIP = (0.9, 0.99), 0.1, 1.0
WARM, TIMED = 3, 8  # steps of a trial
POINTS = 8  # of the curve


def learning_rate(step: int, steps: int) -> float:
    """get_lr of train.py with lr_decay_iters = ``steps``: linear warm-up, then half a cosine down to a tenth."""
    warmup = warmup_steps(steps)
    if step < warmup:
        return PEAK * (step + 1) / (warmup + 1)
    way = (step - warmup) / max(1, steps - warmup)
    return PEAK * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * way)))


def warmup_steps(steps: int) -> int:
    return min(WARMUP, steps // 10)


def steps_that_fit(seconds: float, each: float) -> int:
    """Steps of ``each`` seconds in ``seconds``, at least one."""
    return max(1, round(seconds / each))


def curve_steps(steps: int, points: int = POINTS) -> list[int]:
    """Numbers of steps done at which the curve has a point: evenly spread, the last at the end."""
    return sorted({max(1, round(steps * i / points)) for i in range(1, points + 1)})


class Peer:
    """A model, its optimiser and its batches, as train.py makes them."""

    def __init__(self, job: dict[str, Any], vocabulary: int, compiled: bool) -> None:
        import numpy as np
        import torch

        sys.path.insert(0, job["source"])
        theirs = importlib.import_module("model")
        torch.manual_seed(job["seed"])
        shape = {"n_layer": job["layers"], "n_head": job["heads"], "n_embd": job["width"], "block_size": job["length"]}
        self.model = theirs.GPT(theirs.GPTConfig(vocab_size=vocabulary, dropout=0.0, bias=False, **shape))
        weights = [p for p in self.model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in weights if p.dim() >= 2], "weight_decay": DECAY},
            {"params": [p for p in weights if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=PEAK, betas=BETAS, fused=True)
        self.call = torch.compile(self.model) if compiled else self.model
        self.rows, self.length, self.dtype = job["rows"], job["length"], getattr(torch, job["dtype"])
        files = sorted(Path(job["train"]).glob("tokens-*.bin"))  # plain uint16, as its train.bin
        maps = [np.memmap(path, dtype=np.dtype(job["tokens"]), mode="r") for path in files]
        self.data = maps[0] if len(maps) == 1 else np.concatenate(maps)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def batch(self) -> tuple[Tensor, Tensor]:
        """get_batch of train.py: windows that begin anywhere."""
        import numpy as np
        import torch

        starts = torch.randint(len(self.data) - self.length, (self.rows,)).tolist()
        windows = torch.from_numpy(np.stack([self.data[i : i + self.length + 1] for i in starts]).astype(np.int64))
        return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()

    def step(self, rate: float) -> float:
        """One step of training; returns its loss."""
        import torch

        for group in self.optimiser.param_groups:
            group["lr"] = rate
        read, wanted = self.batch()
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            _, loss = self.call(read, wanted)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return float(loss.detach())

    def scores(self, ids: Tensor) -> Tensor:
        found: Tensor = self.model(ids, ids)[0]  # without targets it scores the last place only
        return found


def timed(peer: Peer, rate: float) -> float:
    """Median seconds of a step, after a few that are not counted."""
    seconds = []
    for _ in range(WARM + TIMED):
        began = time.perf_counter()
        peer.step(rate)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[WARM:])


def run(job: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Trial, training, curve."""
    from norma.bench.held_out import bits_per_byte, held_out
    from norma.text.shards import Shards
    from norma.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(Path(job["tokenizer"]))
    text = held_out(Shards(Path(job["validation"])), job["length"], tokenizer.byte_lengths())
    trials: dict[bool, float] = {}
    for compiled in (False, True) if job["compile"] else (False,):
        try:
            trials[compiled] = timed(Peer(job, len(tokenizer), compiled), PEAK)
        except Exception as error:  # no C++ compiler, a graph that it cannot make: torch.compile raises whatever it likes
            if not compiled:
                raise
            say(f"nanoGPT compiled does not run here ({type(error).__name__}); eager it is")
            continue
        say(f"nanoGPT{' compiled' * compiled}: {trials[compiled]:.3f} s a step")
    compiled = min(trials, key=trials.__getitem__)
    steps = steps_that_fit(60 * job["minutes"], trials[compiled])
    peer = Peer(job, len(tokenizer), compiled)
    if compiled:  # what compiling takes is no training
        timed(peer, 0.0)
        fresh = Peer(job, len(tokenizer), compiled=False)
        peer.model.load_state_dict(fresh.model.state_dict())
        peer.optimiser.load_state_dict(fresh.optimiser.state_dict())
    say(f"nanoGPT: {steps:,} steps of {peer.rows} x {peer.length} tokens, {peer.parameters / 1e6:.2f} M parameters")
    each: list[float] = []
    curve = []
    points = set(curve_steps(steps))
    for step in range(steps):
        began = time.perf_counter()
        loss = peer.step(learning_rate(step, steps))
        each.append(time.perf_counter() - began)
        if step + 1 in points:
            peer.model.eval()
            bits = bits_per_byte(peer.scores, text)
            peer.model.train()
            seconds, tokens = sum(each), (step + 1) * peer.rows * peer.length
            curve.append({"step": step + 1, "tokens": tokens, "seconds": seconds, "bits_per_byte": bits})
            say(f"nanoGPT: step {step + 1:,}, {seconds:,.0f} s, loss {loss:.3f}, {bits:.4f} bits per byte")
    setting = f"{'compiled' if compiled else 'eager'}, {job['dtype']}, fused AdamW, {peer.rows} x {peer.length} tokens a step"
    return {
        "system": "nanoGPT",
        "setting": setting,
        "parameters": peer.parameters,
        "steps": steps,
        "tokens": steps * peer.rows * peer.length,
        "seconds": sum(each),
        "seconds_per_step": statistics.median(each),
        "bits_per_byte": curve[-1]["bits_per_byte"],
        "curve": curve,
    }


def main() -> None:
    job = json.loads(sys.stdin.readline())
    platform.set_cache_limits()
    platform.tune_allocator()
    import torch

    torch.set_num_threads(platform.cores())
    told, sys.stdout = sys.stdout, sys.stderr  # what their model prints is not for the parent
    write_json(Path(job["result"]), run(job, lambda line: print(line, file=told, flush=True)))


if __name__ == "__main__":
    main()
