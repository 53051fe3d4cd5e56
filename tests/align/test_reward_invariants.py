"""What must hold for any policy-gradient training, a test each: ratios, splits, ids, masks, the exact gradient, a bandit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learners import Make, close, gradients, policy
from pydantic import ValidationError

from norma.align.policy_options import METHODS, PolicyOptions
from norma.align.rollout import Rollout
from norma.base.progress import Silent
from norma.evaluate.likelihood import kl_per_token
from norma.nn import Transformer
from norma.spec import Item
from norma.text.chat import prompt_ids
from norma.train import TrainOptions, train
from norma.train.scoring import Group, answer_logprobs

EVERY = sorted(METHODS)
SCORE = {"length": lambda text: len(text) / 10, "some": lambda text: None if len(text) % 3 == 0 else float(len(text) % 3)}


# 1. Old log-probabilities come from the trainer's own pass: the first ratio is one.
@pytest.mark.parametrize("options", [{"method": "ppo", "epochs": 2}, {"minibatches": 2, "epochs": 2}, {"method": "gspo", "epochs": 2}])
def test_on_the_first_step_the_ratio_is_exactly_one(options: Any, make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    made = policy(make_model(1), one_rule(SCORE["length"]), questions, **options, clip_low=1e-9, clip_high=1e-9)
    rollout = made.rollout(0)
    part = made._shares(rollout, 0, 0)[0][0]
    with torch.no_grad():
        now, _ = answer_logprobs(made.model.transformer, [rollout.groups[g] for g in part], dtype=torch.float32)
    assert torch.equal(now, rollout.tokens["old"][rollout.places_of(part)])
    _, numbers = gradients(made, 0)
    assert numbers["kl"] == 0 and numbers["clip_share"] == 0, "a clip of one in a billion would see any other ratio"


def test_at_the_first_step_the_policy_is_its_reference(make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    model = make_model(1)
    spec = one_rule(SCORE["length"])
    with_leash, numbers = gradients(policy(model, spec, questions, kl=5.0))
    without, _ = gradients(policy(model, spec, questions, kl=0.0))
    assert numbers["kl"] == 0
    close(with_leash, without, rtol=1e-4, atol=1e-7)
    assert max(float(g.abs().max()) for g in without.values()) > 1e-4
    prompt = prompt_ids(model.tokenizer, questions[0].messages)
    groups = [Group(prompt, [[7, 8], [9]])]
    assert kl_per_token(model, model.copy(), groups) == pytest.approx(0, abs=1e-9)
    assert kl_per_token(model, make_model(2), groups) > 0


def test_dropout_is_off_in_every_pass(make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    model = make_model(1)
    model.transformer.config = replace(model.transformer.config, dropout=0.5)
    for module in model.transformer.modules():
        if hasattr(module, "config"):
            module.config = model.transformer.config
    model.transformer.train()
    made = policy(model, one_rule(SCORE["length"]), questions, epochs=2)
    first, numbers = gradients(made, 0)
    again, _ = gradients(made, 0)
    assert numbers["kl"] == 0 and all(torch.equal(first[n], again[n]) for n in first)


# 2. Loss and gradient do not depend on how a step is cut, nor on what padding looks like.
@pytest.mark.parametrize("method", EVERY)
def test_micro_batches_change_nothing(method: str, make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    found = []
    for micro in (1, 4096):
        model = make_model(1)
        made = policy(model, one_rule(SCORE["some"]), questions, method=method, kl=0.3, questions=3, epochs=2, refills=0)
        made.reference = make_model(2)
        made.options = made.options.model_copy(update={"micro_tokens": micro})
        with torch.no_grad():  # between two steps the policy has moved
            made.rollout(0)
            for parameter in made.learner.parameters():
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)))
        found.append(gradients(made, 1))
    close(found[0][0], found[1][0])
    assert max(float(g.abs().max()) for g in found[0][0].values()) > 1e-4
    for name in ("loss", "kl", "clip_share", "entropy", "reward"):
        assert found[0][1][name] == pytest.approx(found[1][1][name], rel=1e-4, abs=1e-6), name


def test_pad_may_be_eos(make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    """The end token is trained as any other, whatever id the padding has and however long the longest row is."""
    model, eos = make_model(1), make_model(1).tokenizer.eos_id
    assert eos is not None
    short, long = Group([5, 6, 7], [[9, eos], [10, 11, 12]]), Group([5] * 20, [[9] * 30])
    alone, _ = answer_logprobs(model.transformer, [short], dtype=torch.float32)
    beside, _ = answer_logprobs(model.transformer, [short, long], dtype=torch.float32)
    torch.testing.assert_close(alone, beside[:5], rtol=1e-5, atol=1e-6)
    padded = Transformer(replace(model.config, pad_id=eos))
    padded.load_state_dict(model.transformer.state_dict())
    same, _ = answer_logprobs(padded, [short], dtype=torch.float32)
    torch.testing.assert_close(same, alone)
    same[1].backward()  # the log-probability of the end token itself
    assert padded.head_weight().grad[eos].abs().max() > 1e-4


# 3. What is trained are the sampled ids, at the temperature of sampling, from the whole distribution.
def test_sampled_ids_are_trained_as_they_are(make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    made = policy(make_model(1), one_rule(SCORE["length"]), questions)
    seen: list[Any] = []
    made.on_rollout = lambda number, judged: seen.append([[list(a.ids) for a in g.answers] for g in judged])
    rollout = made.rollout(0)
    assert [[list(a) for a in g.answers] for g in rollout.groups] == seen[0]
    retold = [[made.model.tokenizer.encode(made.model.tokenizer.decode(a)) for a in g.answers] for g in rollout.groups]
    assert retold != seen[0], "half characters and merges: reading the text again gives other ids"


@pytest.mark.parametrize("cut", [{"top_p": 0.9}, {"top_k": 5}])
def test_truncated_sampling_is_refused(cut: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="samples from the whole distribution"):
        PolicyOptions(**cut)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"group": 1}, "group must be 2 or more"),
        ({"method": "ppo", "refills": 1}, "refills"),
        ({"minibatches": 9}, "cannot be divided"),
        ({"overlong": 99}, "more than max_new_tokens"),
        ({"method": "magic"}, "reinforce"),
    ],
)
def test_what_does_not_fit_together_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        PolicyOptions(**options)


def test_a_method_is_a_row_of_settings_and_a_recipe_may_change_any() -> None:
    assert PolicyOptions(method="ppo").epochs == 4 and PolicyOptions(method="ppo", epochs=1).epochs == 1
    assert PolicyOptions(method="dr-grpo").kl == 0 and PolicyOptions().kl == 0.05
    for method in EVERY:
        options = PolicyOptions(method=method)
        assert PolicyOptions.model_validate(options.model_dump()) == options, "a recipe with every default written out says the same"


# 4. The reward sits on the last real token (tests/objectives); here: padding between answers is never there at all.
def test_a_rollout_comes_back_to_the_bit() -> None:
    groups = [Group([1, 2], [[3], [4, 5]]), Group([6], [[7, 8, 9]])]
    third = torch.tensor([1 / 3, 2 / 3, -1e-30, 0.1, 5.0, 6.5])
    made = Rollout(4, groups, torch.tensor([0.1, 0.2, 1 / 3], dtype=torch.float64), {"old": third}, {"reward": 1 / 3})
    back = Rollout.from_text(made.to_text())
    assert (back.number, back.numbers) == (4, {"reward": 1 / 3}) and torch.equal(back.rewards_A, made.rewards_A)
    assert back.groups == groups and torch.equal(back.tokens["old"], third)
    assert made.padded(third).tolist() == [[third[0], 0, 0], [*third[1:3], 0], third[3:].tolist()]
    assert torch.equal(made.flat(made.padded(third)), third)
    assert made.places_of([1]).tolist() == [3, 4, 5] and made.answers_of([1, 0]).tolist() == [2, 0, 1]


# 5. Engine and trainer: the difference of their log-probabilities is measured.
def test_mismatch_of_engine_and_trainer_is_measured(make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    made = policy(make_model(1), one_rule(SCORE["length"]), questions, epochs=2)
    rollout = made.rollout(0)
    rollout.tokens["sampled"] = (
        rollout.tokens["old"] + torch.tensor([0.5, -0.25]).repeat(len(rollout.tokens["old"]))[: len(rollout.tokens["old"])]
    )
    made.state["rollout"] = rollout.to_text()
    _, numbers = gradients(made, 0)
    n = len(rollout.tokens["old"])
    assert numbers["mismatch"] == pytest.approx((0.5 * ((n + 1) // 2) + 0.25 * (n // 2)) / n, rel=1e-5)
    assert "mismatch" not in gradients(made, 1)[1], "after the first step the policy has moved: that is no mismatch"


def test_the_engines_own_log_probabilities_agree(make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    _, numbers = gradients(policy(make_model(1), one_rule(SCORE["length"]), questions, temperature=0.7), 0)
    assert numbers["mismatch"] < 1e-4, "both in fp32"


# 7. A bandit is learnt, by every method.
@pytest.mark.slow
@pytest.mark.parametrize("method", EVERY)
def test_a_bandit_is_learnt(method: str, make_model: Make, one_rule: Any, questions: list[Item], tmp_path: Path) -> None:
    model = make_model(1, spread=0.2)
    logits = [model.logits(torch.tensor([prompt_ids(model.tokenizer, q.messages)]))[0, -1] for q in questions]
    rate = torch.stack([x.softmax(-1) for x in logits]).mean(0)
    plain = [t for t in range(6, len(rate)) if "\ufffd" not in model.tokenizer.decode([t]) and 0.01 < rate[t] < 0.1]
    target = plain[0]
    word = model.tokenizer.decode([target])
    more = {"clip_low": 0.2, "clip_high": 0.2} if method == "gspo" else {}  # an answer of one token: its ratio is the token's
    made = policy(
        model, one_rule(lambda text: float(text == word)), questions, method=method, questions=3, group=16, max_new_tokens=1, kl=0.0, **more
    )
    rate_of_learning = 1e-2 / made.options.epochs  # as far by one rollout, in however many steps
    options = TrainOptions(optimiser="adamw", learning_rate=rate_of_learning, warmup=0, schedule="constant", checkpoint_seconds=1e9)
    steps = 60 * made.options.epochs
    last = train(made.learner, made.losses, steps=steps, options=options, folder=tmp_path, progress=Silent(), state=made.state)
    after = [model.logits(torch.tensor([prompt_ids(model.tokenizer, q.messages)]))[0, -1].softmax(-1)[target] for q in questions]
    assert rate[target] < 0.1 and min(after) > 0.9
    assert last["reward"] > 0.9 and last["rule/only"] > 0.9
    if method != "dapo":  # which in the end finds no group that says anything, and trains and measures nothing
        assert last["kl"] > 0.5


# 8. The sampled gradient is the exact one of L = -E[R], through tokenizer, engine, checkers and the packed forward pass.
@pytest.mark.slow
@pytest.mark.parametrize("method", ["reinforce", "rloo"])
def test_the_sampled_gradient_is_the_exact_one(method: str, make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    model, temperature = make_model(1), 0.7
    made = policy(
        model,
        one_rule(lambda text: (sum(map(ord, text)) % 7) / 7),
        questions[:1],
        method=method,
        questions=1,
        group=64,
        max_new_tokens=1,
        kl=0.0,
        temperature=temperature,
    )
    made.state["baseline"] = 0.4
    ids = torch.tensor([prompt_ids(model.tokenizer, questions[0].messages)])
    tokens = [model.tokenizer.decode([t] if t != model.tokenizer.eos_id else []) for t in range(model.config.vocab_size)]
    reward = torch.tensor([(sum(map(ord, text)) % 7) / 7 for text in tokens])
    p = (model.transformer.logits(model.transformer.hidden(ids)[0, -1]) / temperature).softmax(-1)
    name = "decoder.norm.weight" if "decoder.norm.weight" in dict(model.transformer.named_parameters()) else None
    parameter = dict(model.transformer.named_parameters())[name] if name else list(model.transformer.parameters())[-1]
    label = next(n for n, q in made.learner.named_parameters() if q is parameter)
    (exact,) = torch.autograd.grad(-(p * reward).sum(), parameter)
    each = []
    for number in range(60):
        made.state["baseline"] = 0.4
        each.append(gradients(made, number)[0][label].flatten())
    found = torch.stack(each)
    error = found.std(0) / len(found) ** 0.5
    off = ((found.mean(0) - exact.flatten()) / error).abs()
    assert off.max() < 4.5, off.max()
    assert ((exact.flatten() / error).abs() > 4.5).any(), "else zero would pass too"


# 9. The logged reward is the optimised reward.
def test_the_gradient_is_that_of_the_written_out_loss(make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    """-(1/M) sum_t A log p + beta/M sum_t (log p - log ref)^2 / 2, one answer at a time; penalties are in the reward that is logged."""
    model, beta = make_model(1), 0.3
    made = policy(
        model,
        one_rule(lambda text: float(len(text))),
        questions,
        kl=beta,
        unfinished=-0.5,
        temperature=0.8,
        overlong=2,
        divide_by_std=False,
    )
    made.reference = make_model(2)
    judged: list[Any] = []
    made.on_rollout = lambda number, groups: judged.extend(groups)
    found, numbers = gradients(made, 4)
    total = sum(len(a.ids) for g in judged for a in g.answers)
    loss, logged = torch.zeros(()), []
    for group in judged:
        values = []
        for a in group.answers:
            late = {1: 0.0, 2: -0.5, 3: -1.0}[len(a.ids)]  # 3 tokens at most, a buffer of 2
            values.append(len(a.text) - 0.5 * (not a.finished) + late)
        logged += values
        for answer, value in zip(group.answers, values, strict=True):
            row = [Group(prompt_ids(model.tokenizer, group.item.messages), [answer.ids])]
            own, _ = answer_logprobs(model.transformer, row, dtype=torch.float32, temperature=0.8)
            other, _ = answer_logprobs(made.reference.transformer, row, dtype=torch.float32, temperature=0.8)
            loss = loss - (value - sum(values) / len(values)) * own.sum() + beta * 0.5 * (own - other.detach()).square().sum()
    wanted = torch.autograd.grad(loss / total, list(model.transformer.parameters()))
    close(found, dict(zip(found, wanted, strict=True)), atol=1e-5)
    assert numbers["reward"] == pytest.approx(sum(logged) / len(logged), rel=1e-6)
    assert numbers["answer_tokens"] == total / 16 and 0 < numbers["unfinished"] <= 1


# 10. What cannot be judged is masked, never zero; batch-wide quantities come before micro-batches.
@pytest.mark.parametrize("method", ["grpo", "rloo", "dapo"])
@pytest.mark.parametrize("score", [lambda _: 1.0, lambda _: 0.1, lambda _: None])
def test_flat_and_masked_groups_teach_nothing(score: Any, method: str, make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    found, numbers = gradients(policy(make_model(1), one_rule(score), questions, method=method, kl=0.0))
    assert found and all(not g.any() for g in found.values())
    assert numbers["flat_groups"] == 1 and numbers["masked"] == (score("") is None)


@pytest.mark.parametrize("method", ["ppo", "reinforce"])
def test_a_step_without_any_reward_moves_nothing(method: str, make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    found, numbers = gradients(policy(make_model(1), one_rule(lambda _: None), questions, method=method))
    assert found and all(not g.any() for g in found.values()) and numbers["masked"] == 1 and "flat_groups" not in numbers


def test_a_masked_answer_leaves_the_step_and_moves_no_mean(make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    made = policy(make_model(1), one_rule(SCORE["some"]), questions, questions=1, kl=0.0, divide_by_std=False)
    judged: list[Any] = []
    made.on_rollout = lambda number, groups: judged.extend(groups)
    rollout = made.rollout(0)
    scores = [SCORE["some"](a.text) for a in judged[0].answers]
    known = [s for s in scores if s is not None]
    assert 0 < len(known) < 8
    mean = sum(known) / len(known)
    wanted = [s - mean for s, a in zip(scores, judged[0].answers, strict=True) if s is not None for _ in a.ids]
    assert rollout.tokens["advantages"].tolist() == pytest.approx(wanted)
    assert rollout.numbers["masked"] == 1 - len(known) / 8 and rollout.numbers["reward"] == pytest.approx(mean)
    kept = [a.ids for s, a in zip(scores, judged[0].answers, strict=True) if s is not None]
    assert [tuple(a) for a in rollout.groups[0].answers] == kept


def test_a_rollout_is_a_function_of_weights_seed_and_number(make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    made = policy(make_model(1), one_rule(lambda _: 1.0), questions)
    other = policy(make_model(1), one_rule(lambda _: 1.0), questions)
    assert made.rollout(2).groups == other.rollout(2).groups != made.rollout(3).groups
    assert len(policy(make_model(1), one_rule(lambda _: 1.0), questions, questions=50).rollout(0).groups) == 3, "fewer than asked for: all"
