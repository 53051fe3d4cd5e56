"""Tokenizer stage: byte-level BPE trained on the text of a corpus, or its characters; chat tokens included; saved as ``tokenizer.json``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from norma.base.errors import NormaError
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions


class TokenizerOptions(StageOptions):
    """Options of a ``tokenizer`` stage."""

    corpus: InputRef = Field("corpus", description="The corpus stage whose training rows the merges are learnt from.")
    objectives: list[Literal["masked", "pairs", "infilling", "spans", "norms"]] = Field(
        default_factory=list, description="Objectives of pretraining that need special tokens: masked, pairs, infilling, spans, norms."
    )
    vocab_size: int = Field(4096, ge=262, le=1_000_000, description="Number of tokens, the 256 bytes and the chat tokens included.")
    unit: Literal["characters"] | None = Field(
        None, description="characters: a token for each character that occurs, and vocab_size says nothing; null: byte-level BPE."
    )


class Tokenizer(Stage[TokenizerOptions]):
    """Learns the merges from training rows only (text, and questions where there are some): validation text is never seen.

    Of a large corpus it reads what memory allows, spread evenly over it (``norma.text.sampling``).
    """

    kind, version, Options = "tokenizer", 2, TokenizerOptions

    def run(self, ctx: Context[TokenizerOptions]) -> dict[str, Any]:
        from norma.text.sampling import read_texts, sample_texts
        from norma.text.tokenizer import character_tokenizer, train_tokenizer

        corpus = ctx.path(ctx.options.corpus)
        text, questions = corpus / "text.train.jsonl", corpus / "qa.train.jsonl"
        if not text.is_file():
            mend = "Point 'corpus:' to a corpus stage"
            raise NormaError(f"'{ctx.options.corpus}' holds no training text (text.train.jsonl)", where=text, mend=mend)
        files = [text, *([questions] if questions.is_file() else [])]
        if ctx.options.unit == "characters":
            tokenizer = character_tokenizer(read_texts(files), ctx.options.objectives)
            ctx.progress.say(f"{len(tokenizer):,} tokens: characters and {len(tokenizer.special_ids)} special ones")
        else:
            ctx.progress.say(f"Learning a vocabulary of {ctx.options.vocab_size:,} tokens ...")
            tokenizer = train_tokenizer(sample_texts(files), ctx.options.vocab_size, ctx.options.objectives)
        tokenizer.save(ctx.folder)
        return {"vocab_size": len(tokenizer)}
