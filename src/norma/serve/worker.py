"""One model, one thread, one request at a time.

    request ─→ Worker.run(work) ─→ queue ─→ the model's thread steps through `work()` ─→ items back to the event loop
                                              └─ stops between two items as soon as the reader is gone

First come, first served. A reader that goes away (closed connection, cancelled task) stops the generation at the next piece;
work that nobody waits for any more is not begun. When too many wait, ``Busy`` says so at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import TypeVar, cast

T = TypeVar("T")


class Busy(Exception):
    """Too many requests are waiting; ``seconds`` until it may be worth another try."""

    def __init__(self, seconds: int = 1) -> None:
        super().__init__("too many requests are waiting")
        self.seconds = seconds


class Worker:
    """Runs blocking iterators one after the other in a thread of its own."""

    def __init__(self, waiting: int = 64) -> None:
        self._limit = waiting
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="norma-model")
        self._stops: set[threading.Event] = set()

    @property
    def load(self) -> int:
        """Requests waiting or running."""
        return len(self._stops)

    async def run(self, work: Callable[[], Iterator[T]]) -> AsyncGenerator[T, None]:
        """The items of ``work()``, an iterator that is made and stepped through in the model's thread."""
        if self.load >= self._limit:
            raise Busy
        loop, items, stop = asyncio.get_running_loop(), asyncio.Queue[tuple[T] | None](), threading.Event()

        def tell(item: tuple[T] | None) -> None:
            with suppress(RuntimeError):  # the event loop is closed: the server went down and nobody listens
                loop.call_soon_threadsafe(items.put_nowait, item)

        def step() -> None:
            try:
                if stop.is_set():
                    return
                # A generator that is left early must be closed here, in its own thread: it holds the model's state.
                with closing(cast(Generator[T, None, None], _generator(work))) as pieces:
                    for piece in pieces:
                        tell((piece,))
                        if stop.is_set():
                            return
            finally:
                tell(None)

        self._stops.add(stop)
        future = loop.run_in_executor(self._pool, step)
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # read: a reader that left asks no more
        try:
            while (item := await items.get()) is not None:
                yield item[0]
            await future
        finally:
            stop.set()
            self._stops.discard(stop)

    def close(self) -> None:
        """Stop what runs and refuse what waits."""
        for stop in list(self._stops):
            stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)


def _generator(work: Callable[[], Iterator[T]]) -> Generator[T, None, None]:
    yield from work()
