"""Batched generation with a key/value cache.

prompts ─→ equal ones together ─→ rows of a batch (Slots) ─→ one token a step for all rows ─→ a finished row takes the next prompt

What a row writes depends on its prompt, the seed and its number alone; what stands beside it changes it by rounding at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import torch

from norma.base.platform import working_dtype
from norma.base.ranks import ALONE, Ranks
from norma.generate.reading import Reader, check_prompts
from norma.generate.sampling import Completion, Sampling
from norma.generate.slots import Drawn, Slots
from norma.lm import LanguageModel
from norma.nn.layers import working_weights

BATCH = 64  # rows that are decoded side by side
REFILL = 1 / 8  # of the rows are free before prompts are read again: reading a few at a time costs more than a few idle rows
THIN = 1 / 4  # of the rows are free, and no prompt waits, before they are given up: moving the cache costs time too


@runtime_checkable
class Rollouts(Protocol):
    """What answers prompts for a trainer: this process (:class:`LocalEngine`), or a server (``norma.generate.remote``)."""

    def generate(
        self, model: LanguageModel, prompts: Sequence[Sequence[int]], sampling: Sampling, *, rows: Sequence[int] | None = None
    ) -> list[Completion]:
        """As :func:`generate`."""

    def publish(self, model: LanguageModel, version: str, ranks: Ranks = ALONE) -> None:
        """The weights have changed; from now on answers are theirs. ``version`` names them (a step's number), for the journal.

        All ranks call it; the first one sends the weights.
        """


def writer(model: LanguageModel) -> Rollouts:
    """Who answers for this model: its own engine, or where it has none, this process."""
    return model.engine if isinstance(model.engine, Rollouts) else LocalEngine()


@torch.no_grad()
def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    batch: int = BATCH,
    dtype: torch.dtype | None = None,
    rows: Sequence[int] | None = None,
) -> list[Completion]:
    """Complete every prompt (token ids); answers come in the order of the prompts.

    The same weights that are trained are used (converted to ``dtype`` once a call). A prompt longer than the model's
    positions is an error; an answer that would run past them ends with ``length``. An encoder-decoder reads the prompt
    with its encoder.

    Args:
        batch: rows that write side by side; more prompts wait until a row is free.
        rows: a number for each prompt, by which its random numbers are found (default: its place in ``prompts``). Ranks that share
            prompts give each its number in the whole.
    """
    check_prompts(model, prompts)
    if not prompts:
        return []
    writing = _Writing(model, prompts, sampling)
    waiting = deque(sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), tuple(prompts[i]))))  # equal prompts side by side
    dtype = dtype or working_dtype()
    model.transformer.eval()
    with working_weights(model.transformer, dtype):
        slots = Slots(Reader(model, dtype, prompts), sampling, prompts, range(len(prompts)) if rows is None else rows, batch)
        writing.room = [slots.reader.room(p) for p in prompts]
        while waiting or slots.busy:
            idle = slots.idle
            if waiting and len(idle) >= max(1, REFILL * len(slots.serving)):
                taken = [waiting.popleft() for _ in idle[: len(waiting)]]
                drawn = slots.admit(idle[: len(taken)], taken)
            else:
                if not waiting and len(idle) >= max(1, THIN * len(slots.serving)):
                    slots.thin()
                drawn = slots.step()
            done = writing.note(slots.serving, drawn)
            if done:
                slots.free(done)
    return [
        replace(finish(model, ids, sampling), logprobs=tuple(log_p)) for ids, log_p in zip(writing.answers, writing.logprobs, strict=True)
    ]


class _Writing:
    """The answers so far, and when each is finished."""

    def __init__(self, model: LanguageModel, prompts: Sequence[Sequence[int]], sampling: Sampling) -> None:
        self.model, self.sampling, self.ends = model, sampling, end_ids(model)
        self.answers: list[list[int]] = [[] for _ in prompts]
        self.logprobs: list[list[float]] = [[] for _ in prompts]
        self.room = [0] * len(prompts)

    def note(self, serving: Sequence[int], drawn: Drawn) -> list[int]:
        """Write down what was drawn; the rows whose answers are finished."""
        done = []
        for row, token, logprob in zip(*drawn, strict=True):
            prompt = serving[row]
            ids = self.answers[prompt]
            ids.append(token)
            self.logprobs[prompt].append(logprob)
            if token in self.ends or len(ids) == min(self.sampling.max_new_tokens, self.room[prompt]) or self._stopped(ids):
                done.append(row)
        return done

    def _stopped(self, ids: list[int]) -> bool:
        """Whether a stop string has just been completed. A token is a byte or more, so the last few tell."""
        stop = self.sampling.stop
        if not stop:
            return False
        few = max(len(s.encode()) for s in stop) + 8
        tail = self.model.tokenizer.decode(ids[-few:])
        return any(s in tail for s in stop)


def end_ids(model: LanguageModel) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's, and where config.json names several, all of those."""
    said = model.kept.get("eos_token_id")
    named = set(said) if isinstance(said, list) else set()
    if model.has_tokenizer:
        return frozenset(named | ({model.tokenizer.eos_id} - {None}))  # type: ignore[operator]
    return frozenset(named if isinstance(said, list) else {said} - {None})


def finish(model: LanguageModel, ids: Sequence[int], sampling: Sampling) -> Completion:
    """Token ids to a completion: end token and stop strings cut from the text. A model without a tokenizer writes no text."""
    ended = bool(ids) and ids[-1] in end_ids(model)
    text = model.tokenizer.decode(ids[:-1] if ended else ids) if model.has_tokenizer else ""
    cut = min((text.find(s) for s in sampling.stop if s in text), default=-1)
    if cut >= 0:
        text, ended = text[:cut], True
    return Completion(tuple(ids), text, "stop" if ended else "length")


class LocalEngine:
    """Writes with the model itself, in this process: its weights need no publishing."""

    def generate(
        self, model: LanguageModel, prompts: Sequence[Sequence[int]], sampling: Sampling, *, rows: Sequence[int] | None = None
    ) -> list[Completion]:
        return generate(model, prompts, sampling, rows=rows)

    def publish(self, model: LanguageModel, version: str, ranks: Ranks = ALONE) -> None:
        pass

    def complete(self, model: LanguageModel, prompts: list[list[int]], **sampling: Any) -> list[str]:
        return [c.text for c in generate(model, prompts, Sampling(**sampling))]

    def stream(self, model: LanguageModel, prompt: list[int], **sampling: Any) -> Iterator[str]:
        """Pieces of one answer as they come; text that could still change (half a character, a stop string) is held back."""
        yield from stream(model, prompt, Sampling(**sampling))


@torch.no_grad()
def stream(model: LanguageModel, prompt: Sequence[int], sampling: Sampling) -> Iterator[str]:
    """Yield one completion piece by piece; together they are what :func:`generate` writes."""
    dtype = working_dtype()
    check_prompts(model, [prompt])
    reader = Reader(model, dtype)
    new = min(sampling.max_new_tokens, reader.room(prompt))
    held = max((len(s) for s in sampling.stop), default=1) - 1
    ids: list[int] = []
    sent = 0
    model.transformer.eval()
    with working_weights(model.transformer, dtype):
        slots = Slots(reader, sampling, [prompt], [0], 1)
        for n in range(new):
            _, tokens, _ = slots.step() if n else slots.admit([0], [0])
            ids += tokens
            so_far = finish(model, ids, sampling)
            if so_far.finish_reason == "stop":
                break
            ready = so_far.text.rstrip("\ufffd")
            if len(ready) - held > sent:
                yield ready[sent : len(ready) - held]
                sent = len(ready) - held
        rest = finish(model, ids, sampling).text[sent:]
        if rest:
            yield rest
