"""The load that a server is measured under: as many at once as was said, nothing sent twice, and nothing counted that was no answer."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import httpx
import pytest
from rich.console import Console

from norma.base.errors import NormaError
from norma.bench import serving
from norma.bench.serving import Load, ask_all, bodies, summed

URL = "http://server.example/v1"


class Server:
    """Streams three pieces, a hundredth of a second apart; ``refuse``: numbers of the requests that it turns away."""

    def __init__(self, refuse: frozenset[int] = frozenset(), last: str = "data: [DONE]") -> None:
        self.refuse, self.last, self.asked, self.now, self.most = refuse, last, list[Any](), 0, 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(json.loads(request.content))
        if len(self.asked) - 1 in self.refuse:
            return httpx.Response(429)
        self.now += 1
        self.most = max(self.most, self.now)

        async def events() -> Any:
            yield b'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}\n\n'
            for piece in ("a", "b", "c"):
                await asyncio.sleep(0.01)
                yield f'data: {{"choices": [{{"index": 0, "delta": {{"content": "{piece}"}}}}]}}\n\n'.encode()
            self.now -= 1
            yield f'data: {{"choices": [], "usage": {{"completion_tokens": 3}}}}\n\n{self.last}\n\n'.encode()

        return httpx.Response(200, content=events())


def heard(server: Server, count: int, clients: int) -> Any:
    return asyncio.run(ask_all(URL, bodies("m", ("x", "y"), count, 9), clients, transport=httpx.MockTransport(server)))


def test_so_many_at_once_and_each_question_once() -> None:
    server = Server()
    found, seconds = heard(server, 7, 3)
    assert server.most == 3 and {b["messages"][0]["content"] for b in server.asked} == {f"{n}. {'yx'[n % 2]}" for n in range(1, 8)}
    assert all(b["stream"] and b["max_tokens"] == 9 for b in server.asked)
    assert all((h.text, h.tokens) == ("abc", 3) and 0.01 <= h.first < h.whole <= seconds for h in found)
    row = summed(URL, Load(3, 7, 9), found, seconds)
    assert (row.answered, row.refused) == (7, 0) and row.tokens_per_s == pytest.approx(21 / seconds)
    assert row.first_p50 is not None and row.first_p50 < row.whole_p50 <= row.whole_p95
    silent = summed(URL, Load(), [serving.Heard(200, "", 3, whole=1.0)], 1.0)
    assert silent.first_p50 is None and silent.tokens_per_s == 3.0


def test_refusals_are_counted_and_what_goes_wrong_is_no_figure() -> None:
    found, seconds = heard(Server(frozenset({1})), 4, 4)
    assert (summed(URL, Load(), found, seconds).answered, summed(URL, Load(), found, seconds).refused) == (3, 1)
    for server in (Server(last='data: {"error": {"message": "broke"}}'), Server(frozenset(range(4)))):
        with pytest.raises(NormaError, match="answered with"):
            summed(URL, Load(), *heard(server, 4, 4))


def test_the_table_and_the_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    async def asked(url: str, requests: Any, clients: int, key: str | None) -> Any:
        return [serving.Heard(200, "x", 4, 0.5, 1.0)] * len(requests), 2.0

    monkeypatch.setattr(serving, "ask_all", asked)
    console = Console(file=io.StringIO(), width=160)
    serving.run([URL], "m", ("x",), Load(2, 3, 4), None, tmp_path / "rows.json", console)
    [row] = json.loads((tmp_path / "rows.json").read_text())
    assert row["system"] == URL and row["tokens_per_s"] == 6.0 and row["requests_per_s"] == 1.5 and row["first_p95"] == 0.5
    assert "0.50 s" in console.file.getvalue() and "2 clients, 3 requests" in console.file.getvalue()  # type: ignore[attr-defined]


def test_nobody_there() -> None:
    with pytest.raises(NormaError, match="no models are listed"):
        serving.run(["http://127.0.0.1:9/v1"], None, ("x",), Load(), None, None, Console())
