"""Questions of the documentation assistant, as items."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from norma.spec import Spec
from norma.spec.types import Item, Message

SPEC = Path(__file__).parents[2] / "recipes" / "courteous-docs.spec.yaml"


@pytest.fixture(scope="session")
def spec() -> Spec:
    return Spec.load(SPEC)


@pytest.fixture(scope="session")
def ask() -> Callable[..., Item]:
    """ask("json.dumps", "zh") is a question; ``entry`` is the entry that comes with it, the same name by default."""

    def make(name: str = "json.dumps", language: str = "en", entry: str | None = None) -> Item:
        asked = f"What does `{name}` do?\nEntry: " if language == "en" else f"`{name}` 有什么作用？\n条目："
        content = f"{asked}`{entry or name}(obj, *, indent=None)`\nA positive indent puts members on lines of their own."
        return Item(f"{name}#{language}", (Message(role="user", content=content),), language)

    return make
