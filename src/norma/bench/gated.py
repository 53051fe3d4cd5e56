"""A trainer of another library, stopped between two steps.

It runs in a thread of its own; the callback at the end of each step waits until the next one is asked for. What a step takes thus holds
all that the trainer does: the data loader, generation, rewards, forward, backward, clipping, optimiser.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from queue import Queue
from typing import Any

FOREVER = 1_000_000  # steps


def gated(make: Callable[[Any], Any], threads: int) -> Callable[[], None]:
    """What makes one step of the trainer that ``make`` builds, which gets the callback to give it. ``threads`` 0: as torch chooses."""
    import torch

    library = importlib.import_module("transformers")
    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    ended: Queue[BaseException | None] = Queue()
    asked = threading.Semaphore(0)

    class Gate(library.TrainerCallback):  # type: ignore[name-defined, misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ended.put(None)
            asked.acquire()

    trainer = make(Gate())

    def work() -> None:
        if threads:
            torch.set_num_threads(threads)
        asked.acquire()
        try:
            trainer.train()
        except BaseException as error:  # the parent's thread tells it
            ended.put(error)

    threading.Thread(target=work, daemon=True).start()

    def step() -> None:
        asked.release()
        error = ended.get()
        if error is not None:
            raise error

    return step
