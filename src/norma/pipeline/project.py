"""``norma init``: a project of the user's own, made from a packaged recipe and its spec.

    templates/<name>.recipe.yaml ─→ name, spec and data folder put in ─→ DIR/recipe.yaml
    templates/<name>.spec.yaml   ─→ as it is                          ─→ DIR/spec.yaml
                                                                        DIR/README.md, DIR/data/

The packaged files are the demo's own (links into ``recipes/``), so that nothing is written twice. The user's text joins the sources
of its corpus: the docstrings that are read beside it bring the questions on which the rules are learnt and judged.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from norma.base.errors import NormaError, nearest
from norma.base.files import disk_errors, write_text
from norma.base.strict_yaml import parse_yaml

DEFAULT = "courteous-docs"

_README = """\
# {name}

A small language model that keeps the rules of `spec.yaml`, trained on this machine by Norma (`pip install norma-lm`).

    norma run {recipe}          the whole pipeline; stop it when you like, the same command goes on
    norma status {recipe}       which stages are done, which are stale, and why

| file | what it is |
|---|---|
| `recipe.yaml` | the stages of the run and their options |
| `spec.yaml` | the rules, their checkers and examples; `norma spec lint spec.yaml` checks it |
| `{data}` | your text: .txt, .md, .json, .jsonl, .csv, .tsv, .parquet, .py, each also .gz |

Change a rule or an option and run again: only the stages that depend on it are made again.
`norma data check FILE` says what a data file is and shows three rows as they will be trained.
"""

_WELCOME = """\
# Put your text here

Norma reads every file of this folder: plain text, Markdown, JSON lines, tables, Python source. Longer texts are better than short
ones, and a few megabytes are a good start. You can delete this file once there is another.
"""


def templates() -> list[str]:
    """Names of the packaged templates."""
    found = (entry.name for entry in files("norma.pipeline").joinpath("templates").iterdir())
    return sorted(name.removesuffix(".recipe.yaml") for name in found if name.endswith(".recipe.yaml"))


def write_project(folder: Path, template: str = DEFAULT, data: Path | None = None) -> list[Path]:
    """Write a project into an absent or empty folder; returns the files written.

    Args:
        data: an existing folder (or file) of text; ``data/`` in the project when absent.

    Raises:
        NormaError: unknown template, a folder that is not empty, data that is not there.
    """
    if template not in templates():
        raise NormaError(f"unknown template '{template}'", mend=nearest(template, templates()))
    if folder.exists() and not folder.is_dir():
        raise NormaError("this is a file, not a folder", where=folder, mend="Choose another name")
    if folder.exists() and any(folder.iterdir()):
        raise NormaError("the folder is not empty", where=folder, mend="Choose a new or an empty one")
    if data is not None and not data.exists():
        raise NormaError("file or folder not found", where=data, mend="Give the folder that holds your text to --data")
    place = "data" if data is None else str(data.resolve())
    source = files("norma.pipeline").joinpath("templates")
    recipe = source.joinpath(f"{template}.recipe.yaml").read_text(encoding="utf-8")
    spec = source.joinpath(f"{template}.spec.yaml").read_text(encoding="utf-8")
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.resolve().name).strip("-_") or "project"
    texts = {
        "recipe.yaml": fill(recipe, name, place),
        "spec.yaml": spec,
        "README.md": _README.format(name=name, recipe="recipe.yaml", data=place),
        **({"data/welcome.md": _WELCOME} if data is None else {}),
    }
    with disk_errors(folder):
        for path, text in texts.items():
            write_text(folder / path, text)
    return [folder / path for path in texts]


def fill(recipe: str, name: str, data: str) -> str:
    """The template's recipe as a project's own, comments and layout kept: its name, its spec, and ``data`` as the first source."""
    document = parse_yaml(recipe, "template")
    corpora = [stage for stage, options in document.data["stages"].items() if options["kind"] == "corpus"]
    places = [("stages", stage, "sources", 0) for stage in corpora]
    places += [("scales", scale, f"{stage}.sources", 0) for scale in document.data.get("scales") or {} for stage in corpora]
    lines = recipe.split("\n")
    # From the end of the file to its start, so that no insertion moves a place that is still to come.
    for line, column in sorted((document.places[place] for place in places if place in document.places), reverse=True):
        before, after = lines[line - 1][: column - 1], lines[line - 1][column - 1 :]
        source = "{path: " + _quoted(data) + "}"
        if before.rstrip().endswith("-"):  # one source a line
            lines[line - 1 : line] = [before + source, before + after]
        else:  # [a list, in one line]
            lines[line - 1] = f"{before}{source}, {after}"
    text = "\n".join(lines)
    text = re.sub(r"(?m)^name:.*$", f"name: {name}", text, count=1)
    text = re.sub(r"(?m)^spec:.*$", "spec: spec.yaml", text, count=1)
    text = re.sub(r"(?m)^output:.*\n", "", text)
    return re.sub(r"\brecipes/[\w-]+\.yaml", "recipe.yaml", text)


def _quoted(path: str) -> str:
    return path if re.fullmatch(r"[\w./-]+", path) else "'" + path.replace("'", "''") + "'"
