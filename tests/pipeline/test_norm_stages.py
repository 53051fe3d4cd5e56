"""distil, best-of, constitution and the gap of prompting, on tiny random models: what they write, and that a kill changes nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from norma.base.errors import NormaError
from norma.base.files import read_json, read_jsonl, write_jsonl
from norma.base.hashing import UNHASHED
from norma.base.progress import Silent
from norma.pipeline.plan import Plan
from norma.pipeline.stage import Context, Stage
from norma.pipeline.stages import find
from norma.spec import Spec

if TYPE_CHECKING:
    from norma.lm import LanguageModel

SPEC = """
norma: 1
spec: {id: small, version: "1", source_language: en, languages: [en]}
rules:
- id: form.stop
  statement: {en: "Stop."}
  checkers: [{id: program, kind: program, use: ends_with_stop, roles: [train, report]}]
- id: form.brief
  statement: {en: "Brief."}
  checkers: [{id: length, kind: program, use: length, roles: [train, report], params: {max_words: 2, max_characters: 9}}]
"""
TRAIN = {"optimiser": "adamw", "learning_rate": 1e-3, "warmup": 0, "schedule": "constant", "checkpoint_seconds": 1e-9}


class Killed(Exception):
    pass


class Dying(Silent):
    """Dies at the ``after``-th number that training reports, or when a text is said that holds ``word``."""

    def __init__(self, after: int = 10**9, word: str = "never said") -> None:
        self.left, self.word = after, word

    def update(self, step: int, total: int, **numbers: float) -> None:
        self.left -= "loss" in numbers
        if self.left <= 0:
            raise Killed

    def say(self, text: str) -> None:
        if self.word in text:
            raise Killed


Build = Callable[..., Context[Any]]


@pytest.fixture
def context(tmp_path: Path, make_model: Callable[..., LanguageModel]) -> Build:
    """context(work folder, kind, options, progress): a stage's context over a tiny model whose answers tend to end."""
    import torch

    from norma.text.chat import prompt_ids

    rows: list[dict[str, Any]] = [
        {"id": f"q{i}", "source": f"s{i}", "language": "en", "facts": {},
         "messages": [{"role": "user", "content": f"What is {i}?"}, {"role": "assistant", "content": "It sorts."}]}
        for i in range(12)
    ]  # fmt: skip
    for side in ("train", "validation"):
        write_jsonl(tmp_path / "corpus" / f"qa.{side}.jsonl", rows)
    model = make_model(1, spread=0.25)
    with torch.no_grad():  # the end token is compared with where the states of questions lie: answers end
        network, ids = model.transformer, prompt_ids(model.tokenizer, rows[0]["messages"][:1])
        state = network.features(network.hidden(torch.tensor([ids])))[0].mean(0)
        network.head_weight()[model.tokenizer.eos_id] = 1.5 * state / state.norm()
    model.save(tmp_path / "base")

    def build(name: str, kind: str, progress: Silent | None = None, **options: Any) -> Context[Any]:
        stage = find(kind)
        parsed = stage.Options.model_validate({"kind": kind, "from": "base", "train": TRAIN} | options)
        work = tmp_path / name
        work.mkdir(exist_ok=True)
        inputs = {n: tmp_path / n for n in ("corpus", "base")}
        plan = Plan(work)
        plan.choose("threads", lambda: 1)
        return Context("here", work, inputs, parsed, Spec.parse(SPEC), 3, progress or Silent(), plan, tmp_path)

    return build


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in UNHASHED}


def broken_and_whole(context: Build, kind: str, kills: list[Dying], **options: Any) -> dict[str, bytes]:
    """Run once without and once with the kills; both folders hold the same bytes. Returns them."""
    stage: Stage[Any] = find(kind)
    whole = context("whole", kind, **options)
    summary = stage.run(whole)
    for dying in kills:
        with pytest.raises(Killed):
            stage.run(context("broken", kind, dying, **options))
    broken = context("broken", kind, **options)
    assert stage.run(broken) == summary
    one, other = contents(whole.folder), contents(broken.folder)
    assert one.keys() == other.keys()
    assert {name for name in one if one[name] != other[name]} == set()
    assert "model.safetensors" in one and not any("checkpoint" in name for name in one)
    return one


def test_a_stage_takes_the_threads_that_openmp_is_told_and_keeps_their_number(
    context: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took all cores: two such processes side by side waited for each other in every product."""
    import torch

    from norma.pipeline.stages._learning import prepare

    before = torch.get_num_threads()
    ctx = context("threads", "distil")
    (ctx.folder / "plan.json").unlink()
    try:
        for said, wanted in (("3", 3), ("1", 3)):  # what another day's environment says comes too late: it would change the last bits
            monkeypatch.setenv("OMP_NUM_THREADS", said)
            prepare(replace(ctx, plan=Plan(ctx.folder)))
            assert torch.get_num_threads() == wanted
    finally:
        torch.set_num_threads(before)


DISTIL: dict[str, Any] = {"count": 10, "batch": 5, "epochs": 2, "max_new_tokens": 6}


@pytest.mark.parametrize(
    "options", [{"top": 5, "answers": 2}, *(pytest.param(o, marks=pytest.mark.slow) for o in ({}, {"loss": "sampled"}))], ids=str
)
def test_distil(context: Build, options: dict[str, Any]) -> None:
    found = broken_and_whole(context, "distil", [Dying(3)], **DISTIL, **options)
    rows = read_jsonl(context("whole", "distil").folder / "answers.jsonl")
    assert len(rows) == 10 and rows[0]["rules"] == ["form.stop", "form.brief"] and "gap.json" not in found


def test_distil_measures_what_it_moved(context: Build) -> None:
    ctx = context("here", "distil", gap={"count": 5, "max_new_tokens": 5}, prompt={"rules": ["form.brief"], "position": "prefix"}, **DISTIL)
    summary = find("distil").run(ctx)
    found = read_json(ctx.folder / "gap.json")
    assert [m["method"] for m in found["methods"]] == ["before", "with rules", "distilled"] and found["questions"] == 5
    assert [row[0] for row in summary["table"]["rows"]] == ["before", "with rules", "distilled"]
    assert set(summary["compliance"]) == {"before", "with rules", "distilled"}
    (row, *_) = read_jsonl(ctx.folder / "answers.jsonl")
    assert len(row["told"]) == 1 and row["told"][0]["content"].startswith("Rules:\n1. Brief.\n\nWhat is")
    with pytest.raises(NormaError, match="leaves room"):
        find("distil").run(context("other", "distil", **DISTIL | {"max_new_tokens": 95}))


BEST: dict[str, Any] = {"count": 6, "answers": 3, "rounds": 2, "batch": 3, "epochs": 1, "max_new_tokens": 8}


def test_best_of(context: Build) -> None:
    broken_and_whole(context, "best-of", [Dying(1), Dying(2)], **BEST)
    ctx = context("whole", "best-of", **BEST)
    assert [len(read_jsonl(ctx.folder / f"round-{r}.jsonl")) for r in (1, 2)] == [18] * 2
    curve = read_json(ctx.folder / "best_of.json")["rounds"][0]["frontier"]
    assert [point["n"] for point in curve] == [1, 2, 3] and curve[2]["reward"] >= curve[0]["reward"]
    assert {"reward", "best_reward", "loss"} <= read_jsonl(ctx.folder / "metrics.jsonl")[0].keys()


def test_best_of_by_a_reward_model(context: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for ``norma.align.reward_model``: which folder is opened, and how it is asked."""
    import sys
    import types

    import torch

    class RewardModel:
        def __init__(self, folder: Path) -> None:
            assert folder == tmp_path / "base"

        load = classmethod(lambda cls, folder: cls(folder))

        def scores(self, prompts: Any, answers: Any) -> torch.Tensor:
            return torch.tensor([[float(len(a))] for a in answers])

    module = types.ModuleType("norma.align.reward_model")
    module.RewardModel = RewardModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "norma.align.reward_model", module)
    ctx = context("rm", "best-of", reward_model="base", **BEST | {"rounds": 1})
    find("best-of").run(ctx)
    rows = read_jsonl(ctx.folder / "round-1.jsonl")
    assert all(r["score"] == len(r["answer"]) and r["scored_by"] == "reward-model:base" for r in rows)
    assert find("best-of").spec_use(ctx.options) is False and find("best-of").inputs(ctx.options) == [
        "base",
        "corpus/qa.train.jsonl",
        "base",
    ]


CHECKERS = {"by": "checkers"}
CONSTITUTION: dict[str, Any] = {
    "max_new_tokens": 8,
    "revise": {"count": 12, "rounds": 2, "critic": CHECKERS, "epochs": 2, "batch": 6},
    "compare": {"count": 12, "judge": CHECKERS, "draws": 2},
    "validation_share": 0.2,
}


def test_constitution(context: Build) -> None:
    """Killed while it learns, when it has learnt and compares, and after the comparisons."""
    kills = [Dying(2), Dying(word="comparing two answers"), Dying(word="comparisons, ")]
    found = broken_and_whole(context, "constitution", kills, **CONSTITUTION)
    folder = context("whole", "constitution").folder
    assert {f"{n}.{s}.jsonl" for n in ("conversations", "pairs") for s in ("train", "validation")} <= found.keys()
    revisions, talks = read_jsonl(folder / "revisions.jsonl"), read_jsonl(folder / "conversations.train.jsonl")
    assert revisions and all(r["critic"] == "checkers" and r["rule"] in ("form.stop", "form.brief") and r["critique"] for r in revisions)
    assert any(r["accepted"] for r in revisions) and talks
    accepted = {r["id"]: r["revision"] for r in revisions if r["accepted"]}
    assert all(t["messages"][-1]["content"] == accepted[t["id"]] for t in talks if t["rules"])
    assert all([m["role"] for m in t["messages"]] == ["user", "assistant"] for t in talks), "what is learnt stands without rules"
    for name in ("conversations", "pairs"):
        sides = [{r["source"] for r in read_jsonl(folder / f"{name}.{side}.jsonl")} for side in ("train", "validation")]
        assert not sides[0] & sides[1]
    pairs = [r for side in ("train", "validation") for r in read_jsonl(folder / f"pairs.{side}.jsonl")]
    assert pairs and all(r["chosen"] != r["rejected"] and 0 < r["margin"] <= 1 and r["messages"][-1]["role"] == "user" for r in pairs)


def test_constitution_by_the_model_itself(context: Build) -> None:
    by = {"by": "model", "max_new_tokens": 6}
    options = CONSTITUTION | {"revise": {"count": 0}, "compare": {"count": 6, "judge": by}}
    ctx = context("here", "constitution", **options)
    import torch

    with pytest.raises(ValueError, match="needs url and name"):
        context("other", "constitution", compare={"judge": {"by": "endpoint"}})
    summary = find("constitution").run(ctx)
    rows = read_jsonl(ctx.folder / "comparisons.jsonl")
    assert summary["comparisons"] == len(rows) and not (ctx.folder / "conversations.train.jsonl").exists()
    assert all(r["judge"] == "model:base" for r in rows) and torch.is_grad_enabled()
    assert find("constitution").inputs(ctx.options) == ["base", "corpus/qa.train.jsonl"]


def test_prompting_measures_its_gap(context: Build) -> None:
    ctx = context(
        "here", "prompting", steps=2, batch=2, sequence=96, layout={"order": "reversed", "position": "prefix"}, share=1.0, every=1.0,
        gap={"count": 4, "max_new_tokens": 4},
    )  # fmt: skip
    summary = find("prompting").run(ctx)
    assert summary["with_rules"] > 0, "counted wherever the rules stand"
    assert [row[0] for row in summary["table"]["rows"]] == ["none", "rule", "applicable", "all"]
    found = read_json(ctx.folder / "gap.json")
    assert found["questions"] == 4 and {c["after"] for c in found["comparisons"]} == {"rule", "applicable", "all"}
