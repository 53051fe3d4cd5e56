"""``norma compare A B``: two models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from norma.base.errors import NormaError


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A model folder, or URL#NAME of a model behind an endpoint.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The other one.")],
    spec: Annotated[str | None, typer.Option(help="A spec file, or the name of a shipped one: every rule judges both.")] = None,
    prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="Ask these (.jsonl or .txt) [default: the spec's own].")] = None,
    tasks: Annotated[str, typer.Option(help="Tasks to measure both on, as for norma evaluate.")] = "",
    data: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="Where a task's rows are; once for each.")] = None,
    train: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="Where its examples come from.")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="A YAML file of tasks.")] = None,
    shots: Annotated[str, typer.Option(help="Examples in the prompt, such as 0,4.")] = "0",
    count: Annotated[int | None, typer.Option(min=1, help="Rows of each task [default: all].")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask tasks as in a chat.")] = False,
    render: Annotated[Literal["none", "applicable", "all"], typer.Option(help="Which rules stand in the prompt.")] = "none",
    margin: Annotated[float, typer.Option(help="The loss of compliance that must be excluded for 'held'.")] = 0.05,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Of rows, examples and resampling; answers are greedy.")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where the page goes [default: norma-compare/A-B].")] = None,
    api_key_env: Annotated[str | None, typer.Option(metavar="NAME", help="Environment variable with the endpoint's key.")] = None,
) -> None:
    """Answers side by side with every rule's verdict, task numbers and compliance with paired intervals: one page, and JSON."""
    from rich.console import Console

    from norma.cli.asking import Bar
    from norma.cli.evaluate import asked_how, changes_table, chosen_tasks, subject_of
    from norma.cli.gate import _named
    from norma.evaluate.benchmarks.subject import LocalSubject
    from norma.evaluate.compare import compare as run
    from norma.evaluate.prompts import read_prompts
    from norma.evaluate.sampling import LocalAnswerer, Options
    from norma.evaluate.trials import plain_prompts
    from norma.spec import Spec

    chosen = chosen_tasks(tasks, config, data or [], train or []) if tasks or config else None
    loaded = None if spec is None else Spec.load(spec)
    items = read_prompts(prompts) if prompts else plain_prompts(loaded) if loaded else []
    options = Options(max_new_tokens=max_new_tokens, seed=seed)
    subjects = (subject_of(first, api_key_env), subject_of(second, api_key_env))
    answerers = tuple(
        LocalAnswerer(s.model, options, s.weights) if isinstance(s, LocalSubject) else _named(text, options, api_key_env, 4)
        for s, text in zip(subjects, (first, second), strict=True)
    )
    if answerers[0].identity == answerers[1].identity:
        raise NormaError("both are the same model", mend="Give two that differ")
    folder = out or Path("norma-compare") / f"{answerers[0].name}-{answerers[1].name}"
    with Bar(f"{answerers[0].name} and {answerers[1].name}") as bar:
        found = run(
            subjects,
            folder,
            answerers=(answerers[0], answerers[1]),
            items=items,
            spec=loaded,
            render=render,
            tasks=chosen,
            how=asked_how(shots, count, seed, False, chat),
            margin=margin,
            progress=bar.update,
        )
    console = Console()
    if found["tasks"]:
        console.print(changes_table(found["tasks"]))
    for rule in found["rules"]:
        console.print(f"{rule['rule']}: {rule['found']}", markup=False, highlight=False)
    console.print(f"Page: {folder / 'compare.html'}", markup=False, highlight=False, soft_wrap=True)
