"""Kill a run before its n-th change to the disk (rename, delete, new folder), for every n; then run it again and compare.

    python sweep.py PROJECT [--again]       --again: the killed run replaces the artefacts of a finished one

Each run is a forked child, so that a hundred kills take seconds. Prints one JSON row per kill point.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import norma.pipeline
from norma.pipeline import load_recipe


def child(recipe: Path, overrides: list[str], die_at: int | None) -> bool:
    """Run in a fork; True when it ended by itself."""
    process = os.fork()
    if process:
        _, status = os.waitpid(process, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return False
        assert os.WEXITSTATUS(status) == 0
        return True
    code = 1
    try:
        if die_at is not None:
            arm(die_at)
        norma.pipeline.run(recipe, overrides, trust=True)
        code = 0
    finally:
        os._exit(code)


def arm(die_at: int) -> None:
    seen = [0]

    def guard(function: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            seen[0] += 1
            if seen[0] > die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return counted

    for name in ("replace", "unlink", "mkdir", "rmdir"):
        setattr(os, name, guard(getattr(os, name)))


def lineages(folder: Path, stages: list[str]) -> dict[str, dict[str, Any]]:
    rows = {name: folder / name / "lineage.json" for name in stages}
    return {name: json.loads(path.read_text()) for name, path in rows.items() if path.exists()}


def main() -> None:
    project, again = Path(sys.argv[1]), "--again" in sys.argv
    recipe, small = project / "recipe.yaml", ["first.steps=2", "second.steps=1", "aside.steps=1"]
    changed = [*small, "first.steps=3"] if again else small
    calls = Path(os.environ["NORMA_TEST_CALLS"])
    runs = project / "runs"
    os.chdir(project)
    stages = list(load_recipe(recipe, trust=True).nodes)
    assert child(recipe, changed, None)
    wanted = {name: row["content"] for name, row in lineages(runs / "toy", stages).items()}
    shutil.rmtree(runs)
    die_at, alive = 0, False
    while not alive:
        if again:
            assert child(recipe, small, None)
        calls.unlink(missing_ok=True)
        digests = {name: row["digest"] for name, row in lineages(runs / "toy", stages).items()}
        alive = child(recipe, changed, die_at)
        finished = [n for n, row in lineages(runs / "toy", stages).items() if digests.get(n) != row["digest"]]
        first_calls = calls.read_text().split() if calls.exists() else []
        calls.unlink(missing_ok=True)
        assert child(recipe, changed, None)
        second_calls = calls.read_text().split() if calls.exists() else []
        after = lineages(runs / "toy", stages)
        twice = [c for c in first_calls if c in second_calls and not c.endswith(":enter")]
        row = {
            "die_at": die_at,
            "alive": alive,
            "equal": {name: r["content"] for name, r in after.items()} == wanted,
            "finished_redone": [n for n in finished if f"{n}:enter" in second_calls],
            "steps_redone": twice,
            "left_over": sorted(p.name for p in (runs / "toy").iterdir() if p.name.endswith((".old", ".tmp"))),
            "unfinished": sorted(p.name for p in (runs / "toy" / ".work").iterdir() if p.name != ".lock"),
        }
        print(json.dumps(row))
        shutil.rmtree(runs)
        die_at += 1


if __name__ == "__main__":
    main()
