"""What people preferred, rewrote and marked: every shape by hand, and the real sets where they are."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from norma.align.marked import corrected_pairs, dominance_pairs, lead, mark_rows, marked_answers
from norma.align.people import Made, Reading, Table, people_rows
from norma.base.errors import NormaError
from norma.labels import Label
from norma.spec import Item, Spec, Status
from norma.text.formats import Record
from norma.text.quarantine import Quarantine
from norma.text.readers import read


def rows(*fields: dict[str, Any], reading: Reading | None = None) -> tuple[list[Made], Quarantine]:
    quarantine = Quarantine()
    records = [Record("file.jsonl", n, f) for n, f in enumerate(fields, 1)]
    return list(people_rows(records, reading or Reading(), quarantine)), quarantine


def of(made: list[Made], kind: str) -> list[dict[str, Any]]:
    return [m.row for m in made if m.kind == kind]


# ── the shapes that TRL reads ──
@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "Why?", "chosen": "So.", "rejected": "No."},
        {"prompt": [{"role": "user", "content": "Why?"}], "chosen": [{"role": "assistant", "content": "So."}], "rejected": "No."},
        {
            "chosen": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}],
            "rejected": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "No."}],
        },
        {"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
        {"text": ["\n\nHuman: Why?\n\nAssistant: No.", "\n\nHuman: Why?\n\nAssistant: So."], "score": [0.1, 0.9]},
        {"instruction": "Why?", "input": "", "output": ["So.", "Hm.", "No."]},
        {"conversations": [{"from": "human", "value": "Why?"}], "chosen": {"role": "assistant", "content": "So."}, "rejected": "No."},
    ],
    ids=["standard", "conversational", "implicit prompt", "dialogues", "scored dialogues", "ranked outputs", "sharegpt"],
)
def test_pairs_of_every_shape(fields: dict[str, Any]) -> None:
    made, quarantine = rows(fields)
    assert not len(quarantine), quarantine.first
    (pair,) = of(made, "pairs")
    assert pair["messages"] == [{"role": "user", "content": "Why?"}] and (pair["chosen"], pair["rejected"]) == ("So.", "No.")
    (said,) = of(made, "conversations")
    assert said["messages"] == [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]


def test_marks_and_plain_answers() -> None:
    made, _ = rows({"prompt": "Why?", "completion": "So.", "label": True}, {"prompt": "Who?", "completion": "No.", "label": False})
    assert [(m["answer"], m["desirable"], m["marked_by"]) for m in of(made, "marks")] == [("So.", True, "human"), ("No.", False, "human")]
    assert len(of(made, "conversations")) == 1, "what is marked bad is nobody's example"
    made, _ = rows({"prompt": "Why?", "completion": "So."})
    assert [m.kind for m in made] == ["conversations"]
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    made, _ = rows({"messages": chat})
    assert of(made, "conversations")[0]["messages"] == chat[:2], "it ends with the assistant"


def test_bad_rows_are_set_aside_with_their_line() -> None:
    good = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}
    several = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]
    made, quarantine = rows(good, {**good, "rejected": "So."}, {**good, "chosen": ""}, {**good, "chosen": several}, {"other": 3})
    assert len(of(made, "pairs")) == 1
    found = {line: reason for _, line, reason in quarantine.first}
    assert set(found) == {2, 3, 4, 5}
    assert "the same" in found[2] and "several turns" in found[4]


# ── tables ──
def test_rewrites() -> None:
    made, quarantine = rows(
        {"toxic": "he is an idiot", "neutral1": "He is not clever.", "neutral2": "", "neutral3": "He errs."},
        {"toxic": "fine", "neutral1": "fine", "neutral2": "", "neutral3": ""},
        {"toxic": " ", "neutral1": "x", "neutral2": "", "neutral3": ""},
    )
    pairs = of(made, "pairs")
    assert [(p["chosen"], p["rejected"]) for p in pairs] == [("He is not clever.", "he is an idiot"), ("He errs.", "he is an idiot")]
    assert all("he is an idiot" in p["messages"][0]["content"] for p in pairs) and len({p["id"] for p in pairs}) == 2
    assert len({m.group for m in made}) == 1, "the rewrites of one text stand on one side"
    assert [reason for _, _, reason in quarantine.first] == ["no rewrite that differs from the original", "'toxic' is empty"]


def test_labels_scores_and_templates() -> None:
    bad, good = {"topic": "race", "label": "1", "TEXT": "这句话很难听"}, {"topic": "x", "label": "0", "TEXT": "你好"}
    made, _ = rows(bad, good)
    marks = of(made, "marks")
    assert [(m["answer"], m["desirable"], m["language"]) for m in marks] == [("这句话很难听", False, "zh"), ("你好", True, "zh")]
    assert "请" in marks[0]["messages"][0]["content"], "a Chinese prompt for Chinese text"
    reading = Reading(band=0.5, rule="style.polite", prompts={"en": "Ask."})
    made, quarantine = rows(*({"Request": f"Text {s}", "Normalized Score": s} for s in ("-1", "0.2", "0.7", "nan")), reading=reading)
    marks = of(made, "marks")
    assert [(m["score"], m["desirable"], m["rules"]) for m in marks] == [
        (-1.0, False, {"style.polite": False}),
        (0.7, True, {"style.polite": True}),
    ]
    assert marks[0]["messages"] == [{"role": "user", "content": "Ask."}] and len(quarantine) == 2


def test_a_table_of_ones_own() -> None:
    table = Table({"text": "said", "label": "how"}, desirable=("kind", "neutral"))
    made, _ = rows({"said": "Hi.", "how": "kind"}, {"said": "Go.", "how": "rude"}, reading=Reading(table))
    assert [m["desirable"] for m in of(made, "marks")] == [True, False]
    for wrong, why in (
        (Table({"text": "said", "label": "hows"}, ("kind",)), "no column 'hows'"),
        (Table({"text": "said", "label": "how"}), "which labels are the desirable ones"),
        (Table({"text": "said", "score": "how"}), "from which score"),
        (Table({"text": "said"}), "no table of pairs or marks"),
        (Table({"txt": "said"}), "'txt' is nothing that a column can be"),
    ):
        with pytest.raises(NormaError, match=why):
            rows({"said": "Hi.", "how": "kind"}, reading=Reading(wrong))
    with pytest.raises(NormaError, match="neither chats nor marks"):
        rows({"a": 1, "b": 2})


# ── the label store ──
def item(name: str = "q") -> Item:
    return Item(name, ({"role": "user", "content": "What does `json.dumps` do?\nEntry: `json.dumps(obj)`\nThe result is a str."},), "en")


def label(response: str, rule: str, verdict: str, source: str = "checker", name: str = "q", **more: Any) -> Label:
    return Label(name, response, rule, "", f"{source}:a", verdict, source=source, **more)


def test_desirable_undesirable_and_dropped() -> None:
    """Desirable where all active rules comply, undesirable where one is violated, dropped where one is in doubt."""
    labels = [
        label("all", "a", "compliant"),
        label("all", "b", "compliant"),
        label("one broken", "a", "compliant"),
        label("one broken", "b", "violation"),
        label("in doubt", "a", "compliant"),
        label("in doubt", "b", "unsure"),
        label("an error", "a", "error"),
        label("broken and in doubt", "a", "violation"),
        label("broken and in doubt", "b", "unsure"),
        label("lost", "a", "compliant", name="unknown"),
    ]
    found = marked_answers(labels, {"q": item()})
    assert {a.text: a.desirable for a in found.answers} == {
        "all": True,
        "one broken": False,
        "in doubt": None,
        "an error": None,
        "broken and in doubt": False,
    }
    assert found.left_out == Counter({"its input is not in the store": 1})
    got = {r["answer"]: r for r in mark_rows(found, {("q", "all"): 0.8}, cut={("q", "all")})}
    assert set(got) == {"all", "one broken", "broken and in doubt"}
    assert got["one broken"]["rules"] == {"a": True, "b": False} and got["one broken"]["marked_by"] == "checker"
    assert got["all"]["score"] == 0.8 and got["all"]["desirable"] is False, "an answer that was cut off is no example"


def test_a_rule_that_is_active_must_be_decided(spec: Spec) -> None:
    """Once a rule is marked anywhere, an answer without a verdict on it is no example where the rule is active."""
    active = spec.resolve(item()).active[:2]
    marks = [label("both", r, "compliant") for r in active] + [label("one", active[0], "compliant")]
    marks = [replace(m, rule_hash=spec.rule(m.rule).hash) for m in marks]
    found = {a.text: a.desirable for a in marked_answers(marks, {"q": item()}, spec).answers}
    assert found == {"both": True, "one": None}
    stale = marked_answers([replace(marks[0], rule_hash="of another meaning")], {"q": item()}, spec)
    assert not stale.answers and sum(stale.left_out.values()) == 1


def test_people_come_before_checkers() -> None:
    bad = label("x", "a", "violation")
    labels = [bad, replace(bad, annotator="checker:b"), label("x", "a", "compliant", "human")]
    (answer,) = marked_answers(labels, {"q": item()}).answers
    assert answer.rules == {"a": Status.COMPLIANT} and answer.marked_by == "human"
    (answer,) = marked_answers([*labels[:2], label("x", "a", "unsure", "human")], {"q": item()}).answers
    assert answer.rules == {"a": Status.VIOLATION} and answer.marked_by == "checker", "a person in doubt has not decided"


def test_dominance() -> None:
    def marked(text: str, a: str, b: str) -> list[Label]:
        return [label(text, "a", a), label(text, "b", b)]

    yes, no = "compliant", "violation"
    answers = [*marked("best", yes, yes), *marked("left", yes, no), *marked("right", no, yes), *marked("worst", no, no)]
    found = marked_answers(answers, {"q": item()})
    by_text = {a.text: a for a in found.answers}
    assert lead(by_text["left"], by_text["right"]) == 0 == lead(by_text["right"], by_text["left"]), "neither is better under every rule"
    pairs = {p["rejected"]: (p["chosen"], p["margin"]) for p in dominance_pairs(found)}
    assert pairs == {"left": ("best", 1.0), "right": ("best", 1.0), "worst": ("best", 2.0)}


def test_corrections_of_people(spec: Spec) -> None:
    rule = spec.rule("form.full-stop")
    bad, good = "Certainly: `json.dumps` writes an object as text", "Certainly: `json.dumps` writes an object as text."
    marks = [replace(label(bad, rule.id, "violation", "human"), corrected=good, rule_hash=rule.hash)]
    rows_, why = corrected_pairs(marks, {"q": item()}, spec)
    assert [(r["chosen"], r["rejected"], r["marked_by"]) for r in rows_] == [(good, bad, "human")] and not why
    worse = [replace(marks[0], corrected="No, I do not tell you what it writes.")]
    rows_, why = corrected_pairs(worse, {"q": item()}, spec)
    assert rows_ == [] and sum(why.values()) == 1


# ── the real sets ──
DATA = Path(os.environ.get("NORMA_TEST_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


@pytest.mark.parametrize(
    ("name", "kinds", "least", "languages"),
    [
        ("hh_rlhf_test/helpful.json.gz", {"pairs", "conversations"}, 2300, {"en"}),
        ("hh_rlhf_test/harmless.json.gz", {"pairs", "conversations"}, 2250, {"en"}),
        ("paradetox/paradetox.tsv.gz", {"pairs", "conversations"}, 11000, {"en"}),
        ("chat_prefs/dpo_zh_demo.json.gz", {"pairs", "conversations"}, 295, {"en", "zh"}),
        ("chat_prefs/kto_en_demo.json.gz", {"marks", "conversations"}, 295, {"en"}),
        ("chat_prefs/oaast_rm_zh.json.gz", {"pairs", "conversations"}, 700, {"en", "zh"}),
        ("cold_zh/dev.csv.gz", {"marks", "conversations"}, 6400, {"zh"}),
        ("politeness_stanford/wikipedia.csv.gz", {"marks", "conversations"}, 4340, {"en"}),
        ("politeness_multilingual/chinese_val.csv.gz", {"marks", "conversations"}, 565, {"zh"}),
    ],
)
def test_real_sets(name: str, kinds: set[str], least: int, languages: set[str]) -> None:
    if not (DATA / name).is_file():
        pytest.skip(f"no {name} here: set NORMA_TEST_DATA to a folder that holds it")
    quarantine = Quarantine()
    made = list(people_rows(read(DATA / name, quarantine), Reading(), quarantine))
    counts = Counter(m.kind for m in made)
    first = "marks" if "marks" in kinds else "pairs"
    assert set(counts) == kinds and counts[first] >= least, (counts, quarantine.reasons)
    assert len(quarantine) < 0.05 * counts[first]
    shown = Counter(m.row["language"] for m in made)
    assert {language for language, n in shown.items() if n > 0.02 * len(made)} <= languages
    for m in made:
        assert m.row["messages"] and m.group.strip()
        if m.kind == "pairs":
            assert m.row["chosen"] != m.row["rejected"] and m.row["messages"][-1]["role"] == "user"
        json.dumps(m.row, ensure_ascii=False).encode()
