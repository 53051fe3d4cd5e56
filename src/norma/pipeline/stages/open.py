"""Open stage: a model from outside the run, a Hugging Face folder or a GGUF file, checked whole and written as the run's own.

path ─→ config, weights, tokenizer ─→ model folder, which `from:` of other stages can name
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from norma.base.errors import NormaError
from norma.base.hashing import file_digest
from norma.pipeline.stage import Context, Stage, StageOptions

READ = (".json", ".safetensors", ".txt", ".jinja")  # files of a model folder that something is read from


class OpenOptions(StageOptions):
    """Options of an ``open`` stage."""

    path: str | None = Field(None, description="A model folder or a .gguf file; a relative path starts from the recipe's folder.")
    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        None, description="Type of the weights on disk; null: as they are, float32 where they are quantised."
    )
    stand_in: bool = Field(False, description="Make a tiny model with random weights instead: a recipe can be tried without the file.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.path is None) != self.stand_in:
            raise ValueError("an open stage needs a path, or stand_in: true instead of one")
        return self


class Open(Stage[OpenOptions]):
    """Goes stale when a file that it reads changes."""

    kind, version, Options = "open", 1, OpenOptions

    def fingerprint(self, options: OpenOptions, base: Path) -> Any:
        if options.path is None:
            return {}
        path = (base / Path(options.path).expanduser()).resolve()
        if path.is_dir():
            return {p.name: file_digest(p) for p in sorted(path.iterdir()) if p.suffix in READ and p.is_file()}
        return {path.name: file_digest(path)} if path.is_file() else {}

    def run(self, ctx: Context[OpenOptions]) -> dict[str, Any]:
        import torch

        from norma.lm.importing import check, read_source, write

        options = ctx.options
        if options.path is None:
            return _stand_in(ctx)
        path = ctx.outside(options.path)
        if not path.exists():
            mend = f"Give a model folder or a .gguf file: {ctx.name}.path=FILE"
            raise NormaError("there is no model to open", where=path, mend=mend)
        dtype = None if options.dtype is None else getattr(torch, options.dtype)
        found = read_source(path, dtype)
        config, state = check(found, path)
        imported = write(found, config, state, path, ctx.folder, dtype)
        words = "no tokenizer" if imported.tokenizer is None else f"{len(imported.tokenizer):,} tokens"
        ctx.progress.say(f"{path.name}: {config.family}, {config.parameters():,} parameters ({', '.join(imported.dtypes)}), {words}")
        return {"model": True, "family": config.family, "parameters": config.parameters()}


def _stand_in(ctx: Context[OpenOptions]) -> dict[str, Any]:
    """Two narrow layers over bytes: everything runs, nothing is known."""
    import torch

    from norma.lm import LanguageModel
    from norma.nn import Transformer, preset
    from norma.text.tokenizer import train_tokenizer

    tokenizer = train_tokenizer([], 262)
    config = preset("llama", vocab_size=len(tokenizer), width=64, layers=2, max_positions=2048)
    network = Transformer(config).initialise(torch.Generator().manual_seed(ctx.seed))
    model = LanguageModel(network, tokenizer, lineage={"stage": ctx.name, "stand_in": True})
    model.save(ctx.folder)
    ctx.progress.say("no model was opened: a tiny one with random weights stands in its place")
    return {"model": True, "family": config.family, "parameters": config.parameters()}
