"""``POST /v1/feedback``: what a user thinks of a served answer. Thumbs down makes work for annotators (``loop``)."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from norma.serve.audit import Served
from norma.serve.chat import Service, reply
from norma.serve.protocol import MAX_CHOICES, ApiError, Text


class FeedbackRequest(BaseModel):
    """Body of ``POST /v1/feedback``. ``id``: the answer's; ``rule``: the one that it breaks; ``consent``: may annotators see it?"""

    model_config = ConfigDict(extra="forbid")
    id: Text = Field(min_length=1, max_length=64)
    rating: Literal["up", "down"]
    choice: int = Field(0, ge=0, lt=MAX_CHOICES)
    rule: Text | None = Field(None, max_length=200)
    comment: Text | None = Field(None, max_length=4000)
    corrected: Text | None = Field(None, max_length=20000)
    consent: bool | None = None


class Feedback:
    """Takes feedback."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def respond(self, body: FeedbackRequest, request: Request) -> Response:
        service, key = self.service, request.state.key
        if service.audit is None:
            raise ApiError(501, "this server keeps no answers that feedback could be about: start it with --audit FILE")
        row = await asyncio.to_thread(service.audit.find, body.id, body.choice)
        if row is None or row.key != key.id:  # who may not see an answer does not learn that it exists
            raise ApiError(404, f"no answer '{body.id}' was given to this key", param="id", code="answer_not_found")
        if body.rule is not None and body.rule not in {v["rule"] for v in row.verdicts}:
            raise ApiError(400, f"rule: '{body.rule}' was not judged for this answer", param="rule", code="invalid_value")
        items = await asyncio.to_thread(self._keep, body, row, key.id)
        service.meters.feedback.labels(body.rating).inc()
        return reply({"object": "feedback", "id": body.id, "choice": body.choice, "rating": body.rating, "annotation_items": items})

    def _keep(self, body: FeedbackRequest, row: Served, key: str) -> int:
        service = self.service
        assert service.audit is not None
        service.audit.say(body.id, body.choice, key, body.rating, body.rule, body.comment, body.corrected)
        consent = row.consent if body.consent is None else body.consent
        if service.loop is None or body.rating != "down" or not consent:
            return 0
        made = service.loop.thumbs_down(row, body.rule)
        service.meters.items.labels("feedback").inc(made)
        return made
