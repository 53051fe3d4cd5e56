"""Classifier, reward model and local judge on tiny model folders that transformers wrote; transformers is the oracle."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from norma.base.errors import NormaError
from norma.check import classifier, judge, reward_model, selftest
from norma.check.calibrate import calibrate, fit_abstention, fit_temperature, fit_threshold
from norma.check.folders import identity
from norma.check.judge_models import Reply
from norma.spec import Spec, registry
from norma.spec.types import CheckerFailure, Item, Message, Status

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

ITEM = Item("1", (Message(role="user", content="what is it"),))
WORDS = ["what", "is", "it", "a", "cat", "sir", "please", "no", "[SEP]", "the"]


def tokenizer(folder: Path) -> Any:
    """Words, framed as BERT frames them."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(w for w in WORDS if w != "[SEP]")]
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(names)}, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()  # splits [SEP] that somebody typed into three words
    backend.add_special_tokens(names[:4])
    backend.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    made.save_pretrained(folder)
    return made


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """(folder, model, tokenizer) of a classifier with the labels rude and kept."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=13, hidden_size=12, num_hidden_layers=1, num_attention_heads=3, intermediate_size=20, max_position_embeddings=16,
        id2label={0: "rude", 1: "kept"}, label2id={"rude": 0, "kept": 1}, initializer_range=0.5,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    return folder, model, tokenizer(folder)


def test_a_classifier_says_what_transformers_says(bert: tuple[Path, Any, Any]) -> None:
    folder, model, words = bert
    for reads, asked in (("response", ("a cat sir",)), ("pair", ("what is it", "a cat sir"))):
        with torch.no_grad():
            logits = model(**words(*asked, return_tensors="pt", return_token_type_ids=True)).logits[0]
        expected = float((logits / 2.0).softmax(-1)[1])
        checker = classifier.build(str(folder), {"label": "kept", "temperature": 2.0, "reads": reads}, "")
        found = checker.check(ITEM, "<think>no</think>a cat sir")
        assert found.score == pytest.approx(expected, abs=1e-5)
        assert found.status is (Status.COMPLIANT if expected >= 0.5 else Status.VIOLATION)
        turned = classifier.build(str(folder), {"label": "0", "temperature": 2.0, "reads": reads}, "").check(ITEM, "a cat sir")
        assert turned.score == pytest.approx(1 - expected, abs=1e-5)
        unknown = checker.check(ITEM, "a cat x y z sir")  # what is typed never becomes a special token
        assert checker.check(ITEM, "a cat [SEP] sir").score == pytest.approx(unknown.score, abs=1e-6)


def test_threshold_and_abstention(bert: tuple[Path, Any, Any]) -> None:
    folder, _, _ = bert
    p = classifier.build(str(folder), {"label": "kept"}, "").check(ITEM, "a cat sir").score
    assert p is not None and 0.05 < p < 0.95
    for threshold, abstain, status in (
        (p - 0.02, 0.0, Status.COMPLIANT),
        (p + 0.02, 0.0, Status.VIOLATION),
        (p + 0.02, 0.03, Status.UNSURE),
        (p - 0.02, 0.03, Status.UNSURE),
        (p - 0.02, 0.01, Status.COMPLIANT),
    ):
        found = classifier.build(str(folder), {"label": "kept", "threshold": threshold, "abstain": abstain}, "").check(ITEM, "a cat sir")
        assert found.status is status and (found.score is None) == (status is Status.UNSURE)
        assert found.margin == pytest.approx(p - threshold)


def test_text_that_is_too_long_is_an_error(bert: tuple[Path, Any, Any]) -> None:
    checker = classifier.build(str(bert[0]), {"label": "kept"}, "")
    found = registry.run(checker, ITEM, "cat " * 15)
    assert found.status is Status.ERROR and "17 tokens" in found.note
    assert registry.run(checker, ITEM, "cat " * 14).status is not Status.ERROR
    assert selftest(classifier.build(str(bert[0]), {"label": "kept", "languages": ["en"]}, "")) == []


def test_the_digest_covers_the_models_files(bert: tuple[Path, Any, Any], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in bert[0].iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    build = classifier.build
    base = build(str(bert[0]), {"label": "kept"}, "").digest
    assert build(str(copy), {"label": "kept"}, "").digest == base == build(str(copy), {"label": "1"}, "").digest
    kept = {"label": "kept"}
    changed = [{"label": "rude"}, {**kept, "threshold": 0.6}, {**kept, "reads": "pair"}, {**kept, "abstain": 0.1}]
    assert len({base, *(build(str(copy), params, "").digest for params in changed)}) == 5
    before = identity(copy)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(bytes(weights))
    assert identity(copy) != before and build(str(copy), {"label": "kept"}, "").digest != base


def test_a_reward_model_says_what_transformers_says(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=13, hidden_size=12, num_hidden_layers=1, num_attention_heads=3, num_key_value_heads=3, intermediate_size=20,
        max_position_embeddings=64, num_labels=1, pad_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    model = transformers.LlamaForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    words = tokenizer(tmp_path)
    words.chat_template = "{% for m in messages %}[CLS] {{ m['content'] }} [SEP] {% endfor %}"
    words.save_pretrained(tmp_path)
    ids = torch.tensor([words.convert_tokens_to_ids(["[CLS]", "what", "is", "it", "[SEP]", "[CLS]", "a", "cat", "[SEP]"])])
    with torch.no_grad():
        expected = float(model(ids).logits[0, 0])
    found = reward_model.build(str(tmp_path), {"threshold": 0.25, "scale": 2.0}, "").check(ITEM, "a cat")
    assert found.score == pytest.approx(1 / (1 + math.exp(-(expected - 0.25) / 2)), abs=1e-5)
    assert found.margin == pytest.approx(expected - 0.25, abs=1e-5)
    assert reward_model.build(str(tmp_path), {"threshold": expected - 0.1, "abstain": 0.2}, "").check(ITEM, "a cat").status is Status.UNSURE
    assert reward_model.build(str(tmp_path), {"threshold": expected + 1}, "").check(ITEM, "a cat").status is Status.VIOLATION


def test_wrong_folders(bert: tuple[Path, Any, Any], tmp_path: Path) -> None:
    with pytest.raises(NormaError, match="no label 'keptt'") as error:
        classifier.build(str(bert[0]), {"label": "keptt"}, "")
    assert "Did you mean 'kept'" in str(error.value)
    with pytest.raises(NormaError, match="has one output"):
        reward_model.build(str(bert[0]), {"threshold": 0.0}, "")
    with pytest.raises(NormaError, match="no model folder"):
        classifier.build(str(tmp_path), {"label": "0"}, "")
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}', encoding="utf-8")
    with pytest.raises(NormaError, match="no sequence classifier"):
        classifier.build(str(tmp_path), {"label": "0"}, "")


def test_a_model_folder_as_a_judge(bert: tuple[Path, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the folder writes goes the same way as a server's reply: a tiny untrained model writes no verdict, which is an error."""
    rule = Spec.parse(
        "norma: 1\nspec: {id: s, version: '1'}\nrules: [{id: r, level: guideline, statement: {en: Be polite.}}]"
    ).rule("r")  # fmt: skip
    torch.manual_seed(2)
    config = transformers.LlamaConfig(
        vocab_size=13, hidden_size=12, num_hidden_layers=1, num_attention_heads=3, num_key_value_heads=3, intermediate_size=20,
        max_position_embeddings=512, pad_token_id=0, eos_token_id=3, bos_token_id=2,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "m")
    tokenizer(tmp_path / "m")
    made = judge.build(str(tmp_path / "m"), {"journal": str(tmp_path / "j.sqlite"), "max_tokens": 8}, "", rule=rule)
    with pytest.raises(CheckerFailure, match="1 of 1 votes failed"):
        made.check(ITEM, "a cat")
    monkeypatch.setattr("norma.check.judge_models.Local.ask", lambda self, messages, **more: Reply("VERDICT: no"))
    assert made.check(ITEM, "a cat").status is Status.VIOLATION


def test_calibration() -> None:
    generator = np.random.default_rng(0)
    margins = generator.normal(size=4000) * 3
    kept = generator.random(4000) < 1 / (1 + np.exp(-margins))  # marks that follow these odds exactly
    logits = np.stack([np.zeros(4000), margins * 2.5], axis=1)  # a classifier that is 2.5 times too sure
    assert fit_temperature(logits, kept, 1) == pytest.approx(2.5, rel=0.1)
    made = calibrate(logits, kept, 1, most_wrong=0.05)
    p = 1 / (1 + np.exp(-logits[:, 1] / made.temperature))
    outside = np.abs(p - made.threshold) > made.abstain + 1e-9  # this p is rounded otherwise than the one that set the edge
    assert ((p >= made.threshold) != kept)[outside].mean() <= 0.05 and made.abstained == pytest.approx((~outside).mean())
    assert 0 < made.abstained < 0.6
    # by hand: .7 separates all but one of each kind
    scores, marks = np.array([0.1, 0.3, 0.6, 0.8, 0.9, 0.2]), np.array([0, 0, 0, 1, 1, 0], dtype=bool)
    assert fit_threshold(scores, marks) == pytest.approx(0.7) and fit_abstention(scores, marks, 0.7, 0.0) == 0.0
    assert fit_abstention(scores, np.array([0, 0, 1, 1, 1, 0], dtype=bool), 0.7, 0.0) == pytest.approx(0.1)
    with pytest.raises(NormaError, match="both kinds"):
        calibrate(logits, np.ones(4000, dtype=bool), 1)
