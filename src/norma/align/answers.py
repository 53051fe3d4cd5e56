"""Training on answers as they stand: sampled ids, never text that is read again.

    groups (a prompt, its answers) ─→ every epoch in an order of its own ─→ micro-batches ─→ -log p of the answers' tokens

What context distillation (sampled), best-of-n and the constitution share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from norma.base.errors import NormaError
from norma.base.random import keyed
from norma.base.ranks import ALONE, Ranks
from norma.lm import LanguageModel
from norma.nn import Transformer
from norma.nn.config import ModelConfig
from norma.objectives.likelihood import cross_entropy_sum
from norma.spec import Message
from norma.text.chat import prompt_ids
from norma.train.scoring import Group, answer_states, split_groups


class AnswerStates(NamedTuple):
    """Of every answer token, in order: features (M, W) that the head's rows are compared with; the token (M,); its answer's number (M,)."""

    features: Tensor
    targets: Tensor
    owners: Tensor


class AnswerTraining:
    """Losses for :func:`norma.train.train`: supervised fine-tuning on the answers of ``groups``, ``size`` groups a step.

    Groups that the model cannot hold are left out; ``left_out`` counts them.
    """

    def __init__(
        self, model: LanguageModel, groups: Sequence[Group], *, size: int, micro_tokens: int, seed: int, dtype: torch.dtype, row: int = 0
    ) -> None:
        self.model, self.micro_tokens, self.seed, self.dtype, self.row = model, micro_tokens, seed, dtype, row
        self.groups = [group for group in groups if fits(model.config, group)]
        self.left_out = len(groups) - len(self.groups)
        if not self.groups:
            raise NormaError(
                f"none of the {len(groups)} answers fits into the model's {model.config.max_positions} positions",
                mend="Ask shorter questions",
            )
        self.size = min(size, len(self.groups))

    def steps(self, epochs: float) -> int:
        """How many steps these are."""
        return max(1, round(epochs * len(self.groups) / self.size))

    def losses(
        self, step: int, network: Transformer | None = None, ranks: Ranks = ALONE
    ) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """A mean over the answer tokens of the whole step, a micro-batch at a time; a pure function of (groups, seed, step).

        ``network`` is what is trained where it is not the model itself. Each of several ranks takes its share of every micro-batch.
        """
        network = self.model.transformer if network is None else network
        order = in_turn(len(self.groups), self.size, self.seed, step, row=self.row)
        tokens = sum(len(answer) for i in order for answer in self.groups[i].answers)
        for part in split_groups([self.groups[i] for i in order], self.micro_tokens * ranks.readers):
            own, counts = part[ranks.share(len(part))], 1.0
            if not own:  # another rank has a row more
                own, counts = part[:1], 0.0
            loss = self.loss([order[i] for i in own], network)
            numbers = {"loss": float(loss.detach()) / tokens, "tokens": float(sum(self.groups[order[i]].tokens() for i in own))}
            yield loss / tokens * (counts * ranks.readers), {name: counts * number for name, number in numbers.items()}

    def loss(self, numbers: Sequence[int], network: Transformer) -> Tensor:
        """Sum over the answer tokens of the groups with these numbers: -log p (Stiennon et al., 2009.01325, 3.3: supervised)."""
        states = states_of(network, [self.groups[i] for i in numbers], self.dtype)
        cap = network.config.logit_softcap
        return cross_entropy_sum(states.features, network.head_weight(), states.targets, bias=network.head_bias, softcap=cap)


def in_turn(count: int, size: int, seed: int, step: int, *, row: int = 0) -> list[int]:
    """Numbers of the ``size`` rows of a step: each epoch goes through all ``count`` once, but for a rest smaller than ``size``."""
    epoch, place = divmod(step * size, count - count % size)
    return [int(i) for i in keyed(seed, epoch, row, use="answers").permutation(count)[place : place + size]]


def states_of(network: Transformer, groups: Sequence[Group], dtype: torch.dtype) -> AnswerStates:
    """What a loss over the whole vocabulary needs of the answers, differentiable."""
    hidden, targets, owners = answer_states(network, groups, dtype=dtype)
    return AnswerStates(network.features(hidden), targets, owners)


def fits(config: ModelConfig, group: Group) -> bool:
    """Whether the model can read the prompt with its longest answer (an encoder-decoder: either of them)."""
    longest = max(map(len, group.answers), default=0)
    if not group.prompt or not longest:
        return False
    together = config.kind == "decoder"
    return (len(group.prompt) + longest if together else max(len(group.prompt), longest)) <= config.max_positions


def readable(model: LanguageModel, messages: Sequence[Message], room: int) -> bool:
    """Whether the model can read a prompt and still write ``room`` tokens."""
    length = len(prompt_ids(model.tokenizer, messages))
    return length + (room if model.config.kind == "decoder" else 0) <= model.config.max_positions


def written(model: LanguageModel, messages: Sequence[Message], text: str) -> Group:
    """A text as an answer that ends: for what people, programs or other models wrote."""
    end = [] if model.tokenizer.eos_id is None else [model.tokenizer.eos_id]
    return Group(prompt_ids(model.tokenizer, messages), [model.tokenizer.encode(text) + end])
