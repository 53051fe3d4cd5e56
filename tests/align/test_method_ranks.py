"""Every method, of a decoder and of two stacks, whole weights and LoRA: two processes end with the weights of one.

The table in docs/alignment.md says no more than this.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from norma.align.policy_options import METHODS as POLICY
from norma.align.preference_options import METHODS as PREFERENCE
from processes import run_ranks

SCRIPT = Path(__file__).with_name("ranked_methods.py")
pytestmark = pytest.mark.slow
LORA = {"lora": {"rank": 4, "alpha": 8.0}}
SMALL = {"questions": 5, "group": 4, "max_new_tokens": 8, "micro_tokens": 256}
MARKED = {"data": "data/marks.jsonl"}
ONLINE = {"data": None, "questions": "data/rows.jsonl", "online": {"questions": 5, "answers": 4, "max_new_tokens": 8}}
MARKS = {"data": ["data/marks.jsonl"], "validation": ["data/marks.jsonl"]}

METHODS: dict[str, dict[str, dict[str, Any]]] = {  # stage → method → what its recipe says
    "reward": {
        **{method: {"policy": {"method": method, **SMALL}} for method in POLICY},
        "ppo, shared": {"policy": {"method": "ppo", "value": {"backbone": "shared"}, "epochs": 2, "minibatches": 2, **SMALL}},
        "grpo, other rows": {"policy": SMALL, "pretraining": {"data": [{"rows": "data/rows.jsonl"}], "batch": 3, "sequence": 48}},
    },
    "preference": {
        **{method: {"method": method} | ({} if facts.paired else MARKED) for method, facts in PREFERENCE.items()},
        **{f"{method}, online": {"method": method} | ONLINE for method in ("dpo", "simpo")},  # with and without the model before
    },
    "correction": {method: {"method": method} for method in ("dpo", "kto", "unlikelihood", "weighted", "sft")},
    "reward-model": {
        "pair": {},
        "score": {"heads": "score", **MARKS},
        "score, logistic": {"heads": "score", "learning": {"rows": 5, "pointwise": "logistic"}, **MARKS},
        "rules": {"heads": "rules", **MARKS},
    },
    "sft": {"sft": {}},
    "best-of": {"best-of": {}},
    "distil": {loss: {"loss": loss} for loss in ("kl", "sampled")},
    "constitution": {"constitution": {}},
}


def cells(kind: str) -> Iterator[dict[str, Any]]:
    """Each method with both models and in both ways, in two cells; with NORMA_TEST_EVERY set in all four."""
    ways = (("whole", {}), ("LoRA", LORA))
    for number, (method, said) in enumerate(METHODS[kind].items()):
        for stack, preset in enumerate(("llama", "t5-v1.1")):  # smooth: of a ReLU at its kink rounding decides whether it learns
            for part, (how, lora) in enumerate(ways):
                if (number + stack + part) % 2 == 0 or os.environ.get("NORMA_TEST_EVERY"):
                    yield {"name": f"{method}, {preset}, {how}", "kind": kind, "preset": preset, "stage": said | lora}


def run(folder: Path, count: int, asked: list[dict[str, Any]]) -> dict[str, Any]:
    """Run with ``count`` processes; what each stage says in the end."""
    run_ranks(SCRIPT, folder, asked, count=count, timeout=1200)
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def wrong(folder: Path, cell: dict[str, Any]) -> Iterator[str]:
    """What is not as it should be in a cell that both have run."""
    one, two = (folder / count / cell["name"] for count in "12")
    ours, theirs = (load_file(home / "model.safetensors") for home in (one, two))
    before = load_file(folder / "1" / cell["preset"] / "model.safetensors")
    moved = [float((before[n] - ours[n]).abs().max()) for n in before.keys() & ours.keys()]
    steps = [json.loads(line) for line in (one / "metrics.jsonl").read_text().splitlines()]
    if max(moved, default=1.0) < 1e-3 or not any(row["gradient_norm"] > 0 for row in steps):
        yield "nothing was learnt"
    if (apart := max(float((ours[n] - theirs[n]).abs().max()) for n in ours)) >= 1e-5:
        yield f"weights differ by {apart:.1e}"
    for made in one.glob("*.jsonl"):  # the answers, to the byte
        if made.name != "metrics.jsonl" and made.read_bytes() != (two / made.name).read_bytes():
            yield f"{made.name} differs"


@pytest.mark.parametrize("kind", METHODS)
def test_equal_to_one_process(tmp_path: Path, kind: str) -> None:
    asked = list(cells(kind))
    one, two = (run(tmp_path / str(count), count, asked) for count in (1, 2))
    assert one.keys() == two.keys() == {cell["name"] for cell in asked}
    assert all(one[name].keys() == two[name].keys() for name in one)
    found = {cell["name"]: list(wrong(tmp_path, cell)) for cell in asked}
    assert not {name: problems for name, problems in found.items() if problems}
