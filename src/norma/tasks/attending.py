"""What a task model looked at in a text: attention of every layer and head, and which tokens its answer hangs on; for the error page.

    row ─→ the ids that the model read ─→ attention (L, H, T, T) in bytes ─┐
                                     └─→ input x gradient (T,)             ─┴─→ a few kB for each text, up to a bound for all of them

Attention is what was read, not why an answer was given (Jain and Wallace, 1902.10186); input x gradient is the first-order share of each
token in the score of what the model said (Shrikumar et al., 1605.01713). Letters: L layers, H heads, T tokens.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from norma.nn import Mask, Watch
from norma.tasks import encode, spans
from norma.tasks.model import TaskModel
from norma.train.reading import Reading

MOST_BYTES = 4_000_000  # of all attention on a page
LONGEST = 128  # tokens; longer texts are not looked into: nobody reads such a picture


def looked(task: TaskModel, rows: Sequence[Mapping[str, Any]], most_bytes: int = MOST_BYTES) -> list[dict[str, Any] | None]:
    """For each of the rows (predictions with their input) what :func:`look` gives; None for long texts, behind the bound, and for
    models that write texts or have two stacks."""
    out: list[dict[str, Any] | None] = [None] * len(rows)
    if task.shape == "texts" or task.model.config.kind == "encoder-decoder":
        return out
    config, left = task.model.config, most_bytes
    for number, row in enumerate(rows):
        read = _reading(task, row)
        size = config.layers * config.attention_heads * len(read.ids) ** 2
        if len(read.ids) > LONGEST or size > left:
            continue
        left -= size
        out[number] = look(task, read)
    return out


def look(task: TaskModel, read: Reading) -> dict[str, Any]:
    """{tokens, layers, heads, weights: base64 of (L, H, T, T) uint8, in 255ths, saliency: (T,) from -1 to 1, first: where to start}."""
    model = task.model
    network, tokenizer = model.transformer.eval(), model.tokenizer
    ids = torch.tensor([list(read.ids)], device=network.device)
    positions = torch.arange(ids.shape[1], device=network.device)[None]
    two = torch.tensor([list(read.segments)], device=network.device) if network.config.segments > 1 and any(read.segments) else None
    watch = Watch()
    with torch.enable_grad():
        embedded = (network.embedding(ids) * network.config.embedding_scale).detach().requires_grad_(True)
        hidden = network.stack(embedded, Mask(), positions, segments_BT=two, watch=watch)
        scores = network.classify(hidden)[0]
        # What the model said: its label, its label of each token, or its start and its end.
        said = scores.amax(dim=0 if task.shape == "questions" else -1).sum()
        (gradient,) = torch.autograd.grad(said, embedded)
    share = (gradient * embedded).sum(dim=-1)[0].detach().double()
    share = share / share.abs().max().clamp_min(1e-12)
    weights = torch.stack([watch.weights[key][0] for key in sorted(watch.weights, key=lambda key: key[1])])
    packed = (weights * 255).round().to(torch.uint8).cpu().numpy()
    return {
        "tokens": [tokenizer.decode([i], skip_special=False) for i in read.ids],
        "layers": packed.shape[0],
        "heads": packed.shape[1],
        "weights": base64.b64encode(np.ascontiguousarray(packed).tobytes()).decode(),
        "saliency": [round(float(x), 3) for x in share],
        "first": len(read.ids) - 1 if network.config.kind == "decoder" else 0,
    }


def _reading(task: TaskModel, row: Mapping[str, Any]) -> Reading:
    """What the model read of a row: of a question the window that its answer is in."""
    if task.shape == "labels":
        return encode.readings(task.model, [row["text"]], [row["pair"]] if "pair" in row else None, task.length)[0]
    if task.shape == "tokens":
        return encode.token_readings(task.model, [row["tokens"]], task.length)[0].reading
    made = spans.windows(task.model, [row], length=task.length, stride=int(task.told.get("stride") or 128))
    start = row.get("start", -1)
    return next((w for w in made if w.offsets and w.offsets[0][0] <= start < w.offsets[-1][1]), made[0]).reading
