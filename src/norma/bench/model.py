"""``norma bench model``, ``norma bench train``: passes, or whole steps of training, beside other implementations of the same family.

Same weights (written in the shared layout, read by both), same tokens, same number format, every system in its own process, rounds
interleaved, medians. "as installed" is what ``from_pretrained`` and autocast give; "best tuned" is the fastest of torch.compile and
eager, both attention kernels, bf16 weights or autocast, all with the same allocator setting that Norma uses. A step of training is
forward, backward, clipping and AdamW (fused where a system is tuned); nanoGPT is read from the user's own copy.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from norma.base.errors import NormaError
from norma.bench import rows as table
from norma.bench.rows import Measured

FAMILIES = ("bert", "gpt2", "llama", "t5")


@dataclass(frozen=True)
class Shape:
    """How large the models and the batches are, and where they run."""

    width: int = 384
    layers: int = 6
    vocabulary: int = 8192
    length: int = 256
    rows: int = 32
    device: str = "cpu"

    def __str__(self) -> str:
        return f"d={self.width} x {self.layers}, T={self.length}, B={self.rows}"


@dataclass(frozen=True)
class Work:
    """One model and one batch."""

    family: str
    dtype: str  # bfloat16 or float32
    shape: Shape
    train: bool = False  # with clipping and the optimiser
    peers: tuple[str, ...] = ("hf",)
    nanogpt: Path | None = None  # the folder that holds its model.py

    @property
    def name(self) -> str:
        return f"{self.family} {self.shape}"


@dataclass
class Worker:
    """A process that runs steps on demand."""

    label: str
    group: str  # "norma", "tuned", or the name of what is taken as installed: the fastest of a group takes part
    job: dict[str, Any]
    seconds: list[float] = field(default_factory=list)
    values: list[list[float]] = field(default_factory=list)  # what each counted step gave
    loss: float = float("nan")
    peak_mb: float = 0.0

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "norma.bench.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._send(json.dumps(self.job))
        self.loss = self._receive()["loss"]

    def step(self) -> float:
        """Seconds of a step that is tried."""
        return self._step()[0]

    def count(self) -> None:
        """A step that counts."""
        seconds, values = self._step()
        self.seconds.append(seconds)
        self.values.append(values)

    def _step(self) -> tuple[float, list[float]]:
        self._send("step")
        answer = self._receive()
        return float(answer["seconds"]), answer["values"]

    def stop(self) -> None:
        self._send("stop")
        self.peak_mb = self._receive()["peak_mb"]
        self.process.communicate()

    def _send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None and self.process.stderr is not None
        line = self.process.stdout.readline()
        if not line:
            last = (self.process.stderr.read().strip().splitlines() or ["no message"])[-1]
            raise NormaError(f"the benchmark process of '{self.label}' ended: {last}", mend="See --debug, or run with a smaller --rows")
        answer: dict[str, Any] = json.loads(line)
        return answer


def systems(work: Work, folder: Path, kind: str, threads: int) -> list[Worker]:
    """Every system and setting that takes part."""
    shape = work.shape
    base = {
        "folder": str(folder), "kind": kind, "dtype": work.dtype, "rows": shape.rows, "length": shape.length,
        "device": shape.device, "threads": threads, "attention": "sdpa", "weights": "fp32", "compile": False, "allocator": "tuned",
    }  # fmt: skip
    base |= {"train": work.train, "fused": True, "micro": shape.rows}
    ours = [Worker(f"norma{' compiled' * c}", "norma", {**base, "system": "norma", "compile": bool(c)}) for c in (0, 1)]
    if work.train and shape.rows > 16:  # as a recipe does by default
        ours.append(Worker("norma, micro-batches of 16", "norma", {**base, "system": "norma", "micro": 16}))
    peer = {**base, "system": "hf"}
    tuned = [
        Worker(
            f"transformers{' compiled' * c}, {attention}{', bf16 weights' * (weights == 'same')}",
            "tuned",
            {**peer, "compile": bool(c), "attention": attention, "weights": weights},
        )
        for c in (0, 1)
        for attention in ("sdpa", "eager")
        for weights in (("fp32", "same") if work.dtype == "bfloat16" else ("fp32",))
    ]
    installed: dict[str, Any] = {"allocator": "default", "fused": False}
    found = [*ours]
    if "hf" in work.peers:
        found += [Worker("transformers as installed", "transformers as installed", {**peer, **installed}), *tuned]
    if "nanogpt" in work.peers and work.family == "gpt2" and work.nanogpt is not None:
        nano = {**base, "system": "nanogpt", "source": str(work.nanogpt)}
        found.append(Worker("nanoGPT as installed", "nanoGPT as installed", {**nano, **installed}))
        found += [Worker(f"nanoGPT{' compiled' * c}, fused AdamW", "tuned", {**nano, "compile": bool(c)}) for c in (0, 1)]
    return found


def race(workers: Sequence[Worker], *, rounds: int, console: Console, trials: int = 3) -> dict[str, Worker]:
    """Group → its fastest setting, after ``rounds`` interleaved rounds. Settings are tried one after the other, ``trials`` steps each."""
    contestants: dict[str, Worker] = {}
    for worker in workers:
        worker.start()
        trial = min(worker.step() for _ in range(trials))
        console.print(f"  {worker.label}: {trial:.2f} s a step, loss {worker.loss:.4f}", style="dim", highlight=False)
        rival = contestants.get(worker.group)
        if rival is None or trial < rival.job["trial"]:
            worker.job["trial"] = trial
            contestants[worker.group] = worker
            if rival is not None:
                rival.stop()
        else:
            worker.stop()
    for _ in range(rounds):
        for worker in contestants.values():
            worker.count()
    for worker in contestants.values():
        worker.stop()
    return contestants


def in_order(contestants: dict[str, Worker]) -> list[Worker]:
    """Norma, what is taken as installed, the best tuned."""
    names = ["norma", *(name for name in contestants if name not in ("norma", "tuned")), *(["tuned"] if "tuned" in contestants else [])]
    return [contestants[name] for name in names]


def measure(work: Work, *, rounds: int, threads: int, console: Console) -> list[Measured]:
    """The best setting of Norma, transformers as installed, and its best setting; ratios are to the first."""
    import torch

    from norma.lm.weights import write_weights
    from norma.nn import Transformer, config_to_hf, preset, with_head

    shape = work.shape
    sizes = {"vocab_size": shape.vocabulary, "width": shape.width, "layers": shape.layers, "max_positions": 2 * shape.length}
    config = with_head(dataclasses.replace(preset(work.family, **sizes), dropout=0.0), "lm")
    model = Transformer(config)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():  # every weight random: no system may profit from zeros
        for p in model.parameters():
            p.normal_(0.0 if p.dim() > 1 else 1.0, 0.02, generator=random)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        values = config_to_hf(config, bos=1, eos=2, pad=0)
        (folder / "config.json").write_text(json.dumps(values | {"decoder_start_token_id": 0}), encoding="utf-8")
        write_weights(folder, config, {k: v.detach() for k, v in model.state_dict().items()})
        contestants = race(systems(work, folder, config.kind, threads), rounds=rounds, console=console)
    tokens = shape.rows * (shape.length * 3 // 2 if config.kind == "encoder-decoder" else shape.length)
    order = in_order(contestants)
    ours = statistics.median(order[0].seconds)
    out = []
    for worker in order:
        median = statistics.median(worker.seconds)
        speed = (tokens / median, tokens / max(worker.seconds), tokens / min(worker.seconds))
        label = worker.label if worker.group != "tuned" else f"best tuned: {worker.label}"
        out.append(Measured(label, work.name, work.dtype, speed[0], worker.peak_mb, ours / median, speed[1], speed[2], worker.loss))
    return out


def run(
    families: Sequence[str],
    dtypes: Sequence[str],
    shape: Shape,
    *,
    rounds: int,
    threads: int,
    json_path: Path | None,
    console: Console,
    train: bool = False,
    peers: Sequence[str] = ("hf",),
    nanogpt: Path | None = None,
) -> list[Measured]:
    """Measure, print the table, write the JSON."""
    if "nanogpt" in peers and (nanogpt is None or not (nanogpt / "model.py").is_file()):
        mend = "git clone https://github.com/karpathy/nanoGPT, then --nanogpt FOLDER"
        raise NormaError("nanoGPT is compared from your own copy, and there is none", where=nanogpt or "--nanogpt", mend=mend)
    try:
        import transformers
    except ImportError:
        raise NormaError("transformers is not installed", mend="pip install 'norma-lm[test]'") from None
    out: list[Measured] = []
    for family in families:
        for dtype in dtypes:
            work = Work(family, dtype, shape, train, tuple(peers), nanogpt)
            console.print(f"{work.name}, {dtype}, transformers {transformers.__version__}", highlight=False)
            out += measure(work, rounds=rounds, threads=threads, console=console)
            if json_path is not None:
                table.write(out, json_path)
    what = "Whole steps of training" if train else "Forward and backward"
    console.print(f"{what} beside {', '.join(peers)}; ratio: speed divided by Norma's")
    table.show(out, console)
    return out
