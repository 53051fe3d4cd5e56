"""``norma keys add|list|revoke``: who may ask a server."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

_File = Annotated[Path, typer.Option("--file", metavar="FILE", help="The file of keys that 'norma serve --keys' reads.")]
DEFAULT = Path("norma-keys.json")


def add(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    file: _File = DEFAULT,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Requests in any minute.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Tokens read and written in a minute.")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="Requests at once.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer in tokens.")] = None,
) -> None:
    """Make a key. It is shown once and kept nowhere: the file holds its hash."""
    from norma.serve.keys import KeyFile

    key, secret = KeyFile(file).add(
        name,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        concurrent=concurrent,
        max_tokens=max_tokens,
    )
    print(secret)
    print(f"Key {key.id} of {key.name} is in {file}. Copy the line above now: it cannot be shown again.")


def list_(file: _File = DEFAULT) -> None:
    """The keys, their limits, and whether they work."""
    from rich.console import Console
    from rich.table import Table

    from norma.serve.keys import KeyFile

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("id", "name", "made", "requests/min", "tokens/min", "at once", "max tokens", "state"):
        table.add_column(column)
    for key in KeyFile(file).all():
        limits = (key.requests_per_minute, key.tokens_per_minute, key.concurrent, key.max_tokens)
        made = datetime.fromtimestamp(key.created, UTC).strftime("%Y-%m-%d")
        table.add_row(key.id, key.name, made, *("-" if n is None else f"{n:,}" for n in limits), "revoked" if key.revoked else "in use")
    Console(width=None if Console().is_terminal else 160, highlight=False, markup=False).print(table)


def revoke(name: Annotated[str, typer.Argument(help="Name or id of a key.")], file: _File = DEFAULT) -> None:
    """Stop a key from working, at once, in running servers too."""
    from norma.serve.keys import KeyFile

    key = KeyFile(file).revoke(name)
    print(f"Key {key.id} of {key.name} is revoked.")
