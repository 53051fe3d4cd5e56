"""Clean stage: files of any size in, documents worth reading out, and a count of everything that was set aside.

files, folders, hub ─→ readers ─→ cleaning steps ─→ text.train.jsonl, text.validation.jsonl, report.json, quarantine.jsonl
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from norma.base.hashing import file_digest
from norma.pipeline.stage import Context, Stage, StageOptions
from norma.text.clean.options import CleanOptions

if TYPE_CHECKING:
    from norma.text.quarantine import Quarantine
    from norma.text.readers import Record


class TextSource(BaseModel):
    """One source: a path, or a data set of a hub."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str | None = Field(None, description="A file or folder: .txt .md .json .jsonl .csv .tsv .parquet, each also .gz")
    hub: str | None = Field(None, description="A data set of a hub, NAME or NAME:SPLIT; needs pip install 'norma-lm[data]'")

    @model_validator(mode="after")
    def _one(self) -> TextSource:
        if (self.path is None) == (self.hub is None):
            raise ValueError("a source is one of path, hub")
        return self


class CleanStageOptions(StageOptions):
    """Options of a ``clean`` stage."""

    sources: list[TextSource] = Field(min_length=1, description="Where text comes from; a relative path starts from the recipe's folder.")
    steps: CleanOptions = Field(default_factory=CleanOptions, description="What is set aside.")
    validation_share: float = Field(0.005, gt=0, lt=1, description="Share of the documents held out, chosen by a hash of their place.")
    max_documents: int | None = Field(None, ge=1, description="Stop after so many documents have been read; null: read all.")


class Clean(Stage[CleanStageOptions]):
    """Streams: memory holds what the steps remember (digests, sketches), not the text."""

    kind, version, Options = "clean", 1, CleanStageOptions

    def fingerprint(self, options: CleanStageOptions, base: Path) -> Any:
        from norma.text.readers import files_of

        paths = [source.path for source in options.sources if source.path is not None]
        return {p: {name: file_digest(path) for path, name in files_of(base / Path(p).expanduser())} for p in paths}

    @staticmethod
    def _reader(ctx: Context[CleanStageOptions]) -> Callable[[str, Quarantine], Iterator[Record]]:
        """Who reads: this process, or a cluster (data sets of a hub excepted)."""
        from norma.text.readers import HUB, read

        if ctx.engine == "local":
            return read
        from norma.text.cluster import read_on_cluster

        return lambda source, quarantine: (read if source.startswith(HUB) else read_on_cluster)(source, quarantine)

    def run(self, ctx: Context[CleanStageOptions]) -> dict[str, Any]:
        import json
        from itertools import chain, islice

        from norma.base.files import atomic_writer, write_json
        from norma.text.clean import build_steps, documents_of, run
        from norma.text.quarantine import Quarantine
        from norma.text.readers import HUB
        from norma.text.split import split

        options = ctx.options
        counts = {"train": 0, "validation": 0}
        size = dict(counts)
        with (
            Quarantine(ctx.folder / "quarantine.jsonl") as quarantine,
            atomic_writer(ctx.folder / "text.train.jsonl") as train,
            atomic_writer(ctx.folder / "text.validation.jsonl") as validation,
        ):
            steps = build_steps(options.steps, quarantine)
            sources = (str(ctx.outside(s.path)) if s.path is not None else f"{HUB}{s.hub}" for s in options.sources)
            reader = self._reader(ctx)
            records = islice(chain.from_iterable(reader(source, quarantine) for source in sources), options.max_documents)
            files = {"train": train, "validation": validation}
            for number, document in enumerate(run(steps, documents_of(records, quarantine))):
                side = split(document.place, ctx.seed, options.validation_share)
                files[side].write(json.dumps({"id": document.place, "text": document.text}, ensure_ascii=False) + "\n")
                counts[side] += 1
                size[side] += len(document.text.encode())
                if number % 1000 == 0:
                    ctx.progress.update(number, number + 1)
        for step in steps:
            ctx.progress.say(step.counts.summary())
        write_json(ctx.folder / "report.json", {"steps": [step.counts.report() for step in steps], "documents": counts, "bytes": size})
        ctx.progress.say(f"{counts['train']:,} documents, {size['train'] / 1e6:,.1f} MB; {counts['validation']:,} held out")
        return {"documents": counts, "bytes": size}
