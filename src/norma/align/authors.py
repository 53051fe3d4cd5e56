"""Who writes critiques and revisions, and says which of two answers is better: a model in this process, or one behind an endpoint.

    conversations ─→ write  ─→ texts, None where there is none that can be used
                  └→ prefer ─→ P(A), from the log-probabilities of A and B

What an endpoint says is in the judges' journal before it is used: a run that goes on after a kill asks nothing twice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from norma.align.answers import readable, states_of
from norma.align.constitution_prompts import CHOICES
from norma.base.hashing import digest
from norma.check.judge_journal import Entry, Journal
from norma.check.judge_models import Endpoint
from norma.generate import Sampling, generate
from norma.lm import LanguageModel
from norma.objectives.likelihood import token_logprobs
from norma.spec import CheckerFailure, Message
from norma.text.chat import prompt_ids
from norma.train.scoring import Group, split_groups, sum_by_owner

Conversations = Sequence[Sequence[Message]]
T = TypeVar("T")


class Author(Protocol):
    """Somebody who reads conversations. ``name`` is written beside everything that comes of it."""

    @property
    def name(self) -> str: ...

    def write(self, conversations: Conversations, *, seed: int) -> list[str | None]:
        """The next turn of each."""

    def prefer(self, conversations: Conversations) -> list[float | None]:
        """P(A) / (P(A) + P(B)) of the next turn of each."""


@dataclass(frozen=True)
class LocalAuthor:
    """A model in this process. A conversation that it cannot read, and an answer that was cut off, are None."""

    model: LanguageModel
    name: str
    temperature: float
    max_new_tokens: int
    dtype: torch.dtype
    micro_tokens: int = 8192

    def write(self, conversations: Conversations, *, seed: int) -> list[str | None]:
        kept = [i for i, c in enumerate(conversations) if readable(self.model, c, self.max_new_tokens)]
        prompts = [prompt_ids(self.model.tokenizer, conversations[i]) for i in kept]
        answers = generate(self.model, prompts, Sampling(self.max_new_tokens, self.temperature, seed=seed)) if kept else []
        found: list[str | None] = [None] * len(conversations)
        for i, answer in zip(kept, answers, strict=True):
            if answer.finish_reason == "stop" and answer.text.strip():
                found[i] = answer.text.strip()
        return found

    @torch.no_grad()
    def prefer(self, conversations: Conversations) -> list[float | None]:
        tokenizer = self.model.tokenizer
        choices = [tokenizer.encode(choice) for choice in CHOICES]
        kept = [i for i, c in enumerate(conversations) if readable(self.model, c, max(map(len, choices)))]
        groups = [Group(prompt_ids(tokenizer, conversations[i]), choices) for i in kept]
        found: list[float | None] = [None] * len(conversations)
        self.model.transformer.eval()
        network = self.model.transformer
        for part in split_groups(groups, self.micro_tokens):
            states = states_of(self.model.transformer, [groups[i] for i in part], self.dtype)
            cap = network.config.logit_softcap
            tokens = token_logprobs(states.features, network.head_weight(), states.targets, bias=network.head_bias, softcap=cap)
            log_p = sum_by_owner(tokens.cpu(), states.owners.cpu()).view(-1, len(CHOICES))
            for i, p in zip(part, log_p.softmax(dim=1)[:, 0].tolist(), strict=True):
                found[kept[i]] = p
        return found


@dataclass(frozen=True)
class EndpointAuthor:
    """A model behind an OpenAI-compatible server. A call that fails is None, and is asked again by the next run."""

    endpoint: Endpoint
    journal: Journal
    temperature: float
    max_new_tokens: int
    concurrency: int = 8

    @property
    def name(self) -> str:
        return f"endpoint:{self.endpoint.model}"

    def write(self, conversations: Conversations, *, seed: int) -> list[str | None]:
        def ask(place: int) -> str | None:
            messages = _plain(conversations[place])
            sampling = [self.temperature, self.max_new_tokens, seed + place if self.temperature > 0 else 0]
            return self._once(["write", *sampling], messages, lambda: self._written(messages, seed + place))

        return self._all(ask, len(conversations))

    def prefer(self, conversations: Conversations) -> list[float | None]:
        def ask(place: int) -> float | None:
            messages = _plain(conversations[place])
            said = self._once(["prefer"], messages, lambda: json.dumps(self._preferred(messages)))
            return None if said is None else preference(json.loads(said))

        return self._all(ask, len(conversations))

    def _all(self, ask: Callable[[int], T], count: int) -> list[T]:
        with ThreadPoolExecutor(self.concurrency, thread_name_prefix="norma-ask") as pool:
            return list(pool.map(ask, range(count)))

    def _once(self, what: list[object], messages: list[dict[str, str]], ask: Callable[[], str]) -> str | None:
        """The journaled reply, or a new one, journaled; None where the server fails."""
        who = digest([self.endpoint.url, self.endpoint.model])
        key = digest([who, what, messages])
        found = self.journal.find(key)
        if found is None:
            try:
                reply = ask()
            except CheckerFailure:
                return None
            self.journal.add(Entry(key, who, json.dumps(messages, ensure_ascii=False), reply, "said", 0.0))
            found = self.journal.find(key)  # the first reply stands, whoever asked for it
        return found

    def _written(self, messages: list[dict[str, str]], seed: int) -> str:
        reply = self.endpoint.ask(messages, temperature=self.temperature, max_tokens=self.max_new_tokens, seed=seed)
        if reply.fault or not reply.text.strip():
            raise CheckerFailure(reply.fault or "the server wrote nothing")
        return reply.text.strip()

    def _preferred(self, messages: list[dict[str, str]]) -> dict[str, float]:
        """Log-probabilities of A and B; of a server that tells none, 0 for the letter that it wrote."""
        text, found = self.endpoint.first_tokens(messages)
        sums = {choice: [v for token, v in found.items() if _bare(token) == choice] for choice in CHOICES}
        known = {choice: math.log(sum(map(math.exp, values))) for choice, values in sums.items() if values}
        if not known and _bare(text) in CHOICES:
            known = {_bare(text): 0.0}
        if not known:
            raise CheckerFailure(f"the server says neither A nor B, but {text!r}")
        return known


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def _bare(token: str) -> str:
    """The letter of a token such as " A" or "(A"."""
    return token.strip().lstrip("(").rstrip(").:")


def preference(log_p: dict[str, float]) -> float:
    """P(A) among A and B from log-probabilities; a letter that is not there has probability 0."""
    a, b = (log_p.get(choice, -math.inf) for choice in CHOICES)
    most = max(a, b)
    return math.exp(a - most) / (math.exp(a - most) + math.exp(b - most))
