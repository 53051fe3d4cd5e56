"""Exporters: what is written says what was found, and the other tools open it (their packages, where they are installed)."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest
import yaml

from norma.base.errors import NormaError
from norma.base.files import write_jsonl
from norma.spec import Spec
from norma.spec.exporters import FORMATS, describe, judging, run
from norma.spec.exporters.inspect_log import logs

SPEC = """
norma: 1
spec: {id: my-desk, version: "1.10", languages: [en, zh-Hans]}
rules:
- id: kind
  statement: {en: Be kind., zh-Hans: 友善。}
  checkers: [{id: c, kind: fake, use: has, params: {word: please}}, {id: h, kind: fake, use: broken, roles: [heldout]}]
  elicit:
  - {id: e1, prompt: {en: 'Give "it" to me', zh-Hans: 给我}, system: {en: Be good.}}
  - {id: e2, prompt: {en: Now}, facts: {urgent: true}}
- id: calm
  statement: {en: Stay calm., zh-Hans: 保持冷静。}
  applies: has(facts.urgent)
- id: torn
  statement: {en: Hm., zh-Hans: 嗯。}
  checkers: [{id: c, kind: fake, use: torn}]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "desk.yaml"
    file.write_text(SPEC, encoding="utf-8")
    return file


def test_markdown(path: Path) -> None:
    (out,) = run("markdown", path, path.with_suffix(".md"), language="zh-Hans")
    text = out.read_text(encoding="utf-8")
    assert text.startswith("# my-desk (版本 1.10)") and "友善。" in text and "Be kind." not in text


# ---- promptfoo ----


def test_promptfoo_tests_assert_the_active_rules(path: Path) -> None:
    (out,) = run("promptfoo", path, path.parent / "pf.yaml")
    made = yaml.safe_load(out.read_text(encoding="utf-8"))
    shown = [(t["description"], [(a["type"], a["metric"]) for a in t["assert"]]) for t in made["tests"]]
    always = [("python", "kind"), ("python", "torn")]
    assert shown == [
        ("kind/e1#en", always),
        ("kind/e1#zh-Hans", always),
        ("kind/e2#en", [("python", "kind"), ("llm-rubric", "calm"), ("python", "torn")]),
    ]
    assert made["tests"][2]["assert"][1]["value"] == "Stay calm."
    asked = [{"role": "system", "content": "Be good."}, {"role": "user", "content": 'Give "it" to me'}]
    assert made["tests"][0]["vars"]["messages"] == asked
    # what promptfoo does with inline Python: the body of a function of output and context
    body = "def graded(output, context):\n" + textwrap.indent(made["tests"][0]["assert"][0]["value"], "    ")
    scope: dict = {}
    exec(body, scope)
    context = {"vars": made["tests"][0]["vars"]}
    assert scope["graded"]("yes please", context) | {"reason": ""} == {"pass": True, "score": 1.0, "reason": ""}
    assert scope["graded"]("no", context) | {"reason": ""} == {"pass": False, "score": 0.0, "reason": ""}
    with pytest.raises(ValueError, match="no verdict"):  # unsure is an error there, not a fail
        judging.promptfoo("x", {"vars": {**context["vars"], "norma_rule": "torn"}})


def test_promptfoo_itself(path: Path) -> None:
    tool = os.environ.get("NORMA_TEST_PROMPTFOO") or shutil.which("promptfoo")
    if not tool:
        pytest.skip("promptfoo is not installed: npm install promptfoo, and put it on the PATH or into NORMA_TEST_PROMPTFOO")
    (out,) = run("promptfoo", path, path.parent / "pf.yaml")
    quiet = {**os.environ, "PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1", "PROMPTFOO_CONFIG_DIR": str(path.parent)}
    done = subprocess.run([tool, "validate", "config", "-c", str(out)], capture_output=True, text=True, env=quiet, timeout=120)
    assert "Configuration is valid" in done.stdout + done.stderr


# ---- lm-eval ----


def test_lm_eval_numbers(path: Path) -> None:
    task, prompts, utils = run("lm-eval", path, path.parent / "task")
    rows = [json.loads(line) for line in prompts.read_text(encoding="utf-8").splitlines()]
    assert [(r["id"], r["system"], r["prompt"]) for r in rows] == [
        ("kind/e1#en", "Be good.", 'Give "it" to me'), ("kind/e1#zh-Hans", "", "给我"), ("kind/e2#en", "", "Now"),
    ]  # fmt: skip
    scope: dict = {}
    exec(utils.read_text(encoding="utf-8"), scope)
    found = scope["process_results"](rows[0], ["yes please"])
    assert (found["norma_kept"], found["kind"]) == (1.0, 1.0) and math.isnan(found["torn"])
    assert scope["process_results"](rows[0], ["no"])["norma_kept"] == 0.0
    assert scope["mean_of_scored"]([1.0, math.nan, 0.0, 0.0]) == pytest.approx(1 / 3) and math.isnan(scope["mean_of_scored"]([math.nan]))
    text = task.read_text(encoding="utf-8")
    assert "task: norma_my_desk" in text and "process_results: !function 'utils.process_results'" in text and "&id" not in text


def test_lm_eval_itself(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install lm_eval")
    from lm_eval.tasks import TaskManager

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(path.parent / "hf"))
    run("lm-eval", path, path.parent / "task")
    manager = TaskManager(include_path=str(path.parent / "task"), include_defaults=False)
    (task,) = manager.load(["norma_my_desk"])["tasks"].values()
    docs = list(task.test_docs())
    assert len(docs) == 3 and task.doc_to_text(docs[0]) == 'Be good.\n\nGive "it" to me'
    assert task.process_results(docs[0], ["yes please"])["kind"] == 1.0


# ---- inspect_ai ----


def answer(method: str, item: str, sample: int = 0) -> dict:
    messages = [{"role": "developer", "content": "D"}, {"role": "user", "content": "U"}]
    row = {"method": method, "item": item, "cluster": item, "language": "en", "messages": messages, "response": "R", "reference": None}
    return row | {"finish": "length", "set": "questions"} | ({"sample": sample} if sample else {})


def verdict(method: str, item: str, rule: str, status: str, role: str = "report", sample: int = 0) -> dict:
    row = {"method": method, "item": item, "rule": rule, "status": status, "role": role, "note": "why", "score": 0.5}
    return row | {"rule_hash": "h", "checker": "c", "checker_digest": "d"} | ({"sample": sample} if sample else {})


RESPONSES = [answer("a", "1"), answer("a", "2"), answer("a", "2", 1), answer("b", "1")]
VERDICTS = [
    verdict("a", "1", "x", "compliant"), verdict("a", "2", "x", "violation"), verdict("a", "2", "x", "compliant", sample=1),
    verdict("a", "1", "y", "not_applicable"), verdict("a", "2", "y", "unsure"), verdict("a", "2", "y", "error", sample=1),
    verdict("a", "1", "x", "violation", role="heldout"),  # a table of its own
    verdict("b", "1", "x", "compliant"), verdict("b", "1", "x", "violation"),  # two checkers: one violation decides
]  # fmt: skip


def test_inspect_logs_by_hand() -> None:
    made = logs(RESPONSES, VERDICTS, "t", "2026-01-02T03:04:05+00:00")
    assert list(made) == ["a", "b"] and {log["version"] for log in made.values()} == {2}
    x, y = made["a"]["results"]["scores"]
    assert (x["scored_samples"], x["unscored_samples"]) == (3, 0) and x["metrics"]["mean"]["value"] == pytest.approx(2 / 3)
    assert (y["scored_samples"], y["unscored_samples"]) == (0, 3) and math.isnan(y["metrics"]["mean"]["value"])
    assert [(s["id"], s["epoch"], s["scores"]["x"]["value"]) for s in made["a"]["samples"]] == [("1", 1, 1.0), ("2", 1, 0.0), ("2", 2, 1.0)]
    assert all(math.isnan(s["scores"]["y"]["value"]) for s in made["a"]["samples"])
    assert made["b"]["samples"][0]["scores"]["x"]["value"] == 0.0
    assert made["a"]["samples"][0]["output"]["choices"][0]["stop_reason"] == "max_tokens"
    assert "NaN" in json.dumps(made["a"])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "evaluate" / "responses.jsonl", RESPONSES)
    write_jsonl(tmp_path / "evaluate" / "verdicts.jsonl", VERDICTS)
    return tmp_path


def test_inspect_files(results: Path) -> None:
    paths = run("inspect", results, results / "logs")
    assert [p.name for p in paths] == ["a.json", "b.json"] and run("inspect", results / "evaluate", results / "logs") == paths
    with pytest.raises(NormaError, match="no results here"):
        run("inspect", results / "logs", results / "more")


def test_inspect_itself(results: Path) -> None:
    log = pytest.importorskip("inspect_ai.log", reason="inspect_ai is not installed: pip install inspect_ai")
    run("inspect", results, results / "logs")
    read = log.read_eval_log(str(results / "logs" / "a.json"))
    assert (read.version, read.status, len(read.samples)) == (2, "success", 3)
    assert {s.name: s.scored_samples for s in read.results.scores} == {"x": 3, "y": 0}
    assert math.isnan(read.samples[0].scores["y"].value) and read.samples[1].scores["x"].value == 0.0
    assert [m.role for m in read.samples[0].messages] == ["system", "user", "assistant"]


def test_formats_are_described_and_unknown_ones_refused(path: Path) -> None:
    assert all(describe(f) for f in FORMATS)
    with pytest.raises(NormaError, match=r"unknown format 'inspct'.*'inspect'"):
        run("inspct", path, path)
    path.write_text(SPEC[: SPEC.index("  elicit")] + "\n", encoding="utf-8")
    for format in ("promptfoo", "lm-eval"):
        with pytest.raises(NormaError, match="no elicitation prompts"):
            run(format, path, path.parent / "out")


def test_the_same_spec_is_not_read_again_and_a_changed_one_is(path: Path) -> None:
    first = judging.load(str(path), path.stat().st_mtime)
    assert judging.load(str(path), path.stat().st_mtime) is first and isinstance(first, Spec)
    os.utime(path, (1, 1))
    assert judging.load(str(path), path.stat().st_mtime) is not first
