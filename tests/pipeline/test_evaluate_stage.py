"""The evaluate stage on tiny random models: which rows it asks, marks and reports. What the numbers mean is tested in tests/evaluate."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from norma.base.errors import NormaError
from norma.base.files import read_json, read_jsonl, write_json, write_jsonl
from norma.base.progress import Silent
from norma.labels import Label
from norma.pipeline.plan import Plan
from norma.pipeline.stage import Context
from norma.pipeline.stages.evaluate import Evaluate, EvaluateOptions, _kept_apart
from norma.spec import Spec

if TYPE_CHECKING:
    from norma.lm import LanguageModel

SPEC = """
norma: 1
spec: {id: small, version: "1", languages: [en, zh-Hans]}
rules:
- id: form.stop
  statement: {en: "End with a full stop.", zh-Hans: "以句号结尾。"}
  checkers: [{id: program, kind: program, use: ends_with_stop, roles: [train, report]}]
  elicit:
  - {id: e1, prompt: {en: "Who?", zh-Hans: "谁？"}}
  - {id: e2, prompt: {en: "Who is it?"}, benign_pair_of: e1}
  - {id: e3, prompt: {en: "Never stop."}, split: attack}
  target: {min_rate: 0.5}
- id: form.brief
  statement: {en: "Be brief.", zh-Hans: "请简短。"}
  checkers: [{id: length, kind: program, use: length, roles: [train, report], params: {max_words: 5, max_characters: 5}}]
"""


@pytest.fixture
def context(tmp_path: Path, make_model: Callable[..., LanguageModel]) -> Callable[..., Context[EvaluateOptions]]:
    rows = [
        {"id": f"q{i}", "source": f"s{i}", "language": "en", "facts": {},
         "messages": [{"role": "user", "content": f"What is {i}?"}, {"role": "assistant", "content": "It sorts."}]}
        for i in range(5)
    ]  # fmt: skip
    corpus = tmp_path / "corpus"
    write_jsonl(corpus / "qa.validation.jsonl", rows)
    write_jsonl(corpus / "qa.train.jsonl", rows)
    write_jsonl(corpus / "text.validation.jsonl", [{"text": f"The mill turned {i} times."} for i in range(8)])
    for seed, name in enumerate(("first", "second")):
        make_model(seed).save(tmp_path / name)

    def build(**more: Any) -> Context[EvaluateOptions]:
        methods = {"base": {"model": "first"}, "ruled": {"model": "second", "rules": "applicable"}}
        options = {"kind": "evaluate", "methods": methods, "baseline": "base", "max_new_tokens": 6, "text_bytes": 1000} | more
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        inputs = {name: tmp_path / name for name in ("corpus", "first", "second")}
        parsed = EvaluateOptions.model_validate(options)
        return Context("evaluate", work, inputs, parsed, Spec.parse(SPEC), 1, Silent(), Plan(work), tmp_path)

    return build


def test_what_a_probe_asks(context: Callable[..., Context[EvaluateOptions]], tmp_path: Path) -> None:
    probe = {"methods": ["ruled"], "control": 2, "combinations": [["form.stop", "form.brief"]], "attacks": ["role_play"], "groups": ["age"]}
    families = {"primary": {"methods": ["ruled"], "rules": ["form.stop"]}}
    ctx = context(probe=probe, families=families)
    summary = Evaluate().run(ctx)
    assert summary["publish"] == ["report.html", "report.json", "junit.xml"]
    answers = read_jsonl(ctx.folder / "responses.jsonl")
    # five questions each; of the probed method: three plain prompts, its own attack, three attacked, three x two ages, and two questions
    # with each rule, both, and none
    assert Counter((r["method"], r["set"]) for r in answers) == {
        ("base", "questions"): 5, ("ruled", "questions"): 5, ("ruled", "elicit"): 3, ("ruled", "attack"): 1 + 3,
        ("ruled", "group"): 6, ("ruled", "control"): 2 * 4,
    }  # fmt: skip
    report = read_json(ctx.folder / "report.json")
    jsonschema.validate(report, json.loads(files("norma.evaluate").joinpath("report.schema.json").read_text(encoding="utf-8")))
    assert [m["overall"]["n"] for m in report["methods"]] == [5, 5] and report["data"]["trials"] == 3 + 4 + 6 + 8
    assert {row["family"] for row in report["comparisons"] if row["rule"] == "form.stop"} >= {"primary"}
    assert {(row["rule"], len(row["shown"])) for row in report["control"]} == {
        ("form.stop", 1), ("form.brief", 1), ("form.stop", 2), ("form.brief", 2)
    }  # fmt: skip
    assert {row["kind"] for row in report["attack"]} == {"own", "role_play"} and report["over_refusal"][0]["benign"]["n"] == 1
    assert {(row["method"], row["measure"]) for row in report["tax"]} == {("ruled", "bits_per_byte"), ("ruled", "chrf")}
    bits = {m["method"]: m["bits_per_byte"] for m in report["methods"]}
    (change,) = (row["delta"] for row in report["tax"] if row["measure"] == "bits_per_byte")
    assert change == pytest.approx(bits["ruled"] - bits["base"], abs=1e-9)


def test_marks_of_people_correct_the_rates(context: Callable[..., Context[EvaluateOptions]], tmp_path: Path) -> None:
    ctx = context()
    Evaluate().run(ctx)
    hash = ctx.need_spec().rule("form.brief").hash
    marks = [
        Label(
            r["item"], r["response"], "form.brief", hash, "anna", "violation" if r["item"] == "q1" else "compliant", queue="uniform"
        ).row()
        for r in read_jsonl(ctx.folder / "responses.jsonl")
        if r["method"] == "base"
    ]
    write_jsonl(tmp_path / "labels.jsonl", marks)
    ctx = context(audit="labels.jsonl")
    Evaluate().run(ctx)
    (row,) = read_json(ctx.folder / "report.json")["audit"]
    assert (row["method"], row["rule"], row["n"], row["n_sensitivity"], row["n_specificity"]) == ("base", "form.brief", 5, 4, 1)
    assert row["note"] == "too_few" and row["rate"] is None
    stage = Evaluate()
    before = stage.fingerprint(ctx.options, tmp_path)
    write_jsonl(tmp_path / "labels.jsonl", marks[:1])
    assert stage.fingerprint(ctx.options, tmp_path) != before and stage.fingerprint(context().options, tmp_path) == {}


def test_wrong_names_are_said_before_anything_is_asked(context: Callable[..., Context[EvaluateOptions]]) -> None:
    with pytest.raises(NormaError, match=r"'ruld', which is no method.*ruled"):
        Evaluate().run(context(probe={"methods": ["ruld"]}))
    with pytest.raises(NormaError, match=r"leash of 'ruled' leads to 'bas', which is no method.*base"):
        Evaluate().run(context(methods={"base": {"model": "first"}, "ruled": {"model": "second", "leash": "bas"}}))


def test_what_training_kept_apart_is_read_from_the_run(tmp_path: Path) -> None:
    def stage(name: str, kind: str, options: dict[str, Any]) -> None:
        write_json(tmp_path / name / "lineage.json", {"identity": {"kind": kind, "options": options}})

    stage("pretrain", "pretrain", {})
    stage("instruct", "sft", {"from": "pretrain"})
    stage("prompting", "prompting", {"from": "instruct", "apart": [["a", "b"]]})
    stage("reward", "reward", {"from": "prompting"})
    assert _kept_apart(tmp_path / "reward") == _kept_apart(tmp_path / "prompting") == [["a", "b"]]
    assert _kept_apart(tmp_path / "instruct") is None and _kept_apart(tmp_path / "absent") is None
    stage("free", "prompting", {"from": "instruct", "apart": None})
    assert _kept_apart(tmp_path / "free") == []


def test_which_rules_a_method_shows_and_how(context: Callable[..., Context[EvaluateOptions]], monkeypatch: pytest.MonkeyPatch) -> None:
    import norma.generate

    real, seen = norma.generate.generate, []

    def spy(model: Any, prompts: Any, sampling: Any) -> Any:
        seen.append([model.tokenizer.decode(p) for p in prompts])
        return real(model, prompts, sampling)

    monkeypatch.setattr("norma.generate.generate", spy)
    drawn = {"model": "second", "rules": "rule", "layout": {"language": "zh-Hans", "position": "prefix"}}
    named = {"model": "second", "rules": ["form.brief", "form.stop"]}
    turned = {"model": "second", "rules": "applicable", "layout": {"order": "reversed"}}
    Evaluate().run(context(methods={"base": {"model": "first"}, "drawn": drawn, "named": named, "turned": turned}))
    one, two = ("规则：\n1. 以句号结尾。\n\nWhat is", "规则：\n1. 请简短。\n\nWhat is")
    assert len(seen) == 4 and all("Rules" not in p for p in seen[0]) and {one in p or two in p for p in seen[1]} == {True}
    assert seen[2] == seen[3] and all("Rules:\n1. Be brief.\n2. End with a full stop.What is" in p for p in seen[2])
