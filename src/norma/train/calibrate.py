"""What this machine does with a model, from a few steps on random tokens: its speed, and the memory a row takes.

    config ─→ a model, random rows ─→ forward, backward ─→ operations a second ─→ planned time, the size that a budget allows
                                   └→ what autograd keeps of a row ─→ rows that are in memory at one time (micro-batch)
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
import torch

from norma.base.errors import NormaError
from norma.base.platform import memory, working_device
from norma.nn import ModelConfig, Transformer
from norma.text.packing import IGNORE
from norma.train.dial import Dialled, Make, dial, dial_budget, parse_size, parse_time
from norma.train.examples import Examples, examples_flops, examples_loss
from norma.train.peak import finished, matmul_peak

ROWS = 16  # more at one time are no faster on a CPU, and take more memory; a GPU takes what it has room for
OPTIMISER = 7 / 6  # a step's time over that of its forward and backward passes
WORKING = 1.5  # peak over what autograd keeps: gradients of the block at hand, working copies
SHARE = 0.5  # of free memory that a micro-batch may take


def examples_of(config: ModelConfig, rows: int, length: int) -> Examples:
    """Random tokens in the shape of a pretraining step; of two stacks, source and target of ``length`` tokens each."""
    random = np.random.default_rng(0)
    ids = random.integers(0, config.vocab_size, (rows, length))
    ones, places = np.ones_like(ids), np.broadcast_to(np.arange(length), ids.shape).copy()
    targets, two = np.roll(ids, -1, axis=1), config.kind == "encoder-decoder"
    targets[:, -1] = IGNORE
    return Examples(
        ids,
        targets,
        ones,
        places,
        causal=config.kind != "encoder",
        source=ids if two else None,
        source_documents=ones if two else None,
    )


def flop_rate(config: ModelConfig, length: int, rows: int, dtype: torch.dtype) -> float:
    """Floating-point operations a second of whole training steps: the best of three, for what else runs only ever adds time."""
    device = working_device()
    model = Transformer(config).initialise(torch.Generator().manual_seed(0)).to(device).train()
    examples, seconds = examples_of(config, rows, length), []
    for _ in range(4):
        began = time.perf_counter()
        examples_loss(model, examples, dtype).minimised.backward()  # type: ignore[no-untyped-call]
        finished(device)
        seconds.append(time.perf_counter() - began)
    return examples_flops(config, examples) / (min(seconds[1:]) * OPTIMISER)


def row_bytes(config: ModelConfig, length: int, dtype: torch.dtype) -> int:
    """Bytes that autograd keeps for one row between forward and backward: those of two rows less those of one."""
    model = Transformer(config).to(working_device()).train()
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def kept(rows: int) -> int:
        seen: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = examples_loss(model, examples_of(config, rows, length), dtype).minimised
        del loss
        return sum(seen.values())

    return kept(2) - kept(1)


def micro_batch(config: ModelConfig, length: int, batch: int, dtype: torch.dtype, room: int | None = None) -> int:
    """Rows that are in memory at one time: up to ``ROWS`` on a CPU, halved until they fit into half of what is free (``room`` bytes)."""
    device = working_device()
    rows, free = min(ROWS, batch) if device == "cpu" else batch, free_memory(device) if room is None else room
    if free is None or rows == 1:
        return rows
    each = row_bytes(config, length, dtype) * WORKING
    while rows > 1 and rows * each > SHARE * free:
        rows = -(-rows // 2)
    return rows


def turn(
    make: Make,
    *,
    size: str | None,
    budget: str | None,
    sequence: int,
    corpus_tokens: int | None,
    dtype: torch.dtype,
) -> tuple[Dialled, float]:
    """(what the dial sets, seconds of that training on this machine).

    A budget is turned into arithmetic by the speed of a model of about the size it will allow, measured: a first guess at the speed
    gives a size, whose speed gives another.
    """
    if (size is None) == (budget is None):
        raise NormaError("the dial has one setting", mend="Give one of size and budget")

    def rate_of(dialled: Dialled) -> float:
        config = make(dialled.width, dialled.layers, dialled.head_size)
        return flop_rate(config, sequence, min(ROWS, dialled.batch), dtype)

    if size is not None:
        found = dial(make, parse_size(size), sequence=sequence, corpus_tokens=corpus_tokens)
        return found, found.flops / rate_of(found)
    seconds = parse_time(budget or "")
    rate = 0.5 * matmul_peak(dtype, working_device())
    for _ in range(2):
        found = dial_budget(make, seconds * rate, sequence=sequence, corpus_tokens=corpus_tokens)
        rate = rate_of(found)
    found = dial_budget(make, seconds * rate, sequence=sequence, corpus_tokens=corpus_tokens)
    return found, found.flops / rate


def free_memory(device: str) -> int | None:
    """Bytes that are free where models compute; None where unknown."""
    return memory()[1] if device == "cpu" else int(torch.cuda.mem_get_info(device)[0])


class MicroBatch:
    """How many rows are in memory at one time; fewer when they turn out to be too many."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def halve(self) -> bool:
        """Half as many, rounded up; False when it is one already."""
        if self.rows == 1:
            return False
        self.rows = -(-self.rows // 2)
        return True


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, of a GPU or of this machine."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAYS)


_SAYS: Iterable[str] = ("can't allocate memory", "not enough memory", "could not create a memory object", "Cannot allocate memory")
