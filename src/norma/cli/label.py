"""``norma label ...``: the label store from the shell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from norma.base.errors import NormaError, nearest

if TYPE_CHECKING:
    from norma.labels import Label
    from norma.labels.formats.batch import Reading

_Store = Annotated[str, typer.Argument(metavar="STORE", help="A label store: a path (SQLite) or postgresql://host/name.")]
_Rule = Annotated[str | None, typer.Option(metavar="ID", help="Only this rule; for an import: the rule where the file names none.")]
_Spec = Annotated[Path | None, typer.Option(metavar="SPEC", help="The spec file: meaning hashes of the rules, and the acceptance rule.")]
_Map = Annotated[str | None, typer.Option("--map", metavar="FIELD=COLUMN,...", help="Columns of a table: item=Id,score=Score*,...")]
_Scale = Annotated[str | None, typer.Option(metavar="WORST:BEST", help="The scale of scores, mapped to 0..1, such as 1:25.")]
_Threshold = Annotated[float | None, typer.Option(help="The score in 0..1 from which an answer complies [default: 0.5].")]
_Words = Annotated[list[str] | None, typer.Option("--verdict", metavar="WORD=VERDICT", help="What their words mean: good=compliant.")]
_Source = Annotated[Literal["human", "checker", "judge", "all"], typer.Option(help="Whose marks.")]
_FORMATS = {
    "norma": "jsonl", "csv": "csv", "argilla": "json", "label-studio": "json",
    "sft": "jsonl", "preference": "jsonl", "kto": "jsonl", "classifier": "jsonl",
}  # fmt: skip


def import_(
    store: _Store,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Labels: Norma's, CSV, Argilla's, Label Studio's, or training rows.")],
    format: Annotated[str, typer.Option(help="norma, table, argilla, label-studio or trl [default: as the file looks].")] = "auto",
    rule: _Rule = None,
    spec: _Spec = None,
    annotator: Annotated[str, typer.Option(help="Who marked, where the file does not say.")] = "",
    language: Annotated[str, typer.Option(help="BCP-47, where the file does not say.")] = "",
    map_: _Map = None,
    scale: _Scale = None,
    threshold: _Threshold = None,
    verdict: _Words = None,
) -> None:
    """Add the labels of a file to a store. A mark that is there already is left alone, so a second run adds nothing."""
    from norma.labels import LabelStore
    from norma.labels.formats.files import read

    reading = _reading(rule, spec, annotator, language, scale, threshold, verdict)
    batch = read(file, reading, format, _pairs(map_))
    with LabelStore(store) as opened:
        items = opened.add_items(batch.items)
        added = opened.add(batch.labels)
    for note in batch.notes:
        print(f"note: {note}")
    print(f"{store}: {added:,} of {len(batch.labels):,} marks were new, {items:,} of {len(batch.items):,} inputs")


def export(
    store: _Store,
    output: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write.")],
    format: Annotated[str, typer.Option(help=f"{', '.join(_FORMATS)}.")] = "norma",
    rule: _Rule = None,
    spec: _Spec = None,
    source: _Source = "all",
    role: Annotated[Literal["train", "report"], typer.Option(help="Whose checkers guard a correction.")] = "train",
) -> None:
    """Write a frozen copy of the labels that hold, or training rows made of them; says what the format cannot hold."""
    from norma.base.files import write_json, write_jsonl, write_text
    from norma.labels import LabelStore
    from norma.labels.formats import argilla, batch, label_studio, tables
    from norma.labels.store import export_digest

    if format not in _FORMATS:
        raise NormaError(f"unknown format '{format}'", mend=nearest(format, _FORMATS))
    with LabelStore(_there(store)) as opened:
        labels, items = _chosen(opened.rows(rule=rule, current=True), source), opened.items()
    notes: list[str] = []
    if format == "norma":
        rows = [label.row() for label in labels]
        write_jsonl(output, rows)
        notes.append(f"digest {export_digest(rows)}")
    elif format == "csv":
        write_text(output, tables.write(labels))
    elif format in ("argilla", "label-studio"):
        write, read = (argilla.write, argilla.read) if format == "argilla" else (label_studio.write, label_studio.read)
        rows = write(batch.tasks_from_labels(labels), items)
        write_json(output, rows)
        notes += batch.lost(labels, read(rows, batch.Reading()).labels, "Argilla" if format == "argilla" else "Label Studio")
        if format == "label-studio":
            write_text(output.with_suffix(".xml"), label_studio.configuration(sorted({label.rule for label in labels})))
            notes.append(f"labelling configuration: {output.with_suffix('.xml')}")
    else:
        rows, notes = _training(format, labels, items, spec, role)
        write_jsonl(output, rows)
    for note in notes:
        print(f"note: {note}")
    print(f"{output}: {len(labels if format == 'csv' else rows):,} rows of {len(labels):,} marks")


def _training(format: str, labels: list[Label], items: Mapping[str, Any], spec: Path | None, role: Any) -> tuple[list[Any], list[str]]:
    from norma.labels import training
    from norma.spec import Spec

    if format in ("kto", "classifier"):
        made = training.kto_rows(labels, items) if format == "kto" else training.classifier_rows(labels, items)
        rows, why = made.rows, made.left_out
    else:
        if spec is None:
            raise NormaError("a correction is accepted by the rules of a spec", mend="Name it: --spec SPEC")
        accepted, why = training.corrections(labels, items, Spec.load(spec), role=role)
        rows = training.sft_rows(accepted, items) if format == "sft" else training.preference_rows(accepted, items)
    return rows, [f"left out: {count:,} x {reason}" for reason, count in why.most_common()]


def agree(
    store: Annotated[str, typer.Argument(metavar="STORE|FILE", help="A label store, or a file of labels.")],
    rule: _Rule = None,
    source: _Source = "human",
    on: Annotated[Literal["verdict", "score"], typer.Option(help="What is compared.")] = "verdict",
    metric: Annotated[
        Literal["nominal", "ordinal", "interval"] | None, typer.Option(help="Distance of alpha [default: nominal; interval for scores].")
    ] = None,
    consensus: Annotated[bool, typer.Option("--consensus", help="Also Dawid and Skene's estimate: how each annotator errs.")] = False,
    resamples: Annotated[int, typer.Option(min=0, help="Of the bootstrap over items.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    map_: _Map = None,
    scale: _Scale = None,
    threshold: _Threshold = None,
    verdict: _Words = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """How far annotators agree, per rule and language, with 95% intervals by item."""
    from norma.labels import summary

    reading = _reading(rule, None, "", "", scale, threshold, verdict)
    labels = _chosen(_load(store, reading, map_, any(o is not None for o in (map_, scale, threshold, verdict))), source)
    labels = [label for label in labels if rule is None or label.rule == rule]
    if not labels:
        raise NormaError("no mark fits", where=store, mend="See --rule and --source")
    chosen = metric or ("interval" if on == "score" else "nominal")
    questions: tuple[summary.Question, ...] = ("score",) if on == "score" else ("applies", "kept")
    rows = summary.table(labels, questions, metric=chosen, resamples=resamples, seed=seed)
    people = summary.annotators(labels) if consensus else []
    if json_:
        print(json.dumps({"agreement": [r.json() for r in rows], "annotators": [p.json() for p in people]}, ensure_ascii=False, indent=2))
        return
    _print_agreement(rows, people)


def _print_agreement(rows: list[Any], people: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 160, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("rule", "lang", "question", "items", "marks", "people", "missing", "raw", "alpha", "AC", "kappa", "in words"):
        table.add_column(name, justify="right" if name in ("items", "marks", "people", "missing", "raw") else "left", overflow="fold")
    meanings = {(r.rule, r.rule_hash) for r in rows}
    several = {rule for rule, _ in meanings if sum(other == rule for other, _ in meanings) > 1}
    for r in rows:
        rule = f"{r.rule} ({r.rule_hash[:6] or 'no hash'})" if r.rule in several else r.rule
        question = {"applies": "applies?", "kept": "kept?", "score": f"score ({r.metric})"}[r.question]
        numbers = (f"{r.items:,}", f"{r.marks:,}", f"{r.annotators:,}", f"{r.missing:,}", _number(r.raw))
        table.add_row(rule, r.language or "-", question, *numbers, _interval(r.alpha), _interval(r.ac1), _interval(r.kappa), r.words)
    console.print(table)
    for title, group in {p.title: [q for q in people if q.title == p.title] for p in people}.items():
        console.print(f"\n[bold]{title}[/] (Dawid and Skene: share of marks like the estimated truth)")
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("annotator", "marks", "of kept: says kept", "of broken: says broken"):
            table.add_column(name, justify="left" if name == "annotator" else "right")
        for person in group:
            table.add_row(person.annotator, f"{person.marks:,}", _number(person.sees_kept), _number(person.sees_broken))
        console.print(table)


def queue(
    store: _Store,
    count: Annotated[int, typer.Option(min=0, help="How many answers to show; 0: only the audit stream's rates so far.")] = 100,
    rule: _Rule = None,
    seed: Annotated[int, typer.Option(help="Equal seeds and stores give equal queues.")] = 0,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the tasks here.")] = None,
    format: Annotated[Literal["norma", "argilla", "label-studio"], typer.Option(help="Of the tasks.")] = "norma",
) -> None:
    """Choose which answers people mark next: 30% uniform, 40% doubtful, 20% predicted rare violations, 10% unlike the rest.

    The choice is kept in the store. Rates of the model are estimated from the uniform part alone.
    """
    from collections import Counter

    from norma.base.files import write_json, write_jsonl
    from norma.labels import LabelStore, queues
    from norma.labels.audit import audited
    from norma.labels.formats import argilla, batch, label_studio

    if count and output is None:
        raise NormaError("nowhere to write the tasks", mend="Name a file: --output FILE, or --count 0 for the rates alone")
    with LabelStore(_there(store)) as opened:
        labels, items = opened.rows(rule=rule, current=True), opened.items()
        found = queues.candidates(labels, {name: item.source for name, item in items.items()})
        before = opened.draws("uniform", rule)
        drawn = queues.draw(found, count, seed=seed, audited={d.answer for d in before})
        if drawn and output is not None:
            tasks = batch.tasks_from_draws(drawn, labels)
            if format == "norma":
                asked = {name: [dict(m) for m in item.messages] for name, item in items.items()}
                write_jsonl(output, [queues.to_mark(d, asked.get(d.item, [])) for d in drawn])
            else:
                write_json(output, argilla.write(tasks, items) if format == "argilla" else label_studio.write(tasks, items))
            opened.add_draws(drawn)
            parts = Counter(d.queue for d in drawn)
            print(f"{output}: {len(drawn):,} of {len(found):,} answers: " + ", ".join(f"{parts[q]} {q}" for q in queues.SHARES))
    for name in sorted({d.rule for d in before}):
        mine, marks = [d for d in before if d.rule == name], [m for m in labels if m.rule == name]
        last = [d for d in mine if d.draw == mine[-1].draw]
        for title, draws in [("", mine), *([(" (last draw alone)", last)] if len(last) < len(mine) else [])]:
            rate = audited(draws, marks)
            said = "no mark yet" if rate.rate is None else f"{rate.rate:.1%} kept (95% {rate.low:.1%} to {rate.high:.1%})"
            print(f"audit stream, {name}{title}: {said}; {rate.marked:,} of {rate.drawn:,} drawn answers marked")


def _load(place: str, reading: Reading, map_: str | None, file_only: bool) -> list[Label]:
    """The labels that hold, of a store or a file. ``file_only``: options are given that say how a file is read."""
    from norma.labels import LabelStore
    from norma.labels.formats.files import read
    from norma.labels.rows import current

    if "://" not in place:
        path = Path(place)
        if not path.is_file():
            raise NormaError("file not found", where=place)
        with path.open("rb") as handle:
            if not handle.read(16).startswith(b"SQLite format 3"):
                return current(read(path, reading, "auto", _pairs(map_)).labels)
    if file_only:
        raise NormaError("a store's marks are what they are", where=place, mend="--map, --scale, --threshold and --verdict are for files")
    with LabelStore(place) as opened:
        return opened.rows(current=True)


def _there(store: str) -> str:
    """A store to read from: a wrong path must not become a new, empty store."""
    if "://" not in store and not Path(store).is_file():
        raise NormaError("there is no label store here", where=store, mend="Check the path; 'norma label import' makes one")
    return store


def _chosen(labels: list[Label], source: str) -> list[Label]:
    return [label for label in labels if source == "all" or label.source == source]


def _reading(
    rule: str | None, spec: Path | None, annotator: str, language: str, scale: str | None, threshold: float | None, words: list[str] | None
) -> Reading:
    from norma.labels.formats.batch import VERDICTS, Reading

    hashes: dict[str, str] = {}
    if spec is not None:
        from norma.spec import Spec

        loaded = Spec.load(spec, checkers=False)
        hashes = {r.id: r.hash for r in loaded.rules}
        if rule is not None:
            loaded.rule(rule)  # raises with the nearest name
    ends = None
    if scale is not None:
        try:
            worst, best = (float(end) for end in scale.split(":"))
        except ValueError:
            raise NormaError(f"'{scale}' is not a scale", mend="Give the worst and the best score: --scale 1:5") from None
        if worst == best:
            raise NormaError("a scale needs two different ends", mend="Give the worst and the best score: --scale 1:5")
        ends = (worst, best)
    verdicts = {word.lower().replace("_", " "): verdict for word, verdict in _pairs(",".join(words or [])).items()}
    for verdict in verdicts.values():
        if verdict not in VERDICTS:
            raise NormaError(f"'{verdict}' is not a verdict", mend=nearest(verdict, VERDICTS))
    verdicts |= {word.replace(" ", "_"): verdict for word, verdict in verdicts.items()}
    return Reading(rule or "", hashes, {}, verdicts, ends, 0.5 if threshold is None else threshold, annotator, language)


def _pairs(text: str | None) -> dict[str, str]:
    """a=b,c=d as a mapping."""
    found = {}
    for part in filter(None, (text or "").split(",")):
        name, sign, value = part.partition("=")
        if not sign or not name.strip() or not value.strip():
            raise NormaError(f"'{part}' is not NAME=VALUE")
        found[name.strip()] = value.strip()
    return found


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.3f}"


def _interval(value: Any) -> str:
    if value is None or value.value != value.value:
        return "-"
    return f"{value.value:.3f} ({_number(value.low)} to {_number(value.high)})"
