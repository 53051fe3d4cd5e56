"""``norma plan RECIPE``: weights, tokens, memory and time of every stage that trains, before anything runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from norma.nn.config import ModelConfig
    from norma.pipeline.foresee import Foreseen


class Number(StrEnum):
    """Types of numbers."""

    FP32 = "fp32"
    BF16 = "bf16"


def plan(
    recipe: Annotated[Path, typer.Argument(help="The recipe (YAML), or a folder that holds recipe.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As they are given to norma run.")] = None,
    scale: Annotated[str | None, typer.Option(help="As it is given to norma run.")] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|FOLDER", help="Another model in its place: a published size such as llama-2-7b, or a folder."),
    ] = None,
    lora: Annotated[int | None, typer.Option(metavar="RANK", min=1, help="Norm training trains LoRA of this rank.")] = None,
    targets: Annotated[str, typer.Option(help="What LoRA stands beside: all, or names with commas.")] = "all",
    weights: Annotated[Number, typer.Option(help="Type of the weights that stay.")] = Number.FP32,
    activations: Annotated[Number | None, typer.Option(help="Type that is computed in; by default this machine's.")] = None,
    recompute: Annotated[
        bool | None, typer.Option("--recompute/--keep", help="Keep only inputs of blocks; by default as the recipe says.")
    ] = None,
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of a question.")] = 128,
    flops: Annotated[
        float | None, typer.Option(help="Operations a second of the machine that it is for; by default this one's, measured.")
    ] = None,
    bandwidth: Annotated[float | None, typer.Option(help="Bytes a second that it reads from memory.")] = None,
    parts: Annotated[bool, typer.Option("--parts", help="Show what the memory is made of.")] = False,
    trust: Annotated[bool, typer.Option("--trust", help="Let the Python files that the recipe names run.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Say what a recipe will take. Nothing runs; two short measurements say what this machine can do."""
    import torch

    from norma.base.platform import working_dtype
    from norma.nn.lora import LoraOptions
    from norma.pipeline import load_recipe
    from norma.pipeline.foresee import foresee
    from norma.train.footprint import Machine
    from norma.train.peak import matmul_peak, read_bandwidth

    loaded = load_recipe(recipe, overrides or [], scale=scale, trust=trust)
    dtype = working_dtype() if activations is None else {Number.FP32: torch.float32, Number.BF16: torch.bfloat16}[activations]
    machine = Machine(flops or matmul_peak(dtype), bandwidth or read_bandwidth())
    names: tuple[str, ...] | str = targets if targets == "all" else tuple(part.strip() for part in targets.split(","))
    found = foresee(
        loaded,
        model=None if model is None else _shape(model),
        machine=machine,
        lora=None if lora is None else LoraOptions(rank=lora, targets=names),
        weights=2 if weights is Number.BF16 else 4,
        activations=2 if dtype == torch.bfloat16 else 4,
        recompute=recompute,
        prompt=prompt,
    )
    if json_:
        import json

        print(json.dumps([row.row() for row in found], ensure_ascii=False, indent=2))
        return
    _show(found, machine, parts)


def _shape(name: str) -> ModelConfig:
    from norma.base.files import read_json
    from norma.nn import config_from_hf
    from norma.nn.presets import published

    path = Path(name).expanduser()
    return config_from_hf(read_json(path / "config.json"), path) if (path / "config.json").is_file() else published(name)


def _show(found: list[Foreseen], machine: Any, parts: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from norma.base.platform import memory, size
    from norma.cli.live import compact
    from norma.cli.progress import duration

    console = Console()
    table = Table(title="Of a step: tokens, memory, least time", title_justify="left")
    for name in ("stage", "weights", "learnt", "tokens", "memory", "time", "steps"):
        table.add_column(name, justify="left" if name == "stage" else "right", overflow="fold", no_wrap=True)
    for row in found:
        least = sum((row.seconds or {}).values())
        cells = [
            compact(row.config.parameters()),
            compact(row.learnt),
            f"{row.tokens:,}",
            size(row.peak),
            _short(least),
            str(row.steps or ""),
        ]
        table.add_row(row.stage, *cells)
    console.print(table)
    for row in found if parts else ():
        console.print(_parts(row))
    total, available = memory()
    console.print(f"This machine has {size(total)} of memory, {size(available)} free.", highlight=False)
    speed = f"{machine.flops:.2g} operations and {machine.bandwidth:.2g} bytes a second"
    console.print(f"Time at {speed}, which no training reaches: peak_share in metrics.jsonl says what a stage came to.", highlight=False)
    timed = [sum(row.seconds.values()) * row.steps for row in found if row.seconds and row.steps]
    if timed:
        console.print(f"Stages whose steps are known: at least {duration(sum(timed))}.", highlight=False)


def _parts(row: Foreseen) -> Any:
    from rich.table import Table

    from norma.base.platform import size

    table = Table(title=f"{row.stage}: {size(row.peak)} at most at one time", title_justify="left")
    for name in ("when", "what", "bytes", "why"):
        table.add_column(name, justify="right" if name == "bytes" else "left", overflow="fold")
    for part in row.parts:
        table.add_row(part.phase, part.name, size(part.bytes), part.why)
    for phase, took in (row.seconds or {}).items():
        table.add_row(phase, "time", _short(took), "at the machine's peak")
    return table


def _short(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
