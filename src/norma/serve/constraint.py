"""Answers that must be JSON of a schema: which tokens may come next, by llguidance.

    JSON schema ─grammar─→ LLMatcher ─→ allowed() (V,) bool ─→ a token ─→ accept() ─→ ...

llguidance (MIT, Rust; vLLM, SGLang and llama.cpp use it too) reads a tokenizer.json as it is, has wheels without torch, and masks in
microseconds. What a schema asks that it cannot hold to is refused by name.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from norma.base.errors import NormaError
from norma.serve.protocol import ApiError

if TYPE_CHECKING:
    import llguidance

    from norma.lm import LanguageModel

SCHEMA_LIMIT = 64 * 2**10  # bytes of JSON
INSTALL = "pip install 'norma-lm[serve]'"


class JsonConstraint:
    """The state of one answer; ``norma.generate.running.Constraint``."""

    def __init__(self, matcher: llguidance.LLMatcher, vocabulary: int, ends: Tensor) -> None:
        self._matcher, self._size, self._ends = matcher, vocabulary, ends

    def allowed(self) -> Tensor:
        """(V,) bool: what may come next; the end tokens where the JSON is whole."""
        if self._matcher.is_stopped():
            self._refuse_error()
            return self._ends
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._refuse_error()
        mask = torch.zeros(self._size, dtype=torch.bool)
        found = np.unpackbits(bits, bitorder="little")[: self._size]
        mask[: len(found)] = torch.from_numpy(found.astype(bool))
        return mask

    def accept(self, token: int) -> None:
        """Raises NormaError where the grammar grew beyond the library's limits."""
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token)
            self._refuse_error()

    def _refuse_error(self) -> None:
        if self._matcher.is_error():
            raise NormaError(f"the JSON schema cannot be followed ({_first_line(self._matcher.get_error())})")


class JsonConstraints:
    """Makes constraints for one model; its vocabulary is read when the first is asked for."""

    def __init__(self, model: LanguageModel, ends: frozenset[int]) -> None:
        self._model, self._ends, self._lock = model, sorted(ends), threading.Lock()
        self._tokenizer: llguidance.LLTokenizer | None = None

    def maker(self, schema: dict[str, Any]) -> Callable[[], JsonConstraint]:
        """A function that begins an answer of this schema. Raises ApiError for a schema that cannot be followed."""
        try:
            import llguidance
        except ImportError:
            raise ApiError(501, f"answers of a schema need llguidance here: {INSTALL}", param="response_format") from None
        text = json.dumps(schema)
        if len(text) > SCHEMA_LIMIT:
            raise ApiError(400, f"the schema is longer than {SCHEMA_LIMIT} bytes", param="response_format", code="invalid_value")
        tokenizer = self._read(llguidance)
        try:
            # No white space between the parts: a model that may write some may write it for ever.
            grammar = llguidance.LLMatcher.grammar_from_json_schema(text, overrides={"whitespace_flexible": False})
            first = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
        except ValueError as error:
            raise ApiError(400, f"response_format: {_first_line(str(error))}", param="response_format", code="invalid_value") from None
        if first.is_error():
            raise ApiError(400, f"response_format: {_first_line(first.get_error())}", param="response_format", code="invalid_value")
        size = self._model.config.vocab_size
        ends = torch.zeros(size, dtype=torch.bool)
        ends[self._ends] = True
        return lambda: JsonConstraint(first.deep_copy(), size, ends)

    def _read(self, llguidance: Any) -> llguidance.LLTokenizer:
        with self._lock:
            if self._tokenizer is None:
                if not self._ends:
                    raise ApiError(400, "this model has no end token, so that JSON would never end", param="response_format")
                backend = self._model.tokenizer.backend
                try:
                    self._tokenizer = llguidance.LLTokenizer(backend.to_str(), eos_token=self._ends)
                except Exception as error:  # the Rust side names no narrower kind
                    raise ApiError(
                        400, f"llguidance cannot read this tokenizer ({_first_line(str(error))})", param="response_format"
                    ) from None
            return self._tokenizer


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["unknown"])[0][:300]
