"""The items behind a bar of the compliance page, and the whole report as its file has it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Query, Request
from starlette.responses import HTMLResponse

from norma.studio.security import Annotator

router = APIRouter()


@router.get("/api/behind")
def behind(
    request: Request,
    user: Annotator,
    method: str = Query(max_length=200),
    rule: str = Query("", max_length=200),
    role: str = Query("report", max_length=20),
    language: str = Query("", max_length=40),
    status: str = Query("", max_length=20),
    start: int = Query(0, ge=0),
    count: int = Query(20, ge=1, le=100),
) -> Any:
    """Questions, answers and verdicts behind one rate, a page at a time; violations first."""
    place = request.app.state.place
    view = place.view
    if view is None:
        raise HTTPException(404, "this run has no report yet")
    index = place.fresh("index", view.evaluation / "verdicts.jsonl", lambda: _index(view))
    rows = [
        v
        for v in index["verdicts"].get((method, role), ())
        if (not rule or v["rule"] == rule) and (not language or v["language"] == language) and (not status or v["status"] == status)
    ]
    order = {"violation": 0, "unsure": 1, "error": 2, "compliant": 3, "not_applicable": 4}
    rows.sort(key=lambda v: order.get(v["status"], 5))
    page = []
    for v in rows[start : start + count]:
        answer = index["answers"].get((method, v["item"]), {})
        page.append({
            "item": v["item"], "rule": v["rule"], "status": v["status"], "note": v.get("note", ""), "evidence": v.get("evidence", []),
            "messages": answer.get("messages", []), "response": answer.get("response", ""), "language": v["language"],
        })  # fmt: skip
    counts: dict[str, int] = {}
    for v in rows:
        counts[v["status"]] = counts.get(v["status"], 0) + 1
    return {"rows": page, "total": len(rows), "counts": counts}


def _index(view: Any) -> dict[str, Any]:
    verdicts: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for v in view.verdicts:
        if v.get("arm") is None and not v.get("sample"):
            verdicts.setdefault((v["method"], v["role"]), []).append(v)
    answers = {(r["method"], r["item"]): r for r in view.responses if r.get("arm") is None and not r.get("sample")}
    return {"verdicts": verdicts, "answers": answers}


@router.get("/report", response_class=HTMLResponse)
def report(request: Request, user: Annotator) -> HTMLResponse:
    """The report's own page, drawn anew. It brings its own policy: its one script by its hash."""
    from norma.evaluate.report import render_html

    view = request.app.state.place.view
    if view is None:
        raise HTTPException(404, "this run has no report yet")
    html = render_html(view.report)
    policy = html.partition('http-equiv="Content-Security-Policy" content="')[2].partition('"')[0]
    return HTMLResponse(html, headers={"content-security-policy": policy + "; frame-ancestors 'none'"})
