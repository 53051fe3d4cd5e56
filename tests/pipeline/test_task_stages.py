"""The stages of task models on tiny models: they learn, measure, go on after a kill with the same bytes, and refuse what does not fit."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from norma.base.errors import NormaError
from norma.base.files import read_json, read_jsonl, write_jsonl
from norma.pipeline.plan import Plan
from norma.pipeline.stage import Context, Stage
from norma.pipeline.stages import find

if TYPE_CHECKING:
    from norma.lm import LanguageModel
    from norma.text.tokenizer import Tokenizer

pytest.importorskip("sklearn", reason="pip install 'norma-lm[tasks]'")
TRAIN = {"optimiser": "adamw", "learning_rate": 0.003, "warmup": 0, "schedule": "constant", "checkpoint_seconds": 1e-9}
WORDS = ["it", "writes", "waits", "rounds", "down", "seconds", "number", "text", "json", "math"]


class Dying:
    """Keeps what a stage says; dies at the n-th step of training that it hears of."""

    def __init__(self, steps: int | None = None) -> None:
        self.lines: list[str] = []
        self.left = steps

    def update(self, step: int, total: int, **numbers: float) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

    def say(self, text: str) -> None:
        self.lines.append(text)


Run = Callable[..., Context[Any]]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("norma.base.platform.cores", lambda: 1)


@pytest.fixture
def run(tmp_path: Path, tiny_tokenizer: Tokenizer, make_model: Callable[..., LanguageModel]) -> Run:
    """run(kind, work, progress, **options): the stage's context after it ran; other stages' folders stand beside."""
    import torch

    from norma.lm import LanguageModel
    from norma.nn import Transformer, preset

    config = preset("bert", vocab_size=len(tiny_tokenizer), width=24, layers=2, head_size=8, max_positions=64)
    LanguageModel(Transformer(config).initialise(torch.Generator().manual_seed(3)), tiny_tokenizer).save(tmp_path / "bert")
    make_model(1).save(tmp_path / "llama")
    tiny_tokenizer.save(tmp_path / "tokenizer")

    def go(kind: str, work: str | None = None, progress: Dying | None = None, **options: Any) -> Context[Any]:
        stage: Stage[Any] = find(kind)
        folder = tmp_path / (work or kind)
        folder.mkdir(exist_ok=True)
        inputs = {path.name: path for path in tmp_path.iterdir() if path.is_dir()}
        parsed = stage.Options.model_validate({"kind": kind} | options)
        ctx = Context(work or kind, folder, inputs, parsed, None, 1, progress or Dying(), Plan(folder), tmp_path)
        stage.run(ctx)
        return ctx

    return go


def sentences(count: int, start: int = 0) -> list[dict[str, Any]]:
    rows = []
    for i in range(start, start + count):
        words = [WORDS[(i * (k + 3) + k * k) % len(WORDS)] for k in range(5)]
        if i % 2:
            words[i % 5] = "object"
        rows.append({"text": f"{' '.join(words)} {i}", "label": "object" if i % 2 else "none"})
    return rows


@pytest.fixture
def data(tmp_path: Path, run: Run) -> Context[Any]:
    write_jsonl(tmp_path / "train.jsonl", sentences(96))
    write_jsonl(tmp_path / "test.jsonl", [*sentences(40, 200), sentences(1)[0]])
    return run("task-data", "data", shape="labels", train="train.jsonl", test="test.jsonl", validation_share=0.25)


def digests(folder: Path) -> dict[str, str]:
    skip = ("metrics.jsonl", "plan.json", "samples.jsonl")
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in skip and "checkpoint" not in str(p)
    }


def test_sides_share_no_text(data: Context[Any]) -> None:
    sides = {side: read_jsonl(data.folder / f"{side}.jsonl") for side in ("train", "validation", "test")}
    texts = {side: {row["text"] for row in rows} for side, rows in sides.items()}
    assert not texts["train"] & texts["validation"] and not texts["train"] & texts["test"]
    assert sum(map(len, texts.values())) == 96 + 40 and len(texts["validation"]) > 10
    assert any("1 training rows stand in validation or test too" in line for line in data.progress.lines)  # type: ignore[attr-defined]
    assert read_json(data.folder / "task.json")["labels"] == ["none", "object"]


@pytest.mark.parametrize(
    "more", [{"from": "bert"}, {"from": "llama"}, {"from": "bert", "lora": {"rank": 8}}, {"from": "bert", "last_layers": 1}]
)
def test_a_task_is_learnt_and_measured(run: Run, data: Context[Any], more: dict[str, Any]) -> None:
    from norma.lm import LanguageModel
    from norma.tasks.model import TaskModel

    ctx = run("task", epochs=20, batch=16, length=32, dropout=0.0, train=TRAIN, class_weights="balanced", patience=8, **more)
    scores, rows = read_json(ctx.folder / "scores.json"), read_jsonl(ctx.folder / "predictions.jsonl")
    right = [row["label"] == row["predicted"] for row in rows]
    assert scores["measured_on"] == "test" and scores["accuracy"]["rate"] == pytest.approx(sum(right) / len(right))
    assert scores["accuracy"]["rate"] > (0.6 if "last_layers" in more else 0.85), scores["accuracy"]
    assert sum(map(sum, scores["confusion"])) == len(rows) == 41 and rows[0]["text"] and scores["calibration"]["temperature"] > 0
    again = TaskModel.load(ctx.folder)
    assert [p["predicted"] for p in again.predict([{"text": r["text"]} for r in rows])] == [r["predicted"] for r in rows]
    assert not list(ctx.folder.glob("checkpoint-*")) and not list(ctx.folder.glob("*best*"))
    page = (ctx.folder / "errors.html").read_text(encoding="utf-8")
    assert "混淆矩阵" in page and "<script>" in page
    assert page.count(' data-look="') == len(rows) - sum(right), "short texts are all looked into"
    if "last_layers" in more:
        before, after = (LanguageModel.load(f).transformer.state_dict() for f in (ctx.inputs["bert"], ctx.folder))
        name = "encoder.blocks.0.attention.query.weight"
        assert (before[name] == after[name]).all() and (before[name.replace("0", "1")] != after[name.replace("0", "1")]).any()


def test_a_killed_task_ends_with_the_same_bytes(run: Run, data: Context[Any]) -> None:
    options = {"from": "bert", "epochs": 3, "batch": 16, "length": 32, "dropout": 0.1, "train": TRAIN, "patience": 2, "folds": 2}
    whole = run("task", "whole", **options)
    for steps in (2, 7, 5):
        with pytest.raises(KeyboardInterrupt):
            run("task", "killed", Dying(steps), **options)
    killed = run("task", "killed", **options)
    one, two = digests(whole.folder), digests(killed.folder)
    for name in ("errors.html", "norma.json"):  # they hold the stage's own name
        del one[name], two[name]
    assert one == two and "folds/1.json" in one and "model.safetensors" in one
    crossed = read_json(whole.folder / "scores.json")["cross_validation"]
    assert crossed["folds"] == 2 and crossed["accuracy"]["n"] == len(read_jsonl(data.folder / "train.jsonl"))


def test_folds_of_tokens_and_of_questions_keep_a_text_together(run: Run, tmp_path: Path) -> None:
    tagged = [{"tokens": ["it", WORDS[i % 9], str(i)], "labels": ["O", "B-N", "O"]} for i in range(30)]
    write_jsonl(tmp_path / "tagged.jsonl", tagged)
    run("task-data", "data", shape="tokens", train="tagged.jsonl", validation_share=0.2, test_share=0.2)
    quick = {"from": "bert", "steps": 2, "length": 40, "dropout": 0.0, "train": TRAIN, "folds": 3}
    ctx = run("task", "tags", **quick)
    crossed = read_json(ctx.folder / "scores.json")["cross_validation"]
    count = len(read_jsonl(tmp_path / "data" / "train.jsonl"))
    assert crossed["folds"] == 3 and crossed["accuracy"]["n"] == 3 * count and "entity_f1" in crossed
    paragraphs = [
        {"context": f"text {WORDS[i]} rounds {i}", "qas": [
            {"id": f"{i}.{k}", "question": f"{WORDS[k]}?", "answers": [{"text": str(i), "answer_start": len(f"text {WORDS[i]} rounds ")}]}
            for k in range(3)
        ]}
        for i in range(10)
    ]  # fmt: skip
    (tmp_path / "squad.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), encoding="utf-8")
    run("task-data", "data", shape="questions", train="squad.json", validation_share=0.2, test_share=0.2)
    ctx = run("task", "spans", **quick, stride=12)
    crossed = read_json(ctx.folder / "scores.json")["cross_validation"]
    train = read_jsonl(tmp_path / "data" / "train.jsonl")
    assert crossed["f1"]["n"] == len(train) and crossed["f1"]["clusters"] == len(train) // 3
    folds = [read_json(ctx.folder / "folds" / f"{n}.json") for n in range(3)]
    assert sorted(row["id"] for fold in folds for row in fold) == sorted(row["id"] for row in train)
    contexts = [{row["context"] for row in fold} for fold in folds]
    assert sum(map(len, contexts)) == len(set().union(*contexts)), "no text in two folds"


@pytest.mark.slow
def test_labels_of_tokens(run: Run, tmp_path: Path) -> None:
    random.seed(1)
    rows = [
        {"tokens": words, "labels": ["B-N" if w in ("json", "math") else "O" for w in words]}
        for words in (random.choices(WORDS, k=6) for _ in range(300))
    ]
    write_jsonl(tmp_path / "train.jsonl", rows)
    run("task-data", "data", shape="tokens", train="train.jsonl")
    ctx = run("task", **{"from": "bert", "epochs": 20, "batch": 16, "length": 48, "dropout": 0.0, "train": TRAIN})
    scores = read_json(ctx.folder / "scores.json")
    assert scores["accuracy"]["rate"] > 0.95 and scores["entity_f1"]["rate"] > 0.8
    assert read_jsonl(ctx.folder / "predictions.jsonl")[0].keys() >= {"tokens", "labels", "predicted"}


@pytest.mark.slow
def test_answers_are_found(run: Run, tmp_path: Path) -> None:
    """The answer is the number behind 'rounds'; some texts have none."""
    qas = []
    for i in range(60):
        words = [WORDS[(i * k + k) % 3] for k in range(12)]
        answer = str(i % 9)
        if i % 4:
            words[i % 11 : i % 11 + 1] = ["rounds", answer]
        context = " ".join([*words, "text" * (i // 2), "json" * (i % 2)])
        start = context.find("rounds") + 7
        asked = {"id": str(i), "question": "number?", "answers": [{"text": answer, "answer_start": start}] if i % 4 else []}
        qas.append({"context": context, "qas": [asked | {"is_impossible": not i % 4}]})
    (tmp_path / "squad.json").write_text(json.dumps({"data": [{"paragraphs": qas}]}), encoding="utf-8")
    run("task-data", "data", shape="questions", train="squad.json", validation_share=0.2, test_share=0.2)
    options = {"from": "bert", "epochs": 40, "length": 40, "stride": 12, "longest": 4, "unanswerable": True, "train": TRAIN, "dropout": 0.0}
    ctx = run("task", **options)
    scores = read_json(ctx.folder / "scores.json")
    assert scores["f1"]["rate"] > 0.6 and scores["rules"] == "squad" and "silent_rightly" in scores, scores
    assert "null_threshold" in read_json(ctx.folder / "norma.json")["task"]


def test_what_does_not_fit_is_refused(run: Run, data: Context[Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give one of from"):
        run("task")
    with pytest.raises(ValueError, match="a new model needs a tokenizer"):
        run("task", model={"preset": "bert"})
    with pytest.raises(NormaError, match="holds no task"):
        run("task", **{"from": "bert", "data": "bert"})
    (tmp_path / "other.jsonl").write_text('{"text": "x", "label": "strange"}\n', encoding="utf-8")
    with pytest.raises(NormaError, match="labels that no training row has: strange"):
        run("task-data", "other", shape="labels", train="train.jsonl", test="other.jsonl")


def test_texts_are_written_and_scored_part_by_part(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from norma.tasks import writing

    (tmp_path / "a.en").write_text("it writes\nit waits\n" * 20, encoding="utf-8")
    (tmp_path / "a.de").write_text("es schreibt\nes wartet\n" * 20, encoding="utf-8")
    (tmp_path / "b.en").write_text("it rounds\n", encoding="utf-8")
    (tmp_path / "b.de").write_text("es rundet\n", encoding="utf-8")
    run(
        "task-data",
        "data",
        shape="texts",
        train="b.en",
        train_target="b.de",
        language="de",
        test="a.en",
        test_target="a.de",
        validation_share=0,
    )
    calls: list[int] = []

    def write(model: Any, sources: list[str], **how: Any) -> list[str]:
        calls.append(len(sources))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return ["es schreibt" if "writes" in s else "er wartet" for s in sources]

    monkeypatch.setattr(writing, "write", write)
    monkeypatch.setattr("norma.pipeline.stages.task_score.PART", 16)
    with pytest.raises(KeyboardInterrupt):
        run("task-score", model="llama")
    ctx = run("task-score", model="llama")
    assert calls == [16, 16, 16, 8], "the first part is not written again"
    scores = read_json(ctx.folder / "scores.json")
    assert scores["bleu"]["score"] < 100 and 60 < scores["chrf"]["score"] < 100
    assert read_jsonl(ctx.folder / "predictions.jsonl")[1]["predicted"] == "er wartet"


@pytest.mark.slow
def test_a_learning_curve_goes_on_cell_by_cell(run: Run, data: Context[Any]) -> None:
    shape = {"preset": "bert", "width": 32, "layers": 1, "head_size": 16, "max_positions": 64}
    bases = [
        {"name": "scratch", "new": shape, "tokenizer": "tokenizer"},
        {"name": "bert", "model": "bert"},
        {"name": "words", "words": True},
    ]
    options: dict[str, Any] = {
        "tasks": [{"name": "toy", "data": "data"}],
        "bases": bases,
        "rows": [12, None],
        "seeds": [1, 2],
        "least_steps": 6,
    }
    options |= {"length": 32, "epochs": 1, "patience": 3, "train": TRAIN, "seconds": 1000}
    whole = run("learning-curve", "whole", **options)
    for steps in (4, 13):
        with pytest.raises(KeyboardInterrupt):
            run("learning-curve", "killed", Dying(steps), **options)
    done = len(list((whole.folder.parent / "killed" / "cells").glob("*.json")))
    killed = run("learning-curve", "killed", **options)
    assert 0 < done < 12 and digests(whole.folder) == digests(killed.folder)
    points = read_json(whole.folder / "curve.json")["points"]
    assert len(points) == 6 and {p["rows"] for p in points} == {12, len(read_jsonl(data.folder / "train.jsonl"))}
    words = next(p for p in points if p["base"] == "words" and p["asked"] is None)
    assert words["rate"] > 0.9 and words["over_reference"]["delta"] > 0 and words["reference_needs"] is None
    svg = (whole.folder / "curve.svg").read_text(encoding="utf-8")
    assert svg.count('<path class="path"') == 3 and "toy" in svg


@pytest.mark.slow
def test_embeddings_are_learnt(run: Run, tmp_path: Path) -> None:
    pairs = [{"id": str(i), "source": f"What is {i}?", "target": f"{i} waits {i} seconds"} for i in range(24)]
    (tmp_path / "pairs").mkdir()
    write_jsonl(tmp_path / "pairs" / "train.jsonl", pairs)
    options = {"from": "llama", "data": "pairs/train.jsonl", "validation": "pairs/train.jsonl", "epochs": 15, "batch": 12, "train": TRAIN}
    whole = run("contrastive", "whole", **options)
    found = read_json(whole.folder / "retrieval.json")
    assert found["after"]["mrr"] > 0.8 > found["before"]["mrr"]
    with pytest.raises(KeyboardInterrupt):
        run("contrastive", "killed", Dying(11), **options)
    killed = run("contrastive", "killed", **options)
    assert digests(whole.folder)["model.safetensors"] == digests(killed.folder)["model.safetensors"]


def test_few_rows_have_each_label_alike() -> None:
    from norma.pipeline.stages.task import few

    rows = [{"id": str(i), "label": "rare" if i % 10 == 0 else "common"} for i in range(100)]
    chosen = few(rows, 12, seed=3)
    assert [row["label"] for row in chosen].count("rare") == 6 and few(rows, 12, seed=3) == chosen != few(rows, 12, seed=4)
    assert chosen == few(rows, 40, seed=3)[:12], "more rows hold the fewer ones"
    assert sorted(row["id"] for row in few(rows, 1000, seed=1)) == sorted(row["id"] for row in rows)
