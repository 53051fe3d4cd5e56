"""Methods that sample before they train: two processes write the same answers and end with the weights of one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("ranked_methods.py")
pytestmark = pytest.mark.slow
LORA = {"lora": {"rank": 4, "alpha": 8.0}}
CASES = [
    (kind, preset, more)
    for preset in ("llama", "t5")
    for kind, more in (
        ("best-of", {}),
        ("distil", {}),
        ("distil", {"loss": "sampled"}),
        ("distil", LORA),
        ("constitution", {}),
        ("preference", {}),
        ("preference", LORA),
    )
]
NAMES = [f"{kind}, {preset}, {'LoRA' if 'lora' in more else more.get('loss', 'whole')}" for kind, preset, more in CASES]


def run(folder: Path, count: int, **asked: Any) -> dict[str, Any]:
    """Run with ``count`` processes; what the stage says in the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    workers = []
    for rank in range(count):
        more = {} if count == 1 else {"WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)}
        command = [sys.executable, str(SCRIPT), str(folder), json.dumps(asked)]
        workers.append(subprocess.Popen(command, env={**env, **more}, stderr=subprocess.PIPE, text=True))
    said = [worker.communicate(timeout=400)[1] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers), "\n".join(text[-3000:] for text in said)
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


@pytest.mark.parametrize(("kind", "preset", "more"), CASES, ids=NAMES)
def test_equal_to_one_process(tmp_path: Path, kind: str, preset: str, more: dict[str, Any]) -> None:
    one, two = (run(tmp_path / str(count), count, kind=kind, preset=preset, stage=more) for count in (1, 2))
    assert one.keys() == two.keys()
    before = load_file(tmp_path / "1" / "model" / "model.safetensors")
    ours, theirs = (load_file(tmp_path / count / "stage" / "model.safetensors") for count in ("1", "2"))
    assert max(float((before[n] - ours[n]).abs().max()) for n in before) > 1e-3, "nothing was learnt"
    assert max(float((ours[n] - theirs[n]).abs().max()) for n in ours) < 1e-5
    for made in (tmp_path / "1" / "stage").glob("*.jsonl"):  # the answers, to the byte
        if made.name != "metrics.jsonl":
            assert made.read_bytes() == (tmp_path / "2" / "stage" / made.name).read_bytes(), made.name
