"""fp32 everywhere, the demo's spec, and a spec whose only rule is what a test says it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from norma.spec import Item, Message, Reward, Spec, Status, Verdict
from norma.spec.schema import ComposeEntry

sys.path.insert(0, str(Path(__file__).parent))  # the helpers of this folder can be imported by its tests


@pytest.fixture(autouse=True)
def fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("norma.generate.engine.working_dtype", lambda: torch.float32)


@pytest.fixture(scope="session")
def spec() -> Spec:
    return Spec.load(Path(__file__).parents[2] / "recipes" / "courteous-docs.spec.yaml")


@dataclass
class OneRule:
    """Stands in for a Spec: the reward of an answer is ``score(text)``; None masks it."""

    score: Callable[[str], float | None]
    composition: ComposeEntry = field(default_factory=ComposeEntry)

    def checkers(self, role: str) -> dict[str, list[object]]:
        return {}

    def verdicts(self, item: Item, response: str, role: str) -> list[Verdict]:
        value = self.score(response)
        status = Status.ERROR if value is None else Status.COMPLIANT if value > 0 else Status.VIOLATION
        return [Verdict("only", "hash", item.id, "fake", "digest", role, status, value)]

    def rewards(self, items: Sequence[Item], group: Sequence[Sequence[Verdict]]) -> list[Reward]:
        assert len({i.id for i in items}) == 1 and len(items) == len(group)
        return [Reward(v[0].score, {}, ("only",)) for v in group]


@pytest.fixture
def one_rule() -> Callable[..., OneRule]:
    return OneRule


@pytest.fixture(scope="session")
def questions() -> list[Item]:
    return [Item(name, (Message(role="user", content=f"What does `{name}` do?"),)) for name in ("json.dumps", "math.floor", "os.path.join")]
