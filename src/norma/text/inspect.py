"""``norma data check``: what a file or folder holds, and three rows as they will be trained.

    path ─→ readers ─→ shapes ─→ Description(format, shape, rows, languages, set aside, warnings, samples)

A sample is a list of segments ``(text, trained)``: the loss counts the trained ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from norma.base.errors import NormaError
from norma.text.chat import Trained, runs, training_row, turns
from norma.text.formats import LANGUAGES, Record, suffix
from norma.text.languages import language_of
from norma.text.quarantine import Quarantine
from norma.text.readers import HUB, files_of, read, read_file
from norma.text.scan import scan_file
from norma.text.shapes import TITLES, Completion, Conversation, Layout, Message, Preference, Row, Text, Turns, majority, shaped
from norma.text.tokenizer import Tokenizer

Segment = tuple[str, bool]
SAMPLES = 3
NOT_TEXT = "a table: a task says which columns are input and output"
HEAD = 200  # rows whose layout decides, as in norma.text.shapes


FORMAT_NAMES = {
    ".txt": "text",
    ".md": "Markdown",
    ".json": "JSON",
    ".jsonl": "JSON lines",
    ".csv": "CSV",
    ".tsv": "TSV",
    ".parquet": "Parquet",
    ".py": "Python",
}


class Encoder(Protocol):
    """The part of a tokenizer that is needed here: to count tokens."""

    def encode(self, text: str, *, special: bool = False) -> list[int]: ...


@dataclass
class Sample:
    """One row as it is trained; ``note`` says what else is done with it (for example the rejected answer of a pair)."""

    where: str
    segments: list[Segment]
    note: str = ""
    tokens: int | None = None
    trained_tokens: int | None = None


@dataclass
class Description:
    """What ``norma data check`` prints."""

    path: str
    formats: dict[str, int]  # format -> files
    compression: str  # "gzip", "none" or "mixed"
    encoding: str
    shapes: dict[str, int]  # shape, in words -> usable rows
    columns: list[str]
    rows: int
    characters: int
    languages: dict[str, float]  # "en", "zh" -> share of the rows
    quarantined: int
    reasons: dict[str, int]
    first_bad: list[tuple[str, int, str]]
    docstrings: int = 0
    warnings: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


def describe(path: str | Path, tokenizer: Encoder | None = None, trained: Trained = "answers") -> Description:
    """Read all of ``path`` (a file, a folder, or ``hub:NAME``) and say what it is.

    Args:
        tokenizer: counts tokens; a :class:`Tokenizer` also renders the samples by its chat template, as they are trained.
        trained: which of the assistant's turns would be.

    Raises NormaError when it is missing or holds no usable row. A table that is no training text is described, with a warning.
    """
    hub = isinstance(path, str) and path.startswith(HUB)
    files = [] if hub else files_of(Path(path).expanduser())
    quarantine = Quarantine()
    tally = _Tally(trained)
    records: Iterator[Record] = read(path, quarantine) if hub else (r for p, name in files for r in read_file(p, name, quarantine))
    for records_of_file in _by_file(records):
        head = [record for _, record in zip(range(HEAD), records_of_file, strict=False)]
        layout = majority(head)
        tally.columns = tally.columns or list(head[0].fields)
        if layout is None:
            # A table of named columns (labels, translations): read by a task, not as text.
            for record in _chain(head, records_of_file):
                tally.table(record)
        else:
            for record, row in shaped(_chain(head, records_of_file), quarantine):
                tally.row(record, row, layout, tokenizer)
    if not tally.rows:
        reason = quarantine.reasons.most_common(1)[0][0] if quarantine.reasons else "nothing in it"
        raise NormaError(f"no usable row in it ({reason})", where=path, mend="Text must be UTF-8, and rows alike")
    docstrings = 0
    for p, name in files:
        if suffix(p) == ".py":
            docstrings += len(scan_file(str(p), name, False)["docs"])
    zipped = {p.name.lower().endswith(".gz") for p, _ in files}
    return Description(
        path=str(path),
        formats=dict(Counter("hub data set" for _ in [0]) if hub else Counter(_format(p) for p, _ in files)),
        compression="mixed" if len(zipped) > 1 else "gzip" if True in zipped else "none",
        encoding=_encoding([p for p, _ in files], quarantine),
        shapes=dict(tally.shapes.most_common()),
        columns=tally.columns,
        rows=tally.rows,
        characters=tally.characters,
        languages={language: count / tally.rows for language, count in tally.languages.most_common()},
        quarantined=len(quarantine),
        reasons=dict(quarantine.reasons.most_common()),
        first_bad=quarantine.first,
        docstrings=docstrings,
        warnings=_warnings(tally, quarantine),
        samples=tally.samples,
    )


class _Tally:
    def __init__(self, trained: Trained) -> None:
        self.trained = trained
        self.rows = self.characters = self.tables = self.headless = 0
        self.columns: list[str] = []
        self.shapes: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.samples: list[Sample] = []
        self.seen: set[int] = set()
        self.copies = self.tabbed = 0
        self.long = 0

    def count(self, text: str, shape: str) -> None:
        self.rows += 1
        self.characters += len(text)
        self.shapes[shape] += 1
        self.languages[language_of(text)] += 1
        mark = hash(text)
        self.copies += mark in self.seen
        self.seen.add(mark)
        self.long += len(text) > 20_000

    def table(self, record: Record) -> None:
        text = "\t".join(str(v) for v in record.fields.values())
        self.tables += 1
        self.headless += "column1" in record.fields
        self.count(text, "a table")
        if len(self.samples) < SAMPLES:
            shown = "\n".join(f"{k}: {str(v)[:300]}" for k, v in record.fields.items())
            self.samples.append(Sample(f"{record.file}:{record.line}", [(shown, False)], NOT_TEXT))

    def row(self, record: Record, row: Row, layout: Layout, tokenizer: Encoder | None) -> None:
        segments, note = as_trained(row, self.trained)
        pairs = isinstance(row, Preference) and layout != "preference"
        marks = isinstance(row, Completion) and row.label is not None and layout != "kto"
        more = ", preference pairs" if pairs else ", marked good or bad" if marks else ""
        self.count("\n".join(text for text, _ in segments), TITLES[layout] + more)
        if isinstance(row, Text) and record.file.endswith((".txt", ".txt.gz")):
            self.tabbed += all("\t" in line for line in row.text.splitlines() if line.strip())
        self.headless += "column1" in record.fields
        if len(self.samples) < SAMPLES:
            sample = Sample(f"{record.file}:{record.line}", segments, note)
            if isinstance(tokenizer, Tokenizer) and (messages := conversation(row)):
                which = self.trained if isinstance(row, Conversation) else "answers"
                ids, learnt = training_row(tokenizer, messages, which)
                sample.segments, sample.tokens, sample.trained_tokens = runs(tokenizer, ids, learnt), len(ids), sum(learnt)
            elif tokenizer is not None:
                counts = [(len(tokenizer.encode(text)), trained) for text, trained in segments]
                sample.tokens, sample.trained_tokens = sum(n for n, _ in counts), sum(n for n, trained in counts if trained)
            self.samples.append(sample)


def as_trained(row: Row, trained: Trained = "answers") -> tuple[list[Segment], str]:
    """A row as segments ``(text, trained)`` and a note on what else is done with it."""
    if isinstance(row, Text):
        return [(row.text, True)], ""
    note = ""
    if isinstance(row, Completion) and row.label is not None:
        note = f"marked {'good' if row.label else 'bad'}"
    if isinstance(row, Preference):
        note = "preferred to: " + "\n".join(m["content"] for m in row.rejected)
    messages = conversation(row)
    learnt = turns(messages, trained if isinstance(row, Conversation) else "answers")
    numbered = enumerate(messages)
    return [segment for i, m in numbered for segment in ((f"{m['role']}: ", False), (m["content"] + "\n", i in learnt))], note


def conversation(row: Row) -> Turns:
    """The messages that a row is trained on; none of a text."""
    if isinstance(row, Text):
        return ()
    if isinstance(row, Conversation):
        return row.messages
    prompt = tuple(Message(role=m["role"], content=m["content"], train=False) for m in row.prompt)
    return (*prompt, *(row.chosen if isinstance(row, Preference) else row.completion))


def _by_file(records: Iterator[Record]) -> Iterator[Iterator[Record]]:
    """Runs of records of one file; a run that was not read to its end is passed over."""
    held = next(records, None)
    while held is not None:
        first = held
        after: list[Record] = []

        def run(first: Record = first, after: list[Record] = after) -> Iterator[Record]:
            yield first
            for record in records:
                if record.file != first.file:
                    after.append(record)
                    return
                yield record

        of_file = run()
        yield of_file
        for _ in of_file:
            pass
        held = after[0] if after else None


def _chain(head: Sequence[Record], rest: Iterator[Record]) -> Iterator[Record]:
    yield from head
    yield from rest


def _format(path: Path) -> str:
    kind = suffix(path)
    return FORMAT_NAMES.get(kind) or (f"text ({kind.removeprefix('.')})" if kind in LANGUAGES else "text (unknown suffix)")


def _encoding(files: list[Path], quarantine: Quarantine) -> str:
    if any("UTF-8" in reason for reason in quarantine.reasons):
        return "UTF-8, with parts that are not"
    marked = False
    for path in files[:50]:
        if suffix(path) != ".parquet" and not path.name.endswith(".gz"):
            with path.open("rb") as handle:
                marked |= handle.read(3) == b"\xef\xbb\xbf"
    return "UTF-8 with byte order mark" if marked else "UTF-8"


def _warnings(tally: _Tally, quarantine: Quarantine) -> list[str]:
    found = []
    if tally.tables:
        columns = ", ".join(tally.columns[:8])
        found.append(f"{tally.tables:,} rows are a table of columns ({columns}): not training text by itself; a task maps its columns")
    if tally.headless:
        found.append("a table has no header line: its columns are called column1, column2, ...")
    if tally.tabbed > tally.rows // 2:
        found.append("every line holds a tab: if this is a table, name it .tsv")
    if tally.copies > max(1, tally.rows // 100):
        found.append(f"{tally.copies:,} rows are exact copies of others")
    if tally.long:
        found.append(f"{tally.long:,} rows are longer than 20,000 characters: they are divided, or cut, in training")
    if len(tally.shapes) > 1:
        found.append(f"files of different shapes: {', '.join(tally.shapes)}")
    bad = len(quarantine)
    if bad > 0.1 * (bad + tally.rows):
        found.append(f"{bad:,} of {bad + tally.rows:,} rows are unusable: is this the file that was meant?")
    return found
