"""The engine: makes the stages of a recipe one after another, each whole or not at all.

    for each stage in running order
      identity (options, seed, spec, contents of inputs, outside files) ─→ digest
      artefact on disk with this digest and unhurt? ─→ skip
      work folder `.work/<stage>` (kept when its digest matches) ─→ Stage.run ─→ lineage.json ─→ rename to `<stage>/`

Of several ranks (torchrun) the first does all this; the others call ``run`` with it, for the stages that are trained in parallel.

A kill at any point leaves either the old artefact or the new one, and unfinished work that the same command goes on with.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from norma.base.errors import NormaError
from norma.base.files import atomic_writer, commit_folder, disk_errors, read_json, write_json, write_text
from norma.base.hashing import file_digest
from norma.base.progress import Silent
from norma.base.ranks import Ranks, join, leave
from norma.pipeline.folder import RunFolder
from norma.pipeline.lineage import Identity, changes, content_digest, environment, finite, identity, list_files, list_unhashed, sealed
from norma.pipeline.observe import Logged, Observer, Quiet
from norma.pipeline.plan import Plan
from norma.pipeline.recipe import Loaded, Node, load_recipe
from norma.pipeline.stage import Context, Engine
from norma.pipeline.status import StageState, assess, load_spec, staleness

if TYPE_CHECKING:
    from norma.base.progress import Progress
    from norma.spec import Spec


@dataclass(frozen=True)
class StageResult:
    """One stage of a finished run."""

    name: str
    kind: str
    folder: Path
    made: bool  # False when the artefact was up to date
    seconds: float  # of the session that made it
    summary: dict[str, Any]
    digest: str
    content: str


@dataclass(frozen=True)
class Run:
    """A finished run (or the part of it that was asked for)."""

    folder: Path
    stages: dict[str, StageResult]

    @property
    def report(self) -> Path | None:
        """The HTML report, when a stage has made one."""
        path = self.folder / "report.html"
        return path if path.is_file() else None

    @property
    def table(self) -> dict[str, Any] | None:
        """The table of results of the last stage that has one."""
        tables = [s.summary["table"] for s in self.stages.values() if s.summary.get("table")]
        return tables[-1] if tables else None

    @property
    def model(self) -> Path | None:
        """The model folder to talk to: the one a summary names under ``talk``, else the last model made."""
        named = [s.summary["talk"] for s in self.stages.values() if s.summary.get("talk") in self.stages]
        models = [s.folder for s in self.stages.values() if s.summary.get("model")]
        return self.stages[named[-1]].folder if named else models[-1] if models else None


def run(
    recipe: Path | str,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    scale: str | None = None,
    trust: bool = False,
    until: str | None = None,
    from_stage: str | None = None,
    observer: Observer | None = None,
    engine: Engine = "local",
) -> Run:
    """Run a recipe, going on from whatever an earlier run of it has finished.

    Args:
        recipe: the YAML file (or a project folder that holds ``recipe.yaml``).
        overrides: ``{"pretrain.tokens": 1000000}`` or ``["pretrain.tokens=1000000"]``.
        until: make this stage and what it needs, nothing else.
        from_stage: make this stage and all that depend on it again, even if they are up to date.
        engine: who reads and tokenises text: this machine, or a Ray cluster. The artefacts are the same.

    Raises:
        NormaError: one line that names what is wrong, where, and how to mend it.
    """
    loaded = load_recipe(recipe, overrides, scale=scale, trust=trust, engine=engine)
    return execute(loaded, until=until, from_stage=from_stage, observer=observer)


def plan_run(loaded: Loaded, *, until: str | None = None, from_stage: str | None = None) -> list[StageState]:
    """What ``execute`` would find, stage by stage; writes nothing."""
    wanted, forced = _selection(loaded, until, from_stage)
    folder = RunFolder(loaded.output)
    folder.claim(loaded)
    return [s for s in assess(loaded, folder, load_spec(loaded), frozenset(forced)) if s.name in wanted]


def execute(loaded: Loaded, *, until: str | None = None, from_stage: str | None = None, observer: Observer | None = None) -> Run:
    """Run a loaded recipe. See ``run``."""
    wanted, forced = _selection(loaded, until, from_stage)
    watcher: Observer = observer or Quiet()
    spec = load_spec(loaded)
    folder = RunFolder(loaded.output)
    ranks = join()
    if not ranks.first:
        return _follow(loaded, [node for name, node in loaded.nodes.items() if name in wanted], spec, folder, ranks)
    folder.claim(loaded)  # before the lock, which would leave a file in a folder that is not ours
    with disk_errors(folder.path), folder.lock():
        folder.claim(loaded)
        folder.tidy()
        _record(loaded, folder, spec)
        forced = folder.forced(from_stage, forced)
        watcher.begin([name for name in loaded.nodes if name in wanted], folder.path)
        results: dict[str, StageResult] = {}
        for name, node in loaded.nodes.items():
            if name in wanted:
                results[name] = _make(loaded, node, spec, folder, name in forced, watcher, ranks)
                _record(loaded, folder, spec)
                _publish(folder, results[name])
    leave(ranks)
    return Run(folder.path, results)


def _follow(loaded: Loaded, nodes: list[Node], spec: Spec | None, folder: RunFolder, ranks: Ranks) -> Run:
    """What a rank does that is not the first: its part of the stages that are made in parallel, and nothing on the disk."""
    results: dict[str, StageResult] = {}
    for node in nodes:
        if ranks.tell(False):  # the first rank says whether it calls the stage
            node.stage.run(_context(loaded, node, spec, folder, Silent(), ranks))
        ranks.wait()
        results[node.name] = _result(folder, node, made=False)
    leave(ranks)
    return Run(folder.path, results)


def _selection(loaded: Loaded, until: str | None, from_stage: str | None) -> tuple[set[str], set[str]]:
    if until is not None:
        loaded.check_stage(until, "--until")
    if from_stage is not None:
        loaded.check_stage(from_stage, "--from")
    wanted = set(loaded.nodes) if until is None else loaded.needed_for(until)
    forced = set[str]() if from_stage is None else loaded.dependants(from_stage) & wanted
    if from_stage is not None and not forced:
        raise NormaError(f"--until {until} does not need {from_stage}: there is nothing to make", mend="Drop one of the two")
    return wanted, forced


def _make(loaded: Loaded, node: Node, spec: Spec | None, folder: RunFolder, forced: bool, watcher: Observer, ranks: Ranks) -> StageResult:
    """Bring one stage up to date. Its inputs are: this is called in running order."""
    contents = {name: str((folder.lineage(name) or {})["content"]) for name in node.inputs}
    now = identity(loaded, node, spec, contents)
    reasons = staleness(folder, node, now)
    if reasons is None and not forced:
        folder.drop_work(node.name)
        watcher.skip(node.name)
        ranks.tell(False)
        ranks.wait()
        return _result(folder, node, made=False)
    note = folder.prepare_work(node.name, now.digest)
    work = folder.work_folder(node.name)
    resumed = note["sessions"] > 1
    watcher.start(node.name, node.stage.kind, reasons or (), resumed)
    began = time.monotonic()
    fresh = not (work / "lineage.json").exists()
    ranks.tell(fresh and node.stage.parallel)
    if fresh:  # else killed between the last file and the rename: the work is whole
        try:
            _work(loaded, node, spec, folder, now, note, watcher, ranks)
        except BaseException as error:
            stopped = isinstance(error, (KeyboardInterrupt, SystemExit))
            state = {"state": "stopped"} if stopped else {"state": "failed", "error": _line(error)}
            seconds = note["seconds"] + time.monotonic() - began
            with contextlib.suppress(OSError, NormaError):  # on a full disk the first error is the one to tell
                folder.write_note(node.name, {**note, **state, "seconds": round(seconds, 3)})
            _explain_full_disk(error, folder)
            raise
    commit_folder(work, folder.artefact(node.name))
    ranks.wait()
    folder.unforce(node.name)
    folder.write_note(node.name, None)
    result = _result(folder, node, made=True)
    watcher.finish(node.name, result.seconds, result.summary)
    return result


def _context(loaded: Loaded, node: Node, spec: Spec | None, folder: RunFolder, progress: Progress, ranks: Ranks) -> Context[Any]:
    work = folder.work_folder(node.name)
    return Context(
        name=node.name,
        folder=work,
        inputs={name: folder.artefact(name) for name in node.inputs},
        options=node.options,
        spec=spec,
        seed=loaded.recipe.seed,
        progress=progress,
        plan=Plan(work, ranks),
        base=loaded.base,
        ranks=ranks,
        engine=loaded.engine,
    )


def _work(
    loaded: Loaded,
    node: Node,
    spec: Spec | None,
    folder: RunFolder,
    now: Identity,
    note: dict[str, Any],
    watcher: Observer,
    ranks: Ranks,
) -> None:
    """Call the stage and write its lineage: after this the work folder is whole."""
    work = folder.work_folder(node.name)
    began = time.monotonic()
    together = ranks if node.stage.parallel else Ranks()
    context = _context(loaded, node, spec, folder, Logged(watcher, work / "log.txt"), together)
    with disk_errors(work):
        summary = finite(node.stage.run(context) or {})
        shutil.rmtree(context.scratch, ignore_errors=True)
    after = identity(loaded, node, spec, now.inputs)
    if after.digest != now.digest:
        what = f"what stage '{node.name}' reads changed while it ran ({'; '.join(changes(now.row(), after))})"
        raise NormaError(what, mend="Run the same command again")
    files = list_files(work)
    lineage = {
        "stage": node.name,
        "digest": now.digest,
        "content": content_digest(files),
        "identity": now.row(),
        "summary": summary,
        "seconds": round(note["seconds"] + time.monotonic() - began, 3),
        "sessions": note["sessions"],
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
        "files": files,
        "unhashed": list_unhashed(work),
    }
    write_json(work / "lineage.json", sealed(lineage))


def _result(folder: RunFolder, node: Node, made: bool) -> StageResult:
    path = folder.artefact(node.name)
    row = read_json(path / "lineage.json")
    return StageResult(node.name, node.stage.kind, path, made, row["seconds"], row["summary"], row["digest"], row["content"])


def _record(loaded: Loaded, folder: RunFolder, spec: Spec | None) -> None:
    """The run's own record: recipe, spec, and where each finished artefact stands."""
    stages = {}
    for name in loaded.nodes:
        row = folder.lineage(name)
        if row is not None:
            stages[name] = {key: row[key] for key in ("digest", "content", "seconds", "finished")}
    spec_row = None if spec is None else {"path": str(loaded.spec_path), "digest": spec.digest}
    origin: dict[str, Any] = {"recipe": str(loaded.path), "scale": loaded.scale, "overrides": list(loaded.overrides)}
    own = loaded.path.parent == folder.path
    if own:  # the resolved copy was run: the recipe it was made from, with its scale and overrides, stays the owner
        known = folder.record()
        origin = {key: known.get(key, value) for key, value in origin.items()}
        origin["overrides"] += [text for text in loaded.overrides if text not in origin["overrides"]]
    copies: dict[str, str] = {}
    if not own:
        copies["recipe.yaml"] = loaded.resolved()
    if loaded.spec_path is not None and loaded.spec_path.parent != folder.path:
        text = loaded.spec_path.read_text(encoding="utf-8-sig") if spec is None else spec.one_file()  # the copy includes nothing
        copies["spec.yaml"] = text
    record = {"name": loaded.recipe.name, **origin, "spec": spec_row, "stages": stages, "environment": environment()}
    # The record goes first: a folder with files and without one would be taken for somebody else's.
    guarded = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in copies.items()}
    write_json(folder.record_path, sealed({**record, "copies": guarded}))
    for name, text in copies.items():
        write_text(folder.path / name, text)


def _publish(folder: RunFolder, result: StageResult) -> None:
    """Copy the files a summary names under ``publish`` to the run's own folder."""
    for name in result.summary.get("publish", []):
        source, target = result.folder / name, folder.path / Path(name).name
        if not target.is_file() or file_digest(target) != file_digest(source):
            with atomic_writer(target, "wb") as handle, source.open("rb") as data:
                shutil.copyfileobj(data, handle)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, NormaError) else f"{type(error).__name__}: {text}"[:300]


def _explain_full_disk(error: BaseException, folder: RunFolder) -> None:
    """Libraries tell of a full disk in many ways (SQLite, safetensors, torch); one look at the disk says it plainly."""
    if isinstance(error, (NormaError, KeyboardInterrupt, SystemExit)):
        return
    with contextlib.suppress(OSError):
        if shutil.disk_usage(folder.path).free < 64 * 1024:
            mend = "Free some space and run the same command again: it goes on from the last whole file"
            raise NormaError("no space left on the disk", where=folder.path, mend=mend) from error
