"""Who may do what: sessions, CSRF, roles on every route, login limits, sizes, paths, headers. All on the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from norma.studio import Place, build_app
from norma.studio.accounts import TRIES
from norma.studio.security import BODY_LIMIT, COOKIE, Shield

OPEN = {"/login", "/open", "/report.css", "/favicon.ico"}  # what can be asked for without a session
LOWEST = {  # everything else: the lowest role that may ask for it
    "annotator": {
        "/", "/annotate", "/prefer", "/look", "/chat", "/compliance", "/runs", "/spec", "/account", "/report", "/api/next", "/api/mark",
        "/api/skip/{task}", "/api/unskip", "/api/undo", "/api/check", "/api/agreement", "/api/pair", "/api/prefer", "/api/annotate",
        "/api/progress", "/api/behind", "/api/look/{picture}", "/api/chat", "/api/run", "/api/spec/check",
        "/api/people/password", "/api/logout",
    },
    "reviewer": {"/review", "/api/conflicts", "/api/fill", "/api/items", "/api/tasks"},
    "admin": {"/people", "/api/run/start", "/api/run/stop", "/api/spec/save", "/api/people", "/api/people/change", "/api/people/audit"},
}  # fmt: skip


def routes(app: Any) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for route in app.routes:
        inner = getattr(route, "original_router", None)
        for r in [route] if inner is None else inner.routes:
            if isinstance(r, APIRoute):
                found += [(method, r.path) for method in sorted(r.methods)]
    return found


def test_every_route_has_a_lowest_role_and_keeps_it(people: Place, enter: Any) -> None:
    found = routes(build_app(people))
    known = {path: role for role, paths in LOWEST.items() for path in paths}
    assert {path for _, path in found} == set(known) | OPEN
    order = ["", "annotator", "reviewer", "admin"]
    clients = {"": enter(""), "annotator": enter("ann"), "reviewer": enter("rita"), "admin": enter("ada")}
    for method, path in found:
        if path in OPEN or path == "/api/logout":
            continue
        asked = path.replace("{task}", "x").replace("{picture}", "about")
        for role, client in clients.items():
            status = client.request(method, asked, json={}).status_code
            if order.index(role) >= order.index(known[path]):
                assert status not in (401, 403), (method, path, role, status)
            elif role:
                assert status == 403, (method, path, role, status)
            else:
                assert status == (303 if method == "GET" and not path.startswith("/api/") else 401), (method, path, status)


def test_a_request_without_the_sessions_own_csrf_token_changes_nothing(people: Place, enter: Any) -> None:
    ann, ben = enter("ann"), enter("ben")
    for token in ("", "0" * 64, ben.headers["x-csrf-token"]):
        assert ann.post("/api/unskip", headers={"x-csrf-token": token}, json={}).status_code == 403
    assert ann.post("/api/unskip", json={}).status_code == 200


def test_the_cookie_is_signed_httponly_and_samesite_and_ends_with_logout(people: Place, enter: Any) -> None:
    client = enter("")
    answer = client.post("/login", data={"name": "ann", "password": "password of ann"})
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=lax" in cookie and "path=/" in cookie and "secure" not in cookie
    value = client.cookies[COOKIE]
    secret = value.split(".")[0]
    for forged in (value[:-2] + "xx", secret, "", secret + ".aaaa.bbbb"):
        other = TestClient(client.app, base_url="http://127.0.0.1", cookies={COOKIE: forged}, follow_redirects=False)
        assert other.get("/api/progress").status_code == 401
    inside = enter("ann")
    copy = TestClient(inside.app, base_url="http://127.0.0.1", cookies={COOKIE: inside.cookies[COOKIE]}, follow_redirects=False)
    assert copy.get("/api/progress").status_code == 200
    assert inside.post("/api/logout", json={}).status_code == 204
    assert copy.get("/api/progress").status_code == 401  # a stolen copy is worth nothing after logout
    with people.database.read() as connection:
        from norma.studio.tables import SESSIONS

        assert all(secret not in str(row) for row in connection.execute(SESSIONS.select()))


def test_passwords_are_argon2id_and_wrong_ones_are_limited(people: Place, enter: Any) -> None:
    from norma.studio.tables import USERS

    with people.database.read() as connection:
        assert all(row.password.startswith("$argon2id$") for row in connection.execute(USERS.select()))
    client = enter("")
    for _ in range(TRIES):
        assert client.post("/login", data={"name": "ann", "password": "guess"}).status_code == 401
    refused = client.post("/login", data={"name": "ann", "password": "password of ann"})
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
    assert client.post("/login", data={"name": "ben", "password": "password of ben"}).status_code == 303  # one name is not all names
    codes = [client.post("/login", data={"name": f"nobody{n}", "password": "guess"}).status_code for n in range(3 * TRIES)]
    assert codes[0] == 401 and codes[-1] == 429  # but one address is


def test_a_changed_user_is_out_and_the_last_admin_stays(people: Place, enter: Any) -> None:
    ann, ada = enter("ann"), enter("ada")
    assert ada.post("/api/people/change", json={"name": "ann", "active": False}).status_code == 200
    assert ann.get("/api/progress").status_code == 401
    assert enter("").post("/login", data={"name": "ann", "password": "password of ann"}).status_code == 401
    for body in ({"name": "ada", "role": "annotator"}, {"name": "ada", "active": False}):
        assert "last admin" in ada.post("/api/people/change", json=body).json()["error"]
    assert ada.post("/api/people", json={"name": "new", "password": "short", "role": "annotator"}).status_code == 400
    assert ada.post("/api/people", json={"name": "../x", "password": "long enough, this", "role": "annotator"}).status_code == 400
    log = ada.get("/api/people/audit").json()["rows"]
    assert {"login", "login refused", "change user"} <= {row["action"] for row in log}
    assert not any("password of" in str(row) for row in log)


def test_other_hosts_other_origins_and_large_bodies_are_refused(enter: Any) -> None:
    ann = enter("ann")
    assert ann.get("/api/progress", headers={"host": "evil.example"}).status_code == 403
    assert ann.post("/api/unskip", json={}, headers={"origin": "http://evil.example"}).status_code == 403
    assert ann.post("/api/unskip", json={}, headers={"origin": "http://127.0.0.1:1"}).status_code == 403  # another port is another site
    assert ann.post("/api/unskip", json={}, headers={"origin": "http://127.0.0.1"}).status_code == 200
    assert ann.post("/api/check", content=b"x" * (BODY_LIMIT + 1)).status_code == 413
    assert ann.post("/api/check", content=(b"x" * 65536 for _ in range(20))).status_code == 413  # a length that nobody declared


def test_every_answer_carries_a_strict_policy(enter: Any) -> None:
    ann = enter("ann")
    for path in ("/annotate", "/login", "/look", "/api/progress", "/nowhere", "/static/studio.js"):
        headers = ann.get(path).headers
        policy = headers["content-security-policy"]
        assert "script-src 'self';" in policy and "unsafe" not in policy and "default-src 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff" and "frame-ancestors 'none'" in policy
    for path in ("/compliance", "/runs"):
        policy = ann.get(path).headers["content-security-policy"]
        assert "style-src-attr 'unsafe-inline'" in policy and "script-src 'self';" in policy


def test_no_page_has_a_script_or_a_handler_of_its_own(enter: Any) -> None:
    import re

    ada = enter("ada")
    for path in ("/annotate", "/prefer", "/review", "/look", "/chat", "/compliance", "/spec", "/people", "/account", "/login"):
        page = ada.get(path).text
        assert not re.search(r"<script(?![^>]*\bsrc=)", page) and not re.search(r"\son\w+=", page.replace('onerror=\\"', "")), path
        assert not re.search(r'(src|href)="(https?:)?//', page), path  # nothing from a network


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/%2e%2e%2f%2e%2e%2fcli/app.py", "/..%2f..%2fetc/passwd"],
)
def test_no_path_leads_out_of_the_served_folders(enter: Any, path: str) -> None:
    answer = enter("ada").get(path)
    assert answer.status_code in (404, 405) and "build_app" not in answer.text and "root:" not in answer.text


def test_names_from_clients_are_looked_up_and_never_opened(enter: Any) -> None:
    ada = enter("ada")
    for name in ("../../etc", "/etc/passwd", "..", ""):
        assert ada.post("/api/look/about", json={"model": name}).status_code == 400
        assert ada.post("/api/run/stop", json={"run": name}).status_code in (400, 404)
        assert "error" in ada.post("/api/chat", json={"model": name, "messages": [{"role": "user", "content": "x"}]}).text


def test_the_address_of_a_local_studio_works_once(run: Path) -> None:
    said: list[str] = []
    place = Place(run, secret=b"k" * 32, local="me")
    app = build_app(place, say=said.append)
    token = app.state.door.token
    one, two = (TestClient(app, base_url="http://127.0.0.1", follow_redirects=False) for _ in range(2))
    assert one.get("/open?token=wrong").status_code == 403
    assert one.get(f"/open?token={token}").status_code == 303 and one.get("/api/progress").status_code == 200
    assert two.get(f"/open?token={token}").status_code == 403 and two.get("/api/progress").status_code == 401
    assert said == [app.state.door.token] and said[0] != token
    assert two.post("/login", data={"name": "me", "password": ""}).status_code == 403
    assert one.get("/people").status_code == 200  # the only user is the admin
    place.close()


def test_shield_passes_nothing_but_http() -> None:
    import asyncio

    called: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        called.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        return {"type": "http.disconnect"}

    asyncio.run(Shield(app)({"type": "websocket", "headers": [], "path": "/"}, nothing, nothing))
    assert called == []
