"""The OpenAI chat format as this server reads and writes it.

    JSON body ─→ ChatRequest (checked) ─→ conversation(), sampling() ─→ ... ─→ completion() | chunk() ─→ JSON

What is asked for and cannot be done (tools, penalties, pictures) is refused by name: silence would look like consent.
Fields that only inform (``user``, ``metadata``, ``store``) are ignored, as clients send them unasked.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from norma.spec import Message

MAX_CHOICES, MAX_STOPS, MAX_TOP = 16, 4, 20
DEFAULT_TOKENS = 512
# Accepted while they hold the value that changes nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "functions": (None, []),
    "tool_choice": (None, "none", "auto"),
    "function_call": (None, "none", "auto"),
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


def unsupported(name: str) -> ApiError:
    return ApiError(400, f"'{name}' is not supported by this server", code="invalid_value")


def _whole_characters(value: str) -> str:
    """JSON can spell half a character (\\ud800), which no text holds."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("half a character (a lone surrogate) stands in this text") from None
    return value


Text = Annotated[str, AfterValidator(_whole_characters)]


class TextPart(BaseModel):
    type: Literal["text"]
    text: Text


class Turn(BaseModel):
    """One message. Content is text, or parts of which each is text."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]

    def plain(self) -> Message:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message(role=self.role, content=text)


class StreamOptions(BaseModel):
    include_usage: bool = False


class NormaFields(BaseModel):
    """Norma's own part of a request: what the caller vouches for. Never read out of message text."""

    model_config = ConfigDict(extra="forbid")
    language: Text | None = Field(None, max_length=35)
    facts: dict[str, Any] = {}
    consent: bool | None = Field(None, description="Whether this exchange may be shown to annotators.")


class JsonSchema(BaseModel):
    name: Text = Field("answer", max_length=64)
    schema_: dict[str, Any] = Field({}, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """What an answer has to look like: text, any JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_given(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("'json_schema' goes with the type json_schema, and only with it")
        return self

    def wanted(self) -> dict[str, Any] | None:
        """The JSON schema of the answer; None for text."""
        if self.type == "text":
            return None
        return {"type": "object"} if self.json_schema is None else self.json_schema.schema_


class SamplingFields(BaseModel):
    """What chat and plain completions share. Temperature is 0 (greedy) unless given; ``seed`` makes samples repeatable."""

    model_config = ConfigDict(extra="allow")
    model: str
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: list[Text] | None = Field(None, max_length=MAX_STOPS)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

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
    def _nothing_unsupported(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if name in _NEUTRAL and value not in _NEUTRAL[name]:
                raise ValueError(f"'{name}' is not supported by this server")
        return self

    def sampling(self, limit: int) -> dict[str, Any]:
        """Arguments of ``norma.generate.Sampling`` but for ``stop``; a seed is drawn where none was given."""
        return {
            "max_new_tokens": limit,
            "temperature": self.temperature or 0.0,
            "top_p": self.top_p or 1.0,
            "top_k": self.top_k or 0,
            "seed": random.getrandbits(31) if self.seed is None else self.seed % 2**31,
        }


class ChatRequest(SamplingFields):
    """Body of ``POST /v1/chat/completions``."""

    messages: list[Turn] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP)
    response_format: ResponseFormat | None = None
    norma: NormaFields = Field(default_factory=lambda: NormaFields(language=None, consent=None))

    @model_validator(mode="after")
    def _top_of_something(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("'top_logprobs' needs 'logprobs': true")
        return self

    def conversation(self) -> list[Message]:
        return [turn.plain() for turn in self.messages]

    def limit(self) -> int:
        """Most new tokens of one answer."""
        return self.max_completion_tokens or self.max_tokens or DEFAULT_TOKENS

    def top(self) -> int | None:
        """How many of the likeliest tokens are reported beside each token; None: no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None


def parse_error(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The first of pydantic's complaints as one ApiError that names the field."""
    first = errors[0]
    if any(map(_branch, first["loc"])):  # content may be text or parts: the branch that went deeper is the one that was meant
        first = max(errors, key=lambda e: sum(not _branch(part) for part in e["loc"]))
    where = [part for part in first["loc"] if not _branch(part)]
    param = ".".join(str(part) for part in where) or None
    message = str(first["msg"]).removeprefix("Value error, ")
    return ApiError(400, f"{param}: {message}" if param else message, param=param, code="invalid_value")


def _branch(part: object) -> bool:
    """Whether a part of an error's place is pydantic's name for one of several types, and no field of the request."""
    return isinstance(part, str) and (part in ("str", "none", "int") or "[" in part or "(" in part)


def for_model(messages: Sequence[Message]) -> list[Message]:
    """Messages as a chat template knows them: a developer speaks as the system."""
    return [Message(role="system" if m["role"] == "developer" else m["role"], content=m["content"]) for m in messages]


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def completion(
    head: Mapping[str, Any], choices: Sequence[Mapping[str, Any]], counts: Mapping[str, int], norma: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The whole answer; ``choices`` of :func:`choice`, ``head`` holds id, created and model."""
    body = {**head, "object": "chat.completion", "choices": list(choices), "usage": dict(counts)}
    return body if norma is None else {**body, "norma": dict(norma)}


def choice(
    index: int, text: str, finish: str, logprobs: Sequence[Mapping[str, Any]] | None = None, refused: bool = False
) -> dict[str, Any]:
    """One finished answer. A refusal stands in ``content`` too, as many programs show nothing else."""
    message = {"role": "assistant", "content": text, "refusal": text if refused else None}
    return {"index": index, "message": message, "logprobs": _logprobs(logprobs), "finish_reason": finish}


def _logprobs(entries: Sequence[Mapping[str, Any]] | None) -> dict[str, Any] | None:
    return None if entries is None else {"content": list(entries), "refusal": None}


def chunk(
    head: Mapping[str, Any],
    index: int,
    delta: Mapping[str, str],
    finish: str | None = None,
    logprobs: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """One event of a streamed answer."""
    choices = [{"index": index, "delta": dict(delta), "logprobs": _logprobs(logprobs), "finish_reason": finish}]
    return {**head, "object": "chat.completion.chunk", "choices": choices}


def extra_chunk(head: Mapping[str, Any], counts: Mapping[str, int] | None, norma: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """An event without text: usage where it was asked for, Norma's part where there is a spec; None when neither."""
    extra: dict[str, Any] = {}
    if counts is not None:
        extra["usage"] = dict(counts)
    if norma is not None:
        extra["norma"] = dict(norma)
    return {**head, "object": "chat.completion.chunk", "choices": [], **extra} if extra else None
