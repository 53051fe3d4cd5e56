"""Reward training: a bandit is learnt, what says nothing teaches nothing, and the leash is slack at the start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from norma.align.options import PolicyOptions
from norma.align.reward import NormPolicy
from norma.base.progress import Silent
from norma.evaluate.likelihood import kl_per_token
from norma.lm import LanguageModel
from norma.spec import Item
from norma.text.chat import prompt_ids
from norma.train import TrainOptions, train
from norma.train.scoring import Group, answer_logprobs

Make = Callable[..., LanguageModel]


def policy(model: LanguageModel, spec: Any, items: list[Item], **options: Any) -> NormPolicy:
    settings = {"questions": 2, "group": 8, "max_new_tokens": 3, "unfinished": 0.0, "divide_by_std": False} | options
    return NormPolicy(model, model.copy(), spec, items, PolicyOptions(**settings), seed=3, dtype=torch.float32)


def gradients(made: NormPolicy, step: int = 0) -> tuple[list[torch.Tensor], dict[str, float]]:
    made.model.transformer.zero_grad()
    numbers: dict[str, float] = {}
    for loss, part in made.losses(step):
        loss.backward()
        for key, value in part.items():
            numbers[key] = numbers.get(key, 0.0) + value
    return [p.grad.clone() for p in made.model.transformer.parameters() if p.grad is not None], numbers


def test_a_bandit_is_learnt(make_model: Make, one_rule: Any, questions: list[Item], tmp_path: Path) -> None:
    model = make_model(1, spread=0.2)
    logits = [model.logits(torch.tensor([prompt_ids(model.tokenizer, q.messages)]))[0, -1] for q in questions]
    rate = torch.stack([x.softmax(-1) for x in logits]).mean(0)
    plain = [t for t in range(6, len(rate)) if "\ufffd" not in model.tokenizer.decode([t]) and 0.01 < rate[t] < 0.1]
    target = plain[0]
    word = model.tokenizer.decode([target])
    made = policy(model, one_rule(lambda text: float(text == word)), questions, questions=3, group=16, max_new_tokens=1, kl=0.0)
    options = TrainOptions(optimiser="adamw", learning_rate=1e-2, warmup=0, schedule="constant", checkpoint_seconds=1e9)
    last = train(model.transformer, made.losses, steps=60, options=options, folder=tmp_path, progress=Silent())
    after = torch.stack(
        [model.logits(torch.tensor([prompt_ids(model.tokenizer, q.messages)]))[0, -1].softmax(-1)[target] for q in questions]
    )
    assert rate[target] < 0.1 and after.min() > 0.9
    assert last["reward"] > 0.9 and last["rule/only"] > 0.9 and last["kl"] > 0.5


def test_at_the_first_step_the_policy_is_its_reference(make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    model = make_model(1)
    spec = one_rule(lambda text: len(text) / 10)
    with_leash, numbers = gradients(policy(model, spec, questions, kl=5.0))
    without, _ = gradients(policy(model, spec, questions, kl=0.0))
    assert numbers["kl"] == 0
    for a, b in zip(with_leash, without, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)
    assert max(float(g.abs().max()) for g in without) > 1e-4
    prompt = prompt_ids(model.tokenizer, questions[0].messages)
    groups = [Group(prompt, [[7, 8], [9]])]
    assert kl_per_token(model, model.copy(), groups) == pytest.approx(0, abs=1e-9)
    assert kl_per_token(model, make_model(2), groups) > 0


@pytest.mark.parametrize("score", [lambda _: 1.0, lambda _: 0.1, lambda _: None])
def test_flat_and_masked_groups_teach_nothing(score: Any, make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    found, numbers = gradients(policy(make_model(1), one_rule(score), questions, kl=0.0))
    assert all(not g.any() for g in found)
    assert numbers["flat_groups"] == 1 and numbers["masked"] == (score("") is None)


def test_a_masked_answer_gets_no_gradient_and_moves_no_mean(make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    model = make_model(1)
    made = policy(model, one_rule(lambda text: None if len(text) % 3 == 0 else float(len(text) % 3)), questions, questions=1, kl=0.0)
    (group,) = made.rollout(0)
    advantages, numbers = made._reward([group])
    scores = [made.spec.verdicts(a.item, a.text, "train")[0].score for a in group]
    known = [s for s in scores if s is not None]
    assert 0 < len(known) < 8
    mean = sum(known) / len(known)
    assert advantages[0] == pytest.approx([0.0 if s is None else s - mean for s in scores])
    assert numbers["masked"] == 1 - len(known) / 8 and numbers["reward"] == pytest.approx(mean)


def test_the_gradient_is_that_of_the_written_out_loss(make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    """-(1/M) sum_t A log p + beta/M sum_t (log p - log ref)^2 / 2, one answer at a time; micro-batches change nothing."""
    model, beta = make_model(1), 0.3
    made = policy(model, one_rule(lambda text: float(len(text))), questions, kl=beta, unfinished=-0.5, temperature=0.8)
    made.reference = make_model(2)
    groups = made.rollout(4)
    total = sum(len(a.ids) for g in groups for a in g)
    loss = torch.zeros(())
    for group in groups:
        values = [len(a.text) - 0.5 * (not a.finished) for a in group]
        for answer, value in zip(group, values, strict=True):
            row = [Group(prompt_ids(model.tokenizer, answer.item.messages), [answer.ids])]
            own, _ = answer_logprobs(model.transformer, row, dtype=torch.float32, temperature=0.8)
            other, _ = answer_logprobs(made.reference.transformer, row, dtype=torch.float32, temperature=0.8)
            loss = loss - (value - sum(values) / len(values)) * own.sum() + beta * 0.5 * (own - other.detach()).square().sum()
    wanted = torch.autograd.grad(loss / total, list(model.transformer.parameters()))
    for micro in (1, 4096):
        made.options = made.options.model_copy(update={"micro_tokens": micro})
        found, _ = gradients(made, 4)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_rollout_is_a_function_of_weights_seed_and_step(make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    made = policy(make_model(1), one_rule(lambda _: 1.0), questions)
    seen: list[Any] = []
    made.on_rollout = lambda step, groups: seen.append((step, [[a.ids for a in g] for g in groups]))
    list(made.losses(2))
    again = [[a.ids for a in g] for g in policy(make_model(1), one_rule(lambda _: 1.0), questions).rollout(2)]
    assert seen == [(2, again)] and again != [[a.ids for a in g] for g in made.rollout(3)]
    assert len(policy(make_model(1), one_rule(lambda _: 1.0), questions, questions=50).rollout(0)) == 3, (
        "fewer questions than asked for: all"
    )
