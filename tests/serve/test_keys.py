"""Who may ask, and how much: keys, limits, hosts, origins."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from norma.base.errors import NormaError
from norma.cli import main
from norma.serve.admission import Admission
from norma.serve.app import build_app
from norma.serve.keys import KeyFile

JSON = dict[str, Any]
ASK: JSON = {"model": "fake", "messages": [{"role": "user", "content": "what is it"}]}


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


@pytest.fixture
def serve(fake_model: Any, keys: KeyFile) -> Any:
    def build(model: Any = None, host: str = "127.0.0.1:8000", **more: Any) -> TestClient:
        app = build_app(model or fake_model(), admission=Admission(keys), **more)
        return TestClient(app, base_url=f"http://{host}", raise_server_exceptions=False)

    return build


def test_keys_are_hashed_at_rest_and_shown_once(keys: KeyFile, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "add", "ann", "--file", str(keys.path), "--requests-per-minute", "5"]) == 0
    secret = capsys.readouterr().out.splitlines()[0]
    text = keys.path.read_text()
    assert secret.startswith("nk-") and len(secret) > 40 and secret not in text and secret[3:] not in text
    assert keys.path.stat().st_mode & 0o077 == 0
    found = keys.find(secret)
    assert found is not None and (found.name, found.requests_per_minute) == ("ann", 5) and keys.find(secret + "x") is None
    assert main(["keys", "list", "--file", str(keys.path)]) == 0
    assert "ann" in (shown := capsys.readouterr().out) and secret not in shown and "in use" in shown
    assert main(["keys", "add", "ann", "--file", str(keys.path)]) == 2 and "already" in capsys.readouterr().err
    assert main(["keys", "revoke", "ann", "--file", str(keys.path)]) == 0
    assert keys.find(secret) is None
    assert main(["keys", "revoke", "anna", "--file", str(keys.path)]) == 2


def test_two_writers_lose_no_key(keys: KeyFile) -> None:
    threads = [threading.Thread(target=lambda i=i: KeyFile(keys.path).add(f"k{i}")) for i in range(12)]  # type: ignore[misc]
    for t in threads:
        t.start()
    for t in threads:
        t.join(timeout=20)
    assert {k.name for k in keys.all()} == {f"k{i}" for i in range(12)}


def test_a_damaged_file_of_keys_is_one_line(keys: KeyFile) -> None:
    for text in ("{", "[]", json.dumps({"keys": [{"id": "x"}]})):
        keys.path.write_text(text)
        with pytest.raises(NormaError):
            keys.all()


def test_without_a_key_nobody_comes_in(serve: Any, keys: KeyFile) -> None:
    _, secret = keys.add("ann")
    with serve() as client:
        assert client.get("/health").status_code == 200
        for path in ("/v1/models", "/metrics"):
            assert client.get(path).status_code == 401 and client.get(path, headers=bearer(secret)).status_code == 200
        for wrong in ({}, {"authorization": secret}, {"authorization": "Bearer "}, bearer("nk-wrong")):
            refused = client.post("/v1/chat/completions", json=ASK, headers=wrong)
            assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer" and "error" in refused.json()
        assert client.post("/v1/chat/completions", json=ASK, headers=bearer(secret)).status_code == 200
        keys.revoke("ann")  # no restart
        assert client.post("/v1/chat/completions", json=ASK, headers=bearer(secret)).status_code == 401


def test_two_keys_have_limits_of_their_own(serve: Any, keys: KeyFile) -> None:
    _, few = keys.add("few", requests_per_minute=2, max_tokens=1)
    _, many = keys.add("many", requests_per_minute=50)
    with serve() as client:
        answers = [client.post("/v1/chat/completions", json=ASK, headers=bearer(few)) for _ in range(4)]
        assert [a.status_code for a in answers] == [200, 200, 429, 429]
        assert 1 <= int(answers[2].headers["retry-after"]) <= 60 and answers[2].json()["error"]["code"] == "rate_limit_exceeded"
        assert answers[0].json()["usage"]["completion_tokens"] == 1 and answers[0].json()["choices"][0]["finish_reason"] == "length"
        assert all(client.post("/v1/chat/completions", json=ASK, headers=bearer(many)).status_code == 200 for _ in range(4))


def test_tokens_a_minute(serve: Any, keys: KeyFile) -> None:
    _, secret = keys.add("ann", tokens_per_minute=10)  # a request reads 3 and writes 4
    with serve() as client:
        codes = [client.post("/v1/chat/completions", json=ASK, headers=bearer(secret)).status_code for _ in range(4)]
    assert codes == [200, 200, 429, 429]


def test_requests_at_once(alive: Any, fake_model: Any, keys: KeyFile, wait_until: Any) -> None:
    import httpx

    _, secret = keys.add("ann", concurrent=1)
    gate = threading.Semaphore(0)
    server = alive(fake_model(gate=gate), admission=Admission(keys))
    codes: list[int] = []

    def ask() -> None:
        codes.append(httpx.post(f"{server.url}/chat/completions", json=ASK, headers=bearer(secret), timeout=30).status_code)

    first = threading.Thread(target=ask)
    first.start()
    wait_until(lambda: server.backend.load == 1)
    ask()
    assert codes == [429]
    gate.release(100)
    first.join(timeout=20)
    ask()
    assert codes == [429, 200, 200]


def test_one_key_cannot_rate_anothers_answers(serve: Any, keys: KeyFile, tmp_path: Path) -> None:
    from norma.serve.audit import Audit

    _, ann = keys.add("ann")
    _, bob = keys.add("bob")
    with serve(audit=Audit(tmp_path / "a.sqlite")) as client:
        answer = client.post("/v1/chat/completions", json=ASK, headers=bearer(ann)).json()["id"]
        assert client.post("/v1/feedback", json={"id": answer, "rating": "down"}, headers=bearer(bob)).status_code == 404
        assert client.post("/v1/feedback", json={"id": answer, "rating": "down"}, headers=bearer(ann)).status_code == 200


def test_cors_is_closed_unless_a_page_is_named(serve: Any, keys: KeyFile) -> None:
    _, secret = keys.add("ann")
    page = {"origin": "https://chat.example"}
    asking = {**page, "access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    with serve() as client:
        assert client.options("/v1/chat/completions", headers=asking).status_code == 403
        assert client.post("/v1/chat/completions", json=ASK, headers={**page, **bearer(secret)}).status_code == 403
    with serve(origins=["https://chat.example"]) as client:
        asked = client.options("/v1/chat/completions", headers=asking)
        assert asked.status_code == 200 and asked.headers["access-control-allow-origin"] == "https://chat.example"
        done = client.post("/v1/chat/completions", json=ASK, headers={**page, **bearer(secret)})
        assert done.status_code == 200 and done.headers["access-control-allow-origin"] == "https://chat.example"
        other = client.post("/v1/chat/completions", json=ASK, headers={"origin": "https://evil.example", **bearer(secret)})
        assert other.status_code == 403


def test_hosts(serve: Any, keys: KeyFile) -> None:
    keys.add("ann")
    with serve(host="norma.example") as client:
        assert client.get("/health").status_code == 403
    with serve(host="norma.example", hosts=["norma.example"]) as client:
        assert client.get("/health").status_code == 200
    with serve(host="anything.example", hosts=None) as client:
        assert client.get("/v1/models").status_code == 401


def test_listening_beyond_this_machine_needs_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path), "--host", "0.0.0.0"]) == 2
    assert "--keys" in capsys.readouterr().err
    for arguments, words in (
        (["serve"], "say what to serve"),
        (["serve", str(tmp_path), "--keys", str(tmp_path / "none.json")], "no key in use"),
        (["serve", str(tmp_path), "--policy", "enforce"], "--spec"),
        (["serve", str(tmp_path), "--labels", str(tmp_path / "l.sqlite")], "--audit"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
