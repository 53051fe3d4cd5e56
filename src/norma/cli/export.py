"""``norma export``: a model folder in the format of another program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The file to make.")],
    format: Annotated[Literal["gguf"], typer.Option(help="gguf: for llama.cpp.")] = "gguf",
    dtype: Annotated[Literal["fp32", "fp16", "bf16", "q8_0"], typer.Option(help="Of the matrices.")] = "fp16",
) -> None:
    """Write a model as one GGUF file. (transformers and vLLM open the model folder as it is.)"""
    from norma.lm import LanguageModel
    from norma.lm.gguf_export import write_gguf

    done = write_gguf(LanguageModel.load(model), target, dtype)
    for note in done.notes:
        print(f"note: {note}")
    print(f"{done.path}: {done.tensors:,} tensors, {done.bytes / 1e6:,.1f} MB. Try: llama-cli -m {done.path} -p 'Hello'")
