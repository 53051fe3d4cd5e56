"""Pairs stage: what people preferred, rewrote or marked becomes rows of pairs, marks and conversations.

files, folders, hub ─→ shapes and tables (norma.align.people) ─┐
label store (labels.sqlite, labels.jsonl) ─→ norma.align.marked ┴─→ pairs, marks, conversations .train/.validation.jsonl, quarantine.jsonl
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from norma.base.errors import NormaError
from norma.base.hashing import digest, file_digest
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions

if TYPE_CHECKING:
    from norma.align.people import Made
    from norma.text.quarantine import Quarantine

_STORES = (".sqlite", ".db")


class PeopleSource(BaseModel):
    """One source of pairs or marks."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    path: str | None = Field(
        None, description="A file or folder (.json .jsonl .csv .tsv .parquet, each also .gz), hub:NAME, or a label store (path or URL)."
    )
    rows: InputRef | None = Field(None, description="The same in another stage's folder, such as correction/labels.sqlite.")
    format: Literal["auto", "chats", "table", "labels"] = Field(
        "auto", description="chats: pairs, marked answers or conversations; table: see columns; labels: Norma's marks; auto: as it looks."
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="Of a table: original and rewrite (may end with *), or text and label, or text and score."
    )
    desirable: list[str] = Field(default_factory=list, description="Labels of a table that mean desirable; all others mean undesirable.")
    threshold: float | None = Field(None, description="Score of a table from which a text is desirable.")
    band: float = Field(0.0, ge=0, description="Texts whose score is nearer to the threshold are left out.")
    rule: str | None = Field(None, description="The rule that a table's labels or scores are about.")
    prompt: dict[str, str] = Field(
        default_factory=dict, description="By language: the prompt of texts that have none; {text} stands for the original of a rewrite."
    )
    language: str | None = Field(None, description="Language of all rows; null: by script, zh or en.")
    questions: InputRef | None = Field(None, description="Inputs of a labels.jsonl, which holds none: a file of question rows.")
    most: int | None = Field(None, ge=1, description="Most rows of a kind that are taken, from the start.")

    @model_validator(mode="after")
    def _one(self) -> PeopleSource:
        if (self.path is None) == (self.rows is None):
            raise ValueError("a source is one of path, rows")
        return self

    @property
    def labels(self) -> bool:
        """Whether this is a label store, as far as its name says."""
        name = self.path or self.rows or ""
        store = name.endswith(_STORES) or Path(name).name == "labels.jsonl" or _url(name)
        return self.format == "labels" or (self.format == "auto" and store)


class PairsOptions(StageOptions):
    """Options of a ``pairs`` stage."""

    sources: list[PeopleSource] = Field(min_length=1, description="Where pairs and marks come from.")
    validation_share: float = Field(
        0.1, ge=0, lt=1, description="Share of the groups held out; a group is what shares its first question or its original."
    )


def _url(name: str) -> bool:
    return "://" in name


def marks_digest(place: str, base: Path) -> str | None:
    """Digest of the marks in a label store (a path or URL in a recipe of the folder ``base``); None where there is none."""
    from norma.labels import LabelStore
    from norma.labels.store import export_digest

    path = base / Path(place).expanduser()
    if not _url(place) and not path.is_file():
        return None
    with LabelStore(place if _url(place) else path) as store:
        return export_digest(label.row() for label in store.rows())


class Pairs(Stage[PairsOptions]):
    """Streams: memory holds digests of the rows, not the text (marks of a label store excepted)."""

    kind, version, Options = "pairs", 1, PairsOptions

    def spec_use(self, options: PairsOptions) -> bool | tuple[str, ...]:
        return any(source.labels for source in options.sources)

    def fingerprint(self, options: PairsOptions, base: Path) -> Any:
        from norma.text.readers import HUB, files_of

        found: dict[str, Any] = {}
        for source in options.sources:
            if source.path is None or source.path.startswith(HUB):
                continue
            if source.labels and not source.path.endswith(".jsonl"):
                found[source.path] = marks_digest(source.path, base)
            else:
                path = base / Path(source.path).expanduser()
                found[source.path] = {name: file_digest(p) for p, name in files_of(path)} if path.exists() else {}
        return found

    def run(self, ctx: Context[PairsOptions]) -> dict[str, Any]:
        from norma.align.people import KINDS
        from norma.base.files import write_json
        from norma.text.quarantine import Quarantine

        with Quarantine(ctx.folder / "quarantine.jsonl") as quarantine:
            counts = _write(ctx, quarantine)
        report = {"rows": counts, "set_aside": dict(quarantine.reasons.most_common())}
        write_json(ctx.folder / "pairs.json", report)
        lines = []
        for kind in KINDS:
            of = counts[kind]
            if of["train"] + of["validation"]:
                share = f", {of['desirable'] / (of['train'] + of['validation']):.0%} desirable" if kind == "marks" else ""
                ctx.progress.say(f"{kind}: {of['train']:,} to learn from, {of['validation']:,} held out{share}")
                lines.append(kind)
        if len(quarantine):
            ctx.progress.say(f"{len(quarantine):,} rows set aside (quarantine.jsonl): {_most(quarantine)}")
        if not lines:
            raise NormaError("no source gave a pair, mark or conversation", where=ctx.folder / "quarantine.jsonl", mend=_most(quarantine))
        return report


def _most(quarantine: Quarantine) -> str:
    return "; ".join(f"{count:,} x {reason}" for reason, count in quarantine.reasons.most_common(3))


def _write(ctx: Context[PairsOptions], quarantine: Quarantine) -> dict[str, dict[str, int]]:
    """Write the six files, of which empty ones are taken away again; returns {kind: {train, validation, desirable, doubles}}."""
    from contextlib import ExitStack

    from norma.align.people import KINDS, group_key
    from norma.base.files import atomic_writer, to_json
    from norma.text.split import Side, split

    sides: tuple[Side, Side] = ("train", "validation")
    counts: dict[str, dict[str, int]] = {kind: {"train": 0, "validation": 0, "desirable": 0, "doubles": 0} for kind in KINDS}
    seen: set[bytes] = set()
    with ExitStack() as stack:
        files = {(k, s): stack.enter_context(atomic_writer(ctx.folder / f"{k}.{s}.jsonl")) for k in KINDS for s in sides}
        for number, source in enumerate(ctx.options.sources):
            name = source.path or source.rows or ""
            taken = dict.fromkeys(KINDS, 0)
            for made in _rows(ctx, source, quarantine):
                if source.most is not None and taken[made.kind] >= source.most:
                    if all(count >= source.most or not count for count in taken.values()):
                        break
                    continue
                row = made.row
                same = bytes.fromhex(digest([made.kind, row["messages"], *(row.get(k) for k in ("chosen", "rejected", "answer"))]))
                if same in seen:
                    counts[made.kind]["doubles"] += 1
                    continue
                seen.add(same)
                group = group_key(made.group)
                side = split(group, ctx.seed, ctx.options.validation_share)
                stem = Path(name).name.split(".")[0]
                about = {"id": f"{number}/{row['id']}", "source": row.get("source") or f"{stem}:{digest(group)[:12]}"}
                files[made.kind, side].write(to_json({**row, **about}) + "\n")
                taken[made.kind] += 1
                counts[made.kind][side] += 1
                counts[made.kind]["desirable"] += row.get("desirable") is True
    for kind in KINDS:
        for side in sides:
            if not counts[kind][side]:
                (ctx.folder / f"{kind}.{side}.jsonl").unlink()
    return counts


def _rows(ctx: Context[PairsOptions], source: PeopleSource, quarantine: Quarantine) -> Iterator[Made]:
    from norma.align.people import KNOWN, Reading, Table, people_rows
    from norma.text.readers import HUB, read

    if source.labels:
        yield from _labelled(ctx, source)
        return
    place: str | Path
    if source.path is not None:
        place = source.path if source.path.startswith(HUB) else ctx.outside(source.path)
    else:
        place = ctx.path(source.rows or "")
    table = Table(source.columns, tuple(source.desirable), source.threshold) if source.columns else None
    if table is None and source.format == "table":
        known = ", ".join(sorted("+".join(sorted(names)) for names, _ in KNOWN))
        raise NormaError("a table needs columns", where=place, mend=f"Add columns: {{text: ..., label: ...}} (known without: {known})")
    reading = Reading(table, source.prompt, source.band, source.rule, source.language)
    yield from people_rows(read(place, quarantine), reading, quarantine)


def _labelled(ctx: Context[PairsOptions], source: PeopleSource) -> Iterator[Made]:
    """Marks of a label store: KTO rows; people's corrections; dominance pairs where few answers keep every rule."""
    from norma.align.marked import FEWEST_DESIRABLE, conversation_row, corrected_pairs, dominance_pairs, mark_rows, marked_answers
    from norma.align.people import Made

    labels, items = _store(ctx, source)
    found = marked_answers(labels, items, ctx.spec)
    marks = mark_rows(found)
    pairs, why = corrected_pairs(labels, items, ctx.spec)
    few = bool(marks) and found.desirable_share < FEWEST_DESIRABLE
    over = dominance_pairs(found) if few else []
    ctx.progress.say(
        f"{len(labels):,} marks of {len(found.answers):,} answers: {len(marks):,} decided, {found.desirable_share:.0%} of them desirable"
        + (f"; under {FEWEST_DESIRABLE:.0%}: {len(over)} dominance pairs are made" if few else "")
    )
    for reason, count in [*found.left_out.most_common(), *why.most_common()]:
        ctx.progress.say(f"{count:,} marks gave no row: {reason}")
    by_id = {a.item.id: a.item for a in found.answers}
    for row in marks:
        yield Made("marks", row["source"], row)
        if row["desirable"]:
            yield Made("conversations", row["source"], conversation_row(by_id[row["id"]], row["answer"]))
    for row in [*pairs, *over]:
        yield Made("pairs", row["source"], row)
    for row in pairs:
        yield Made("conversations", row["source"], conversation_row(items[row["id"]], row["chosen"]))


def _store(ctx: Context[PairsOptions], source: PeopleSource) -> tuple[list[Any], dict[str, Any]]:
    """Labels and their inputs."""
    from norma.align.rows import read_items
    from norma.base.files import read_jsonl
    from norma.labels import Label, LabelStore

    path = ctx.path(source.rows) if source.rows else None if _url(source.path or "") else ctx.outside(source.path or "")
    items = {item.id: item for item in read_items(ctx.path(source.questions))} if source.questions else {}
    if path is not None and path.suffix == ".jsonl":
        labels = [Label.from_row(row, where=f"{path}:{n}") for n, row in enumerate(read_jsonl(path), 1)]
        beside = path.with_name("labels.sqlite")
        if not items and beside.is_file():
            with LabelStore(beside) as store:
                items = store.items()
        if not items:
            raise NormaError("these marks hold no inputs", where=path, mend="Give labels.sqlite, or 'questions:' with the inputs' file")
        return labels, items
    if path is not None and not path.is_file():
        raise NormaError("file not found", where=path, mend="Give a label store: labels.sqlite, labels.jsonl, or a database URL")
    with LabelStore(path if path is not None else str(source.path)) as store:
        return store.rows(current=True), items | store.items()
