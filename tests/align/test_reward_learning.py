"""What the policy learns from: the spec's composition, multipliers, held-out checkers, a reward model, value head, refills, other rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from learners import Make, close, gradients, policy
from torch import Tensor

from norma.align.policy import NormPolicy
from norma.align.policy_options import METHODS, PolicyOptions
from norma.align.rewarding import NormReward
from norma.align.telling import batch_table, in_words
from norma.base.errors import NormaError
from norma.generate import Completion
from norma.lm import LanguageModel
from norma.nn.lora import LoraOptions, add_lora
from norma.spec import Item, Message, Spec
from norma.text.chat import prompt_ids
from norma.train.scoring import Group, answer_logprobs

SPEC = """
norma: 1
spec: {id: s, version: "1", languages: [en]}
rules:
- id: has.a
  statement: {en: "Say a."}
  reward: {weight: 3}
  checkers:
  - {id: p, kind: program, use: words, params: {words: [alpha]}}
  - {id: h, kind: program, use: words, roles: [heldout], params: {words: [beta]}}
- id: short
  statement: {en: "Be short."}
  checkers: [{id: p, kind: program, use: length, params: {max_words: 3}}]
"""
CONSTRAINED = SPEC + "compose: {constraints: {short: {budget: 0.25}}}\n"
ITEM = Item("q", (Message(role="user", content="Which letters?"),))


def said(*texts: str, finished: bool = True) -> list[Completion]:
    return [Completion((7, 8), text, "stop" if finished else "length") for text in texts]


def test_the_reward_is_what_the_spec_composes_plus_what_is_taken_off() -> None:
    reward = NormReward(Spec.parse(SPEC), PolicyOptions(unfinished=-0.25))
    whole, cut = reward.judge([(ITEM, said("alpha", "beta", "beta")), (ITEM, said("alpha", finished=False))], {})
    assert whole.rewards == pytest.approx([(3 + 1) / 4, 1 / 4, 1 / 4]) and cut.rewards == pytest.approx([0.75])


def test_held_out_checkers_are_shown_and_never_rewarded() -> None:
    reward = NormReward(Spec.parse(SPEC), PolicyOptions())
    judged = reward.judge([(ITEM, said("alpha", "beta", "alpha beta"))], {})
    numbers = reward.held_out(judged)
    assert numbers["held_out/has.a"] == pytest.approx(2 / 3) == numbers["reward_held_out"]
    assert judged[0].rewards == pytest.approx([1.0, 0.25, 1.0])


def test_held_out_checkers_are_asked_every_few_rollouts(make_model: Make) -> None:
    made = policy(make_model(1), Spec.parse(SPEC), [ITEM], held_out_every=3)
    assert ["reward_held_out" in made.rollout(n).numbers for n in range(5)] == [True, False, False, True, False]


def test_a_multiplier_rises_while_its_constraint_costs_too_much_and_lives_in_the_state() -> None:
    reward = NormReward(Spec.parse(CONSTRAINED), PolicyOptions(multiplier_rate=0.5, multiplier_most=0.6))
    assert reward.budgets == {"short": 0.25}
    long = "one two three four five six seven eight nine ten eleven twelve alpha"
    judged = reward.judge([(ITEM, said("alpha", long))], {"short": 2.0})
    # has.a is kept by both: (1 - 2 x cost) / (1 + 2), with a cost of 0 and of 1 - score.
    cost = 1 - judged[0].parts[1].parts["short"]
    assert cost > 0.5 and judged[0].rewards == pytest.approx([1 / 3, (1 - 2 * cost) / 3])
    assert reward.ascended({"short": 0.0}, judged) == pytest.approx({"short": 0.5 * (cost / 2 - 0.25)})
    assert reward.ascended({"short": 0.55}, judged)["short"] == 0.6, "not above the largest"
    kept = reward.judge([(ITEM, said("alpha"))], {"short": 0.1})
    assert reward.ascended({"short": 0.1}, kept) == {"short": 0.0}, "not below zero"


def test_multipliers_move_with_every_rollout(make_model: Make) -> None:
    made = policy(make_model(1), Spec.parse(CONSTRAINED), [ITEM], multiplier_rate=1.0, epochs=2)
    assert "multipliers" not in made.state
    for step in (0, 1):
        _, numbers = gradients(made, step)
        assert numbers["multiplier/short"] == 0.0
    after = made.state["multipliers"]["short"]
    assert after == max(0.0, 1 - made_scores(made) - 0.25)
    assert gradients(made, 2)[1]["multiplier/short"] == after


def made_scores(made: NormPolicy) -> float:
    """The mean score of the constraint in rollout 0, drawn once more."""
    from norma.align.sampling import draw

    fresh = made.model
    _, judged = draw(fresh, made.items, made.reward, made.options, 0, {"short": 0.0}, seed=made.seed)
    scores = [p.parts["short"] for g in judged for p in g.parts]
    return sum(scores) / len(scores)


class Lengths:
    """A reward model with two heads: how long the answer is, and how many questions it has been asked with."""

    names = ("long", "asked")

    def __init__(self) -> None:
        self.calls = 0

    def scores(self, prompts: Sequence[Sequence[Message]], answers: Sequence[str]) -> Tensor:
        self.calls += 1
        return torch.tensor([[float(len(a)), float(len(p))] for p, a in zip(prompts, answers, strict=True)])


def test_a_reward_model_is_centred_weighted_and_added() -> None:
    scorer = Lengths()
    groups = [(ITEM, said("alpha", "beta")), (ITEM, said("a"))]
    both = NormReward(Spec.parse(SPEC), PolicyOptions(), scorer=scorer, weight=2.0, shift=1.5).judge(groups, {})
    assert both[0].rewards == pytest.approx([1.0 + 2 * ((5 + 1) / 2 - 1.5), 0.25 + 2 * ((4 + 1) / 2 - 1.5)])
    assert scorer.calls == 1, "one batch for all groups"
    alone = NormReward(None, PolicyOptions(), scorer=scorer, shift=0.5).judge(groups, {})
    assert alone[1].rewards == pytest.approx([(1 + 1) / 2 - 0.5]) and alone[1].scores == [{"long": 1.0, "asked": 1.0}]


def test_a_rule_that_does_not_apply_leaves_the_word_to_the_reward_model() -> None:
    spec = Spec.parse(
        SPEC.replace("- id: short", "  applies: 'facts.on == true'\n- id: short").replace(
            "{id: p, kind: program, use: length", "{id: p, roles: [report], kind: program, use: length"
        )
    )
    item = Item("q", ITEM.messages, facts={"on": False})
    (none,) = NormReward(spec, PolicyOptions()).judge([(item, said("alpha"))], {})
    assert none.rewards == [None]
    (scored,) = NormReward(spec, PolicyOptions(), scorer=Lengths()).judge([(item, said("alpha"))], {})
    assert scored.rewards == [3.0]


def test_ppos_advantages_are_the_papers(make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    """Token by token in Python: k1 leash at each token, reward at the last, GAE, whitened over the rollout's tokens."""
    made = policy(
        make_model(1), one_rule(lambda text: float(len(text))), questions, method="ppo", kl=0.2, value={"decay": 0.8, "discount": 0.9}
    )
    made.reference = make_model(2)
    assert made.critic is not None
    with torch.no_grad():
        made.critic.head.weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))  # type: ignore[union-attr,operator]
    rollout = made.rollout(0)
    found, at = [], 0
    for reward, n in zip(rollout.rewards_A.tolist(), rollout.lengths_A.tolist(), strict=True):
        old, ref, values = (rollout.tokens[name][at : at + n].tolist() for name in ("old", "reference", "values"))
        shaped = [-0.2 * (o - r) + (reward if t == n - 1 else 0) for t, (o, r) in enumerate(zip(old, ref, strict=True))]
        ahead, own = 0.0, [0.0] * n
        for t in reversed(range(n)):
            ahead = shaped[t] + 0.9 * (values[t + 1] if t + 1 < n else 0.0) - values[t] + 0.9 * 0.8 * ahead
            own[t] = ahead
        found += own
        torch.testing.assert_close(rollout.tokens["returns"][at : at + n], torch.tensor(own) + torch.tensor(values), rtol=1e-4, atol=1e-5)
        at += n
    assert len({round(v, 4) for v in rollout.tokens["values"].tolist()}) > 3
    mean = sum(found) / len(found)
    std = (sum((a - mean) ** 2 for a in found) / (len(found) - 1)) ** 0.5
    torch.testing.assert_close(rollout.tokens["advantages"], torch.tensor([(a - mean) / std for a in found]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backbone", [pytest.param("copy", marks=pytest.mark.slow), "shared"])
def test_the_value_head_learns_what_to_expect(backbone: str, make_model: Make, one_rule: Any, questions: list[Item], tmp_path: Any) -> None:
    from norma.base.progress import Silent
    from norma.train import TrainOptions, train

    made = policy(
        make_model(1),
        one_rule(lambda text: 2.0),
        questions,
        method="ppo",
        max_new_tokens=2,
        kl=0.0,
        value={"backbone": backbone, "decay": 1.0},
    )
    options = TrainOptions(optimiser="adamw", learning_rate=1e-2, warmup=0, schedule="constant", checkpoint_seconds=1e9)
    losses: list[float] = []

    def watched(step: int) -> Any:
        for loss, numbers in made.losses(step):
            losses.append(numbers.get("value_loss", 0.0))
            yield loss, numbers

    train(made.learner, watched, steps=48, options=options, folder=tmp_path, progress=Silent(), state=made.state)
    # A reward of 2 whatever is said: the loss falls from 2^2 / 2 to next to nothing, and the policy has nothing to gain.
    assert losses[0] == pytest.approx(2.0, rel=1e-3) and losses[-1] < 0.1
    names = {n for n, _ in made.learner.named_parameters()}
    assert any(n.startswith("critic.backbone") for n in names) == (backbone == "copy")


def test_dynamic_sampling_refills_groups_that_say_nothing(make_model: Make, one_rule: Any) -> None:
    questions = [Item(str(n), (Message(role="user", content=f"Question {n}?"),)) for n in range(12)]

    class Half:
        """Says nothing about even questions."""

        composition = one_rule(None).composition

        def checkers(self, role: str) -> dict[str, Any]:
            return {}

        def verdicts(self, item: Item, text: str, role: str) -> list[Any]:
            return one_rule(lambda t: 1.0 if int(item.id) % 2 == 0 else float(len(t))).verdicts(item, text, role)

        def rewards(self, items: Any, group: Any) -> Any:
            return one_rule(None).rewards(items, group)

    made = policy(make_model(1), Half(), questions, method="dapo", questions=4, refills=5)
    written: list[Any] = []
    made.on_rollout = lambda number, judged: written.extend(judged)
    rollout = made.rollout(0)
    asked = [int(g.item.id) for g in written]
    assert len(rollout.groups) == 4 and len(asked) == len(set(asked)) > 4, "refilled by questions that were not asked yet"
    told = [prompt_ids(made.model.tokenizer, g.item.messages) for g in written if int(g.item.id) % 2]
    assert [list(g.prompt) for g in rollout.groups] == told[:4]
    assert rollout.numbers["flat_groups"] == sum(n % 2 == 0 for n in asked) / len(asked)
    short = policy(make_model(1), Half(), questions, method="dapo", questions=4, refills=0)
    assert len(short.rollout(0).groups) == 4 and 0 < short.rollout(0).numbers["flat_groups"] < 1


def test_an_adaptive_leash_moves_with_the_drift_and_lives_in_the_state(make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    made = policy(make_model(1), one_rule(lambda t: float(len(t))), questions, kl=0.5, kl_target=1e-3)
    made.reference = make_model(2)  # far away: the leash grows by the most it may, 2%
    _, first = gradients(made, 0)
    assert first["kl_coefficient"] == 0.5 and made.state["kl_coefficient"] == pytest.approx(0.51)
    _, second = gradients(made, 1)
    assert second["kl_coefficient"] == pytest.approx(0.51)


def test_a_leash_needs_somewhere_to_lead(make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    options = PolicyOptions(group=4, questions=1, max_new_tokens=2)
    reward = NormReward(one_rule(lambda t: float(len(t))), options)
    with pytest.raises(NormaError, match="a leash needs a model before"):
        NormPolicy(make_model(1), None, reward, questions, options, seed=0, dtype=torch.float32)


def test_lora_is_its_own_reference(make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    model, before = make_model(1), make_model(1)
    add_lora(model.transformer, LoraOptions(rank=2), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, parameter in model.transformer.named_parameters():
            if name.endswith(".B"):
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    options = PolicyOptions(group=4, questions=2, max_new_tokens=3, epochs=2)
    reward = NormReward(one_rule(lambda t: float(len(t))), options)
    made = NormPolicy(model, None, reward, questions, options, seed=0, dtype=torch.float32)
    rollout = made.rollout(0)
    wanted, _ = answer_logprobs(before.transformer, rollout.groups, dtype=torch.float32)
    torch.testing.assert_close(rollout.tokens["reference"], wanted.detach(), rtol=1e-5, atol=1e-5)
    found, numbers = gradients(made, 0)
    assert numbers["kl"] > 0.01 and all(n.endswith((".A", ".B")) for n in found)


def test_pretraining_rows_are_mixed_in_by_their_weight(make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    """PPO-ptx: the gradient is the policy's plus gamma times that of the other rows' mean loss."""
    row = Group([5, 6], [[9, 10, 11]])

    def nll(network: Any) -> Tensor:
        return -answer_logprobs(network, [row], dtype=torch.float32)[0].mean()

    def rows(network: Any, step: int) -> Any:
        loss = 3.0 * nll(network)
        yield loss, {"loss": float(loss.detach()), "pretraining_loss": float(loss.detach()) / 3}

    plain, numbers = gradients(policy(make_model(1), one_rule(lambda t: float(len(t))), questions))
    made = policy(make_model(1), one_rule(lambda t: float(len(t))), questions)
    made.pretraining = rows
    mixed, more = gradients(made)
    model = make_model(1)
    wanted = torch.autograd.grad(3.0 * nll(model.transformer), list(model.transformer.parameters()))
    close(mixed, {n: g + w for (n, g), w in zip(plain.items(), wanted, strict=True)}, atol=1e-5)
    assert more["loss"] == pytest.approx(numbers["loss"] + 3 * more["pretraining_loss"], rel=1e-5)


def test_reinforces_baseline_is_the_rewards_running_mean(make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    made = policy(make_model(1), one_rule(lambda t: float(len(t))), questions, method="reinforce", kl=0.0, baseline_decay=0.5)
    first = made.rollout(0)
    mean = float(first.rewards_A.mean())
    assert made.state["baseline"] == mean and float(first.tokens["advantages"][0]) == pytest.approx(first.rewards_A[0] - mean)
    second = made.rollout(1)
    assert second.tokens["advantages"][0] == pytest.approx(float(second.rewards_A[0]) - mean)
    assert made.state["baseline"] == pytest.approx((mean + float(second.rewards_A.mean())) / 2)


def test_minibatches_cover_each_pass_once(make_model: Make, one_rule: Any) -> None:
    questions = [Item(str(n), (Message(role="user", content=f"Question {n}?"),)) for n in range(5)]
    made = policy(make_model(1), one_rule(lambda t: float(len(t))), questions, questions=5, epochs=2, minibatches=2)
    rollout = made.rollout(0)
    passes = [[sorted(g for part in made._shares(rollout, epoch, m)[0] for g in part) for m in (0, 1)] for epoch in (0, 1)]
    assert all(sorted(one + two) == list(range(5)) and len(one) == 3 for one, two in passes)
    assert made.options.steps == 4 and {len(p) for p in passes} == {2}


def test_the_batch_table_counts() -> None:
    table = batch_table(
        PolicyOptions(questions=10, group=4, epochs=2, minibatches=3, max_new_tokens=20, micro_tokens=256),
        steps=13,
        questions=500,
        prompt_tokens=30,
        ranks=2,
    )
    # 10 x 4 = 40 answers of 20 tokens; 6 steps a rollout, 13 steps = 3 rollouts; a row is 30 + 4 x 20 = 110 tokens, two fit into 256;
    # a minibatch has up to 4 questions, a rank up to 2.
    for part in (
        "10 x 4 answers = 40",
        "800 written",
        "= 6 steps a rollout; 13 steps = 3 rollouts = 120 sequences",
        "up to 1 a step",
        "2 questions",
        "110 tokens",
    ):
        assert part in table, table


def test_what_the_numbers_mean_is_said_in_words() -> None:
    rows = [{"flat_groups": 0.25, "masked": 0.0}, {"flat_groups": 0.49, "masked": 0.1}, {"skipped": True}]
    assert in_words(rows) == ["37% of groups gave no signal because all answers got the same reward."]
    assert in_words([{"flat_groups": 0.1}]) == [] and in_words([]) == []
    assert "a checker failed" in in_words([{"masked": 0.8}])[0]


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "LoRA"])
@pytest.mark.parametrize("method", METHODS)
def test_two_stacks_are_a_policy_too(method: str, lora: bool, make_model: Make, one_rule: Any, questions: list[Item]) -> None:
    """An encoder-decoder reads the question and writes the answer, with every method; nothing here knows the difference."""
    from norma.nn import Transformer, preset

    base = make_model(1)
    config = preset("t5", vocab_size=base.config.vocab_size, width=24, layers=2, head_size=6, max_positions=96)
    model = LanguageModel(Transformer(config).initialise(torch.Generator().manual_seed(0)).eval(), base.tokenizer)
    if lora:
        add_lora(model.transformer, LoraOptions(rank=2, targets="all"), torch.Generator().manual_seed(0))
    options = PolicyOptions(method=method, questions=2, group=4, max_new_tokens=3, unfinished=0.0)  # type: ignore[arg-type]
    reward = NormReward(one_rule(lambda t: float(len(t))), options)
    before = None if lora else model.copy()
    made = NormPolicy(model, before, reward, questions, options, seed=3, dtype=torch.float32)
    found, numbers = gradients(made)
    assert numbers["clip_share"] == 0
    ours = {n: g for n, g in found.items() if n.startswith("policy.")}
    assert all(any(g.any() for n, g in ours.items() if n.startswith(f"policy.{stack}")) for stack in ("encoder", "decoder"))
    assert not lora or all(n.endswith((".A", ".B")) for n in ours)
    if method == "ppo":
        # The value head begins at 0: of its own stacks nothing moves before it does.
        assert made.critic is not None and found["critic.head.weight"].any() and numbers["value_loss"] > 0
        with torch.no_grad():
            made.critic.head.weight.fill_(0.1)  # type: ignore[operator,union-attr]
        found, _ = gradients(made, 1)
        own = [n for n, g in found.items() if n.startswith("critic.backbone") and g.any()]
        assert {"encoder", "decoder"} <= {n.split(".")[2] for n in own}
        assert not lora or all(n.endswith((".A", ".B")) for n in own), "a LoRA of its own"
