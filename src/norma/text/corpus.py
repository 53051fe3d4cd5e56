"""Build the corpus: sources in, files out (``norma.text.gather`` reads, this module divides, checks and writes).

Gathered ─→ side of each document (hash) ─→ validation entries that training mentions are removed ─→ files

text.{train,validation}.jsonl        {"id", "source", "document", "text"}
qa.{train,validation}.jsonl          {"id", "source", "document", "language", "messages", "facts"}
summaries.{train,validation}.jsonl   the same, text → summary
quarantine.jsonl                     {"file", "line", "reason"}
corpus.json                          counts, packages and versions, what was removed and why
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from norma.base.errors import NormaError
from norma.base.files import write_json, write_jsonl
from norma.base.progress import Progress
from norma.text.gather import Chat, Document, Gathered, gather, language_of_chat
from norma.text.options import CorpusOptions, CorpusSource
from norma.text.quarantine import Quarantine
from norma.text.questions import Questions, Source
from norma.text.split import Side, chance, key, leaks, split

__all__ = ["CorpusOptions", "CorpusSource", "build_corpus"]

SIDES: tuple[Side, Side] = ("train", "validation")
LICENCE = (
    "The texts belong to those who wrote them and stay under the licences of the packages and files they come from; "
    "they are copied here for training on this machine. Check those licences before you pass this folder on."
)


def build_corpus(options: CorpusOptions, folder: Path, progress: Progress, seed: int) -> dict[str, Any]:
    """Read the sources, write the corpus into ``folder``, and return what ``corpus.json`` holds.

    Raises NormaError when a source is missing, or when nothing usable is left on one of the two sides.
    """
    seed = seed if options.seed is None else options.seed
    with Quarantine(folder / "quarantine.jsonl") as quarantine:
        found = gather(options, quarantine, progress, seed)
    if not found.documents:
        raise NormaError("the corpus is empty: no source holds usable text", mend="See quarantine.jsonl, or lower min_characters")
    progress.say(f"Dividing {len(found.documents):,} documents")
    sides = choose_sides(found, seed, options.validation_share)
    texts: dict[Side, list[dict[str, Any]]] = {side: [_text_row(d) for d in found.documents if sides[d.document] == side] for side in SIDES}
    asked = found.sources if _has_entries(found) or not found.chats else []
    questions = {side: _rows(options, asked, sides, side, seed) for side in SIDES}
    # Summaries are also made from paragraphs when the questions are a user's own chats.
    summaries = questions if asked is found.sources else {side: _rows(options, found.sources, sides, side, seed) for side in SIDES}
    qa = {side: [q for q, _ in questions[side]] for side in SIDES}
    short = {side: [s for _, s in summaries[side]] for side in SIDES}
    if not asked:
        qa = {side: [_chat_row(c) for c in found.chats if sides[c.document] == side] for side in SIDES}
    _remove_leaks(found, sides, texts, qa, short)
    written = {"text": texts, "qa": qa, "summaries": short}
    for what, rows in written.items():
        for side in SIDES:
            write_jsonl(folder / f"{what}.{side}.jsonl", rows[side])
    report = {
        "counts": {f"{what}.{side}": len(rows[side]) for what, rows in written.items() for side in SIDES}
        | {f"characters.{side}": sum(len(row["text"]) for row in texts[side]) for side in SIDES},
        "languages": dict(sorted(Counter(row["language"] for side in SIDES for row in qa[side]).items())),
        "mismatched": sum(not row["facts"]["about"] for side in SIDES for row in qa[side]),
        "read": dict(sorted(found.counts.items())),
        "removed": dict(sorted(found.removed.items())),
        "quarantined": dict(sorted(quarantine.reasons.items())),
        "packages": found.packages,
        "licences": found.licences,
        "licence": LICENCE,
    }
    write_json(folder / "corpus.json", report)
    if not texts["validation"] or not texts["train"]:
        raise NormaError(
            "the corpus is too small to hold anything out",
            mend="Give at least two documents (a long text file is divided at about 2,000 characters)",
        )
    return report


def choose_sides(found: Gathered, seed: int, share: float) -> dict[str, Side]:
    """A side for every document. In a small corpus, where chance leaves a side without text or questions, one document moves."""
    sides: dict[str, Side] = {}
    for part in (found.documents, found.sources, found.chats):
        mine = {item.document: split(item.document, seed, share) for item in part}
        mine = {document: sides.get(document, side) for document, side in mine.items()}
        for side in SIDES:
            if len(mine) > 1 and side not in mine.values():
                mine[min(mine, key=lambda document: chance("move", seed, document))] = side
        sides |= mine
    return sides


def _has_entries(found: Gathered) -> bool:
    return any(source.kind == "entry" for source in found.sources)


def _rows(
    options: CorpusOptions, sources: Iterable[Source], sides: dict[str, Side], side: Side, seed: int
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    mine = [source for source in sources if sides[source.document] == side]
    make = Questions(
        mine, seed=seed, chinese_share=options.chinese_share, mismatch_share=options.mismatch_share, body_characters=options.body_characters
    )
    return [(make.question(source), make.summary(source)) for source in mine]


def _text_row(document: Document) -> dict[str, Any]:
    return {"id": document.id, "source": document.name or document.id, "document": document.document, "text": document.text}


def _chat_row(chat: Chat) -> dict[str, Any]:
    return {
        "id": chat.id,
        "source": chat.id,
        "document": chat.document,
        "language": language_of_chat(chat.messages),
        "messages": list(chat.messages),
        "facts": {"asked": "", "name": "", "module": "", "about": True},
    }


def _remove_leaks(
    found: Gathered,
    sides: dict[str, Side],
    texts: dict[Side, list[dict[str, Any]]],
    qa: dict[Side, list[dict[str, Any]]],
    short: dict[Side, list[dict[str, Any]]],
) -> None:
    """Take out of validation every entry whose name or answer occurs anywhere in training."""
    held: dict[str, tuple[str, str]] = {}
    for document in found.documents:
        if sides[document.document] == "validation" and document.name:
            held[document.name] = (document.name, document.summary)
    for source in found.sources:
        if sides[source.document] == "validation":
            held[source.id] = (source.name if source.kind == "entry" else "", source.summary)
    for chat in found.chats:
        if sides[chat.document] == "validation":
            held[chat.id] = ("", chat.messages[-1]["content"])
    # Summary rows show the same book and the same answers as question rows, where those were made from the same sources.
    shown = (*texts["train"], *qa["train"], *(short["train"] if len(short["train"]) != len(qa["train"]) else ()))
    training = (text for row in shown for text in _texts_of(row))
    ids = list(held)
    bad = {ids[i] for i in leaks([held[i] for i in ids], training)}
    # A name of one word (a top-level module) is also a word of the language: it cannot be told whether training holds it.
    bad |= {i for i, (name, _) in held.items() if name and "." not in name}
    # A mismatched question lends its name from another validation entry; when that one goes, so does the question.
    names = {held[i][0] for i in bad} - {""}
    for rows in (texts, qa, short):
        before = len(rows["validation"])
        rows["validation"] = [r for r in rows["validation"] if r["source"] not in bad and r.get("facts", {}).get("asked") not in names]
        found.removed["validation: occurs in training"] += before - len(rows["validation"])
    answers = {key(row["messages"][-1]["content"]) for row in qa["train"]}
    qa["validation"] = [row for row in qa["validation"] if key(row["messages"][-1]["content"]) not in answers]


def _texts_of(row: dict[str, Any]) -> list[str]:
    return [row["text"]] if "text" in row else [m["content"] for m in row["messages"]]
