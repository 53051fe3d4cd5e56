"""The reward-model stage on tiny random models and rows written by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from norma.base.errors import NormaError
from norma.base.files import read_json, read_jsonl, write_jsonl
from norma.pipeline.plan import Plan
from norma.pipeline.stage import Context
from norma.pipeline.stages.reward_model import RewardModelStage, RewardModelStageOptions

if TYPE_CHECKING:
    from norma.lm import LanguageModel

Build = Callable[..., Context[RewardModelStageOptions]]
TRAIN = {"optimiser": "adamw", "learning_rate": 0.003, "warmup": 0, "schedule": "constant"}


class Said:
    """Keeps what a stage says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, step: int, total: int, **numbers: float) -> None:
        pass

    def say(self, text: str) -> None:
        self.lines.append(text)


def asked(i: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"What is {i}?"}]


def pairs(start: int, count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"p{i}", "source": f"s{i // 2}", "messages": asked(i), "chosen": f"Certainly: {i}.", "rejected": "No. " * (i % 3)}
        for i in range(start, start + count)
    ]  # fmt: skip


def marks(start: int, count: int) -> list[dict[str, Any]]:
    made = []
    for i in range(start, start + count):
        polite, brief = i % 2 == 0, i % 3 == 0
        answer = ("Certainly: " if polite else "No: ") + "it sorts. " * (1 if brief else 4)
        rules = {"style.polite": polite, "form.brief": brief}
        made.append({"id": f"m{i}", "source": f"m{i}", "language": "en", "messages": asked(i), "answer": answer, "desirable": polite,
                     "score": 3.0 * polite, "rules": rules})  # fmt: skip
    return made


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """More are no faster with products of this size, and far slower beside other work."""
    monkeypatch.setattr("norma.base.platform.cores", lambda: 1)


@pytest.fixture
def context(tmp_path: Path, make_model: Callable[..., LanguageModel]) -> Build:
    for name, rows in (("pairs", pairs), ("marks", marks)):
        write_jsonl(tmp_path / "data" / f"{name}.train.jsonl", rows(0, 60))
        write_jsonl(tmp_path / "data" / f"{name}.validation.jsonl", rows(100, 40))
    make_model(1, max_positions=96).save(tmp_path / "base")

    def build(work: str = "work", **more: Any) -> Context[RewardModelStageOptions]:
        options = {"kind": "reward-model", "from": "base", "epochs": 4, "learning": {"rows": 12}, "train": TRAIN} | more
        options.setdefault("data", ["data/pairs.train.jsonl"])
        (tmp_path / work).mkdir(exist_ok=True)
        inputs = {name: tmp_path / name for name in ("data", "base")}
        parsed = RewardModelStageOptions.model_validate(options)
        return Context("judge", tmp_path / work, inputs, parsed, None, 1, Said(), Plan(tmp_path / work), tmp_path)

    return build


def test_pairs(context: Build) -> None:
    from norma.align.reward_model import RewardModel

    ctx = context(validation=["data/pairs.validation.jsonl"])
    summary = RewardModelStage().run(ctx)
    assert summary["steps"] == 20 and summary["rows"] == 60 and "model" not in summary, "it is nothing to chat with"
    quality = read_json(ctx.folder / "quality.json")
    assert quality == summary["quality"] and quality["n"] == 40
    assert quality["accuracy"]["rate"] > 0.9 and quality["accuracy"]["low"] < quality["accuracy"]["rate"] and quality["margin"] > 0.5
    assert [row["step"] for row in read_jsonl(ctx.folder / "metrics.jsonl")] == list(range(20))
    assert {"loss", "accuracy", "margin"} <= read_jsonl(ctx.folder / "metrics.jsonl")[0].keys()
    assert not list(ctx.folder.glob("checkpoint-*"))
    reward = RewardModel.load(ctx.folder)
    rows = pairs(0, 60)
    known = [(row["messages"], row[key]) for row in rows for key in ("chosen", "rejected")]
    assert float(reward.scores(*zip(*known, strict=True)).mean()) == pytest.approx(0, abs=1e-4), (
        "the answers that it learnt from have mean 0"
    )
    assert any("60 in all (4 epochs), measured on 40" in line for line in ctx.progress.lines)  # type: ignore[attr-defined]


def test_sources_are_held_out_where_no_file_is_named(context: Build) -> None:
    ctx = context(validation_share=0.3)
    summary = RewardModelStage().run(ctx)
    assert 10 < summary["quality"]["n"] < 26 and summary["quality"]["n"] + summary["rows"] == 60
    assert summary["quality"]["n"] % 2 == 0, "the two pairs of a source stay together"


def test_reference_answers_get_a_mean_of_zero(context: Build, tmp_path: Path) -> None:
    from norma.align.reward_model import RewardModel

    shown = [{"messages": [*asked(i), {"role": "assistant", "content": f"Certainly: {i}."}]} for i in range(5)]
    write_jsonl(tmp_path / "data" / "conversations.train.jsonl", shown)
    ctx = context(reference="data/conversations.train.jsonl")
    RewardModelStage().run(ctx)
    reward = RewardModel.load(ctx.folder)
    scores = reward.scores([asked(i) for i in range(5)], [f"Certainly: {i}." for i in range(5)])
    assert float(scores.mean()) == pytest.approx(0, abs=1e-5) and float(reward.scores([asked(1)], ["No. "])) < -0.5


def test_scores(context: Build) -> None:
    ctx = context(data=["data/marks.train.jsonl"], validation=["data/marks.validation.jsonl"], heads="score", epochs=12)
    quality = RewardModelStage().run(ctx)["quality"]
    assert quality["accuracy"]["rate"] > 0.9 and quality["order"]["rate"] > 0.9 and quality["desirable"] == 0.5


def test_rules_are_calibrated_and_serve_as_checkers(context: Build) -> None:
    from norma.check import classifier
    from norma.spec import Item, Status

    ctx = context(data=["data/marks.train.jsonl"], validation=["data/marks.validation.jsonl"], heads="rules", epochs=12)
    summary = RewardModelStage().run(ctx)
    assert list(summary["quality"]["rules"]) == ["form.brief", "style.polite"] and [r[0] for r in summary["table"]["rows"]] == [
        "form.brief",
        "style.polite",
    ]
    for found in summary["quality"]["rules"].values():
        assert found["accuracy"]["rate"] > 0.85 and found["temperature"] > 0 and 0 < found["checker"]["threshold"] < 1
    polite = summary["quality"]["rules"]["style.polite"]["checker"]
    checker = classifier.build(str(ctx.folder), polite | {"abstain": 0.0}, "")
    item = Item("q", tuple(asked(7)))  # type: ignore[arg-type]
    assert checker.check(item, "Certainly: it sorts. ").status is Status.COMPLIANT
    assert checker.check(item, "No: it sorts. ").status is Status.VIOLATION


@pytest.mark.parametrize("lora", [None, {"rank": 4, "alpha": 8.0}])
def test_two_stacks_learn_it_and_it_rewards_a_policy(
    context: Build, tmp_path: Path, make_model: Callable[..., LanguageModel], lora: dict[str, float] | None
) -> None:
    """From an encoder-decoder: the same stage, a folder with its head, and R(x, y) of a reward stage."""
    import torch

    from norma.align.reward_model import RewardModel
    from norma.lm import LanguageModel
    from norma.nn import Transformer, preset
    from norma.pipeline.stages.reward import Reward, RewardOptions

    tokenizer = make_model(1).tokenizer
    config = preset("t5", vocab_size=len(tokenizer), width=24, layers=1, head_size=12, max_positions=96)
    LanguageModel(Transformer(config).initialise(torch.Generator().manual_seed(1)), tokenizer).save(tmp_path / "base")
    ctx = context("judge", validation=["data/pairs.validation.jsonl"], epochs=2, lora=lora)
    summary = RewardModelStage().run(ctx)
    assert summary["quality"]["accuracy"]["rate"] > 0.9, summary
    judge = RewardModel.load(ctx.folder)
    assert judge.model.config.kind == "encoder-decoder" and judge.reads == "chat" and not (ctx.folder / "adapter").exists()
    known = [(row["messages"], row[key]) for row in pairs(0, 60) for key in ("chosen", "rejected")]
    assert float(judge.scores(*zip(*known, strict=True)).mean()) == pytest.approx(0, abs=1e-4)
    questions = [{"id": str(i), "source": str(i), "language": "en", "messages": asked(i)} for i in range(4)]
    write_jsonl(tmp_path / "data" / "asked.jsonl", questions)
    policy = {"questions": 2, "group": 4, "max_new_tokens": 6}
    options = {"kind": "reward", "from": "base", "questions": "data/asked.jsonl", "steps": 2, "policy": policy, "train": TRAIN}
    parsed = RewardOptions.model_validate(options | {"rules": False, "reward_model": "judge", "lora": lora})
    (tmp_path / "policy").mkdir()
    inputs = {name: tmp_path / name for name in ("data", "base", "judge")}
    said = Said()
    done = Reward().run(Context("policy", tmp_path / "policy", inputs, parsed, None, 1, said, Plan(tmp_path / "policy"), tmp_path))
    assert done["steps"] == 2 and any("the reward model gives" in line for line in said.lines)
    rows = read_jsonl(tmp_path / "policy" / "metrics.jsonl")
    assert all("model/reward" in row and row["gradient_norm"] > 0 for row in rows)


def test_a_killed_stage_ends_with_the_same_bytes(context: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    from norma.align.reward_training import RewardTraining

    class Killed(Exception):
        pass

    train = {**TRAIN, "checkpoint_seconds": 1e-6}
    RewardModelStage().run(context("whole", train=train))
    real, deaths = RewardTraining.losses, [4, 11]

    def dying(self: RewardTraining, network: Any, step: int, *more: Any, **named: Any) -> Any:
        yield from real(self, network, step, *more, **named)
        if step in deaths:
            deaths.remove(step)
            raise Killed

    monkeypatch.setattr(RewardTraining, "losses", dying)
    for _ in range(2):
        with pytest.raises(Killed):
            RewardModelStage().run(context("broken", train=train))
    broken = context("broken", train=train)
    RewardModelStage().run(broken)
    kept = ("model.safetensors", "config.json", "norma.json", "quality.json", "tokenizer.json")
    folders = [broken.folder.parent / name for name in ("whole", "broken")]
    digests = [{name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in kept} for folder in folders]
    assert digests[0] == digests[1]


def test_what_is_wrong_is_one_line(context: Build, tmp_path: Path) -> None:
    with pytest.raises(NormaError, match="a row without 'chosen'") as error:
        RewardModelStage().run(context("a", data=["data/marks.train.jsonl"]))
    assert "data/marks.train.jsonl:1" in str(error.value)
    with pytest.raises(NormaError, match="not a file of that stage"):
        RewardModelStage().run(context("b", data=["data/pairs.jsonl"]))
    with pytest.raises(NormaError, match="no row has a mark under a rule"):
        RewardModelStage().run(context("c", heads="rules"))
    write_jsonl(tmp_path / "data" / "few.jsonl", marks(0, 1))
    with pytest.raises(NormaError, match="too few held-out marks"):
        RewardModelStage().run(context("d", data=["data/marks.train.jsonl"], validation=["data/few.jsonl"], heads="rules", epochs=0.1))
