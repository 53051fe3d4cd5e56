"""How fast this machine multiplies matrices at best, and reads memory: what a training step's speed is a share of."""

from __future__ import annotations

import time
from functools import cache

import torch


def finished(device: str | torch.device) -> None:
    """Wait until a GPU has done what it was given: only then does a clock tell the time that it took."""
    if str(device).startswith("cuda"):
        torch.cuda.synchronize(device)


@cache
def matmul_peak(dtype: torch.dtype, device: str = "cpu", size: int | None = None) -> float:
    """Floating-point operations a second of the best of ten square products (2 size^3 each), measured once a process.

    The best and not the mean: whatever else the machine does only ever adds time.
    """
    side = size or (8192 if device.startswith("cuda") else 1536)
    a = torch.ones(side, side, dtype=dtype, device=device)
    seconds = []
    for _ in range(11):
        began = time.perf_counter()
        torch.mm(a, a)
        finished(device)
        seconds.append(time.perf_counter() - began)
    return 2.0 * side**3 / min(seconds[1:])  # the first makes the kernel


@cache
def read_bandwidth(megabytes: int = 256) -> float:
    """Bytes a second that are read from this machine's memory: the best of five sums over more than any cache holds."""
    numbers = torch.ones(megabytes * 2**20 // 4)
    times = []
    for _ in range(6):
        began = time.perf_counter()
        numbers.sum()
        times.append(time.perf_counter() - began)
    return numbers.numel() * 4 / min(times[1:])
