"""The pictures of the page "look inside": see norma.studio.looking."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from norma.studio.security import Annotator

router = APIRouter(prefix="/api/look")


class Asked(BaseModel):
    """A text to look at, with one of the studio's models."""

    model_config = ConfigDict(extra="forbid")
    model: str = Field(max_length=200)
    text: str = Field("", max_length=4000)
    target: str = Field("", max_length=4000, description="What a decoder behind an encoder reads.")
    stack: Literal["encoder", "decoder", "cross"] = "decoder"
    layer: int = Field(0, ge=0, le=1000)
    temperature: float = Field(1.0, gt=0, le=5)


Picture = Literal["about", "next", "masked", "write", "attention", "experts", "lens", "shape"]


@router.post("/{picture}")
def look(request: Request, user: Annotator, picture: Picture, body: Asked) -> Any:
    from norma.studio import looking

    with request.app.state.place.model(body.model) as model:
        match picture:
            case "about":
                return looking.describe(model)
            case "next":
                return looking.next_tokens(model, body.text, body.target, temperature=body.temperature)
            case "masked":
                return looking.masked(model, body.text)
            case "write":
                return {"text": looking.write(model, body.text)}
            case "attention":
                return looking.attention(model, body.text, body.stack, body.layer, body.target)
            case "experts":
                return looking.experts(model, body.text, body.target)
            case "lens":
                return looking.lens(model, body.text, body.target)
            case "shape":
                turns = looking.rotary(model) if model.config.positions == "rotary" else None
                return {**looking.masks(model), "rotary": turns}
