"""``norma doctor``: what this machine has, and what Norma would use, in words; or what a published model is, and whether it fits here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from norma.base.platform import Fact


def doctor(
    model: Annotated[
        str | None, typer.Option("--model", help="A published model (gpt2-medium, llama-7b), or a family (gpt2) for all its sizes.")
    ] = None,
    dial: Annotated[str | None, typer.Option("--size", help="Say what a size (3M) would set, and how long it takes here.")] = None,
    budget: Annotated[str | None, typer.Option(help="Say what a time (10min) allows here.")] = None,
    vocabulary: Annotated[int, typer.Option(min=256, help="With --size or --budget: tokens of the vocabulary.")] = 8192,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Say what this machine has, what Norma makes of it, and why. With --model: what a model is made of, and whether it fits."""
    from norma.base.platform import describe, set_cache_limits, tune_allocator

    set_cache_limits()  # done at every start of norma; here too, so that what is told is what a run would get
    tune_allocator()
    if model is not None:
        _model(model, as_json)
        return
    if dial is not None or budget is not None:
        _dial(dial, budget, vocabulary, as_json)
        return
    facts = [*describe(), _kernels()]
    if as_json:
        print(json.dumps([fact.row() for fact in facts], indent=2, ensure_ascii=False))
        return
    rows = [(fact.name, fact.found, fact.chosen, fact.why) for fact in facts]
    _table("What this machine has, and what Norma makes of it", ("", "found", "chosen", "because"), rows)


def _kernels() -> Fact:
    """Which operators a CPU would train with. Builds nothing."""
    from norma.base.platform import Fact
    from norma.nn.kernels import FOLDER, build

    why = build.refused()
    if why is not None:
        return Fact("kernels", why, "PyTorch's operators", "fused attention, norms and activations need a compiler and AVX2 or AVX-512")
    found = "compiled" if build.library(FOLDER).is_file() else "compiled at first use, 10 to 90 s"
    return Fact("kernels", found, "attention, norms and activations fused", f"training takes less time; {build.SWITCH}=off does without")


def _dial(size: str | None, budget: str | None, vocabulary: int, as_json: bool) -> None:
    """What the dial of a pretrain stage would set for a llama."""
    from norma.base.platform import working_dtype
    from norma.train.calibrate import micro_batch, turn
    from norma.train.dial import maker

    make, dtype = maker("llama", vocab_size=vocabulary, max_positions=512, settings={}), working_dtype()
    found, seconds = turn(make, size=size, budget=budget, sequence=256, corpus_tokens=None, dtype=dtype)
    rows = micro_batch(make(found.width, found.layers, found.head_size), 256, found.batch, dtype)
    if as_json:
        print(json.dumps({**found.row(), "seconds": seconds, "micro_batch": rows}, indent=2))
        return
    why = "rows in memory at one time: half of what is free holds them; more are no faster"
    lines = [*found.table(seconds), ("micro-batch", str(rows), why)]
    _table(f"llama, {size or budget}, vocabulary of {vocabulary:,}", ("", "is", "because"), lines)


def _model(name: str, as_json: bool) -> None:
    """One model's table; a family that has several sizes: a line for each."""
    from norma.nn.facts import facts, fits
    from norma.nn.families import FAMILIES

    family = FAMILIES.get(name)
    several = family is not None and len(family.sizes) > 1
    where, room = _room()
    known = [facts(f"{name}-{size}") for size in family.sizes] if family and several else [facts(name)]
    for row in known:
        row["memory"], row["fits"] = room, fits(row, room)
    if as_json:
        print(json.dumps(known if several else known[0], indent=2, ensure_ascii=False))
    elif several:
        columns = ("", "layers", "width", "heads", "parameters", "active", "bf16", "a token", "KV cache", "training", "fits")
        _table(f"{name}: {known[0]['paper']}", columns, [_line(row) for row in known])
    else:
        _table(name, ("", "is", "which means"), _lines(known[0], where))


def _room() -> tuple[str, int | None]:
    """The memory that weights would be in, and its size: the first GPU's, else this process's."""
    import torch

    from norma.base.platform import memory

    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).total_memory
    return "this machine", memory()[0]


def _line(known: dict[str, Any]) -> tuple[str, ...]:
    from norma.base.platform import size

    shape = known["structure"]
    layers = f"{shape['encoder_layers']} + {shape['layers']}" if "encoder_layers" in shape else str(shape["layers"])
    return (
        known["model"],
        layers,
        str(shape["width"]),
        str(shape["attention_heads"]),
        *(many(known[name]) for name in ("parameters", "active_parameters")),
        size(known["weights_bf16"]),
        _flop(known["flops_per_token"]),
        *(size(known[name]) for name in ("kv_cache", "training")),
        known["fits"],
    )


def _lines(known: dict[str, Any], where: str) -> list[tuple[str, ...]]:
    from norma.base.platform import size

    length = f"{known['length']:,} tokens" + (" each of source and target" if known["kind"] == "encoder-decoder" else "")
    return [
        ("family", known["family"], known["paper"]),
        ("layout", known["layout"], f'what it is written as; "model_type": "{known["model_type"]}"'),
        ("structure", known["kind"], "; ".join(f"{name} {_word(value)}" for name, value in known["structure"].items())),
        ("parameters", f"{known['parameters']:,}", f"{many(known['parameters'])}; tied embeddings counted once"),
        ("active parameters", f"{known['active_parameters']:,}", "of experts only those a token is sent to"),
        ("weights", f"{size(known['weights_fp32'])} fp32, {size(known['weights_bf16'])} bf16", "in memory and on disk"),
        ("a token", _flop(known["flops_per_token"]), f"forward and backward, in a text of {length}"),
        ("KV cache", size(known["kv_cache"]), f"bf16 keys and values of one text of {length}"),
        ("training", size(known["training"]), "fp32 weights, gradients and AdamW's two moments; activations come on top"),
        ("fits", known["fits"], f"{where} has {size(known['memory'])}; reading needs bf16 weights and the cache"),
    ]


def _word(value: object) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_word(inner)}" for name, inner in value.items()) + ")"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def many(count: int, thousands: str = "kMBT") -> str:
    """``124.4 M``, ``6.7 B``: a large number in words; ``thousands`` names the steps of a thousand."""
    if count < 1000:
        return str(count)
    value, step = float(count), -1
    while value >= 999.95 and step + 1 < len(thousands):
        value, step = value / 1000, step + 1
    return f"{value:.1f} {thousands[step]}"


def _flop(count: int) -> str:
    return f"{many(count, 'kMGTP')}FLOP"


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
