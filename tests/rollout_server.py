"""A loopback stand-in for a vLLM server: speaks its dialect, and answers with a real model."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from norma.generate import Sampling, generate
from norma.lm import LanguageModel


class Server:
    """What vLLM answers; ``weird`` changes a reply, ``failures`` are statuses that come first."""

    def __init__(self, model: LanguageModel) -> None:
        self.model, self.asked, self.failures = model, [], []  # type: ignore[var-annotated]
        self.weird: Callable[[dict[str, Any]], Any] = lambda reply: reply
        self.old = False
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"{}")
                owner.asked.append((self.path, body, self.headers.get("authorization")))
                status, reply = owner.answer(self.path, body)
                data = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if self.failures:
            return self.failures.pop(0), {"error": "not now"}
        if path == "/collective_rpc":
            self.model = LanguageModel.load(body["kwargs"]["weights_path"])
            return 200, {"results": [None]}
        if path == "/reset_prefix_cache":
            return 200, {}
        sampling = Sampling(body["max_tokens"], body["temperature"], seed=body["seed"])
        (made,) = generate(self.model, [body["prompt"]], sampling)
        told = {"token_logprobs": list(made.logprobs), "tokens": [f"token_id:{i}" for i in made.ids]}
        choice = {"text": made.text, "finish_reason": made.finish_reason, "logprobs": told}
        if not self.old:
            choice["token_ids"] = list(made.ids)
        return 200, self.weird({"choices": [choice]})

    @property
    def questions(self) -> list[dict[str, Any]]:
        return [body for path, body, _ in self.asked if path == "/v1/completions"]
