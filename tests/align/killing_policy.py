"""Kill policy training at chosen moments, go on, and compare the end with that of a run left in peace.

    python killing_policy.py FOLDER NAME...      NAME: ppo, grpo, dapo, reinforce (rollouts of several steps)

Each attempt is a forked child that dies by SIGKILL: from outside at a random time, before a random change to the disk, or in the middle
of a rollout's steps. Prints one JSON row per NAME.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from norma.align.policy import NormPolicy
from norma.align.policy_options import PolicyOptions
from norma.align.rewarding import NormReward
from norma.base.progress import Silent
from norma.generate import engine
from norma.lm import LanguageModel
from norma.nn import ModelConfig, Transformer
from norma.spec import Item, Message, Spec
from norma.text.tokenizer import train_tokenizer
from norma.train import loop
from norma.train.optimiser import optimiser_tensors
from norma.train.options import TrainOptions

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, and imported by tests
import dying

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
    made = dying.keep_optimisers()
    reward = NormReward(Spec.parse(SPEC), options)
    policy = NormPolicy(model, model.copy(), reward, items, options, seed=1, dtype=torch.float32, state=state)
    def losses(step: int) -> Iterator[tuple[torch.Tensor, dict[str, float]]]:
        yield from policy.losses(step)
        if step == DIE[0]:  # the gradient is made, the weights have not moved
            dying.die()

    training = TrainOptions(optimiser="adamw", learning_rate=1e-2, warmup=2, checkpoint_seconds=1e-6)
    loop.train(policy.learner, losses, steps=STEPS, options=training, folder=folder, progress=Silent(), state=state, seed=1)
    state.pop("seconds", None)
    parts = {"weights": dict(policy.learner.state_dict()), "optimiser": optimiser_tensors(policy.learner, made["optimisers"])}
    end = dying.digests(parts) | {"metrics": dying.rows(folder / "metrics.jsonl")}
    end["state"] = state
    (folder / "end.json").write_text(json.dumps(end))


DIE: list[int | None] = [None]  # the step in whose middle this process kills itself


def child(folder: Path, name: str, kind: str = "peace", at: float = 0) -> tuple[bool, float]:
    """Run in a fork that dies in the middle of a step, before a change to the disk, or by the clock."""

    def attempt() -> None:
        if kind == "step":
            DIE[0] = int(at)
        elif kind == "disk":
            dying.before_a_change(int(at))
        work(folder, name)

    return dying.child(attempt, after=at if kind == "time" else None)


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
        equal, end = dying.compared(home)
        row = {
            "run": name,
            "deaths": deaths,
            "equal": equal,
            "steps": [r["step"] for r in end["metrics"]],
            "state": sorted(end["state"]),
            "left_over": end["left_over"],
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
