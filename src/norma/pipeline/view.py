"""A finished run seen from outside: its records, its report, its rows. Also the folder of a check, which has no stages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from norma.base.errors import NormaError
from norma.base.files import read_json, read_jsonl


class RunView:
    """What a run folder (or the folder of a check) holds, read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lineages: dict[str, dict[str, Any]] = {path.parent.name: read_json(path) for path in sorted(folder.glob("[!.]*/lineage.json"))}
        if not self.lineages and not (folder / "report.json").is_file():
            raise NormaError(
                "no run and no check in this folder", where=folder, mend="Give the folder that 'norma run' or 'norma check' names"
            )

    @cached_property
    def evaluation(self) -> Path:
        """The folder of the last evaluate stage; a check's own folder."""
        stages = [n for n, row in self.lineages.items() if row.get("identity", {}).get("kind") == "evaluate"]
        return self.folder / stages[-1] if stages else self.folder

    @cached_property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = read_json(self.evaluation / "report.json")
        return found

    @cached_property
    def verdicts(self) -> list[dict[str, Any]]:
        return read_jsonl(self.evaluation / "verdicts.jsonl")

    @cached_property
    def responses(self) -> list[dict[str, Any]]:
        return read_jsonl(self.evaluation / "responses.jsonl")

    def stage_of(self, method: str) -> str | None:
        """The stage whose model a method is."""
        options = self.lineages.get(self.evaluation.name, {}).get("identity", {}).get("options", {})
        model = options.get("methods", {}).get(method, {}).get("model")
        return None if model is None else str(model).partition("/")[0]

    def before(self, stage: str) -> list[str]:
        """A stage and all that it was made from, the nearest first."""
        order = [stage]
        for name in order:
            order += [i for i in self.lineages.get(name, {}).get("identity", {}).get("inputs", {}) if i not in order]
        return order

    def after(self, stage: str) -> list[str]:
        """All stages that were made from a stage, directly or not."""
        return [n for n in self.lineages if n != stage and stage in self.before(n)]

    def files(self, stage: str | None = None) -> Iterator[Path]:
        """The row files of all artefacts, or of one."""
        folders = [self.folder / n for n in ([stage] if stage else self.lineages)] or [self.folder]
        for folder in folders:
            yield from sorted(p for p in folder.rglob("*.jsonl") if p.name not in ("metrics.jsonl", "samples.jsonl"))

    def name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def rows_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, row) of a file of JSON lines that a run holds."""
    with path.open(encoding="utf-8") as handle:
        for number, line in enumerate(handle, 1):
            try:
                row = json.loads(line)
            except ValueError:
                raise NormaError("not JSON", where=f"{path}:{number}", mend="norma trace RUN --rehash says what was hurt") from None
            if isinstance(row, dict):
                yield number, row
