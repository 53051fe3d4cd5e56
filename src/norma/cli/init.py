"""``norma init DIR``: a project that ``norma run`` can run at once."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or an empty folder.")],
    template: Annotated[str | None, typer.Option(metavar="NAME", help="What to start from [default: courteous-docs].")] = None,
    data: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Your text; without it, put it into DIR/data.")] = None,
) -> None:
    """Write a project: recipe.yaml, spec.yaml, README.md and a folder for your text."""
    from norma.cli.run import nice
    from norma.pipeline.project import DEFAULT, write_project

    for path in write_project(folder, template or DEFAULT, data):
        print(f"wrote {nice(path.absolute())}")
    print("Next: " + shlex.join(["norma", "run", nice((folder / "recipe.yaml").absolute())]))
