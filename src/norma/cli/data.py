"""``norma data check FILE``: what a file is, how many of its rows are usable, and three rows as they will be trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from norma.base.errors import NormaError

if TYPE_CHECKING:
    from norma.text.chat import Trained
    from norma.text.inspect import Sample

_SHOWN = 800  # characters of one segment


def check(
    source: Annotated[str, typer.Argument(metavar="FILE", help="A file, a folder, or hub:NAME.")],
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A tokenizer or model folder: rows in its chat template, and token counts.")
    ] = None,
    trained: Annotated[str, typer.Option(help="Whose words count: answers, last, or turns of the assistant such as 0,-1.")] = "answers",
    json_: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Say what a data file holds, and show rows as they will be trained: green (⟦so⟧ without colours) is learnt, grey only read."""
    from rich.console import Console
    from rich.markup import escape

    from norma.text.inspect import describe

    encoder = None
    if tokenizer is not None:
        from norma.text.tokenizer import Tokenizer

        encoder = Tokenizer.load(tokenizer)
    found = describe(source, encoder, _turns(trained))
    if json_:
        import json
        from dataclasses import asdict

        print(json.dumps(asdict(found), ensure_ascii=False, indent=2))
        return
    console = Console(soft_wrap=True, highlight=False)
    files = ", ".join(f"{kind} ({count:,} file{'s' * (count != 1)})" for kind, count in found.formats.items())
    packed = "" if found.compression == "none" else f", {found.compression}"
    facts = {
        "format": f"{files}{packed}, {found.encoding}",
        "shape": ", ".join(f"{shape} ({count:,})" for shape, count in found.shapes.items()),
        "columns": ", ".join(found.columns[:12]),
        "rows": f"{found.rows:,} usable, {found.quarantined:,} set aside; {found.characters:,} characters",
        "languages": ", ".join(f"{language} {share:.0%}" for language, share in found.languages.items()),
        "docstrings": f"{found.docstrings:,}" if found.docstrings else "",
    }
    console.print(f"[bold]{escape(found.path)}[/]")
    for name, value in facts.items():
        if value:
            console.print(f"  {name + ':':12}{escape(value)}")
    for reason, count in found.reasons.items():
        console.print(f"  [yellow]set aside:[/]  {count:,} x {escape(reason)}")
    for file, line, reason in found.first_bad[:3]:
        console.print(f"    {escape(file)}:{line}: {escape(reason)}")
    for warning in found.warnings:
        console.print(f"  [yellow]warning:[/]    {escape(warning)}")
    for sample in found.samples:
        console.print("\n" + draw(sample, console.color_system is not None))


def _turns(text: str) -> Trained:
    """``answers``, ``last`` or numbers."""
    if text == "answers":
        return "answers"
    if text == "last":
        return "last"
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        mend = "Write answers, last, or numbers of the assistant's turns such as 0,-1"
        raise NormaError(f"'{text}' says no turns", where="--trained", mend=mend) from None


def draw(sample: Sample, colours: bool) -> str:
    """A row in Rich markup: what is learnt in green (in ⟦⟧ where there are no colours), what is only read in grey."""
    from rich.markup import escape

    tokens = "" if sample.tokens is None else f" [dim]({sample.trained_tokens:,} of {sample.tokens:,} tokens learnt)[/]"
    left, right = ("[green]", "[/]") if colours else ("⟦", "⟧")
    parts = [(escape(_cut(text.rstrip("\n"))), text[len(text.rstrip("\n")) :], trained) for text, trained in sample.segments]
    text = "".join((f"{left}{part}{right}" if trained else f"[dim]{part}[/]") + end for part, end, trained in parts)
    note = f"\n[dim]({escape(_cut(sample.note))})[/]" if sample.note else ""
    return f"[bold]{escape(sample.where)}[/]{tokens}\n{text.rstrip()}{note}"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ... ({len(text):,} characters)"
