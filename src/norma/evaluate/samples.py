"""What a model says now: a line that people read beside the loss while it trains.

decoder: the beginning of a held-out text ─→ its continuation        encoder: a held-out text, some tokens hidden ─→ [guess|what it was]
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from norma.base.files import read_jsonl
from norma.base.random import keyed
from norma.generate import Sampling, generate
from norma.lm import LanguageModel
from norma.nn import Mask

READ, WRITTEN = 16, 40  # tokens
HIDDEN = 0.15


def show_progress(model: LanguageModel, texts: Path, step: int) -> str:
    """A sample at ``step``: from one of the first hundred texts, another one each time; empty for a model of two stacks."""
    rows = read_jsonl(texts)[:100]
    text = rows[int(keyed(0, step, use="sample").integers(len(rows)))]["text"]
    tokenizer = model.tokenizer
    head = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    ids = tokenizer.encode(text[:1000])
    if model.config.kind == "decoder":
        begun = ids[:READ]
        written = generate(model, [head + begun], Sampling(WRITTEN))[0].ids
        return f"{tokenizer.decode(begun)} → {tokenizer.decode(written)}"
    return _guessed(model, head, ids[: READ + WRITTEN], step) if model.config.kind == "encoder" else ""


def _guessed(model: LanguageModel, head: list[int], ids: list[int], step: int) -> str:
    tokenizer = model.tokenizer
    mask = tokenizer.objective_tokens("masked")[0]
    hidden = keyed(0, step, use="hidden").random(len(ids)) < HIDDEN
    read = torch.tensor([head + np.where(hidden, mask, np.array(ids)).tolist()], device=model.transformer.device)
    guesses = model.transformer(read, Mask(causal=False)).argmax(-1)[0, len(head) :].tolist()

    def shown(token: int, guess: int, here: bool) -> str:
        return f"[{tokenizer.decode([guess])}|{tokenizer.decode([token])}]" if here else tokenizer.decode([token])

    return "".join(map(shown, ids, guesses, hidden.tolist()))
