"""One model, one thread, many requests side by side (continuous batching; Orca, Yu et al., OSDI 2022).

    write(asks) ─→ inbox ─→ the model's thread:  read a slice of what waits ─→ one step for all rows ─→ pieces to the event loops
    do(errand)  ─→ inbox ─→                      or a piece of an errand
                                                 rows whose reader has gone leave before the next step

First come, first served; a request that finds no free row waits. Prompts are read in slices, in turn: a long one holds up neither those
who write nor the short one behind it. Errands (texts to be scored, or made into vectors) come in pieces too: prompts and errands have
every other turn. When too many wait, ``Busy`` says so at once. A step that fails fails the requests that were in it,
and the next one begins with an empty batch.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import torch

from norma.base.platform import working_dtype
from norma.generate.engine import end_ids
from norma.generate.prefill import Prefill
from norma.generate.prefixes import Prefixes
from norma.generate.running import Ask, RunningBatch, Written
from norma.generate.speech import Said, Speech
from norma.lm import LanguageModel
from norma.nn.layers import working_weights
from norma.serve.worker import Busy

log = logging.getLogger("norma.serve")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
ROWS = 16  # answers written side by side
SLICE = 256  # prompt tokens that are read between two steps while others wait for their next token
PREFIXES = 256 * 2**20  # bytes of the prompts' beginnings that are kept


@dataclass(eq=False)
class _Request:
    """Somebody who reads: ``open`` answers are not finished."""

    loop: asyncio.AbstractEventLoop
    items: asyncio.Queue[tuple[int, Said] | BaseException | None]
    open: int
    gone: bool = False
    begun: float = field(default_factory=time.monotonic)


@dataclass(eq=False)
class _Row:
    request: _Request
    index: int
    ask: Ask
    speech: Speech


@dataclass(eq=False)
class _Turn:
    """Answers to one prompt, which is being read."""

    rows: list[_Row]
    prefill: Prefill


class Errand(Protocol[T_co]):
    """Work with the model beside writing, in pieces."""

    def go_on(self, most: int) -> T_co | None:
        """A piece, of about ``most`` tokens; the result when it is finished."""


@dataclass(eq=False)
class _Errand(Generic[T]):
    make: Callable[[RunningBatch], Errand[T]]
    future: Future[T]
    work: Errand[T] | None = None


class ModelThread:
    """Owns a model: all that computes with it runs in one thread.

    Args:
        rows: answers that are written side by side.
        waiting: requests that wait or run before further ones are refused.
        dtype: to compute in (default: what this machine multiplies best).
        slice: prompt tokens that are read between two steps while others write.
        prefixes: bytes of prompts' beginnings to keep (:mod:`norma.generate.prefixes`); 0: none.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        rows: int = ROWS,
        waiting: int = 64,
        dtype: torch.dtype | None = None,
        slice: int = SLICE,
        prefixes: int = PREFIXES,
    ) -> None:
        self.model, self.rows, self._limit, self.slice = model, rows, waiting, slice
        self.prefixes = Prefixes(prefixes) if prefixes else None
        self.dtype = dtype or working_dtype()
        self.ends = end_ids(model)
        self._inbox: queue.SimpleQueue[list[_Row] | _Request | _Errand[Any] | None] = queue.SimpleQueue()
        self._requests: set[_Request | _Errand[Any]] = set()  # touched by event loops only
        self._waiting: deque[_Row] = deque()
        self._reading: deque[_Turn] = deque()
        self._writing: dict[int, _Row] = {}  # id(ask) -> row
        self._errands: deque[_Errand[Any]] = deque()
        self._prompts_turn = True
        self.busy_rows = 0
        self.lost = False
        self._seconds = 1.0  # a moving mean of what a request takes
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="norma-model", daemon=True)
        self._thread.start()

    # ── for event loops ──
    @property
    def load(self) -> int:
        """Requests waiting or running."""
        return len(self._requests)

    @property
    def full(self) -> bool:
        return self.load >= self._limit

    def patience(self) -> int:
        """Seconds after which a refused request may well find room."""
        return max(1, min(60, round(self._seconds * self.load / (2 * self.rows))))

    async def write(self, asks: Sequence[Ask]) -> AsyncGenerator[tuple[int, Said], None]:
        """(number of the ask, piece) as they come, of all asks at once. Closing it, or cancelling, gives the rows back."""
        self._room()
        request = _Request(asyncio.get_running_loop(), asyncio.Queue(), len(asks))
        tokenizer = self.model.tokenizer
        rows = [
            _Row(request, i, ask, Speech(tokenizer, self.ends, ask.sampling.max_new_tokens, ask.sampling.stop))
            for i, ask in enumerate(asks)
        ]
        self._requests.add(request)
        try:
            self._inbox.put(rows)
            while (item := await request.items.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
            self._seconds += 0.1 * (time.monotonic() - request.begun - self._seconds)
        finally:
            request.gone = True
            self._requests.discard(request)
            self._inbox.put(request)

    async def do(self, make: Callable[[RunningBatch], Errand[T]]) -> T:
        """The result of an errand, which is made in the model's thread. Cancelling ends it behind its present piece."""
        self._room()
        errand = _Errand(make, Future[T]())
        self._requests.add(errand)
        try:
            self._inbox.put(errand)
            return await asyncio.wrap_future(errand.future)
        finally:
            self._requests.discard(errand)

    def _room(self) -> None:
        """Raises Busy where no further request may wait."""
        if self._closed.is_set():
            raise Busy(60)
        if self.full:
            raise Busy(self.patience())

    def close(self, seconds: float = 10.0) -> None:
        """Stop what runs and refuse what waits."""
        self._closed.set()
        self._inbox.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(seconds)

    # ── the model's thread ──
    def _run(self) -> None:
        """Serve until closed. Whatever ends it before, nobody is left waiting."""
        try:
            self._serve()
            self._refuse(Busy(60), block=False)
        except Exception as error:
            self.lost = True
            log.critical("the model cannot be run: the server must be started again", exc_info=error)
            self._refuse(error, block=True)

    def _serve(self) -> None:
        self.model.transformer.eval()
        with working_weights(self.model.transformer, self.dtype), torch.no_grad():
            batch = RunningBatch(self.model, self.dtype, self.prefixes)
            while self._take_in(batch):
                try:
                    self._admit(batch)
                    self._read_or_run(batch)
                    if batch.busy:
                        self._hear(batch, batch.step())
                except Exception as error:
                    log.error("the batch failed", exc_info=error)
                    self._fail([*self._writing.values()], error)
                    batch = RunningBatch(self.model, self.dtype, self.prefixes)
                self.busy_rows = batch.busy

    def _refuse(self, why: Exception, *, block: bool) -> None:
        """Everybody who waits is told so; ``block``: and everybody who comes, until closed."""
        self._fail([*self._writing.values(), *(row for turn in self._reading for row in turn.rows), *self._waiting], why)
        for errand in self._errands:
            _finish(errand.future, why)
        while True:
            try:
                left = self._inbox.get(block=block)
            except queue.Empty:
                return
            if left is None and block:
                return
            if isinstance(left, list):
                self._fail(left, why)
            elif isinstance(left, _Errand):
                _finish(left.future, why)

    def _take_in(self, batch: RunningBatch) -> bool:
        """Read the inbox, waiting for news while there is nothing to do; False: it is over."""
        idle = not (batch.busy or self._reading or self._waiting or self._errands)
        while True:
            try:
                news = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if news is None:
                return False
            if isinstance(news, list):
                self._waiting.extend(row for row in news if not row.request.gone)
            elif isinstance(news, _Errand):
                self._errands.append(news)
            else:
                self._forget(batch, news)
            idle = idle and not (self._waiting or self._errands)

    def _forget(self, batch: RunningBatch, request: _Request) -> None:
        gone = [row for row in self._writing.values() if row.request is request]
        batch.leave(row.ask for row in gone)
        for row in gone:
            del self._writing[id(row.ask)]
        self._waiting = deque(row for row in self._waiting if row.request is not request)
        self._reading = deque(turn for turn in self._reading if turn.rows[0].request is not request)
        self.busy_rows = batch.busy

    def _admit(self, batch: RunningBatch) -> None:
        """Let waiting rows begin to be read; answers to one prompt read it once."""
        while self._waiting and (free := self.rows - batch.busy - sum(len(turn.rows) for turn in self._reading)) > 0:
            first = self._waiting[0]
            together: list[_Row] = []
            while (
                self._waiting
                and len(together) < free
                and self._waiting[0].request is first.request
                and self._waiting[0].ask.prompt == first.ask.prompt
            ):
                together.append(self._waiting.popleft())
            if first.request.gone:
                continue
            try:
                self._reading.append(_Turn(together, batch.reading(first.ask.prompt)))
            except Exception as error:  # what cannot be read is its own request's trouble
                self._fail(together, error)

    def _read_or_run(self, batch: RunningBatch) -> None:
        """Between two steps: prompts are read, or the first errand goes on; in turn, where there are both."""
        if self._errands and not (self._reading and self._prompts_turn):
            self._prompts_turn = True
            self._run_errand(batch)
        else:
            self._prompts_turn = False
            self._read(batch)

    def _run_errand(self, batch: RunningBatch) -> None:
        errand = self._errands.popleft()
        if errand.future.cancelled():
            return
        try:
            errand.work = errand.work or errand.make(batch)
            found = errand.work.go_on(self._share(batch))
        except Exception as error:  # its own request's trouble
            _finish(errand.future, error)
            return
        if found is None:
            self._errands.appendleft(errand)
        else:
            _finish(errand.future, found)

    def _share(self, batch: RunningBatch) -> int:
        """Tokens that may be read between two steps: while others write, only so many."""
        return self.slice if batch.busy else 4 * self.slice

    def _read(self, batch: RunningBatch) -> None:
        """A slice of each prompt in turn; those that have been read begin to write."""
        read = 0
        while self._reading and (left := self._share(batch) - read) > 0:
            turn = self._reading.popleft()
            try:
                read += turn.prefill.read(left)
                if turn.prefill.done is None:
                    self._reading.append(turn)
                    continue
                self._writing |= {id(row.ask): row for row in turn.rows}
                self._hear(batch, batch.join([row.ask for row in turn.rows], turn.prefill))
            except Exception as error:
                batch.leave(row.ask for row in turn.rows)
                self._fail(turn.rows, error)

    def _hear(self, batch: RunningBatch, written: Written) -> None:
        """Tokens to text to readers; finished rows leave."""
        told: list[tuple[_Request, tuple[int, Said] | None]] = []
        done = []
        for ask, token in written:
            row = self._writing[id(ask)]
            said = row.speech.hear(token)
            if said is None:
                continue
            told.append((row.request, (row.index, said)))
            if said.finish:
                done.append(ask)
                del self._writing[id(ask)]
                row.request.open -= 1
                if not row.request.open:
                    told.append((row.request, None))
        batch.leave(done)
        _tell(told)

    def _fail(self, rows: Iterable[_Row], error: BaseException) -> None:
        rows = list(rows)
        for row in rows:
            self._writing.pop(id(row.ask), None)
        requests = list(dict.fromkeys(row.request for row in rows))
        self._waiting = deque(row for row in self._waiting if row.request not in requests)
        self._reading = deque(turn for turn in self._reading if turn.rows[0].request not in requests)
        _tell([(request, error) for request in requests])


def _finish(future: Future[T], found: T | BaseException) -> None:
    """Hand over what has come of an errand, if anybody waits for it yet."""
    if future.set_running_or_notify_cancel():
        if isinstance(found, BaseException):
            future.set_exception(found)
        else:
            future.set_result(found)


def _tell(told: Sequence[tuple[_Request, tuple[int, Said] | BaseException | None]]) -> None:
    """One call into each event loop for a whole step."""
    for loop in {request.loop for request, _ in told}:
        with suppress(RuntimeError):  # the event loop is closed: the server went down and nobody listens
            loop.call_soon_threadsafe(_put, [(request, item) for request, item in told if request.loop is loop])


def _put(told: Sequence[tuple[_Request, tuple[int, Said] | BaseException | None]]) -> None:
    for request, item in told:
        request.items.put_nowait(item)
