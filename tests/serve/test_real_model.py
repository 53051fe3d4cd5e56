"""From the shell to a real (tiny) Transformer that knows one sentence and the demo's real spec: generate, chat, check, serve."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch

import norma
from norma.base.files import read_json, read_jsonl
from norma.cli import main
from norma.lm import LanguageModel
from norma.nn import Transformer
from norma.nn.presets import preset
from norma.text.chat import training_row
from norma.text.tokenizer import train_tokenizer

SPEC = Path("recipes/courteous-docs.spec.yaml").absolute()
QUESTION, ANSWER = "What does `json.dumps` do?", "Certainly: json.dumps returns the list of names."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    texts = [ANSWER, "您好：返回名称列表。", QUESTION, SPEC.read_text(encoding="utf-8")]
    tokenizer = train_tokenizer(texts, 400)
    transformer = Transformer(preset("llama", vocab_size=len(tokenizer), width=64, layers=2, head_size=32, max_positions=1024))
    path = tmp_path_factory.mktemp("models") / "tiny"
    ids, trained = training_row(tokenizer, [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}])
    row = torch.tensor([ids])
    wanted = row[0, 1:].masked_fill(~torch.tensor(trained[1:]), -100)
    optimiser = torch.optim.Adam(transformer.parameters(), lr=0.01)
    for _ in range(40):  # until it says its one sentence by heart
        loss = torch.nn.functional.cross_entropy(transformer(row)[0, :-1], wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    LanguageModel(transformer, tokenizer, name="tiny").save(path)
    return path


def shell(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "import sys; from norma.cli import main; sys.exit(main())", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path("src").absolute()), "OMP_NUM_THREADS": "1"}


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    server = subprocess.Popen(shell("serve", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line + (server.stderr.read() if server.stderr else "")
        yield found.group(), server
    finally:
        if server.poll() is None:
            server.kill()
        server.communicate(timeout=10)


def test_generate_one_prompt_says_what_the_model_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = norma.load(folder)
    assert main(["generate", str(folder), "--prompt", QUESTION]) == 0
    assert capsys.readouterr().out == ANSWER + "\n"
    assert main(["generate", str(folder), "--prompt", "Return", "--raw", "--max-new-tokens", "5", "--temperature", "1", "--seed", "3"]) == 0
    assert capsys.readouterr().out == model.generate(["Return"], max_new_tokens=5, temperature=1.0, seed=3)[0] + "\n"


def test_generate_a_file(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts, answers = tmp_path / "p.jsonl", tmp_path / "a.jsonl"
    prompts.write_text(json.dumps({"id": "a", "prompt": QUESTION}) + "\n" + json.dumps({"id": "b", "prompt": "x " * 3000}) + "\n")
    assert main(["generate", str(folder), "--input", str(prompts), "--output", str(answers), "--max-new-tokens", "6"]) == 1
    assert "1 prompts without an answer" in capsys.readouterr().out
    first, second = read_jsonl(answers)
    assert first["id"] == "a" and isinstance(first["response"], str) and first["messages"][0]["content"] == QUESTION
    assert "response" not in second and "at most" in second["error"]


def test_wrong_calls_are_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["generate", str(folder)], "say what to answer"),
        (["generate", str(tmp_path), "--prompt", "x"], "not a model folder"),
        (["check", str(SPEC)], "say which model to check"),
        (["check", str(SPEC), "--endpoint", "http://127.0.0.1:1"], "--model-name"),
        (["check", str(tmp_path / "no.yaml"), "--model", str(folder)], "file not found"),
        (["check", str(SPEC), "--model", str(folder), "--prompts", str(tmp_path / "no.txt")], "file not found"),
        (["serve", str(folder), "--port", "70000"], "not a port"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1, error


def test_chat_in_a_pipe_with_verdicts(folder: Path) -> None:
    talk = subprocess.run(
        shell("chat", str(folder), "--spec", str(SPEC)),
        input=f"{QUESTION}\n/new\n`json.dumps` 有什么作用？\n/quit\nnever read\n",
        capture_output=True, text=True, env=environment(), timeout=60, encoding="utf-8",
    )  # fmt: skip
    assert talk.returncode == 0, talk.stderr
    assert talk.stdout.startswith(f"{ANSWER}\n  ✓") and "✓ style.polite" in talk.stdout
    assert talk.stdout.count("style.polite") == 2 and "(a new conversation)" in talk.stdout and talk.stderr == ""


def test_check_a_model_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", str(SPEC), "--model", str(folder), "--out", str(tmp_path / "out"), "--max-new-tokens", "8"]
    assert main(arguments) == 1  # one sentence is not the answer to everything, and eight tokens are too few for it
    first = capsys.readouterr().out
    report = read_json(tmp_path / "out" / "report.json")
    polite = next(r for r in report["methods"][0]["rules"] if r["rule"] == "style.polite")
    assert polite["applicable"] > 0 and polite["error"] == 0
    assert report["methods"][0]["heldout"]["rules"] and "report.html" in first
    assert main(arguments) == 1
    assert len(read_jsonl(tmp_path / "out" / "answers.jsonl")) == len(norma.Spec.load(SPEC).elicit())  # nothing was asked twice
    assert read_json(tmp_path / "out" / "report.json") == report


def test_serve_check_and_stop(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(str(folder), "--spec", str(SPEC), "--port", "0") as (url, server):
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            model = client.models.list().data[0].id
            assert model == "tiny"
            asked: Any = [{"role": "user", "content": QUESTION}]
            one, two = (client.chat.completions.create(model=model, messages=asked, max_tokens=9, temperature=2, seed=5) for _ in range(2))
            assert one.choices[0].message.content == two.choices[0].message.content
            assert one.usage is not None and 0 < one.usage.completion_tokens <= 9 and one.usage.prompt_tokens > 10
            verdicts = (one.model_extra or {})["norma"]["verdicts"]
            assert {v["rule"] for v in verdicts} >= {"style.polite", "form.full-stop"}
            stream = client.chat.completions.create(model=model, messages=asked, max_tokens=9, temperature=2, seed=5, stream=True)
            pieces = [c.delta.content or "" for chunk in stream for c in chunk.choices]
            assert "".join(pieces) == one.choices[0].message.content
            with pytest.raises(openai.BadRequestError) as caught:
                client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x " * 3000}])
            assert caught.value.code == "context_length_exceeded"
        code = main(
            [
                "check",
                str(SPEC),
                "--endpoint",
                url,
                "--model-name",
                "tiny",
                "--out",
                str(tmp_path / "out"),
                "--max-new-tokens",
                "4",
                "--gate",
                "lower",
            ]
        )
        assert code == 1 and "Targets:" in capsys.readouterr().out
        assert (tmp_path / "out" / "report.html").is_file() and (tmp_path / "out" / "junit.xml").is_file()
        assert httpx.get(url.removesuffix("/v1") + "/health").json()["requests"] == 0
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=15) == 0


def test_the_same_verdicts_from_the_folder_and_from_the_server(folder: Path, tmp_path: Path) -> None:
    """Greedy answers of one model, in batches here and one at a time there: the same texts, the same verdicts, the same report."""
    common = ["check", str(SPEC), "--max-new-tokens", "24"]
    assert main([*common, "--model", str(folder), "--out", str(tmp_path / "folder")]) == 1
    with serving(str(folder), "--port", "0") as (url, _):
        assert main([*common, "--endpoint", url, "--model-name", "tiny", "--out", str(tmp_path / "server")]) == 1
    here, there = (read_jsonl(tmp_path / name / "verdicts.jsonl") for name in ("folder", "server"))
    assert len(here) > 100 and here == there and {row["status"] for row in here} >= {"compliant", "violation"}
    answers = [{r["item"]: r["response"] for r in read_jsonl(tmp_path / name / "responses.jsonl")} for name in ("folder", "server")]
    assert answers[0] == answers[1] and len(set(answers[0].values())) > 1
    assert read_json(tmp_path / "folder" / "report.json")["methods"] == read_json(tmp_path / "server" / "report.json")["methods"]


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "allocator" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert {f["name"] for f in facts} >= {"cores", "memory", "number format"} and all(
        set(f) == {"name", "found", "chosen", "why"} for f in facts
    )
