"""Context distillation: the loss by a loop, nothing to learn from oneself, and a rule that moves from the prompt into the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from norma.align.answers import AnswerTraining, written
from norma.align.distil import Distillation, groups_of, teach
from norma.base.errors import NormaError
from norma.base.progress import Silent
from norma.evaluate.prompt_gap import Arm, gap
from norma.generate import LocalEngine, Sampling
from norma.lm import LanguageModel
from norma.nn import Transformer, preset
from norma.spec import Item, Message, Spec
from norma.spec.shown import Layout, Shown, told
from norma.train import TrainOptions, train
from norma.train.scoring import Group

Make = Callable[..., LanguageModel]
SPEC = """
norma: 1
spec: {id: s, version: "1", source_language: en, languages: [en]}
rules:
- id: stop
  statement: {en: "Stop."}
  checkers: [{id: program, kind: program, use: ends_with_stop, roles: [train, report]}]
"""
HOW: dict[str, Any] = {"size": 4, "micro_tokens": 4096, "seed": 1, "dtype": torch.float32}
TOLD = [Group([5, 6, 7, 8 + i], [[9, 10 + i], [11, 12, 13]]) for i in range(4)]
PLAIN = [Group([8 + i], group.answers) for i, group in enumerate(TOLD)]


def kl_loop(student: LanguageModel, teacher: LanguageModel) -> tuple[float, int]:
    """Sum over answer tokens and vocabulary, one row an answer, in doubles; and the tokens."""
    total, tokens = 0.0, 0
    for a, b in zip(TOLD, PLAIN, strict=True):
        for answer in a.answers:
            p = teacher.logits(torch.tensor([[*a.prompt, *answer]]))[0, len(a.prompt) - 1 : -1].double().softmax(-1).numpy()
            q = student.logits(torch.tensor([[*b.prompt, *answer]]))[0, len(b.prompt) - 1 : -1].double().softmax(-1).numpy()
            for t in range(len(answer)):
                total += sum(float(x) * math.log(float(x) / float(y)) for x, y in zip(p[t], q[t], strict=True))
            tokens += len(answer)
    return total, tokens


def value(training: AnswerTraining, step: int = 0) -> float:
    return sum(float(loss.detach()) for loss, _ in training.losses(step))


def test_the_loss_by_a_loop(make_model: Make) -> None:
    student, teacher = make_model(1), make_model(2)
    total, tokens = kl_loop(student, teacher)
    for micro in (1, 4096):
        made = Distillation(student, TOLD, PLAIN, teacher=teacher, **HOW | {"micro_tokens": micro})
        assert value(made) == pytest.approx(total / tokens, rel=1e-4)
    whole = Distillation(student, TOLD, PLAIN, teacher=teacher, top=len(student.tokenizer), **HOW)
    few = Distillation(student, TOLD, PLAIN, teacher=teacher, top=5, **HOW)
    assert value(whole) == pytest.approx(total / tokens, rel=1e-3) and 0 < value(few) < value(whole)


@pytest.mark.parametrize("top", [None, 8])
def test_a_model_that_reads_what_its_teacher_reads_has_nothing_to_learn(make_model: Make, top: int | None) -> None:
    model = make_model(1)
    made = Distillation(model, PLAIN, PLAIN, top=top, **HOW)
    (loss,) = [loss for loss, _ in made.losses(0)]
    loss.backward()  # type: ignore[no-untyped-call]
    assert abs(float(loss.detach())) < 1e-6
    assert all(float(p.grad.abs().max()) < 1e-5 for p in model.transformer.parameters() if p.grad is not None)


def test_micro_batches_change_no_gradient_and_the_teacher_stays(make_model: Make) -> None:
    found = []
    for micro in (1, 4096):
        model = make_model(1)
        made = Distillation(model, TOLD, PLAIN, **HOW | {"micro_tokens": micro})
        before = value(made)
        for loss, _ in made.losses(0):
            loss.backward()  # type: ignore[no-untyped-call]
        found.append([p.grad.clone() for p in model.transformer.parameters() if p.grad is not None])
        with torch.no_grad():
            for p in model.transformer.parameters():
                p.add_(0.01 * torch.sign(p))
        after = value(made)
        assert before > 0 and after != before
        teacher = make_model(1)  # as it was when the distillation began
        total, tokens = kl_loop(model, teacher)
        assert after == pytest.approx(total / tokens, rel=1e-3), "the teacher is the model as it was, with its own head"
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_of_an_encoder_decoder(family: str, tiny_tokenizer: Any, tmp_path: Path) -> None:
    """The encoder reads the rules or does not; the decoder writes the answer. Training brings the two together."""
    config = preset(family, vocab_size=len(tiny_tokenizer), width=16, layers=1, head_size=8, max_positions=64)
    model = LanguageModel(Transformer(config).initialise(torch.Generator().manual_seed(1)), tiny_tokenizer)
    with torch.no_grad():
        for number, p in enumerate(model.transformer.parameters()):
            p.add_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(number)))
    made = Distillation(model, TOLD, PLAIN, **HOW)
    before = value(made)
    options = TrainOptions(optimiser="adamw", learning_rate=1e-2, warmup=0, schedule="constant", checkpoint_seconds=1e9)
    train(model.transformer, made.losses, steps=25, options=options, folder=tmp_path, progress=Silent())
    assert before > 1e-3 and value(made) < before / 4
    with torch.no_grad():
        log_p = model.logits(torch.tensor([list(PLAIN[0].prompt)]), decoder_ids=torch.tensor([[0, *PLAIN[0].answers[0][:-1]]]))
    assert log_p.shape[1] == len(PLAIN[0].answers[0])


# ── a rule that moves from the prompt into the weights ──
def ask(name: str) -> Item:
    return Item(name, (Message(role="user", content=f"`{name}`?"),), "en")


TRAINED, HELD_OUT = [ask(f"f{i}") for i in range(12)], [ask(f"g{i}") for i in range(10)]
OPTIONS = TrainOptions(optimiser="adamw", learning_rate=4e-3, warmup=0, schedule="constant", checkpoint_seconds=1e9)


@pytest.fixture(scope="module")
def steered(make_model: Make, tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A model that ends with a full stop when the rule stands before the question, and without one when it does not."""
    spec, model = Spec.parse(SPEC), make_model(3, spread=0.08, max_positions=64)
    groups = [written(model, told(spec, i, Shown()), "It is.") for i in TRAINED + HELD_OUT]
    groups += [written(model, i.messages, "It is") for i in TRAINED + HELD_OUT]
    made = AnswerTraining(model, groups, size=44, micro_tokens=8192, seed=1, dtype=torch.float32)
    train(model.transformer, made.losses, steps=90, options=OPTIONS, folder=tmp_path_factory.mktemp("steered"), progress=Silent())
    return model


def rates(model: LanguageModel, before: LanguageModel) -> dict[str, float]:
    arms = {"before": Arm(before), "rules": Arm(before, "applicable"), "now": Arm(model)}
    found = gap(Spec.parse(SPEC), HELD_OUT, arms, "before", Layout(), Sampling(8))
    return {row["method"]: row["overall"]["rate"] for row in found["methods"]}


@pytest.mark.parametrize("loss", ["kl", *(pytest.param(name, marks=pytest.mark.slow) for name in ("top", "sampled"))])
def test_a_rule_moves_from_the_prompt_into_the_weights(steered: LanguageModel, loss: str, tmp_path: Path) -> None:
    spec, model = Spec.parse(SPEC), steered.copy()
    assert rates(model, steered) == {"before": 0.0, "rules": 1.0, "now": 0.0}
    rows = teach(model, spec, TRAINED, Shown(), Sampling(8, 1.0, seed=1), each=4, seed=1)
    assert len(rows) == 12 and all(row["rules"] == ["stop"] and row["told"][0]["role"] == "system" for row in rows)
    assert all(row["messages"] == [{"role": "user", "content": f"`{row['id']}`?"}] for row in rows), "the student sees no rule"
    plain, how = groups_of(model, rows, "messages"), HOW | {"size": 12}
    if loss == "sampled":
        made = AnswerTraining(model, plain, **how)
    else:
        made = Distillation(model, groups_of(model, rows, "told"), plain, top=3 if loss == "top" else None, **how)
    train(model.transformer, made.losses, steps=40, options=OPTIONS, folder=tmp_path, progress=Silent())
    assert rates(model, steered) == {"before": 0.0, "rules": 1.0, "now": 1.0}


def test_sampled_ids_are_trained_not_text_read_again(make_model: Make) -> None:
    spec, model = Spec.parse(SPEC), make_model(1)
    rows = teach(model, spec, TRAINED[:3], Shown(), Sampling(6, 1.0, seed=2), each=2, seed=1)
    for row, group in zip(rows, groups_of(model, rows, "told"), strict=True):
        assert [list(a) for a in group.answers] == [a["ids"] for a in row["answers"]]
        assert all(a["finished"] == (a["ids"][-1] == model.tokenizer.eos_id) for a in row["answers"])
    assert teach(model, spec, TRAINED[:3], Shown(), Sampling(6, 1.0, seed=2), each=2, seed=1) == rows


def test_what_cannot_be_read_with_the_rules_is_left_out(make_model: Make) -> None:
    spec, model = Spec.parse(SPEC), make_model(1, max_positions=48)
    long = Item("long", (Message(role="user", content="word " * 12),), "en")
    rows = teach(model, spec, [TRAINED[0], long], Shown(), Sampling(6), each=1, seed=1)
    assert [row["id"] for row in rows] == ["f0"]
    told_long, plain_short = [Group([5] * 47, [[6, 7]])], [Group([5], [[6, 7]])]
    with pytest.raises(NormaError, match="fits"):
        Distillation(model, told_long, plain_short, **HOW)
    with pytest.raises(ValueError, match="the same answers"):
        Distillation(model, [Group([5], [[6, 7]])], [Group([5], [[6, 8]])], **HOW)
    assert isinstance(model.engine, LocalEngine)
