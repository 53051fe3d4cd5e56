"""Training on answers as they stand: the loss by a loop, every answer once an epoch, nothing changed by micro-batches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from norma.align.answers import AnswerTraining, fits, in_turn, readable, written
from norma.base.errors import NormaError
from norma.lm import LanguageModel
from norma.nn import preset
from norma.spec import Item
from norma.train.scoring import Group

Make = Callable[..., LanguageModel]
GROUPS = [Group([5, 6, 7 + i], [[8, 9 + i], [10] * (1 + i)]) for i in range(5)]


def training(model: LanguageModel, **more: object) -> AnswerTraining:
    how = {"size": 5, "micro_tokens": 4096, "seed": 1, "dtype": torch.float32} | more
    return AnswerTraining(model, GROUPS, **how)  # type: ignore[arg-type]


def test_the_loss_is_the_mean_over_answer_tokens_by_a_loop(make_model: Make) -> None:
    model = make_model(1)
    nats = tokens = 0.0
    for group in GROUPS:
        for answer in group.answers:
            log_p = model.logits(torch.tensor([[*group.prompt, *answer]]))[0].double().log_softmax(-1)
            nats -= sum(float(log_p[len(group.prompt) - 1 + i, t]) for i, t in enumerate(answer))
            tokens += len(answer)
    for micro in (1, 40, 4096):
        parts = list(training(model, micro_tokens=micro).losses(0))
        assert sum(float(loss.detach()) for loss, _ in parts) == pytest.approx(nats / tokens, rel=1e-5)
        assert sum(numbers["loss"] for _, numbers in parts) == pytest.approx(nats / tokens, rel=1e-5)
        assert len(parts) == (1 if micro == 4096 else 5 if micro == 1 else len(parts))


def test_micro_batches_change_no_gradient(make_model: Make) -> None:
    model = make_model(1)
    found = []
    for micro in (1, 4096):
        model.transformer.zero_grad()
        for loss, _ in training(model, micro_tokens=micro).losses(3):
            loss.backward()  # type: ignore[no-untyped-call]
        found.append([p.grad.clone() for p in model.transformer.parameters() if p.grad is not None])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert max(float(g.abs().max()) for g in found[0]) > 1e-3


def test_every_epoch_shows_all_once_in_an_order_of_its_own() -> None:
    seen = [[i for step in range(3) for i in in_turn(6, 2, 7, step + 3 * epoch)] for epoch in range(2)]
    assert all(sorted(order) == list(range(6)) for order in seen) and seen[0] != seen[1]
    assert in_turn(6, 2, 7, 4) == seen[1][2:4] and in_turn(6, 2, 8, 0) != seen[0][:2] and in_turn(6, 2, 7, 0, row=1) != seen[0][:2]
    assert sorted(in_turn(7, 3, 1, 0) + in_turn(7, 3, 1, 1)) != list(range(7)), "a rest smaller than a step waits for the next epoch"


def test_what_does_not_fit_is_left_out(make_model: Make, questions: list[Item]) -> None:
    model = make_model(1, max_positions=48)
    long = Group([5] * 40, [[6] * 9])
    made = AnswerTraining(model, [GROUPS[0], long], size=4, micro_tokens=999, seed=0, dtype=torch.float32)
    assert (made.left_out, made.size, len(made.groups)) == (1, 1, 1)
    with pytest.raises(NormaError, match="none of the 1 answers fits"):
        AnswerTraining(model, [long], size=4, micro_tokens=999, seed=0, dtype=torch.float32)
    config = preset("t5", vocab_size=60, width=16, layers=1, head_size=8, max_positions=40)
    assert fits(config, long) and not fits(model.config, long) and not fits(config, Group([5], [[]]))
    n = len(written(model, questions[0].messages, "").prompt)
    assert readable(model, questions[0].messages, 48 - n) and not readable(model, questions[0].messages, 49 - n)


def test_a_text_becomes_an_answer_that_ends(make_model: Make, questions: list[Item]) -> None:
    model = make_model(1)
    group = written(model, questions[0].messages, "It is.<|end|>")
    (answer,) = group.answers
    assert answer[-1] == model.tokenizer.eos_id and answer.count(model.tokenizer.eos_id) == 1, "what is written stays text"
    assert model.tokenizer.decode(answer[:-1]) == "It is.<|end|>"
