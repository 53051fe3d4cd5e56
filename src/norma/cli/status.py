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
    training: Annotated[bool, typer.Option("--training", help="Show how each stage was trained: curves, batch, alarms.")] = False,
    page: Annotated[Path | None, typer.Option(metavar="FILE", help="Write how each stage was trained as one HTML page.")] = None,
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
    if training or page is not None:
        _show_training(console, found.folder, training, page)


def _show_training(console: Any, folder: Path, shown: bool, page: Path | None) -> None:
    from norma.base.files import write_text
    from norma.cli.run import nice
    from norma.cli.training import trained_stages, training_view
    from norma.evaluate.report import render_training

    records = trained_stages(folder)
    if not records:
        console.print("No stage of this run has been trained yet.")
        return
    for record in records if shown else ():
        console.print(training_view(record))
    if page is not None:
        write_text(page, render_training(records, folder.name))
        console.print(f"Training: {nice(page.absolute())}", markup=False, highlight=False, soft_wrap=True)


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
