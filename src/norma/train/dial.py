"""One dial: from a size, or from a time on this machine, to shape, learning rate, batch and tokens, by published rules.

    size "3M" ─────────────────────────────┐
    budget "10min" ─→ the largest size ────┴→ shape (width 64 x layers) ─→ N ─→ tokens 20 N, batch, learning rate, warm-up

N is the number of weights without embeddings, which the rules count by; ``size`` is all of them, as a model's name has it.

    learning rate  0.0047 (N / 108M)^(-1/3), halved          Porian et al., 2406.19146, section 3.4, as in the OLMo ladder, where wsd
                                                             takes half of what cosine does, Muon in AdamW's units too;
    batch          160 x 2048 (N / 108M)^(2/3) tokens        Bhagia et al., 2412.04403, section 2.1
    warm-up        N tokens
    length         20 N tokens                               Hoffmann et al., 2203.15556, section 3; at most 4 epochs,
                                                             after which text that comes again is worth little (2305.16264, figure 3)
    shape          width = 64 x layers, heads of 128         nanochat; deeper and narrower is as good for its size (2001.08361, figure 5)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from norma.base.errors import NormaError
from norma.nn import ModelConfig, preset

REFERENCE = 108e6  # weights of the model that the rules are anchored at
TOKENS_PER_WEIGHT = 20
ASPECT = 64  # width over layers
STEP = 32  # widths are multiples of it
SMALLEST = 20  # steps: fewer updates than this teach nothing, whatever the batch
EPOCHS = 4.0
DEEPEST = 96
_SIZE = re.compile(r"\s*([\d.]+)\s*([kKmMbBgG]?)\s*")
_TIME = re.compile(r"\s*([\d.]+)\s*(s|sec|m|min|h|d)\s*")
_THOUSANDS = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9}
_SECONDS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Dialled:
    """What the dial has set, and why.

    Attributes:
        parameters: all weights; ``weights`` those without embeddings, N.
        tokens: of the whole training; ``batch`` sequences of ``sequence`` tokens a step.
        epochs: passes over the corpus; None where its size is not known.
    """

    width: int
    layers: int
    head_size: int
    parameters: int
    weights: int
    tokens: int
    sequence: int
    batch: int
    steps: int
    warmup: int
    learning_rate: float
    flops: float
    epochs: float | None
    bounded: bool

    def row(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def table(self, seconds: float) -> list[tuple[str, str, str]]:
        """(what, value, why) lines; ``seconds`` is what the training will take on this machine."""
        epochs = "" if self.epochs is None else f"{self.epochs:.2g} epochs"
        why = f"{self.tokens / self.weights:.3g} a weight; {TOKENS_PER_WEIGHT} is best for the arithmetic (2203.15556)"
        why = f"at most {EPOCHS:.0f} passes over this corpus" if self.bounded else why
        return [
            ("layers x width", f"{self.layers} x {self.width}", f"width about {ASPECT} x layers (nanochat)"),
            ("heads", f"{self.width // self.head_size} of {self.head_size}", "few, large ones are fastest"),
            ("parameters", f"{self.parameters:,}", f"{self.weights:,} without embeddings: N of the rules"),
            ("tokens", f"{self.tokens:,}", why + (f"; {epochs}" if epochs else "")),
            ("batch", f"{self.batch} x {self.sequence} tokens", "160 x 2048 (N / 108M)^(2/3) tokens (2412.04403)"),
            ("steps", f"{self.steps:,}", "tokens over batch"),
            ("warm-up", f"{self.warmup} steps", "N tokens (2412.04403)"),
            ("learning rate", f"{self.learning_rate:.2g}", "0.0047 (N / 108M)^(-1/3) / 2 (2412.04403)"),
            ("arithmetic", f"{self.flops:.3g} FLOP", "matrix products, forward and backward"),
            ("time", _words(seconds), f"planned on this machine: {self.flops / seconds / 1e9:,.0f} GFLOP/s in a short calibration"),
        ]


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def parse_size(text: str) -> int:
    """``3M``, ``125M``, ``1.3B`` -> a number of weights."""
    found = _SIZE.fullmatch(text)
    if not found or not (count := _number(found[1]) * _THOUSANDS[found[2].lower()]) >= 1000:
        raise NormaError(f"'{text}' is no size of a model", mend="Write it as 3M, 125M or 1.3B")
    return round(count)


def parse_time(text: str) -> float:
    """``90s``, ``10min``, ``2h`` -> seconds."""
    found = _TIME.fullmatch(text)
    if not found or not (seconds := _number(found[1]) * _SECONDS[found[2]]) > 0:
        raise NormaError(f"'{text}' is no length of time", mend="Write it as 90s, 10min or 2h")
    return seconds


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def learning_rate(weights: float) -> float:
    """Peak learning rate of AdamW, and of Muon in AdamW's units."""
    return 0.0047 * math.pow(weights / REFERENCE, -1 / 3) / 2


def batch_tokens(weights: float) -> float:
    """Tokens of a step."""
    return 160 * 2048 * math.pow(weights / REFERENCE, 2 / 3)


Make = Callable[[int, int, int], ModelConfig]


def maker(family: str, *, vocab_size: int, max_positions: int, settings: Mapping[str, Any]) -> Make:
    """(width, layers, head size) -> the config of a family."""

    def make(width: int, layers: int, head_size: int) -> ModelConfig:
        sizes = {"width": width, "layers": layers, "head_size": head_size, "max_positions": max_positions}
        return preset(family, vocab_size=vocab_size, **sizes, **settings)

    return make


def head_size(width: int) -> int:
    """Large heads where there are at least two of them."""
    return next(size for size in (128, 64, 32) if width % size == 0 and (width >= 2 * size or size == 32))


def shape(make: Make, parameters: int) -> tuple[int, int]:
    """(width, layers) of about so many weights: of the shapes within 5% the one whose width is nearest 64 x layers, else the next smaller.

    Raises NormaError where not even the smallest shape is small enough.
    """
    found: list[tuple[float, float, int, int]] = []
    for layers in range(1, DEEPEST + 1):
        width = _width(make, layers, parameters)
        for candidate in (width, width + STEP):
            if candidate and (ratio := _count(make, candidate, layers) / parameters) <= 1.05:
                found.append((max(0.0, 0.95 - ratio), abs(math.log(candidate / (ASPECT * layers))), candidate, layers))
    if not found:
        smallest = _count(make, STEP, 1)
        mend = f"Take a smaller vocabulary, or at least {smallest / 1e6:.2g}M"
        raise NormaError(f"a model of {parameters:,} weights is too small for this vocabulary", mend=mend)
    _, _, width, layers = min(found)
    return width, layers


def _width(make: Make, layers: int, parameters: int) -> int:
    """The largest width with no more than so many weights, or 0."""
    low, high = 0, STEP
    while _count(make, high, layers) <= parameters:
        low, high = high, 2 * high
    while high - low > STEP:
        middle = (low + high) // (2 * STEP) * STEP
        low, high = (middle, high) if _count(make, middle, layers) <= parameters else (low, middle)
    return low


def _count(make: Make, width: int, layers: int) -> int:
    return make(width, layers, head_size(width)).parameters()


def dial(make: Make, parameters: int, *, sequence: int, corpus_tokens: int | None = None) -> Dialled:
    """All settings of a model of about ``parameters`` weights.

    Args:
        make: the family; see :func:`maker`.
        sequence: tokens of a packed sequence.
        corpus_tokens: how many there are; training reads them ``EPOCHS`` times at most.
    """
    width, layers = shape(make, parameters)
    config = make(width, layers, head_size(width))
    total = config.parameters()
    embeddings = config.vocab_size * width * (1 if config.tie_embeddings else 2)
    weights = max(1, total - embeddings)
    wanted = TOKENS_PER_WEIGHT * weights
    tokens = wanted if corpus_tokens is None else min(wanted, round(EPOCHS * corpus_tokens))
    batch = max(1, round(min(batch_tokens(weights), tokens / SMALLEST) / sequence))
    steps = max(1, round(tokens / (batch * sequence)))
    tokens = steps * batch * sequence
    warmup = min(max(1, round(weights / (batch * sequence))), max(1, steps // 10))
    epochs = None if not corpus_tokens else tokens / corpus_tokens
    return Dialled(
        width=width,
        layers=layers,
        head_size=config.head_size,
        parameters=total,
        weights=weights,
        tokens=tokens,
        sequence=sequence,
        batch=batch,
        steps=steps,
        warmup=warmup,
        learning_rate=learning_rate(weights),
        flops=float(tokens) * config.flops_per_token(sequence),
        epochs=epochs,
        bounded=corpus_tokens is not None and EPOCHS * corpus_tokens < wanted,
    )


def dial_budget(make: Make, flops: float, *, sequence: int, corpus_tokens: int | None = None) -> Dialled:
    """The largest model whose training costs at most ``flops``, the rest spent on more steps; else the smallest, trained shorter."""

    def at(parameters: float) -> Dialled:
        return dial(make, round(parameters), sequence=sequence, corpus_tokens=corpus_tokens)

    low = 1.06 * _count(make, STEP, 1)  # within reach of some shape
    best = at(low)
    if best.flops > flops:
        return lasting(best, flops / best.flops)
    high = 2 * low
    while (longer := at(high)).flops <= flops and high < 1e13:
        low, best, high = high, longer, 2 * high
    while high / low > 1.02:
        middle = math.sqrt(low * high)
        tried = at(middle)
        if tried.flops <= flops:
            low, best = middle, tried
        else:
            high = middle
    most = math.inf if corpus_tokens is None else EPOCHS * corpus_tokens / best.tokens
    return lasting(best, max(1.0, min(flops / best.flops, most)))


def lasting(whole: Dialled, share: float) -> Dialled:
    """The same model trained for ``share`` times the steps."""
    steps = max(1, int(whole.steps * share))
    values = {**whole.row(), "steps": steps, "tokens": steps * whole.batch * whole.sequence, "flops": whole.flops * steps / whole.steps}
    values |= {"warmup": min(whole.warmup, max(1, steps // 10)), "epochs": whole.epochs and whole.epochs * steps / whole.steps}
    return Dialled(**values)
