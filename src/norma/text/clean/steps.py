"""What a cleaning step is: a function from a stream of documents to a stream of documents that counts what it sets aside.

    document ─judge─┬→ the same document (its text is never changed)  ─→ next step
                    └→ Aside(reason, detail) ─→ Counts: documents, characters and three examples of each reason
                                             └→ quarantine (file, line, reason), where one is given
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from norma.text.formats import Record
from norma.text.quarantine import Quarantine
from norma.text.shapes import Text, shaped

EXAMPLES = 3  # kept of each reason
SHOWN = 200  # characters of an example's text
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Document:
    """A text and where it came from. ``language`` is "" until it is told, then an ISO 639 code or ``UNKNOWN``."""

    file: str
    line: int
    text: str
    title: str = ""
    language: str = ""

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Aside:
    """Why a document is set aside: ``reason`` is one of a few names that are counted, ``detail`` belongs to this document."""

    reason: str
    detail: str = ""


@dataclass
class Reason:
    """How much was set aside for one reason; ``examples`` are the first ones met."""

    documents: int = 0
    characters: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)


@dataclass
class Counts:
    """What went into a step and what came out. Before = after + the sum over the reasons, for documents and for characters."""

    step: str
    documents_before: int = 0
    characters_before: int = 0
    documents_after: int = 0
    characters_after: int = 0
    reasons: dict[str, Reason] = field(default_factory=dict)

    def keep(self, document: Document) -> None:
        self._before(document)
        self.documents_after += 1
        self.characters_after += len(document.text)

    def set_aside(self, document: Document, why: Aside) -> None:
        self._before(document)
        reason = self.reasons.setdefault(why.reason, Reason())
        reason.documents += 1
        reason.characters += len(document.text)
        if len(reason.examples) < EXAMPLES:
            reason.examples.append({"place": document.place, "detail": why.detail, "text": document.text[:SHOWN]})

    def _before(self, document: Document) -> None:
        self.documents_before += 1
        self.characters_before += len(document.text)

    def report(self) -> dict[str, Any]:
        """Plain data for report.json; reasons by how many documents they took, then by name."""
        reasons = sorted(self.reasons.items(), key=lambda item: (-item[1].documents, item[0]))
        return {
            "step": self.step,
            "before": {"documents": self.documents_before, "characters": self.characters_before},
            "after": {"documents": self.documents_after, "characters": self.characters_after},
            "reasons": {name: {"documents": r.documents, "characters": r.characters, "examples": r.examples} for name, r in reasons},
        }

    def summary(self) -> str:
        """One line for people."""
        reasons = sorted(self.reasons.items(), key=lambda item: (-item[1].documents, item[0]))
        why = ", ".join(f"{reason.documents:,} {name}" for name, reason in reasons)
        gone = f" (set aside: {why})" if why else ""
        characters = f"{self.characters_before:,} → {self.characters_after:,} characters"
        return f"{self.step}: {self.documents_before:,} → {self.documents_after:,} documents, {characters}{gone}"


class Step(ABC):
    """One cleaning step. ``step(documents)`` yields those it keeps, in order; ``step.counts`` is complete when the stream has ended."""

    name: str

    def __init__(self, quarantine: Quarantine | None = None) -> None:
        self.counts = Counts(self.name)
        self.quarantine = quarantine

    @abstractmethod
    def judge(self, document: Document) -> Document | Aside:
        """The document, its text unchanged, or why it is set aside."""

    def __call__(self, documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            judged = self.judge(document)
            if isinstance(judged, Aside):
                self.counts.set_aside(document, judged)
                if self.quarantine is not None:
                    detail = f" ({judged.detail})" if judged.detail else ""
                    self.quarantine.add(document.file, document.line, f"{self.name}: {judged.reason}{detail}")
            else:
                self.counts.keep(judged)
                yield judged


def run(steps: Sequence[Step], documents: Iterable[Document]) -> Iterator[Document]:
    """``documents`` through all ``steps``, one document at a time: nothing is held but what a step remembers."""
    stream = iter(documents)
    for step in steps:
        stream = step(stream)
    return stream


def documents_of(records: Iterable[Record], quarantine: Quarantine) -> Iterator[Document]:
    """Plain-text rows as documents; rows of another shape (chats, preferences) go to the quarantine."""
    for record, row in shaped(records, quarantine):
        if isinstance(row, Text):
            yield Document(record.file, record.line, row.text, row.title)
        else:
            quarantine.add(record.file, record.line, f"not plain text ({type(row).__name__.lower()})")
