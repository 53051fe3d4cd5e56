"""``norma import``: a Hugging Face folder or a GGUF file becomes a Norma model folder, and a table says what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from norma.base.errors import NormaError, nearest

if TYPE_CHECKING:
    from norma.lm.importing import Imported

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def import_(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A folder in the Hugging Face layout, or a .gguf file.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The model folder to make: new or empty.")],
    dtype: Annotated[str | None, typer.Option(help="Type of the weights: fp32, fp16 or bf16 [default: as they are].")] = None,
    max_shard_gb: Annotated[float, typer.Option(min=0.000001, help="More than this many gigabytes of weights make several files.")] = 5.0,
) -> None:
    """Check a Hugging Face model folder, or a GGUF file, whole and write it as a Norma model folder."""
    if dtype is not None and dtype not in DTYPES:
        raise NormaError(f"unknown type '{dtype}'", where="--dtype", mend=nearest(dtype, DTYPES))
    import torch

    from norma.lm.importing import import_model

    chosen = None if dtype is None else getattr(torch, DTYPES[dtype])
    show(import_model(source, target, chosen, max_shard_bytes=round(max_shard_gb * 1e9)))
    print(f"Written to {target}")


def show(found: Imported) -> None:
    """The table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    config = found.config
    experts = "" if config.experts is None else f", {config.active_parameters():,} of them active for a token"
    tokenizer = "none: the model reads and writes ids, no text"
    if found.tokenizer is not None:
        template = "with its chat template" if found.tokenizer.chat_template else "no chat template"
        tokenizer = f"{type(found.tokenizer.backend.model).__name__}, {len(found.tokenizer):,} tokens, {template}"
    rows = {
        "family": f"{config.family} ({config.kind}, head: {config.head})",
        "parameters": f"{config.parameters():,}{experts}",
        "dtype": ", ".join(f"{name} ({count:,})" if len(found.dtypes) > 1 else name for name, count in found.dtypes.items()),
        "tokenizer": tokenizer,
        "weights in": found.files[0] if len(found.files) == 1 else f"{len(found.files)} files and an index",
        "left out": "\n".join(found.left_out) or "nothing",
    }
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, Text(value))
    Console().print(table)
