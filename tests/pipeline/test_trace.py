"""`norma trace`: from a number to its rows and back, and one flipped byte anywhere is named."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from norma.base.errors import NormaError
from norma.base.files import write_json, write_jsonl
from norma.base.hashing import digest
from norma.cli import main
from norma.evaluate.report import build_report
from norma.labels import Label
from norma.pipeline import execute, load_recipe
from norma.pipeline.lineage import content_digest, list_files, list_unhashed, sealed
from norma.pipeline.rehash import rehash
from norma.pipeline.trace import Trace, trace
from norma.spec import Item, Spec

SPEC = """
norma: 1
spec: {id: small, version: "1", languages: [en]}
rules:
- id: form.stop
  statement: {en: "End with a full stop."}
  checkers: [{id: program, kind: program, use: ends_with_stop, roles: [train, report, heldout]}]
  target: {min_rate: 0.9}
- id: form.brief
  statement: {en: "Be brief."}
  checkers: [{id: length, kind: program, use: length, roles: [report], params: {max_words: 3}}]
"""


def stage(run: Path, name: str, kind: str, inputs: dict[str, str], options: dict[str, Any], summary: dict[str, Any]) -> None:
    """The record of a stage whose files are there already."""
    files = list_files(run / name)
    rules = {r.id: r.facets for r in Spec.parse(SPEC).rules}
    identity = {"kind": kind, "version": 1, "options": options, "seed": 1, "spec": {"rules": rules}, "inputs": inputs, "fingerprint": {}}
    row = {"stage": name, "digest": digest(identity), "content": content_digest(files), "identity": identity, "summary": summary}
    more = {
        "seconds": 1.5,
        "sessions": 1,
        "finished": "2026-01-01",
        "environment": {},
        "files": files,
        "unhashed": list_unhashed(run / name),
    }
    write_json(run / name / "lineage.json", sealed(row | more))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """corpus -> correction (labels, a pair) -> evaluate: two methods, ten questions."""
    folder, spec = tmp_path / "run", Spec.parse(SPEC)
    rows = [
        {"id": f"q{i}", "source": f"s{i}", "language": "en", "facts": {},
         "messages": [{"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": "Yes."}]}
        for i in range(20)
    ]  # fmt: skip
    write_jsonl(folder / "corpus" / "qa.train.jsonl", rows[10:])
    write_jsonl(folder / "corpus" / "qa.validation.jsonl", rows[:10])
    stage(folder, "corpus", "corpus", {}, {}, {})
    label = Label("q12", "Yes", "form.stop", spec.rule("form.stop").hash, "anna", "violation", corrected="Yes.")
    write_jsonl(folder / "correction" / "labels.jsonl", [label.row()])
    write_jsonl(folder / "correction" / "pairs.jsonl", [rows[12] | {"chosen": "Yes.", "rejected": "Yes"}])
    (folder / "correction" / "model.safetensors").write_bytes(bytes(range(256)))
    (folder / "correction" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n')
    corpus = json.loads((folder / "corpus" / "lineage.json").read_text())["content"]
    stage(folder, "correction", "correction", {"corpus": corpus}, {"questions": "corpus/qa.train.jsonl"}, {"model": True})
    responses, verdicts = [], []
    for method in ("base", "correct"):
        for i, row in enumerate(rows[:10]):
            item = Item(row["id"], (row["messages"][0],), cluster=row["source"])
            text = "Yes." if method == "correct" and i != 3 else "Yes it is so"
            responses.append({"method": method, "item": item.id, "cluster": item.source, "language": "en", "messages": [], "response": text,
                              "reference": None, "tokens": 1, "set": "questions"})  # fmt: skip
            for role in ("report", "heldout"):
                verdicts += [
                    {**v.row(), "method": method, "cluster": item.source, "language": "en"} for v in spec.verdicts(item, text, role)
                ]
    report = build_report(responses, verdicts, {"baseline": "base"}, spec)
    write_jsonl(folder / "evaluate" / "responses.jsonl", responses)
    write_jsonl(folder / "evaluate" / "verdicts.jsonl", verdicts)
    write_json(folder / "evaluate" / "report.json", report)
    write_json(folder / "report.json", report)
    content = json.loads((folder / "correction" / "lineage.json").read_text())["content"]
    options = {"methods": {"base": {"model": "correction"}, "correct": {"model": "correction"}}, "questions": "corpus/qa.validation.jsonl"}
    stage(folder, "evaluate", "evaluate", {"corpus": corpus, "correction": content}, options, {"publish": ["report.json"]})
    records = {n: json.loads((folder / n / "lineage.json").read_text()) for n in ("corpus", "correction", "evaluate")}
    stages = {n: {"content": row["content"], "digest": row["digest"]} for n, row in records.items()}
    write_json(folder / "lineage.json", sealed({"name": "run", "stages": stages}))
    return folder


def lines(node: Trace) -> list[str]:
    return [node.line, *(line for part in node.parts for line in lines(part))]


def has(found: list[str], *words: str) -> bool:
    return all(any(word in line for line in found) for word in words)


def test_from_a_number_to_everything_behind_it(run: Path) -> None:
    found = lines(trace(run, "correct/form.stop/rate"))
    assert found[0].startswith("correct/form.stop/rate = 0.9000 [")
    assert has(found, "verdicts.jsonl: the same", "10 verdicts on 10 items: 9 compliant, 1 violation", "violation: q3 [form.stop]")
    checker = Spec.parse(SPEC).checkers("report")["form.stop"][0]
    assert has(found, f"form.stop/program {checker.digest[:16]}: 10 verdicts", "End with a full stop.", "meaning ")
    assert has(
        found, "model: stage correction", "labels.jsonl: 1 labels under this rule: 1 violation", "q12: Yes → Yes.", "pairs.jsonl: 1 rows"
    )
    assert has(found, "corpus/qa.train.jsonl: 10 rows", "... and 5 more (--all)")
    assert len(lines(trace(run, "correct/form.stop/rate", everything=True))) == len(found) + 4
    assert lines(trace(run, "correct/overall/rate"))[1].endswith("the same")
    assert lines(trace(run, "base/form.stop@heldout/compliant"))[0] == "base/form.stop@heldout/compliant = 0"


def test_a_report_that_does_not_follow_from_its_verdicts_is_found_out(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "evaluate" / "verdicts.jsonl").read_text().splitlines()]
    write_jsonl(run / "evaluate" / "verdicts.jsonl", [r | {"status": "compliant"} if r["item"] == "q3" else r for r in rows])
    assert "DIFFERS: 1.0000" in lines(trace(run, "correct/form.stop/rate"))[1]


def test_and_back(run: Path) -> None:
    trained = lines(trace(run, "q12"))
    assert has(
        trained, "corpus/qa.train.jsonl: 1 rows", "line 3: ", "read by correction → methods base, correct", "anna on form.stop: violation"
    )
    assert has(trained, "pairs.jsonl: 1 rows", "Yes → Yes.") and not has(trained, "counts in")
    held_out = lines(trace(run, "q3"))
    assert has(held_out, "counts in 6 numbers", "correct/form.stop/rate (violation)", "base/form.stop@heldout/rate (violation)")
    assert not any("read by correction" in line for line in held_out)  # the questions of the report were not trained on
    key = json.loads((run / "correction" / "labels.jsonl").read_text())["key"]
    assert has(lines(trace(run, key[:12])), "anna: violation under form.stop", "answer: Yes → Yes.", "item q12")
    assert trace(run, "corpus/qa.train.jsonl:3").line == "corpus/qa.train.jsonl:3: item q12"
    assert has(lines(trace(run, "form.stop")), "correct/form.stop/rate = 0.9000", "labels.jsonl: 1 labels, by meaning")
    assert has(lines(trace(run, "correction")), "made from", "corpus ", "read by", "evaluate", "model.safetensors")


@pytest.mark.parametrize(
    ("reference", "words"),
    [("correct/form.stp/rate", "form.stop"), ("corect", "correct"), ("correct/form.stop/rat", "rate"),
     ("corpus/qa.train.jsonl:99", "no line 99"),
     ("correct/form.stop@train/rate", "report or heldout")],
)  # fmt: skip
def test_what_is_not_there_is_named(run: Path, reference: str, words: str) -> None:
    with pytest.raises(NormaError, match=words):
        trace(run, reference)


def test_every_flipped_byte_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = rehash(run)
    assert whole.damage == [] and whole.notes == [] and whole.files == 12 + 2  # twelve in the stages, two of the run's own
    draw = random.Random(3)
    for path in sorted(p for p in run.rglob("*") if p.is_file()):
        data, name = path.read_bytes(), path.relative_to(run).as_posix()
        for place in {0, len(data) - 1, *(draw.randrange(len(data)) for _ in range(6))}:
            path.write_bytes(data[:place] + bytes([data[place] ^ (1 << draw.randrange(8))]) + data[place + 1 :])
            assert any(line.startswith(f"{name}: ") for line in rehash(run).damage), (name, place)
        path.write_bytes(data)
    assert rehash(run).damage == []
    assert main(["trace", str(run), "--rehash"]) == 0 and "14 files" in capsys.readouterr().out
    (run / "correction" / "pairs.jsonl").unlink()
    assert main(["trace", str(run), "--rehash"]) == 1 and "DAMAGED correction/pairs.jsonl: missing" in capsys.readouterr().out
    with pytest.raises(NormaError, match="no run in this folder"):
        rehash(run.parent)


def test_layout_is_part_of_a_record(run: Path) -> None:
    """A flip from one kind of white space to another leaves the JSON as it was; the bytes are not."""
    path = run / "corpus" / "lineage.json"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r", 1))
    assert rehash(run).damage == ["corpus/lineage.json: the record does not fit its own seal"]


def test_a_real_run_is_whole_and_its_logs_are_guarded(project: Any) -> None:
    execute(load_recipe(project.recipe, trust=True))
    assert rehash(project.run_folder).damage == []
    for name in ("first/log.txt", "recipe.yaml", "end/report.html", "report.html"):
        path = project.run_folder / name
        if not path.is_file():
            continue
        data = path.read_bytes()
        path.write_bytes(data + b"x")
        assert any(line.startswith(name) for line in rehash(project.run_folder).damage), name
        path.write_bytes(data)


def test_the_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", str(run), "correct/form.stop/rate"]) == 0
    assert "├── computed again from evaluate/verdicts.jsonl: the same" in capsys.readouterr().out
    assert main(["trace", str(run), "q12", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["line"] == "item q12"
    assert main(["trace", str(run)]) == 2
