"""report.json obeys its schema, is reproducible and finite; the page escapes everything; junit and terminal tables say the same."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from io import StringIO
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from norma.base.errors import NormaError
from norma.evaluate.junit import junit_xml, outcome
from norma.evaluate.report import build_report, render_html, terminal_table
from norma.evaluate.report import figures as f
from norma.evaluate.report.page import findings, headline, highlight
from norma.evaluate.report.terminal import rules_table

EVIL = "<script>alert(1)</script>\"'&[bold]"


@pytest.fixture(scope="session")
def page(report: dict[str, Any]) -> str:
    return render_html(report)


def test_schema(report: dict[str, Any], schema: Any) -> None:
    jsonschema.validate(report, schema)
    json.dumps(report, allow_nan=False)


def test_smallest_report(make: SimpleNamespace, schema: Any) -> None:
    """`norma check` of one model: no baseline, no references, no extras."""
    responses = [{"method": "m", "item": "q", "cluster": "q", "language": "en", "messages": [], "response": "x", "reference": None}]
    found = build_report(responses, [make.verdict("m", "q", "form.full_stop", "report", "error")], {}, make.spec())
    jsonschema.validate(found, schema)
    assert found["methods"][0]["overall"]["rate"] is None and found["settings"]["under_test"] == ["m"]
    assert "<h1>" in render_html(found) and terminal_table(found).row_count == 1
    assert 'errors="6"' in junit_xml(found)


def test_same_input_same_bytes(study: Any, report: dict[str, Any], make: SimpleNamespace) -> None:
    again = build_report(*study, make.extras(), make.spec())
    assert json.dumps(again) == json.dumps(report)


def test_what_the_study_was_made_to_show(report: dict[str, Any]) -> None:
    overall = {c["after"]: c for c in report["comparisons"] if c["family"] == "overall"}
    assert overall["reward"]["low"] > 0.1 and overall["correct"]["low"] > 0 and overall["reward"]["p_holm"] < 0.01
    assert report["claim"] == {"seeds": 1, "about": "checkpoint"}
    assert report["hack_verdict"] == "alarm"
    assert [(g["rule"], g["after"]) for g in report["hack_gap"] if g["verdict"] == "alarm"] == [("style.polite_opening", "reward")]
    kept = {row["after"]: row["kept"] for row in report["retention"] if row["rule"] is None}
    assert kept["task"] < kept["task_replay"] <= 1.01
    assert {row["family"] for row in report["retention"]} == {"retention"}
    assert any(e["kind"] == "disputed" for e in report["examples"])


def test_nan_becomes_null(study: Any, make: SimpleNamespace, schema: Any) -> None:
    extras = make.extras() | {"kl": {"reward": math.nan}}
    extras["training"][1]["curves"][0]["values"][5] = math.inf
    found = build_report(*study, extras, make.spec())
    jsonschema.validate(found, schema)
    assert next(m["kl"] for m in found["methods"] if m["method"] == "reward") is None
    assert found["training"][1]["curves"][0]["values"][5] is None
    assert "NaN" not in render_html(found)


def test_unknown_method_is_named(study: Any, make: SimpleNamespace) -> None:
    with pytest.raises(NormaError, match=r"'rewrd', which has no verdicts\. Did you mean 'reward'"):
        build_report(*study, make.extras() | {"pairs": [("instruct", "rewrd")]}, make.spec())
    with pytest.raises(NormaError, match="no verdicts"):
        build_report([], [], {}, make.spec())


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts = 0
        self.links: list[str] = []
        self.lang: dict[str, int] = {"en": 0, "zh": 0}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.scripts += tag == "script" and known.get("type") != "application/json"
        self.links += [v for k in ("href", "src") if (v := known.get(k))]
        if known.get("class") in self.lang:
            self.lang[str(known["class"])] += 1
        if tag not in ("meta", "br", "path", "link", "i", "option"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("i", "path", "option"):
            assert self.open.pop() == tag


def test_page_is_whole_and_alone(page: str) -> None:
    reader = Reader()
    reader.feed(page)
    assert reader.open == [] and reader.scripts == 1
    assert all(link.startswith("#") for link in reader.links)  # no network
    assert "http://" not in page and "https://" not in page
    assert reader.lang["en"] == reader.lang["zh"] > 100
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_page_holds_what_a_sceptic_needs(page: str, report: dict[str, Any]) -> None:
    for text in ("Holm", "McNemar", "One training seed", "训练种子数为 1", "too few", "数据太少", "Wilson", "Non-inferior", "最常见的摘要"):
        assert text in page
    assert report["spec"]["digest"][:16] in page and "torch" in page
    assert f"{report['methods'][0]['overall']['clusters']}" in page


def test_a_headline_needs_interval_and_holm(report: dict[str, Any]) -> None:
    names = {m["method"]: m["label"] for m in report["methods"]}

    def told(**changed: float) -> tuple[str, list[str]]:
        rows = [c | changed if c["family"] == "overall" else c for c in report["comparisons"]]
        made = report | {"comparisons": rows}
        return headline(made, names)[0], [en for en, _ in findings(made, names)]

    assert told()[0].startswith("Reward modelling raised compliance from ")
    doubtful, lines = told(delta=-0.05, low=-0.1, high=-0.01, p_holm=0.5)
    assert doubtful.startswith("No method changed") and "Holm's p does not agree" in lines[0]
    assert told(delta=0.05, low=-0.01, high=0.1, p_holm=0.01)[0].startswith("No method changed")
    assert " keeps fewer rules than instructed: " in told(delta=-0.05, low=-0.1, high=-0.01, p_holm=0.01)[0]


def test_every_number_opens_what_it_was_made_of(page: str, report: dict[str, Any]) -> None:
    """The data in the page and the numbers on it agree: for every figure that can be clicked, the marks count up to it."""
    data = json.loads(page.split('<script type="application/json" id="items">')[1].split("</script>")[0])
    assert data["total"] == len(data["questions"]) == report["data"]["questions"]
    marks = {(row["method"], row["role"], row["rule"]): row["marks"] for row in data["marks"]}
    for method in report["methods"]:
        for row in method["rules"]:
            found = marks[method["method"], "report", row["rule"]]
            assert found.count("k") == row["compliant"] and found.count("e") == row["error"]
            assert len(found) - found.count("n") - found.count(".") == row["applicable"]
            assert f'data-method="{method["method"]}" data-rule="{row["rule"]}" data-role="report"' in page
    told = next(row for row in data["marks"] if row["rule"] == "style.polite_opening" and row["role"] == "report")
    assert all(row[0] < data["total"] for row in told["told"]) and any(row[2] for row in told["told"])


def test_more_questions_than_a_page_holds_are_drawn_fairly(make: SimpleNamespace, study: Any) -> None:
    from norma.evaluate.report.items import pack_items

    responses, verdicts = study
    packed = pack_items(responses, verdicts, ["base"], ["form.full_stop"], limit=25, seed=3)
    assert packed["total"] == 180 and len(packed["questions"]) == 25 == len(packed["answers"][0]["texts"])
    assert packed == pack_items(responses, verdicts, ["base"], ["form.full_stop"], limit=25, seed=3)
    assert (
        len({q["item"] for q in packed["questions"]} & {q["item"] for q in pack_items(responses, verdicts, [], [], limit=25)["questions"]})
        < 25
    )


def test_everything_is_escaped(make: SimpleNamespace, study: Any) -> None:
    responses, verdicts = study
    evil = [r | {"response": EVIL, "messages": [{"role": "user", "content": EVIL}]} for r in responses]
    spoiled = [v | {"note": EVIL, "checker": EVIL, "evidence": [[2, 8], [5, 12], [-3, 1], [30, 9999]]} for v in verdicts]
    rules = [make.rule(r.id, {"en": EVIL, "zh-Hans": EVIL}, r.target) for r in make.spec().rules]
    extras = make.extras() | {
        "labels": {"reward": {"en": EVIL, "zh": EVIL}},
        "run": {EVIL: EVIL},
        "limits": [{"en": EVIL, "zh": EVIL}],
        "lineage": [{"stage": EVIL, "digest": EVIL}],
    }
    found = build_report(evil, spoiled, extras, make.spec(id=EVIL, rules=tuple(rules)))
    text = render_html(found)
    assert text.count("<script>") == 1 and "alert(1)</script>" not in text and text.count("</script") == 2  # the page's, and its data
    Reader().feed(text)
    ElementTree.fromstring(junit_xml(found))
    console = Console(width=200, record=True, file=StringIO())
    console.print(terminal_table(found))
    assert "[bold]" in console.export_text()  # names cannot smuggle markup in


@given(st.text(max_size=30), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=4))
def test_highlight_keeps_the_text(text: str, pieces: list[tuple[int, int]]) -> None:
    from norma.evaluate.report.examples import cut_spans

    marked = highlight(text, cut_spans(pieces, len(text)))
    assert marked.replace("<mark>", "").replace("</mark>", "").unescape() == text


def test_junit(report: dict[str, Any]) -> None:
    root = ElementTree.fromstring(junit_xml(report))
    suites = {s.get("name"): s for s in root}
    assert set(suites) == {"prompt", "correct", "reward"} and root.get("tests") == "18"  # six target rules each
    polite = next(c for c in suites["prompt"] if c.get("name") == "style.polite_opening")
    failure = polite.find("failure")
    assert failure is not None and "target 0.9" in str(failure.get("message"))
    passed = next(c for c in suites["reward"] if c.get("name") == "content.names_module")
    assert passed.find("failure") is None
    only = ElementTree.fromstring(junit_xml(report, methods=["base"], gate="lower"))
    assert int(str(only.get("failures"))) + int(str(only.get("errors"))) == 6


def test_junit_outcomes() -> None:
    row = {"rate": 0.96, "low": 0.91, "high": 0.99}
    assert [outcome(row, t) for t in (0.9, 0.95, 0.97)] == ["passed", "passed", "failed"]
    assert [outcome(row, t, "lower") for t in (0.9, 0.95, 0.995)] == ["passed", "undecided", "failed"]
    assert outcome({"rate": None, "low": None, "high": None}, 0.5) == "undecided"


def test_terminal_tables_fit_80_columns(report: dict[str, Any]) -> None:
    console = Console(width=80, record=True, file=StringIO())
    console.print(terminal_table(report))
    console.print(rules_table(report))
    text = console.export_text()
    assert "…" not in text and "reward" in text and "style.polite_opening" in text
    assert f.percent(report["methods"][0]["overall"]["rate"], unit=False) in text


def test_figures_by_hand() -> None:
    assert [f.percent(v) for v in (None, 0.0, 1.0, 0.9999, 0.00001, 0.943)] == ["–", "0%", "100%", "99.9%", "0.1%", "94.3%"]
    assert [f.points(v) for v in (0.392, -0.05, 0.0, -0.00001)] == ["+39.2", "−5.0", "0.0", "0.0"]
    assert [f.p_value(v) for v in (1.0, 0.04, 0.5, 0.00015, 1e-12)] == ["1", "0.040", "0.50", "1.5e−4", "1.0e−12"]
    assert f.ticks(0, 1, 5) == [0.0, 0.5, 1.0] and f.ticks(-0.13, 0.31) == [-0.2, 0.0, 0.2, 0.4]
    assert f.place(0.25, 0, 1) == 25 and f.place(7, 0, 1) == 100
    assert f.polyline([0, 1, 2, 3], [0, None, 1, 0.5], [0, 3], [0, 1]).count("M") == 2


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_cover(low: float, span: float) -> None:
    found = f.ticks(low, low + span)
    assert found[0] <= low + 1e-6 * max(span, abs(low)) and found[-1] >= low + span - 1e-6 * max(span, abs(low)) and len(found) <= 12
