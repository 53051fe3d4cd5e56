"""Kill policy training at chosen moments, go on, and compare the end with that of a run left in peace.

    python killing_policy.py FOLDER NAME...      NAME: ppo, grpo, dapo, reinforce (rollouts of several steps)

Each attempt is a forked child that dies by SIGKILL: from outside at a random time, before a random change to the disk, or in the middle
of a rollout's steps. Prints one JSON row per NAME.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from norma.align.policy import NormPolicy
from norma.align.policy_options import PolicyOptions
from norma.align.rewarding import NormReward
from norma.base.progress import Silent
from norma.generate import engine
from norma.lm import LanguageModel
from norma.nn import ModelConfig, Transformer
from norma.spec import Item, Message, Spec
from norma.text.tokenizer import train_tokenizer
from norma.train import loop, metrics
from norma.train.optimiser import optimiser_tensors
from norma.train.options import TrainOptions

STEPS = 14
# In the middle of steps 1, 6 and 11, each within a rollout; in between at one of the next changes to the disk; at last by the clock.
ATTEMPTS = (("step", 1), ("disk", 20), ("step", 6), ("disk", 20), ("step", 11), ("time", 0))
SPEC = """
norma: 1
spec: {id: s, version: "1", languages: [en]}
rules:
- id: letters
  statement: {en: "Say an a."}
  checkers:
  - {id: p, kind: program, use: regex, params: {pattern: "a"}}
  - {id: h, kind: program, use: regex, roles: [heldout], params: {pattern: "[ab]"}}
- id: short
  statement: {en: "Be short."}
  checkers: [{id: p, kind: program, use: length, params: {max_characters: 4}}]
compose: {constraints: {short: {budget: 0.1}}}
"""
METHODS: dict[str, dict[str, Any]] = {
    "ppo": {"epochs": 2, "minibatches": 2, "kl_target": 0.01},
    "grpo": {"epochs": 2, "minibatches": 2},
    "dapo": {"epochs": 3, "refills": 1, "overlong": 2},
    "reinforce": {"epochs": 1},
}


def work(folder: Path, name: str) -> None:
    """Train to the end and write digests of all there is."""
    engine.working_dtype = lambda: torch.float32  # type: ignore[attr-defined]
    tokenizer = train_tokenizer(["What is an a? It is a letter.", "abba and a bad cab"] * 5, 300)
    config = ModelConfig("llama", len(tokenizer), 24, 2, 4, 2, 6, 40, 96)
    model = LanguageModel(Transformer(config).initialise(torch.Generator().manual_seed(0)).eval(), tokenizer)
    items = [Item(str(n), (Message(role="user", content=f"Letter {n}?"),)) for n in range(6)]
    options = PolicyOptions(**{"method": name, "questions": 3, "group": 3, "max_new_tokens": 4, "held_out_every": 2} | METHODS[name])
    state: dict[str, Any] = {}
    made: dict[str, Any] = {}
    reward = NormReward(Spec.parse(SPEC), options)
    policy = NormPolicy(model, model.copy(), reward, items, options, seed=1, dtype=torch.float32, state=state)
    make = loop.make_optimisers

    def kept(*arguments: Any, **how: Any) -> Any:
        made["optimisers"] = make(*arguments, **how)
        return made["optimisers"]

    def losses(step: int) -> Iterator[tuple[torch.Tensor, dict[str, float]]]:
        yield from policy.losses(step)
        if step == DIE[0]:  # the gradient is made, the weights have not moved
            os.kill(os.getpid(), signal.SIGKILL)

    loop.make_optimisers = kept
    training = TrainOptions(optimiser="adamw", learning_rate=1e-2, warmup=2, checkpoint_seconds=1e-6)
    loop.train(policy.learner, losses, steps=STEPS, options=training, folder=folder, progress=Silent(), state=state, seed=1)
    state.pop("seconds", None)
    parts = {"weights": dict(policy.learner.state_dict()), "optimiser": optimiser_tensors(policy.learner, made["optimisers"])}
    end: dict[str, Any] = {
        key: hashlib.sha256(save({n: t.contiguous().clone() for n, t in sorted(p.items())})).hexdigest() for key, p in parts.items()
    }
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    end["metrics"] = [{k: v for k, v in row.items() if k not in metrics.CLOCKS} for row in read]
    end["state"] = state
    (folder / "end.json").write_text(json.dumps(end))


DIE: list[int | None] = [None]  # the step in whose middle this process kills itself


def arm(kind: str, at: float) -> None:
    """Make this process kill itself: in the middle of a step, or before a change to the disk."""
    if kind == "step":
        DIE[0] = int(at)
    elif kind == "disk":
        left = [int(at)]

        def guarded(inner: Any) -> Any:
            def call(*arguments: Any, **how: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return inner(*arguments, **how)

            return call

        for name in ("replace", "unlink", "mkdir", "fsync"):
            setattr(os, name, guarded(getattr(os, name)))


def child(folder: Path, name: str, kind: str = "peace", at: float = 0) -> tuple[bool, float]:
    """Run in a fork; (ended by itself, seconds)."""
    began = time.monotonic()
    process = os.fork()
    if process:
        if kind == "time":
            time.sleep(at)
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        assert (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL) or status == 0, status
        return status == 0, time.monotonic() - began
    code = 1
    try:
        arm(kind, at)
        work(folder, name)
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[2:]:
        home, chance = Path(sys.argv[1]) / name, random.Random(name)
        _, seconds = child(home / "peace", name)
        deaths = []
        for kind, most in ATTEMPTS:
            at = most if kind == "step" else chance.uniform(0, most if kind == "disk" else seconds / 2)
            if child(home / "killed", name, kind, at)[0]:
                break
            deaths.append(kind)
        else:
            child(home / "killed", name)
        ends = [json.loads((home / side / "end.json").read_text()) for side in ("peace", "killed")]
        row = {
            "run": name,
            "deaths": deaths,
            "equal": {key: ends[0][key] == ends[1][key] for key in ends[0]},
            "steps": [r["step"] for r in ends[1]["metrics"]],
            "state": sorted(ends[1]["state"]),
            "left_over": sorted(p.name for p in (home / "killed").iterdir() if p.name.startswith(".")),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
