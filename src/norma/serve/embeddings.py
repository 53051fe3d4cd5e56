"""``POST /v1/embeddings``: texts as vectors of length 1 (``norma.lm.embedding``), or as another server makes them (``passing``)."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from norma.serve.chat import Service, reply, unless_gone
from norma.serve.local import Local
from norma.serve.passing import embeddings
from norma.serve.protocol import ApiError, Text
from norma.serve.record import facts
from norma.serve.upstream import Upstream

MAX_TEXTS = 256


class EmbeddingRequest(BaseModel):
    """Body of ``POST /v1/embeddings``."""

    model_config = ConfigDict(extra="allow")
    model: str
    input: (
        Annotated[Text, Field(min_length=1)]
        | Annotated[list[Annotated[Text, Field(min_length=1)]], Field(min_length=1, max_length=MAX_TEXTS)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class Embeddings:
    """Answers embedding requests."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def respond(self, body: EmbeddingRequest, request: Request) -> Response:
        service, local = self.service, self.service.backend
        service.known(body.model)
        service.room()
        if isinstance(local, Upstream):
            passed, count = await unless_gone(embeddings(local, body.model_dump(exclude_unset=True)), request)
            return self._reply(request, passed, count)
        if not isinstance(local, Local):
            raise ApiError(501, "embeddings are offered only for a model in this process, or behind --upstream")
        if body.dimensions not in (None, local.model.config.width):
            message = f"dimensions: this model's vectors have {local.model.config.width} numbers"
            raise ApiError(400, message, param="dimensions", code="invalid_value")
        texts = [body.input] if isinstance(body.input, str) else body.input
        vectors, count = await unless_gone(local.embed(texts), request)
        made = [_base64(v) for v in vectors] if body.encoding_format == "base64" else vectors
        data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(made)]
        return self._reply(request, data, count)

    def _reply(self, request: Request, data: Sequence[Mapping[str, Any]], count: int) -> Response:
        self.service.spend(request.state.key, facts(request.scope), count, 0)
        counts = {"prompt_tokens": count, "total_tokens": count}
        return reply({"object": "list", "data": data, "model": self.service.backend.name, "usage": counts})


def _base64(vector: list[float]) -> str:
    """Little-endian fp32, as OpenAI's clients ask for it unasked."""
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
