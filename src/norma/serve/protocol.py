"""The OpenAI chat format as this server reads and writes it.

    JSON body ─→ ChatRequest (checked) ─→ conversation(), sampling() ─→ ... ─→ completion() | chunk() ─→ JSON

What is asked for and cannot be done (tools, log-probabilities, pictures) is refused by name: silence would look like consent.
Fields that only inform (``user``, ``metadata``, ``store``) are ignored, as clients send them unasked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from norma.spec import Message

MAX_CHOICES, MAX_STOPS = 16, 4
DEFAULT_TOKENS = 512
# Accepted while they hold the value that changes nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "functions": (None, []),
    "tool_choice": (None, "none", "auto"),
    "function_call": (None, "none", "auto"),
    "response_format": (None, {"type": "text"}),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "audio": (None,),
    "modalities": (None, ["text"]),
}


class ApiError(Exception):
    """An error in OpenAI's shape: HTTP status, message, type, and the parameter it is about."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None, retry: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry = status, message, param, code, retry

    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class Turn(BaseModel):
    """One message. Content is text, or parts of which each is text."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def plain(self) -> Message:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(role=self.role, content=text)


class StreamOptions(BaseModel):
    include_usage: bool = False


class NormaFields(BaseModel):
    """Norma's own part of a request: what the caller vouches for. Never read out of message text."""

    model_config = ConfigDict(extra="forbid")
    language: str | None = Field(None, max_length=35)
    facts: dict[str, Any] = {}


class ChatRequest(BaseModel):
    """Body of ``POST /v1/chat/completions``. Temperature is 0 (greedy) unless given; ``seed`` makes samples repeatable."""

    model_config = ConfigDict(extra="allow")
    model: str
    messages: list[Turn] = Field(min_length=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: list[str] | None = Field(None, max_length=MAX_STOPS)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    norma: NormaFields = Field(default_factory=lambda: NormaFields(language=None))

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, value: list[str] | None) -> list[str] | None:
        if value and not all(value):
            raise ValueError("a stop string must not be empty")
        return value

    @model_validator(mode="after")
    def _nothing_unsupported(self) -> ChatRequest:
        for name, value in (self.model_extra or {}).items():
            if name in _NEUTRAL and value not in _NEUTRAL[name]:
                raise ValueError(f"'{name}' is not supported by this server")
        return self

    def conversation(self) -> list[Message]:
        return [turn.plain() for turn in self.messages]

    def limit(self) -> int:
        """Most new tokens of one answer."""
        return self.max_completion_tokens or self.max_tokens or DEFAULT_TOKENS


def parse_error(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The first of pydantic's complaints as one ApiError that names the field."""
    first = errors[0]
    if "str" in first["loc"]:  # content may be text or parts: the branch that went deeper is the one that was meant
        first = max(errors, key=lambda e: len(e["loc"]))
    where = [part for part in first["loc"] if part not in ("str", "list[TextPart]")]
    param = ".".join(str(part) for part in where) or None
    message = str(first["msg"]).removeprefix("Value error, ")
    return ApiError(400, f"{param}: {message}" if param else message, param=param, code="invalid_value")


def for_model(messages: Sequence[Message]) -> list[Message]:
    """Messages as a chat template knows them: a developer speaks as the system."""
    return [Message(role="system" if m["role"] == "developer" else m["role"], content=m["content"]) for m in messages]


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def completion(
    head: Mapping[str, Any], answers: Sequence[tuple[str, str]], counts: Mapping[str, int], norma: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The whole answer; ``answers`` are (text, finish reason), ``head`` holds id, created and model."""
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text, "refusal": None}, "logprobs": None, "finish_reason": finish}
        for i, (text, finish) in enumerate(answers)
    ]
    body = {**head, "object": "chat.completion", "choices": choices, "usage": dict(counts)}
    return body if norma is None else {**body, "norma": dict(norma)}


def chunk(head: Mapping[str, Any], index: int, delta: Mapping[str, str], finish: str | None = None) -> dict[str, Any]:
    """One event of a streamed answer."""
    choices = [{"index": index, "delta": dict(delta), "logprobs": None, "finish_reason": finish}]
    return {**head, "object": "chat.completion.chunk", "choices": choices}


def last_chunk(head: Mapping[str, Any], counts: Mapping[str, int] | None, norma: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The event after the last text: usage where it was asked for, verdicts where there is a spec; None when neither."""
    extra: dict[str, Any] = {}
    if counts is not None:
        extra["usage"] = dict(counts)
    if norma is not None:
        extra["norma"] = dict(norma)
    return {**head, "object": "chat.completion.chunk", "choices": [], **extra} if extra else None
