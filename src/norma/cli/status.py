"""``norma status RUN``: which stages are done, stale, running, failed or waiting, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from norma.pipeline import StageState

_COLOURS = {"done": "green", "stale": "yellow", "running": "cyan", "stopped": "cyan", "failed": "red", "waiting": "dim"}


def status(
    run: Annotated[Path, typer.Argument(help="A run folder, or a recipe.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As they were given to norma run.")] = None,
    scale: Annotated[str | None, typer.Option(help="As it was given to norma run.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Let the Python files that the recipe names run.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Compare a run with its recipe as it is now."""
    from rich.console import Console

    from norma.pipeline import run_status

    found = run_status(run, overrides or [], scale=scale, trust=trust)
    console = Console()
    if json_:
        import json

        rows = [{"stage": s.name, "kind": s.kind, "state": str(s.state), "why": list(s.reasons)} for s in found.stages]
        print(json.dumps({"folder": str(found.folder), "running": found.running, "stages": rows}, ensure_ascii=False, indent=2))
        return
    console.print(f"Run folder: {found.folder}", markup=False, highlight=False, soft_wrap=True)
    if found.note:
        console.print(f"Note: {found.note}", markup=False, highlight=False, soft_wrap=True)
    console.print(stage_table(found.stages))


def stage_table(states: list[StageState]) -> Any:
    """A Rich table of stages."""
    from rich.markup import escape
    from rich.table import Table

    from norma.cli.progress import duration

    table = Table()
    for name in ("stage", "kind", "state", "took", "why"):
        table.add_column(name, overflow="fold", no_wrap=name != "why")
    for state in states:
        took = duration(state.lineage["seconds"]) if "seconds" in state.lineage else ""
        colour = _COLOURS[state.state]
        table.add_row(state.name, state.kind, f"[{colour}]{state.state}[/]", took, escape("\n".join(state.reasons)))
    return table
