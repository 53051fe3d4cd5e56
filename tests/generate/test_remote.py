"""Rollouts by a server: a loopback stand-in that speaks vLLM's dialect and answers with a real model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from norma.base.errors import NormaError
from norma.generate import EndpointEngine, LocalEngine, Rollouts, Sampling, generate
from norma.generate.remote import Journal
from norma.lm import LanguageModel
from rollout_server import Server

Make = Callable[..., LanguageModel]
SAMPLED = Sampling(max_new_tokens=8, temperature=1, seed=3)
PROMPTS = [[7, 8, 9], [10, 11], [7, 8, 9]]


@pytest.fixture
def model(make_model: Make) -> LanguageModel:
    return make_model(3, spread=0.3)


@pytest.fixture
def server(model: LanguageModel) -> Iterator[Server]:
    made = Server(model)
    yield made
    made.http.shutdown()
    made.http.server_close()


def engine(server: Server, **more: Any) -> EndpointEngine:
    return EndpointEngine(server.url, model="policy", wait=lambda _: None, **more)


@pytest.mark.parametrize("old", [False, True])
def test_ids_and_logprobs_are_the_servers(server: Server, model: LanguageModel, old: bool) -> None:
    server.old = old
    made = engine(server).generate(model, PROMPTS, SAMPLED)
    by_seed = {body["seed"]: body for body in server.questions}
    assert len(by_seed) == 3, "every row has a seed of its own, equal prompts too"
    for prompt, one in zip(PROMPTS, made, strict=True):
        (same,) = [
            c for seed, body in by_seed.items() if body["prompt"] == prompt
            for c in generate(model, [prompt], Sampling(8, 1.0, seed=seed)) if c.ids == one.ids
        ]  # fmt: skip
        assert same == one and one.logprobs == pytest.approx(same.logprobs)
    greedy = Sampling(max_new_tokens=8)
    assert engine(server).generate(model, PROMPTS, greedy) == LocalEngine().generate(model, PROMPTS, greedy)
    assert engine(server).complete(model, PROMPTS, max_new_tokens=8) == [c.text for c in generate(model, PROMPTS, greedy)]


def test_both_engines_have_one_interface(server: Server) -> None:
    engines: list[Rollouts] = [LocalEngine(), engine(server)]
    assert all(callable(e.generate) and callable(e.publish) for e in engines)


def test_what_is_asked(server: Server, model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLOUT_KEY", "secret")
    how = Sampling(max_new_tokens=500, temperature=0.5, top_k=4, top_p=0.9, stop=("x",), banned=(5,))
    engine(server, key_env="ROLLOUT_KEY").generate(model, [[7] * 90], how)
    ((path, body, key),) = server.asked
    assert path == "/v1/completions" and key == "Bearer secret"
    assert body["max_tokens"] == model.config.max_positions - 90
    wanted = {"model": "policy", "temperature": 0.5, "top_k": 4, "top_p": 0.9, "stop": ["x"], "logit_bias": {"5": -100.0}}
    assert {k: body[k] for k in wanted} == wanted
    assert body["return_token_ids"] and body["logprobs"] == 0 and not body["skip_special_tokens"]
    with pytest.raises(NormaError, match="at most"):
        engine(server).generate(model, [[7] * 500], how)


def test_published_weights_are_the_ones_that_answer(server: Server, model: LanguageModel, make_model: Make, tmp_path: Path) -> None:
    greedy, other = Sampling(max_new_tokens=8), make_model(9, spread=0.3)
    asked = engine(server, weights=tmp_path / "policy")
    assert asked.generate(model, PROMPTS, greedy) == generate(model, PROMPTS, greedy)
    asked.publish(other, "step-1")
    assert asked.generate(other, PROMPTS, greedy) == generate(other, PROMPTS, greedy) != generate(model, PROMPTS, greedy)
    assert [path for path, _, _ in server.asked if not path.startswith("/v1")] == ["/collective_rpc", "/reset_prefix_cache"]


def test_journaled_answers_are_not_asked_for_again(server: Server, model: LanguageModel, make_model: Make, tmp_path: Path) -> None:
    """A killed run goes on with what it was answered, though the server would now say something else."""
    journal = tmp_path / "rollouts.jsonl"
    first = engine(server, journal=journal).generate(model, PROMPTS, SAMPLED)
    assert len(journal.read_text().splitlines()) == len(server.questions) == 3
    with journal.open("a") as file:
        file.write('{"key": "torn')  # a kill in the middle of a line
    server.model = make_model(9, spread=0.3)
    again = engine(server, journal=journal)
    assert again.generate(model, PROMPTS, SAMPLED) == first and len(server.questions) == 3
    assert [c.logprobs for c in again.generate(model, PROMPTS, SAMPLED)] == [c.logprobs for c in first]
    again.version = "step-2"
    assert again.generate(model, PROMPTS, SAMPLED) != first and len(server.questions) == 6
    assert len([json.loads(line) for line in journal.read_text().splitlines()]) == 6
    assert engine(server, journal=journal).generate(model, PROMPTS, SAMPLED) == first


def test_an_answer_is_on_the_disk_before_it_is_used(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "new" / "j.jsonl")
    answer = {"ids": [1], "logprobs": [-0.5], "finish_reason": "stop"}
    assert journal.add("a", answer) == answer
    assert Journal(tmp_path / "new" / "j.jsonl").find("a") == answer
    assert journal.add("a", {**answer, "ids": [2]}) == answer, "the first answer stands"


def test_a_busy_server_is_asked_again_and_a_refusal_is_not(server: Server, model: LanguageModel) -> None:
    server.failures = [503, 429]
    assert len(engine(server).generate(model, PROMPTS[:1], SAMPLED)) == 1 and len(server.asked) == 3
    server.failures = [404]
    with pytest.raises(NormaError, match="HTTP 404"):
        engine(server).generate(model, PROMPTS[:1], SAMPLED)
    server.failures = [500] * 9
    with pytest.raises(NormaError, match="HTTP 500"):
        engine(server, attempts=2).generate(model, PROMPTS[:1], SAMPLED)
    server.failures = [404]
    with pytest.raises(NormaError, match="VLLM_SERVER_DEV_MODE"):
        engine(server, weights=Path("unused")).__class__._post(engine(server), f"{server.url}/collective_rpc", {})


@pytest.mark.parametrize(
    "weird",
    [
        lambda r: {"choices": []},
        lambda r: [],
        lambda r: {"choices": [{**r["choices"][0], "logprobs": None}]},
        lambda r: {"choices": [{**r["choices"][0], "token_ids": None, "logprobs": {"tokens": ["a"], "token_logprobs": [-1.0]}}]},
        lambda r: {"choices": [{**r["choices"][0], "token_ids": [1]}]},
        lambda r: {"choices": [{**r["choices"][0], "finish_reason": "abort"}]},
    ],
)
def test_text_without_ids_is_refused(server: Server, model: LanguageModel, weird: Callable[[Any], Any]) -> None:
    server.weird = weird
    with pytest.raises(NormaError, match="token ids"):
        engine(server).generate(model, PROMPTS[:1], SAMPLED)


def test_nobody_there(model: LanguageModel) -> None:
    with pytest.raises(NormaError, match="no answer"):
        EndpointEngine("http://127.0.0.1:9", model="x", attempts=2, wait=lambda _: None).generate(model, [[7]], SAMPLED)


def test_the_stand_in_writes_as_the_local_engine(server: Server, model: LanguageModel) -> None:
    """Log-probabilities through the wire are those of the trainer's own forward pass."""
    from norma.train.scoring import Group, answer_logprobs

    made = engine(server).generate(model, PROMPTS, SAMPLED)
    theirs, _ = answer_logprobs(model.transformer, [Group(p, [c.ids]) for p, c in zip(PROMPTS, made, strict=True)], dtype=torch.float32)
    torch.testing.assert_close(torch.tensor([x for c in made for x in c.logprobs]), theirs.detach(), rtol=1e-4, atol=1e-4)
