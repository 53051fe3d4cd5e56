"""Everything the sources of a corpus hold, cleaned and without copies, before it is divided into training and validation.

docstrings: packages ─→ Entry ─┬→ Document (text)          .py below a path goes the same way
                               └→ Source (question), when its summary can be an answer and its body tells something
path, hub ─→ rows ─→ plain text ─→ Document, Source (paragraphs)
                 └→ chats, instructions, preferences (the chosen answer) ─→ Chat, Document
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from norma.base.progress import Progress
from norma.text.docstrings import Entry, choose, cut_signature, entries_of_file, read_docstrings
from norma.text.formats import Record, suffix
from norma.text.languages import language_of
from norma.text.options import CorpusOptions, CorpusSource
from norma.text.prose import sources_of
from norma.text.quarantine import Quarantine
from norma.text.questions import Source
from norma.text.readers import HUB, files_of, read, read_file
from norma.text.shapes import Completion, Conversation, Preference, Text, Turns, shaped
from norma.text.split import Novelty, chance, key

ALIKE = 3  # summaries that differ in names and numbers only: so many are kept


@dataclass(frozen=True)
class Document:
    """A text; ``document`` is what is kept together when the corpus is divided. ``name`` and ``summary`` must not leak."""

    id: str
    document: str
    text: str
    name: str = ""
    summary: str = ""


@dataclass(frozen=True)
class Chat:
    id: str
    document: str
    messages: Turns


@dataclass
class Gathered:
    documents: list[Document] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    chats: list[Chat] = field(default_factory=list)
    packages: dict[str, str] = field(default_factory=dict)
    licences: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)


def gather(options: CorpusOptions, quarantine: Quarantine, progress: Progress, seed: int) -> Gathered:
    """Read all sources. Raises NormaError for a source that is missing or holds nothing."""
    found = Gathered()
    kept = _Kept(options, found)
    for source in options.sources:
        if source.docstrings is not None:
            packages = choose(source.docstrings)
            progress.say(f"Reading the docstrings of {len(packages)} package{'s' if len(packages) != 1 else ''}")
            scan = read_docstrings(packages, quarantine, progress=progress)
            found.packages |= scan.packages
            found.licences |= {p.name: p.licence for p in packages}
            found.counts += scan.counts
            kept.entries(scan.entries, seed)
        else:
            progress.say(f"Reading {source.name}")
            kept.rows(_entries_and_rows(source, quarantine, kept, seed), quarantine)
    return found


def _entries_and_rows(source: CorpusSource, quarantine: Quarantine, kept: _Kept, seed: int) -> Iterator[Record]:
    """The records of a path or hub source; Python files are read for their docstrings instead, unless the source says otherwise."""
    if source.hub is not None:
        yield from read(HUB + source.hub, quarantine)
        return
    assert source.path is not None
    root = Path(source.path).expanduser()
    entries: list[Entry] = []
    for path, file in files_of(root):
        if suffix(path) == ".py" and source.python == "docstrings":
            entries += entries_of_file(path, file, quarantine)
        else:
            yield from read_file(path, file, quarantine)
    kept.entries(entries, seed)


class _Kept:
    """Decides what is kept: every text once, boilerplate not at all."""

    def __init__(self, options: CorpusOptions, found: Gathered) -> None:
        self.options, self.found = options, found
        self.texts: set[str] = set()
        self.names: set[str] = set()
        self.answers: set[str] = set()
        self.skeletons: Counter[str] = Counter()
        self.novelty = Novelty()

    def entries(self, entries: Iterable[Entry], seed: int) -> None:
        removed, o = self.found.removed, self.options
        chosen = list(entries)
        if o.max_entries is not None and len(chosen) > o.max_entries:
            chosen = sorted(sorted(chosen, key=lambda e: chance("keep", seed, e.name))[: o.max_entries], key=lambda e: e.name)
        for entry in chosen:
            told = f"{entry.summary}\n{entry.body}".strip()
            same = key(told)
            if entry.name in self.names:
                removed["same name"] += 1
            elif len(told) < o.min_characters:
                removed["too short"] += 1
            elif same in self.texts:
                removed["exact copies"] += 1
            elif self.novelty.share(runs := self.novelty.runs(told)) < o.min_novelty:
                removed["boilerplate (mostly seen before)"] += 1
            else:
                self.texts.add(same)
                self.names.add(entry.name)
                self.novelty.learn(runs)
                self.entry(entry)

    def entry(self, entry: Entry) -> None:
        o, removed = self.options, self.found.removed
        signature = cut_signature(entry.signature, o.signature_characters)
        text = "\n".join(part for part in (f"`{signature}`", entry.summary, entry.body) if part)
        for number, piece in enumerate(pieces(text, o.max_characters)):
            identity = f"{entry.name}+{number}" if number else entry.name
            self.found.documents.append(Document(identity, entry.document, piece, entry.name, entry.summary))
        answer, skeleton = key(entry.summary), _skeleton(entry.summary)
        if entry.fault:
            removed[f"no question: {re.sub('[0-9]+ ', 'too few or too many ', entry.fault)}"] += 1
        elif len(entry.body) < o.min_body_characters:
            removed["no question: the body tells too little"] += 1
        elif len(signature.split("(")[0]) > o.max_name_characters:
            removed["no question: a very long name"] += 1
        elif answer in self.answers or self.skeletons[skeleton] >= ALIKE:
            removed["no question: a summary given before"] += 1
        else:
            self.answers.add(answer)
            self.skeletons[skeleton] += 1
            self.found.sources.append(
                Source(entry.name, "entry", entry.name, entry.module, entry.document, signature, entry.summary, entry.body)
            )

    def rows(self, records: Iterable[Record], quarantine: Quarantine) -> None:
        for record, row in shaped(records, quarantine):
            identity = f"{record.file}:{record.line}"
            if isinstance(row, Text):
                self.prose(row, identity)
                continue
            messages = _training_turns(row)
            same = key("\n".join(m["content"] for m in messages))
            if not messages or same in self.texts:
                self.found.removed["exact copies" if messages else "answers marked as bad"] += 1
                continue
            self.texts.add(same)
            self.found.chats.append(Chat(identity, identity, messages))
            for number, piece in enumerate(pieces("\n".join(m["content"] for m in messages), self.options.max_characters)):
                self.found.documents.append(Document(f"{identity}+{number}" if number else identity, identity, piece))

    def prose(self, row: Text, identity: str) -> None:
        same = key(row.text) or row.text.strip()
        if len(row.text.strip()) < min(self.options.min_characters, 20):
            self.found.removed["too short"] += 1
        elif same in self.texts:
            self.found.removed["exact copies"] += 1
        else:
            self.texts.add(same)
            for number, piece in enumerate(pieces(row.text.strip(), self.options.max_characters)):
                self.found.documents.append(Document(f"{identity}+{number}" if number else identity, identity, piece))
            for source in sources_of(row.text, row.title or Path(identity).name.split(".")[0], identity, identity):
                if key(source.summary) in self.answers:
                    self.found.removed["no question: a summary given before"] += 1
                else:
                    self.answers.add(key(source.summary))
                    self.found.sources.append(source)


def _training_turns(row: Conversation | Completion | Preference) -> Turns:
    """The conversation a row teaches, up to the assistant's last word; none when its answer is marked as bad."""
    if isinstance(row, Preference):
        return (*row.prompt, *row.chosen)
    if isinstance(row, Completion):
        return () if row.label is False else (*row.prompt, *row.completion)
    last = max(i for i, m in enumerate(row.messages) if m["role"] == "assistant")
    return row.messages[: last + 1]


def pieces(text: str, characters: int) -> list[str]:
    """``text`` in pieces of at most ``characters``, divided at blank lines, else lines, else sentences, else anywhere."""
    found = []
    while len(text) > characters:
        head = text[:characters]
        at = max(head.rfind("\n\n"), -1)
        for mark in ("\n", ". ", "。", " "):
            if at < characters // 2:
                at = head.rfind(mark) + (len(mark.strip()) if mark.strip() else 0)
        at = at if at > 0 else characters
        found.append(text[:at].rstrip())
        text = text[at:].lstrip()
    return [piece for piece in [*found, text] if piece.strip()]


def _skeleton(summary: str) -> str:
    """A summary with its names and numbers taken out."""
    return key(re.sub(r"`[^`]*`|\b\w*(?:[a-z][A-Z]|_|\d|\.\w)\w*\b|(?<!^)\b[A-Z]\w*", "", summary))


def language_of_chat(messages: Turns) -> str:
    """The language of the last question."""
    return language_of(next((m["content"] for m in reversed(messages) if m["role"] == "user"), ""))
