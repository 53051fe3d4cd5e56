"""What the scripts that kill training with -9 share: a child that dies at a chosen moment, and digests of how a run ended."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from norma.train import loop, metrics


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_a_change(count: int) -> None:
    """Make this process kill itself before its ``count``-th change to the disk."""
    left = [count]

    def guarded(inner: Any) -> Any:
        def call(*arguments: Any, **how: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                die()
            return inner(*arguments, **how)

        return call

    for name in ("replace", "unlink", "mkdir", "rmdir", "fsync"):
        setattr(os, name, guarded(getattr(os, name)))


def child(work: Callable[[], None], *, after: float | None = None) -> tuple[bool, float]:
    """``work`` in a fork, killed from outside ``after`` seconds unless None; (ended by itself, seconds)."""
    began = time.monotonic()
    process = os.fork()
    if process:
        if after is not None:
            time.sleep(after)
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        assert (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL) or status == 0, status
        return status == 0, time.monotonic() - began
    code = 1
    try:
        work()
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def keep_optimisers() -> dict[str, Any]:
    """Where the loop's optimisers will be found under ``optimisers``, once it has made them."""
    made: dict[str, Any] = {}
    make = loop.make_optimisers

    def kept(*arguments: Any, **how: Any) -> Any:
        made["optimisers"] = make(*arguments, **how)
        return made["optimisers"]

    loop.make_optimisers = kept
    return made


def digests(parts: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, Any]:
    """SHA-256 of each part's tensors."""
    return {
        name: hashlib.sha256(save({n: t.contiguous().clone() for n, t in sorted(part.items())})).hexdigest() for name, part in parts.items()
    }


def rows(path: Path) -> list[dict[str, Any]]:
    """JSON lines without what clocks say."""
    read = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k not in metrics.CLOCKS} for row in read]


def compared(home: Path) -> tuple[dict[str, bool], dict[str, Any]]:
    """What is equal between the run in peace and the killed one; how the killed one ended, with ``left_over`` files."""
    peace, killed = (json.loads((home / side / "end.json").read_text()) for side in ("peace", "killed"))
    killed["left_over"] = sorted(p.name for p in (home / "killed").iterdir() if p.name.startswith("."))
    return {key: peace[key] == killed[key] for key in peace}, killed
