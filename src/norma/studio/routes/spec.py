"""The spec: check an edited text (lint, what changed, what that costs), and save it whole or not at all."""

from __future__ import annotations

import threading
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field

from norma.base.errors import NormaError
from norma.base.files import write_text
from norma.base.strict_yaml import parse_yaml
from norma.spec import Spec, shipped
from norma.spec.diff import diff
from norma.spec.lint import lint
from norma.studio.security import Admin, Annotator
from norma.studio.words import language_of, said

router = APIRouter(prefix="/api/spec")
_saving = threading.Lock()


class Edited(BaseModel):
    """The whole text; ``base``: digest of the version that was edited."""

    model_config = ConfigDict(extra="forbid")
    text: str = Field(max_length=900_000)
    base: str = Field(max_length=64)


@router.post("/check")
def check(request: Request, user: Annotator, body: Edited) -> Any:
    """Lint findings and the diff plan of a text that is not saved."""
    place = request.app.state.place
    old, new = _both(place, body)
    changed = diff(old, new)
    row = changed.row()
    price: list[dict[str, Any]] = []
    if changed and place.run is not None and place.run_spec is not None and (place.run / "lineage.json").is_file():
        from norma.pipeline.spec_cost import costs

        against = diff(place.run_spec, new)
        price = [cost.row() for cost in costs(against, place.run_spec, new, place.run)]
    language = language_of(request)
    for one in (*row["spec"], *(c for rule in row["rules"] for c in rule["changes"])):
        told = {
            "facet": said(one["facet"], language),
            "note": said(one["note"], language),
            "stale": [said(s, language) for s in one["stale"]],
        }
        one.update(told)
    price = [cost | {name: said(cost[name], language) for name in ("facet", "what", "why")} for cost in price]
    findings = [f.row() for f in lint(new, run_checkers=True, kinds={"program", "composite"})]
    return {"ok": True, "lint": findings, "diff": row, "changed": bool(changed), "costs": price, "digest": new.digest}


@router.post("/save")
def save(request: Request, user: Admin, body: Edited) -> Any:
    """Write the text in place of the file (rename): readers see the old or the new one. Refused when somebody else has saved."""
    place = request.app.state.place
    if place.spec_path is None:
        raise HTTPException(404, "this run has no spec")
    if place.run is not None and place.spec_path.parent == place.run:
        raise HTTPException(409, "this copy is the run's record and stays as it is: open the studio on the spec file itself")
    with _saving:
        old, new = _both(place, body)
        if old.digest != body.base:
            raise HTTPException(409, "somebody else has saved the spec meanwhile: copy your text, load the page again")
        write_text(place.spec_path, body.text.replace("\r\n", "\n"))
    place.database.note(user.name, "save spec", before=old.digest, after=new.digest)
    return {"digest": new.digest}


def _both(place: Any, body: Edited) -> tuple[Spec, Spec]:
    if place.spec is None:
        raise HTTPException(404, "this run has no spec")
    # A client's text opens no file that the spec on the disk does not name already.
    if new := _included(body.text) - _included(place.spec_path.read_text(encoding="utf-8-sig")) - set(shipped.names()):
        raise NormaError(f"'{min(new)}' is not included yet", mend="Add an include in an editor; here its rules can be composed")
    return place.spec, Spec.parse(body.text, place.spec_path.name, path=place.spec_path)


def _included(text: str) -> set[str]:
    data = parse_yaml(text, "").data
    named = data.get("include") if isinstance(data, dict) else None
    return {str(n) for n in named} if isinstance(named, list) else set()
