"""Runs: how stages stand, start, stop, resume, the log."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field

from norma.studio import processes
from norma.studio.security import Admin, Annotator
from norma.studio.words import language_of, said

router = APIRouter(prefix="/api/run")


class Named(BaseModel):
    model_config = ConfigDict(extra="forbid")
    run: str = Field(max_length=200)


@router.get("")
def state(request: Request, user: Annotator, run: str = "") -> Any:
    place = request.app.state.place
    if place.run is None:
        raise HTTPException(404, "this studio was opened on a spec: there is no run")
    folder = processes.pick(place.run, run or place.run.name)
    state, language = processes.overview(folder), language_of(request)
    for stage in state["stages"]:
        stage["reasons"] = [said(reason, language) for reason in stage["reasons"]]
    return {**state, "note": said(state["note"] or "", language), "log": processes.tail(folder / "studio" / "run.log")}


@router.post("/start")
def start(request: Request, user: Admin, body: Named) -> Any:
    place = request.app.state.place
    folder = processes.pick(place.run, body.run)
    process = processes.start(folder, folder / "studio" / "run.log")
    place.database.note(user.name, "start run", run=body.run, process=process)
    return {"process": process}


@router.post("/stop")
def stop(request: Request, user: Admin, body: Named) -> Any:
    place = request.app.state.place
    process = processes.stop(processes.pick(place.run, body.run))
    place.database.note(user.name, "stop run", run=body.run, process=process)
    return {"process": process}
