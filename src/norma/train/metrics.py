"""What a run writes down: a row a step in metrics.jsonl, samples in samples.jsonl, and copies to whatever sinks are asked for.

    numbers of a step ─→ row (rates, bits per byte, time left) ─→ metrics.jsonl ─→ sinks (TensorBoard, ...)
                                                              └─→ progress (live)
    resume at step N  ─→ rows of step N and later are cut: no gap, no double row

A row holds: step (from 0), what the objective gave (loss in nats a target, ...), gradient_norm, learning_rate (AdamW's),
bits_per_byte where the objective gives nats and bytes, tokens_per_s, peak_share where the flops of a step are known, seconds of
the step, eta in seconds. A step that was left out has "skipped": true and "why". What is not finite is null.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from rich.markup import escape

from norma.base.files import disk_errors, drop_torn, to_json, write_text
from norma.base.progress import Progress
from norma.train.sinks import Sink

SHOWN = 200  # characters of a sample on the screen
CLOCKS = frozenset({"seconds", "tokens_per_s", "eta", "peak_share"})  # differ between equal runs
_HIDDEN = frozenset({"step", "tokens", "bytes", "learning_rate", "seconds", "eta"})  # not shown live: the display has its own


def bits_per_byte(nats: float, count: float) -> float:
    """Bits a byte of ``count`` bytes of raw text whose tokens cost ``nats`` in all."""
    return nats / (math.log(2) * count)


def make_row(
    step: int, numbers: Mapping[str, float], *, seconds: float, eta: float, flops_per_step: float | None, peak_flops: float | None
) -> dict[str, Any]:
    """The row of a step that counted. ``nats`` and ``bytes``, sums over the step's targets, become ``bits_per_byte``."""
    row: dict[str, Any] = {"step": step, **numbers}
    nats = row.pop("nats", None)
    if nats is not None and row.get("bytes"):
        row["bits_per_byte"] = bits_per_byte(nats, row["bytes"])
    if "tokens" in row:
        row["tokens_per_s"] = round(row["tokens"] / seconds, 1)
    if flops_per_step and peak_flops:
        row["peak_share"] = round(flops_per_step / seconds / peak_flops, 4)
    return {**row, "seconds": round(seconds, 4), "eta": round(eta, 1)}


def facts(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row that are no clock's: equal runs have them equal."""
    return {k: v for k, v in row.items() if k not in CLOCKS and k != "step"}


class JsonLines:
    """A file of rows with a ``step``, in order, that can be cut and written on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: IO[str] | None = None

    def begin(self, end: int) -> dict[str, Any] | None:
        """Drop rows of step ``end`` and later, and a half-written last line; returns the last row that counted, None without one."""
        self.close()
        kept: list[str] = []
        last: dict[str, Any] | None = None
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8", errors="replace").split("\n"):
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:  # the end, or half a line (cut within a character, too)
                    break
                if row["step"] < end:
                    kept.append(line + "\n")
                    last = last if row.get("skipped") else row
            write_text(self.path, "".join(kept))
        return last

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row; a kill of the process does not lose it."""
        with disk_errors(self.path):
            if self._handle is None:
                self._handle = self.path.open("a", encoding="utf-8")
            clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
            self._handle.write(to_json(clean) + "\n")
            self._handle.flush()

    def sync(self) -> None:
        """Have the rows on the disk, so that a checkpoint never stands on rows that a power cut takes."""
        if self._handle is not None:
            with disk_errors(self.path):
                os.fsync(self._handle.fileno())

    def close(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None


class RunLog:
    """All of a run's rows. A context manager: it tells the sinks how the run ended."""

    def __init__(
        self,
        folder: Path,
        steps: int,
        progress: Progress,
        sinks: list[Sink],
        *,
        flops_per_step: float | None = None,
        peak_flops: float | None = None,
        silent: bool = False,
    ) -> None:
        """``silent``: another rank writes the rows; this one only says what would stand in them."""
        self.silent = silent
        self.metrics, self.samples = JsonLines(folder / "metrics.jsonl"), JsonLines(folder / "samples.jsonl")
        self.steps, self.progress, self.sinks = steps, progress, sinks
        self.flops_per_step, self.peak_flops = flops_per_step, peak_flops
        self._spent = self._made = 0.0
        self._sent, self._done = -1, 0

    def begin(self, done: int) -> dict[str, float]:
        """Go on after ``done`` steps; returns the facts of the last row that counted."""
        self._done = done
        if self.silent:
            return {}
        drop_torn(self.metrics.path.parent)
        self.samples.begin(done)
        return facts(self.metrics.begin(done) or {})

    def step(self, step: int, numbers: Mapping[str, float], seconds: float) -> dict[str, float]:
        """Write down a step that counted; returns its facts."""
        self._spent, self._made = self._spent + seconds, self._made + 1
        eta = self._spent / self._made * (self.steps - step - 1)
        row = make_row(step, numbers, seconds=seconds, eta=eta, flops_per_step=self.flops_per_step, peak_flops=self.peak_flops)
        self._put(row)
        self.progress.update(step + 1, self.steps, **{k: v for k, v in row.items() if k not in _HIDDEN})
        return facts(row)

    def skip(self, step: int, why: str, numbers: Mapping[str, float] | None = None) -> None:
        """Write down a step that does not count."""
        self._put({"step": step, **{k: v for k, v in (numbers or {}).items() if k != "nats"}, "skipped": True, "why": why})

    def sample(self, step: int, text: str) -> None:
        """Write down what the model says after ``step``, and show it on one line."""
        self.samples.write({"step": step, "text": text})
        if text:
            line = " ".join(text.split())
            self.progress.say(f"[dim]step {step + 1:,}:[/] {escape(line[:SHOWN] + ('…' if len(line) > SHOWN else ''))}")

    def sync(self) -> None:
        self.metrics.sync()
        self.samples.sync()

    def _put(self, row: Mapping[str, Any]) -> None:
        if self.silent:
            return
        self.metrics.write(row)
        step = int(row["step"])
        self._done = step + 1
        if step <= self._sent:  # done again after going back: the sinks have the row
            return
        self._sent = step
        finite = {k: float(v) for k, v in row.items() if k != "step" and isinstance(v, (int, float)) and math.isfinite(v)}
        for sink in self.sinks:
            sink.write(step, finite)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.metrics.close()
        self.samples.close()
        for sink in self.sinks:
            sink.close(finished=kind is None and self._done >= self.steps)
