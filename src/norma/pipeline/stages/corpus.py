"""Corpus stage: real text in, files of rows out (``norma.text.corpus`` does the work).

docstrings of installed packages · files and folders · hub data sets ─→ text, questions, summaries; training and validation
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from norma.base.hashing import file_digest
from norma.pipeline.stage import Context, Stage, StageOptions
from norma.text.options import CorpusOptions


class CorpusStageOptions(StageOptions, CorpusOptions):
    """Options of a ``corpus`` stage: those of ``norma.text``; a relative ``path`` starts from the recipe's folder."""


class Corpus(Stage[CorpusStageOptions]):
    """Goes stale when a file below a ``path``, or the version of a package that is read, changes."""

    kind, version, Options = "corpus", 1, CorpusStageOptions

    def fingerprint(self, options: CorpusStageOptions, base: Path) -> Any:
        from norma.text.docstrings import choose
        from norma.text.readers import files_of

        found: dict[str, Any] = {}
        for source in options.sources:
            if source.docstrings is not None:
                found.setdefault("packages", {}).update({package.name: package.version for package in choose(source.docstrings)})
            elif source.path is not None:
                files = files_of(base / Path(source.path).expanduser())
                found[source.path] = {name: file_digest(path) for path, name in files}
        return found

    def run(self, ctx: Context[CorpusStageOptions]) -> dict[str, Any]:
        from norma.text.corpus import build_corpus

        options = CorpusOptions.model_validate(ctx.options.model_dump(exclude={"kind"}))
        sources = [s if s.path is None else s.model_copy(update={"path": str(ctx.outside(s.path))}) for s in options.sources]
        report = build_corpus(options.model_copy(update={"sources": sources}), ctx.folder, ctx.progress, ctx.seed)
        counts = report["counts"]
        return {"texts": counts["text.train"], "questions": counts["qa.train"], "characters": counts["characters.train"], "counts": counts}
