"""The error browser: what the model and people wrote is escaped, the worst come first, figures are those of the scores."""

from __future__ import annotations

import base64
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from norma.evaluate.report.curves import curve_svg
from norma.evaluate.report.errors import render_errors

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
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


@pytest.mark.slow
def test_attention_in_a_browser(tmp_path: Path) -> None:
    """A token that is clicked shades what it looks at; rollout over two layers as worked by hand."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    # One head, two tokens, two layers: the first looks at itself alone, then the second looks at the first alone.
    weights = np.array([[[[1.0, 0.0], [0.0, 1.0]]], [[[1.0, 0.0], [1.0, 0.0]]]]) * 255
    packed = base64.b64encode(weights.astype(np.uint8).tobytes()).decode()
    look = {"tokens": ["good", BAD], "layers": 2, "heads": 1, "weights": packed, "saliency": [-0.5, 1.0], "first": 0}
    rows = [{"id": "a", "text": f"good {BAD}", "label": "x", "predicted": "y", "right": 0.1}]
    path = tmp_path / "errors.html"
    path.write_text(render_errors({"measured_on": "test"}, rows, title="t", looks=[look]), encoding="utf-8")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page, complaints = browser.new_page(), []
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{path.as_uri()}?lang=zh")
        page.get_by_role("button", name="查看注意力").click()

        def titles() -> list[float]:
            return [float(page.locator(".token").nth(i).get_attribute("title")) for i in range(2)]

        assert page.locator(".token").all_text_contents() == ["good", BAD] and titles() == [1, 0]
        page.locator(".token").nth(1).click()
        assert titles() == [1, 0], "the last layer is shown first: there the second token looks at the first"
        how, layer, _ = (page.locator("[data-look] select").nth(i) for i in range(3))
        layer.select_option("0")
        assert titles() == [0, 1]
        how.select_option("rollout")
        assert titles() == [0.5, 0.5], "(I + A2) / 2 (I + A1) / 2 = [[1, 0], [1/2, 1/2]]"
        how.select_option("saliency")
        assert titles() == [-0.5, 1] and complaints == []
        browser.close()
