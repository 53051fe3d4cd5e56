"""How much memory a training step takes and how long it takes, in closed form, before anything runs.

    config, what is trained (all weights or LoRA), tokens in memory at one time ─→ parts, in bytes ─→ peak
                                                                                └→ operations, bytes read ─→ seconds, for a machine

What is always there (weights, adapters, moments) is counted exactly. Of what comes and goes, the larger of rollout and training counts.
Activations are counted tensor by tensor as the blocks keep them (:func:`block_activations`); kernels, allocators and fragments come on
top: tests hold the sum to what was measured of small models within BOUND.

Letters: M padded tokens in memory, T tokens of a row, W width, H heads, G key/value heads, D features of a head, F inner features,
V vocabulary, P weights, r rank.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from norma.nn import kernels
from norma.nn.config import ModelConfig
from norma.nn.counting import flops_of_text, kv_cache_bytes, parameters
from norma.nn.lora import LoraOptions
from norma.objectives.likelihood import CHUNK

BOUND = 0.15  # share by which the predicted peak of live tensors may miss the measured one (tests/train/test_footprint.py)
DECODED = 64  # rows that are decoded side by side
FP32 = 4
MOMENTS = 2 * FP32  # AdamW's, for every weight that moves
Phase = Literal["always", "rollout", "training"]
_MATRICES = ("query", "key", "value", "output", "gate", "up", "down")


@dataclass(frozen=True)
class Part:
    """Bytes, what they are, and when they are there."""

    name: str
    bytes: int
    why: str
    phase: Phase = "always"


@dataclass(frozen=True)
class Shape:
    """What a step works on.

    Attributes:
        weights, activations: bytes of a number (2: bf16, 4: fp32).
        tokens: padded tokens that are in memory at one time; ``length``: of one row of them; ``scored``: those that the loss is about,
            None: all.
        lora: None: all weights move.
        recompute: only the inputs of blocks are kept.
        reference: a frozen copy of the weights ("copy"), the model itself with its adapters off ("shared"), or none.
        critic: a value model of the same shape learns beside it (PPO).
        judge: weights of a reward model that is only read.
        questions, group, prompt, new: of a rollout; 0 questions: none. ``epochs`` passes over it, each in ``minibatches`` steps.
    """

    weights: int = FP32
    activations: int = FP32
    tokens: int = 4096
    length: int = 256
    scored: int | None = None
    lora: LoraOptions | None = None
    recompute: bool = False
    reference: Literal["none", "copy", "shared"] = "none"
    critic: bool = False
    judge: int = 0
    questions: int = 0
    group: int = 1
    prompt: int = 128
    new: int = 128
    epochs: int = 1
    minibatches: int = 1

    @property
    def row(self) -> int:
        """Tokens of a question with its answers: the prompt is read once."""
        return self.prompt + self.group * self.new


def lora_parameters(config: ModelConfig, lora: LoraOptions) -> int:
    """Numbers that LoRA learns: rank * (in + out) of every target in every layer."""
    return config.layers * sum(lora.rank * sum(_sides(config)[name]) for name in _targets(config, lora))


def memory(config: ModelConfig, shape: Shape) -> list[Part]:
    """All parts of a step, in bytes."""
    count, learnt = parameters(config), parameters(config) if shape.lora is None else lora_parameters(config, shape.lora)
    parts = [Part("weights", count * shape.weights, f"{count:,} numbers in {_type(shape.weights)}")]
    if shape.lora is not None:
        parts.append(Part("adapters", learnt * FP32, f"{learnt:,} numbers, rank {shape.lora.rank}, fp32"))
    parts.append(Part("gradients", learnt * FP32, "of what is learnt, fp32"))
    parts.append(Part("moments", learnt * MOMENTS, "AdamW's two, fp32"))
    if shape.reference == "copy":
        parts.append(Part("reference", count * shape.weights, "a frozen copy of the model before"))
    elif shape.reference == "shared":
        parts.append(Part("reference", 0, "the same weights with the adapters off"))
    if shape.critic:
        moved = learnt * (FP32 + MOMENTS) + (0 if shape.lora is None else learnt * FP32)
        parts.append(
            Part("critic", count * shape.weights + moved, "a copy of the model that learns values, with its gradients and moments")
        )
    if shape.judge:
        parts.append(Part("reward model", shape.judge * FP32, f"{shape.judge:,} numbers in fp32, only read"))
    return [*parts, *_rollout(config, shape), *_training(config, shape)]


def peak(parts: list[Part]) -> int:
    """What is always there, and the larger of the two phases."""
    of = {phase: sum(p.bytes for p in parts if p.phase == phase) for phase in ("always", "rollout", "training")}
    return of["always"] + max(of["rollout"], of["training"])


def _rollout(config: ModelConfig, shape: Shape) -> list[Part]:
    if not shape.questions:
        return []
    rows = min(DECODED, shape.questions * shape.group)
    length = shape.prompt + shape.new
    cache = rows * kv_cache_bytes(config, length, shape.activations)
    # The prompts are read when the cache is there already: what one block makes of them comes on top.
    alone = replace(shape, lora=None, recompute=False, length=shape.prompt)
    reading = rows // shape.group * shape.prompt * block_activations(config, alone)
    parts = [
        Part("key/value cache", cache, f"{rows} answers side by side x {length} tokens", "rollout"),
        Part("prompts of the cache", cache // shape.group, "each read once, then copied to its answers", "rollout"),
        Part("one block, reading", reading, f"{rows // shape.group} prompts side by side", "rollout"),
        Part("scores of the next token", 3 * rows * config.vocab_size * FP32, f"{rows} x {config.vocab_size:,}, softmax, draw", "rollout"),
    ]
    if shape.activations != shape.weights:
        copied = _linear(config) * shape.activations
        parts.insert(0, Part("working weights", copied, f"the matrices once more, in {_type(shape.activations)}", "rollout"))
    return parts


def _training(config: ModelConfig, shape: Shape) -> list[Part]:
    M, W, b = shape.tokens, config.width, shape.activations
    block = M * block_activations(config, shape)
    stacks = config.layers * (1 + shape.critic)
    copies = _copies(config, shape)
    if shape.recompute:
        kept = Part("inputs of blocks", stacks * M * W * b, f"{stacks} layers x {M:,} tokens; the rest is made again", "training")
        one = Part("one block, made again", block + copies, "what its backward pass needs", "training")
    else:
        kept = Part("activations", stacks * block, f"{stacks} layers x {M:,} tokens", "training")
        one = Part("copies of weights", stacks * copies, f"matrices in {_type(b)}, kept for the backward pass", "training")
    rows = max(1, M // max(1, shape.length))
    scored = min(CHUNK, M if shape.scored is None else shape.scored)
    each = b if _fused(shape) else 3 * FP32  # the loss's kernel writes the gradient over the scores
    scores = [Part("scores", scored * config.vocab_size * each, f"{scored:,} tokens x {config.vocab_size:,} at one time", "training")]
    down = [Part("gradients of one block", M * (3 * config.feed_forward_width + W) * b, "on their way down", "training")]
    if shape.recompute:
        down.insert(0, one)
    # Going back, the scores are made again before the first gradient reaches a block: the two are not there together.
    later = max(scores, down, key=lambda group: sum(part.bytes for part in group))
    return [
        kept,
        *([one] if one.bytes and not shape.recompute else []),
        *later,
        Part("mask", rows * shape.length**2 * b, f"{rows} rows of {shape.length:,} x {shape.length:,}: which answer sees what", "training"),
        Part("embedded and final states", 3 * M * W * b, "before the first block and after the last", "training"),
    ]


def block_activations(config: ModelConfig, shape: Shape) -> int:
    """Bytes a token that one block keeps for its backward pass.

    A frozen matrix needs no input to be kept for its own gradient; an adapter beside it does, and r numbers more.
    """
    W, F, b = config.width, config.feed_forward_width, shape.activations
    queries, keys = config.attention_heads * config.head_size, config.kv_heads * config.head_size
    moves = set(_MATRICES) if shape.lora is None else set(_targets(config, shape.lora))
    numbers = 2 * W  # inputs of the two norms
    numbers += W * bool(moves & {"query", "key", "value"}) + W * bool(moves & {"gate", "up"})  # their outputs
    numbers += queries + 2 * keys + queries  # queries, keys, values, what attention gives
    numbers += queries * ("output" in moves)  # the same, heads side by side
    joint = _fused(shape) and shape.lora is None  # gate and up stay in one product, and what the gate gave is made again
    again = joint and shape.activations == 2  # so is what the last matrix reads
    numbers += ((2 if joint else 3) if config.gated else 1) * F + F * ("down" in moves and not again)
    extra = 0 if shape.lora is None else shape.lora.rank * len(moves)
    return (numbers + extra) * b + config.attention_heads * FP32


def _fused(shape: Shape) -> bool:
    """Whether this machine's kernels for activations and the loss will be used."""
    built: bool = kernels.ready(torch.bfloat16 if shape.activations == 2 else torch.float32)
    return built


def _copies(config: ModelConfig, shape: Shape) -> int:
    """Bytes of a block's matrices in the type of the activations, which its backward pass reads, where the weights are of another."""
    return 0 if shape.activations == shape.weights else _linear(config) // config.layers * shape.activations


def _linear(config: ModelConfig) -> int:
    """Weights of the blocks' matrices."""
    return config.layers * sum(a * b for a, b in _sides(config).values())


def _sides(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """(in, out) of a block's matrices."""
    W, F = config.width, config.feed_forward_width
    queries, keys = config.attention_heads * config.head_size, config.kv_heads * config.head_size
    found = {"query": (W, queries), "key": (W, keys), "value": (W, keys), "output": (queries, W)}
    return found | ({"gate": (W, F)} if config.gated else {}) | {"up": (W, F), "down": (F, W)}


def _targets(config: ModelConfig, lora: LoraOptions) -> list[str]:
    names = list(_sides(config))
    if lora.targets == "all":
        return names
    wanted = (lora.targets,) if isinstance(lora.targets, str) else lora.targets
    return [name for name in names if any(target.endswith(name) for target in wanted)]


def _type(size: int) -> str:
    return {1: "8 bits", 2: "bf16", 4: "fp32"}.get(size, f"{size} bytes")


# ── time ──
@dataclass(frozen=True)
class Machine:
    """What a machine does at best: operations a second in the activations' type, bytes of memory read a second."""

    flops: float
    bandwidth: float


def seconds(config: ModelConfig, shape: Shape, machine: Machine, *, sequences: int = 0) -> dict[str, float]:
    """Least seconds of a step by phase, a rollout's divided among its steps: no machine reaches its peak.

    Training reads every question's row forward, under the reference too, and back: twice the forward pass where all weights learn, once
    where they are frozen; recomputation is one more forward pass. Decoding is bound by reading the weights (and the cache) once for
    every token that is written side by side, unless the arithmetic takes longer.

    Args:
        sequences: of a step without a rollout: rows of ``shape.length`` tokens.
    """
    forward = flops_of_text(config, shape.row if shape.questions else shape.length) / 3
    passes = ((2 if shape.lora is None else 1) + 1 + shape.recompute) * (1 + shape.critic) + (shape.reference != "none") / shape.epochs
    rows = shape.questions / shape.minibatches if shape.questions else sequences
    found = {"training": rows * forward * passes / machine.flops}
    if shape.questions:
        asked = shape.questions * shape.group
        side = min(DECODED, asked)
        batches = -(-asked // side)
        bytes_read = parameters(config) * shape.activations + side * kv_cache_bytes(
            config, shape.prompt + shape.new // 2, shape.activations
        )
        arithmetic = asked * (flops_of_text(config, shape.prompt + shape.new) - flops_of_text(config, shape.prompt)) / 3
        reading = shape.questions * flops_of_text(config, shape.prompt, scored=1) / 3
        whole = reading / machine.flops + max(arithmetic / machine.flops, batches * shape.new * bytes_read / machine.bandwidth)
        found["rollout"] = whole / (shape.epochs * shape.minibatches)
    return found
