"""Generation against transformers, against a slow loop, and against itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from norma.base.errors import NormaError
from norma.generate import Completion, Sampling, generate, load
from norma.generate import slots as slots_module
from norma.generate.engine import finish, stream
from norma.lm import LanguageModel
from norma.nn import Cache
from norma.text.chat import prompt_ids

Make = Callable[..., LanguageModel]


@pytest.fixture
def model(make_model: Make) -> LanguageModel:
    return make_model(3, spread=0.3)


def prompts_of(model: LanguageModel, count: int = 20) -> list[list[int]]:
    random = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 40, (count,), generator=random).tolist()
    return [torch.randint(6, len(model.tokenizer), (n,), generator=random).tolist() for n in lengths]


def slow(model: LanguageModel, prompt: list[int], new: int) -> list[int]:
    """Greedy without cache or batch."""
    ids = list(prompt)
    while len(ids) - len(prompt) < new and len(ids) < model.config.max_positions:
        ids.append(int(model.logits(torch.tensor([ids]))[0, -1].argmax()))
        if ids[-1] == model.tokenizer.eos_id:
            break
    return ids[len(prompt) :]


def test_greedy_equals_transformers(model: LanguageModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    prompts = prompts_of(model)
    ours = generate(model, prompts, Sampling(max_new_tokens=24))
    for prompt, mine in zip(prompts, ours, strict=True):
        out = theirs.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=24, do_sample=False)
        assert out[0, len(prompt) :].tolist() == list(mine.ids)
        assert mine.finish_reason == ("stop" if mine.ids[-1] == model.tokenizer.eos_id else "length")
    assert len({c.ids for c in ours}) > 10, "the answers differ: the comparison says something"

    chats = [[{"role": "user", "content": text}] for text in ("What does `json.dumps` do?", "hi", "您好 12")]
    opened = load(tmp_path)
    answers = opened.chat(chats, max_new_tokens=12)
    for chat, answer in zip(chats, answers, strict=True):
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
        out = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        assert tokenizer.decode(out, skip_special_tokens=True) == answer
    assert opened.chat(chats[0], max_new_tokens=12) == answers[:1]


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_batch_does_not_change_the_answers(model: LanguageModel, batch: int) -> None:
    prompts = prompts_of(model, 9)
    made = generate(model, prompts, Sampling(max_new_tokens=20), batch=batch)
    assert [list(c.ids) for c in made] == [slow(model, p, 20) for p in prompts]


def test_each_row_ends_at_the_models_last_position(model: LanguageModel) -> None:
    """A short prompt beside a long one is not cut short by it."""
    limit = model.config.max_positions
    prompts = [[7, 8, 9], list(range(10, 10 + limit - 2)), [9] * 40]
    made = generate(model, prompts, Sampling(max_new_tokens=30))
    assert [list(c.ids) for c in made] == [slow(model, p, 30) for p in prompts]
    assert len(made[1].ids) <= 2 and len(made[0].ids) > 2
    with pytest.raises(NormaError, match="at most"):
        generate(model, [[7] * limit], Sampling())
    with pytest.raises(NormaError, match="prompt 1 is empty"):
        generate(model, [[7], []], Sampling())


def test_finished_rows_leave_and_the_others_go_on(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose end token comes at different times; rows leave the cache in the middle."""
    prompts = prompts_of(model, 12)
    free = [slow(model, p, 24) for p in prompts]
    common = torch.bincount(torch.tensor([t for a in free for t in a])).argmax()
    monkeypatch.setattr(model.tokenizer, "eos_id", int(common))
    kept: list[int] = []
    keep = Cache.keep
    monkeypatch.setattr(Cache, "keep", lambda self, rows: (kept.append(len(rows)), keep(self, rows))[1])
    made = generate(model, prompts, Sampling(max_new_tokens=24))
    assert [list(c.ids) for c in made] == [slow(model, p, 24) for p in prompts]
    assert kept and len({len(c.ids) for c in made}) > 2
    assert all(c.finish_reason == "stop" and c.text == model.tokenizer.decode(c.ids[:-1]) for c in made if c.ids[-1] == int(common))


def test_equal_prompts_are_read_once_and_answer_alike(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = prompts_of(model, 2)
    read: list[int] = []
    hidden = type(model.transformer).hidden

    def counted(self: object, ids: torch.Tensor, *rest: object, **named: object) -> torch.Tensor:
        read.append(ids.numel())
        return hidden(self, ids, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(type(model.transformer), "hidden", counted)
    made = generate(model, [one, other, one, one, other], Sampling(max_new_tokens=10))
    assert read[0] == 2 * -(-max(len(one), len(other)) // 8) * 8
    assert made[0] == made[2] == made[3] and made[1] == made[4] and made[0] != made[1]
    sampled = generate(model, [one] * 8, Sampling(max_new_tokens=10, temperature=1))
    assert len({c.ids for c in sampled}) > 1, "samples of one prompt differ"


def test_a_seed_gives_the_same_text_and_another_another(model: LanguageModel) -> None:
    prompts = prompts_of(model, 6)
    first, again, other = (generate(model, prompts, Sampling(max_new_tokens=12, temperature=1, seed=s)) for s in (5, 5, 6))
    assert first == again and first != other


def test_the_first_sampled_token_follows_the_models_own_distribution(model: LanguageModel) -> None:
    from scipy import stats

    prompt = prompts_of(model, 1)[0]
    made = generate(model, [prompt] * 4000, Sampling(max_new_tokens=1, temperature=1.3), batch=4000)
    p = (model.logits(torch.tensor([prompt]))[0, -1].double() / 1.3).softmax(0)
    counts = torch.bincount(torch.tensor([c.ids[0] for c in made]), minlength=len(p)).double()
    likely = p > 5 / 4000
    observed = [*counts[likely].tolist(), float(counts[~likely].sum())]
    expected = [*(p[likely] * 4000).tolist(), float(p[~likely].sum() * 4000)]
    assert len(observed) > 5 and stats.chisquare(observed, expected, sum_check=False).pvalue > 1e-3


def test_stop_strings_end_the_answer_and_are_cut(model: LanguageModel) -> None:
    prompt = next(p for p in prompts_of(model) if len(finish(model, slow(model, p, 24), Sampling()).text) > 12)
    free = generate(model, [prompt], Sampling(max_new_tokens=24))[0]
    stop = free.text[6:9]
    made = generate(model, [prompt], Sampling(max_new_tokens=24, stop=("never seen", stop)))[0]
    assert made.text == free.text[: free.text.index(stop)] and made.finish_reason == "stop"
    assert len(made.ids) < len(free.ids)
    assert model.generate("x", max_new_tokens=3) == [
        generate(model, [[model.tokenizer.bos_id, *model.tokenizer.encode("x")]], Sampling(3))[0].text
    ]


def test_finish_by_hand(model: LanguageModel) -> None:
    encode, end = model.tokenizer.encode, model.tokenizer.eos_id
    assert finish(model, [*encode("one. two"), end], Sampling()) == Completion((*encode("one. two"), end), "one. two", "stop")
    assert finish(model, encode("one. two"), Sampling()).finish_reason == "length"
    assert finish(model, encode("one. two"), Sampling(stop=("two", "."))).text == "one"
    assert finish(model, [], Sampling()) == Completion((), "", "length")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_stream_says_what_complete_says(model: LanguageModel, temperature: float, stopped: bool) -> None:
    for number, prompt in enumerate(prompts_of(model, 8)):
        sampling = Sampling(max_new_tokens=30, temperature=temperature, seed=number)
        whole = generate(model, [prompt], sampling)[0].text
        if stopped and len(whole) > 8:
            sampling = Sampling(max_new_tokens=30, temperature=temperature, seed=number, stop=(whole[5:8], "zzzzzz"))
        pieces = list(stream(model, prompt, sampling))
        assert "".join(pieces) == generate(model, [prompt], sampling)[0].text
        assert all(pieces)


def test_a_stream_holds_back_half_characters(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script of tokens in place of the model: the bytes of 您 come one by one."""
    ids = iter([*model.tokenizer.encode("a 鑫 b"), model.tokenizer.eos_id])
    assert len(model.tokenizer.encode("鑫")) > 1, "several tokens make this character"
    monkeypatch.setattr(slots_module, "choose", lambda *_: (torch.tensor([next(ids)]), torch.zeros(1)))
    pieces = list(stream(model, [7], Sampling(max_new_tokens=40)))
    assert "".join(pieces) == "a 鑫 b" and not any("\ufffd" in p for p in pieces) and len(pieces) > 2


def test_streams_refuse_what_generate_refuses(model: LanguageModel) -> None:
    with pytest.raises(NormaError, match="empty"):
        list(stream(model, [], Sampling()))
    with pytest.raises(NormaError, match="at most"):
        list(stream(model, [7] * model.config.max_positions, Sampling()))
    assert (
        "".join(model.stream([{"role": "user", "content": "hi"}], max_new_tokens=8))
        == model.chat([{"role": "user", "content": "hi"}], max_new_tokens=8)[0]
    )
    assert len(prompt_ids(model.tokenizer, [{"role": "user", "content": "hi"}])) == 4 + len(model.tokenizer.encode("hi"))
