"""Who is examined: a model folder on this machine, or, for tasks that are answered in writing, one behind an endpoint.

(prompt, choices) ─→ nats of each choice behind the prompt        the prompt is read once for all of them
text              ─→ nats, tokens, bytes, words
prompt            ─→ text                                         norma.evaluate.sampling, journaled
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from norma.base.errors import NormaError

if TYPE_CHECKING:
    from norma.evaluate.minimal_pairs import Pair
    from norma.evaluate.sampling import Answerer, Options
    from norma.lm import LanguageModel
    from norma.train.scoring import Group

TOKENS = 8192  # read at one time
LENGTH = 1024  # of a text that are read together


@dataclass(frozen=True)
class Asked:
    """A prompt and what may follow it. ``system``: as in a chat, what is said before; None: the text is continued as it is."""

    prompt: str
    choices: tuple[str, ...]
    system: str | None = None


class Subject(Protocol):
    """A model that is examined; ``identity`` changes whenever its answers might."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    def fits(self, asked: Asked, new_tokens: int = 0) -> bool:
        """Whether the prompt leaves room for the longest choice, or for so many tokens."""

    def choice_nats(self, asked: Sequence[Asked]) -> list[list[float]]:
        """-log p in nats of each choice."""

    def text_nats(self, texts: Sequence[str]) -> list[list[float]]:
        """[nats, tokens, bytes, words] of each text."""

    def pair_right(self, pairs: Sequence[Pair]) -> list[float]:
        """1 where the good sentence is the likelier one."""

    def answerer(self, options: Options, stop: str, raw: bool) -> Answerer:
        """Who writes. ``raw``: texts are continued until ``stop``; otherwise they are questions of a chat."""


class LocalSubject:
    """A folder on this machine; numbers are read in fp32, one batch at a time. ``weights`` is a digest of its folder."""

    def __init__(self, model: LanguageModel, weights: str) -> None:
        self.model, self.weights = model, weights

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def identity(self) -> str:
        return self.weights

    def _ids(self, asked: Asked) -> tuple[list[int], list[list[int]]]:
        from norma.text.chat import prompt_ids

        tokenizer = self.model.tokenizer
        if asked.system is not None:  # the assistant's turn begins with the answer itself
            content = f"{asked.system}\n\n{asked.prompt}" if asked.system else asked.prompt
            before = prompt_ids(tokenizer, [{"role": "user", "content": content}])
            return before, [tokenizer.encode(choice.strip()) for choice in asked.choices]
        head = _head(self.model)
        first = tokenizer.encode(asked.prompt)
        return head + first, [continuation(tokenizer, asked.prompt, choice, len(first)) for choice in asked.choices]

    def fits(self, asked: Asked, new_tokens: int = 0) -> bool:
        before, after = self._ids(asked)
        return len(before) + max([new_tokens, *map(len, after)]) <= self.model.config.max_positions

    def choice_nats(self, asked: Sequence[Asked]) -> list[list[float]]:
        import torch

        from norma.train.scoring import Group, answer_logprobs, split_groups

        groups = []
        for one in asked:
            before, after = self._ids(one)
            if not before or not all(after):
                raise NormaError("a prompt or a choice is empty", where=repr(one.prompt[:60]), mend="Mend the task's prompt and choices")
            room = self.model.config.max_positions - max(map(len, after))
            groups.append(Group(before[-room:] if room < len(before) else before, after))
        made = joined(groups) if self.model.config.kind == "decoder" else [(group, [i]) for i, group in enumerate(groups)]
        out: list[list[float]] = [[] for _ in asked]
        with torch.no_grad():
            for part in split_groups([group for group, _ in made], TOKENS):
                log_p, _ = answer_logprobs(self.model.transformer, [made[m][0] for m in part], dtype=torch.float32)
                each = iter(torch.split(log_p.double(), [len(answer) for m in part for answer in made[m][0].answers]))
                for i in (i for m in part for i in made[m][1]):
                    out[i] = [-float(next(each)[-len(choice) :].sum()) for choice in groups[i].answers]
        return out

    def text_nats(self, texts: Sequence[str]) -> list[list[float]]:
        from norma.evaluate.likelihood import bits_per_byte

        out = []
        for text in texts:
            size = len(text.encode())
            tokens = len(self.model.tokenizer.encode(text)) + (self.model.tokenizer.eos_id is not None)
            length = min(self.model.config.max_positions, LENGTH, -(-(tokens + 1) // 32) * 32)  # no wider than the text
            nats = bits_per_byte(self.model, [text], length=length) * np.log(2) * size
            tokens -= self.model.tokenizer.bos_id is None  # the first token is not foretold
            out.append([float(nats), float(tokens), float(size), float(len(text.split()))])
        return out

    def pair_right(self, pairs: Sequence[Pair]) -> list[float]:
        from norma.evaluate.minimal_pairs import accuracy, sentence_nats, ways_of

        way = ways_of(self.model)[0]
        nats = sentence_nats(self.model, [t for p in pairs for t in (p.good, p.bad)], way)
        return [float(v) for v in accuracy(nats[::2], nats[1::2])]

    def answerer(self, options: Options, stop: str, raw: bool) -> Answerer:
        from norma.evaluate.sampling import LocalAnswerer

        model: Any = _Stopping(self.model, (stop,)) if stop and raw else self.model
        return LocalAnswerer(model, options, f"{self.weights} {stop!r}", raw=raw)


class EndpointSubject:
    """A model behind an endpoint: it writes, and says no likelihoods."""

    def __init__(self, make: Callable[[Options], Answerer]) -> None:
        from norma.evaluate.sampling import Options

        self._make = make
        self._answerer = make(Options())

    @property
    def name(self) -> str:
        return self._answerer.name

    @property
    def identity(self) -> str:
        return self._answerer.identity

    def fits(self, asked: Asked, new_tokens: int = 0) -> bool:
        return True  # only the server knows its context

    def _cannot(self) -> NormaError:
        return NormaError(
            "this task needs likelihoods, which a chat endpoint does not give", where=self.name, mend="Give a model folder, or other tasks"
        )

    def choice_nats(self, asked: Sequence[Asked]) -> list[list[float]]:
        raise self._cannot()

    def text_nats(self, texts: Sequence[str]) -> list[list[float]]:
        raise self._cannot()

    def pair_right(self, pairs: Sequence[Pair]) -> list[float]:
        raise self._cannot()

    def answerer(self, options: Options, stop: str, raw: bool) -> Answerer:
        return self._make(options)


@dataclass
class _Stopping:
    """A model that ends its texts at a string."""

    model: Any
    stop: tuple[str, ...]

    @property
    def name(self) -> str:
        return str(self.model.name)

    def chat(self, conversations: Any, **sampling: Any) -> list[str]:
        found: list[str] = self.model.chat(conversations, stop=self.stop, **sampling)
        return found

    def generate(self, prompts: Any, **sampling: Any) -> list[str]:
        found: list[str] = self.model.generate(prompts, stop=self.stop, **sampling)
        return found


def joined(groups: Sequence[Group]) -> list[tuple[Group, list[int]]]:
    """Neighbours whose prompts begin alike as one group, and the numbers of those in it: what differs stands before their answers.

    The examples of a few-shot prompt are thus read once for a question and the questions without content that calibrate it. Only where
    that makes fewer tokens.
    """
    from norma.train.scoring import Group

    made: list[tuple[Group, list[int]]] = []
    for i, group in enumerate(groups):
        if made:
            before, members = made[-1]
            own = [groups[k] for k in (*members, i)]
            shortest = min(len(g.prompt) for g in own) - 1  # a token of each prompt is left, to foretell the answers' first
            n = next((t for t in range(shortest) if len({g.prompt[t] for g in own}) > 1), shortest)
            both = Group(own[0].prompt[:n], [[*g.prompt[n:], *answer] for g in own for answer in g.answers])
            if n and both.tokens() < before.tokens() + group.tokens():
                made[-1] = (both, [*members, i])
                continue
        made.append((group, [i]))
    return made


def _head(model: LanguageModel) -> list[int]:
    """What a plain text begins with."""
    bos = model.tokenizer.bos_id
    return [] if bos is None or model.tokenizer.config.get("add_bos_token") is False else [bos]


def continuation(tokenizer: Any, context: str, text: str, before: int) -> list[int]:
    """Ids of ``text`` as it stands behind ``context``, of which ``before`` tokens are: what the whole has more than the context.

    As lm-evaluation-harness divides them: where a token reaches over the border, it counts to the context.
    """
    whole: list[int] = tokenizer.encode(context + text)
    return whole[before:] or tokenizer.encode(text)
