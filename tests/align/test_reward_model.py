"""Reward models: transformers reads the same scores from the folder, whatever the padding; training does not depend on how it is cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from norma.align.reward_model import RewardModel
from norma.align.reward_model_options import RewardModelOptions
from norma.align.reward_training import RewardTraining, judgement
from norma.base.errors import NormaError
from norma.base.progress import Silent
from norma.base.ranks import Ranks
from norma.lm import LanguageModel
from norma.nn import Transformer, preset
from norma.spec import Item, Message
from norma.text.chat import prompt_ids
from norma.text.tokenizer import Tokenizer, train_tokenizer
from norma.train import TrainOptions, train
from norma.train.reading import parts, size, text_scores
from processes import run_ranks

Make = Callable[..., LanguageModel]
FP32 = torch.float32
ANSWERS = ["Certainly: it sorts.", "No.", "Of course: `math.floor` rounds down, as the entry says.", "不知道。"]
ASKED = [[Message(role="user", content="What does it do?")], [Message(role="user", content="What does `json.dumps` do?")]]
ROWS = [
    {"id": f"{i}", "source": f"s{i}", "messages": ASKED[i % 2], "chosen": f"Certainly: {i} it rounds.", "rejected": "No." * (1 + i % 3)}
    for i in range(7)
]  # fmt: skip


@pytest.fixture(scope="module")
def framed_tokenizer() -> Tokenizer:
    return train_tokenizer(["What does it do? It rounds down.", "有什么作用？"] * 20, 330, ["pairs"])


@pytest.fixture(scope="module")
def make_bert(framed_tokenizer: Tokenizer) -> Make:
    def make(seed: int = 0) -> LanguageModel:
        config = preset("bert", vocab_size=len(framed_tokenizer), width=24, layers=2, head_size=8, max_positions=96)
        network = Transformer(config).initialise(torch.Generator().manual_seed(seed))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed + 1))
        return LanguageModel(network.eval(), framed_tokenizer)

    return make


def begin(model: LanguageModel, **more: Any) -> RewardModel:
    """With a head whose scores are far apart."""
    reward = RewardModel.begin(model, **more)
    with torch.no_grad():
        reward.model.transformer.classifier.weight *= 5  # type: ignore[union-attr]
    return reward


# ── the head ──
def test_a_new_head(make_model: Make, make_bert: Make) -> None:
    model = make_model(1)
    head = [RewardModel.begin(model, seed=seed).model.transformer.classifier.weight.detach() for seed in range(100)]  # type: ignore[union-attr]
    assert float(torch.stack(head).std()) == pytest.approx(25**-0.5, rel=0.05), "1 / sqrt(width + 1), width 24"
    assert not torch.equal(head[0], head[1]) and torch.equal(head[3], RewardModel.begin(model, seed=3).model.transformer.classifier.weight)  # type: ignore[union-attr]
    again = begin(model)
    kept = RewardModel.begin(again.model, seed=9).model.transformer
    assert torch.equal(kept.classifier.weight, again.model.transformer.classifier.weight)  # type: ignore[union-attr]
    assert RewardModel.begin(again.model, ["a", "b"]).model.config.labels == 2
    encoder = make_bert()
    assert encoder.config.dropout > 0 and RewardModel.begin(encoder).model.config.dropout == 0
    assert torch.equal(RewardModel.begin(encoder).model.transformer.pooler.weight, encoder.transformer.pooler.weight)  # type: ignore[union-attr]


# ── the folder ──
def peer_scores(folder: Path, texts: list[list[int]], side: str) -> torch.Tensor:
    """transformers' scores of ready ids, as one batch with padding on a side."""
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side=side)
    batch = tokenizer.pad({"input_ids": texts}, return_tensors="pt")
    with torch.no_grad():
        scores: torch.Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return scores


@pytest.mark.parametrize(("kind", "side"), [("llama", "left"), ("llama", "right"), ("qwen3", "left"), ("bert", "right")])
def test_transformers_reads_the_same_scores(kind: str, side: str, make_model: Make, make_bert: Make, tmp_path: Path) -> None:
    reward = begin(make_bert() if kind == "bert" else make_model(1, family=kind), reads="chat")
    reward.finish(centre=torch.tensor([0.7]))
    reward.save(tmp_path, stage="r")
    ours = reward.scores([ASKED[0]] * 4, ANSWERS)
    assert float(ours.std()) > 0.05, "a model that says the same of everything tests nothing"
    theirs = peer_scores(tmp_path, [list(reward.read(ASKED[0], a).ids) for a in ANSWERS], side)
    constant = 0.0 if kind == "bert" else 0.7  # a decoder's head has no bias to hold it
    torch.testing.assert_close(ours, theirs - constant, rtol=1e-4, atol=2e-5)
    opened = RewardModel.load(tmp_path)
    assert opened.names == ("reward",) and opened.reads == "chat"
    assert torch.equal(opened.scores([ASKED[0]] * 4, ANSWERS), ours)
    assert json.loads((tmp_path / "config.json").read_text())["problem_type"] == "regression"


def test_an_encoder_reads_question_and_answer_as_transformers_does(make_bert: Make, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    reward = begin(make_bert())
    reward.save(tmp_path)
    assert reward.reads == "pair"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    words = transformers.AutoTokenizer.from_pretrained(tmp_path)
    batch = words(["What does it do?"] * 4, ANSWERS, return_tensors="pt", padding=True, return_token_type_ids=True)
    assert batch["token_type_ids"].max() == 1 and batch["input_ids"][0, 0] == words.cls_token_id
    with torch.no_grad():
        theirs = model(**batch).logits
    torch.testing.assert_close(reward.scores([ASKED[0]] * 4, ANSWERS), theirs, rtol=1e-4, atol=2e-5)


def test_padding_that_is_the_end_token(make_model: Make, tmp_path: Path) -> None:
    """Ours is read at the end token itself; transformers too, because config.json names no padding: it would look before it."""
    transformers = pytest.importorskip("transformers")
    model = make_model(1)
    config = {**model.tokenizer.config, "pad_token": model.tokenizer.config["eos_token"]}
    reward = begin(LanguageModel(model.transformer, Tokenizer(model.tokenizer.backend, config)))
    ids = [list(reward.read(ASKED[0], answer).ids) for answer in ANSWERS]
    assert reward.model.tokenizer.pad_id == reward.model.tokenizer.eos_id and {i[-1] for i in ids} == {reward.model.tokenizer.eos_id}
    ours = reward.scores([ASKED[0]] * 4, ANSWERS)
    by_hand = torch.stack([reward.model.transformer.classifier(reward.model.transformer.hidden(torch.tensor([i]))[0, -1]) for i in ids])  # type: ignore[misc]
    torch.testing.assert_close(ours, by_hand.detach(), rtol=1e-4, atol=1e-5)
    reward.save(tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    for row, i in enumerate(ids):
        assert float(theirs(torch.tensor([i])).logits) == pytest.approx(float(ours[row]), abs=2e-5)
    with pytest.raises(ValueError, match="no padding token"):
        theirs(torch.tensor([ids[0], ids[0]]))
    assert torch.equal(RewardModel.load(tmp_path).scores([ASKED[0]] * 4, ANSWERS), ours)
    # Other people's models, whose config.json does name it, were trained before the end token: they are read there.
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"pad_token_id": reward.model.tokenizer.eos_id}))
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    other = RewardModel.load(tmp_path).scores([ASKED[0]] * 4, ANSWERS)
    for row, i in enumerate(ids):
        assert float(theirs(torch.tensor([i])).logits) == pytest.approx(float(other[row]), abs=2e-5)
    assert not torch.allclose(other, ours, atol=1e-3)


def test_rule_heads_become_checkers(make_bert: Make, make_model: Make, tmp_path: Path) -> None:
    from norma.check import classifier, reward_model

    reward = begin(make_bert(), names=["style.polite", "form.brief"])
    reward.finish(temperature=torch.tensor([2.0, 0.5]))
    reward.save(tmp_path / "rules")
    logits = reward.scores([ASKED[0]], [ANSWERS[2]])[0]
    item = Item("q", tuple(ASKED[0]))
    for k, rule in enumerate(("style.polite", "form.brief")):
        found = classifier.build(str(tmp_path / "rules"), {"label": rule}, "").check(item, ANSWERS[2])
        assert found.score == pytest.approx(float(torch.sigmoid(logits[k])), abs=1e-5), "each rule is a question of its own"
    with pytest.raises(NormaError, match=r"no label 'style\.rude'"):
        classifier.build(str(tmp_path / "rules"), {"label": "style.rude"}, "")
    single = begin(make_model(2))
    single.finish(centre=torch.tensor([0.3]))
    single.save(tmp_path / "one")
    score = float(single.scores([ASKED[0]], [ANSWERS[2]]))
    found = reward_model.build(str(tmp_path / "one"), {"threshold": 0.0}, "").check(item, ANSWERS[2])
    assert found.margin == pytest.approx(score, abs=1e-5), "centred, and read as it was trained"


def test_temperature_and_centre(make_model: Make, make_bert: Make) -> None:
    for reward in (begin(make_model(1)), begin(make_bert())):
        before = reward.scores([ASKED[0]] * 4, ANSWERS)
        reward.finish(centre=before.mean(dim=0), temperature=torch.tensor([2.0]))
        after = reward.scores([ASKED[0]] * 4, ANSWERS)
        torch.testing.assert_close(after, (before - before.mean()) / 2, rtol=1e-4, atol=1e-5)


# ── scoring ──
def test_texts_that_begin_alike_share_their_row(make_model: Make) -> None:
    reward = begin(make_model(1))
    network, readings = reward.model.transformer, [reward.read(ASKED[0], a) for a in ANSWERS]
    together, alone = text_scores(network, [readings], FP32), text_scores(network, [[r] for r in readings], FP32)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    prompt = len(prompt_ids(reward.model.tokenizer, ASKED[0]))
    assert size(network, readings) == sum(size(network, [r]) for r in readings) - 3 * prompt, "the prompt is read once"
    weights = list(network.parameters())
    ours, theirs = (
        torch.autograd.grad((s.flatten() * torch.tensor([1.0, -2, 0.5, 3])).sum(), weights, allow_unused=True) for s in (together, alone)
    )
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    same = [reward.read(ASKED[0], "No.")] * 2
    torch.testing.assert_close(text_scores(network, [same], FP32), text_scores(network, [[s] for s in same], FP32), rtol=1e-4, atol=1e-5)


def test_scores_come_in_order_and_do_not_depend_on_company(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = begin(make_model(1))
    prompts = [ASKED[i // 3 % 2] for i in range(24)]
    answers = [ANSWERS[i % 4] * (1 + i % 3) for i in range(24)]
    whole = reward.scores(prompts, answers)
    single = torch.cat([reward.scores([p], [a]) for p, a in zip(prompts, answers, strict=True)])
    torch.testing.assert_close(whole, single, rtol=1e-4, atol=1e-5)
    assert reward.scores([], []).shape == (0, 1)
    with pytest.raises(NormaError, match=r"answer 1 has \d+ tokens with its prompt, the reward model reads 1 to 96"):
        reward.scores(ASKED, ["Yes.", "rounds down " * 99])


# ── training ──
def training_of(reward: RewardModel, data: Sequence[dict[str, Any]] = ROWS, heads: Any = "pair", **options: Any) -> RewardTraining:
    judged = [judgement(reward, row, heads, "rows:1") for row in data]
    return RewardTraining(reward, judged, heads, RewardModelOptions(**{"rows": 5, **options}), seed=3, dtype=FP32)


def gradient(reward: RewardModel, training: RewardTraining, **more: Any) -> tuple[float, list[torch.Tensor]]:
    loss = 0.0
    network = reward.model.transformer
    network.zero_grad(set_to_none=True)
    for part, _ in training.losses(network, 1, **more):
        part.backward()
        loss += float(part.detach())
    return loss, [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]


MARKS = [
    {"id": str(i), "source": str(i), "messages": ASKED[0], "answer": a * (1 + i % 2), "desirable": i % 3 == 0, "score": i / 7,
     "rules": {"a": i % 2 == 0} | ({"b": i % 3 == 0} if i % 4 else {})}
    for i, a in enumerate(ANSWERS * 2)
]  # fmt: skip
CASES = [("pair", {}), ("score", {}), ("score", {"pointwise": "logistic"}), ("rules", {})]


@pytest.mark.slow
@pytest.mark.parametrize(("heads", "options"), CASES, ids=lambda value: str(value))
@pytest.mark.parametrize("backbone", ["decoder", "encoder"])
def test_the_gradient_does_not_depend_on_micro_batches_or_ranks(
    backbone: str, heads: str, options: dict[str, Any], make_model: Make, make_bert: Make
) -> None:
    rows, names = (ROWS, ("reward",)) if heads == "pair" else (MARKS, ("a", "b") if heads == "rules" else ("reward",))
    reward = begin(make_model(1) if backbone == "decoder" else make_bert(), names=names, reads="chat")
    loss, whole = gradient(reward, training_of(reward, rows, heads, **options))
    for micro, most in ((1, 5), (100 if backbone == "decoder" else 160, 4)):
        cut = training_of(reward, rows, heads, **options)
        cut.options = cut.options.model_copy(update={"micro_tokens": micro})  # less than a recipe may say
        assert 1 < len(list(cut.losses(reward.model.transformer, 1))) <= most
        part, pieces = gradient(reward, cut)
        assert part == pytest.approx(loss, rel=1e-5)
        for a, b in zip(whole, pieces, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5)
    for count in (2, 3, 8):  # of eight ranks three have nothing of their own
        found = [gradient(reward, training_of(reward, rows, heads, **options), ranks=Ranks(rank, count)) for rank in range(count)]
        assert sum(f[0] for f in found) / count == pytest.approx(loss, rel=1e-5)
        for a, *b in zip(whole, *(f[1] for f in found), strict=True):
            torch.testing.assert_close(a, torch.stack(b).mean(dim=0), rtol=1e-3, atol=2e-5)


def test_the_loss_and_its_numbers_by_a_loop(make_model: Make) -> None:
    reward = begin(make_model(1))
    rows = [row | {"margin": 0.3 * i} for i, row in enumerate(ROWS)]
    training = training_of(reward, rows, rows=7, centring=0.05, micro_tokens=256)
    loss = right = margin = 0.0
    for i, row in enumerate(rows):
        better, worse = reward.scores([row["messages"]] * 2, [row["chosen"], row["rejected"]]).flatten().tolist()
        loss += float(torch.nn.functional.softplus(torch.tensor(0.3 * i - (better - worse)).double())) + 0.05 * (better + worse) ** 2
        right, margin = right + (better > worse), margin + better - worse
    parts_ = list(training.losses(reward.model.transformer, 0))
    assert sum(float(part.detach()) for part, _ in parts_) == pytest.approx(loss / 7, rel=1e-4)
    totals = {name: sum(numbers[name] for _, numbers in parts_) for name in ("loss", "accuracy", "margin")}
    assert totals == pytest.approx({"loss": loss / 7, "accuracy": right / 7, "margin": margin / 7}, rel=1e-4)
    without = training_of(reward, rows, rows=7, centring=0.05, margin=False)
    assert sum(float(part.detach()) for part, _ in without.losses(reward.model.transformer, 0)) < loss / 7


def test_an_epoch_shows_every_row_once(make_model: Make) -> None:
    training = training_of(begin(make_model(1)), rows=2)
    shown = [[j.source for j in training._step(step)] for step in range(6)]
    assert len({s for step in shown[:3] for s in step}) == 6 and shown[:3] != shown[3:]
    assert shown == [[j.source for j in training._step(step)] for step in range(6)]


def test_rows_that_a_head_cannot_learn_from(make_model: Make) -> None:
    reward = begin(make_model(1))
    with pytest.raises(NormaError, match=r"a row without 'chosen': heads: pair learns from pairs") as error:
        judgement(reward, MARKS[0], "pair", "marks/marks.train.jsonl:1")
    assert "marks/marks.train.jsonl:1" in str(error.value)
    with pytest.raises(NormaError, match="a row without 'answer': heads: rules learns from marks"):
        judgement(reward, ROWS[0], "rules", "")
    with pytest.raises(NormaError, match="scores between 0 and 1, here they go from 0 to 7"):
        training_of(reward, [m | {"score": 7 * m["score"]} for m in MARKS], "score", pointwise="logistic")
    with pytest.raises(NormaError, match="none of 1 judgements can be learnt from: the model reads 1 to 96 tokens"):
        training_of(reward, [ROWS[0] | {"chosen": "rounds down " * 99}])
    assert len(training_of(reward, [*ROWS, ROWS[0] | {"rejected": "rounds down " * 99}]).judged) == 7


class Killed(Exception):
    pass


def learn(
    reward: RewardModel, folder: Path, training: RewardTraining, steps: int, die_at: int | None = None, *, often: bool = False
) -> dict[str, float]:
    network = reward.model.transformer

    def losses(step: int) -> Any:
        for part in training.losses(network, step):
            if step == die_at:
                raise Killed
            yield part

    options = TrainOptions(optimiser="adamw", learning_rate=3e-3, warmup=0, schedule="constant", checkpoint_seconds=1e-6 if often else 1e9)
    return train(network, losses, steps=steps, options=options, folder=folder, progress=Silent(), seed=3)


@pytest.mark.parametrize("heads", ["pair", "rules"])
def test_a_killed_run_ends_bit_equal(heads: str, make_model: Make, tmp_path: Path) -> None:
    rows, names = (ROWS, ("reward",)) if heads == "pair" else (MARKS, ("a", "b"))

    def new() -> tuple[RewardModel, RewardTraining]:
        reward = begin(make_model(1), names=names)
        return reward, training_of(reward, rows, heads, micro_tokens=256)

    reward, training = new()
    learn(reward, tmp_path / "whole", training, 8, often=True)
    for death in (3, 6):
        with pytest.raises(Killed):
            other = new()
            learn(other[0], tmp_path / "broken", other[1], 8, die_at=death, often=True)
    again, training = new()
    learn(again, tmp_path / "broken", training, 8, often=True)
    assert all(torch.equal(a, b) for a, b in zip(reward.model.transformer.parameters(), again.model.transformer.parameters(), strict=True))


@pytest.mark.parametrize("backbone", ["decoder", "encoder"])
def test_what_was_preferred_is_learnt(backbone: str, make_model: Make, make_bert: Make, tmp_path: Path) -> None:
    reward = RewardModel.begin(make_model(1) if backbone == "decoder" else make_bert())
    training = training_of(reward, rows=7)
    last = learn(reward, tmp_path, training, 25)
    assert last["accuracy"] == 1 and last["loss"] < 0.2 < last["margin"]
    new = reward.scores([ASKED[0]] * 2, ["Certainly: 9 it rounds.", "No.No."])
    assert float(new[0]) > float(new[1]) + 0.2, "an answer and a prompt that it has not seen together"


def test_scores_of_people_are_learnt(make_bert: Make, tmp_path: Path) -> None:
    reward = RewardModel.begin(make_bert(), reads="response")
    rows = [{"id": str(i), "messages": [], "answer": ANSWERS[i % 4], "desirable": i % 4 > 1, "score": float(i % 4)} for i in range(8)]
    training = training_of(reward, rows, "score", rows=8)
    assert training.mean == 1.5
    learn(reward, tmp_path, training, 60)
    found = reward.scores([[]] * 4, ANSWERS).flatten() + training.mean
    torch.testing.assert_close(found, torch.arange(4.0), rtol=0, atol=0.35)


def test_micro_batches_hold_every_group_once() -> None:
    sizes = [3 + i * 7 % 20 for i in range(30)]
    made = parts(sizes, 100)
    assert sorted(i for part in made for i in part) == list(range(30)) and len(made) < 8
    assert all(len(part) * max(sizes[i] for i in part) <= 100 for part in made)
    assert parts([500, 3], 100) == [[1], [0]], "one that is larger stands alone"


@pytest.mark.slow
def test_trl_has_the_same_loss_on_the_same_ids(make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss, accuracy, margin and the head's gradient of TRL's RewardTrainer on the folder that we write."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    reward = begin(make_model(1))
    rows = [row | {"margin": 0.3 * i} for i, row in enumerate(ROWS)]
    training = training_of(reward, rows, rows=7, centring=0.05, micro_tokens=256)
    ours = list(training.losses(reward.model.transformer, 0))
    reward.save(tmp_path / "model")
    pairs = [{"chosen_ids": list(j.texts[0].ids), "rejected_ids": list(j.texts[1].ids), "margin": j.target} for j in training.judged]
    options = trl.RewardConfig(
        str(tmp_path / "out"), center_rewards_coefficient=0.05, max_length=None, report_to="none", use_cpu=True, bf16=False
    )
    trainer = trl.RewardTrainer(str(tmp_path / "model"), options, train_dataset=datasets.Dataset.from_list(pairs))
    trainer.model.train()  # its numbers are kept by mode
    theirs = trainer.compute_loss(trainer.model, trainer.data_collator(pairs))
    assert sum(float(loss.detach()) for loss, _ in ours) == pytest.approx(float(theirs.detach()), rel=1e-5)
    for name in ("accuracy", "margin"):
        assert sum(numbers[name] for _, numbers in ours) == pytest.approx(trainer._metrics["train"][name][0], rel=1e-4)
    theirs.backward()
    for loss, _ in training.losses(reward.model.transformer, 0):
        loss.backward()  # type: ignore[no-untyped-call]
    head = reward.model.transformer.classifier
    assert head is not None
    torch.testing.assert_close(head.weight.grad, trainer.model.score.weight.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(make_model: Make, tmp_path: Path) -> None:
    make_model(1).save(tmp_path / "base")
    for count in (1, 2):
        run_ranks(Path(__file__).with_name("ranked_reward.py"), tmp_path / "base", tmp_path / str(count), count=count)
    one, two = ([json.loads(line) for line in (tmp_path / n / "metrics.jsonl").read_text().splitlines()] for n in "12")
    for a, b in zip(one, two, strict=True):
        for name in ("loss", "accuracy", "margin", "tokens", "gradient_norm"):
            assert a[name] == pytest.approx(b[name], rel=1e-4), (a["step"], name)
    weights = [load_file(tmp_path / n / "model.safetensors") for n in "12"]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=0, atol=1e-4)
