"""Where an artefact comes from: the identity of a stage, what changed since, and whether its files are still as written.

identity = kind, version, options, seed, used parts of the spec, content of inputs, outside files
seal           = SHA-256 of a lineage.json without it: the record itself is guarded too
stage digest   = SHA-256 of the identity      a finished stage with the same digest is not made again
content digest = SHA-256 of the files made    what the stages after it see: an equal artefact makes nothing stale
"""

from __future__ import annotations

import math
import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from norma import __version__
from norma.base.hashing import UNHASHED, digest, file_digest
from norma.pipeline.recipe import Loaded, Node
from norma.pipeline.stages import code_digest

if TYPE_CHECKING:
    from norma.spec import Role, Spec


_ROLES: tuple[Role, ...] = ("train", "report", "heldout", "gold")


@dataclass(frozen=True)
class Identity:
    """All that an artefact depends on, as plain JSON."""

    kind: str
    version: int
    options: dict[str, Any]
    seed: int
    spec: dict[str, Any]
    inputs: dict[str, str]
    fingerprint: Any

    @property
    def digest(self) -> str:
        # What says nothing is as if it were not there: an option that a later Norma adds, and that is null, makes nothing stale.
        return digest(spoken(self.row()))

    def row(self) -> dict[str, Any]:
        return asdict(self)


def spoken(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: spoken(item) for key, item in value.items() if item is not None}
    return [spoken(item) for item in value] if isinstance(value, list | tuple) else value


def identity(loaded: Loaded, node: Node, spec: Spec | None, inputs: dict[str, str]) -> Identity:
    """The identity of a stage today; ``inputs`` are the content digests of what it reads."""
    outside = node.stage.fingerprint(node.options, loaded.base)
    code = code_digest(node.stage.kind)
    if code is not None:
        outside = {"stage": outside, "code": code}
    return Identity(
        node.stage.kind,
        node.stage.version,
        node.options.resolved(),
        loaded.recipe.seed,
        _spec_part(spec, node.stage.spec_use(node.options)),
        inputs,
        outside,
    )


def _spec_part(spec: Spec | None, use: bool | tuple[str, ...]) -> dict[str, Any]:
    """The facets of the rules that a stage uses (``wording`` means the wording in every language), and its checkers' own digests."""
    if spec is None or use is False:
        return {}
    rules: dict[str, dict[str, str]] = {}
    for rule in spec.rules:
        chosen = {f: h for f, h in rule.facets.items() if use is True or f in use or f.partition(".")[0] in use}
        if use is True or "check" in use:
            # A checker whose code was improved judges otherwise although the spec says the same.
            built = {c.id: c.digest for role in _ROLES for c in spec.checkers(role).get(rule.id, [])}
            chosen["checkers"] = digest(built)
        rules[rule.id] = chosen
    return {"digest": spec.digest, "rules": rules} if use is True else {"rules": rules}


def changes(old: dict[str, Any], new: Identity) -> list[str]:
    """Why an artefact with the recorded identity ``old`` is stale: one readable line per change."""
    now, lines = new.row(), []
    for key in ("kind", "version", "seed"):
        if old.get(key) != now[key]:
            name = "stage version" if key == "version" else key
            lines.append(f"{name}: {old.get(key)} → {now[key]}")
    lines += [f"{key}: {a} → {b}" for key, a, b in _differences(old.get("options", {}), now["options"])]
    if old.get("spec") != now["spec"]:
        lines.append(_spec_change(old.get("spec") or {}, now["spec"]))
    for name in sorted({*old.get("inputs", {}), *now["inputs"]}):
        before, after = old.get("inputs", {}).get(name), now["inputs"].get(name)
        if before != after:
            lines.append(f"input '{name}': {_short(before)} → {_short(after)}")
    lines += [f"outside: {key}: {a} → {b}" for key, a, b in _differences(old.get("fingerprint", {}), now["fingerprint"])]
    return lines


def _spec_change(old: dict[str, Any], new: dict[str, Any]) -> str:
    before, after = old.get("rules", {}), new.get("rules", {})
    parts = [f"rule {id} is new" for id in after if id not in before]
    parts += [f"rule {id} is gone" for id in before if id not in after]
    for id in after:
        if id in before and before[id] != after[id]:
            facets = [f for f in {**before[id], **after[id]} if before[id].get(f) != after[id].get(f)]
            parts.append(f"rule {id} changed ({', '.join(facets)})")
    return "spec: " + (", ".join(parts) if parts else f"{_short(old.get('digest'))} → {_short(new.get('digest'))}")


def _differences(old: Any, new: Any, key: str = "") -> list[tuple[str, str, str]]:
    """(dotted key, old value, new value) of every leaf that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for name in dict.fromkeys([*old, *new]):
            found += _differences(old.get(name), new.get(name), f"{key}.{name}" if key else str(name))
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [d for i, (a, b) in enumerate(zip(old, new, strict=True)) for d in _differences(a, b, f"{key}.{i}" if key else str(i))]
    return [] if digest(old) == digest(new) else [(key or "value", _short(old), _short(new))]


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    if len(text) == 64 and all(c in "0123456789abcdef" for c in text):
        return text[:8]
    return text if len(text) <= 60 else text[:57] + "..."


def list_files(folder: Path) -> dict[str, list[Any]]:
    """Relative path -> [sha256, size, mtime in ns] of the artefact's files, ``UNHASHED`` names left out."""
    found: dict[str, list[Any]] = {}
    for path in folder.rglob("*"):
        half = path.name.startswith(".") and path.suffix == ".tmp"
        if path.is_file() and not half and UNHASHED.isdisjoint(path.relative_to(folder).parts):
            stat = path.stat()
            found[path.relative_to(folder).as_posix()] = [file_digest(path), stat.st_size, stat.st_mtime_ns]
    return dict(sorted(found.items()))


OPEN_ENDED = frozenset({"sinks", "lineage.json"})  # written by others while a run lives; and the record itself, which has a seal


def list_unhashed(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of the files that stay out of the content digest (logs, metrics, the label store): guarded, not compared."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    told = [p for p in paths if not UNHASHED.isdisjoint(p.parts) and OPEN_ENDED.isdisjoint(p.parts)]
    return {path.as_posix(): file_digest(folder / path) for path in sorted(told)}


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """A record with the digest of itself."""
    plain = {key: value for key, value in record.items() if key != "seal"}
    return {**plain, "seal": digest(plain)}


def content_digest(files: dict[str, list[Any]]) -> str:
    """Equal to ``norma.base.hashing.folder_digest`` of the folder."""
    return digest(sorted([name, row[0]] for name, row in files.items()))


def damage(folder: Path, files: dict[str, list[Any]]) -> str | None:
    """What happened to an artefact's files since they were written; None when they are as recorded.

    A file of the recorded size and time is taken as unchanged; any other is read and compared by its digest, so that a copied
    run folder is still whole. Files that somebody added are not looked at: no later stage was promised them.
    """
    for name, (sha, size, mtime) in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        stat = path.stat()
        if stat.st_size != size or (stat.st_mtime_ns != mtime and file_digest(path) != sha):
            return f"{name} was changed after it was made"
    return None


def environment() -> dict[str, str]:
    """Versions worth keeping beside an artefact. Looks torch up without importing it."""
    found = {"norma": __version__, "python": platform.python_version(), "platform": f"{sys.platform} {platform.machine()}"}
    for package in ("torch", "tokenizers", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def finite(value: Any) -> Any:
    """``value`` as JSON: numbers that are not finite become null, tuples lists, paths text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return str(value) if isinstance(value, Path) else value
