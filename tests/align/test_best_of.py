"""Best-of-n against enumeration, and rounds that a kill does not change."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.align.best_of import BestOf, ModelScorer, SpecScorer, best, expected_best, frontier, kl_bound, summary
from norma.base.errors import NormaError
from norma.base.files import read_jsonl
from norma.base.progress import Silent
from norma.generate import Completion, Sampling
from norma.lm import LanguageModel
from norma.spec import Item, Message
from norma.text.chat import prompt_ids
from norma.train import TrainOptions, train

Make = Callable[..., LanguageModel]


class Score:
    """A scorer that a test writes down."""

    name = "test"

    def __init__(self, score: Callable[[Completion], float | None]) -> None:
        self.score = score

    def scores(self, item: Item, answers: Sequence[Completion]) -> list[float | None]:
        return [self.score(a) for a in answers]


def rounds(model: LanguageModel, score: Callable[[Completion], float | None], items: list[Item], folder: Path, **more: Any) -> BestOf:
    how = {"n": 4, "count": 3, "rounds": 2, "epochs": 2.0, "size": 3, "least": None, "micro_tokens": 4096} | more
    return BestOf(model, Score(score), items, Sampling(4, 1.0), folder=folder, seed=5, dtype=torch.float32, **how)  # type: ignore[arg-type]


def test_the_best_is_the_first_of_the_highest() -> None:
    assert best([0.1, 0.7, 0.7]) == 1 and best([None, -2.0, None]) == 1 and best([None, None]) is None and best([]) is None


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=7), st.data())
@settings(max_examples=60, deadline=None)
def test_the_expected_best_is_the_mean_over_all_subsets(scores: list[int], data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(scores)))
    subsets = [max(s) for s in itertools.combinations(scores, n)]
    assert expected_best([float(s) for s in scores], n) == pytest.approx(sum(subsets) / len(subsets))


@given(st.lists(st.integers(1, 9), min_size=2, max_size=12), st.integers(1, 12))
@settings(max_examples=80, deadline=None)
def test_the_kl_of_best_of_n_stays_below_its_bound(weights: list[int], n: int) -> None:
    """Enumerated: outcome i of rising reward is the best of n with probability F_i^n - F_(i-1)^n."""
    p = np.array(weights) / sum(weights)
    below = np.concatenate([[0.0], np.cumsum(p)])
    q = below[1:] ** n - below[:-1] ** n
    kl = sum(float(b * math.log(b / a)) for a, b in zip(p, q, strict=True) if b > 0)
    assert kl <= kl_bound(n) + 1e-9


def test_the_bound_is_reached_by_many_small_outcomes() -> None:
    size, n = 20000, 4
    below = np.arange(size + 1) / size
    q = below[1:] ** n - below[:-1] ** n
    assert float((q * np.log(q * size)).sum()) == pytest.approx(kl_bound(n), abs=1e-3)
    assert kl_bound(1) == 0 and kl_bound(4) == pytest.approx(1.3862943611 - 0.75)
    with pytest.raises(ValueError, match="1 or more"):
        kl_bound(0)


def test_sampled_best_of_n_is_what_enumeration_says(make_model: Make, tmp_path: Path) -> None:
    """Answers of one token: every outcome and its probability are known. 4 standard errors, once, with a fixed seed."""
    model, n = make_model(1, spread=0.3), 4
    items = [Item(f"q{i}", (Message(role="user", content="What?"),)) for i in range(300)]
    p = model.logits(torch.tensor([prompt_ids(model.tokenizer, items[0].messages)]))[0, -1].double().softmax(-1).numpy()
    worth = {token: float((token * 7919) % 101) / 100 for token in range(len(p))}
    order = sorted(range(len(p)), key=worth.__getitem__)
    below, expected, mean = 0.0, 0.0, float(sum(p[t] * worth[t] for t in order))
    for value in sorted(set(worth.values())):
        above = below + float(sum(p[t] for t in order if worth[t] == value))
        expected += value * (above**n - below**n)
        below = above
    made = BestOf(
        model, Score(lambda a: worth[a.ids[0]]), items, Sampling(1, 1.0), n=n, count=300, rounds=1, epochs=1.0, size=8, least=None,
        micro_tokens=4096, folder=tmp_path, seed=1, dtype=torch.float32,
    )  # fmt: skip
    rows = list(made._sample(1))
    assert len(rows) == 1200
    tops = [max(r["score"] for r in group) for _, group in itertools.groupby(rows, key=lambda r: r["id"])]
    error = float(np.std(tops)) / math.sqrt(len(tops))
    found = summary(rows, n)
    assert found["best_reward"] == pytest.approx(float(np.mean(tops))) and abs(found["best_reward"] - expected) < 4 * error
    assert abs(found["reward"] - mean) < 4 * float(np.std([r["score"] for r in rows])) / math.sqrt(1200) and expected > mean + 0.1
    curve = frontier(rows, n)
    assert [point["n"] for point in curve] == [1, 2, 4] and curve[1]["reward"] > curve[0]["reward"]
    assert [point["kl"] for point in curve] == [0.0, kl_bound(2), kl_bound(4)]


def likes(token: int) -> Callable[[Completion], float]:
    return lambda answer: float(answer.ids.count(token))


def an_end(model: LanguageModel) -> LanguageModel:
    """Answers that end: the end token is compared with where the states of questions lie."""
    network = model.transformer
    with torch.no_grad():
        ids = prompt_ids(model.tokenizer, [{"role": "user", "content": "What does `json.dumps` do?"}])
        state = network.features(network.hidden(torch.tensor([ids])))[0].mean(0)
        network.head_weight()[model.tokenizer.eos_id] = 1.5 * state / state.norm()
    return model


def test_rounds_raise_the_reward_and_sample_from_the_newest_model(make_model: Make, questions: list[Item], tmp_path: Path) -> None:
    model = an_end(make_model(1, spread=0.25))
    made = rounds(model, lambda a: -float(len(a.ids)), questions, tmp_path, n=8, rounds=4, epochs=6.0)
    options = TrainOptions(optimiser="adamw", learning_rate=1e-2, warmup=0, schedule="constant", checkpoint_seconds=1e9)
    train(model.transformer, made.losses, steps=made.steps, options=options, folder=tmp_path, progress=Silent())
    found = [summary(read_jsonl(made.path(r)), 8) for r in range(1, 5)]
    assert found[-1]["reward"] > found[0]["reward"] + 0.5, "shorter answers are worth more, and become the rule"
    assert all(f["best_reward"] >= f["reward"] for f in found)
    rows = read_jsonl(tmp_path / "round-1.jsonl")
    assert len(rows) == 3 * 8 and {r["scored_by"] for r in rows} == {"test"}
    for _, group in itertools.groupby(rows, key=lambda r: r["id"]):
        some = list(group)
        kept = [r for r in some if r["kept"]]
        assert len(kept) == 1 and kept[0]["finished"] and kept[0]["score"] == max(r["score"] for r in some if r["finished"])


class Killed(Exception):
    pass


class Dying(Silent):
    """Dies when a step of that number has been written."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, step: int, total: int, **numbers: float) -> None:
        if step == self.step:
            raise Killed


@pytest.mark.parametrize("at", [1, 3, 4, 5])
def test_a_killed_run_ends_bit_equal(make_model: Make, questions: list[Item], tmp_path: Path, at: int) -> None:
    options = TrainOptions(optimiser="adamw", learning_rate=1e-2, warmup=0, schedule="constant", checkpoint_seconds=1e-9)
    ends = []
    for name in ("whole", "broken"):
        folder, model = tmp_path / name, an_end(make_model(1, spread=0.25))
        made = rounds(model, likes(9), questions, folder, rounds=3, size=1, epochs=1.0)
        assert (made.steps, made.steps_a_round) == (9, 3)
        if name == "broken":
            with pytest.raises(Killed):
                train(model.transformer, made.losses, steps=9, options=options, folder=folder, progress=Dying(at))
            model = an_end(make_model(1, spread=0.25))
            made = rounds(model, likes(9), questions, folder, rounds=3, size=1, epochs=1.0)
        train(model.transformer, made.losses, steps=9, options=options, folder=folder, progress=Silent())
        ends.append(({k: v.clone() for k, v in model.transformer.state_dict().items()}, [made.path(r).read_bytes() for r in (1, 2, 3)]))
    assert ends[0][1] == ends[1][1]
    assert all(torch.equal(ends[0][0][key], ends[1][0][key]) for key in ends[0][0])


def test_what_is_masked_or_too_bad_is_not_trained(make_model: Make, questions: list[Item], tmp_path: Path) -> None:
    model = an_end(make_model(1, spread=0.25))
    made = rounds(model, lambda a: None if len(a.ids) > 2 else 0.5, questions, tmp_path / "a", n=8)
    list(made.losses(0))
    rows = read_jsonl(tmp_path / "a" / "round-1.jsonl")
    assert any(r["score"] is None for r in rows) and all(r["score"] is not None for r in rows if r["kept"])
    with pytest.raises(NormaError, match="round 1: none of the 24 answers may be trained"):
        list(rounds(model, lambda a: 0.5, questions, tmp_path / "b", n=8, least=0.6).losses(0))
    with pytest.raises(NormaError, match="leaves room"):
        rounds(model, lambda a: 0.5, [Item("x", (Message(role="user", content="word " * 99),))], tmp_path / "c")


def test_scorers(one_rule: Any, questions: list[Item]) -> None:
    spec = one_rule(lambda text: None if text == "?" else float(len(text)))
    spec.id = "lengths"
    answers = [Completion((), text, "stop") for text in ("ab", "?", "abcd")]
    scorer = SpecScorer(spec)
    assert scorer.scores(questions[0], answers) == [2.0, None, 4.0] and scorer.name == "spec:lengths"

    class Two:
        def scores(self, prompts: Sequence[Sequence[Message]], texts: Sequence[str]) -> torch.Tensor:
            assert [list(p) for p in prompts] == [list(questions[0].messages)] * 3
            return torch.tensor([[float(len(t)), 1.0] for t in texts])

    assert ModelScorer(Two(), "reward-model:rm").scores(questions[0], answers) == [1.5, 1.0, 2.5]
