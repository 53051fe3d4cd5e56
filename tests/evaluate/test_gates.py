"""The estimate, `norma gate`, and a check that is killed: against models and servers that a test scripts."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from norma.base.errors import NormaError
from norma.base.files import read_json, read_jsonl
from norma.cli import main
from norma.cli.asking import parse_price
from norma.cli.check import _trials
from norma.evaluate.endpoint import EndpointAnswerer
from norma.evaluate.estimate import duration, estimate, tokens
from norma.evaluate.sampling import Answer, Journal, LocalAnswerer, Options
from norma.evaluate.trials import Probe, plain_prompts
from norma.evaluate.versus import compare_models
from norma.spec import Item, Spec

SPEC = """
norma: 1
spec: {id: small, version: "1", languages: [en, zh-Hans]}
rules:
- id: stop
  statement: {en: "End with a full stop.", zh-Hans: "以句号结尾。"}
  checkers: [{id: program, kind: program, use: ends_with_stop, roles: [train, report]}]
  elicit: [ELICIT]
  target: {min_rate: 0.9}
""".replace("ELICIT", ", ".join(f'{{id: e{i}, prompt: {{en: "Question {i}?"}}}}' for i in range(40)))


class Scripted:
    """Answers from a function of the prompt; counts what it was asked."""

    batch, atomic = 8, False

    def __init__(self, name: str, answer: Any, seconds: float = 0.0) -> None:
        self.name = self.identity = name
        self.answer_of, self.asked, self.seconds, self.now = answer, [], seconds, 0.0

    def answer(self, items: Any, each: Any = None) -> list[Answer]:
        answers = []
        for item in items:
            self.asked.append(item.id)
            self.now += self.seconds
            answers.append(Answer(item.id, self.answer_of(item)))
            each(answers[-1])
        return answers


def items(count: int) -> list[Item]:
    return [Item(f"e{i}", ({"role": "user", "content": f"question {i}."},)) for i in range(count)]


def test_an_estimate_by_hand(tmp_path: Path) -> None:
    asked = Scripted("m", lambda item: "x", seconds=2.0)
    with Journal(tmp_path / "a.jsonl") as journal:
        found = estimate(items(10), asked, journal, max_new_tokens=100, concurrency=4, price=(1.0, 2.0), clock=lambda: asked.now)
        # "question 7." has 11 characters: 4 tokens and 4 for its frame; 10 x 8 to read, 10 x 100 to write; 8 left at 2 s, 4 at once
        assert (found.prompts, found.left, found.read, found.written, found.seconds) == (10, 10, 80, 1000, 4.0)
        assert found.cost == pytest.approx((80 + 2000) / 1e6)
        assert found.sentence() == "10 of 10 prompts to ask; at most 80 tokens to read and 1,000 to write; about 4 s; at most 0.00"
        again = estimate(items(10), asked, journal, max_new_tokens=100)
        assert (again.left, again.cost) == (8, None) and "price unknown" in again.sentence()
    assert asked.asked == ["e0", "e1", "e2", "e3"]  # what is timed is kept: nothing is asked twice


def test_an_estimate_of_a_local_model_takes_a_whole_batch(tmp_path: Path) -> None:
    class Model:
        name, calls = "local", 0

        def chat(self, conversations: Any, **sampling: Any) -> list[str]:
            self.calls += 1
            return ["x"] * len(conversations)

        generate = chat

    model = Model()
    answerer = LocalAnswerer(model, Options(), batch=4)
    with Journal(tmp_path / "a.jsonl") as journal:
        times = iter(range(100))
        found = estimate(items(12), answerer, journal, max_new_tokens=5, concurrency=9, clock=lambda: float(next(times)))
        assert found.seconds == 8 * 1 / 4  # eight are left at a quarter of a second; one machine does not overlap with itself
        assert model.calls == 1 and len(journal.known) == 4
        for _ in range(2):
            estimate(items(12), answerer, journal, max_new_tokens=5)
        done = estimate(items(12), answerer, journal, max_new_tokens=5)
        assert (done.left, done.seconds) == (0, None) and done.sentence().endswith("nothing is asked")
        assert model.calls == 3


def test_small_things() -> None:
    assert [tokens(t) for t in ("", "abc", "abcd", "请简短。", "a请b")] == [0, 1, 2, 4, 2]
    assert [duration(s) for s in (0.2, 99, 150, 5000, 9000)] == ["1 s", "99 s", "2 min", "83 min", "2.5 h"]
    assert parse_price("0.5,1.5") == (0.5, 1.5) and parse_price(None) is None
    for wrong in ("1", "a,b", "-1,2", "nan,1"):
        with pytest.raises(NormaError):
            parse_price(wrong)


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        (lambda i: "Yes.", lambda i: "Yes.", 2, "is not excluded"),  # 40 equal pairs: Tango's lower bound is -8.8 points
        (lambda i: "Yes.", lambda i: "Yes" if i < 20 else "Yes.", 1, "misses the target"),
        (lambda i: "Yes" if i < 30 else "Yes.", lambda i: "Yes", 1, "below zero"),
        (lambda i: "Yes", lambda i: "Yes.", 0, "above zero"),
    ],
)
def test_gate_of_two_models(tmp_path: Path, old: Any, new: Any, code: int, words: str) -> None:
    def answerer(name: str, of: Any) -> Any:
        return Scripted(name, lambda item: of(int(item.id.split("#")[0].removeprefix("stop/e"))))

    spec = Spec.parse(SPEC)
    result = compare_models(spec, plain_prompts(spec), (answerer("a", old), answerer("b", new)), tmp_path)
    (found,) = result.findings
    assert result.exit_code == code and words in found.why and found.row["n"] == 40
    assert read_json(tmp_path / "report.json")["comparisons"][0]["before"] == "old"
    assert {p.name for p in tmp_path.iterdir()} >= {"report.html", "junit.xml", "answers.old.jsonl", "answers.new.jsonl"}


def test_more_prompts_or_a_wider_margin_decide(tmp_path: Path) -> None:
    spec = Spec.parse(SPEC)
    pair = (Scripted("a", lambda item: "Yes."), Scripted("b", lambda item: "Yes."))
    result = compare_models(spec, plain_prompts(spec), pair, tmp_path, margin=0.1)  # z^2 / (n + z^2) = 3.84 / 43.84 is below .1
    assert result.exit_code == 0 and result.findings[0].found == "held"
    assert len(pair[0].asked) == 40
    compare_models(spec, plain_prompts(spec), pair, tmp_path, margin=0.1)
    assert len(pair[0].asked) == 40  # the journal answers
    with pytest.raises(NormaError, match="--margin"):
        compare_models(spec, plain_prompts(spec), pair, tmp_path, margin=5)


class Server:
    """An OpenAI-compatible server that takes its time and counts every prompt."""

    def __init__(self, seconds: float) -> None:
        outer = self
        self.asked: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                time.sleep(seconds)
                answer = {"choices": [{"message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}]}
                try:
                    data = json.dumps(answer).encode()
                    self.send_response(200)
                    self.send_header("content-length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                    outer.asked.append(body["messages"][-1]["content"])
                except OSError:
                    pass  # the client was killed

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(0.05)
    yield made
    made.close()


def test_kill_9_and_go_on_asks_nothing_twice_that_was_answered(tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC, encoding="utf-8")
    out = tmp_path / "out"
    arguments = [
        "check",
        str(tmp_path / "spec.yaml"),
        "--endpoint",
        server.url,
        "--model-name",
        "m",
        "--out",
        str(out),
        "--concurrency",
        "2",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path("src").absolute()), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "import sys; from norma.cli import main; sys.exit(main())", *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal, end = out / "answers.jsonl", time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 12):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=20)
    kept = [row["messages"][-1]["content"] for row in map(json.loads, journal.read_bytes().splitlines()[:-1])]
    assert 10 <= len(kept) < 40
    time.sleep(0.2)
    before = len(server.asked)
    assert main([*arguments, "--price", "1,2"]) == 0
    again = server.asked[before:]
    assert (
        not set(again) & set(kept)
        and len(again) == len(set(again))
        and set(again) | set(kept) | set(server.asked[:before]) == {f"Question {i}?" for i in range(40)}
    )
    assert len(read_jsonl(journal)) == 40
    assert f"{len(again)} of 40 prompts to ask; at most" in capsys.readouterr().err
    assert read_json(out / "report.json")["methods"][0]["rules"][0]["compliant"] == 40


def test_estimate_only(tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC, encoding="utf-8")
    arguments = ["check", str(tmp_path / "spec.yaml"), "--endpoint", server.url, "--model-name", "m", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--estimate", "--attack", "--groups", "age", "--control", "3"]) == 0
    said = capsys.readouterr().err
    # 40 plain, 40 x 5 attacks, 40 x 2 ages, 3 x (the rule alone, and none)
    assert f"{40 + 200 + 80 + 6} of {40 + 200 + 80 + 6} prompts to ask" in said and len(server.asked) == 2
    assert not (tmp_path / "out" / "report.json").exists()


def test_trials_of_a_check_stay_beside_the_gate(tmp_path: Path, server: Server) -> None:
    from norma.evaluate.gate import check_model

    spec = Spec.parse(SPEC)
    plain = plain_prompts(spec)[:12]
    with_trials = EndpointAnswerer(server.url, "m", concurrency=8)
    result = check_model(spec, plain, with_trials, tmp_path, probe=Probe(control=2, attacks=("role_play",), groups=("age",)))
    assert result.exit_code == 0 and result.report["methods"][0]["overall"]["n"] == 12 and result.answers == 12 + 12 + 24 + 4
    assert {row["kind"] for row in result.report["attack"]} == {"role_play"} and len(result.report["control"]) == 1
    assert {row["kind"] for row in result.report["gaps"]} == {"age"}
    lines = _trials(result.report)
    assert lines[0].startswith("Under attack (role_play): 100% of the rules kept, 0.0 points [") and len(lines) == 3
    assert lines[1].startswith("Steering by stop: 100% → 100%") and lines[2].startswith("Gap young → old: 0.0 points")
    with_trials.close()


def test_the_gate_command(tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC, encoding="utf-8")
    spec, out = str(tmp_path / "spec.yaml"), str(tmp_path / "out")
    arguments = ["gate", f"{server.url}#old", f"{server.url}#new", spec, "--out", out, "--concurrency", "8"]
    assert main(arguments) == 2  # forty equal pairs do not exclude a loss of five points
    shown = capsys.readouterr().out
    assert "old → new" in shown and "undecided" in shown and "report.html" in shown and len(server.asked) == 80
    assert main([*arguments, "--margin", "0.1"]) == 0 and len(server.asked) == 80  # the journals answer
    assert main(["gate", f"{server.url}#same", f"{server.url}#same", spec]) == 2 and "the same model" in capsys.readouterr().err
    assert main(["gate", server.url, f"{server.url}#new", spec]) == 2 and "URL#NAME" in capsys.readouterr().err
