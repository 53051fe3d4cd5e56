"""What is served: something with a name that writes, and that can count tokens.

``ModelAuthor`` makes one of a language model; tests bring their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from norma.serve.protocol import for_model
from norma.spec import Message

if TYPE_CHECKING:
    from norma.lm import LanguageModel


class Author(Protocol):
    """Writes one answer at a time; called from one thread only.

    Attributes:
        name: what clients call the model.
        positions: tokens that prompt and answer may have together.
    """

    @property
    def name(self) -> str: ...

    @property
    def positions(self) -> int: ...

    def prompt_tokens(self, messages: Sequence[Message]) -> int: ...

    def tokens(self, text: str) -> int: ...

    def stream(self, messages: Sequence[Message], **sampling: Any) -> Iterator[str]: ...


class ModelAuthor:
    """A language model opened with ``norma.load``."""

    def __init__(self, model: LanguageModel, name: str | None = None) -> None:
        self.model, self.name = model, name or model.name

    @property
    def positions(self) -> int:
        return self.model.config.max_positions

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        from norma.text.chat import prompt_ids

        return len(prompt_ids(self.model.tokenizer, for_model(messages)))

    def tokens(self, text: str) -> int:
        return len(self.model.tokenizer.encode(text))

    def stream(self, messages: Sequence[Message], **sampling: Any) -> Iterator[str]:
        return self.model.stream(for_model(messages), **sampling)
