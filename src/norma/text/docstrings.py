"""Entries from the docstrings of installed packages and the standard library.

    packages ─→ files (no tests, vendored copies, generated code) ─→ scan (ast, in parallel) ─→ names people use ─→ Entry
                                                                                             └→ copies dropped

``numpy.linalg._linalg.svd`` becomes ``numpy.linalg.svd`` when a package above it exports it. The order of entries
depends on names only, not on the number of processes.
"""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import norma
from norma.base.errors import NormaError, nearest
from norma.base.progress import Progress, Silent
from norma.text.quarantine import Quarantine
from norma.text.scan import scan_file

MAX_BYTES = 1_000_000
BATCH = 300  # files a worker process reads before it is replaced: small enough to show progress
# Tools that install or build, and Norma itself: not what a documentation assistant is asked about.
NOT_READ = frozenset({"pip", "setuptools", "wheel", "norma-lm"})
# Tests and examples; copies of other packages; trees without documentation.
_SKIPPED = """
tests test testing_utils _test test_utils benchmarks benchmark examples _examples docs doc site-packages dist-packages
_vendor vendor vendored _vendored vendored_packages third_party _third_party thirdparty extern externals _external
__pycache__ node_modules idlelib lib2to3 turtledemo ensurepip encodings pydoc_data migrations scripts locale locales
"""
SKIPPED_FOLDERS = frozenset(_SKIPPED.split())
SKIPPED_FILES = re.compile(r"(?:test_.*|.*_tests?|tests?|conftest|setup|__main__|.*_pb2(?:_grpc)?|_version|version)\.py$")


@dataclass(frozen=True)
class Package:
    """A distribution, or the standard library, with the files and folders it owns at the top level."""

    name: str
    version: str
    roots: tuple[Path, ...]
    licence: str = ""


@dataclass(frozen=True)
class Entry:
    """One documented name. ``fault`` says why its summary cannot be an answer ("" when it can)."""

    name: str
    module: str
    kind: str
    signature: str
    summary: str
    fault: str
    body: str
    package: str
    version: str
    document: str  # the dotted file it is defined in: what is split into training and validation

    @property
    def text(self) -> str:
        """The whole entry as text: signature, summary, body."""
        return "\n".join(part for part in (f"`{self.signature}`", self.summary, self.body) if part)

    @property
    def public(self) -> bool:
        """No part of the name is private."""
        return not any(part.startswith("_") for part in self.name.split("."))


@dataclass
class Scan:
    """Entries and what was left out on the way."""

    entries: list[Entry] = field(default_factory=list)
    packages: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)


def standard_library() -> Package:
    folder = Path(sysconfig.get_paths()["stdlib"])
    names = sys.stdlib_module_names - SKIPPED_FOLDERS
    roots = [p for p in sorted(folder.iterdir()) if p.name.removesuffix(".py") in names and (p.suffix == ".py" or p.is_dir())]
    return Package("stdlib", platform.python_version(), tuple(p for p in roots if not p.name.startswith("_")), "PSF-2.0")


def installed_packages() -> list[Package]:
    """Every installed distribution with Python files, by name; the standard library last."""
    found: dict[str, Package] = {}
    for distribution in importlib.metadata.distributions():
        about = distribution.metadata  # parsed anew each time it is asked for
        name = re.sub(r"[-_.]+", "-", about["Name"] or "").lower()
        if not name or name in found or name in NOT_READ or name.endswith("-stubs") or name.startswith("types-"):
            continue
        tops = _tops(distribution) - SKIPPED_FOLDERS
        roots = [Path(str(distribution.locate_file(top))) for top in sorted(tops) if top[0] not in "_./"]
        if roots := [root for root in roots if root.exists()]:
            licence = about["License-Expression"] or (about["License"] or "").strip().split("\n")[0][:60]
            classified = [c.rsplit(" :: ", 1)[-1] for c in about.get_all("Classifier") or () if c.startswith("License ::")]
            found[name] = Package(name, about["Version"], tuple(roots), licence or ", ".join(classified) or "see its metadata")
    return [*(found[name] for name in sorted(found)), standard_library()]


def _tops(distribution: importlib.metadata.Distribution) -> set[str]:
    """The first parts of its Python files' paths. ``distribution.files`` makes an object of each of a hundred thousand paths."""
    record = distribution.read_text("RECORD")
    if record is None:  # an egg, or what a system's package manager installed
        return {file.parts[0] for file in distribution.files or () if file.suffix == ".py"}
    return {row[0].split("/")[0] for row in csv.reader(record.splitlines()) if row and row[0].endswith(".py")}


def choose(selection: Sequence[str] | str) -> list[Package]:
    """``installed`` or a list of names (``stdlib``, ``torch``, ...; of the distribution or of what is imported)."""
    packages = installed_packages()
    if selection == "installed":
        return packages
    known = {package.name: package for package in packages}
    known |= {root.name.removesuffix(".py"): package for package in packages[:-1] for root in package.roots if root.name not in known}
    chosen: dict[str, Package] = {}
    for wanted in [selection] if isinstance(selection, str) else selection:
        name = wanted if wanted in known else re.sub(r"[-_.]+", "-", wanted).lower()
        if name not in known:
            raise NormaError(f"the package '{wanted}' is not installed", where="docstrings", mend=nearest(wanted, known))
        chosen[known[name].name] = known[name]
    return list(chosen.values())


def python_files(root: Path) -> Iterator[tuple[Path, str, bool]]:
    """``(file, dotted module, is a package)`` below a folder, or of one file, in order of path."""
    if root.is_file():
        yield root, root.stem, False
        return
    for folder, names, files in os.walk(root):
        names[:] = sorted(n for n in names if n not in SKIPPED_FOLDERS and not n.startswith(".") and n.isidentifier())
        parts = (root.name, *Path(folder).relative_to(root).parts)
        for name in sorted(files):
            path = Path(folder, name)
            if name == "__init__.py":
                yield path, ".".join(parts), True
            elif name.endswith(".py") and not SKIPPED_FILES.match(name) and name[:-3].isidentifier():
                yield path, ".".join((*parts, name[:-3])), False


@dataclass(frozen=True)
class _Job:
    """A file to read. ``shown`` is its path for people, the same on every machine."""

    package: Package
    path: Path
    module: str
    is_package: bool
    shown: str

    @property
    def private(self) -> bool:
        return any(part.startswith("_") for part in self.module.split("."))


def read_docstrings(
    packages: Sequence[Package], quarantine: Quarantine, *, progress: Progress | None = None, processes: int | None = None
) -> Scan:
    """All entries of ``packages`` under public names, in order of name. Broken files are set aside in ``quarantine``."""
    result = Scan(packages={p.name: p.version for p in packages})
    jobs: dict[str, _Job] = {}
    for package in packages:
        for root in package.roots:
            for path, module, is_package in python_files(root):
                if path.stat().st_size > MAX_BYTES:
                    result.counts["files over 1 MB"] += 1
                else:
                    jobs.setdefault(module, _Job(package, path, module, is_package, path.relative_to(root.parent).as_posix()))
    scanned = _scan_public(jobs, progress or Silent(), processes)
    public = public_names(scanned, {module for module, job in jobs.items() if job.is_package})
    names: set[str] = set()
    for module, job in jobs.items():
        if module not in scanned:
            result.counts["files private and not exported"] += 1
            continue
        found = scanned[module]
        result.counts[f"files {found['skipped'] or 'read'}"] += 1
        if found["fault"]:
            quarantine.add(job.shown, 0, found["fault"])
        for doc in found["docs"]:
            entry = _entry(doc, module, public, job.package)
            if entry.name in names:
                entry = _entry(doc, module, {}, job.package)
            if entry.public and entry.name not in names:
                names.add(entry.name)
                result.entries.append(entry)
    result.entries.sort(key=lambda e: e.name)
    return result


def _scan_public(jobs: dict[str, _Job], progress: Progress, processes: int | None) -> dict[str, dict[str, Any]]:
    """Read the public modules, then, round by round, the private ones that public packages export names from."""
    scanned: dict[str, dict[str, Any]] = {}
    wanted = [module for module, job in jobs.items() if not job.private]
    exporting = {module for module in wanted if jobs[module].is_package}
    for _ in range(3):  # deeper chains of private modules lead to few names and many files
        scanned |= zip(wanted, _scan_all([jobs[module] for module in wanted], progress, processes), strict=True)
        reached = list(exporting)
        while reached:
            found = scanned.get(reached.pop())
            origins = {*found["stars"], *(origin for _, origin, _ in found["imports"])} if found else set()
            new = {origin for origin in origins if origin in jobs} - exporting
            exporting |= new
            reached += new
        wanted = sorted(exporting - set(scanned))
    return scanned


def entries_of_file(path: Path, file: str, quarantine: Quarantine) -> list[Entry]:
    """The public entries of one Python file of a user; ``file`` is its path for people, from which the dotted name is made."""
    parts = [part for part in re.sub(r"\.py(\.gz)?$", "", file).split("/") if part]
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    module = ".".join(parts)
    found = scan_file(str(path), module, file.endswith("__init__.py"))
    if found["fault"]:
        quarantine.add(file, 0, found["fault"])
    here = Package("", "", ())
    return [entry for doc in found["docs"] if (entry := _entry(doc, module, {}, here)).public]


def _scan_all(files: Sequence[_Job], progress: Progress, processes: int | None) -> list[dict[str, Any]]:
    processes = processes or os.cpu_count() or 1
    jobs = [(str(job.path), job.module, job.is_package) for job in files]
    if processes == 1 or len(jobs) < 40:
        return [scan_file(*job) for job in jobs]
    size = min(BATCH, -(-len(jobs) // processes))
    batches = [jobs[i : i + size] for i in range(0, len(jobs), size)]
    results: list[dict[str, Any]] = []
    with ThreadPoolExecutor(processes) as pool:
        for batch in pool.map(_worker, batches):
            results += batch
            progress.update(len(results), len(jobs))
    return results


def _worker(batch: list[tuple[str, str, bool]]) -> list[dict[str, Any]]:
    home = str(Path(norma.__file__).parents[1])
    path = os.pathsep.join(p for p in (home, os.environ.get("PYTHONPATH", "")) if p)
    done = subprocess.run(
        [sys.executable, "-m", "norma.text.scan"],
        input="".join(json.dumps(job) + "\n" for job in batch),
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    if done.returncode:  # killed for memory, perhaps: read these files here instead
        return [scan_file(*job) for job in batch]
    return [json.loads(line) for line in done.stdout.splitlines()]


def public_names(modules: dict[str, dict[str, Any]], packages: set[str]) -> dict[tuple[str, str], str]:
    """``(module, top-level name) -> shortest name`` under which a public package above the module exports it."""
    memo: dict[str, dict[str, tuple[str, str]]] = {}

    def exports(module: str) -> dict[str, tuple[str, str]]:
        """What ``module`` offers, by name. Within a circle of imports the module begun first sees less; the order is fixed."""
        if module in memo or module not in modules:
            return memo.get(module, {})
        found, names = modules[module], memo.setdefault(module, {})
        names |= {name: (module, name) for name in found["defined"]}
        for name, origin, original in found["imports"]:
            if target := exports(origin).get(original):
                names.setdefault(name, target)
        for star in found["stars"]:
            for name, target in list(exports(star).items()):
                if not name.startswith("_"):
                    names.setdefault(name, target)
        return names

    best: dict[tuple[str, str], str] = {}
    for package in sorted(packages, key=lambda p: (p.count("."), p)):
        if any(part.startswith("_") for part in package.split(".")):
            continue
        for name, (module, original) in exports(package).items():
            if module.startswith(package + ".") and not name.startswith("_") and original == name:
                best.setdefault((module, original), f"{package}.{name}")
    return best


def _entry(doc: dict[str, Any], module: str, public: dict[tuple[str, str], str], package: Package) -> Entry:
    top, dot, rest = doc["name"].partition(".")
    owner = public.get((module, top), f"{module}.{top}") if top else module
    name = owner + dot + rest
    home = owner.rsplit(".", 1)[0] if top else module
    call = "" if doc["parameters"] is None else f"({', '.join(doc['parameters'])})"
    return Entry(name, home, doc["kind"], name + call, doc["summary"], doc["fault"], doc["body"], package.name, package.version, module)


def cut_signature(signature: str, characters: int) -> str:
    """At most ``characters`` long; a long one is cut after a parameter and ends with ``...)``."""
    if len(signature) <= characters:
        return signature
    name = signature.split("(", 1)[0]
    head, comma, _ = signature[: max(characters - 4, 0)].rpartition(", ")
    return head + ", ...)" if comma and len(head) > len(name) else f"{name}(...)"
