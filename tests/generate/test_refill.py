"""Rows that come and go: what a row writes is its own, whatever stands beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from norma.generate import Sampling, generate
from norma.generate import slots as slots_module
from norma.generate.reading import Reader, shared_prefix
from norma.generate.slots import Slots
from norma.lm import LanguageModel
from norma.nn import Cache, ModelConfig, Transformer
from norma.train.scoring import Group, answer_logprobs

Make = Callable[..., LanguageModel]
SAMPLED = Sampling(max_new_tokens=20, temperature=1, seed=4)


@pytest.fixture
def model(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    """A model that ends its answers at very different times."""
    made = make_model(3, spread=0.3)
    written = [t for c in generate(made, prompts_of(made, 30), SAMPLED) for t in c.ids]
    monkeypatch.setattr(made.tokenizer, "eos_id", int(torch.bincount(torch.tensor(written)).argmax()))
    return made


def prompts_of(model: LanguageModel, count: int, longest: int = 30) -> list[list[int]]:
    random = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, longest, (count,), generator=random).tolist()
    return [torch.randint(6, len(model.tokenizer), (n,), generator=random).tolist() for n in lengths]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("batch", [1, 2, 5, 16])
def test_refilled_rows_write_what_they_write_alone(model: LanguageModel, batch: int, temperature: float) -> None:
    prompts = prompts_of(model, 24)
    prompts[3] = prompts[11] = prompts[20]
    sampling = replace(SAMPLED, temperature=temperature)
    made = generate(model, prompts, sampling, batch=batch)
    alone = [generate(model, [p], sampling, rows=[i])[0] for i, p in enumerate(prompts)]
    assert [c.ids for c in made] == [c.ids for c in alone]
    assert [c.finish_reason for c in made] == [c.finish_reason for c in alone]
    assert len({len(c.ids) for c in made}) > 4 and {c.finish_reason for c in made} == {"stop", "length"}
    for one, other in zip(made, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_rows_are_refilled_and_the_buffer_moves_on(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without slack everything moves to the left again and again; idle rows are few while prompts wait."""
    monkeypatch.setattr(slots_module, "SLACK", 1)
    prompts = prompts_of(model, 40)
    wanted = [c.ids for c in generate(model, prompts, SAMPLED, batch=40)]
    shifts: list[int] = []
    idle: list[int] = []
    shift, step = Cache.shift, Slots.step
    monkeypatch.setattr(Cache, "shift", lambda self, by: (shifts.append(by), shift(self, by))[1])
    monkeypatch.setattr(Slots, "step", lambda self: (idle.append(len(self.idle)), step(self))[1])
    assert [c.ids for c in generate(model, prompts, SAMPLED, batch=8)] == wanted
    assert len(shifts) > 1 and all(by > 0 for by in shifts)
    assert max(idle[: len(idle) // 2]) == 0, "an eighth of eight rows is one"


def test_numbers_of_rows_are_the_callers(model: LanguageModel) -> None:
    """Ranks that share the prompts write what one rank writes."""
    prompts = [prompts_of(model, 1)[0]] * 6
    whole = [c.ids for c in generate(model, prompts, SAMPLED)]
    assert len(set(whole)) > 3
    shared = [[c.ids for c in generate(model, prompts[:3], SAMPLED, rows=rows)] for rows in (range(3), range(3, 6))]
    assert shared[0] + shared[1] == whole


def test_logprobs_are_the_trainers(model: LanguageModel) -> None:
    prompts = prompts_of(model, 12)
    sampling = replace(SAMPLED, temperature=0.7)
    made = generate(model, prompts, sampling, batch=5)
    groups = [Group(p, [c.ids]) for p, c in zip(prompts, made, strict=True)]
    theirs, owners = answer_logprobs(model.transformer, groups, dtype=torch.float32, temperature=0.7)
    assert owners.bincount().tolist() == [len(c.ids) for c in made]
    torch.testing.assert_close(torch.tensor([x for c in made for x in c.logprobs]), theirs.detach(), rtol=1e-4, atol=1e-4)


def test_a_common_prefix_is_read_once(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(3, spread=0.3)
    system, rests = list(range(10, 40)), prompts_of(model, 9, longest=20)
    prompts = [system + rest for rest in rests]
    wanted = [generate(model, [p], SAMPLED, rows=[i])[0].ids for i, p in enumerate(prompts)]
    read: list[int] = []
    hidden = Transformer.hidden

    def counted(self: Transformer, ids: torch.Tensor, *rest: object, **named: object) -> torch.Tensor:
        read.append(ids.numel())
        return hidden(self, ids, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Transformer, "hidden", counted)
    assert [c.ids for c in generate(model, prompts, SAMPLED, batch=4)] == wanted
    assert read[0] == 30 and sum(n for n in read if n > 4) < 30 + 9 * 24


@pytest.mark.parametrize(
    ("prompts", "shared"),
    [
        ([[1] * 20, [1] * 30], 19),  # the shorter one's last token foretells its answer
        ([[1] * 20, [1] * 17 + [2]], 17),
        ([[1] * 15 + [2], [1] * 15 + [3]], 0),
        ([[1] * 40, [1] * 40], 0),
        ([], 0),
    ],
)
def test_what_prompts_share(prompts: list[list[int]], shared: int) -> None:
    assert len(shared_prefix(prompts)) == shared


@pytest.mark.parametrize(
    "changes",
    [{"windows": (0, 5)}, {"positions": "relative"}, {"positions": "learned"}, {"attention_softcap": 3.0}, {"head_size": 32}],
    ids=str,
)
def test_every_kind_of_attention_refills(changes: dict[str, object], model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows, relative and learned positions, capped scores, and a size that the kernel of decoding takes."""
    monkeypatch.setattr(slots_module, "SLACK", 2)
    config: ModelConfig = replace(model.config, **changes)  # type: ignore[arg-type]
    network = Transformer(config).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.normal_(1.0 if p.dim() == 1 else 0.0, 0.3, generator=random)
    other = LanguageModel(network, model.tokenizer)
    prompts = prompts_of(model, 10)
    made = generate(other, prompts, replace(SAMPLED, temperature=0), batch=3)
    for prompt, completion in zip(prompts, made, strict=True):
        ids = [*prompt, *completion.ids]
        scores = other.logits(torch.tensor([ids]))[0, len(prompt) - 1 : -1]
        assert scores.argmax(-1).tolist() == list(completion.ids)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_batch_any_order(model: LanguageModel, data: st.DataObject) -> None:
    prompts = prompts_of(model, 7)
    order = data.draw(st.permutations(range(7)))
    batch = data.draw(st.integers(1, 7))
    made = generate(model, [prompts[i] for i in order], SAMPLED, batch=batch, rows=list(order))
    alone = generate(model, prompts, SAMPLED)
    assert [c.ids for c in made] == [alone[i].ids for i in order]


def test_no_prompts_no_answers(model: LanguageModel) -> None:
    assert generate(model, [], SAMPLED) == []
    assert Reader(model, torch.float32).prefix == ()
