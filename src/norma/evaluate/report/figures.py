"""Numbers as text and as places on an axis. Rates are shown in percent, differences in points, p-values never as zero."""

from __future__ import annotations

import math
from collections.abc import Sequence

MINUS = "−"


def percent(value: float | None, unit: bool = True, digits: int = 1) -> str:
    """0.943 -> "94.3%"; a rate short of 1 is never rounded up to 100%, nor one above 0 down to 0%."""
    if value is None:
        return "–"
    shown = 100 * value
    step = 10.0**-digits
    if 0 < value < 1:
        shown = min(max(shown, step), 100 - step)
    text = f"{shown:.{digits}f}"
    if value in (0.0, 1.0):
        text = f"{shown:.0f}"
    return text + ("%" if unit else "")


def points(value: float | None) -> str:
    """0.392 -> "+39.2": a difference of two rates, in percentage points."""
    if value is None:
        return "–"
    text = f"{abs(100 * value):.1f}"
    return text if text == "0.0" else ("+" if value > 0 else MINUS) + text


def p_value(value: float | None) -> str:
    """Two significant digits, in scientific notation below .001."""
    if value is None:
        return "–"
    if value >= 0.9995:
        return "1"
    if value >= 0.001:
        return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"
    if value <= 0:
        return "< 1e−300"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{MINUS}{abs(int(exponent))}"


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def figure(value: float | None) -> str:
    """Three significant digits, without an exponent where the number is of everyday size: 0.108, 42.7, 1,230, 2.1e−5."""
    if value is None:
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", MINUS)


def signed(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "–"
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0 else ("+" if value > 0 else MINUS) + text


def place(value: float | None, low: float, high: float) -> float:
    """Where ``value`` lies on the axis from ``low`` to ``high``, in percent of its length, clamped to the axis."""
    if value is None or high <= low:
        return 0.0
    return round(100 * min(1.0, max(0.0, (value - low) / (high - low))), 3)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers from at most ``low`` to at least ``high``, about ``wanted`` of them (steps of 1, 2 or 5 times a power of ten)."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low, low + 1]
    raw = span / max(1, wanted - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9)), 10 * power)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def axis(values: Sequence[float | None], zero: bool = True, wanted: int = 5) -> list[float]:
    """Ticks that hold every value (and zero); with a little room around a single value."""
    known = [v for v in values if v is not None]
    if zero:
        known.append(0.0)
    if not known:
        return [0.0, 1.0]
    low, high = min(known), max(known)
    room = 0.0 if high > low else 0.05 * abs(high) or 0.5
    return ticks(low - room, high + room, wanted)


def polyline(xs: Sequence[float], ys: Sequence[float | None], x_axis: Sequence[float], y_axis: Sequence[float]) -> str:
    """An SVG path in a 100 x 100 box; a missing value breaks the line."""
    parts, pen = [], "M"
    for x, y in zip(xs, ys, strict=True):
        if y is None:
            pen = "M"
            continue
        parts.append(f"{pen}{place(x, x_axis[0], x_axis[-1]):g} {100 - place(y, y_axis[0], y_axis[-1]):g}")
        pen = "L"
    return "".join(parts)
