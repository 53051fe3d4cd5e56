"""Kind ``judge``: a model decides, from the rule's wording, by several votes. Used by :func:`build`; the rest is in the judge_* files.

    votes: kept? broken? kept? ... ─each: journal, else ask, parse, journal─→ yes | no | unsure | failed
                                   └─ a majority of all votes, whatever the open ones turn out to be ─→ compliant | violation
                                   └─ none possible: a failed vote could decide ─→ CheckerFailure (an error verdict), else unsure

Asking stops as soon as the majority is settled. A vote's key covers model, sampling,
the messages (rule, prompt, conversation, answer) and its number: more votes, or a changed word in this file, ask nothing again.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from norma.base.endpoints import base_url
from norma.base.errors import NormaError
from norma.base.hashing import digest
from norma.check import folders
from norma.check.binding import parameters
from norma.check.judge_journal import Entry, Journal, default_place
from norma.check.judge_models import Endpoint, Local, Model, Reply
from norma.check.judge_prompt import PROMPTS, QUESTIONS, Word, asked, checked_template, parsed
from norma.check.program import hollow
from norma.check.segment import family, visible
from norma.check.source_digest import code_digest
from norma.spec.rule import Rule
from norma.spec.types import CheckerFailure, Finding, Item, Status


class JudgeParams(BaseModel):
    """Parameters of a judge. Those marked * say how it is reached and paid, and are no part of its digest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(default="", description="Server's address; none: NORMA_JUDGE_URL. A model folder in `use` needs no server.")
    key_env: str | None = Field(default=None, description="* Environment variable that holds the key; none: OPENAI_API_KEY if it is set.")
    votes: int = Field(default=1, ge=1, le=99, description="Votes; every second one asks whether the rule is broken.")
    temperature: float = Field(default=0.0, ge=0, le=2, description="Of the judge's sampling; above 0 each vote has a seed of its own.")
    max_tokens: int = Field(default=512, ge=8, description="Longest reply, in tokens.")
    prompt: dict[str, str] = Field(
        default_factory=dict, description="Own templates by language, with $rule, $answer, $question, $conversation."
    )
    languages: tuple[str, ...] = Field(default=(), description="Languages that the judge reads (BCP-47); none: every one.")
    attempts: int = Field(default=6, ge=1, description="* Tries for one vote when the server fails.")
    timeout: float = Field(default=120.0, gt=0, description="* Seconds until a silent server counts as a failed try.")
    max_calls: int | None = Field(default=None, ge=1, description="* Most calls of this judge, over all runs with this journal.")
    max_cost: float | None = Field(default=None, gt=0, description="* Most dollars of this judge, over all runs with this journal.")
    price_in: float | None = Field(default=None, ge=0, description="* Dollars per million tokens read.")
    price_out: float | None = Field(default=None, ge=0, description="* Dollars per million tokens written.")
    journal: str = Field(default="", description="* File of the journal; none: NORMA_JUDGE_JOURNAL, else the user's cache folder.")

    @field_validator("prompt")
    @classmethod
    def _templates(cls, value: dict[str, str]) -> dict[str, str]:
        return {language: checked_template(text) for language, text in value.items()}

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if self.max_cost is not None and (self.price_in is None or self.price_out is None):
            raise ValueError("max_cost needs price_in and price_out, in dollars per million tokens")
        return self

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Dollars."""
        return ((self.price_in or 0) * prompt_tokens + (self.price_out or 0) * completion_tokens) / 1e6


_REACH = {"key_env", "attempts", "timeout", "max_calls", "max_cost", "price_in", "price_out", "journal"}


@dataclass(frozen=True)
class Judge:
    """A judge with its rule and parameters bound. ``statement``: the rule's wording by language."""

    id: str
    model: Model
    statement: Mapping[str, str]
    source_language: str
    params: JudgeParams
    asking: str  # digest of model and sampling: with the messages and the vote's number the key of a reply
    digest: str
    languages: frozenset[str]
    _open: list[Journal] = field(default_factory=list, compare=False, repr=False)
    _one_call: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def check(self, item: Item, response: str) -> Finding:
        """Judge one response; raises CheckerFailure where votes fail and could decide."""
        said = hollow(item, response)
        if said is not None:
            return said
        answer = visible(response)[0]
        kept = broken = failed = 0
        reason, needed = "", self.params.votes // 2 + 1
        for number in range(self.params.votes):
            try:
                word = self._vote(item, answer, number)
            except CheckerFailure as error:
                failed, reason = failed + 1, str(error)
            else:
                yes = "kept" if number % 2 == 0 else "broken"
                kept += word == ("yes" if yes == "kept" else "no")
                broken += word == ("no" if yes == "kept" else "yes")
            if max(kept, broken) >= needed:
                break
        share = kept / (kept + broken) if kept + broken else None
        note = f"{kept} votes for kept, {broken} for broken, {failed} failed"
        if max(kept, broken) >= needed:
            return Finding(Status.COMPLIANT if kept > broken else Status.VIOLATION, share, (), note, (share or 0.0) - 0.5)
        if failed and max(kept, broken) + failed >= needed:
            raise CheckerFailure(f"{failed} of {self.params.votes} votes failed, the last one: {reason}")
        return Finding(Status.UNSURE, None, (), note)

    def _vote(self, item: Item, answer: str, number: int) -> Word:
        """One vote, from the journal or asked; the reply is journaled before it is used. Raises CheckerFailure."""
        language = family(item.language) if family(item.language) in QUESTIONS else "en"
        template = self.params.prompt.get(language) or self.params.prompt.get("en") or PROMPTS[language]
        statement = self.statement.get(item.language) or next(
            (text for tag, text in self.statement.items() if family(tag) == family(item.language)), self.statement[self.source_language]
        )
        messages = asked(template, statement, item.messages, answer, language, broken=number % 2 == 1)
        key, journal = digest([self.asking, messages, number]), self._journal()
        found = journal.find(key)
        if found is None:
            capped = self.params.max_calls is not None or self.params.max_cost is not None
            # Under a cap one call at a time: each must see what the one before it cost.
            with self._one_call if capped else nullcontext():
                word, reason = self._ask(journal, key, messages, number)
            if word is None:
                raise CheckerFailure(reason)
            found = journal.find(key)  # the first reply stands, whoever asked for it
        assert found is not None
        return parsed(found)

    def _ask(self, journal: Journal, key: str, messages: list[dict[str, str]], number: int) -> tuple[Word | None, str]:
        """Ask, and journal the reply with its cost; the word, or None and why there is none."""
        self._afford(journal, messages)
        reply = self.model.ask(messages, temperature=self.params.temperature, max_tokens=self.params.max_tokens, seed=number)
        word, reason = _read(reply)
        used = _tokens(messages) if reply.prompt_tokens is None else reply.prompt_tokens
        written = len(reply.text.encode()) if reply.completion_tokens is None else reply.completion_tokens
        request = json.dumps(messages, ensure_ascii=False)
        journal.add(Entry(key, self.digest, request, reply.text, word, self.params.cost(used, written)))
        return word, reason

    def _journal(self) -> Journal:
        if not self._open:
            self._open.append(Journal(Path(self.params.journal).expanduser() if self.params.journal else default_place()))
        return self._open[0]

    def _afford(self, journal: Journal, messages: list[dict[str, str]]) -> None:
        """Raises CheckerFailure when the next call could pass a cap: a token is at least a byte, so bytes bound what it can cost."""
        p = self.params
        if p.max_calls is None and p.max_cost is None:
            return
        dollars, calls = journal.spent(self.digest)
        if p.max_calls is not None and calls >= p.max_calls:
            raise CheckerFailure(f"the judge has made its {p.max_calls} calls (max_calls)")
        if p.max_cost is not None and dollars + p.cost(_tokens(messages), p.max_tokens) > p.max_cost:
            raise CheckerFailure(f"the judge has spent {dollars:.4f} of {p.max_cost} dollars, and the next call could pass that (max_cost)")


def _read(reply: Reply) -> tuple[Word | None, str]:
    """The word of a reply, or None and why it cannot be used."""
    try:
        return (None, reply.fault) if reply.fault else (parsed(reply.text), "")
    except CheckerFailure as error:
        return None, str(error)


def _tokens(messages: list[dict[str, str]]) -> int:
    """The most tokens that messages can have: their bytes, and a few for each message's frame."""
    return sum(len(m["content"].encode()) + 16 for m in messages)


def build(use: str, params: dict[str, Any], where: str, rule: Rule | None = None) -> Judge:
    """Bind the judge ``use``, the name of a served model or a model folder (entry point ``norma.checkers: judge``)."""
    values = parameters(JudgeParams, "judge", params, where)
    if rule is None:
        raise NormaError("a judge needs the wording of a rule", where=where, mend="Use it in a spec")
    if not use:
        raise NormaError("the judge has no model", where=where, mend="Add 'use:' with the name of a served model, or a model folder")
    folder = Path(use).expanduser()
    model: Model
    if (folder / "config.json").is_file():
        identity = folders.identity(folder)
        model, who = Local(folder, identity), {"folder": identity}
    else:
        url = values.base_url or os.environ.get("NORMA_JUDGE_URL", "")
        if not url:
            raise NormaError(
                f"the judge '{use}' is no model folder, and no server is named", where=where, mend="Add 'base_url:' or set NORMA_JUDGE_URL"
            )
        address = base_url(url)
        model, who = Endpoint(address, use, values.key_env, values.timeout, values.attempts), {"url": address, "model": use}
    prompts = {**PROMPTS, **values.prompt}
    chosen = values.model_dump(mode="json", exclude=_REACH | {"base_url", "prompt"})
    code = code_digest(Judge, JudgeParams, parsed, asked)
    asking = digest([who, values.temperature, values.max_tokens])
    made = digest(["judge", who, chosen, prompts, QUESTIONS, dict(rule.statement), code])
    return Judge(use, model, rule.statement, rule.source_language, values, asking, made, frozenset(values.languages))
