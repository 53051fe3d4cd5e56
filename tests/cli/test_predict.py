"""norma predict: one text, a file of them, each kind of task, and what is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from norma.base.errors import NormaError
from norma.cli.predict import predict
from norma.lm import LanguageModel
from norma.nn import Transformer, preset
from norma.tasks import heads
from norma.text.tokenizer import Tokenizer


@pytest.fixture
def folder(tiny_tokenizer: Tokenizer, tmp_path: Path) -> Callable[[str], Path]:
    def make(shape: str) -> Path:
        config = preset("bert", vocab_size=len(tiny_tokenizer), width=24, layers=1, head_size=8, max_positions=64)
        base = LanguageModel(Transformer(config).initialise(torch.Generator().manual_seed(3)), tiny_tokenizer)
        heads.save(heads.begin(base, shape, ["no", "yes"], dropout=None, seed=1), tmp_path / shape, {"shape": shape, "length": 32})
        return tmp_path / shape

    return make


def test_a_label(folder: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    predict(folder("labels"), text="It writes.")
    alone = json.loads(capsys.readouterr().out)
    assert alone["predicted"] in ("no", "yes") and "text" not in alone and set(alone["probabilities"]) == {"no", "yes"}
    predict(folder("labels"), text="It writes.", pair="It reads.")
    assert json.loads(capsys.readouterr().out)["probabilities"] != alone["probabilities"]


def test_a_file(folder: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given, out = tmp_path / "new.jsonl", tmp_path / "out.jsonl"
    given.write_text('{"id": 3, "text": "It writes.", "label": "yes"}\n{"text": "json"}\n', encoding="utf-8")
    predict(folder("labels"), input_=given, output=out)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert rows[0]["id"] == 3 and rows[0]["label"] == "yes" and rows[1]["text"] == "json" and "2 predictions" in capsys.readouterr().out
    lines = tmp_path / "new.txt"
    lines.write_text("It writes.\n\njson\n", encoding="utf-8")
    predict(folder("labels"), input_=lines)
    said = [json.loads(line)["predicted"] for line in capsys.readouterr().out.splitlines()]
    assert said == [row["predicted"] for row in rows]


def test_labels_of_words_and_answers(folder: Callable[[str], Path], capsys: pytest.CaptureFixture[str]) -> None:
    predict(folder("tokens"), text="It writes json .")
    assert len(json.loads(capsys.readouterr().out)["predicted"]) == 4
    predict(folder("questions"), text="It writes json.", question="What?")
    assert capsys.readouterr().out.strip() in "It writes json."
    with pytest.raises(NormaError, match="finds answers in a text"):
        predict(folder("questions"), text="It writes json.")


def test_a_model_that_writes(make_model: Callable[..., LanguageModel], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_model().save(tmp_path / "lm")
    predict(tmp_path / "lm", text="It writes json.", beams=2, max_new_tokens=4)
    assert capsys.readouterr().out.endswith("\n")


def test_what_is_refused(folder: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(NormaError, match="say what to read"):
        predict(folder("labels"))
    with pytest.raises(NormaError, match="--output goes with --input"):
        predict(folder("labels"), text="x", output=tmp_path / "o")
    with pytest.raises(NormaError, match="file not found"):
        predict(folder("labels"), input_=tmp_path / "none.jsonl")
    with pytest.raises(NormaError, match="not a model folder"):
        predict(tmp_path, text="x")
