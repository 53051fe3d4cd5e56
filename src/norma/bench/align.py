"""``norma bench align``: whole steps of post-training beside TRL's trainers.

    docstrings of the standard library ─→ questions and answers of natural, varied length, a tokenizer, a model of random weights
    work: sft, dpo, kto, reward-model, grpo ─→ a process for each system and setting ─→ tries, then interleaved rounds ─→ medians

A step is everything between two updates of the weights: collating, rollouts and rewards where there are any, forward, backward,
clipping, AdamW. Every system takes the same number of texts, pairs or answers a step from the same rows; tokens are those of real text.
"as installed" is a trainer with its defaults on a CPU; "best tuned" the fastest of: no recomputation of activations, bf16 weights or
autocast, texts of like length together, reference log-probabilities made beforehand, and the allocator setting that Norma uses.
"""

from __future__ import annotations

import inspect
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from norma.base.errors import NormaError
from norma.base.files import write_jsonl
from norma.bench import rows as table
from norma.bench.model import Worker, in_order, race
from norma.bench.rows import Measured

METHODS = ("sft", "dpo", "kto", "reward-model", "grpo")
MODULES = """
argparse array ast asyncio base64 bisect calendar cmath codecs collections configparser contextlib copy csv ctypes dataclasses datetime
decimal difflib email enum fractions functools glob gzip hashlib heapq html http inspect io itertools json locale logging math mimetypes
multiprocessing operator os pathlib pickle platform pprint queue random re sched secrets select shelve shlex shutil signal socket sqlite3
ssl statistics string struct subprocess sys tarfile tempfile textwrap threading time timeit tokenize traceback turtle types
unicodedata unittest urllib.parse urllib.request uuid warnings wave weakref xml.dom zipfile zlib
"""
CHARACTERS = 900  # of the longest answer


@dataclass(frozen=True)
class Shape:
    """How large the model and a step are."""

    width: int = 384
    layers: int = 6
    vocabulary: int = 8192
    rows: int = 16  # texts or pairs of a step
    questions: int = 8  # of a rollout
    group: int = 8
    new_tokens: int = 128
    length: int = 512  # positions of the model

    def __str__(self) -> str:
        return f"llama d={self.width} x {self.layers}"


def entries() -> Iterator[tuple[str, str]]:
    """(name, what its docstring says) of the standard library's public names, in order."""
    seen: set[str] = set()
    for module in MODULES.split():
        try:
            home = import_module(module)
        except ImportError:  # not on this system
            continue
        for name, value in sorted(vars(home).items()):
            text = inspect.getdoc(value) if callable(value) and not name.startswith("_") else None
            if text and len(text) > 40 and text not in seen:
                seen.add(text)
                yield f"{module}.{name}", text


def write_work(shape: Shape, folder: Path) -> None:
    """The model folder, and rows for every kind of work."""
    import torch

    from norma.lm import LanguageModel
    from norma.nn import Transformer, preset
    from norma.text.tokenizer import train_tokenizer

    found = [(f"What does `{name}` do?", text[:CHARACTERS].strip()) for name, text in entries()]
    tokenizer = train_tokenizer([f"{question} {answer}" for question, answer in found], shape.vocabulary)
    config = preset("llama", vocab_size=len(tokenizer), width=shape.width, layers=shape.layers, max_positions=shape.length)
    model = Transformer(config).initialise(torch.Generator().manual_seed(0))
    LanguageModel(model, tokenizer).save(folder / "model")
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0)).tolist()
    rows = []
    for number, i in enumerate(order):
        question, answer = found[i]
        prompt = [{"role": "user", "content": question}]
        rows.append({"id": str(number), "messages": prompt, "chosen": answer, "rejected": found[order[number - 1]][1]})
    fit = [r for r in rows if all(len(tokenizer.encode(str(r[side]))) < shape.length - 64 for side in ("chosen", "rejected"))]
    write_jsonl(folder / "rows.jsonl", fit)


def systems(method: str, shape: Shape, dtype: str, folder: Path, threads: int, peers: Sequence[str]) -> list[Worker]:
    """Every system and setting that takes part in one kind of work."""
    base: dict[str, Any] = {
        "folder": str(folder), "dtype": dtype, "method": method, "rows": shape.rows, "questions": shape.questions, "group": shape.group,
        "new_tokens": shape.new_tokens, "length": shape.length, "device": "cpu", "threads": threads, "allocator": "tuned",
    }  # fmt: skip
    found = [Worker("norma", "norma", {**base, "system": "norma.bench.align_norma:step_of"})]
    if "trl" in peers:
        peer = {**base, "system": "norma.bench.align_trl:step_of", "weights": "fp32", "tuned": True}
        installed = {**peer, "tuned": False, "allocator": "default"}
        found.append(Worker("TRL as installed", "TRL as installed", installed))
        kinds = ("fp32", "same") if dtype == "bfloat16" else ("fp32",)
        found += [Worker(f"TRL{', bf16 weights' * (w == 'same')}", "tuned", {**peer, "weights": w}) for w in kinds]
    return found


def measure(
    method: str, shape: Shape, dtype: str, folder: Path, *, rounds: int, threads: int, peers: Sequence[str], console: Console
) -> list[Measured]:
    """Norma, TRL as installed, and its best setting; ratios (of samples a second) are to the first."""
    contestants = race(systems(method, shape, dtype, folder, threads, peers), rounds=rounds, console=console, trials=2)
    out: list[Measured] = []
    for worker in in_order(contestants):
        losses, samples, tokens = (list(column) for column in zip(*worker.values, strict=True))
        per_second = sum(samples) / sum(worker.seconds)
        speeds = [n / s for n, s in zip(tokens, worker.seconds, strict=True)]
        label = worker.label if worker.group != "tuned" else f"best tuned: {worker.label}"
        ratio = per_second / (out[0].samples_per_s or per_second) if out else 1.0
        work = f"{method}, {shape}"
        told = (statistics.median(speeds), worker.peak_mb, ratio, min(speeds), max(speeds), statistics.mean(losses))
        out.append(Measured(label, work, dtype, *told, per_second))
    return out


def run(
    methods: Sequence[str],
    shape: Shape,
    dtype: str,
    *,
    rounds: int,
    threads: int,
    peers: Sequence[str],
    json_path: Path | None,
    console: Console,
) -> list[Measured]:
    """Measure, print the tables, write the JSON."""
    version = ""
    if "trl" in peers:
        try:
            version = f", TRL {import_module('trl').__version__}"
        except ImportError:
            raise NormaError("TRL is not installed", mend="pip install trl") from None
    out: list[Measured] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_work(shape, folder)
        for method in methods:
            console.print(f"{method}, {shape}, {dtype}{version}", highlight=False)
            out += measure(method, shape, dtype, folder, rounds=rounds, threads=threads, peers=peers, console=console)
            if json_path is not None:
                table.write(out, json_path)
    console.print("Whole steps of training; samples: texts, pairs or answers; ratio: samples a second divided by Norma's")
    table.show(out, console)
    return out
