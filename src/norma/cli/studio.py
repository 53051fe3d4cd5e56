"""``norma studio``: the web studio on one run or one spec."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def studio(
    target: Annotated[Path, typer.Argument(metavar="RUN|SPEC", help="A run folder, or a spec file.")],
    port: Annotated[int, typer.Option(help="0 takes any free port.")] = 8600,
    host: Annotated[str, typer.Option(help="Address to listen on; others than this machine's own need --accounts.")] = "127.0.0.1",
    accounts: Annotated[bool, typer.Option("--accounts", help="Several people with names, passwords and roles.")] = False,
    add_user: Annotated[str | None, typer.Option(metavar="NAME:ROLE", help="Add a user (annotator, reviewer, admin), and end.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Where labels are kept: a path, or postgresql://host/name [default: RUN/studio].")
    ] = None,
    model: Annotated[list[Path] | None, typer.Option(help="A further model folder to look into and talk to; may be repeated.")] = None,
    name: Annotated[list[str] | None, typer.Option("--host-name", help="A name under which a proxy calls this studio.")] = None,
) -> None:
    """Annotate, look inside, chat, read the report, watch runs and edit the spec, in the browser."""
    try:
        from norma.studio import serving
    except ModuleNotFoundError as error:
        if error.name not in ("alembic", "argon2", "itsdangerous"):
            raise
        from norma.base.errors import NormaError

        raise NormaError("the studio's packages are not installed", mend="pip install 'norma-lm[studio]'") from None
    if add_user is not None:
        user, _, role = add_user.partition(":")
        person = sys.stdin.isatty()
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True) if person else sys.stdin.readline().rstrip("\n")
        serving.add_user(target, labels, user, password, role or "annotator")
        print(f"{user} may come in as {role or 'annotator'}")
        return
    try:
        serving.serve(target, labels=labels, models=model or [], port=port, host=host, accounts=accounts, names=name or [])
    except KeyboardInterrupt:
        print("stopped")
