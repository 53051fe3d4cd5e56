"""``norma spec ...``: work on a spec file without a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

_File = Annotated[Path, typer.Argument(metavar="SPEC", help="A spec file, or the name of a shipped one (norma spec list).")]


def list_() -> None:
    """List the specs that come with Norma; their names stand for a file wherever a SPEC is asked for."""
    from norma.spec import shipped

    for name in shipped.names():
        summary = shipped.SUMMARIES[name]
        print(f"{name:22}{summary['en']}\n{'':22}{summary['zh-Hans']}")


def lint(
    spec: _File,
    static: Annotated[bool, typer.Option("--static", help="Do not send the examples through the checkers.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say what is wrong with a spec; exit 1 when an error is among it."""
    from norma.spec import Spec
    from norma.spec import lint as find

    loaded = Spec.load(spec)
    found = find(loaded, run_checkers=not static)
    errors = sum(f.severity == "error" for f in found)
    if json_:
        print(json.dumps([f.row() for f in found], ensure_ascii=False, indent=2))
    else:
        for finding in found:
            print(finding)
        print(f"{spec}: {len(loaded.rules)} rules, {_count(errors, 'error')}, {_count(len(found) - errors, 'warning')}")
    if errors:
        raise typer.Exit(1)


def show(
    spec: _File,
    language: Annotated[str | None, typer.Option(help="Language of the wording [default: the spec's source language].")] = None,
    rule: Annotated[str | None, typer.Option(metavar="ID", help="Only this rule.")] = None,
) -> None:
    """Print a spec as people read it."""
    from rich.console import Console
    from rich.markdown import Markdown

    from norma.spec import Spec, spec_markdown

    loaded = Spec.load(spec, checkers=False)
    text = spec_markdown(loaded, language or loaded.source_language)
    if rule is not None:
        parts = text.split("\n## ")
        text = "## " + next(part for part in parts if part.partition("\n")[0] == loaded.rule(rule).id)
    console = Console()
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        print(text)


def prompt(
    spec: _File,
    question: Annotated[str | None, typer.Argument(help="What the user asks; without it, the rules alone.")] = None,
    language: Annotated[str | None, typer.Option(help="Language of the rules [default: the spec's source language].")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All rules, not only those that apply to the question.")] = False,
    prefix: Annotated[bool, typer.Option("--prefix", help="Before the question instead of in a system message.")] = False,
) -> None:
    """Print the prompt that tells a model to keep the rules."""
    from norma.spec import Message, Spec

    loaded = Spec.load(spec, checkers=False)
    chosen = language or loaded.source_language
    if question is None:
        print(loaded.instruction([r.id for r in loaded.rules], chosen))
        return
    messages = [Message(role="user", content=question)]
    rendered = loaded.render(messages, language=chosen, rules="all" if all_ else "applicable", position="prefix" if prefix else "system")
    for message in rendered:
        print(f"[{message['role']}]\n{message['content']}\n")


def schema() -> None:
    """Print the JSON Schema of spec files, for editors."""
    from norma.spec import json_schema

    print(json.dumps(json_schema(), ensure_ascii=False, indent=2))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
