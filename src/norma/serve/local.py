"""A language model as a backend: jobs become rows of the running batch, tokens become text and OpenAI's log-probabilities."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import torch

from norma.base.errors import NormaError
from norma.generate.running import Ask, Token, prompt_tokens
from norma.generate.sampling import Sampling
from norma.lm import LanguageModel
from norma.serve.answering import Job, Piece, Pieces
from norma.serve.batching import PREFIXES, ROWS, SLICE, ModelThread
from norma.serve.constraint import JsonConstraints
from norma.serve.protocol import for_model
from norma.spec import Message

T = TypeVar("T")


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
        makes = None if job.schema is None else self.constraints.maker(job.schema)
        seed = job.sampling["seed"]
        asks = [
            Ask(
                job.prompt,
                Sampling(**job.sampling | {"seed": seed + i}, stop=job.stop),
                top=job.top,
                constraint=None if makes is None else makes(),
            )
            for i in range(job.choices)
        ]
        async with aclosing(self.thread.write(asks)) as said:
            async for index, s in said:
                entries = tuple(self.entry(t) for t in s.tokens) if job.top is not None else ()
                yield index, Piece(s.text, s.finish, s.count, entries)

    async def prompt_tokens(self, ids: Sequence[int], top: int) -> list[Token | None]:
        """What the model thinks of each token of a text (:func:`norma.generate.running.prompt_tokens`)."""
        return await self.thread.call(lambda: prompt_tokens(self.model, ids, top, self.thread.dtype))

    async def embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """(vectors of length 1, tokens read)."""
        embed = embedder()
        with self._encoding:
            count = sum(len(self.model.tokenizer.encode(text)) for text in texts)

        def work() -> list[list[float]]:
            with self._encoding:
                found: list[list[float]] = embed(self.model, list(texts)).tolist()
                return found

        return await self.thread.call(work), count

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


def finite(logprob: float) -> float:
    """JSON knows no infinity; OpenAI's servers say -9999 for what cannot be."""
    return max(logprob, -9999.0)


def embedder() -> Callable[..., Any]:
    """``norma.lm.embedding.embed``. Raises NormaError where this Norma has none."""
    import importlib

    try:
        made: Callable[..., Any] = importlib.import_module("norma.lm.embedding").embed
    except ModuleNotFoundError:
        raise NormaError("this build of Norma makes no embeddings: norma.lm.embedding is missing") from None
    return made
