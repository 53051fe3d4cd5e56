"""``norma plan``: what a recipe will take, before anything runs: weights, tokens, memory, time of every stage that trains.

recipe ─→ stages with a model: its shape from the recipe, from a finished artefact, or another in its place ─→ Shape of its step
       ─→ norma.train.footprint ─→ rows
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from norma.base.errors import NormaError
from norma.base.files import read_json
from norma.nn.config import ModelConfig
from norma.nn.lora import LoraOptions
from norma.pipeline.recipe import Loaded, Node
from norma.train.footprint import Machine, Part, Shape, lora_parameters, memory, peak, seconds

PROMPT = 128  # tokens of a prompt, where nothing says how long they are
ANSWER = 64  # and of an answer of a pair


@dataclass(frozen=True)
class Foreseen:
    """One stage: what it trains, what it needs."""

    stage: str
    kind: str
    config: ModelConfig
    shape: Shape
    learnt: int
    steps: int | None  # None: set by a budget, by epochs or by what is measured
    tokens: int  # that the model reads in a step
    parts: list[Part]
    seconds: dict[str, float] | None  # of a step, at least

    @property
    def peak(self) -> int:
        return peak(self.parts)

    def row(self) -> dict[str, Any]:
        more = {"seconds": self.seconds} if self.seconds else {}
        return {
            "stage": self.stage,
            "kind": self.kind,
            "parameters": self.config.parameters(),
            "learnt": self.learnt,
            "steps": self.steps,
            "tokens_per_step": self.tokens,
            "peak_bytes": self.peak,
            "parts": [vars(part) for part in self.parts],
            **more,
        }


def foresee(
    loaded: Loaded,
    *,
    model: ModelConfig | None = None,
    machine: Machine | None = None,
    lora: LoraOptions | None = None,
    weights: int = 4,
    activations: int = 4,
    recompute: bool | None = None,
    prompt: int = PROMPT,
) -> list[Foreseen]:
    """A row for each stage of the recipe that trains a model.

    Args:
        model: every stage trains this shape instead of its own.
        machine: for the time; None: no time is said.
        lora: stages of norm training train this adapter, whatever the recipe says.
        weights, activations: bytes of a number.
        recompute: None: as the recipe says.
        prompt: tokens of a question.
    """
    found = []
    for node in loaded.nodes.values():
        options = node.options.resolved()
        if not isinstance(options.get("train"), dict):
            continue
        config = model or _config(loaded, node)
        if config is None:
            continue
        adapter = lora if lora is not None and node.stage.kind != "pretrain" else _lora(options)
        base = 2 if (options.get("lora") or {}).get("base") == "bfloat16" else weights
        judge = _judge(loaded, options)
        how: dict[str, Any] = {
            "weights": base,
            "judge": 0 if judge is None else (model or judge).parameters(),
            "activations": activations,
            "lora": adapter,
            "recompute": bool(options["train"].get("recompute")) if recompute is None else recompute,
        }
        shape, sequences = _shape(options, config, how, prompt)
        rows = shape.questions // shape.minibatches or sequences
        learnt = config.parameters() if adapter is None else lora_parameters(config, adapter)
        timed = None if machine is None else seconds(config, shape, machine, sequences=sequences)
        steps = options.get("steps") if isinstance(options.get("steps"), int) else None
        read = rows * (shape.row if shape.questions else shape.length)
        found.append(Foreseen(node.name, node.stage.kind, config, shape, learnt, steps, read, memory(config, shape), timed))
    if not found:
        raise NormaError("no stage of this recipe trains a model whose shape is known yet", where=loaded.path, mend="Give --model")
    return found


def _shape(options: Mapping[str, Any], config: ModelConfig, how: dict[str, Any], prompt: int) -> tuple[Shape, int]:
    """What a step holds, and its rows where there is no rollout."""
    leash = "shared" if how["lora"] is not None else "copy"
    policy = options.get("policy")
    if isinstance(policy, dict):
        group, new = int(policy.get("group", 1)), int(policy["max_new_tokens"])
        room = config.max_positions - new
        asked = min(prompt, room) if room > 0 else prompt
        row = asked + group * new
        tokens = max(int(policy.get("micro_tokens", 4096)) // row, 1) * row
        tokens = min(tokens, -(-int(policy["questions"]) // int(policy.get("minibatches", 1))) * row)
        how |= {"questions": int(policy["questions"]), "group": group, "prompt": asked, "new": new, "reference": leash}
        how |= {"epochs": int(policy.get("epochs", 1)), "minibatches": int(policy.get("minibatches", 1))}
        value = policy.get("value")
        how["critic"] = policy.get("advantage") == "value" and isinstance(value, dict) and value.get("backbone") != "shared"
        return Shape(tokens=tokens, length=row, scored=tokens // row * group * new, **how), 0
    pairs = options.get("pairs")
    if isinstance(pairs, dict):  # reference log-probabilities are made once, before the first step: no second model is there
        row, rows = prompt + 2 * ANSWER, int(pairs.get("pairs", 32))
        return Shape(tokens=min(rows, max(int(pairs.get("micro_tokens", 4096)) // row, 1)) * row, length=row, **how), rows
    length, batch = int(options.get("sequence") or prompt + ANSWER), int(options.get("batch") or 32)
    micro = int(options.get("micro_batch") or min(16, batch))
    return Shape(tokens=micro * length, length=length, **how), batch


def _judge(loaded: Loaded, options: Mapping[str, Any]) -> ModelConfig | None:
    """The shape of the reward model that a stage asks."""
    name = options.get("reward_model")
    return _config(loaded, loaded.nodes[name.partition("/")[0]]) if isinstance(name, str) else None


def _lora(options: Mapping[str, Any]) -> LoraOptions | None:
    found = options.get("lora")
    if not isinstance(found, dict):
        return None
    known = {key: found[key] for key in ("rank", "alpha", "targets") if found.get(key) is not None}
    targets = known.get("targets", LoraOptions.targets)
    return LoraOptions(**known | {"targets": targets if isinstance(targets, str) else tuple(targets)})


def _config(loaded: Loaded, node: Node) -> ModelConfig | None:
    """The shape of what a stage trains: that of the stage that it goes on from, back to one that says it."""
    options = node.options.resolved()
    artefact = loaded.output / node.name / "config.json"
    if artefact.is_file():
        return _read(artefact)
    before = options.get("from")
    if isinstance(before, str):
        return _config(loaded, loaded.nodes[before.partition("/")[0]])
    shape = options.get("model")
    if isinstance(shape, dict) and options.get("size") is None and options.get("budget") is None:
        return _preset(loaded, options, shape)
    path = options.get("path")
    if isinstance(path, str):  # a model from outside
        folder = (loaded.base / Path(path).expanduser()).resolve()
        return _read(folder / "config.json") if (folder / "config.json").is_file() else None
    return None


def _read(path: Path) -> ModelConfig:
    from norma.nn import config_from_hf

    return config_from_hf(read_json(path), path)


def _preset(loaded: Loaded, options: Mapping[str, Any], shape: Mapping[str, Any]) -> ModelConfig | None:
    from norma.nn import preset

    tokenizer = loaded.nodes.get(str(options.get("tokenizer", "")).partition("/")[0])
    if tokenizer is None:
        return None
    vocabulary = tokenizer.options.resolved().get("vocab_size")
    if not isinstance(vocabulary, int):
        return None
    sizes = {key: shape[key] for key in ("width", "layers", "head_size", "max_positions")} | dict(shape.get("settings") or {})
    return preset(str(shape["preset"]), vocab_size=vocabulary, **sizes)
