"""The frontier as a picture: reward over KL, a line a method, an interval in both directions at every point. SVG, light and dark.

points ─→ axes, places ─→ frontier.svg.jinja ─→ one SVG that needs nothing else
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from norma.evaluate.frontier import Mean, Point
from norma.evaluate.report import figures

WIDTH, HEIGHT = 860, 520
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 56, 56  # margins; names of methods stand on the right
COLOURS = 7
CLOSE = 16  # pixels that names keep from each other


def plane_svg(points: Sequence[Point], *, title: str, judge: str) -> str:
    """The picture as text. Ends of infinite intervals stop at the edge."""
    from norma.evaluate.report.page import _environment

    x_axis = figures.axis([*(p.kl.value for p in points), *(p.kl.high for p in points if math.isfinite(p.kl.high))], wanted=6)
    shown = [v for p in points for v in (p.reward.value, p.reward.low, p.reward.high) if math.isfinite(v)]
    y_axis = figures.axis(shown, zero=False, wanted=6)

    def x(value: float) -> float:
        return round(LEFT + figures.place(value, x_axis[0], x_axis[-1]) / 100 * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - figures.place(value, y_axis[0], y_axis[-1]) / 100 * (HEIGHT - TOP - BOTTOM), 1)

    methods = list(dict.fromkeys(p.method for p in points))
    lines = []
    for number, method in enumerate(methods):
        own = sorted((p for p in points if p.method == method), key=lambda p: p.kl.value)
        lines.append({
            "method": method,
            "colour": number % COLOURS + 1 if number else 0,
            "path": "M" + " L".join(f"{x(p.kl.value)} {y(p.reward.value)}" for p in own),
            "points": [
                {"x": x(p.kl.value), "y": y(p.reward.value), "x1": x(p.kl.low), "x2": x(p.kl.high), "y1": y(p.reward.low),
                 "y2": y(p.reward.high), "says": _says(p)}
                for p in own
            ],
            "at": y(own[-1].reward.value),
            "from": (x(own[-1].kl.value), y(own[-1].reward.value)),
        })  # fmt: skip
    _apart(lines)
    template = _environment().get_template("frontier.svg.jinja")
    ticks = {"x": [(x(v), f"{v:g}") for v in x_axis], "y": [(y(v), f"{v:g}".replace("-", figures.MINUS)) for v in y_axis]}
    box = {"left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM, "width": WIDTH, "height": HEIGHT}
    return template.render(lines=lines, ticks=ticks, box=box, title=title, judge=judge)


def _apart(lines: list[dict[str, Any]]) -> None:
    """Move the names, which stand at the height of their line's last point, until none covers another."""
    last = -math.inf
    for line in sorted(lines, key=lambda line: float(line["at"])):
        line["at"] = max(line["at"], last + CLOSE)
        last = line["at"]


def _says(p: Point) -> str:
    return f"{p.method} {p.strength}: KL {_with(p.kl, 2)} nats, reward {_with(p.reward, 3)}"


def _with(mean: Mean, digits: int) -> str:
    return f"{mean.value:.{digits}f} [{mean.low:.{digits}f}, {mean.high:.{digits}f}]"


def plane_table(points: Sequence[Point], better: Sequence[bool]) -> dict[str, Any]:
    """The same as a table; ``better`` marks the points that no other beats."""
    trained = any(p.trained is not None for p in points)
    columns = ["method", "strength", "KL, nats an answer [95%]", "held-out reward [95%]", *(["training reward"] if trained else [])]
    rows = [
        [
            p.method,
            p.strength,
            _with(p.kl, 2),
            _with(p.reward, 3) + (" *" if best else ""),
            *([f"{p.trained.value:.3f}" if p.trained is not None else ""] if trained else []),
            f"{p.tokens:.1f}",
        ]
        for p, best in zip(points, better, strict=True)
    ]
    return {"title": "Reward and KL (* no other point has more reward for less KL)", "columns": [*columns, "tokens"], "rows": rows}
