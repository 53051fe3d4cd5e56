"""Talking to a model: the answer piece by piece, then what every rule says of it, as JSON lines."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any, Literal

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from norma.base.errors import NormaError
from norma.evaluate.prompts import language_of
from norma.spec import Item, Message
from norma.studio import words
from norma.studio.security import Annotator

log = logging.getLogger("norma.studio")
router = APIRouter(prefix="/api/chat")
AT_ONCE = 4
_places = threading.BoundedSemaphore(AT_ONCE)


class Turn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=20_000)


class Talk(BaseModel):
    model_config = ConfigDict(extra="forbid")
    model: str = Field(max_length=200)
    messages: list[Turn] = Field(min_length=1, max_length=100)
    rules: Literal["none", "applicable", "all"] = "none"
    temperature: float = Field(0.0, ge=0, le=2)
    max_tokens: int = Field(96, ge=1, le=2048)
    seed: int = Field(0, ge=0, lt=2**31)


@router.post("")
def chat(request: Request, user: Annotator, body: Talk) -> StreamingResponse:
    if not _places.acquire(blocking=False):
        raise HTTPException(429, "too many conversations at once", {"retry-after": "2"})
    return StreamingResponse(_answer(request.app.state.place, body, words.language_of(request)), media_type="application/x-ndjson")


def _answer(place: Any, body: Talk, language: str) -> Iterator[str]:
    def line(**value: Any) -> str:
        return json.dumps(value, ensure_ascii=False) + "\n"

    try:
        messages = [Message(role=t.role, content=t.content) for t in body.messages]
        item = Item("chat", tuple(messages), language_of(messages[-1]["content"]))
        spec = place.run_spec
        if spec is not None and body.rules != "none":
            messages = spec.render(messages, item, language=place.wording(item.language), rules=body.rules)
        parts = []
        with place.model(body.model) as model:
            sampling = {"max_new_tokens": body.max_tokens, "temperature": body.temperature, "seed": body.seed}
            for piece in model.stream(messages, **sampling):
                parts.append(piece)
                yield line(text=piece)
        if spec is not None:
            yield line(verdicts=[v.row() for v in spec.verdicts(item, "".join(parts), "report")])
        yield line(end=True)
    except NormaError as error:
        told = [words.said(text, language) for text in (error.what, error.mend) if text]
        yield line(error=". ".join(filter(None, [error.where, *told])))
    except Exception as error:  # the answer has begun: its status can no longer say so
        log.error("an answer failed", exc_info=error)
        yield line(error=words.said(f"the studio failed: {type(error).__name__}", language))
    finally:
        _places.release()
