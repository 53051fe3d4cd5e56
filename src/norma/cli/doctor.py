"""``norma doctor``: what this machine has, and what Norma would use, in words."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False) -> None:
    """Say what this machine has, what Norma makes of it, and why."""
    from norma.base.platform import describe, set_cache_limits, tune_allocator

    set_cache_limits()  # done at every start of norma; here too, so that what is told is what a run would get
    tune_allocator()
    facts = describe()
    if as_json:
        print(json.dumps([fact.row() for fact in facts], indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="What this machine has, and what Norma makes of it", title_justify="left")
    for column in ("", "found", "chosen", "because"):
        table.add_column(column, overflow="fold")
    for fact in facts:
        table.add_row(Text(fact.name), Text(fact.found), Text(fact.chosen), Text(fact.why))
    Console().print(table)
