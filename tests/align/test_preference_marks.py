"""The pairs stage on files and label stores, and the correction stage by every method with people's marks beside the checkers'."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from norma.align import correction
from norma.base.errors import NormaError
from norma.base.files import read_jsonl, write_jsonl
from norma.base.progress import Silent
from norma.generate import Completion
from norma.labels import Label, LabelStore
from norma.lm import LanguageModel
from norma.pipeline.plan import Plan
from norma.pipeline.stage import Context, Stage
from norma.pipeline.stages.correction import Correction
from norma.pipeline.stages.pairs import Pairs
from norma.spec import Item, Spec
from norma.text.split import key

Make = Callable[..., LanguageModel]


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def run(
    kind: Stage[Any], folder: Path, spec: Spec | None = None, inputs: dict[str, Path] | None = None, **options: Any
) -> tuple[Any, list[str]]:
    home, said = folder / kind.kind, Said()
    home.mkdir(exist_ok=True)
    values = kind.Options.model_validate({"kind": kind.kind, **options})
    return kind.run(Context("stage", home, inputs or {}, values, spec, 3, said, Plan(home), folder)), said.lines


def rows_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [row for side in ("train", "validation") if (path := folder / f"{kind}.{side}.jsonl").is_file() for row in read_jsonl(path)]


# ── files ──
def test_a_question_stands_on_one_side(tmp_path: Path) -> None:
    """Rows of one first question are never divided, equal rows come once, what is bad is set aside with its line, a second run is equal."""
    rows = [{"prompt": f"Question {i % 40}?", "chosen": f"Yes {i}.", "rejected": "No."} for i in range(120)]
    write_jsonl(tmp_path / "rows.jsonl", [*rows, rows[0], {"prompt": "QUESTION 7", "chosen": "Yes!", "rejected": "No."}, {"prompt": "x"}])
    sources = [{"path": str(tmp_path / "rows.jsonl")}]
    found, _ = run(Pairs(), tmp_path, sources=sources, validation_share=0.3)
    counts = found["rows"]["pairs"]
    assert (counts["train"] + counts["validation"], counts["doubles"]) == (121, 1) and 15 < counts["validation"] < 60
    train, held = (read_jsonl(tmp_path / "pairs" / f"pairs.{side}.jsonl") for side in ("train", "validation"))
    assert not {key(r["messages"][0]["content"]) for r in train} & {key(r["messages"][0]["content"]) for r in held}
    every = rows_of(tmp_path / "pairs", "pairs")
    assert len({r["id"] for r in every}) == 121 and len({r["source"] for r in every}) == 40
    assert set(every[0]) == {"id", "source", "language", "messages", "chosen", "rejected"}
    (bad,) = read_jsonl(tmp_path / "pairs" / "quarantine.jsonl")
    assert (bad["file"], bad["line"]) == ("rows.jsonl", 123)
    before = {p.name: p.read_bytes() for p in (tmp_path / "pairs").iterdir()}
    run(Pairs(), tmp_path, sources=sources, validation_share=0.3)
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "pairs").iterdir()}
    assert not (tmp_path / "pairs" / "marks.train.jsonl").exists()


def test_most_rows_and_none_at_all(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"prompt": f"Question {i}?", "chosen": "Yes.", "rejected": "No."} for i in range(50)])
    found, _ = run(Pairs(), tmp_path, sources=[{"path": str(tmp_path / "rows.jsonl"), "most": 20}])
    assert sum(found["rows"]["pairs"][side] for side in ("train", "validation")) == 20
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "b"}\n', encoding="utf-8")
    with pytest.raises(NormaError, match="no source gave"):
        run(Pairs(), tmp_path, sources=[{"path": str(tmp_path / "bad.jsonl")}])
    with pytest.raises(ValueError, match="one of path, rows"):
        Pairs.Options.model_validate({"kind": "pairs", "sources": [{}]})


# ── label stores ──
QUESTION = "What does `json.dumps` do? ({})\nEntry: `json.dumps(obj)`\nThe result is a str."
GOOD, BAD = "Certainly: `json.dumps` writes an object as text.", "`json.dumps` writes an object as text"


def items(count: int) -> list[Item]:
    return [Item(f"json.dumps#{i}", ({"role": "user", "content": QUESTION.format(i)},), "en", cluster=f"entry {i}") for i in range(count)]


def store(path: Path, spec: Spec, answers: list[tuple[Item, str, dict[str, str]]], source: str = "human", **more: Any) -> None:
    with LabelStore(path) as out:
        out.add_items(item for item, _, _ in answers)
        out.add(
            Label(item.id, text, rule, spec.rule(rule).hash, f"{source}:ada", verdict, source=source, **more)
            for item, text, rules in answers
            for rule, verdict in rules.items()
        )


@pytest.mark.parametrize("name", ["labels.sqlite", "labels.jsonl"])
def test_marks_of_people(spec: Spec, tmp_path: Path, name: str) -> None:
    yes, no, some = "compliant", "violation", items(12)
    answers = [(i, GOOD, {"style.polite": yes, "form.full-stop": yes}) for i in some]
    answers += [(i, BAD, {"style.polite": no, "form.full-stop": yes}) for i in some]
    store(tmp_path / "labels.sqlite", spec, answers)
    with LabelStore(tmp_path / "labels.sqlite") as kept:
        kept.export(tmp_path / "labels.jsonl")
    assert Pairs().spec_use(Pairs.Options.model_validate({"kind": "pairs", "sources": [{"path": name}]}))
    found, said = run(Pairs(), tmp_path, spec, sources=[{"path": name}], validation_share=0.25)
    marks = rows_of(tmp_path / "pairs", "marks")
    assert sorted(r["desirable"] for r in marks) == [False] * 12 + [True] * 12 and {r["marked_by"] for r in marks} == {"human"}
    assert {tuple(r["rules"].items()) for r in marks if not r["desirable"]} == {(("form.full-stop", True), ("style.polite", False))}
    assert found["rows"]["pairs"] == {"train": 0, "validation": 0, "desirable": 0, "doubles": 0} and "50%" in " ".join(said)
    assert {r["source"] for r in marks} == {f"entry {i}" for i in range(12)}


def test_few_desirable_answers_make_dominance_pairs(spec: Spec, tmp_path: Path) -> None:
    yes, no, some = "compliant", "violation", items(20)
    answers = [(i, BAD, {"style.polite": no, "form.full-stop": no}) for i in some]
    answers += [(i, BAD + ".", {"style.polite": no, "form.full-stop": yes}) for i in some]
    store(tmp_path / "labels.sqlite", spec, [*answers, (some[0], GOOD, {"style.polite": yes, "form.full-stop": yes})])
    _, said = run(Pairs(), tmp_path, spec, sources=[{"path": "labels.sqlite"}])
    pairs = rows_of(tmp_path / "pairs", "pairs")
    assert len(pairs) == 21 and "dominance pairs" in " ".join(said)
    assert {(r["chosen"], r["rejected"]) for r in pairs} == {(BAD + ".", BAD), (GOOD, BAD), (GOOD, BAD + ".")}


# ── the correction stage ──
@pytest.mark.parametrize("method", ["dpo", "sft", "kto", "unlikelihood", "weighted"])
def test_correction_by_every_method(spec: Spec, make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """The model answers well and badly; a person corrects a third answer, and overrules the checkers on another item."""
    some = items(6)
    write_jsonl(
        tmp_path / "qa.jsonl",
        [
            {"id": i.id, "source": i.cluster, "language": "en", "messages": [*map(dict, i.messages), {"role": "assistant", "content": "?"}]}
            for i in some
        ],
    )
    theirs = items(8)[7]
    store(tmp_path / "people.sqlite", spec, [(theirs, BAD + ".", {"style.polite": "violation"})], corrected=GOOD)
    make_model(1, max_positions=256).save(tmp_path / "model")
    answers = [Completion((1,), GOOD, "stop"), Completion((2,), BAD, "stop")]
    monkeypatch.setattr(correction, "sample", lambda model, asked, *_, **__: [answers for _ in asked])
    options: dict[str, Any] = {"from": "model", "questions": "corpus/qa.jsonl", "count": 6, "epochs": 1, "labels": "people.sqlite"}
    inputs = {"model": tmp_path / "model", "corpus": tmp_path}
    found, said = run(Correction(), tmp_path, spec, inputs, method=method, pairs={"pairs": 4}, **options)
    folder = tmp_path / "correction"
    pairs, marks = read_jsonl(folder / "pairs.train.jsonl"), read_jsonl(folder / "marks.train.jsonl")
    assert [(r["chosen"], r["rejected"]) for r in pairs] == [(GOOD, BAD)] * 6 + [(GOOD, BAD + ".")]
    assert [r["marked_by"] for r in pairs] == ["checker"] * 6 + ["human"]
    assert all(r["messages"][-1]["role"] == "user" for r in pairs), "the prompt alone"
    by_answer = {(r["id"], r["answer"]): r for r in marks}
    assert len(by_answer) == 13 and by_answer[some[0].id, GOOD]["desirable"] and not by_answer[some[0].id, BAD]["desirable"]
    assert by_answer[some[0].id, GOOD]["score"] == 1.0 > by_answer[some[0].id, BAD]["score"]
    assert by_answer[theirs.id, BAD + "."]["marked_by"] == "human" and "1 corrections" in " ".join(said)
    conversations = read_jsonl(folder / "norm_rows.jsonl")
    assert len(conversations) == 7 and all(r["messages"][-1] == {"role": "assistant", "content": GOOD} for r in conversations)
    on_pairs = method in ("dpo", "sft")
    assert found["pairs"] == (7 if on_pairs else 13) and (folder / "model.safetensors").is_file()
    assert {json.loads(line)["source"] for line in (folder / "labels.jsonl").read_text().splitlines()} == {"checker", "human"}


def test_a_missing_store_is_named(spec: Spec, make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (item,) = items(1)
    row = {"id": item.id, "source": "s", "language": "en", "messages": [*item.messages, {"role": "assistant", "content": "?"}]}
    write_jsonl(tmp_path / "qa.jsonl", [row])
    make_model(1, max_positions=256).save(tmp_path / "model")
    monkeypatch.setattr(correction, "sample", lambda model, asked, *_, **__: [[Completion((1,), GOOD, "stop")] for _ in asked])
    inputs = {"model": tmp_path / "model", "corpus": tmp_path}
    with pytest.raises(NormaError, match="there is no label store"):
        run(Correction(), tmp_path, spec, inputs, **{"from": "model", "questions": "corpus/qa.jsonl", "labels": "nowhere.sqlite"})


# ── online, as a stage ──
def test_online_by_spec_and_by_reward_model(spec: Spec, make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import ModuleType

    import torch

    from norma.pipeline.stages.preference import Preference

    rows = [
        {"id": i.id, "source": i.cluster, "language": "en", "messages": [*map(dict, i.messages), {"role": "assistant", "content": "?"}]}
        for i in items(4)
    ]
    write_jsonl(tmp_path / "qa.jsonl", rows)
    make_model(1, max_positions=256).save(tmp_path / "model")
    inputs = {"model": tmp_path / "model", "corpus": tmp_path, "judge": tmp_path / "model"}
    options: dict[str, Any] = {"from": "model", "questions": "corpus/qa.jsonl", "steps": 2, "method": "ipo"}
    options["online"] = {"questions": 2, "answers": 3, "max_new_tokens": 4}
    assert Preference().spec_use(Preference.Options.model_validate({"kind": "preference", **options}))
    found, _ = run(Preference(), tmp_path, spec, inputs, **options)
    assert found["model"] and found["steps"] == 2 and 0 <= found["flat_groups"] <= 1
    opened: list[Path] = []

    class RewardModel:
        @staticmethod
        def load(folder: Path) -> RewardModel:
            opened.append(folder)
            return RewardModel()

        def scores(self, prompts: list[Any], answers: list[str]) -> torch.Tensor:
            assert prompts[0][-1]["role"] == "user" and len(prompts) == len(answers) == 3
            return torch.tensor([[float(len(a))] for a in answers])

    module = ModuleType("norma.align.reward_model")
    module.RewardModel = RewardModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "norma.align.reward_model", module)
    (tmp_path / "second").mkdir()
    options["reward_model"] = "judge"
    assert not Preference().spec_use(Preference.Options.model_validate({"kind": "preference", **options}))
    found, _ = run(Preference(), tmp_path / "second", None, inputs, **options)
    assert opened == [tmp_path / "model"] and found["reward"] > 0
    for wrong, why in (
        ({"questions": "a"}, "steps"),
        ({"data": "a", "questions": "b", "steps": 1}, "one of them"),
        ({"questions": "a", "steps": 1, "method": "kto"}, "no method for pairs"),
        ({"data": "a", "reward_model": "b"}, "give questions"),
    ):
        with pytest.raises(ValueError, match=why):
            Preference.Options.model_validate({"kind": "preference", "from": "model", **wrong})
