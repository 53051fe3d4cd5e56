"""Is a run folder still what was written? Every file is read again and compared with the digests in the records.

    each stage: lineage.json (seal, its own bytes, its digests) ─→ files, files outside the content digest ─→ damage, by name
    the run:    lineage.json, copies of recipe and spec, published copies of the report

A file's time is not trusted here: one flipped byte anywhere is named. (``sinks``, which trackers write while a run lives, are not read.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from norma.base.errors import NormaError
from norma.base.files import to_json
from norma.base.hashing import UNHASHED, digest, file_digest
from norma.pipeline.lineage import content_digest, sealed, spoken


@dataclass
class Rehash:
    """What was read, what is hurt (``file: what``), and what cannot be told."""

    files: int = 0
    bytes: int = 0
    damage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def rehash(run: Path) -> Rehash:
    """Read a whole run folder again. Raises NormaError when it is no run."""
    found = Rehash()
    record = _record(run, run / "lineage.json", found)
    if record is None and not found.damage:
        raise NormaError("no run in this folder (it has no lineage.json)", where=run, mend="Give the folder that 'norma run' names")
    stages = {path.parent.name: path.parent for path in sorted(run.glob("[!.]*/lineage.json"))}
    lineages = {name: _stage(run, folder, found) for name, folder in stages.items()}
    for name, row in lineages.items():
        _inputs(name, row, lineages, found)
    if record is not None:
        _run_level(run, record, lineages, found)
    return found


def _record(run: Path, path: Path, found: Rehash) -> dict[str, Any] | None:
    """A lineage.json, its seal and its bytes checked; None when it is absent or unreadable."""
    if not path.is_file():
        return None
    name = path.relative_to(run).as_posix()
    data = path.read_bytes()
    found.files, found.bytes = found.files + 1, found.bytes + len(data)
    try:
        row = json.loads(data)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        found.damage.append(f"{name}: not readable as JSON")
        return None
    if "seal" not in row:
        found.notes.append(f"{name}: made by a Norma that did not seal its records; they are taken at their word")
    elif _seal(row) != row["seal"] or (to_json(row, indent=2) + "\n").encode() != data:
        found.damage.append(f"{name}: the record does not fit its own seal")
    return row


def _seal(row: dict[str, Any]) -> str:
    try:
        return str(sealed(row)["seal"])
    except ValueError:  # a flipped byte made a number that is none
        return ""


def _stage(run: Path, folder: Path, found: Rehash) -> dict[str, Any]:
    row = _record(run, folder / "lineage.json", found)
    if row is None:
        return {}
    files: dict[str, str] = {name: entry[0] for name, entry in row.get("files", {}).items()}
    for name, sha in {**files, **row.get("unhashed", {})}.items():
        path, label = folder / name, f"{folder.name}/{name}"
        if not path.is_file():
            found.damage.append(f"{label}: missing")
            continue
        found.files, found.bytes = found.files + 1, found.bytes + path.stat().st_size
        if file_digest(path) != sha:
            added = " (labels may have been added to the store)" if path.name == "labels.sqlite" else ""
            found.damage.append(f"{label}: changed after it was made{added}")
    known = {*files, *row.get("unhashed", {})}
    for name in _others(folder, known):
        found.notes.append(f"{folder.name}/{name}: was not there when the stage was made")
    if row.get("content") != content_digest(row.get("files", {})):
        found.damage.append(f"{folder.name}/lineage.json: the content digest does not fit the list of files")
    if row.get("digest") != digest(spoken(row.get("identity", {}))):
        found.damage.append(f"{folder.name}/lineage.json: the stage digest does not fit the identity")
    return row


def _others(folder: Path, known: set[str]) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if (
            path.is_file()
            and name.as_posix() not in known
            and UNHASHED.isdisjoint(name.parts)
            and not path.name.endswith((".tmp", "-wal", "-shm"))
        ):
            yield name.as_posix()


def _inputs(name: str, row: dict[str, Any], lineages: dict[str, dict[str, Any]], found: Rehash) -> None:
    """A stage made from an input that has been made again since is stale, not hurt."""
    for read, content in row.get("identity", {}).get("inputs", {}).items():
        if read not in lineages:
            found.notes.append(f"{name}: was made from '{read}', which is not here")
        elif lineages[read].get("content") != content:
            found.notes.append(f"{name}: was made from an earlier '{read}'")


def _run_level(run: Path, record: dict[str, Any], lineages: dict[str, dict[str, Any]], found: Rehash) -> None:
    copies: dict[str, str] = dict(record.get("copies", {}))
    for stage, row in lineages.items():
        for name in row.get("summary", {}).get("publish", []):
            if name in row.get("files", {}):
                copies[Path(name).name] = row["files"][name][0]
        known = record.get("stages", {}).get(stage)
        if known and (known.get("digest"), known.get("content")) != (row.get("digest"), row.get("content")):
            found.damage.append(f"{stage}/lineage.json: not the artefact that the run's record names")
    for name, sha in copies.items():
        path = run / name
        if not path.is_file():
            found.damage.append(f"{name}: missing")
            continue
        found.files, found.bytes = found.files + 1, found.bytes + path.stat().st_size
        if file_digest(path) != sha:
            found.damage.append(f"{name}: changed after it was made")
