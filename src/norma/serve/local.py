"""A language model as a backend: jobs become rows of the running batch, tokens become text and OpenAI's log-probabilities.

jobs ─→ Asks, all of one request ─→ Pieces          texts ─→ errands (``norma.serve.batching``) ─→ log p, or vectors
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import torch

from norma.generate.running import Ask, Token
from norma.generate.sampling import Sampling
from norma.generate.scoring import Scores, Told
from norma.lm import LanguageModel
from norma.lm.embedding import token_rows, vectors
from norma.serve.answering import Job, Piece, Pieces
from norma.serve.batching import PREFIXES, ROWS, SLICE, ModelThread
from norma.serve.constraint import JsonConstraints
from norma.serve.protocol import for_model
from norma.spec import Message

EMBEDDED = 32  # texts that are made into vectors at one time, at most


class Local:
    """``norma.serve.answering.Backend`` for a model opened with ``norma.load``; arguments as :class:`ModelThread`."""

    gifts = frozenset({"logprobs", "response_format"})

    def __init__(
        self,
        model: LanguageModel,
        name: str | None = None,
        *,
        rows: int = ROWS,
        waiting: int = 64,
        dtype: torch.dtype | None = None,
        slice: int = SLICE,
        prefixes: int = PREFIXES,
    ) -> None:
        self.model, self.name = model, name or model.name
        self.positions: int | None = model.config.max_positions
        self.thread = ModelThread(model, rows=rows, waiting=waiting, dtype=dtype, slice=slice, prefixes=prefixes)
        self.constraints = JsonConstraints(model, self.thread.ends)
        # Whether <|end|> in a text is a token or text is a property of the shared tokenizer: two threads must not encode at once.
        self._encoding = threading.Lock()

    @property
    def load(self) -> int:
        return self.thread.load

    @property
    def full(self) -> bool:
        return self.thread.full

    @property
    def lost(self) -> bool:
        return self.thread.lost

    def patience(self) -> int:
        return self.thread.patience()

    def measure(self, messages: Sequence[Message]) -> tuple[int, tuple[int, ...]]:
        from norma.text.chat import prompt_ids

        with self._encoding:
            ids = prompt_ids(self.model.tokenizer, for_model(messages))
        return len(ids), tuple(ids)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a plain text that is to be continued, with what this model's texts begin with."""
        tokenizer = self.model.tokenizer
        spelled = tokenizer.special("bos_token")
        said = bool(spelled) and text.startswith(spelled)  # programs that decode what they have encoded spell it out
        begin = [] if tokenizer.bos_id is None or (tokenizer.config.get("add_bos_token") is False and not said) else [tokenizer.bos_id]
        with self._encoding:
            return tuple(begin + tokenizer.encode(text.removeprefix(spelled) if said else text))

    async def write(self, job: Job) -> Pieces:
        async with aclosing(self.write_each([job])) as pieces:
            async for place, piece in pieces:
                yield place, piece

    async def write_each(self, jobs: Sequence[Job]) -> Pieces:
        """Several jobs as one request, side by side; the choices of the first come first in the count of places."""
        asks: list[Ask] = []
        for job in jobs:
            makes = None if job.schema is None else self.constraints.maker(job.schema)
            for i in range(job.choices):
                sampling = Sampling(**job.sampling | {"seed": job.sampling["seed"] + i}, stop=job.stop)
                asks.append(Ask(job.prompt, sampling, top=job.top, constraint=None if makes is None else makes()))
        async with aclosing(self.thread.write(asks)) as said:
            async for place, s in said:
                entries = tuple(self.entry(t) for t in s.tokens) if asks[place].top is not None else ()
                yield place, Piece(s.text, s.finish, s.count, entries)

    async def score(self, texts: Sequence[Sequence[int]], top: int) -> list[Told]:
        """What the model thinks of each token of texts (:mod:`norma.generate.scoring`)."""
        return await self.thread.do(lambda batch: Scores(batch, texts, top))

    async def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """(vectors of length 1, tokens read)."""
        rows = await asyncio.to_thread(token_rows, self.model, texts)
        return await self.thread.do(lambda batch: _Vectors(self.model, rows, batch.dtype)), sum(map(len, rows))

    def text_of(self, token: int) -> str:
        return self.model.tokenizer.decode([token], skip_special=False)

    def entry(self, token: Token) -> dict[str, Any]:
        """One token as OpenAI's chat reports it; ``bytes`` is null for a piece of a character."""

        def one(id: int, logprob: float) -> dict[str, Any]:
            text = self.text_of(id)
            return {"token": text, "logprob": finite(logprob), "bytes": None if "\ufffd" in text else list(text.encode())}

        return {**one(token.id, token.logprob), "top_logprobs": [one(id, value) for id, value in token.top]}

    def close(self) -> None:
        self.thread.close()


class _Vectors:
    """Texts being made into vectors, a few between two steps, those of like length together."""

    def __init__(self, model: LanguageModel, rows: Sequence[Sequence[int]], dtype: torch.dtype) -> None:
        self.model, self.rows, self.dtype = model, rows, dtype
        self.left = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        self.found: dict[int, list[float]] = {}

    def go_on(self, most: int) -> list[list[float]] | None:
        part = self.left[: max(1, min(EMBEDDED, most // max(1, len(self.rows[self.left[0]]))))]
        self.left = self.left[len(part) :]
        self.found |= zip(part, vectors(self.model, [self.rows[i] for i in part], dtype=self.dtype).tolist(), strict=True)
        return None if self.left else [self.found[i] for i in range(len(self.rows))]


def finite(logprob: float) -> float:
    """JSON knows no infinity; OpenAI's servers say -9999 for what cannot be."""
    return max(logprob, -9999.0)
