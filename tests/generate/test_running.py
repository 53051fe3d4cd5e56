"""The batch that requests join and leave: a row writes what it writes alone, whoever comes and goes; numbers are the model's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.generate.engine import generate
from norma.generate.running import Ask, RunningBatch, Token
from norma.generate.sampling import Sampling
from norma.generate.speech import Said, Speech
from norma.lm import LanguageModel
from norma.nn.layers import working_weights

FP32 = torch.float32


def run(model: LanguageModel, arrivals: Sequence[tuple[int, Ask]], leaving: dict[int, int] | None = None) -> list[list[Token]]:
    """Tokens of each ask; ``arrivals``: (step, ask); ``leaving``: {place of an ask: step}."""
    written: dict[int, list[Token]] = {id(ask): [] for _, ask in arrivals}
    with working_weights(model.transformer, FP32):
        batch = RunningBatch(model, FP32)
        step = 0
        while batch.busy or any(at >= step for at, _ in arrivals):
            new = [batch.join([ask]) for at, ask in arrivals if at == step]
            for ask, token in [*(pair for joined in new for pair in joined), *batch.step()]:
                mine = written[id(ask)]
                if len(mine) < ask.sampling.max_new_tokens:
                    mine.append(token)
            gone = [a for _, a in arrivals if len(written[id(a)]) == a.sampling.max_new_tokens]
            gone += [arrivals[i][1] for i, at in (leaving or {}).items() if at == step]
            batch.leave(gone)
            step += 1
    return [written[id(ask)] for _, ask in arrivals]


def asks(model: LanguageModel) -> list[Ask]:
    encode = model.tokenizer.encode
    texts = [
        "What does",
        "Certainly: the entry does not say what `os.path.join` does. " * 2,
        "`time.sleep` 有什么作用？",
        "waits",
        "What does",
    ]
    how = [
        Sampling(24),
        Sampling(18, temperature=1.0, seed=5),
        Sampling(30, temperature=0.8, top_k=9, seed=6),
        Sampling(24, temperature=1.3, top_p=0.7, seed=7),
        Sampling(24, temperature=1.0, seed=8),
    ]
    return [Ask(tuple(encode(text)), s) for text, s in zip(texts, how, strict=True)]


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_the_same_tokens_alone_and_in_company(make_model: Callable[..., LanguageModel], family: str) -> None:
    """The oracle is the engine for trainers, one prompt at a time."""
    model = make_model(3, 0.2, family, max_positions=160)
    wanted = [generate(model, [a.prompt], a.sampling, dtype=FP32)[0].ids for a in asks(model)]
    ends = {model.tokenizer.eos_id}
    for arrivals in ([0, 0, 0, 0, 0], [0, 7, 3, 30, 9], [40, 0, 1, 2, 3]):
        found = run(model, list(zip(arrivals, asks(model), strict=True)))
        for ids, tokens in zip(wanted, found, strict=True):
            mine = [t.id for t in tokens]
            cut = next((i + 1 for i, t in enumerate(mine) if t in ends), len(mine))
            assert tuple(mine[:cut]) == ids


def test_a_row_that_leaves_changes_nothing_for_the_others(make_model: Callable[..., LanguageModel]) -> None:
    model = make_model(4, 0.2, max_positions=160)
    whole = run(model, [(0, a) for a in asks(model)])
    some = run(model, [(0, a) for a in asks(model)], {1: 3, 3: 5})
    for place in (0, 2, 4):
        assert [t.id for t in whole[place]] == [t.id for t in some[place]]


def test_several_answers_to_one_prompt_and_the_models_own_numbers(make_model: Callable[..., LanguageModel]) -> None:
    model = make_model(5, 0.2)
    prompt = tuple(model.tokenizer.encode("What does it do"))
    with working_weights(model.transformer, FP32):
        batch = RunningBatch(model, FP32)
        group = [Ask(prompt, Sampling(8, temperature=1.5, seed=i), top=3) for i in range(3)]
        first = batch.join(group)
        second = batch.step()
    for (ask, one), (_, two) in zip(first, second, strict=True):
        logits = model.logits(torch.tensor([[*ask.prompt, one.id]]))[0, -2:].log_softmax(-1)
        for token, row in ((one, logits[0]), (two, logits[1])):
            assert token.logprob == pytest.approx(float(row[token.id]), abs=1e-4)
            best = row.topk(3)
            assert [i for i, _ in token.top] == best.indices.tolist()
            assert [v for _, v in token.top] == pytest.approx(best.values.tolist(), abs=1e-4)


def test_a_constraint_is_kept_and_told(make_model: Callable[..., LanguageModel]) -> None:
    model = make_model(7, 0.2)

    class Alternating:
        def __init__(self) -> None:
            self.seen: list[int] = []

        def allowed(self) -> torch.Tensor:
            mask = torch.zeros(model.config.vocab_size, dtype=torch.bool)
            mask[[70, 71] if len(self.seen) % 2 else [80, 81]] = True
            return mask

        def accept(self, token: int) -> None:
            self.seen.append(token)

    constraint, free = Alternating(), Sampling(12, temperature=1.0, seed=1)
    prompt = tuple(model.tokenizer.encode("What"))
    bound, other = run(model, [(0, Ask(prompt, free, constraint=constraint)), (0, Ask(prompt, free))])
    ids = [t.id for t in bound]
    assert all(i in (80, 81) for i in ids[::2]) and all(i in (70, 71) for i in ids[1::2])
    assert [t.id for t in other] == [t.id for t in run(model, [(0, Ask(prompt, free))])[0]]


def heard(model: Any, ids: Sequence[int], limit: int, stop: tuple[str, ...] = ()) -> tuple[str, str, list[Said]]:
    speech, said = Speech(model.tokenizer, {model.tokenizer.eos_id}, limit, stop), []
    for i in ids:
        piece = speech.hear(Token(i))
        if piece is not None:
            said.append(piece)
            if piece.finish:
                break
    return "".join(s.text for s in said), said[-1].finish if said else "", said


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(6, 370), min_size=1, max_size=40))
def test_pieces_are_the_whole_text(make_model: Callable[..., LanguageModel], ids: list[int]) -> None:
    """Any bytes in any order: what comes piece by piece is what decoding all at once gives."""
    model = make_model()
    text, finish, said = heard(model, ids, len(ids))
    assert text == model.tokenizer.decode(ids) and finish == "length" and said[-1].count == len(ids)


def test_stop_strings_and_ends(make_model: Callable[..., LanguageModel]) -> None:
    model = make_model()
    ids = model.tokenizer.encode("one two three 您好 four")
    assert heard(model, ids, 99, ("o th",))[:2] == ("one tw", "stop")
    assert heard(model, ids, 99, ("好 f",))[:2] == ("one two three 您", "stop")
    text, finish, said = heard(model, [*ids, model.tokenizer.eos_id, 70], 99, ("fourth",))
    assert (text, finish, said[-1].count) == ("one two three 您好 four", "stop", len(ids) + 1)
    assert sum(len(s.tokens) for s in said) == len(ids)
    _, _, said = heard(model, ids, 99, ("three",))
    kept = [t.id for s in said for t in s.tokens]
    assert ids[: len(kept)] == kept and len(kept) < len(ids)  # tokens of a stop string are not reported


def test_writing_loads_no_compiler() -> None:
    """It costs a start of norma chat, generate, check and serve half as long again as torch itself."""
    code = "import sys, norma.lm, norma.generate, norma.check; print([m for m in ('torch._dynamo', 'torch._inductor') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
