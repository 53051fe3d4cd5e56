"""Learning curves as a picture: a panel a task, accuracy over rows learnt from (log scale), a line a base with its band. SVG.

points ─→ axes, places ─→ curves.svg.jinja ─→ one SVG that needs nothing else
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from norma.evaluate.report import figures

PANEL, HEIGHT = 300, 360  # of each panel
LEFT, TOP, BOTTOM, GAP, NAMES = 60, 70, 56, 34, 170
COLOURS = 7


def curve_svg(points: Sequence[Mapping[str, Any]], *, title: str) -> str:
    """The picture as text. ``points``: task, base, rows, rate, low, high."""
    from norma.evaluate.report.page import _environment

    tasks, bases = (list(dict.fromkeys(p[key] for p in points)) for key in ("task", "base"))
    y_axis = figures.axis([v for p in points for v in (p["rate"], p["low"], p["high"])], zero=False, wanted=6)
    panels = []
    for number, task in enumerate(tasks):
        own = [p for p in points if p["task"] == task]
        panels.append(_panel(own, bases, LEFT + number * (PANEL + GAP), y_axis) | {"task": task})
    right = LEFT + len(tasks) * (PANEL + GAP)
    legend = [{"base": base, "colour": _colour(i), "y": TOP + 12 + 20 * i} for i, base in enumerate(bases)]
    box = {"width": right + NAMES, "height": HEIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM, "left": LEFT, "names": right}
    ticks = [(_y(v, y_axis), f"{100 * v:g}%") for v in y_axis]
    return _environment().get_template("curves.svg.jinja").render(panels=panels, legend=legend, box=box, ticks=ticks, title=title)


def _panel(points: Sequence[Mapping[str, Any]], bases: Sequence[str], left: float, y_axis: Sequence[float]) -> dict[str, Any]:
    sizes = sorted({int(p["rows"]) for p in points})
    low, high = math.log(sizes[0]), math.log(sizes[-1])

    def x(rows: int) -> float:
        share = 0.5 if high == low else (math.log(rows) - low) / (high - low)
        return round(left + 14 + share * (PANEL - 28), 1)

    lines = []
    for number, base in enumerate(bases):
        own = sorted((p for p in points if p["base"] == base), key=lambda p: p["rows"])
        if not own:
            continue
        upper = [f"{x(p['rows'])} {_y(p['high'], y_axis)}" for p in own]
        lower = [f"{x(p['rows'])} {_y(p['low'], y_axis)}" for p in reversed(own)]
        dots = [{"x": x(p["rows"]), "y": _y(p["rate"], y_axis), "says": _says(p)} for p in own]
        path = "M" + " L".join(f"{d['x']} {d['y']}" for d in dots)
        lines.append({"colour": _colour(number), "path": path, "band": "M" + " L".join([*upper, *lower]) + " Z", "dots": dots})
    return {"left": left, "right": left + PANEL, "lines": lines, "ticks": [(x(n), f"{n:,}") for n in sizes]}


def _says(p: Mapping[str, Any]) -> str:
    return f"{p['base']}, {p['rows']:,} rows: {p['rate']:.3f} [{p['low']:.3f}, {p['high']:.3f}]"


def _colour(number: int) -> int:
    """The first base, which knows nothing, is grey."""
    return 0 if number == 0 else (number - 1) % COLOURS + 1


def _y(value: float, axis: Sequence[float]) -> float:
    return round(HEIGHT - BOTTOM - figures.place(value, axis[0], axis[-1]) / 100 * (HEIGHT - TOP - BOTTOM), 1)
