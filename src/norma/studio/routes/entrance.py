"""Coming in and going out: the one-time address of a local studio, the login form of one with accounts, logout."""

from __future__ import annotations

import asyncio
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse
from starlette.responses import Response

from norma.studio import pages
from norma.studio.accounts import Refused
from norma.studio.security import COOKIE, Annotator, session_secret, set_session

router = APIRouter()


@router.get("/open")
def open_local(request: Request, token: str = "") -> Response:
    """The address that ``norma studio`` prints: works once."""
    place = request.app.state.place
    if place.local is None or not request.app.state.door.use(token):
        return pages.login(request, wrong="used" if place.local else "", status=403)
    response = RedirectResponse("/", 303)
    set_session(request, response, place.accounts.open_local(place.local))
    return response


@router.get("/login")
def login_page(request: Request) -> Response:
    return pages.login(request)


@router.post("/login")
async def login(request: Request) -> Response:
    place = request.app.state.place
    if place.local is not None:
        return pages.login(request, status=403)
    form = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=8)
    name, password = form.get("name", [""])[0], form.get("password", [""])[0]
    address = request.client.host if request.client else ""
    try:
        secret = await asyncio.to_thread(place.accounts.login, name, password, address)
    except Refused as refused:
        response = pages.login(request, wrong="wait" if refused.retry else "wrong", status=429 if refused.retry else 401, name=name)
        if refused.retry:
            response.headers["retry-after"] = str(refused.retry)
        return response
    answer = RedirectResponse("/", 303)
    set_session(request, answer, secret)
    return answer


@router.post("/api/logout")
def logout(request: Request, user: Annotator) -> Response:
    request.app.state.place.accounts.logout(session_secret(request) or "")
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path="/")
    return response
