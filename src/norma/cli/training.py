"""How the stages of a run were trained, in the terminal: batch table, each number's curve with its start and end, alarms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from norma.cli.live import Curve, compact, reading

if TYPE_CHECKING:
    from rich.console import RenderableType


def trained_stages(folder: Path) -> list[dict[str, Any]]:
    """The records of all stages of a run, finished or under way, in running order."""
    from norma.pipeline.training import read_training, trained

    done = trained(p.parent for p in sorted(folder.glob("[!.]*/lineage.json")))
    known = {record["stage"] for record in done}
    for path in sorted((folder / ".work").glob("*/metrics.jsonl")):
        record = read_training(path.parent)
        if record is not None and record["stage"] not in known:
            done.append(record | {"label": {"en": record["stage"], "zh": record["stage"]}})
    return done


def training_view(record: Mapping[str, Any]) -> RenderableType:
    """One stage."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column(justify="right", style="bold")
    table.add_column(style="cyan", no_wrap=True)
    for curve in record["curves"]:
        drawn = Curve()
        for value in curve["values"]:
            drawn.add(value)
        words, first = reading(curve["name"], curve["values"][0])
        table.add_row(f"  {escape(words)}", first, f"→ {reading(curve['name'], curve['values'][-1])[1]}", drawn.drawn())
    head = Text.assemble((record["stage"], "bold"), (f"  {record['kind']}", "dim"), f"  {', '.join(_batch(record['batch']))}")
    return Group(head, table, *_said(record), Text(""))


def _batch(batch: Mapping[str, float]) -> Iterator[str]:
    words = {"sequences": "sequences a step", "tokens": "tokens a step", "micro_batch": "in memory at one time"}
    words |= {"micro_tokens": "tokens in memory at one time", "processes": "processes", "steps": "steps", "epochs": "epochs"}
    for key, said in words.items():
        if key in batch:
            value, one = batch[key], said.removesuffix("es" if key == "processes" else "s")
            yield f"{compact(value) if value >= 10_000 else f'{value:,g}'} {one if value == 1 and key in ('processes', 'steps') else said}"


def _said(record: Mapping[str, Any]) -> Sequence[Any]:
    from rich.text import Text

    alarms = [Text.assemble((f"  step {a['step']:,}: ", "yellow"), a["en"]) for a in record["alarms"]]
    return [*alarms, *(Text(f"  {s['en']}") for s in record["said"])]
