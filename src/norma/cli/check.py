"""``norma check``: does a model, here or behind an endpoint, keep the rules of a spec?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from norma.base.errors import NormaError

if TYPE_CHECKING:
    from norma.evaluate.gate import GateResult


def check(
    spec: Annotated[Path, typer.Argument(help="A spec file, or the name of a shipped one (norma spec list).")],
    model: Annotated[Path | None, typer.Option(help="A model folder.")] = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="An OpenAI-compatible server, for example http://127.0.0.1:8000/v1.")
    ] = None,
    model_name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the model at the endpoint.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ask these (.jsonl or .txt) instead of the spec's elicitation prompts.")
    ] = None,
    fail_under: Annotated[float | None, typer.Option(help="Target of every rule, instead of the spec's own targets.")] = None,
    gate: Annotated[
        Literal["point", "lower"], typer.Option(help="Compare the rate with the target, or ask the whole interval to reach it.")
    ] = "point",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where answers and report go [default: norma-check/SPEC-MODEL].")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Environment variable with the endpoint's key [default: OPENAI_API_KEY where set].")
    ] = None,
    render: Annotated[Literal["none", "applicable", "all"], typer.Option(help="Which rules stand in the prompt.")] = "none",
    concurrency: Annotated[int, typer.Option(min=1, help="Requests to the endpoint at once.")] = 4,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="0 always takes the likeliest token.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the samples, where the temperature is above 0.")] = 0,
    attack: Annotated[bool, typer.Option("--attack", help="Ask every prompt again inside five kinds of attack.")] = False,
    control: Annotated[
        int, typer.Option(min=0, metavar="N", help="Ask N prompts again with each rule on and off: does the spec steer?")
    ] = 0,
    together: Annotated[
        list[str] | None, typer.Option(metavar="RULE+RULE", help="Rules that --control shows together too; may be given several times.")
    ] = None,
    groups: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="Ask again as members of groups: gender, origin, age, faith.")
    ] = None,
    audit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Exported labels (.jsonl): fair marks by people correct the checkers' rates.")
    ] = None,
    price: Annotated[
        str | None, typer.Option(metavar="IN,OUT", help="Money per million tokens read and written, for the estimate.")
    ] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Ask a first few, say what all would take, and stop.")] = False,
) -> None:
    """Ask a model, judge its answers by a spec and write the report.

    Exit code 0: every target is reached; 1: a rule is below its target; 2: undecided, or wrong input. A check that was
    stopped goes on with the same command: answers that came are not asked for again.
    """
    from rich.console import Console

    from norma.base.files import read_jsonl
    from norma.cli.asking import Bar, answerer_for, parse_price
    from norma.evaluate.attacks import ATTACKS
    from norma.evaluate.gate import check_model, default_folder, estimate_check, questions
    from norma.evaluate.prompts import read_prompts
    from norma.evaluate.sampling import Options
    from norma.evaluate.trials import Probe, plain_prompts
    from norma.spec import Spec

    if (model is None) == (endpoint is None):
        raise NormaError("say which model to check", mend="Give either --model FOLDER or --endpoint URL --model-name NAME")
    if endpoint is not None and not model_name:
        raise NormaError("--endpoint needs the name of a model there", mend="Add --model-name NAME; GET URL/models lists the names")
    loaded = Spec.load(spec)
    items = read_prompts(prompts) if prompts else plain_prompts(loaded)
    combined = tuple(tuple(text.split("+")) for text in together or ())
    probe = Probe(control, combined, tuple(ATTACKS) if attack else (), tuple(groups or ()), own=prompts is None)
    money = parse_price(price)
    options = Options(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    answerer = answerer_for(model, endpoint, model_name or "", options, api_key_env, concurrency)
    folder = out or default_folder(loaded, answerer.name)
    # What an attack or a prompts file asks of a rule is judged by the same checkers; the gate counts the plain prompts alone.
    asked = questions(loaded, items, render, probe)
    found = estimate_check(asked, answerer, folder, max_new_tokens=max_new_tokens, concurrency=concurrency, price=money)
    Console(stderr=True).print(found.sentence(), markup=False, highlight=False, soft_wrap=True)
    if estimate:
        return
    with Bar(answerer.name) as bar:
        result = check_model(
            loaded,
            items,
            answerer,
            folder,
            render=render,
            gate=gate,
            fail_under=fail_under,
            probe=probe,
            audit=read_jsonl(audit) if audit else (),
            progress=bar.update,
        )
    _show(Console(), result)
    raise typer.Exit(result.exit_code)


def _show(console: Any, result: GateResult) -> None:
    console.print(verdict_table(result))
    for answer in result.failures[:3]:
        console.print(f"no answer to {answer.item}: {answer.error}", markup=False, highlight=False, soft_wrap=True)
    if len(result.failures) > 3:
        console.print(f"... and {len(result.failures) - 3} more without an answer (answers.jsonl has them)", markup=False, highlight=False)
    for o in result.outcomes:
        if o.why:
            console.print(f"{o.rule}: {o.found}, {o.why}", markup=False, highlight=False, soft_wrap=True)
    for line in _trials(result.report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(_summary(result), markup=False, highlight=False, soft_wrap=True)
    console.print(f"Report: {result.folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def _trials(report: Any) -> list[str]:
    """One line an attack, a rule that was switched on and off, and a gap: what the gate does not count."""
    from norma.evaluate.report.figures import percent, points
    from norma.evaluate.report.wording import kind_name

    def change(row: Any) -> str:
        return f"{points(row['delta'])} points [{points(row['low'])}, {points(row['high'])}]"

    lines = []
    for row in report["attack"]:
        if row["rule"] is None:
            against = f", {change(row)} against the plain prompts" if row["delta"] is not None else ""
            lines.append(f"Under attack ({row['kind']}): {percent(row['rate'])} of the rules kept{against}")
    for row in report["control"]:
        shown = "" if len(row["shown"]) == 1 else f" beside {', '.join(r for r in row['shown'] if r != row['rule'])}"
        lines.append(f"Steering by {row['rule']}{shown}: {percent(row['off'])} → {percent(row['on'])}, {change(row)}")
    for row in report["gaps"]:
        if row["rule"] is None:
            lines.append(f"Gap {kind_name(row['groups'][0])[0]} → {kind_name(row['groups'][1])[0]}: {change(row)}")
    return lines


def _summary(result: GateResult) -> str:
    if not result.outcomes:
        return "No rule has a target: nothing was gated. Add 'target: {min_rate: ...}' to the spec, or give --fail-under."
    count = {found: sum(o.found == found for o in result.outcomes) for found in ("passed", "failed", "undecided")}
    return f"Targets: {count['passed']} passed, {count['failed']} failed, {count['undecided']} undecided, of {len(result.outcomes)}."


def verdict_table(result: GateResult) -> Any:
    """One row a rule: kept of applicable, rate with its interval, held-out rate, target and what became of it; fits 80 columns."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from norma.evaluate.report.figures import percent

    report, method = result.report, result.report["methods"][0]
    title = f"{report['spec']['id']} {report['spec']['version']}: {method['method']}, {result.answers} prompts"
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("rule", overflow="fold")
    # A column of zeros says nothing: "no verdict" (unsure and error) stands only where there is one.
    missing = any(row["unsure"] + row["error"] for row in method["rules"])
    level = f"{report['settings']['confidence']:.0%}"
    for name in ("kept", *(["no\nverdict"] if missing else []), f"rate\n[{level} interval]", "held\nout", "target"):
        table.add_column(Text(name), justify="right", no_wrap=True)  # only rule ids may wrap: figures never lose a digit
    table.add_column("gate", no_wrap=True)
    heldout = {row["rule"]: row for row in (method["heldout"] or {}).get("rules", [])}
    outcomes = {o.rule: o for o in result.outcomes}
    colours = {"passed": "green", "failed": "red", "undecided": "yellow"}

    def figures(row: Any) -> list[str]:
        span = f"[{percent(row['low'], unit=False)}, {percent(row['high'], unit=False)}]"
        rate = "-" if row["rate"] is None else f"{percent(row['rate'])} {span}"
        undecided = [str(row["unsure"] + row["error"])] if missing else []
        return [f"{row['compliant']}/{row['applicable']}", *undecided, rate]

    def cell(text: str, style: str = "") -> Text:
        return Text(text, style=style)

    for row in method["rules"]:
        o, out = outcomes.get(row["rule"]), heldout.get(row["rule"])
        table.add_row(
            Text(row["rule"]),
            *map(cell, figures(row)),
            cell(percent(out["rate"]) if out and out["rate"] is not None else ""),
            cell(percent(o.target) if o else ""),
            cell(o.found, colours[o.found]) if o else cell(""),
        )
    table.add_row(Text("overall"), *map(cell, figures(method["overall"])))
    return table
