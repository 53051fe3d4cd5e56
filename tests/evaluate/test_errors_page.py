"""The error browser: what the model and people wrote is escaped, the worst come first, figures are those of the scores."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from norma.evaluate.report.curves import curve_svg
from norma.evaluate.report.errors import render_errors

BAD = "<img src=x onerror=alert(1)>"


def labels_page() -> str:
    rate = {"rate": 0.5, "low": 0.1, "high": 0.9, "n": 4}
    scores = {
        "shape": "labels", "measured_on": "test", "rows": 4, "accuracy": rate, "macro_f1": rate, "confusion": [[1, 1], [1, 1]],
        "labels": [{"label": "good", "f1": 0.5}, {"label": BAD, "f1": 0.25}],
        "calibration": {"temperature": 1.5, "error_before": 0.2, "error_after": 0.1, "bins": [{"n": 4, "confidence": 0.7, "accuracy": 1}]},
    }  # fmt: skip
    rows = [
        {"id": "a", "text": "right", "label": "good", "predicted": "good", "probability": 0.9, "right": 0.9},
        {"id": "b", "text": "nearly", "label": "good", "predicted": BAD, "probability": 0.6, "right": 0.4},
        {"id": "c", "text": f"worst {BAD}", "label": BAD, "predicted": "good", "probability": 0.99, "right": 0.01},
    ]
    return render_errors(scores, rows, title=f"sst2 {BAD}")


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


def test_what_models_write_is_escaped() -> None:
    parser = Elements()
    parser.feed(labels_page())
    assert "img" not in parser.names and parser.names.count("script") == 1


def test_the_worst_come_first_and_what_is_right_is_left_out() -> None:
    page = labels_page()
    order = re.findall(r"<p>(worst|nearly|right)", page)
    assert order == ["worst", "nearly"] and "2 of 3 rows" in page and "3 行中有 2 行" in page


def test_answers_tokens_and_texts() -> None:
    scores = {"measured_on": "test", "exact": {"rate": 0.0, "low": 0.0, "high": 0.5}, "f1": {"rate": 0.5, "low": 0.2, "high": 0.8}}
    rows = [{"id": 1, "question": "Who?", "context": "Ada.", "answers": [{"text": "Ada"}], "predicted": "", "right": 0.0}]
    assert "∅" in render_errors(scores, rows, title="q")
    tokens = [{"id": 1, "tokens": ["Ada", "sings"], "labels": ["B-PER", "O"], "predicted": ["O", "O"], "right": 0.5}]
    assert re.search(r'class="word off">Ada<small>B-PER → O', render_errors({"measured_on": "test"}, tokens, title="t"))
    texts = [{"id": 1, "source": "A man.", "target": "Ein Mann.", "predicted": "Ein Mann.", "right": 1.0}]
    page = render_errors({"measured_on": "test", "bleu": {"score": 100.0, "low": 99.0, "high": 100.0}}, texts, title="x")
    assert "100.00" in page and "Ein Mann." in page


def test_a_curve_has_a_line_a_base_in_each_panel() -> None:
    points = [
        {"task": task, "base": base, "rows": rows, "rate": rate, "low": rate - 0.05, "high": rate + 0.05}
        for task in ("sst2", "<b>")
        for base, rate in (("scratch", 0.6), ("masked", 0.8))
        for rows in (100, 1000)
    ]
    svg = curve_svg(points, title="Accuracy")
    assert svg.count('class="path"') == 4 and svg.count("<circle") == 8 + 2 and "<b>" not in svg
    places = [float(x) for x in re.findall(r'circle cx="([\d.]+)" cy="[\d.]+" r="4.5"', svg)]
    assert places[0] == places[2] < places[1] == places[3] < places[4], "100 rows left of 1,000, the second panel behind the first"
