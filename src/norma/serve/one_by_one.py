"""An author that writes one answer at a time (``norma.serve.author``), as a backend: tests, and programs with a model of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import aclosing

from norma.serve.answering import Job, Piece, Pieces, until_stop
from norma.serve.author import Author
from norma.serve.worker import Worker
from norma.spec import Message


class OneByOne:
    """``norma.serve.answering.Backend`` around an author; at most ``waiting`` requests wait or run."""

    gifts: frozenset[str] = frozenset()
    lost = False

    def __init__(self, author: Author, waiting: int = 64) -> None:
        self.author, self._limit = author, waiting
        self.worker = Worker(waiting)

    @property
    def name(self) -> str:
        return self.author.name

    @property
    def positions(self) -> int | None:
        return self.author.positions

    @property
    def load(self) -> int:
        return self.worker.load

    @property
    def full(self) -> bool:
        return self.load >= self._limit

    def patience(self) -> int:
        return 1

    def measure(self, messages: Sequence[Message]) -> tuple[int, tuple[int, ...]]:
        return self.author.prompt_tokens(messages), ()

    async def write(self, job: Job) -> Pieces:
        async with aclosing(self.worker.run(lambda: self._pieces(job))) as pieces:
            async for item in pieces:
                yield item

    def _pieces(self, job: Job) -> Iterator[tuple[int, Piece]]:
        """Every choice in turn."""
        for index in range(job.choices):
            text, stopped = "", False
            sampling = job.sampling | {"seed": job.sampling["seed"] + index}
            for piece, cut in until_stop(self.author.stream(job.messages, **sampling), job.stop):
                text, stopped = text + piece, cut
                if piece:
                    yield index, Piece(piece)
            tokens = self.author.tokens(text)
            yield index, Piece("", "length" if tokens >= job.limit and not stopped else "stop", tokens)

    def close(self) -> None:
        self.worker.close()
