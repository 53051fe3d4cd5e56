"""Starting, stopping and resuming a run: `norma run` as a process of its own, which outlives the studio.

Only the process that holds a run folder's lock is ever signalled, and only runs beside the opened one are touched.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from norma.base.errors import NormaError, nearest
from norma.pipeline.folder import RunFolder


def neighbours(run: Path | None) -> dict[str, Path]:
    """{name: folder} of the opened run and those beside it; names are the only way in."""
    if run is None:
        return {}
    found = {
        p.parent.name: p.parent for p in sorted(run.parent.glob("[!.]*/lineage.json"))[:200] if RunFolder(p.parent).record().get("recipe")
    }
    return {run.name: run, **found}


def pick(run: Path | None, name: str) -> Path:
    known = neighbours(run)
    if name not in known:
        raise NormaError(f"there is no run '{name[:80]}' here", mend=nearest(name[:80], known))
    return known[name]


def holder(run: Path) -> int | None:
    """The process that is at work in a run folder; None when nobody is."""
    if not RunFolder(run).is_locked():
        return None
    try:
        return int((run / ".lock").read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return None


def start(run: Path, log: Path) -> int:
    """Start or resume a run with the recipe, scale and overrides of its record; returns the process id."""
    if RunFolder(run).is_locked():
        raise NormaError("this run is under way already", where=run)
    record = RunFolder(run).record()
    recipe = Path(str(record.get("recipe", "")))
    if not recipe.is_file():
        recipe = run / "recipe.yaml"
        arguments: list[str] = []
    else:
        arguments = [t for t in record.get("overrides", []) if not t.startswith("output=")]
        arguments += ["--scale", str(record["scale"])] if record.get("scale") else []
    if not recipe.is_file():
        raise NormaError("the recipe of this run is gone", where=recipe)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        out.write(f"\n== started by the studio, {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
        out.flush()
        command = [sys.executable, "-m", "norma", "run", str(recipe), f"output={run}", *arguments]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, cwd=recipe.parent
        )
    time.sleep(0.3)
    if process.poll() not in (None, 0):
        raise NormaError("the run did not start", where=log, mend="The last lines of the log say why")
    threading.Thread(target=process.wait, daemon=True).start()  # else it stays a zombie for as long as the studio lives
    return process.pid


def stop(run: Path) -> int:
    """SIGTERM to the process at work: it saves, and goes on where it stopped with the next start."""
    process = holder(run)
    if process is None or process <= 1:
        raise NormaError("nothing is at work in this run", where=run)
    os.kill(process, signal.SIGTERM)
    return process


def tail(path: Path, size: int = 6000) -> str:
    """The last lines of a log, without a terminal's control sequences."""
    if not path.is_file():
        return ""
    with path.open("rb") as handle:
        handle.seek(0, os.SEEK_END)
        handle.seek(max(0, handle.tell() - size))
        text = handle.read().decode("utf-8", "replace")
    return "".join(c for c in text if c in "\n\t" or c.isprintable())


def at_a_glance(run: Path) -> dict[str, Any]:
    """The stages by what lies in the folder, at once; whether each is still what the recipe asks for is :func:`overview`'s to say."""
    folder = RunFolder(run)
    record = folder.record().get("stages", {})
    names = [*record, *(p.stem for p in sorted(folder.work.glob("[!.]*.json")) if p.stem not in record)]
    stages = []
    for name in names:
        lineage, note = folder.lineage(name), folder.note(name)
        state = note.get("state") if note.get("state") in ("running", "stopped", "failed") else "done" if lineage else "waiting"
        state = "stopped" if state == "running" and not folder.is_locked() else state
        kind = str((lineage or {}).get("identity", {}).get("kind", ""))
        stages.append({"name": name, "kind": kind, "state": state, "reasons": [], "seconds": record.get(name, {}).get("seconds")})
    return {"name": run.name, "stages": stages, "running": folder.is_locked(), "note": ""}


def overview(run: Path) -> dict[str, Any]:
    """A run's stages and how they stand, as ``norma status`` says; a recipe that cannot be read is a note, not a failure."""
    from norma.pipeline.status import run_status

    try:
        status = run_status(run)
    except NormaError as error:
        return {"name": run.name, "stages": [], "running": RunFolder(run).is_locked(), "note": str(error)}
    seconds = {name: row.get("seconds") for name, row in RunFolder(run).record().get("stages", {}).items()}
    stages = [
        {"name": s.name, "kind": s.kind, "state": s.state.value, "reasons": list(s.reasons), "seconds": seconds.get(s.name)}
        for s in status.stages
    ]
    return {"name": run.name, "stages": stages, "running": status.running, "note": status.note}
