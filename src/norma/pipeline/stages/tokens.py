"""Tokens stage: text rows into token shards on all cores (``norma.text.tokenise`` does the work).

text.train.jsonl + tokenizer ─→ train/ tokens, flags, offsets, manifest        the same for validation
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from norma.base.errors import NormaError
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions


class TokensOptions(StageOptions):
    """Options of a ``tokens`` stage."""

    text: InputRef = Field("clean", description="A stage that holds text.train.jsonl and text.validation.jsonl.")
    tokenizer: InputRef = Field("tokenizer", description="The tokenizer stage.")
    marks: bool = Field(True, description="Mark where words (Chinese ones: pip install 'norma-lm[zh]'), sentences and paragraphs begin.")


class Tokens(Stage[TokensOptions]):
    """What is finished is not made again after a kill; one side is made from the start."""

    kind, version, Options = "tokens", 1, TokensOptions

    def run(self, ctx: Context[TokensOptions]) -> dict[str, Any]:
        from norma.text.sampling import read_texts
        from norma.text.shards import MANIFEST, Shards
        from norma.text.tokenise import tokenise
        from norma.text.tokenizer import Tokenizer

        tokenizer = Tokenizer.load(ctx.path(ctx.options.tokenizer))
        made: dict[str, Any] = {}
        for side in ("train", "validation"):
            source: Path = ctx.path(ctx.options.text) / f"text.{side}.jsonl"
            if not source.is_file():
                mend = "Point 'text:' to a clean or corpus stage"
                raise NormaError(f"'{ctx.options.text}' holds no {source.name}", where=source, mend=mend)
            folder = ctx.folder / side
            if not (folder / MANIFEST).exists():
                encoded = None
                if ctx.engine == "ray":
                    from norma.text.cluster import encode_on_cluster

                    encoded = encode_on_cluster(source, tokenizer, ctx.options.marks)
                how: dict[str, Any] = {"marks": ctx.options.marks, "progress": ctx.progress, "encoded": encoded}
                tokenise(read_texts([source]), tokenizer, folder, **how)
            shards = Shards(folder)
            made[side] = {"documents": shards.documents, "tokens": shards.tokens, "bytes": shards.bytes}
            ctx.progress.say(f"{side}: {shards.tokens:,} tokens, {shards.bytes / max(1, shards.tokens):.2f} bytes a token")
        return made
