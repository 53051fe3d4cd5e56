"""``norma bench finetune``: whole steps of learning a task of labels beside the Trainer of transformers.

    texts with labels (yours, or docstrings of the standard library) ─→ ids, cut to a length ─→ a model of random weights with a head
    a process for each system and setting ─→ rounds, interleaved, each the same epoch ─→ samples a second, peak memory, the mean loss

A step is everything between two updates of the weights: collating, forward, backward, clipping, AdamW; the rows are tokenised before. A
round is one epoch, so that all systems read the same rows in it, whatever order they put them in. The learning rate is next to nothing:
all losses then are of the same weights, and must agree. "as installed" is the Trainer with autocast and else its defaults; "best tuned"
the fastest of: texts of like length together, bf16 weights or autocast, torch.compile, both attention kernels, fused AdamW, the
allocator setting that Norma uses. There is no dropout on either side.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from norma.base.errors import NormaError
from norma.base.files import write_jsonl
from norma.bench import rows as table
from norma.bench.align import entries
from norma.bench.model import Worker, in_order, race
from norma.bench.rows import Measured

FAMILIES = ("bert", "llama")
RATE = 1e-9  # learning rate
APART: dict[str, float] = {"float32": 1e-3, "bfloat16": 3e-2}  # nats that mean losses may differ by


@dataclass(frozen=True)
class Shape:
    """How large the model and a step are."""

    family: str = "bert"
    width: int = 384
    layers: int = 6
    vocabulary: int = 8192
    rows: int = 16  # texts of a step
    texts: int = 512  # of a round
    length: int = 256  # most tokens of a text

    def __str__(self) -> str:
        return f"{self.family} d={self.width} x {self.layers}"


def labelled(path: Path | None) -> list[tuple[str, str]]:
    """(text, label): a file's, or docstrings of the standard library, each labelled by whether it is a class's."""
    if path is None:
        return [(text, "class" if name.rpartition(".")[2][:1].isupper() else "function") for name, text in entries()]
    from norma.tasks.rows import read_rows
    from norma.text.quarantine import Quarantine

    with Quarantine() as quarantine:
        return [(str(row["text"]), str(row["label"])) for row in read_rows(path, "labels", {}, quarantine)]


def write_work(shape: Shape, path: Path | None, folder: Path) -> str:
    """The model folder with its head, and the rows as ids; says how long the rows are."""
    import torch

    from norma.lm import LanguageModel
    from norma.nn import Transformer, preset
    from norma.tasks import encode, heads
    from norma.text.tokenizer import train_tokenizer

    rows = labelled(path)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()[: shape.texts]
    count = len(order) - len(order) % shape.rows
    if not count:
        raise NormaError(f"{len(rows)} rows do not make one step of {shape.rows}", where=path, mend="Give more rows, or --rows less")
    chosen = [rows[i] for i in order[:count]]
    labels = sorted({label for _, label in chosen})
    objectives = ("masked", "pairs") if shape.family == "bert" else ()
    tokenizer = train_tokenizer([text for text, _ in rows], shape.vocabulary, objectives)
    config = preset(
        shape.family, vocab_size=shape.vocabulary, width=shape.width, layers=shape.layers, max_positions=max(512, shape.length)
    )
    begun = LanguageModel(Transformer(config).initialise(torch.Generator().manual_seed(0)), tokenizer)
    model = heads.begin(begun, "labels", labels, dropout=0.0, seed=0)
    with torch.no_grad():  # scores that differ from text to text: losses that agree then say something
        model.transformer.classifier.weight.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(0))  # type: ignore[union-attr]
    model.kept["pad_token_id"] = tokenizer.pad_id
    model.save(folder / "model")
    read = encode.readings(model, [text for text, _ in chosen], None, shape.length)
    numbered = [{"ids": list(r.ids), "label": labels.index(label)} for r, (_, label) in zip(read, chosen, strict=True)]
    write_jsonl(folder / "rows.jsonl", numbered)
    lengths = sorted(len(r.ids) for r in read)
    return f"{count} texts of {lengths[0]} to {lengths[-1]} tokens, half of them at most {lengths[count // 2]}"


def systems(shape: Shape, dtype: str, folder: Path, threads: int, peers: Sequence[str]) -> list[Worker]:
    """Every system and setting that takes part."""
    base: dict[str, Any] = {
        "folder": str(folder), "dtype": dtype, "rows": shape.rows, "device": "cpu", "threads": threads, "allocator": "tuned", "rate": RATE,
    }  # fmt: skip
    found = [Worker("norma", "norma", {**base, "system": "norma.bench.finetune_norma:step_of"})]
    if "hf" in peers:
        installed = {"weights": "fp32", "tuned": False, "compile": False, "attention": "sdpa", "allocator": "default"}
        peer = {**base, "system": "norma.bench.finetune_hf:step_of", **installed}
        tuned = {**peer, "tuned": True, "allocator": "tuned"}
        found.append(Worker("Trainer as installed", "Trainer as installed", peer))
        kinds = ("fp32", "same") if dtype == "bfloat16" else ("fp32",)
        for weights in kinds:
            for attention, compiled in (("sdpa", False), ("eager", False), ("sdpa", True)):
                label = f"Trainer{', bf16 weights' * (weights == 'same')}{', compiled' * compiled}, {attention}"
                found.append(Worker(label, "tuned", {**tuned, "weights": weights, "compile": compiled, "attention": attention}))
    return found


def measure(
    shape: Shape, dtype: str, folder: Path, *, rounds: int, threads: int, peers: Sequence[str], console: Console
) -> list[Measured]:
    """Norma, the Trainer as installed, and its best setting; ratios (of samples a second) are to the first."""
    contestants = race(systems(shape, dtype, folder, threads, peers), rounds=rounds, console=console, trials=1)
    out: list[Measured] = []
    for worker in in_order(contestants):
        losses, samples, tokens = (list(column) for column in zip(*worker.values, strict=True))
        median = statistics.median(worker.seconds)
        label = worker.label if worker.group != "tuned" else f"best tuned: {worker.label}"
        per_second, loss = samples[0] / median, statistics.mean(losses)
        ratio = per_second / (out[0].samples_per_s or per_second) if out else 1.0
        speeds = (tokens[0] / median, worker.peak_mb, ratio, tokens[0] / max(worker.seconds), tokens[0] / min(worker.seconds))
        out.append(Measured(label, f"{shape}, {samples[0]:.0f} texts a round", dtype, *speeds, loss, per_second))
    apart = max(row.loss for row in out) - min(row.loss for row in out)
    if not apart <= APART[dtype]:
        raise NormaError(f"the systems do not do the same work: their mean losses differ by {apart:.4f}", where=str(shape))
    return out


def run(
    shapes: Sequence[Shape],
    dtype: str,
    *,
    text: Path | None,
    rounds: int,
    threads: int,
    peers: Sequence[str],
    json_path: Path | None,
    console: Console,
) -> list[Measured]:
    """Measure, print the tables, write the JSON."""
    version = ""
    if "hf" in peers:
        try:
            version = f", transformers {import_module('transformers').__version__}"
            import_module("accelerate"), import_module("datasets")
        except ImportError as error:
            raise NormaError(f"{error.name} is not installed", mend="pip install transformers accelerate datasets") from None
    out: list[Measured] = []
    for shape in shapes:
        with tempfile.TemporaryDirectory() as temporary:
            about = write_work(shape, text, Path(temporary))
            console.print(f"{shape}, {dtype}{version}: {about}, {shape.rows} a step", highlight=False)
            out += measure(shape, dtype, Path(temporary), rounds=rounds, threads=threads, peers=peers, console=console)
        if json_path is not None:
            table.write(out, json_path)
    console.print("Whole steps of training; samples: texts; ratio: samples a second divided by Norma's")
    table.show(out, console)
    return out
