"""Heads on encoders and decoders: folders that transformers opens with equal logits, what learns, and that something is learnt."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from norma.base.errors import NormaError
from norma.base.progress import Silent
from norma.lm import LanguageModel
from norma.nn import Transformer, preset
from norma.tasks import encode, heads
from norma.tasks.learning import Example, TaskTraining, class_weights, head_loss, scores_of
from norma.tasks.model import TaskModel
from norma.text.packing import IGNORE
from norma.text.tokenizer import Tokenizer
from norma.train import TrainOptions, train
from norma.train.reading import Reading

LABELS = ["bad", "fair", "good"]
OPTIONS = TrainOptions(optimiser="adamw", learning_rate=3e-3, weight_decay=0.0, warmup=0, schedule="constant")


@pytest.fixture(scope="module")
def bert(tiny_tokenizer: Tokenizer) -> LanguageModel:
    config = preset("bert", vocab_size=len(tiny_tokenizer), width=24, layers=2, head_size=8, max_positions=64)
    return LanguageModel(Transformer(config).initialise(torch.Generator().manual_seed(3)), tiny_tokenizer)


CLASSES = {
    "labels": transformers.AutoModelForSequenceClassification,
    "tokens": transformers.AutoModelForTokenClassification,
    "questions": transformers.AutoModelForQuestionAnswering,
}


@pytest.mark.parametrize("shape", ["labels", "tokens", "questions"])
@pytest.mark.parametrize("family", ["bert", "modernbert", "roberta", "llama"])
def test_the_folder_opens_in_transformers_with_equal_logits(
    tiny_tokenizer: Tokenizer, make_model: Callable[..., LanguageModel], tmp_path: Path, family: str, shape: str
) -> None:
    if family == "llama":
        base = make_model(seed=5)
    else:
        more = {"pad_id": tiny_tokenizer.pad_id} if family == "roberta" else {}
        config = preset(family, vocab_size=len(tiny_tokenizer), width=24, layers=3, head_size=8, max_positions=96, **more)
        base = LanguageModel(Transformer(config).initialise(torch.Generator().manual_seed(3)), tiny_tokenizer)
    if family == "llama" and shape != "labels":
        with pytest.raises(NormaError, match="llama has no"):
            heads.begin(base, shape, LABELS, dropout=None, seed=1)
        return
    model = heads.begin(base, shape, LABELS, dropout=None, seed=1)
    with torch.no_grad():
        for p in model.transformer.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    heads.save(model, tmp_path, {"shape": shape, "length": 64})
    theirs = CLASSES[shape].from_pretrained(tmp_path, attn_implementation="eager").eval()
    texts = ["It writes an object.", "time.sleep waits for 12 seconds, and then it goes on."]
    read = encode.readings(model, texts, None, 64)
    ours = scores_of(model.transformer, read)
    for reading, found in zip(read, ours, strict=True):
        with torch.no_grad():
            out = theirs(torch.tensor([list(reading.ids)]))
        if shape == "questions":
            expected = torch.stack([out.start_logits[0], out.end_logits[0]], dim=-1)
        else:
            expected = out.logits[0]
            assert [theirs.config.id2label[i] for i in range(3)] == LABELS
        assert np.allclose(found, expected.numpy(), atol=2e-4), (found - expected.numpy()).max()
    again = TaskModel.load(tmp_path)
    assert again.shape == shape and again.length == 64 and again.names == ([] if shape == "questions" else LABELS)


def test_special_tokens_and_length(bert: LanguageModel) -> None:
    model = heads.begin(bert, "labels", LABELS, dropout=0.0, seed=1)
    (cut,) = encode.readings(model, ["word " * 100], None, 20)
    assert len(cut.ids) == 20 and cut.ids[-1] == model.tokenizer.eos_id
    (pair,) = encode.readings(model, ["It writes. " * 20], ["It reads."], 24)
    assert len(pair.ids) == 24 and set(pair.segments) == {0, 1} and pair.ids.count(model.tokenizer.eos_id) == 2  # type: ignore[attr-defined]
    (typed,) = encode.readings(model, ["<|end|>"], None, 20)
    assert typed.ids.count(model.tokenizer.eos_id) == 1  # type: ignore[attr-defined]


def test_tokens_keep_their_places(bert: LanguageModel) -> None:
    words = ["It", "writes", "an", "object", ".", "您", "好", "："]
    assert "".join(encode.spaced(words)) == "It writes an object .您好："
    (row,) = encode.token_readings(bert, [words], 64)
    for word, place in zip(words, row.places, strict=True):
        piece = bert.tokenizer.decode([row.reading.ids[place]]).strip()
        assert word.startswith(piece.rstrip("\ufffd")), "the first piece of a Chinese character may be a byte of it"
    assert len(set(row.places)) == 8, "您好 is one piece of this tokenizer, but two tokens here"
    assert row.targets(range(8))[row.places[3]] == 3 and sum(t != IGNORE for t in row.targets([0] * 8)) == 8
    (short,) = encode.token_readings(bert, [words * 4], 16)
    assert short.places[-1] == -1 and len(short.targets([0] * 32)) == 16


def test_class_weights_are_scikit_learns() -> None:
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    labels = [0] * 6 + [1] * 3 + [2]
    assert class_weights(labels, 3) == pytest.approx(sklearn.compute_class_weight("balanced", classes=np.arange(3), y=labels).tolist())


def test_the_loss_by_hand() -> None:
    """Scores log 3 and 0: p = .75, .25. Weight 2 for label 1: log(4/3) + 2 log 4; places among real tokens only."""
    real = torch.ones(2, 1, dtype=torch.bool)
    scores = torch.tensor([[np.log(3.0), 0.0]] * 2, dtype=torch.float32)
    loss, right = head_loss("classify", scores, real, [(0,), (1,)], torch.tensor([1.0, 2.0]))
    assert float(loss) == pytest.approx(np.log(4 / 3) + 2 * np.log(4), rel=1e-5) and right == 1
    span = torch.zeros(1, 3, 2)  # three tokens, the last is padding: two places each
    loss, _ = head_loss("span", span, torch.tensor([[True, True, False]]), [(0, 1)], None)
    assert float(loss) == pytest.approx(2 * np.log(2), rel=1e-5)


def test_micro_batches_do_not_change_the_gradient(bert: LanguageModel) -> None:
    model = heads.begin(bert, "labels", LABELS, dropout=0.0, seed=1)
    examples = [Example(Reading([1, 5 + i] * (1 + i), [0] * (2 + 2 * i)), (i % 3,)) for i in range(6)]
    found = []
    for tokens in (32, 4096):
        training = TaskTraining(examples, rows=6, seed=0, dtype=torch.float32, weights=[1.0, 2.0, 0.5], micro_tokens=tokens)
        model.transformer.zero_grad()
        numbers = []
        for loss, n in training.losses(model.transformer, 0):
            loss.backward()  # type: ignore[no-untyped-call]
            numbers.append(n["loss"])
        gradient = model.transformer.classifier.weight.grad  # type: ignore[union-attr]
        assert gradient is not None
        found.append((sum(numbers), gradient.clone(), len(numbers)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5) and torch.allclose(found[0][1], found[1][1], atol=1e-6)
    assert found[0][2] > found[1][2] == 1


def test_last_layers_only(bert: LanguageModel) -> None:
    model = heads.begin(bert, "labels", LABELS, dropout=0.0, seed=1)
    heads.freeze(model, 1)
    learning = {n for n, p in model.transformer.named_parameters() if p.requires_grad}
    assert learning and all("blocks.1." in n or n.startswith(("classifier", "pooler")) for n in learning)
    heads.freeze(model, 0)
    assert {n.split(".")[0] for n, p in model.transformer.named_parameters() if p.requires_grad} == {"classifier", "pooler"}
    with pytest.raises(NormaError, match="last_layers is 5, the model has 2"):
        heads.freeze(model, 5)


@pytest.mark.parametrize("family", ["bert", "llama", "t5"])
def test_a_rule_is_learnt(bert: LanguageModel, make_model: Callable[..., LanguageModel], tmp_path: Path, family: str) -> None:
    """good where the text holds 'object', bad where it does not: in reach of a tiny model in 60 steps."""
    random.seed(0)
    words = ["it", "writes", "waits", "rounds", "down", "seconds", "number", "text", "json", "math"]
    rows = []
    for i in range(96):
        text = random.choices(words, k=5)
        if i % 2:
            text[random.randrange(5)] = "object"
        rows.append({"text": " ".join(text), "label": "good" if i % 2 else "bad"})
    base = bert if family == "bert" else make_model(seed=1)
    if family == "t5":  # both stacks read the text
        config = preset("t5", vocab_size=len(base.tokenizer), width=24, layers=1, head_size=12, max_positions=96)
        base = LanguageModel(Transformer(config).initialise(torch.Generator().manual_seed(1)), base.tokenizer)
    task = TaskModel(heads.begin(base, "labels", ["bad", "good"], dropout=0.0, seed=2), {"length": 32})
    read = encode.readings(task.model, [r["text"] for r in rows[:64]], None, 32)
    examples = [Example(r, (int(row["label"] == "good"),)) for r, row in zip(read, rows, strict=False)]
    training = TaskTraining(examples, rows=16, seed=0, dtype=torch.float32)
    network = task.model.transformer
    train(network, lambda step: training.losses(network, step), steps=80, options=OPTIONS, folder=tmp_path, progress=Silent())
    right = [p["predicted"] == p["label"] for p in task.predict(rows[64:])]
    assert sum(right) >= 29, sum(right)


def test_predictions_are_asked_for_what_they_need(bert: LanguageModel) -> None:
    task = TaskModel(heads.begin(bert, "labels", LABELS, dropout=0.0, seed=1))
    (row,) = task.predict([{"text": "It writes.", "id": 7}])
    assert row["id"] == 7 and row["predicted"] in LABELS and sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    with pytest.raises(NormaError, match="a row without 'text'"):
        task.predict([{"source": "x"}])
    assert task.predict([]) == []
