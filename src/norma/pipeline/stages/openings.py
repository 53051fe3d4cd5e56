"""Openings stage: texts that people marked become beginnings to go on from, and two halves of marks that know nothing of each other.

{text, label} ─┬─→ text.train.jsonl, text.validation.jsonl                  what a language model learns
               ├─→ conversations.train.jsonl, .validation.jsonl            user: the first words; assistant: the next ones
               └─→ marks.a.jsonl, marks.b.jsonl, marks.validation.jsonl    a reward from one half, a judge from the other, both measured

That is controlled sentiment (DPO, 2305.18290, 6.1): a model goes on from the beginning of a review, and is to do so kindly.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from norma.base.errors import NormaError
from norma.base.hashing import digest, file_digest
from norma.pipeline.stage import Context, Stage, StageOptions


class OpeningsOptions(StageOptions):
    """Options of an ``openings`` stage."""

    path: str = Field(description="File of rows with a text and a label (.jsonl .csv ..., each also .gz); a relative path starts here.")
    text: str = Field("text", description="Column of the text.")
    label: str = Field("label", description="Column of the label.")
    desirable: list[str] = Field(min_length=1, description="Labels that are desirable; all others are not.")
    first: int = Field(8, ge=1, description="Words of a text that are given.")
    next: int = Field(40, ge=1, description="Words after them that are the answer; shorter texts are left out.")
    most: int | None = Field(None, ge=2, description="Most texts, from the start of the file, as many of each side.")
    validation_share: float = Field(0.1, gt=0, lt=1, description="Share of the texts that is held out, and asked about in the end.")
    language: str = Field("en", description="Language of the texts.")


class Openings(Stage[OpeningsOptions]):
    """A text's side and half are a hash of the text: the same text twice stands on one side."""

    kind, version, Options = "openings", 1, OpeningsOptions

    def fingerprint(self, options: OpeningsOptions, base: Any) -> Any:
        from norma.text.readers import files_of

        path = (base / options.path).expanduser()
        return {name: file_digest(p) for p, name in files_of(path)} if path.exists() else {}

    def run(self, ctx: Context[OpeningsOptions]) -> dict[str, Any]:
        from norma.base.files import write_jsonl
        from norma.text.quarantine import Quarantine

        with Quarantine(ctx.folder / "quarantine.jsonl") as quarantine:
            files = _files(ctx, quarantine)
        for name, rows in files.items():
            write_jsonl(ctx.folder / f"{name}.jsonl", rows)
        counts = {name: len(rows) for name, rows in files.items()}
        good = sum(row["desirable"] for half in ("marks.a", "marks.b") for row in files[half])
        marks = counts["marks.a"] + counts["marks.b"]
        ctx.progress.say(
            f"{counts['conversations.train']:,} openings to learn from, {counts['conversations.validation']:,} held out;"
            f" halves of {counts['marks.a']:,} and {counts['marks.b']:,} marks, {good / max(1, marks):.0%} desirable"
        )
        if not counts["conversations.validation"] or not counts["marks.a"] or not counts["marks.b"]:
            raise NormaError("too few texts for two halves and a held-out side", where=ctx.options.path, mend="Raise 'most'")
        return counts


def _files(ctx: Context[OpeningsOptions], quarantine: Any) -> dict[str, list[dict[str, Any]]]:
    from norma.text.readers import read
    from norma.text.split import chance, split

    options = ctx.options
    names = ("text", "conversations")
    files: dict[str, list[dict[str, Any]]] = {f"{n}.{side}": [] for n in names for side in ("train", "validation")}
    files |= {f"marks.{part}": [] for part in ("a", "b", "validation")}
    taken = {True: 0, False: 0}
    each = None if options.most is None else options.most // 2
    seen: set[str] = set()
    for record in read(ctx.outside(options.path), quarantine):
        text, label = record.fields.get(options.text), record.fields.get(options.label)
        if not isinstance(text, str) or label is None:
            columns = ", ".join(record.fields)
            raise NormaError(
                f"a row has no '{options.text}' or no '{options.label}'", where=f"{record.file}:{record.line}", mend=f"It has {columns}"
            )
        words = text.replace("<br />", " ").split()
        source, good = digest(words)[:12], str(label) in options.desirable
        if len(words) < options.first + options.next or source in seen or (each is not None and taken[good] >= each):
            continue
        seen.add(source)
        taken[good] += 1
        question, answer = " ".join(words[: options.first]), " ".join(words[options.first : options.first + options.next])
        asked = {"role": "user", "content": question}
        about = {"id": source, "source": source, "language": options.language}
        side = split(source, ctx.seed, options.validation_share)
        files[f"text.{side}"].append({**about, "text": " ".join(words)})
        files[f"conversations.{side}"].append({**about, "messages": [asked, {"role": "assistant", "content": answer}]})
        half = "validation" if side == "validation" else "a" if chance("half", ctx.seed, source) < 0.5 else "b"
        files[f"marks.{half}"].append({**about, "messages": [asked], "answer": answer, "desirable": good})
        if each is not None and min(taken.values()) >= each:
            break
    return files
