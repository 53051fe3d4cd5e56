"""Batched generation with a key/value cache.

prompts ─→ sorted by length, cut into batches ─→ read (left-padded) ─→ one token a step for all rows ─→ finished rows leave
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from norma.base.errors import NormaError
from norma.base.platform import working_dtype
from norma.generate.sampling import Completion, Sampling, choose
from norma.lm import LanguageModel
from norma.nn import Cache
from norma.nn.layers import working_weights

BATCH = 64  # rows that are decoded side by side


@torch.no_grad()
def generate(
    model: LanguageModel, prompts: Sequence[Sequence[int]], sampling: Sampling, *, batch: int = BATCH, dtype: torch.dtype | None = None
) -> list[Completion]:
    """Complete every prompt (token ids); answers come in the order of the prompts.

    The same weights that are trained are used (converted to ``dtype`` once a call). A prompt longer than the model's
    positions is an error; an answer that would run past them ends with ``length``.
    """
    limit = model.config.max_positions
    for i, prompt in enumerate(prompts):
        if not prompt:
            raise NormaError(f"prompt {i} is empty")
        if len(prompt) >= limit:
            raise NormaError(f"prompt {i} has {len(prompt)} tokens; this model reads at most {limit - 1}", mend="Shorten it")
    dtype = dtype or working_dtype()
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    generator = torch.Generator().manual_seed(sampling.seed)
    results: list[Completion | None] = [None] * len(prompts)
    model.transformer.eval()
    with working_weights(model.transformer, dtype):
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            for row, ids in zip(rows, _decode(model, [prompts[r] for r in rows], sampling, generator, dtype), strict=True):
                results[row] = finish(model, ids, sampling)
    return [r for r in results if r is not None]


def finish(model: LanguageModel, ids: list[int], sampling: Sampling) -> Completion:
    """Token ids to a completion: end token and stop strings cut from the text."""
    ended = bool(ids) and ids[-1] == model.tokenizer.eos_id
    text = model.tokenizer.decode(ids[:-1] if ended else ids)
    cut = min((text.find(s) for s in sampling.stop if s in text), default=-1)
    if cut >= 0:
        text, ended = text[:cut], True
    return Completion(tuple(ids), text, "stop" if ended else "length")


def _prefill(model: LanguageModel, prompts: Sequence[Sequence[int]], new: int, dtype: torch.dtype) -> tuple[Cache, Tensor, Tensor]:
    """Read left-padded prompts; returns the cache, the last hidden state (B, W) and each row's next position (B,).

    Equal prompts (the answers of one group) are read once, then their cache rows are copied.
    """
    distinct = list(dict.fromkeys(map(tuple, prompts)))
    longest = max(map(len, distinct))
    ids = torch.full((len(distinct), longest), model.tokenizer.pad_id)
    real = torch.zeros(len(distinct), longest, dtype=torch.bool)
    for row, prompt in enumerate(distinct):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        real[row, longest - len(prompt) :] = True
    cache = Cache(model.config, len(distinct), longest + new, dtype, ids.device)
    cache.visible[:, :longest] = real
    positions = (real.long().cumsum(1) - 1).clamp(min=0)
    last = model.transformer.hidden(ids, positions_BT=positions, cache=cache, dtype=dtype)[:, -1]
    after = positions[:, -1] + 1
    if len(distinct) < len(prompts):
        place = {prompt: row for row, prompt in enumerate(distinct)}
        rows = torch.tensor([place[tuple(p)] for p in prompts])
        cache.keep(rows)
        last, after = last[rows], after[rows]
    return cache, last, after


def _decode(
    model: LanguageModel, prompts: Sequence[Sequence[int]], sampling: Sampling, generator: torch.Generator, dtype: torch.dtype
) -> list[list[int]]:
    # Each row has its own end: a short prompt must not be cut because a long one is decoded beside it.
    most = [min(sampling.max_new_tokens, model.config.max_positions - len(p)) for p in prompts]
    new = max(most)
    cache, last, positions = _prefill(model, prompts, new, dtype)
    weight = model.transformer.head_weight().detach().to(dtype)
    answers: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))  # the prompt that each row of the batch belongs to
    done = [False] * len(prompts)
    for step in range(new):
        token = choose(model.transformer.scores(model.transformer.features(last), weight), sampling, generator)
        for row, t in zip(alive, token.tolist(), strict=True):
            if not done[row]:
                answers[row].append(t)
                done[row] = t == model.tokenizer.eos_id or len(answers[row]) == most[row] or _stopped(model, answers[row], sampling)
        going = [i for i, row in enumerate(alive) if not done[row]]
        if step == new - 1 or not going:
            break
        # Finished rows leave once a quarter of the batch is done: moving the cache costs more than a few idle rows.
        if len(going) <= 0.75 * len(alive):
            kept = torch.tensor(going)
            cache.keep(kept)
            alive, token, positions = [alive[i] for i in going], token[kept], positions[kept]
        cache.visible[:, cache.length] = True
        last = model.transformer.hidden(token[:, None], positions_BT=positions[:, None], cache=cache, dtype=dtype)[:, -1]
        positions = positions + 1
    return answers


def _stopped(model: LanguageModel, ids: list[int], sampling: Sampling) -> bool:
    return bool(sampling.stop) and any(s in model.tokenizer.decode(ids) for s in sampling.stop)


class LocalEngine:
    """Writes with the model itself, in this process."""

    def complete(self, model: LanguageModel, prompts: list[list[int]], **sampling: Any) -> list[str]:
        return [c.text for c in generate(model, prompts, Sampling(**sampling))]

    def stream(self, model: LanguageModel, prompt: list[int], **sampling: Any) -> Iterator[str]:
        """Pieces of one answer as they come; text that could still change (half a character, a stop string) is held back."""
        yield from stream(model, prompt, Sampling(**sampling))


@torch.no_grad()
def stream(model: LanguageModel, prompt: Sequence[int], sampling: Sampling) -> Iterator[str]:
    """Yield one completion piece by piece."""
    dtype = working_dtype()
    generator = torch.Generator().manual_seed(sampling.seed)
    if not prompt:
        raise NormaError("the prompt is empty")
    if len(prompt) >= model.config.max_positions:
        raise NormaError(
            f"the prompt has {len(prompt)} tokens; this model reads at most {model.config.max_positions - 1}", mend="Shorten it"
        )
    new = min(sampling.max_new_tokens, model.config.max_positions - len(prompt))
    held = max((len(s) for s in sampling.stop), default=1) - 1
    ids: list[int] = []
    sent = 0
    with working_weights(model.transformer, dtype):
        cache, last, positions = _prefill(model, [prompt], new, dtype)
        weight = model.transformer.head_weight().detach().to(dtype)
        for _ in range(new):
            token = choose(model.transformer.scores(model.transformer.features(last), weight), sampling, generator)
            ids.append(int(token))
            so_far = finish(model, ids, sampling)
            if so_far.finish_reason == "stop":
                break
            ready = so_far.text.rstrip("\ufffd")
            if len(ready) - held > sent:
                yield ready[sent : len(ready) - held]
                sent = len(ready) - held
            cache.visible[:, cache.length] = True
            last = model.transformer.hidden(token[:, None], positions_BT=positions[:, None], cache=cache, dtype=dtype)[:, -1]
            positions = positions + 1
        rest = finish(model, ids, sampling).text[sent:]
        if rest:
            yield rest
