"""The run folder: who owns it, who is working in it, and where unfinished work lies.

runs/courteous/
  recipe.yaml spec.yaml lineage.json        the run's record
  corpus/ tokenizer/ pretrain/ ...          finished artefacts, each with its lineage.json
  .lock                                     held while a run is under way; holds its process id
  .work/pretrain/                           unfinished work, kept across kills
  .work/pretrain.json                       its stage digest and how it stands: running, stopped, failed
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from norma.base.errors import NormaError
from norma.base.files import TORN, disk_errors, drop_torn, read_json, write_json
from norma.pipeline.recipe import Loaded


class RunFolder:
    """Paths and records of one run folder. Nothing is written before ``claim``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path / ".work"
        self.record_path = path / "lineage.json"
        self._forced_path = self.work / ".from.json"

    def artefact(self, stage: str) -> Path:
        return self.path / stage

    def work_folder(self, stage: str) -> Path:
        return self.work / stage

    def lineage(self, stage: str) -> dict[str, Any] | None:
        """The record of a finished artefact."""
        return _read(self.artefact(stage) / "lineage.json")

    def note(self, stage: str) -> dict[str, Any]:
        """How unfinished work stands: {state, digest, sessions, seconds, error?}; empty when there is none."""
        return _read(self.work / f"{stage}.json") or {}

    def write_note(self, stage: str, note: dict[str, Any] | None) -> None:
        path = self.work / f"{stage}.json"
        if note is None:
            path.unlink(missing_ok=True)
        else:
            write_json(path, note)

    def record(self) -> dict[str, Any]:
        """The run-level lineage; empty when the folder is no run."""
        return _read(self.record_path) or {}

    def claim(self, loaded: Loaded) -> None:
        """Raise NormaError unless the folder is absent, empty or a run of this recipe."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise NormaError("the output is a file, not a folder", where=self.path, mend="Choose another with output=FOLDER")
        record = self.record()
        if not record:
            others = [p.name for p in self.path.iterdir() if p.name not in (".lock", ".work") and not TORN.fullmatch(p.name)]
            if others:
                mend = "Choose another with output=FOLDER, or empty it"
                raise NormaError(f"the output folder is not empty and is no Norma run (it holds '{others[0]}')", where=self.path, mend=mend)
            return
        if record.get("name") != loaded.recipe.name:
            what = f"the output folder belongs to another recipe, '{record.get('name')}', not '{loaded.recipe.name}'"
            raise NormaError(what, where=self.path, mend="Choose another with output=FOLDER")
        # The same name from a different file that still exists is another recipe too; a moved project is not.
        owner = Path(str(record.get("recipe")))
        if owner.is_file() and loaded.path.parent != self.path and not owner.samefile(loaded.path):
            what = f"the output folder belongs to the recipe {owner}"
            raise NormaError(what, where=self.path, mend=f"Give {loaded.path.name} another 'name:', or choose another with output=FOLDER")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this run. The kernel lets go of the lock when the process dies, however it dies."""
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            handle = (self.path / ".lock").open("a+", encoding="utf-8")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                who = handle.read().strip() or "unknown"
                mend = "Wait for it, or stop it first; to watch it: norma status"
                raise NormaError(f"another run is at work in this folder (process {who})", where=self.path, mend=mend) from None
            with contextlib.suppress(OSError):  # a full disk must not keep us from the message that says so
                handle.truncate(0)
                handle.write(str(os.getpid()))
                handle.flush()
            yield

    def is_locked(self) -> bool:
        """Whether a run is at work here now."""
        try:
            with (self.path / ".lock").open(encoding="utf-8") as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
        except BlockingIOError:
            return True
        except OSError:
            return False

    def prepare_work(self, stage: str, digest: str) -> dict[str, Any]:
        """Keep unfinished work of the same digest, wipe any other; returns the note to go on with."""
        note = self.note(stage)
        folder = self.work_folder(stage)
        if note.get("digest") != digest:
            with disk_errors(folder):
                # The note goes first: a kill between the two leaves work without a note, which is wiped next time.
                self.write_note(stage, None)
                if folder.exists():
                    shutil.rmtree(folder)
            note = {"digest": digest, "sessions": 0, "seconds": 0.0}
        note = {**note, "state": "running", "sessions": note.get("sessions", 0) + 1, "pid": os.getpid()}
        note.pop("error", None)
        self.write_note(stage, note)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        drop_torn(folder, within=True)  # else it would become a part of the artefact
        return note

    def tidy(self) -> None:
        """Remove what a kill left behind in the run's own folder: torn files, artefacts that were just being replaced."""
        for folder in (self.path, self.work):
            drop_torn(folder)
        for path in self.path.glob(".*.old"):
            shutil.rmtree(path, ignore_errors=True)

    def drop_work(self, stage: str) -> None:
        self.write_note(stage, None)
        shutil.rmtree(self.work_folder(stage), ignore_errors=True)

    def forced(self, from_stage: str | None, stages: set[str]) -> set[str]:
        """Stages that ``--from`` still has to make again: a killed ``--from`` run goes on instead of starting over."""
        if from_stage is None:  # a run without --from gives an open one up
            self._forced_path.unlink(missing_ok=True)
            return set()
        open_job = _read(self._forced_path) or {}
        if open_job.get("from") != from_stage:
            for stage in stages:
                self.drop_work(stage)
            open_job = {"from": from_stage, "left": sorted(stages)}
            write_json(self._forced_path, open_job)
        return set(open_job["left"]) & stages

    def unforce(self, stage: str) -> None:
        """A stage is made: strike it from the list of an open ``--from``."""
        job = _read(self._forced_path)
        if job and stage in job["left"]:
            job["left"].remove(stage)
            if job["left"]:
                write_json(self._forced_path, job)
            else:
                self._forced_path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    value = read_json(path)
    return value if isinstance(value, dict) else None
