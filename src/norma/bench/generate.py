"""``norma bench generate``: batched sampling beside transformers' ``generate``.

Same weights (random), same prompts of unequal length, a group of answers to each, sampled over the whole vocabulary at temperature 1;
every system in its own process, rounds interleaved, medians. Two kinds of work: ``fixed``, every answer as long as may be, and
``varied``, where answers end by chance, a 64th a token, as trained models' answers end at different times. "as installed" is
``from_pretrained`` and ``generate`` with one copy of each prompt and ``num_return_sequences``; "best tuned" the fastest of bf16 weights,
attention kernels and kinds of cache, with the allocator setting that Norma uses.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from norma.base.errors import NormaError
from norma.bench import rows as table
from norma.bench.model import Worker, in_order, race
from norma.bench.rows import Measured

KINDS = ("fixed", "varied")
END_SHARE = 64  # of the tokens that end an answer in varied work: one in so many
WORK = "norma.bench.generate_work"


@dataclass(frozen=True)
class Shape:
    """How large the model and the work are."""

    family: str = "llama"
    width: int = 384
    layers: int = 6
    vocabulary: int = 8192
    prompts: int = 8
    group: int = 8
    prompt_tokens: int = 64  # of the longest prompt; the shortest has a quarter
    new_tokens: int = 128

    def __str__(self) -> str:
        lengths = f"{self.prompts} prompts of up to {self.prompt_tokens}, group {self.group}, {self.new_tokens} new"
        return f"{self.family} d={self.width} x {self.layers}, {lengths}"


def model_folder(shape: Shape, kind: str, folder: Path) -> None:
    """A model of random weights in the shared layout."""
    import torch

    from norma.lm.weights import write_weights
    from norma.nn import Transformer, config_to_hf, preset

    limit = shape.prompt_tokens + shape.new_tokens
    sizes = {"vocab_size": shape.vocabulary, "width": shape.width, "layers": shape.layers, "max_positions": limit}
    config = dataclasses.replace(preset(shape.family, **sizes), dropout=0.0)
    model, random = Transformer(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0.0 if p.dim() > 1 else 1.0, 0.02, generator=random)
    ends = list(range(2, 2 + shape.vocabulary // END_SHARE)) if kind == "varied" else None
    values = config_to_hf(config, bos=1, eos=None, pad=0) | {"eos_token_id": ends}
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    write_weights(folder, config, {k: v.detach() for k, v in model.state_dict().items()})


def systems(shape: Shape, kind: str, dtype: str, folder: Path, threads: int, peers: Sequence[str]) -> list[Worker]:
    """Every system and setting that takes part."""
    base: dict[str, Any] = {
        "folder": str(folder), "dtype": dtype, "prompts": shape.prompts, "group": shape.group, "prompt_tokens": shape.prompt_tokens,
        "new_tokens": shape.new_tokens, "vocabulary": shape.vocabulary, "device": "cpu", "threads": threads, "allocator": "tuned",
    }  # fmt: skip
    found = [Worker("norma", "norma", {**base, "system": f"{WORK}:norma_step"})]
    if "hf" in peers:
        peer = {**base, "system": f"{WORK}:hf_step", "attention": "sdpa", "cache": "dynamic"}
        found.append(Worker("transformers as installed", "transformers as installed", {**peer, "dtype": "float32", "allocator": "default"}))
        found += [
            Worker(f"transformers {attention}, {cache} cache", "tuned", {**peer, "attention": attention, "cache": cache})
            for attention in ("sdpa", "eager")
            for cache in ("dynamic", "static")
        ]
    return found


def measure(shape: Shape, kind: str, dtype: str, *, rounds: int, threads: int, peers: Sequence[str], console: Console) -> list[Measured]:
    """Norma, transformers as installed, and its best setting; ratios are to the first."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model_folder(shape, kind, folder)
        contestants = race(systems(shape, kind, dtype, folder, threads, peers), rounds=rounds, console=console, trials=2)
    order = in_order(contestants)
    samples = shape.prompts * shape.group
    ours = statistics.median(order[0].seconds)
    out = []
    for worker in order:
        median = statistics.median(worker.seconds)
        lengths = [values[0] for values in worker.values]  # the mean length of a step's answers
        speeds = [samples * length / seconds for length, seconds in zip(lengths, worker.seconds, strict=True)]
        label = worker.label if worker.group != "tuned" else f"best tuned: {worker.label}"
        measured = (statistics.median(speeds), worker.peak_mb, ours / median, min(speeds), max(speeds), statistics.mean(lengths))
        out.append(Measured(label, str(shape), f"{kind}, {dtype}", *measured, samples / median))
    return out


def run(
    shape: Shape,
    kinds: Sequence[str],
    dtype: str,
    *,
    rounds: int,
    threads: int,
    peers: Sequence[str],
    json_path: Path | None,
    console: Console,
) -> list[Measured]:
    """Measure, print the table, write the JSON."""
    try:
        import transformers
    except ImportError:
        raise NormaError("transformers is not installed", mend="pip install 'norma-lm[test]'") from None
    out: list[Measured] = []
    for kind in kinds:
        console.print(f"{shape}, {kind}, {dtype}, transformers {transformers.__version__}", highlight=False)
        out += measure(shape, kind, dtype, rounds=rounds, threads=threads, peers=peers, console=console)
        if json_path is not None:
            table.write(out, json_path)
    console.print("Sampling at temperature 1; ratio: samples a second divided by Norma's; loss: mean tokens of an answer")
    table.show(out, console)
    return out
