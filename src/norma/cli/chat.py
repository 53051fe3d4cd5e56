"""``norma chat``: talk to a model; with a spec, each answer is followed by what every rule says of it."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import typer


def chat(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    spec: Annotated[
        Path | None, typer.Option(help="A spec file, or the name of a shipped one: a verdict per rule beside each answer.")
    ] = None,
    render: Annotated[
        Literal["none", "applicable", "all"], typer.Option(help="Which rules of the spec the model reads before the question.")
    ] = "none",
    documents: Annotated[
        Path | None,
        typer.Option(metavar="INDEX", help="Answer from these documents (norma retrieve index): passages before every question."),
    ] = None,
    passages: Annotated[int, typer.Option(min=1, help="Most passages before a question.")] = 4,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="A system message before the conversation.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0 always takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample among the likeliest tokens that hold this share of probability.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Sample among so many of the likeliest tokens; 0 for all.")] = 0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
) -> None:
    """Talk to a model. Reads questions from the keyboard, or one a line from a pipe."""
    import norma
    from norma.evaluate.sampling import Options
    from norma.serve.talk import HELP, Talk, questions
    from norma.spec import Spec

    loaded = None if spec is None else Spec.load(spec)
    options = Options(max_new_tokens, temperature, top_p, top_k, seed)
    opened = norma.load(model)
    person = sys.stdin.isatty()
    found = None
    if documents is not None:
        from norma.generate.retrieval import Documents, Index

        found = Documents(Index(documents), opened, count=passages, room=max_new_tokens)
    talk = Talk(opened, options, loaded, render, system, colour=sys.stdout.isatty(), documents=found)
    if person:
        with suppress(ImportError):
            import readline  # noqa: F401 -- its import gives input() line editing and a history
        print(f"{opened.name}. {HELP}")
    for line in questions(person):
        if line in ("/quit", "/exit"):
            break
        if line == "/new":
            talk.history.clear()
            print("(a new conversation)")
        elif line.startswith("/"):
            print(HELP)
        else:
            talk.turn(line)
