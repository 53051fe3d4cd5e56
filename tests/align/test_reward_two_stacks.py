"""Reward models of two stacks: the encoder reads the prompt and the decoder the answer, whose last state is scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from norma.align.policy import NormPolicy
from norma.align.policy_options import PolicyOptions
from norma.align.reward_model import RewardModel
from norma.align.reward_model_options import RewardModelOptions
from norma.align.reward_training import RewardTraining, judgement
from norma.align.rewarding import NormReward
from norma.base.errors import NormaError
from norma.base.progress import Silent
from norma.base.ranks import Ranks
from norma.lm import LanguageModel
from norma.nn import Transformer, preset
from norma.nn.lora import LoraOptions, add_lora
from norma.spec import Item, Message
from norma.tasks.heads import fresh
from norma.text.chat import prompt_ids
from norma.text.tokenizer import Tokenizer
from norma.train import TrainOptions, train
from norma.train.reading import Reading, size, text_scores

Make = Callable[..., LanguageModel]
FP32 = torch.float32
ANSWERS = ["Certainly: it sorts.", "No.", "Of course: `math.floor` rounds down, as the entry says.", ""]
ASKED = [[Message(role="user", content="What does it do?")], [Message(role="user", content="What does `json.dumps` do?")]]
PAIRS = [
    {"id": f"{i}", "messages": ASKED[i % 2], "chosen": f"Certainly: {i} it rounds.", "rejected": "No." * (1 + i % 3), "margin": 0.3 * i}
    for i in range(7)
]  # fmt: skip
MARKS = [
    {"id": str(i), "messages": ASKED[i % 2], "answer": answer, "desirable": i % 3 == 0, "score": i / 7,
     "rules": {"a": i % 2 == 0} | ({"b": i % 3 == 0} if i % 4 else {})}
    for i, answer in enumerate(ANSWERS * 2)
]  # fmt: skip


@pytest.fixture(scope="module")
def make_two(tiny_tokenizer: Tokenizer) -> Make:
    def make(family: str = "t5", seed: int = 0, spread: float = 0.2) -> LanguageModel:
        config = preset(family, vocab_size=len(tiny_tokenizer), width=24, layers=2, head_size=8, max_positions=96)
        network = Transformer(replace(config, dropout=0.0)).initialise(torch.Generator().manual_seed(seed))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += spread * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed + 1))
        return LanguageModel(network.eval(), tiny_tokenizer)

    return make


def training_of(reward: RewardModel, data: Sequence[dict[str, Any]] = PAIRS, heads: Any = "pair", **options: Any) -> RewardTraining:
    judged = [judgement(reward, row, heads, "rows:1") for row in data]
    return RewardTraining(reward, judged, heads, RewardModelOptions(**{"rows": 7, **options}), seed=3, dtype=FP32)


def alone(network: Transformer, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """(L,) written out for one answer, without padding or masks: encode, decode behind the start token, the last state, tanh, the head."""
    memory = network.encode(torch.tensor([list(prompt)]))
    last = network.hidden(torch.tensor([[network.start_id, *answer]]), memory=memory)[0, -1]
    assert network.pooler is not None and network.classifier is not None
    out: Tensor = network.classifier(torch.tanh(network.pooler(last)))
    return out


# ── scores ──
@pytest.mark.parametrize("family", ["t5", "t5-v1.1", "bart"])
def test_scores_are_the_last_states_of_each_answer_by_itself(family: str, make_two: Make) -> None:
    reward = RewardModel.begin(make_two(family), ["style.polite", "form.brief"])
    tokenizer, network = reward.model.tokenizer, reward.model.transformer
    assert reward.reads == "chat" and network.classifier is not None and network.classifier.bias is not None
    prompts, answers = [*[ASKED[0]] * 4, *[ASKED[1]] * 4], ANSWERS * 2
    wanted = torch.stack([alone(network, prompt_ids(tokenizer, p), tokenizer.encode(a)) for p, a in zip(prompts, answers, strict=True)])
    found = reward.scores(prompts, answers)
    assert float(wanted.detach().std()) > 0.05, "a model that says the same of everything tests nothing"
    torch.testing.assert_close(found, wanted.detach(), rtol=1e-4, atol=1e-5)
    with pytest.raises(NormaError, match=r"answer 1 has \d+ tokens, its prompt \d+, the reward model reads 1 to 96"):
        reward.scores(ASKED, ["Yes.", "rounds down " * 99])


def test_answers_to_one_prompt_share_its_reading(make_two: Make) -> None:
    reward = RewardModel.begin(make_two())
    network, readings = reward.model.transformer, [reward.read(ASKED[0], a) for a in ANSWERS]
    assert size(network, readings) == len(readings[0].source) + sum(len(r.ids) for r in readings), "the prompt is read once"
    together, apart = text_scores(network, [readings], FP32), text_scores(network, [[r] for r in reversed(readings)], FP32).flip(0)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)
    weights = list(network.parameters())
    ours, theirs = (torch.autograd.grad((s.flatten() * torch.tensor([1.0, -2, 0.5, 3])).sum(), weights) for s in (together, apart))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    # Texts that stand in both stacks have sources of their own, whatever group they are in.
    both = RewardModel.begin(make_two(), reads="response")
    texts = [both.read([], a) for a in ANSWERS[:3]]
    assert texts[0].source != texts[1].source
    torch.testing.assert_close(text_scores(network, [texts], FP32), text_scores(network, [[t] for t in texts], FP32), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_transformers_opens_the_folder_and_scores_alike(family: str, make_two: Make, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    reward = RewardModel.begin(make_two(family))
    reward.finish(centre=torch.tensor([0.7]))
    assert float(reward.centre) == 0, "this head has a bias, which holds it"
    reward.save(tmp_path, stage="r")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    stacks, start = theirs.base_model, theirs.config.decoder_start_token_id
    for answer in ANSWERS:
        read = reward.read(ASKED[0], answer)
        with torch.no_grad():
            hidden = stacks(input_ids=torch.tensor([read.source]), decoder_input_ids=torch.tensor([[start, *read.ids[:-1]]]))[0]
            score = float(theirs.classification_head(hidden[:, -1]))
        assert float(reward.scores([ASKED[0]], [answer])) == pytest.approx(score, abs=2e-5)
    opened = RewardModel.load(tmp_path)
    assert opened.names == ("reward",) and opened.reads == "chat"
    torch.testing.assert_close(opened.scores([ASKED[0]] * 4, ANSWERS), reward.scores([ASKED[0]] * 4, ANSWERS), rtol=0, atol=0)
    # A text that stands in both stacks goes through their own forward pass, in a padded batch.
    words = transformers.AutoTokenizer.from_pretrained(tmp_path)
    both = RewardModel(opened.model, "response", opened.names)
    batch = words(ANSWERS[:3], return_tensors="pt", padding=True)
    assert bool((batch["input_ids"] == words.eos_token_id).any(dim=1).all())
    with torch.no_grad():
        logits = theirs(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    torch.testing.assert_close(both.scores([[]] * 3, ANSWERS[:3]), logits, rtol=1e-4, atol=2e-5)


def test_rule_heads_become_checkers(make_two: Make, tmp_path: Path) -> None:
    from norma.check import classifier, reward_model
    from norma.spec import Status
    from norma.spec.registry import run

    reward = RewardModel.begin(make_two(), names=["style.polite", "form.brief"])
    reward.finish(temperature=torch.tensor([2.0, 0.5]))
    reward.save(tmp_path / "rules")
    logits = reward.scores([ASKED[0]], [ANSWERS[2]])[0]
    item = Item("q", tuple(ASKED[0]))
    for k, rule in enumerate(("style.polite", "form.brief")):
        checker = classifier.build(str(tmp_path / "rules"), {"label": rule}, "")
        assert checker.check(item, ANSWERS[2]).score == pytest.approx(float(torch.sigmoid(logits[k])), abs=1e-5)
    failed = run(checker, item, "rounds down " * 99)
    assert failed.status is Status.ERROR and "reads at most 96" in failed.note
    single = RewardModel.begin(make_two())
    single.save(tmp_path / "one")
    found = reward_model.build(str(tmp_path / "one"), {"threshold": 0.0}, "").check(item, ANSWERS[2])
    assert found.margin == pytest.approx(float(single.scores([ASKED[0]], [ANSWERS[2]])), abs=1e-5)


def test_families_whose_layout_has_no_labels_say_so(tiny_tokenizer: Tokenizer) -> None:
    for family, more in (("switch", {"experts": 2}), ("transformer", {})):
        config = preset(family, vocab_size=len(tiny_tokenizer), width=16, layers=1, head_size=8, **more)
        with pytest.raises(NormaError, match=f"{family} has no 'classify' head"):
            RewardModel.begin(LanguageModel(Transformer(config), tiny_tokenizer))


# ── training ──
def test_a_loss_by_hand(make_two: Make) -> None:
    """A head of zeros with the bias .5 scores everything .5: softplus(m) + c (.5 + .5)^2 of a pair, (.5 - y)^2 of a score."""
    reward = RewardModel.begin(make_two())
    head = reward.model.transformer.classifier
    assert head is not None
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(0.5)
    rows = [PAIRS[0] | {"margin": m} for m in (0.0, 1.0)]
    (pairs, _), *more = training_of(reward, rows, rows=2, centring=0.05).losses(reward.model.transformer, 0)
    # log 2 = .693147, softplus(1) = 1.313262
    assert not more and float(pairs.detach()) == pytest.approx((0.693147 + 1.313262) / 2 + 0.05, abs=1e-5)
    scored = [MARKS[0] | {"score": y} for y in (0.0, 1.0)]
    training = training_of(reward, scored, "score", rows=2)
    assert training.mean == 0.5
    losses = [float(loss.detach()) for loss, _ in training.losses(reward.model.transformer, 0)]
    assert sum(losses) == pytest.approx((1.0**2 + 0.0**2) / 2, abs=1e-6), "targets of -.5 and .5 around their mean"


def test_the_loss_by_a_loop_and_its_gradient_in_both_stacks(make_two: Make) -> None:
    reward = RewardModel.begin(make_two())
    network, tokenizer, wanted = reward.model.transformer, reward.model.tokenizer, 0.0
    for row in PAIRS:
        prompt = prompt_ids(tokenizer, row["messages"])
        better, worse = (float(alone(network, prompt, tokenizer.encode(row[key]))) for key in ("chosen", "rejected"))
        wanted += np.log1p(np.exp(row["margin"] - (better - worse))) + 0.05 * (better + worse) ** 2
    parts = list(training_of(reward, centring=0.05).losses(network, 0))
    assert sum(float(part.detach()) for part, _ in parts) == pytest.approx(wanted / 7, rel=1e-4)
    for part, _ in parts:
        part.backward()  # type: ignore[no-untyped-call]
    still = [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert not still, "encoder, decoder and head all learn"


@pytest.mark.parametrize(("heads", "options"), [("pair", {}), ("score", {}), ("score", {"pointwise": "logistic"}), ("rules", {})])
def test_the_gradient_does_not_depend_on_micro_batches_or_ranks(heads: str, options: dict[str, Any], make_two: Make) -> None:
    rows, names = (PAIRS, ("reward",)) if heads == "pair" else (MARKS, ("a", "b") if heads == "rules" else ("reward",))
    reward = RewardModel.begin(make_two(), names)
    network = reward.model.transformer

    def gradient(micro: int, ranks: Ranks) -> tuple[float, list[Tensor]]:
        training = training_of(reward, rows, heads, rows=5, **options)
        training.options = training.options.model_copy(update={"micro_tokens": micro})  # less than a recipe may say
        network.zero_grad()
        loss = 0.0
        for part, _ in training.losses(network, 1, ranks=ranks):
            part.backward()  # type: ignore[no-untyped-call]
            loss += float(part.detach())
        return loss, [p.grad.clone() for p in network.parameters() if p.grad is not None]

    loss, whole = gradient(4096, Ranks())
    for micro, count in ((1, 1), (120, 1), (4096, 2), (120, 3)):
        found = [gradient(micro, Ranks(rank, count)) for rank in range(count)]
        assert sum(f[0] for f in found) / count == pytest.approx(loss, rel=1e-4)
        for a, *b in zip(whole, *(f[1] for f in found), strict=True):
            torch.testing.assert_close(a, torch.stack(b).mean(dim=0), rtol=1e-3, atol=5e-5)


@pytest.mark.parametrize("lora", [False, True])
def test_what_was_preferred_is_learnt(lora: bool, make_two: Make, tmp_path: Path) -> None:
    reward = RewardModel.begin(make_two(spread=0.0))
    network = reward.model.transformer
    if lora:
        add_lora(network, LoraOptions(rank=4, targets="all"), torch.Generator().manual_seed(0), also=fresh(reward.model))
    options = TrainOptions(optimiser="adamw", learning_rate=3e-3, warmup=0, schedule="constant", checkpoint_seconds=1e9)
    training = training_of(reward, margin=False)
    last = train(network, lambda step: training.losses(network, step), steps=25, options=options, folder=tmp_path, progress=Silent())
    assert last["accuracy"] == 1 and last["loss"] < 0.3
    new = reward.scores([ASKED[0]] * 2, ["Certainly: 9 it rounds.", "No.No."])
    assert float(new[0]) > float(new[1]) + 0.2, "an answer and a prompt that it has not seen together"


# ── use ──
@pytest.mark.parametrize("judge", ["decoder", "both"])
def test_it_rewards_a_policy(judge: str, make_two: Make, make_model: Make) -> None:
    """R(x, y) of a rollout is its score of the prompt and the answer's text, whatever kind the policy is."""
    from norma.generate import LocalEngine

    reward = RewardModel.begin(make_two(seed=3) if judge == "both" else make_model(1))
    policy = make_two("t5" if judge == "decoder" else "bart")
    policy.engine = LocalEngine()
    items = [Item(str(n), tuple(asked)) for n, asked in enumerate(ASKED)]
    options = PolicyOptions(questions=2, group=4, max_new_tokens=4, unfinished=0.0, epochs=2)
    made = NormPolicy(policy, policy.copy(), NormReward(None, options, scorer=reward), items, options, seed=0, dtype=FP32)
    rollout = made.rollout(0)
    said = [policy.tokenizer.decode(list(answer)) for group in rollout.groups for answer in group.answers]
    asked = {tuple(prompt_ids(policy.tokenizer, i.messages)): i.messages for i in items}
    prompts = [asked[tuple(group.prompt)] for group in rollout.groups for _ in group.answers]
    torch.testing.assert_close(rollout.rewards_A.float(), reward.scores(prompts, said)[:, 0], rtol=1e-4, atol=1e-4)
    assert float(rollout.rewards_A.std()) > 1e-3


def test_a_reading_of_nothing_is_refused(make_two: Make) -> None:
    reward = RewardModel.begin(make_two())
    assert reward.fits(reward.read(ASKED[0], "")), "an empty answer still has its end"
    assert not reward.fits(Reading([1], [0])) and not reward.fits(Reading([], [], [1]))
    assert not reward.fits(Reading([1], [0], [1] * 97)) and reward.fits(Reading([1], [0], [1] * 96))
