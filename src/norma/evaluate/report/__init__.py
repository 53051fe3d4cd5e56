"""The report: `build_report` computes report.json, `render_html` draws it, `terminal_table` prints it.

`render_training` draws a page of how stages were trained, without the rest.
"""

from __future__ import annotations

from norma.evaluate.report.build import Extras, build_report
from norma.evaluate.report.page import render_html, render_training
from norma.evaluate.report.terminal import terminal_table

__all__ = ["Extras", "build_report", "render_html", "render_training", "terminal_table"]
