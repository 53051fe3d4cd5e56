"""A rollout: what the policy wrote, what it was worth, and what the models thought of each token when it was written.

Kept as plain token ids (never as text that would be read again) and flat tensors over the tokens of all answers, in order: there is no
padding anywhere. Between its steps it lives in the loop's ``state`` as text, so that a killed run goes on with these very numbers.

Letters: A answers, M tokens of answers.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TypeVar

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from norma.train.scoring import Group

T = TypeVar("T")


@dataclass
class Rollout:
    """Groups of answers that have a reward; the masked ones have left.

    Attributes:
        rewards_A: R(x, y) with its penalties, without the leash.
        tokens: name -> (M,) fp32: ``old`` and ``reference`` log-probabilities by the trainer's forward pass, ``sampled`` ones by the
            engine, ``values``, ``returns``, ``advantages``. What a method does not need is missing.
        numbers: what is logged with each of the rollout's steps.
    """

    number: int
    groups: list[Group]
    rewards_A: Tensor
    tokens: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)

    @property
    def lengths_A(self) -> Tensor:
        """Tokens of each answer, the end token included."""
        return torch.tensor([len(a) for g in self.groups for a in g.answers], dtype=torch.int64)

    def answers_of(self, groups: Sequence[int]) -> Tensor:
        """Numbers of the answers of some groups, in the order of the groups."""
        starts = [0, *accumulate(len(g.answers) for g in self.groups)]
        return torch.tensor([a for g in groups for a in range(starts[g], starts[g + 1])], dtype=torch.int64)

    def places_of(self, groups: Sequence[int]) -> Tensor:
        """Places of their tokens in the flat tensors."""
        starts = [0, *accumulate(self.lengths_A.tolist())]
        return torch.tensor([t for a in self.answers_of(groups).tolist() for t in range(starts[a], starts[a + 1])], dtype=torch.int64)

    def padded(self, values_M: Tensor) -> Tensor:
        """(A, T): one answer a row, zeros behind it."""
        return pad_sequence(list(torch.split(values_M, self.lengths_A.tolist())), batch_first=True)

    def flat(self, values_AT: Tensor) -> Tensor:
        """(M,): the inverse of :meth:`padded`."""
        lengths = self.lengths_A
        return values_AT[torch.arange(values_AT.shape[1])[None] < lengths[:, None]]

    def to_text(self) -> str:
        """All of it, to the bit, as text that JSON can hold."""
        ids = {
            "prompts": [t for g in self.groups for t in g.prompt],
            "prompt_lengths": [len(g.prompt) for g in self.groups],
            "answers": [t for g in self.groups for a in g.answers for t in a],
            "answer_lengths": self.lengths_A.tolist(),
            "group_sizes": [len(g.answers) for g in self.groups],
        }
        tensors = {name: torch.tensor(values, dtype=torch.int32) for name, values in ids.items()}
        tensors |= {"rewards": self.rewards_A} | {f"tokens/{name}": t.contiguous() for name, t in self.tokens.items()}
        head = json.dumps({"number": self.number, "numbers": self.numbers})
        return head + "\n" + base64.b64encode(save(tensors)).decode("ascii")

    @staticmethod
    def from_text(text: str) -> Rollout:
        head, _, body = text.partition("\n")
        said, tensors = json.loads(head), load(base64.b64decode(body))
        lists = {name: tensor.tolist() for name, tensor in tensors.items() if tensor.dtype == torch.int32}
        answers = _cut(lists["answers"], lists["answer_lengths"])
        prompts = _cut(lists["prompts"], lists["prompt_lengths"])
        groups = [Group(p, a) for p, a in zip(prompts, _cut(answers, lists["group_sizes"]), strict=True)]
        tokens = {name.removeprefix("tokens/"): tensor for name, tensor in tensors.items() if name.startswith("tokens/")}
        return Rollout(said["number"], groups, tensors["rewards"], tokens, said["numbers"])


def _cut(values: Sequence[T], lengths: Sequence[int]) -> list[Sequence[T]]:
    ends = list(accumulate(lengths))
    return [values[end - n : end] for n, end in zip(lengths, ends, strict=True)]
