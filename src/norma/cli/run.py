"""``norma run RECIPE``: the whole pipeline, going on from whatever is finished."""

from __future__ import annotations

import os
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from norma.pipeline import Run, StageState


class EngineName(StrEnum):
    """Who reads and tokenises text."""

    LOCAL = "local"
    RAY = "ray"


def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe (YAML), or a folder that holds recipe.yaml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changed values, for example pretrain.tokens=1000000 or seed=1.")
    ] = None,
    scale: Annotated[str | None, typer.Option(help="One of the recipe's scales, for example ci.")] = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Make this stage and what it needs, nothing else.")] = None,
    from_: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Make this stage and what depends on it again.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be made, and why.")] = False,
    engine: Annotated[
        EngineName, typer.Option(help="Who reads and tokenises text: local, or ray (a Ray cluster, RAY_ADDRESS).")
    ] = EngineName.LOCAL,
    trust: Annotated[bool, typer.Option("--trust", help="Let the Python files that the recipe names run.")] = False,
) -> None:
    """Run a recipe. A run that was stopped anywhere goes on with the same command; finished stages are not made again."""
    from rich.console import Console

    from norma.cli.progress import Watch
    from norma.pipeline import execute, load_recipe, plan_run

    console = Console()
    loaded = load_recipe(recipe, overrides or [], scale=scale, trust=trust, engine=engine.value)
    if dry_run:
        _show_plan(console, plan_run(loaded, until=until, from_stage=from_), loaded.output)
        return
    try:
        if int(os.environ.get("RANK", "0")) > 0:  # torchrun's others: the first one talks
            execute(loaded, until=until, from_stage=from_)
            return
        with Watch(console) as watch:
            result = execute(loaded, until=until, from_stage=from_, observer=watch)
    except KeyboardInterrupt as stop:
        from norma.cli.debug import Terminated

        print(f"Stopped. To go on: {shlex.join(['norma', *sys.argv[1:]])}", file=sys.stderr)
        raise typer.Exit(143 if isinstance(stop, Terminated) else 130) from None
    _show_result(console, result)


def _show_plan(console: Console, states: list[StageState], folder: Path) -> None:
    from norma.cli.status import stage_table
    from norma.pipeline import State

    console.print(f"Run folder: {folder}", markup=False, highlight=False, soft_wrap=True)
    console.print(stage_table(states))
    todo = [s.name for s in states if s.state is not State.DONE]
    line = f"Would make {len(todo)} of {len(states)} stages: {', '.join(todo)}" if todo else "Nothing to do: every stage is up to date"
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _show_result(console: Console, result: Run) -> None:
    if result.table:
        console.print(results_table(result.table))
    if result.report:
        console.print(f"Report: {nice(result.report)}", markup=False, highlight=False, soft_wrap=True)
    if result.model:
        spec = result.folder / "spec.yaml"
        line = ["norma", "chat", nice(result.model), *(["--spec", nice(spec)] if spec.is_file() else [])]
        console.print(f"Talk to it: {shlex.join(line)}", markup=False, highlight=False, soft_wrap=True)
    if not (result.table or result.report or result.model):
        console.print(f"Finished: {nice(result.folder)}", markup=False, highlight=False, soft_wrap=True)


def results_table(table: dict[str, Any]) -> Any:
    """A Rich table of a stage's ``table`` summary."""
    from rich.table import Table

    drawn = Table(title=table.get("title"), title_justify="left")
    rows = table.get("rows", [])
    for index, name in enumerate(table.get("columns", [])):
        numeric = bool(rows) and all(isinstance(row[index], (int, float)) or row[index] is None for row in rows if index < len(row))
        drawn.add_column(str(name), justify="right" if numeric else "left")
    for row in rows:
        drawn.add_row(*[_cell(value) for value in row])
    return drawn


def _cell(value: Any) -> str:
    from rich.markup import escape

    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else escape(str(value))


def nice(path: Path) -> str:
    """A path relative to the current folder where it lies below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
