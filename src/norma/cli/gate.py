"""``norma gate OLD NEW SPEC``: may the new model take the place of the old one?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from norma.base.errors import NormaError

if TYPE_CHECKING:
    from norma.evaluate.sampling import Answerer, Options
    from norma.evaluate.versus import Versus


def gate(
    old: Annotated[str, typer.Argument(help="A model folder, or URL#NAME of a model behind an endpoint.")],
    new: Annotated[str, typer.Argument(help="The one that is to take its place.")],
    spec: Annotated[Path, typer.Argument(help="The spec file.")],
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ask these (.jsonl or .txt) instead of the spec's elicitation prompts.")
    ] = None,
    margin: Annotated[float, typer.Option(help="The loss of compliance that must be excluded.")] = 0.05,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where answers and report go [default: norma-gate/SPEC-OLD-NEW].")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable with the endpoint's key [default: OPENAI_API_KEY where set].")
    ] = None,
    render: Annotated[Literal["none", "applicable", "all"], typer.Option(help="Which rules stand in the prompt.")] = "none",
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to an endpoint at once.")] = 4,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 128,
    seed: Annotated[int, typer.Option(help="Of bootstrap and permutation; answers are greedy.")] = 0,
) -> None:
    """Put the same prompts to both and compare rule by rule, pair by pair.

    Exit code 0: no rule is worse (a loss of the margin is excluded); 1: a rule got worse; 2: undecided, mostly too few
    prompts, or wrong input. A comparison that was stopped goes on with the same command.
    """
    from rich.console import Console

    from norma.cli.asking import Bar
    from norma.evaluate.gate import default_folder
    from norma.evaluate.prompts import read_prompts
    from norma.evaluate.sampling import Options
    from norma.evaluate.trials import plain_prompts
    from norma.evaluate.versus import compare_models
    from norma.spec import Spec

    loaded = Spec.load(spec)
    options = Options(max_new_tokens=max_new_tokens, seed=seed)
    pair = (_named(old, options, api_key_env, concurrency), _named(new, options, api_key_env, concurrency))
    if pair[0].identity == pair[1].identity:
        raise NormaError("both are the same model", mend="Give two that differ")
    items = read_prompts(prompts) if prompts else plain_prompts(loaded)
    folder = out or Path("norma-gate") / f"{default_folder(loaded, pair[0].name).name}-{default_folder(loaded, pair[1].name).name}"
    with Bar(f"{pair[0].name} and {pair[1].name}") as bar:
        result = compare_models(loaded, items, pair, folder, render=render, margin=margin, progress=bar.update)
    console = Console()
    console.print(findings_table(result))
    console.print(f"Report: {folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(result.exit_code)


def _named(text: str, options: Options, key_env: str | None, concurrency: int) -> Answerer:
    from norma.cli.asking import answerer_for

    if text.startswith(("http://", "https://")):
        url, mark, name = text.partition("#")
        if not mark or not name:
            raise NormaError("the endpoint lacks the name of a model", where=text, mend="Write URL#NAME")
        return answerer_for(None, url, name, options, key_env, concurrency)
    return answerer_for(Path(text), None, "", options, key_env, concurrency)


def findings_table(result: Versus) -> Any:
    """One row a rule: old and new rate, change with its interval, Holm's p, what it means."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from norma.evaluate.report.figures import p_value, percent, points

    report = result.report
    table = Table(title=Text(report["run"]["name"]), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("rule", overflow="fold")
    for name in ("old", "new", "change, points", "p Holm"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    colours = {"better": "green", "held": "green", "worse": "red", "undecided": "yellow"}
    for f in result.findings:
        change = "–" if f.row["delta"] is None else f"{points(f.row['delta'])} [{points(f.row['low'])}, {points(f.row['high'])}]"
        cells = [percent(f.row["before_rate"], unit=False), percent(f.row["after_rate"], unit=False), change, p_value(f.row["p_holm"])]
        table.add_row(Text(f.rule), *map(Text, cells), Text(f"{f.found}: {f.why}", style=colours[f.found]))
    return table
