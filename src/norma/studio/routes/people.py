"""Who may come in (for admins), one's own password, and the audit log."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, HTTPException, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from norma.studio.accounts import Refused
from norma.studio.security import Admin, Annotator
from norma.studio.tables import AUDIT
from norma.studio.words import language_of, said

router = APIRouter(prefix="/api/people")
Role = Literal["annotator", "reviewer", "admin"]


class New(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=64)
    password: str = Field(max_length=256)
    role: Role = "annotator"


class Change(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=64)
    password: str | None = Field(None, max_length=256)
    role: Role | None = None
    active: bool | None = None


class OwnPassword(BaseModel):
    model_config = ConfigDict(extra="forbid")
    old: str = Field(max_length=256)
    new: str = Field(max_length=256)


@router.get("")
def users(request: Request, user: Admin) -> Any:
    return {"users": request.app.state.place.accounts.list()}


@router.post("")
def add(request: Request, user: Admin, body: New) -> Any:
    place = request.app.state.place
    place.accounts.add(body.name, body.password, body.role)
    place.database.note(user.name, "add user", name=body.name, role=body.role)
    return {"added": body.name}


@router.post("/change")
def change(request: Request, user: Admin, body: Change) -> Any:
    place = request.app.state.place
    place.accounts.change(body.name, password=body.password, role=body.role, active=body.active)
    place.database.note(user.name, "change user", name=body.name, role=body.role, active=body.active, password=body.password is not None)
    return {"changed": body.name}


@router.post("/password")
def own_password(request: Request, user: Annotator, body: OwnPassword) -> Any:
    """A user's own new password; all of their sessions end."""
    place = request.app.state.place
    if place.local is not None:
        raise HTTPException(404, "this studio has no accounts")
    try:
        place.accounts.login(user.name, body.old, request.client.host if request.client else "")
    except Refused:
        raise HTTPException(403, "the old password is not right") from None
    place.accounts.change(user.name, password=body.new)
    place.database.note(user.name, "change own password")
    return {"changed": user.name}


@router.get("/audit")
def audit(request: Request, user: Admin, before: int = Query(2**62), count: int = Query(50, ge=1, le=200)) -> Any:
    query = select(AUDIT).where(AUDIT.c.id < before).order_by(AUDIT.c.id.desc()).limit(count)
    with request.app.state.place.database.read() as connection:
        rows = [dict(row._mapping) for row in connection.execute(query)]
    return {"rows": [row | {"action": said(row["action"], language_of(request))} for row in rows]}
