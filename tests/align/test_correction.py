"""Supervised correction: what is collected, and that pairs move the preference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from norma.align import correction
from norma.align.correction import Pair, PairTraining, collect
from norma.align.options import PairOptions
from norma.base.errors import NormaError
from norma.base.progress import Silent
from norma.generate import Completion, Sampling
from norma.lm import LanguageModel
from norma.spec import Item, Spec
from norma.text.chat import prompt_ids
from norma.train import TrainOptions, train

Make = Callable[..., LanguageModel]


def test_pairs_raise_the_chosen_over_the_rejected(make_model: Make, questions: list[Item], tmp_path: Path) -> None:
    model = make_model(1, max_positions=160)
    pairs = [Pair(q, f"Certainly: `{q.id}`.", f"No `{q.id}`!") for q in questions]

    def margin() -> list[float]:
        return [model.logprob(p.item.messages, p.chosen) - model.logprob(p.item.messages, p.rejected) for p in pairs]

    before = margin()
    training = PairTraining(model, pairs, PairOptions(pairs=3, likelihood=0.5), seed=0, dtype=torch.float32)
    first = [n for _, n in training.losses(0)]
    assert sum(n["chosen_reward"] for n in first) == pytest.approx(0, abs=1e-4), "the policy begins as its reference"
    options = TrainOptions(optimiser="adamw", learning_rate=3e-3, warmup=0, schedule="constant", checkpoint_seconds=1e9)
    last = train(model.transformer, training.losses, steps=15, options=options, folder=tmp_path, progress=Silent())
    assert all(a > b + 1 for a, b in zip(margin(), before, strict=True))
    assert last["pairs_correct"] == 1 and last["chosen_reward"] > last["rejected_reward"]


def test_the_loss_is_dpo_plus_likelihood_by_a_loop(make_model: Make, questions: list[Item]) -> None:
    model, other = make_model(1, max_positions=160), make_model(2, max_positions=160)
    pairs = [Pair(q, "Certainly: it." + "x" * i, "No." * (i + 1)) for i, q in enumerate(questions)]
    training = PairTraining(model, pairs, PairOptions(pairs=3, beta=0.2, likelihood=0.7, micro_tokens=256), seed=0, dtype=torch.float32)
    training.model = other
    end = model.tokenizer.eos_id

    def logp(who: LanguageModel, pair: Pair, text: str) -> tuple[float, int]:
        prompt, answer = prompt_ids(who.tokenizer, pair.item.messages), [*who.tokenizer.encode(text), end]
        log_p = who.logits(torch.tensor([prompt + answer]))[0].double().log_softmax(-1)
        return sum(float(log_p[len(prompt) + i - 1, t]) for i, t in enumerate(answer)), len(answer)

    dpo = nats = tokens = 0.0
    for pair in pairs:
        (chosen, n), (rejected, _) = logp(other, pair, pair.chosen), logp(other, pair, pair.rejected)
        margin = 0.2 * (chosen - logp(model, pair, pair.chosen)[0] - rejected + logp(model, pair, pair.rejected)[0])
        dpo += float(torch.nn.functional.softplus(torch.tensor(-margin)))
        nats, tokens = nats - chosen, tokens + n
    assert sum(float(loss.detach()) for loss, _ in training.losses(0)) == pytest.approx(dpo / 3 + 0.7 * nats / tokens, rel=1e-4)


def test_an_epoch_shows_every_pair_once(make_model: Make, questions: list[Item], monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(1, max_positions=160)
    pairs = [Pair(questions[0], "a" * (i + 1), "b") for i in range(6)]
    training = PairTraining(model, pairs, PairOptions(pairs=2), seed=0, dtype=torch.float32)
    shown: list[int] = []
    real = correction.answer_logprobs
    monkeypatch.setattr(
        correction,
        "answer_logprobs",
        lambda m, groups, **k: (shown.extend(training.groups.index(g) for g in groups), real(m, groups, **k))[1],
    )
    for step in range(3):
        list(training.losses(step))
    assert sorted(shown) == list(range(6))
    with pytest.raises(NormaError, match="none of the 1 pairs fits"):
        PairTraining(model, [Pair(questions[0], "a b c d e " * 99, "b")], PairOptions(), seed=0, dtype=torch.float32)


GOOD = "Certainly: `json.dumps` writes an object as text."


def item() -> Item:
    user = "What does `json.dumps` do?\nEntry: `json.dumps(obj)`\nThe result is a str."
    return Item("json.dumps#en", ({"role": "user", "content": user},), "en")


def collected(spec: Spec, answers: list[Completion], monkeypatch: pytest.MonkeyPatch, make_model: Make) -> correction.Collected:
    monkeypatch.setattr(correction, "sample", lambda *_, **__: [answers])
    return collect(make_model(0), spec, [item()], Sampling(), each=len(answers))


def test_what_is_collected(spec: Spec, monkeypatch: pytest.MonkeyPatch, make_model: Make) -> None:
    """A good answer makes no pair; a bad one is paired with its own correction; one that was cut off with the good one."""
    answers = [
        Completion((), GOOD, "stop"),
        Completion((), "`json.dumps` writes an object as text", "stop"),
        Completion((), "Certainly: `json.dumps` writes an object as", "length"),
    ]
    found = collected(spec, answers, monkeypatch, make_model)
    assert (found.answers, found.compliant, found.uncorrected) == (3, 1, 0)
    assert [(p.chosen, p.rejected) for p in found.pairs] == [(GOOD, answers[1].text), (GOOD, answers[2].text)]
    assert all(p.chosen != p.rejected for p in found.pairs)
    checkers = sum(len(c) for c in spec.checkers("train").values())
    assert len(found.labels) == 3 * checkers and {m.annotator for m in found.labels} == {
        m.annotator for m in found.labels if m.source == "checker"
    }
    broken = [m for m in found.labels if m.response == answers[1].text and m.verdict == "violation"]
    assert {m.rule for m in broken} >= {"style.polite", "form.full-stop"} and all(m.corrected == GOOD for m in broken)


def test_what_no_program_can_correct_is_counted(spec: Spec, monkeypatch: pytest.MonkeyPatch, make_model: Make) -> None:
    found = collected(spec, [Completion((), "", "stop"), Completion((), GOOD, "length")], monkeypatch, make_model)
    assert (found.compliant, found.uncorrected, found.pairs) == (0, 2, [])
