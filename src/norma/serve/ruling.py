"""The spec between a request and its answer: which rules are shown, what each one's verdict leads to, and what the client is told.

    messages ─show─→ messages with rules          answers ─judge─→ verdicts, R(x, y) ─→ served, best of n, or refused

Per rule: ``observe`` (verdicts are reported), ``best-of:N`` (a broken rule makes N - 1 further answers, and the best by R(x, y) is taken),
``enforce`` (an answer that breaks the rule, or that a checker could not judge, is not given out). R is composed from the train checkers;
held-out checkers never choose an answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from norma.base.errors import NormaError, nearest
from norma.evaluate.prompts import wording_for
from norma.spec import Item, Message, Status, Verdict

if TYPE_CHECKING:
    from norma.spec import Spec

MAX_BEST_OF = 16
WARMTH = 0.7  # temperature of further answers, where a greedy one was asked for
Shown = Literal["applicable", "all", "none"]

_REFUSALS = {
    "en": "I'm sorry, but I cannot give an answer to this that keeps to the rules of this service. Please ask in another way.",
    "zh": "很抱歉，对于这个问题，我无法给出符合本服务规则的回答。请换一种方式提问。",
}


@dataclass(frozen=True)
class Policy:
    """What a rule's verdict leads to; ``n`` answers with ``best-of``."""

    action: Literal["observe", "best-of", "enforce"] = "observe"
    n: int = 1

    @staticmethod
    def parse(text: str) -> Policy:
        """``observe``, ``best-of:4`` or ``enforce``. Raises NormaError."""
        if text == "observe":
            return Policy("observe")
        if text == "enforce":
            return Policy("enforce")
        found = re.fullmatch(r"best-of:\s*(\d{1,3})", text)
        if found is None:
            raise NormaError(f"'{text}' is no policy for a rule", mend="Use observe, best-of:N or enforce")
        if not 2 <= int(found[1]) <= MAX_BEST_OF:
            raise NormaError(f"best of {found[1]} is not offered", mend=f"N is 2 to {MAX_BEST_OF}")
        return Policy("best-of", int(found[1]))


@dataclass(frozen=True)
class Judgement:
    """What the rules say of one answer; ``reward`` is R(x, y), None where the spec has none for it."""

    verdicts: Sequence[Verdict]
    reward: float | None = None

    def rules(self, *statuses: Status) -> tuple[str, ...]:
        """Rules with a verdict of one of ``statuses``, in the spec's order."""
        return tuple(dict.fromkeys(v.rule for v in self.verdicts if v.status in statuses))

    @property
    def broken(self) -> tuple[str, ...]:
        return self.rules(Status.VIOLATION)

    @property
    def status(self) -> str:
        """The worst of the verdicts; "none" where no rule was active."""
        found = {v.status for v in self.verdicts}
        worst = (s for s in (Status.VIOLATION, Status.ERROR, Status.UNSURE, Status.COMPLIANT) if s in found)
        return next(worst, "none")


@dataclass
class Outcome:
    """What became of one answer: ``served``, ``best-of`` (of ``tried`` answers) or ``refused``."""

    judgement: Judgement
    action: Literal["served", "best-of", "refused"] = "served"
    tried: int = 1
    reasons: tuple[str, ...] = field(default=())


class Ruling:
    """A spec at work in a server.

    Args:
        default: the policy of rules that ``policies`` ({rule: policy}) does not name.
        shown: which rules stand in the prompt.
    """

    def __init__(
        self,
        spec: Spec,
        default: Policy = Policy(),
        policies: Mapping[str, Policy] | None = None,
        shown: Shown = "applicable",
    ) -> None:
        self.spec, self.shown = spec, shown
        known = [rule.id for rule in spec.rules]
        for rule in policies or {}:
            if rule not in known:
                raise NormaError(f"unknown rule '{rule}'", where=spec.id, mend=nearest(rule, known))
        self.policies = {rule: (policies or {}).get(rule, default) for rule in known}

    def show(self, messages: Sequence[Message], item: Item) -> list[Message]:
        """The conversation with its rules in front."""
        return self.spec.render(messages, item, language=wording_for(self.spec.languages, item.language), rules=self.shown)

    def holding(self, item: Item) -> tuple[str, ...]:
        """Active rules for which an answer has to be judged before it is given out."""
        return tuple(rule for rule in self.spec.resolve(item).active if self.policies[rule].action != "observe")

    def judge(self, item: Item, answers: Sequence[str]) -> list[Judgement]:
        """Verdicts and R of answers to one input; R is comparable among them."""
        rewards = self.spec.rewards(item, [self.spec.verdicts(item, text, "train") for text in answers])
        return [Judgement(self.spec.verdicts(item, text, "report"), r.value) for text, r in zip(answers, rewards, strict=True)]

    def more(self, judgement: Judgement) -> int:
        """How many further answers are wanted after this one."""
        sizes = [self.policies[rule].n for rule in judgement.broken if self.policies[rule].action == "best-of"]
        return max(sizes, default=1) - 1

    def forbidden(self, judgement: Judgement) -> tuple[str, ...]:
        """Enforced rules that this answer breaks, or that nobody could judge: an error is never a pass."""
        return tuple(r for r in judgement.rules(Status.VIOLATION, Status.ERROR) if self.policies[r].action == "enforce")

    def best(self, found: Sequence[Judgement]) -> int:
        """The answer to take: one that may be given out, by R(x, y), then by fewest broken rules, then the first."""

        def value(i: int) -> tuple[bool, bool, float, int, int]:
            j = found[i]
            return (not self.forbidden(j), j.reward is not None, j.reward or 0.0, -len(j.broken), -i)

        return max(range(len(found)), key=value)

    def field(self, item: Item, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """The ``norma`` field: which rules were active for this conversation, each checker's verdict on each answer, what was done."""
        resolution = self.spec.resolve(item)
        rules = {rule: {"status": s.status.value, "reason": s.reason, "by": s.by} for rule, s in resolution.statuses.items()}
        about = {"spec": self.spec.id, "version": self.spec.version, "digest": self.spec.digest, "language": item.language}
        verdicts, actions = [], []
        for i, outcome in enumerate(outcomes):
            refused = outcome.action == "refused"
            for v in outcome.judgement.verdicts:
                # Of an answer that is not given out nothing is quoted.
                verdicts.append({"choice": i, **v.row(), **({"evidence": [], "note": ""} if refused else {})})
            about_choice = {"choice": i, "action": outcome.action, "tried": outcome.tried, "reward": outcome.judgement.reward}
            actions.append({**about_choice, "status": outcome.judgement.status, "broken": list(outcome.judgement.broken)})
        return {**about, "active": list(resolution.active), "rules": rules, "verdicts": verdicts, "choices": actions}


def header(outcomes: Sequence[Outcome]) -> str:
    """``X-Norma-Compliance``, a dictionary of RFC 9651: ``status=violation, kept=4, judged=5, broken="a b", action=served``.

    Of several choices the worst status counts, and the numbers are sums over verdicts.
    """
    judged = [v for o in outcomes for v in o.judgement.verdicts if v.status is not Status.NOT_APPLICABLE]
    kept = sum(v.status is Status.COMPLIANT for v in judged)
    order = ("violation", "error", "unsure", "compliant", "none")
    status = min((o.judgement.status for o in outcomes), key=order.index, default="none")
    broken = " ".join(dict.fromkeys(rule for o in outcomes for rule in o.judgement.broken))
    actions = " ".join(dict.fromkeys(o.action for o in outcomes))
    safe = re.sub(r"[^\x20-\x21\x23-\x5b\x5d-\x7e]", "?", broken)
    return f'status={status}, kept={kept}, judged={len(judged)}, broken="{safe}", action="{actions}"'


def refusal(language: str) -> str:
    """What the asker reads instead of an answer that is held back."""
    return _REFUSALS["zh" if language.split("-")[0] == "zh" else "en"]
