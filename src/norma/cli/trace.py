"""``norma trace RUN REFERENCE``: from a number of the report to its items, labels and training rows, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from norma.base.errors import NormaError

if TYPE_CHECKING:
    from rich.tree import Tree

    from norma.pipeline.trace import Trace


def trace(
    run: Annotated[Path, typer.Argument(help="A run folder, or the folder of a check.")],
    reference: Annotated[
        str | None,
        typer.Argument(
            metavar="[NUMBER-OR-ROW]",
            help="METHOD/RULE/rate, METHOD/overall/rate, METHOD/RULE@heldout/rate; an item id; a label's key; FILE:LINE; a rule; a stage.",
        ),
    ] = None,
    rehash: Annotated[
        bool, typer.Option("--rehash", help="Read every file of the run again and name what was hurt; exit code 1 then.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Show all rows, not the first few.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Walk from a number to items, verdicts, checkers, rule, labels and training rows; or from a row to the numbers it counts in."""
    if reference is None and not rehash:
        raise NormaError("say what to trace", mend="For example: norma trace RUN reward/style.polite/rate, or: norma trace RUN --rehash")
    hurt = _rehash(run, as_json) if rehash else False
    if reference is not None:
        from rich.console import Console

        from norma.pipeline.trace import trace as walk

        found = walk(run, reference, everything=everything)
        if as_json:
            print(json.dumps(found.row(), ensure_ascii=False, indent=2))
        else:
            console = Console()
            if not console.is_terminal:
                console = Console(width=240)  # a pipe has no edge to keep to
            console.print(_tree(found))
    if hurt:
        raise typer.Exit(1)


def _rehash(run: Path, as_json: bool) -> bool:
    from norma.pipeline.rehash import rehash

    found = rehash(run)
    if as_json:
        print(json.dumps({"files": found.files, "bytes": found.bytes, "damage": found.damage, "notes": found.notes}, indent=2))
        return bool(found.damage)
    for line in found.notes:
        print(f"note: {line}")
    for line in found.damage:
        print(f"DAMAGED {line}")
    state = f"{len(found.damage)} damaged" if found.damage else "all as they were written"
    print(f"{found.files} files, {found.bytes:,} bytes read: {state}.")
    return bool(found.damage)


def _tree(node: Trace) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text(node.line))
    for part in node.parts:
        tree.children.append(_tree(part))
    return tree
