"""A script in processes of its own, alone or as the ranks of one run, without the seconds that each would need to import torch.

    a test ─→ fork server, with torch and Norma imported (one for a session) ─→ a fork for each rank ─→ the script, as __main__

A fork is a process as torchrun starts one: its own environment, exit code and death by signals; only its imports are there already.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
import time
from pathlib import Path

IMPORTED = ["torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.fsdp"]
IMPORTED += ["norma.train.pretraining", "norma.train.spread", "norma.align.policy", "norma.pipeline.stages.preference"]
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(IMPORTED)


def run_ranks(script: Path, *arguments: object, count: int = 1, wanted: int | None = 0, timeout: float = 300) -> None:
    """Run ``script`` in ``count`` processes that know of each other; all must end with exit code ``wanted`` (-9: killed; None: any)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    argv = [str(script), *(str(each) if isinstance(each, (str, Path)) else json.dumps(each) for each in arguments)]
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder) / str(rank) for rank in range(count)]
        workers = []
        for rank in range(count):
            place = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "RANK": rank, "LOCAL_RANK": rank} if count > 1 else {}
            more = env | {name: str(value) for name, value in place.items()}
            workers.append(context.Process(target=_script, args=(argv, {**os.environ, **more}, said[rank])))
        for worker in workers:
            worker.start()
        end = time.monotonic() + timeout
        for worker in workers:
            worker.join(max(0.0, end - time.monotonic()))
        late = [rank for rank, worker in enumerate(workers) if worker.is_alive()]
        for worker in workers:
            worker.kill()
            worker.join()
        told = "\n".join(f"exit code {worker.exitcode}\n{file.read_text()[-3000:]}" for worker, file in zip(workers, said, strict=True))
        assert not late, f"ranks {late} had not ended after {timeout:g} s\n{told}"
        assert wanted is None or all(worker.exitcode == wanted for worker in workers), told


def _script(argv: list[str], env: dict[str, str], said: Path) -> None:
    """In the fork: what ``python script arguments`` does, with what it says in a file."""
    os.environ.clear()
    os.environ.update(env)
    with said.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = argv
    sys.path.insert(0, str(Path(argv[0]).parent))
    runpy.run_path(argv[0], run_name="__main__")
