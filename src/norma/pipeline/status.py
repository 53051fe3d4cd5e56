"""How each stage stands: done, stale (and why), running, stopped, failed or waiting.

recipe as it is now ─→ identity of each stage ─┐
lineage.json of each artefact ─────────────────┴─→ state and reasons   (the engine and ``norma status`` share this)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from norma.base.errors import NormaError
from norma.pipeline.folder import RunFolder
from norma.pipeline.lineage import Identity, changes, damage, identity
from norma.pipeline.recipe import Loaded, Node, load_recipe

if TYPE_CHECKING:
    from norma.spec import Spec


class State(StrEnum):
    DONE = "done"
    STALE = "stale"
    RUNNING = "running"
    STOPPED = "stopped"  # unfinished work lies there, and goes on with the next run
    FAILED = "failed"
    WAITING = "waiting"


@dataclass(frozen=True)
class StageState:
    """One stage's line in the table."""

    name: str
    kind: str
    state: State
    reasons: tuple[str, ...] = ()
    lineage: dict[str, Any] = field(default_factory=dict)  # of the artefact on disk, fresh or stale


def load_spec(loaded: Loaded) -> Spec | None:
    """The recipe's spec, loaded; None when it names none."""
    if loaded.spec_path is None:
        return None
    from norma.spec import Spec

    return Spec.load(loaded.spec_path)


def staleness(folder: RunFolder, node: Node, now: Identity) -> tuple[str, ...] | None:
    """Why the artefact on disk is not the one the recipe asks for; None when it is, () when there is none."""
    lineage = folder.lineage(node.name)
    if lineage is None:
        return ()
    if lineage.get("digest") != now.digest and (reasons := changes(lineage.get("identity", {}), now)):
        return tuple(reasons)
    hurt = damage(folder.artefact(node.name), lineage["files"])
    return None if hurt is None else (hurt,)


def assess(loaded: Loaded, folder: RunFolder, spec: Spec | None, forced: frozenset[str] = frozenset()) -> list[StageState]:
    """The state of every stage, in running order. Writes nothing."""
    locked = folder.is_locked()
    states: dict[str, StageState] = {}
    for name, node in loaded.nodes.items():
        lineage = folder.lineage(name) or {}
        contents = {i: str((folder.lineage(i) or {}).get("content", "")) for i in node.inputs}
        now = identity(loaded, node, spec, contents)
        reasons = staleness(folder, node, now)
        again = tuple(f"input '{i}' is to be made again" for i in node.inputs if states[i].state is not State.DONE)
        if reasons is None and name in forced:
            reasons = ("asked for with --from",)
        note = folder.note(name)
        why: tuple[str, ...] = ()
        if reasons is None and not again:
            state = State.DONE
        elif note.get("state") == "running" and locked:
            state = State.RUNNING
        elif note.get("state") == "failed":
            state, why = State.FAILED, (str(note.get("error")),)
        elif note and note.get("digest") == now.digest and not again:
            state, why = State.STOPPED, ("goes on where it stopped",)
        elif lineage:
            state, why = State.STALE, (*(reasons or ()), *again)
        else:
            state = State.WAITING
        states[name] = StageState(name, node.stage.kind, state, why, lineage)
    return list(states.values())


@dataclass(frozen=True)
class RunStatus:
    """The stages of a run and how they stand."""

    folder: Path
    loaded: Loaded
    stages: list[StageState]
    running: bool
    note: str = ""  # said above the table, for example that the recipe file is gone


def run_status(path: Path | str, overrides: Iterable[str] = (), *, scale: str | None = None, trust: bool = False) -> RunStatus:
    """Compare a run folder with its recipe (as edited since, with the scale and overrides of the last run).

    Args:
        path: a run folder, or a recipe (then its output folder is looked at, with the given scale and overrides).
    """
    path, note = Path(path).expanduser().absolute(), ""
    record = RunFolder(path).record() if path.is_dir() else {}
    if record:
        recipe = Path(record["recipe"])
        if recipe.is_file():
            chosen = list(overrides) or [t for t in record["overrides"] if not t.startswith("output=")]
            loaded = load_recipe(recipe, [*chosen, f"output={path}"], scale=scale or record["scale"], trust=trust)
        else:
            note = f"the recipe {recipe} is gone; compared with the copy in the run folder"
            loaded = load_recipe(path / "recipe.yaml", [*overrides, f"output={path}"], trust=trust)
    elif path.is_dir() and not (path / "recipe.yaml").is_file():
        raise NormaError("no Norma run in this folder", where=path, mend="Name a run folder (such as runs/NAME) or a recipe")
    else:
        loaded = load_recipe(path, overrides, scale=scale, trust=trust)
        if loaded.output.exists():
            record = RunFolder(loaded.output).record()
    folder = RunFolder(loaded.output)
    return RunStatus(folder.path, loaded, assess(loaded, folder, load_spec(loaded)), folder.is_locked(), note)
