"""Tiny stage kinds for the tests, added to a recipe with ``trust: [kinds.py]``: no model, only files and arithmetic."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from pydantic import Field

from norma.base.files import read_json, write_json
from norma.base.hashing import file_digest
from norma.pipeline import Context, InputRef, Stage, StageOptions, register


def count_call(what: str) -> None:
    """Append a line to the file named by NORMA_TEST_CALLS, and die by SIGKILL when NORMA_TEST_DIE names this call."""
    calls = os.environ.get("NORMA_TEST_CALLS")
    if calls:
        with Path(calls).open("a", encoding="utf-8") as handle:
            handle.write(what + "\n")
    if os.environ.get("NORMA_TEST_DIE") == what:
        os.kill(os.getpid(), signal.SIGKILL)


class ChainOptions(StageOptions):
    """Options of ``chain``."""

    from_: InputRef | None = Field(None, alias="from", description="A chain to go on from.")
    steps: int = Field(3, description="Steps of a linear congruence.")
    pause: float = Field(0.0, description="Seconds a step sleeps.")
    file: str | None = Field(None, description="A file outside the run that is read.")
    fail: bool = Field(False, description="Fail after the first step.")
    megabytes: int = Field(0, description="Size of a file that is written.")


class Chain(Stage[ChainOptions]):
    """x ← (1103515245 x + 12345) mod 2³¹, ``steps`` times, its state on the disk after every step."""

    kind, version, Options = "chain", 1, ChainOptions

    def fingerprint(self, options: ChainOptions, base: Path) -> Any:
        return {options.file: file_digest(base / options.file)} if options.file else {}

    def run(self, ctx: Context[ChainOptions]) -> dict[str, Any]:
        options, path = ctx.options, ctx.folder / "state.json"
        count_call(f"{ctx.name}:enter")
        micro = ctx.plan.choose("micro", lambda: time.time_ns() % 7)
        start = read_json(ctx.path(options.from_) / "state.json")["x"] if options.from_ else ctx.seed
        state = read_json(path) if path.exists() else {"step": 0, "x": start}
        while state["step"] < options.steps:
            time.sleep(options.pause)
            state = {"step": state["step"] + 1, "x": (1103515245 * state["x"] + 12345) % 2**31}
            write_json(path, state)
            ctx.progress.update(state["step"], options.steps, loss=1 / state["step"])
            count_call(f"{ctx.name}:{state['step']}")
            if options.fail:
                raise ValueError("the stage broke\non two lines")
        if options.megabytes:
            with (ctx.folder / "big.bin").open("wb") as handle:
                for _ in range(options.megabytes):
                    handle.write(bytes(2**20))
        ctx.progress.say(f"{ctx.name} says [bold]done[/]")
        return {"x": state["x"], "micro": micro, "ratio": float("nan"), "model": True}


class JoinOptions(StageOptions):
    """Options of ``join``."""

    parts: list[InputRef] = Field(description="The chains to join.")


class Join(Stage[JoinOptions]):
    """Writes the values of several chains, a report and a table."""

    kind, version, Options = "join", 1, JoinOptions

    def run(self, ctx: Context[JoinOptions]) -> dict[str, Any]:
        count_call(f"{ctx.name}:enter")
        values = {ref: read_json(ctx.path(ref) / "state.json")["x"] for ref in ctx.options.parts}
        write_json(ctx.folder / "report.json", values)
        (ctx.folder / "report.html").write_text("<p>report</p>", encoding="utf-8")
        rows = [[name, value / 2**31, None] for name, value in values.items()]
        table = {"title": "Results", "columns": ["chain", "value", "nothing"], "rows": rows}
        return {"publish": ["report.html", "report.json"], "table": table, "talk": ctx.options.parts[0]}


register(Chain())
register(Join())
