"""Rollouts: which random numbers an answer has does not depend on the rank that writes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from norma.align.policy_options import PolicyOptions
from norma.align.rewarding import Judged
from norma.align.sampling import draw
from norma.base.ranks import Ranks
from norma.generate import Completion, Sampling
from norma.lm import LanguageModel
from norma.spec import Item, Message


class Noted:
    """An engine that writes nothing and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: dict[tuple[int, int], tuple[int, ...]] = {}  # (seed, row) → prompt
        self.calls = 0

    def generate(self, model: Any, prompts: Sequence[Sequence[int]], sampling: Sampling, *, rows: Any = None) -> list[Completion]:
        self.calls += 1
        for prompt, row in zip(prompts, rows, strict=True):
            assert (sampling.seed, row) not in self.asked
            self.asked[sampling.seed, row] = tuple(prompt)
        return [Completion((5,), "x", "stop", (0.0,)) for _ in prompts]

    def publish(self, model: Any, version: str, ranks: Any = None) -> None: ...

    def complete(self, *args: Any, **more: Any) -> list[str]:
        return []

    def stream(self, *args: Any, **more: Any) -> Any: ...


class Flat:
    """A reward that finds everything equal: dynamic sampling always asks again."""

    def judge(self, groups: Any, multipliers: Any) -> list[Judged]:
        return [Judged(item, [], [1.0] * len(answers), [], [], list(answers)) for item, answers in groups]


class Alone(Ranks):
    """One of several ranks, which gathers what it has itself."""

    def gather_readers(self, value: Any) -> list[Any]:
        return [value]


ITEMS = [Item(str(i), (Message(role="user", content=f"What does {i} do?"),)) for i in range(7)]


def asked(model: LanguageModel, ranks: Ranks, **more: Any) -> Noted:
    engine = Noted()
    model.engine = engine
    draw(model, ITEMS, Flat(), PolicyOptions(questions=5, group=3, **more), 4, {}, seed=9, ranks=ranks)  # type: ignore[arg-type]
    return engine


def test_two_ranks_ask_what_one_asks(make_model: Callable[..., LanguageModel]) -> None:
    whole, *parts = (asked(make_model(), ranks) for ranks in (Ranks(), Alone(0, 2), Alone(1, 2)))
    assert whole.calls == 1 and len(whole.asked) == 15, "all answers are written together"
    assert not parts[0].asked.keys() & parts[1].asked.keys() and parts[0].asked | parts[1].asked == whole.asked
    assert sorted(row for _, row in whole.asked) == list(range(15))


def test_groups_without_signal_are_asked_for_anew(make_model: Callable[..., LanguageModel]) -> None:
    """Two further questions are all that is left; they have random numbers of their own."""
    found = asked(make_model(), Ranks(), refills=3)
    assert found.calls == 2 and len(found.asked) == 15 + 6 and len({seed for seed, _ in found.asked}) == 2
    assert len(set(found.asked.values())) == 7
