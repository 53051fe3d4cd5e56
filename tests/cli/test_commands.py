"""``norma run, status, init, data check, spec``: what they print, and how they end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from norma.cli import main
from norma.cli.live import compact
from norma.cli.progress import Watch, duration, number
from norma.cli.run import results_table
from norma.pipeline import load_recipe
from norma.pipeline.project import fill, templates

RECIPE = """\
norma: 1
name: small
stages:
  corpus: {kind: corpus, sources: [{path: text}], validation_share: 0.2}
  tokenizer: {kind: tokenizer, vocab_size: 300}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "text").mkdir()
    for name in ("one", "two", "three"):
        lines = [
            f"Day {day} at the {name} mill. The wheel turned {day * 3} times and the {name} miller wrote it down.\n" for day in range(60)
        ]
        (tmp_path / "text" / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    return tmp_path


def test_run_and_status(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "recipe.yaml", "--dry-run"]) == 0
    assert "Would make 2 of 2 stages: corpus, tokenizer" in capsys.readouterr().out
    assert not (project / "runs").exists()
    assert main(["run", "recipe.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "1/2 corpus done in" in shown and "2/2 tokenizer done in" in shown and "Finished: runs/small" in shown
    assert (project / "runs/small/tokenizer/tokenizer.json").is_file()
    assert main(["run", "recipe.yaml"]) == 0
    assert "1/2 corpus up to date" in capsys.readouterr().out
    with (project / "text" / "one.txt").open("a", encoding="utf-8") as handle:
        handle.write("\nOne more line about the mill and what the miller saw in it.\n")
    assert main(["status", "runs/small", "--json"]) == 0
    states = json.loads(capsys.readouterr().out)["stages"]
    assert [s["state"] for s in states] == ["stale", "stale"]
    assert states[0]["why"][0].startswith("outside: text.one.txt: ")
    assert main(["run", "recipe.yaml", "tokenizer.vocab_size=310", "--dry-run"]) == 0
    assert "vocab_size: 300 → 310" in capsys.readouterr().out


def test_a_missing_or_empty_corpus_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "recipe.yaml", "corpus.sources.0.path=nowhere"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {project / 'nowhere'}: file not found")
    (project / "empty").mkdir()
    assert main(["run", "recipe.yaml", "corpus.sources.0.path=empty"]) == 2
    assert "no readable file in this folder" in capsys.readouterr().err


def test_data_check(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"messages": [{"role": "user", "content": f"q{i} [x]"}, {"role": "assistant", "content": f"a{i}"}]} for i in range(4)]
    text = "\n".join(json.dumps(row) for row in rows) + "\nnot json\n"
    (project / "chat.jsonl").write_text(text, encoding="utf-8")
    assert main(["data", "check", "chat.jsonl"]) == 0
    shown = capsys.readouterr().out
    assert "4 usable, 1 set aside" in shown and "chat.jsonl:5" in shown
    assert shown.count("user: q") == 3 and "⟦a0⟧" in shown and "⟦q0" not in shown
    assert main(["data", "check", "chat.jsonl", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 4
    assert main(["data", "check", "nowhere.jsonl"]) == 2


def test_init_writes_a_project_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert templates() == ["courteous-docs"]
    assert main(["init", "my project"]) == 0
    assert capsys.readouterr().out.endswith("Next: norma run 'my project/recipe.yaml'\n")
    loaded = load_recipe(tmp_path / "my project")
    assert loaded.recipe.name == "my-project"
    assert loaded.spec_path == tmp_path / "my project" / "spec.yaml"
    assert {"path": "data", "python": "docstrings", "docstrings": None, "hub": None} in loaded.nodes["corpus"].options.resolved()["sources"]
    assert main(["init", "my project"]) == 2
    assert "my project: the folder is not empty. Choose a new or an empty one." in capsys.readouterr().err
    own = tmp_path / "own: texts"
    own.mkdir()
    assert main(["init", "second", "--data", str(own)]) == 0
    assert str(own) in [s["path"] for s in load_recipe(tmp_path / "second").nodes["corpus"].options.resolved()["sources"]]
    assert main(["init", "third", "--data", "nowhere"]) == 2
    assert main(["init", "third", "--template", "courteous"]) == 2
    assert "unknown template 'courteous'. Did you mean 'courteous-docs'." in capsys.readouterr().err
    assert not (tmp_path / "third").exists()


def test_fill() -> None:
    recipe = """\
# norma run recipes/demo.yaml
name: demo
spec: demo.spec.yaml
output: x
stages:
  words:
    kind: corpus
    sources:
    - {docstrings: installed}  # all of them
  more: {kind: corpus, sources: [{docstrings: [numpy]}]}
scales:
  ci:
    words.sources: [{docstrings: [stdlib]}]
"""
    expected = """\
# norma run recipe.yaml
name: mine
spec: spec.yaml
stages:
  words:
    kind: corpus
    sources:
    - {path: 'it''s'}
    - {docstrings: installed}  # all of them
  more: {kind: corpus, sources: [{path: 'it''s'}, {docstrings: [numpy]}]}
scales:
  ci:
    words.sources: [{path: 'it''s'}, {docstrings: [stdlib]}]
"""
    assert fill(recipe, "mine", "it's") == expected


def test_spec_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = str(Path(__file__).parents[2] / "recipes" / "courteous-docs.spec.yaml")
    assert main(["spec", "prompt", spec, "--language", "zh"]) == 0
    assert capsys.readouterr().out.startswith("规则：\n1. ")
    assert main(["spec", "prompt", spec, "What does `a.b` do?", "--all", "--prefix"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("[user]\nRules:\n1. ") and shown.rstrip().endswith("What does `a.b` do?")
    assert main(["spec", "show", spec, "--rule", "form.one-sentence"]) == 0
    assert capsys.readouterr().out.startswith("## form.one-sentence\n\nAnswer in one sentence.")
    assert main(["spec", "show", spec, "--rule", "form.one-sentense"]) == 2
    assert "Did you mean 'form.one-sentence'" in capsys.readouterr().err
    assert main(["spec", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["$schema"].startswith("https://json-schema.org/")
    text = Path(spec).read_text(encoding="utf-8")
    twice = tmp_path / "twice.yaml"
    twice.write_text(text.replace("rules:\n", "rules: []\nrules:\n", 1), encoding="utf-8")
    assert main(["spec", "lint", str(twice)]) == 2
    assert "the key 'rules' stands twice" in capsys.readouterr().err


def test_spec_explain_diff_import_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = str(Path(__file__).parents[2] / "recipes" / "courteous-docs.spec.yaml")

    def said(*arguments: str, code: int = 0) -> str:
        assert main(["spec", *arguments]) == code
        found = capsys.readouterr()
        return found.err if code else found.out

    shown = said("explain", spec, "--prompt", "What does `a.b` do?\nEntry: `a.c()`")
    assert shown.startswith("language: en\n") and "\nhonest.says-missing: active\n" in shown
    assert "honest.answers-known: not_applicable" in shown and "is false   <- decided here" in shown
    row = {"id": "q", "messages": [{"role": "user", "content": "`a.b` 有什么作用？"}, {"role": "assistant", "content": "x"}], "facts": {}}
    items = tmp_path / "items.jsonl"
    switched = row | {"id": "r", "facts": {"overrides": {"form.brief": "root"}}}
    items.write_text(json.dumps(row) + "\n" + json.dumps(switched), encoding="utf-8")
    first, second = json.loads(said("explain", spec, "--item", str(items), "--rule", "form.brief", "--json"))
    assert (first["language"], first["rules"][0]["status"]) == ("zh-Hans", "active")
    assert (second["rules"][0]["status"], second["rules"][0]["step"], second["rules"][0]["by"]) == ("overridden", "role", "root")
    assert "--prompt TEXT or --item FILE" in said("explain", spec, code=2)
    assert "not JSON" in said("explain", spec, "--prompt", "x", "--facts", "{", code=2)

    changed = tmp_path / "changed.yaml"
    text = Path(spec).read_text(encoding="utf-8").replace("Answer in one sentence.", "Answer in a single sentence.")
    changed.write_text(text, encoding="utf-8")
    assert said("diff", spec, spec).startswith("The two say the same")
    (rule,) = json.loads(said("diff", spec, str(changed), "--json"))["rules"]
    assert (rule["new"], [c["facet"] for c in rule["changes"]]) == ("form.one-sentence", ["meaning", "wording.en"])
    assert "sign it: editorial:" in said("diff", spec, str(changed))
    assert "not a run folder" in said("diff", spec, str(changed), "--run", str(tmp_path), code=2)

    rules = tmp_path / "rules.txt"
    rules.write_text("1. 保持礼貌。\n2. 简短。\n", encoding="utf-8")
    made = tmp_path / "made.yaml"
    assert "made.yaml: 2 rules, 0 examples, 0 prompts\n- 2 of 2 rules have" in said("import", "text", str(rules), str(made))
    assert "is there already" in said("import", "text", str(rules), str(made), code=2)
    assert said("lint", str(made)).rstrip().endswith("2 rules, 0 errors, 6 warnings")
    assert "保持礼貌。" in said("show", str(made), "--markdown", "--lang", "zh-Hans")
    assert "ifbench" in said("import", "list", "x") and "junit" in said("export", "list", "x")
    assert said("export", "markdown", spec, str(tmp_path / "s.md")).endswith("s.md\n")
    assert "contradict each other" in said("lint", spec, "--static", "--run-checkers", code=2)
    assert said("lint", spec, "--run-checkers").rstrip().endswith("0 errors, 0 warnings")
    assert json.loads(said("schema", "--fragment"))["title"] == "Fragment"


def test_numbers() -> None:
    assert number("loss", 3.41234) == "loss 3.412"
    assert number("tokens_per_s", 15500) == "15.5k tokens/s"
    assert number("learning_rate", 0.0003) == "learning rate 0.0003"
    assert [compact(x) for x in (0.5, 12, 999, 1e3, 2.5e6, 3e9)] == ["0.5", "12.0", "999", "1.0k", "2.5M", "3.0G"]
    assert [duration(x) for x in (1.26, 59.9, 60, 3725)] == ["1.3 s", "59.9 s", "0:01:00", "1:02:05"]


def watched(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> str:
    now = [0.0]
    monkeypatch.setattr("norma.cli.progress.time.monotonic", lambda: now[0])
    console = Console(force_terminal=terminal, width=120, record=True, file=open("/dev/null", "w"), color_system=None)  # noqa: SIM115, PTH123
    with Watch(console) as watch:
        watch.begin(["first", "second"], Path("/runs/x"))
        watch.skip("first")
        watch.start("second", "chain", ["steps: 3 → 6"], False)
        for step in range(1, 101):
            now[0] += 0.1
            watch.update(step, 100, loss=1 / step, tokens_per_s=15500)
        watch.say("odd [brackets and [/wrong] markup")
        watch.finish("second", 10.0, {"x": 3, "model": True})
    return console.export_text()


def test_plain_progress_is_a_line_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = watched(False, monkeypatch).splitlines()
    assert lines[:3] == ["Run folder: /runs/x", "1/2 first up to date", "2/2 second (steps: 3 → 6)"]
    steps = [line for line in lines if "tokens/s" in line]
    assert 1 <= len(steps) <= 2  # 10 seconds of work
    assert steps[0].startswith("2/2 second  50/100  loss 0.0200  15.5k tokens/s  5.0 s left") or "left" in steps[0]
    assert "odd [brackets and [/wrong] markup" in lines
    assert lines[-1] == "2/2 second done in 10.0 s  x 3"


def test_live_progress_keeps_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = watched(True, monkeypatch)
    assert "odd [brackets and [/wrong] markup" in shown and "2/2 second done in 10.0 s" in shown


def test_results_table() -> None:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    table: dict[str, Any] = {"title": "Compliance", "columns": ["method", "rate"], "rows": [["base [1]", 0.123456], ["reward", None]]}
    console.print(results_table(table))
    shown = console.export_text()
    assert "base [1]" in shown and "0.123" in shown and "–" in shown
