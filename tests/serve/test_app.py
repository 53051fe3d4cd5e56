"""The HTTP face, in process: shapes, refusals, verdicts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from norma.serve.app import build_app

JSON = dict[str, Any]
ASK: JSON = {"model": "fake", "messages": [{"role": "user", "content": "what is json.dumps."}]}


@pytest.fixture
def serve(fake_model: Any) -> Any:
    def build(model: Any = None, spec: Any = None, **limits: int) -> TestClient:
        return TestClient(build_app(model or fake_model(), spec, **limits), base_url="http://127.0.0.1:8000", raise_server_exceptions=False)

    return build


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_models_and_health(serve: Any) -> None:
    with serve() as client:
        assert client.get("/health").json() == {"status": "ok", "model": "fake", "spec": None, "requests": 0}
        listed = client.get("/v1/models").json()
        assert listed["object"] == "list" and [m["id"] for m in listed["data"]] == ["fake"]
        assert client.get("/v1/models/fake").json()["object"] == "model"
        assert client.get("/v1/models/other").json()["error"]["code"] == "model_not_found"


def test_a_whole_answer(serve: Any) -> None:
    with serve() as client:
        body = client.post("/v1/chat/completions", json=ASK).json()
    assert body["object"] == "chat.completion" and body["model"] == "fake" and body["id"].startswith("chatcmpl-")
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Certainly: what is json.dumps.", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert "norma" not in body


def test_a_streamed_answer_is_the_same_in_pieces(serve: Any) -> None:
    with serve() as client:
        response = client.post("/v1/chat/completions", json={**ASK, "stream": True, "stream_options": {"include_usage": True}})
    assert response.headers["content-type"].startswith("text/event-stream")
    chunks = events(response.text)
    assert all(c["object"] == "chat.completion.chunk" for c in chunks) and len({c["id"] for c in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]) == "Certainly: what is json.dumps."
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]][-1] == "stop"
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def test_sampling_options_arrive_and_several_choices_have_seeds_of_their_own(serve: Any, fake_model: Any) -> None:
    model = fake_model(answer=lambda messages, seed: f"seed {seed}")
    asked = {**ASK, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "max_tokens": 5, "seed": 41, "n": 2, "user": "me"}
    with serve(model) as client:
        body = client.post("/v1/chat/completions", json=asked).json()
    assert [c["message"]["content"] for c in body["choices"]] == ["seed 41", "seed 42"]
    assert model.asked[0][1] == {"max_new_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "seed": 41}


def test_greedy_and_bounded_by_the_models_room_unless_asked_otherwise(serve: Any, fake_model: Any) -> None:
    model = fake_model(positions=20)
    with serve(model) as client:
        client.post("/v1/chat/completions", json=ASK)
    assert model.asked[0][1]["temperature"] == 0 and model.asked[0][1]["max_new_tokens"] == 17


@pytest.mark.parametrize(
    ("limit", "finish", "text"), [(2, "length", "one two"), (3, "length", "one two three"), (9, "stop", "one two three")]
)
def test_finish_reason(serve: Any, fake_model: Any, limit: int, finish: str, text: str) -> None:
    with serve(fake_model(answer=lambda messages, seed: "one two three")) as client:
        choice = client.post("/v1/chat/completions", json={**ASK, "max_completion_tokens": limit}).json()["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == (finish, text)


@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_are_cut_even_across_pieces(serve: Any, fake_model: Any, stream: bool) -> None:
    with serve(fake_model(answer=lambda messages, seed: "one two three")) as client:
        response = client.post("/v1/chat/completions", json={**ASK, "stop": ["o th", "zzz"], "stream": stream})
    if stream:
        text = "".join(c["choices"][0]["delta"].get("content", "") for c in events(response.text))
    else:
        text = response.json()["choices"][0]["message"]["content"]
    assert text == "one tw"


def test_a_spec_is_rendered_into_the_prompt_and_judges_the_answer(serve: Any, fake_model: Any, fake_spec: Any) -> None:
    model = fake_model()
    with serve(model, fake_spec()) as client:
        body = client.post("/v1/chat/completions", json={**ASK, "n": 2}).json()
        quiet = client.post("/v1/chat/completions", json={**ASK, "norma": {"facts": {"terse": True}}}).json()
        streamed = events(client.post("/v1/chat/completions", json={**ASK, "stream": True}).text)
    assert model.asked[0][0][0] == {"role": "system", "content": "Be polite (en)."}
    norma = body["norma"]
    assert (norma["spec"], norma["active"], norma["language"]) == ("fake-spec", ["style.polite", "form.stop"], "en")
    assert [(v["choice"], v["rule"], v["status"]) for v in norma["verdicts"]] == [
        (i, rule, "compliant") for i in (0, 1) for rule in ("style.polite", "form.stop")
    ]
    assert [v["status"] for v in quiet["norma"]["verdicts"]] == ["not_applicable", "compliant"]
    assert streamed[-1]["norma"]["verdicts"][0]["rule"] == "style.polite" and streamed[-1]["choices"] == []


def test_a_developer_message_and_text_parts_are_understood(serve: Any, fake_model: Any) -> None:
    model = fake_model()
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    with serve(model) as client:
        assert client.post("/v1/chat/completions", json={**ASK, "messages": messages}).status_code == 200
    assert model.asked[0][0][1]["content"] == "ab"


@pytest.mark.parametrize(
    ("change", "status", "param", "words"),
    [
        ({"model": "gpt-9"}, 404, "model", "'fake' is"),
        ({"messages": []}, 400, "messages", "at least 1"),
        ({"messages": [{"role": "alien", "content": "x"}]}, 400, "messages.0.role", "'user'"),
        ({"messages": [{"role": "user"}]}, 400, "messages.0.content", "required"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, 400, "messages.0.content.0.type", "'text'"),
        ({"temperature": 3}, 400, "temperature", "less than or equal to 2"),
        ({"top_p": 0}, 400, "top_p", "greater than 0"),
        ({"max_tokens": 0}, 400, "max_tokens", "greater than or equal to 1"),
        ({"n": 17}, 400, "n", "less than or equal to 16"),
        ({"stop": ""}, 400, "stop", "must not be empty"),
        ({"tools": [{"type": "function"}]}, 400, None, "'tools' is not supported"),
        ({"response_format": {"type": "json_object"}}, 400, None, "'response_format' is not supported"),
        ({"norma": {"fact": {}}}, 400, "norma.fact", "not permitted"),
        ({"messages": [{"role": "user", "content": "w " * 100}]}, 400, "messages", "100 tokens"),
    ],
)
def test_refusals_name_the_field_in_openais_shape(serve: Any, change: JSON, status: int, param: str | None, words: str) -> None:
    with serve() as client:
        response = client.post("/v1/chat/completions", json={**ASK, **change})
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["type"]) == (status, param, "invalid_request_error")
    assert words in error["message"]


def test_values_that_change_nothing_are_accepted(serve: Any) -> None:
    neutral = {"tools": None, "response_format": {"type": "text"}, "frequency_penalty": 0.0, "logprobs": False, "metadata": {"a": "b"}}
    with serve() as client:
        assert client.post("/v1/chat/completions", json={**ASK, **neutral}).status_code == 200


def test_what_stands_at_the_door(serve: Any) -> None:
    with serve(body_limit=200) as client:
        post = client.post
        assert (
            post("/v1/chat/completions", content=b"{", headers={"content-type": "application/json"}).json()["error"]["code"]
            == "invalid_json"
        )
        assert post("/v1/chat/completions", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
        assert post("/v1/chat/completions", json={**ASK, "user": "x" * 200}).status_code == 413

        def unannounced() -> Any:
            for _ in range(50):
                yield b"x" * 10

        assert post("/v1/chat/completions", content=unannounced(), headers={"content-type": "application/json"}).status_code == 413
        assert client.get("/health", headers={"host": "evil.example"}).json()["error"]["code"] == "not_loopback"
        assert client.get("/health", headers={"origin": "https://evil.example"}).json()["error"]["code"] == "foreign_origin"
        assert client.get("/health", headers={"origin": "http://localhost:3000"}).status_code == 200
        assert client.get("/health", headers={"host": "[::1]:8000"}).status_code == 200
        assert client.get("/v1/embeddings").json()["error"]["message"] == "GET /v1/embeddings is not offered here"
        assert client.get("/v1/chat/completions").status_code == 405


def test_a_broken_model_is_a_500_without_details_and_the_server_lives(serve: Any, fake_model: Any) -> None:
    def explode(messages: Any, seed: int) -> str:
        raise ZeroDivisionError("secret")

    with serve(fake_model(answer=explode)) as client:
        response = client.post("/v1/chat/completions", json=ASK)
        assert response.status_code == 500 and "secret" not in response.text and response.json()["error"]["type"] == "server_error"
        assert client.get("/health").json()["requests"] == 0


def test_a_full_queue_says_so(serve: Any) -> None:
    with serve(waiting=0) as client:
        response = client.post("/v1/chat/completions", json=ASK)
    assert response.status_code == 429 and response.headers["retry-after"] == "1"
