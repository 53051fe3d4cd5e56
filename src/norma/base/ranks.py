"""Ranks: the processes of one run, as ``torchrun`` starts them. One process is the case of one, and costs nothing.

    torchrun --nproc-per-node N -m norma run RECIPE

All ranks go through the same steps with their share of the same rows; whatever depends on a clock or a disk is decided by the
first and told to the others. Torch is imported only where there are several.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

from norma.base.errors import NormaError

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # the others wait while the first tokenises a corpus


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run. ``tensor`` neighbours divide each layer between them and read the same rows."""

    rank: int = 0
    count: int = 1
    tensor: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def readers(self) -> int:
        """How many groups of ranks read rows of their own."""
        return self.count // self.tensor

    @property
    def reader(self) -> int:
        """This rank's group among them."""
        return self.rank // self.tensor

    def grouped(self, tensor: int | None) -> Ranks:
        """These ranks, each layer divided over ``tensor`` of them. A single process has nobody to share with."""
        if tensor is None or self.count == 1:
            return self
        if self.count % tensor:
            mend = f"Start a multiple of {tensor}: torchrun --nproc-per-node {tensor} ..."
            raise NormaError(f"{self.count} processes cannot be divided into groups of {tensor} (tensor_parallel)", mend=mend)
        return replace(self, tensor=tensor)

    def tell(self, value: T) -> T:
        """The first rank's ``value``, on every rank."""
        if self.count == 1:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Every rank's ``value``, in the order of ranks, on every rank."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        box: list[Any] = [None] * self.count
        dist.all_gather_object(box, value)
        return box

    def gather_readers(self, value: T) -> list[T]:
        """As :meth:`gather`, once for each group of ranks that read the same rows."""
        return self.gather(value)[:: self.tensor]

    def total(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Sums over what the ranks have read, always added in the same order."""
        return total(self.gather_readers(dict(numbers)))

    def wait(self) -> None:
        """Until every rank is here."""
        if self.count > 1:
            import torch.distributed as dist

            dist.barrier()

    def share(self, size: int) -> slice:
        """Which of ``size`` rows are this rank's."""
        return slice(self.reader * size // self.readers, (self.reader + 1) * size // self.readers)

    def most(self, size: int) -> int:
        """The largest share of ``size`` rows that any rank has."""
        return -(-size // self.readers)


ALONE = Ranks()


def total(parts: list[dict[str, float]]) -> dict[str, float]:
    """Sums of numbers by name."""
    sums: dict[str, float] = {}
    for part in parts:
        for key, value in part.items():
            sums[key] = sums.get(key, 0.0) + value
    return sums


def join() -> Ranks:
    """The ranks that torchrun has started (its WORLD_SIZE and RANK), connected; a single one without it."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Ranks()
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        gpu = torch.cuda.is_available()
        if gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=PATIENCE)
    return Ranks(dist.get_rank(), count)


def leave(ranks: Ranks) -> None:
    """Take the connection down at a run's end."""
    if ranks.count > 1:
        import torch.distributed as dist

        dist.destroy_process_group()
