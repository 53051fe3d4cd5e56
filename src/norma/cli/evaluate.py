"""``norma evaluate MODEL --tasks ...``: public benchmarks, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from norma.base.errors import NormaError

if TYPE_CHECKING:
    from norma.evaluate.benchmarks.run import How
    from norma.evaluate.benchmarks.subject import Subject
    from norma.evaluate.benchmarks.task import Task


def evaluate(
    model: Annotated[str, typer.Argument(help="A model folder, or URL#NAME of a model behind an endpoint (written tasks only).")],
    tasks: Annotated[str, typer.Option(help="Names, separated by commas; with --config all of its tasks by default.")] = "",
    data: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="Where a task's rows are; once for each.")] = None,
    train: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PATH", help="Where its examples come from [default: train.* beside].")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A YAML file of tasks: {tasks: {NAME: {kind, data, prompt, ...}}}.")
    ] = None,
    shots: Annotated[str, typer.Option(help="Examples in the prompt, such as 0,1,4,16: a result each.")] = "0",
    count: Annotated[int | None, typer.Option(min=1, help="Rows of each task, drawn by the seed [default: all].")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of rows, examples and resampling.")] = 0,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Also divide out what the model says without content (2102.09690).")
    ] = False,
    chat: Annotated[bool, typer.Option("--chat", help="Ask as in a chat, by the model's template.")] = False,
    baseline: Annotated[Path | None, typer.Option(metavar="DIR", help="Results of another model: paired tests against it.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where results go [default: norma-evaluate/MODEL].")] = None,
    api_key_env: Annotated[str | None, typer.Option(metavar="NAME", help="Environment variable with the endpoint's key.")] = None,
) -> None:
    """Measure a model on tasks. Stopped, it goes on with the same command; nothing is asked twice.

    Built in are perplexity, blimp, sst2, imdb, ag_news, chnsenticorp, squad, xquad, cmrc2018, aeslc, csl_title, tatoeba_en_zh: say where
    their rows are with --data NAME=PATH (a file, or a folder with test.* and train.*).
    """
    from rich.console import Console

    from norma.cli.asking import Bar
    from norma.evaluate.benchmarks import compare_results
    from norma.evaluate.benchmarks import evaluate as run
    from norma.evaluate.benchmarks.table import results_table

    chosen = chosen_tasks(tasks, config, data or [], train or [])
    how = asked_how(shots, count, seed, calibrate, chat)
    subject = subject_of(model, api_key_env)
    folder = out or Path("norma-evaluate") / subject.name
    with Bar(subject.name) as bar:
        results = run(subject, chosen, folder, how, progress=lambda name, done, total: bar.update(done, total))
    console = Console()
    console.print(results_table(results))
    for task in results["tasks"]:
        for note in task["notes"]:
            console.print(f"{task['task']}, {task['shots']} examples: {note}", markup=False, highlight=False)
    if baseline is not None:
        console.print(changes_table(compare_results(baseline, folder, seed=seed)))
    console.print(f"Results: {folder / 'results.json'}", markup=False, highlight=False, soft_wrap=True)


def chosen_tasks(tasks: str, config: Path | None, data: list[str], train: list[str]) -> dict[str, Task]:
    """The tasks of --tasks, --config, --data and --train."""
    from norma.evaluate.benchmarks import read_tasks, tasks_of

    given = read_tasks(config) if config else {}
    names = [n.strip() for n in tasks.split(",") if n.strip()] or list(given)
    if not names:
        raise NormaError("which tasks?", mend="Give --tasks NAME,NAME or --config FILE")
    return tasks_of(names, given, data, train)


def asked_how(shots: str, count: int | None, seed: int, calibrate: bool, chat: bool) -> How:
    from norma.evaluate.benchmarks.run import How

    parts = [part.strip() for part in shots.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise NormaError(f"--shots '{shots}' is not a list of numbers", mend="For example --shots 0,1,4,16")
    return How(count, tuple(dict.fromkeys(map(int, parts))), seed, calibrate, chat)


def subject_of(text: str, key_env: str | None = None) -> Subject:
    """A model folder, or URL#NAME."""
    from norma.evaluate.benchmarks.subject import EndpointSubject, LocalSubject

    if text.startswith(("http://", "https://")):
        from norma.cli.asking import answerer_for

        url, mark, name = text.partition("#")
        if not mark or not name:
            raise NormaError("the endpoint lacks the name of a model", where=text, mend="Write URL#NAME")
        return EndpointSubject(lambda options: answerer_for(None, url, name, options, key_env, 4))
    import norma
    from norma.base.hashing import folder_digest

    path = Path(text)
    return LocalSubject(norma.load(path), folder_digest(path))


def changes_table(rows: list[dict[str, object]]) -> object:
    """Paired differences: one line a task and score."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from norma.evaluate.benchmarks.table import heading, shown
    from norma.evaluate.report.figures import p_value

    table = Table(title="compared with the baseline", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("task", "shots", "score"):
        table.add_column(name)
    for name in ("before", "after", "change", "95% interval", "p", "p Holm"):
        table.add_column(name, justify="right")
    for r in rows:
        unit = str(r["unit"])
        numbers = [shown(float(r[k]), unit) for k in ("before", "after", "delta")]  # type: ignore[arg-type]
        span = " – ".join(shown(float(r[k]), unit) for k in ("low", "high"))  # type: ignore[arg-type]
        holm = "" if r["p_holm"] is None else p_value(r["p_holm"])  # type: ignore[arg-type]
        cells = (str(r["task"]), str(r["shots"]), heading(str(r["score"]), unit), *numbers, span, p_value(r["p"]), holm)  # type: ignore[arg-type]
        table.add_row(*map(Text, cells))
    return table
