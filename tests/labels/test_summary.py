"""The agreement table and its words, and `norma label` from end to end."""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import random
from collections import Counter
from pathlib import Path

import pytest

from norma.base.errors import NormaError
from norma.cli.app import invoke
from norma.labels import Label, LabelStore
from norma.labels.bootstrap import Interval
from norma.labels.summary import annotators, in_words, ratings, table, table_of_counts
from norma.spec import Spec

SPEC = Path(__file__).resolve().parents[2] / "recipes/courteous-docs.spec.yaml"


def label(item: str, annotator: str = "ann", verdict: str = "compliant", **more: object) -> Label:
    return Label(**{"item": item, "response": "r", "rule": "style.polite", "rule_hash": "h", "annotator": annotator, "verdict": verdict,
                    "language": "en"} | more)  # fmt: skip


def test_unsure_is_missing_and_not_applicable_is_a_category() -> None:
    marks = [
        label("1", "a", "compliant"), label("1", "b", "violation"), label("2", "a", "not_applicable"), label("2", "b", "compliant"),
        label("3", "a", "not_applicable"), label("3", "b", "not_applicable"), label("4", "a", "unsure"), label("4", "b", "compliant"),
        label("5", "a", "error"), label("5", "b", "violation"),
    ]  # fmt: skip
    applies, missing = ratings(marks, "applies")
    assert missing == 2 and applies.values.tolist() == [0, 1] and applies.annotators == ("a", "b")
    assert sorted(map(sorted, applies.codes.tolist())) == sorted([[1, 1], [0, 1], [0, 0], [-1, 1], [-1, 1]])
    kept, missing = ratings(marks, "kept")
    assert missing == 2 and sorted(map(sorted, kept.codes.tolist())) == sorted([[0, 1], [-1, 1], [-1, 1], [-1, 0]])
    rows = table(marks, resamples=50)
    assert [(r.question, r.items, r.marks) for r in rows] == [("applies", 3, 8), ("kept", 1, 5)]
    # Applies: coincidences of the three pairs (1,1) (0,1) (0,0): alpha = 1 - 5 x 2 / (2 x 3 x 3).
    assert rows[0].alpha.value == pytest.approx(1 - 5 * 2 / 18) and rows[0].raw == pytest.approx(2 / 3)
    # Margins (2/3, 1/3) and (1/3, 2/3).
    assert rows[0].kappa is not None and rows[0].kappa.value == pytest.approx((2 / 3 - 4 / 9) / (1 - 4 / 9))


def test_the_last_revision_counts() -> None:
    marks = [label("1", "a", "violation", revision=1), label("1", "a", "compliant"), label("1", "b", "violation")]
    assert table(marks, resamples=0)[0].raw == 1.0


@pytest.mark.parametrize("people", [2, 4])
def test_counted_marks_give_the_same_table_as_the_marks(people: int) -> None:
    """Numbers, intervals and words: equal kinds in an equal order are resampled by equal draws."""
    dice = random.Random(people)
    verdicts = ["compliant"] * 6 + ["violation"] * 3 + ["not_applicable", "unsure", "error"]
    marks, counted = [], Counter[tuple[tuple[str, str, str], str]]()
    for n in range(300):
        where = {"rule": dice.choice(["form.brief", "style.polite"]), "language": dice.choice(["en", "zh-Hans"])}
        said = {who: dice.choice(verdicts) for who in sorted(dice.sample("dcba"[:people], dice.randint(2, people)))}
        marks += [label(str(n), who, verdict, **where) for who, verdict in said.items()]
        counted[(where["rule"], "h", where["language"]), json.dumps(said)] += 1
    found = table_of_counts([(group, json.loads(said), n) for (group, said), n in counted.items()], resamples=300)
    for one, other in zip(found, table(marks, resamples=300), strict=True):  # sums in another order differ in the last digit
        for name, value in one.json().items():
            assert value == pytest.approx(other.json()[name], abs=1e-12), (one, name)


def test_languages_and_meanings_are_apart() -> None:
    marks = [label(str(n), who, "compliant", **more) for n in range(3) for who in "ab"
             for more in ({}, {"language": "zh-Hans"}, {"rule_hash": "k"}, {"rule": "other"})]  # fmt: skip
    assert [(r.rule, r.rule_hash, r.language) for r in table(marks, resamples=0)] == [
        ("other", "h", "en"), ("style.polite", "h", "en"), ("style.polite", "h", "zh-Hans"), ("style.polite", "k", "en"),
    ]  # fmt: skip


def marks_of(pairs: list[tuple[str, str]]) -> list[Label]:
    return [label(str(n), who, verdict) for n, pair in enumerate(pairs) for who, verdict in zip("ab", pair, strict=True)]


def words(pairs: list[tuple[str, str]]) -> str:
    return table(marks_of(pairs), ("kept",), resamples=400)[0].words


def test_words() -> None:
    yes, no = "compliant", "violation"
    assert words([(yes, yes)] * 8 + [(no, no)] * 4).startswith("too few: 12 items with two marks, and 30")
    assert words([(yes, yes)] * 100).startswith("every mark is the same in 100 items")
    assert words([(yes, yes)] * 200 + [(no, no)] * 190 + [(yes, no)] * 10) == "reliable"
    assert words([(yes, yes)] * 994 + [(yes, no)] * 3 + [(no, yes)] * 3).startswith("skewed (99.7% of marks alike)")
    assert words([(yes, yes)] * 150 + [(no, no)] * 150 + [(yes, no)] * 150 + [(no, yes)] * 150).startswith("not reliable")
    assert words([(yes, yes)] * 20 + [(no, no)] * 20 + [(yes, no)] * 10).startswith("too few: about ")
    assert words([(yes, yes)] * 900 + [(no, no)] * 800 + [(yes, no)] * 200).startswith("good enough")
    nothing = Interval(math.nan, math.nan, math.nan, 0)
    assert in_words(nothing, nothing, math.nan, ratings([], "kept")[0].counts).startswith("no item has two marks")


@pytest.mark.parametrize("pair", [("unsure", "compliant"), ("unsure", "unsure"), ("not_applicable", "compliant")])
def test_marks_that_cannot_be_compared_yet_are_said_to_be_none(pair: tuple[str, str]) -> None:
    counts = [(("style.polite", "h", "en"), dict(zip("ab", pair, strict=True)), 1)]
    (counted,) = (r for r in table_of_counts(counts) if r.question == "kept")
    (row,) = table(marks_of([pair]), ("kept",))
    assert row.items == counted.items == 0 and math.isnan(row.alpha.value) and math.isnan(row.raw)
    assert row.words == counted.words and row.words.startswith("no item has two marks")


def test_skewed_marks_give_the_published_numbers() -> None:
    (row,) = table(marks_of([("compliant", "compliant")] * 994 + [("compliant", "violation")] * 3 + [("violation", "compliant")] * 3),
                   ("kept",), resamples=200)  # fmt: skip
    assert row.kappa is not None
    assert (round(row.raw, 3), round(row.kappa.value, 3), round(row.ac1.value, 3)) == (0.994, -0.003, 0.994)
    assert row.ac1.low > 0.985 and row.json()["kappa"]["value"] == row.kappa.value


def test_annotators_are_told_apart() -> None:
    values = random.Random(2)
    marks = []
    for n in range(150):
        truth = values.random() < 0.5
        for who, right in (("careful", 0.95), ("steady", 0.9), ("hasty", 0.55)):
            said = truth if values.random() < right else not truth
            marks.append(label(str(n), who, "compliant" if said else "violation"))
    found = annotators(marks)
    assert found[0].annotator == "hasty" and {a.annotator for a in found} == {"careful", "steady", "hasty"}
    assert found[0].sees_kept + found[0].sees_broken < 1.4 < min(a.sees_kept + a.sees_broken for a in found[1:])


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert invoke([str(a) for a in arguments]) == 0
    return capsys.readouterr().out


def test_from_a_crowd_to_training_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = random.Random(0)
    crowd = tmp_path / "crowd.csv.gz"
    with gzip.open(crowd, "wt", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["id", "text", "p1", "p2", "w1", "w2"])
        for n in range(80):
            level = values.choice([2, 8])
            writer.writerow([n, f"Answer {n}, please.", *(min(10, max(1, level + values.randint(-2, 2))) for _ in "ab"), "ann", "bob"])
    store = tmp_path / "l.sqlite"
    columns = "item=id,response=text,score=p*,annotator=w*"
    imported = run(capsys, "label", "import", store, crowd, "--rule", "style.polite", "--spec", SPEC, "--map", columns, "--scale", "1:10")
    assert "160 of 160 marks were new" in imported
    assert "0 of 160 marks were new" in run(
        capsys, "label", "import", store, crowd, "--rule", "style.polite", "--spec", SPEC, "--map", columns, "--scale", "1:10"
    )
    printed = run(capsys, "label", "agree", store, "--resamples", 100, "--consensus")
    assert "style.polite" in printed and "reliable" in printed and "Dawid and Skene" in printed
    # A file says the same as the store.
    asked = ("label", "agree", crowd, "--rule", "style.polite", "--map", columns, "--scale", "1:10", "--on", "score", "--resamples", 50)
    told = json.loads(run(capsys, *asked, "--json"))["agreement"][0]
    again = json.loads(run(capsys, "label", "agree", store, "--on", "score", "--resamples", 50, "--json"))["agreement"][0]
    assert (told["alpha"], told["metric"]) == (again["alpha"], "interval")
    with pytest.raises(NormaError, match="are for files"):
        invoke(["label", "agree", str(store), "--threshold", "0.7"])
    # Out to a tool and back into another store: nothing is lost that the tool can hold.
    for name, tool in (("x.json", "label-studio"), ("y.json", "argilla"), ("z.csv", "csv"), ("n.jsonl", "norma")):
        out = run(capsys, "label", "export", store, tmp_path / name, "--format", tool)
        assert ("cannot hold 'score'" in out) == (tool in ("label-studio", "argilla"))
        run(capsys, "label", "import", tmp_path / f"{name}.sqlite", tmp_path / name)
        with LabelStore(tmp_path / f"{name}.sqlite") as there, LabelStore(store) as here:
            assert {(m.key, m.verdict) for m in there.rows()} == {(m.key, m.verdict) for m in here.rows()}
    assert "rows of 160 marks" in run(capsys, "label", "export", store, tmp_path / "c.jsonl", "--format", "classifier")
    # A queue, its marks, and the audit stream's rate.
    with LabelStore(store) as opened:
        checker = {"source": "checker", "annotator": "checker:x", "rule_hash": Spec.load(SPEC, checkers=False).rule("style.polite").hash}
        opened.add([label(f"new{n}", verdict="violation", response=f"r{n}", score=n / 40, **checker) for n in range(40)])
    out = run(capsys, "label", "queue", store, "--count", 20, "--output", tmp_path / "q.jsonl")
    assert "20 of 120 answers: 6 uniform, 8 uncertain, 4 rare, 2 diverse" in out
    rows = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 20 and "audit stream, style.polite:" in run(capsys, "label", "queue", store, "--count", 0)
    # Marked by hand in that file, and brought in: queue and probability come along.
    done = [json.dumps(row | {"annotator": "cat", "verdict": "violation"}) + "\n" for row in rows]
    (tmp_path / "done.jsonl").write_text("".join(done), encoding="utf-8")
    assert "20 of 20 marks were new" in run(capsys, "label", "import", store, tmp_path / "done.jsonl")
    with LabelStore(store) as opened:
        marked = opened.rows(annotator="cat")
    assert {(m.queue, m.inclusion_probability) for m in marked} == {
        ("uniform", 6 / 120),
        ("uncertain", None),
        ("rare", None),
        ("diverse", None),
    }
    printed = run(capsys, "label", "queue", store, "--count", 0)
    assert "6 of 6 drawn answers marked" in printed
    assert "last draw" not in printed
    assert "9 uniform" in run(capsys, "label", "queue", store, "--count", 30, "--output", tmp_path / "q2.jsonl")
    printed = run(capsys, "label", "queue", store, "--count", 0)
    assert "(last draw alone)" in printed and "of 15 drawn answers marked" in printed
    with pytest.raises(NormaError, match="there is no label store here"):
        invoke(["label", "export", str(tmp_path / "no.sqlite"), str(tmp_path / "o")])


def test_preference_rows_need_and_keep_the_acceptance_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"prompt": "What does `f.g` do?", "chosen": "Certainly: `f.g` adds numbers.", "rejected": "`f.g` adds numbers."},
        {"prompt": "What does `h.k` do?", "chosen": "Certainly: whatever you want it to do, dear friend of mine", "rejected": "`h.k` is."},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    store = tmp_path / "l.sqlite"
    asked = (
        "label",
        "import",
        store,
        tmp_path / "p.jsonl",
        "--rule",
        "style.polite",
        "--spec",
        SPEC,
        "--language",
        "en",
        "--annotator",
        "ann",
    )
    assert "4 of 4 marks were new, 2 of 2 inputs" in run(capsys, *asked)
    out = run(capsys, "label", "export", store, tmp_path / "out.jsonl", "--format", "preference", "--spec", SPEC)
    assert "1 rows" in out and "left out: 1 x" in out
    (row,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert row["chosen"][0]["content"] == rows[0]["chosen"] and row["prompt"][0]["content"] == rows[0]["prompt"]
    run(capsys, "label", "export", store, tmp_path / "k.jsonl", "--format", "kto")
    kto = [json.loads(line) for line in (tmp_path / "k.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sorted(r["label"] for r in kto) == [False, False, True, True]


@pytest.mark.slow
def test_the_politeness_marks() -> None:
    """11,000 requests with five marks each; alpha beside the peer library's."""
    given = os.environ.get("NORMA_TEST_DATA")
    folder = (Path(given) if given else Path(__file__).resolve().parents[3] / "shared" / "data") / "politeness_stanford"
    if not folder.is_dir():
        pytest.skip("no politeness_stanford here: set NORMA_TEST_DATA to a folder that holds it")
    import numpy as np

    from norma.labels.formats.batch import Reading
    from norma.labels.formats.files import read

    peer = pytest.importorskip("krippendorff")
    columns = {"item": "Community+Id", "response": "Request", "annotator": "TurkId*", "score": "Score*"}
    labels = read(folder / "wikipedia.csv.gz", Reading(rule="style.polite", scale=(1, 25), language="en"), columns=columns).labels
    assert len(labels) == 4353 * 5
    (row,) = table(labels, ("score",), metric="interval", resamples=20)
    with gzip.open(folder / "wikipedia.csv.gz", "rt", encoding="utf-8", newline="") as handle:
        scores = np.array([[float(r[f"Score{n}"]) for n in range(1, 6)] for r in csv.DictReader(handle)])
    assert row.alpha.value == pytest.approx(peer.alpha(scores.T, level_of_measurement="interval"), abs=1e-9)
