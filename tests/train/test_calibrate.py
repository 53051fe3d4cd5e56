"""What calibration says is true of the machine: kept bytes against allocations counted by hand, a budget that is kept, memory that ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import Said, losses_of, model, options_of
from torch import Tensor

from norma.base.errors import NormaError
from norma.nn import preset
from norma.train import train
from norma.train.calibrate import MicroBatch, flop_rate, micro_batch, out_of_memory, row_bytes, turn
from norma.train.dial import maker


def config(family: str = "llama", width: int = 64, layers: int = 2) -> Any:
    return preset(family, vocab_size=512, width=width, layers=layers, head_size=32, max_positions=64)


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_kept_bytes_grow_with_layers_and_length(family: str) -> None:
    small, deep = (row_bytes(config(family, layers=n), 64, torch.float32) for n in (2, 4))
    assert 1.4 * small < deep < 2.3 * small
    assert row_bytes(config(family), 32, torch.float32) < 0.6 * small
    # A block keeps at least its input, queries, keys, values, and the feed-forward layer's inner states, in fp32.
    assert small > 2 * 64 * 64 * 4 * (1 + 3 + 2)


def test_a_micro_batch_that_fits() -> None:
    each = row_bytes(config(), 64, torch.float32)
    assert micro_batch(config(), 64, 32, torch.float32, room=10**12) == 16
    assert micro_batch(config(), 64, 5, torch.float32, room=10**12) == 5
    assert micro_batch(config(), 64, 32, torch.float32, room=13 * each) == 4  # 1.5 of what is kept, in half of the room
    assert micro_batch(config(), 64, 32, torch.float32, room=1) == 1


def test_a_budget_is_spent_and_not_overspent() -> None:
    make = maker("llama", vocab_size=300, max_positions=64, settings={})
    found, seconds = turn(make, size=None, budget="20s", sequence=64, corpus_tokens=None, dtype=torch.float32)
    assert 10 < seconds <= 20.01
    small, less = turn(make, size=None, budget="20s", sequence=64, corpus_tokens=20_000, dtype=torch.float32)
    assert small.tokens <= 4 * 20_000 * 1.05, "four passes at most, whatever the budget"
    assert less < 20.01
    assert found.tokens > small.tokens
    with pytest.raises(NormaError, match="one setting"):
        turn(make, size="1M", budget="1min", sequence=64, corpus_tokens=None, dtype=torch.float32)


def test_a_rate_is_below_the_peak() -> None:
    from norma.train.peak import matmul_peak

    assert 0 < flop_rate(config(), 64, 4, torch.float32) < 1.5 * matmul_peak(torch.float32, size=512)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_out_of_memory_looks_like(error: Exception, says: bool) -> None:
    assert out_of_memory(error) is says


def test_too_little_memory_halves_the_micro_batch_and_loses_nothing(tmp_path: Path) -> None:
    """A step that does not fit is done again in smaller parts: the same rows, metrics without a gap or a double row."""
    micro, said = MicroBatch(8), Said()

    def losses(network: Any) -> Any:
        plain = losses_of(network)

        def at(step: int) -> Iterator[tuple[Tensor, dict[str, float]]]:
            for part in plain(step):
                if step == 2 and micro.rows > 2:
                    yield part  # the first part fits, the next does not
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
                yield part

        return at

    def shrink() -> str | None:
        return f"micro-batches of {micro.rows}" if micro.halve() else None

    network = model()
    train(network, losses(network), steps=4, options=options_of(), folder=tmp_path / "a", progress=said, shrink=shrink)
    assert micro.rows == 2
    assert [line for line in said.lines if "out of memory" in line] == [
        "step 2: out of memory; micro-batches of 4",
        "step 2: out of memory; micro-batches of 2",
    ]
    rows = [json.loads(line) for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 3]

    plain = model()
    train(plain, losses_of(plain), steps=4, options=options_of(), folder=tmp_path / "b", progress=Said())
    for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)

    def never(step: int) -> Iterator[tuple[Tensor, dict[str, float]]]:
        raise MemoryError("no memory at all")
        yield

    with pytest.raises(NormaError, match="step 0: memory does not suffice"):
        train(model(), never, steps=4, options=options_of(), folder=tmp_path / "c", progress=Said(), shrink=lambda: None)
