"""The engine and ``norma status``: what is made again and why, who owns a folder, how failures end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from norma.base.errors import NormaError
from norma.base.hashing import folder_digest
from norma.pipeline import Run, State, run, run_status
from norma.pipeline.lineage import content_digest, finite, list_files


def go(project: Any, *overrides: str, **options: Any) -> Run:
    return run(project.recipe, list(overrides), trust=True, **options)


def made(result: Run) -> list[str]:
    return [name for name, stage in result.stages.items() if stage.made]


def standing(project: Any) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {s.name: (str(s.state), s.reasons) for s in run_status(project.run_folder, trust=True).stages}


def test_a_run_and_its_record(project: Any) -> None:
    result = go(project)
    # x after n steps of the congruence, worked by hand in integers from seed 5
    x = 5
    for _ in range(3):
        x = (1103515245 * x + 12345) % 2**31
    assert result.stages["first"].summary["x"] == x
    assert made(result) == ["first", "second", "aside", "end"]
    assert result.report == project.run_folder / "report.html"
    assert result.model == project.run_folder / "second"
    assert result.table is not None and result.table["columns"] == ["chain", "value", "nothing"]
    assert result.stages["first"].summary["ratio"] is None  # NaN becomes null: JSON stays JSON
    for path in project.run_folder.rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(f"JSON holds {name}"))
    first = json.loads((project.run_folder / "first" / "lineage.json").read_text(encoding="utf-8"))
    assert first["content"] == folder_digest(project.run_folder / "first")
    record = json.loads((project.run_folder / "lineage.json").read_text(encoding="utf-8"))
    assert record["stages"]["first"]["content"] == first["content"]
    assert list((project.run_folder / ".work").iterdir()) == []
    assert "first says [bold]done[/]" in (project.run_folder / "first" / "log.txt").read_text(encoding="utf-8")
    assert made(go(project)) == []


@pytest.mark.parametrize(
    ("old", "new", "again", "why"),
    [
        ("steps: 2", "steps: 6", ["aside", "end"], ("aside", "steps: 2 → 6")),
        ("    steps: 3", "    steps: 6", ["first", "second", "end"], ("first", "steps: 3 → 6")),
        ("seed: 5", "seed: 6", ["first", "second", "aside", "end"], ("end", "seed: 5 → 6")),
        ("parts: [second, aside]", "parts: [second]", ["end"], ("end", "parts: ['second', 'aside'] → ['second']")),
    ],
)
def test_a_changed_value_reruns_only_what_depends_on_it(project: Any, old: str, new: str, again: list[str], why: tuple[str, str]) -> None:
    go(project)
    project.edit(old, new)
    states = standing(project)
    assert [name for name, (state, _) in states.items() if state == State.STALE] == again
    assert why[1] in states[why[0]][1]
    assert made(go(project)) == again


def test_changed_outside_file_input_and_code(project: Any) -> None:
    go(project)
    (project.folder / "input.txt").write_text("other\n", encoding="utf-8")
    states = standing(project)
    assert states["first"][0] == "stale" and states["first"][1][0].startswith("outside: stage.input.txt: ")
    assert states["second"] == ("stale", ("input 'first' is to be made again",))
    # The file is digested but its text does not enter the result: an equal artefact makes nothing after it stale.
    assert made(go(project)) == ["first"]
    with (project.folder / "kinds.py").open("a", encoding="utf-8") as handle:
        handle.write("# edited\n")
    assert {reasons[0].split(":")[1].strip() for _, reasons in standing(project).values()} == {"code"}
    assert made(go(project)) == ["first", "second", "aside", "end"]


def test_comments_and_layout_do_not_matter(project: Any) -> None:
    go(project)
    text = project.recipe.read_text(encoding="utf-8")
    project.recipe.write_text("# a comment\n" + text.replace("steps: 2}", "'steps':   2 }"), encoding="utf-8")
    assert made(go(project)) == []


def test_hurt_artefacts_are_made_again(project: Any) -> None:
    go(project)
    state = project.run_folder / "aside" / "state.json"
    state.write_text('{"step": 2, "x": 1}', encoding="utf-8")
    assert standing(project)["aside"] == ("stale", ("state.json was changed after it was made",))
    assert made(go(project)) == ["aside"]  # the same content again: `end` stays
    state.unlink()
    assert standing(project)["aside"] == ("stale", ("state.json is missing",))
    assert made(go(project)) == ["aside"]
    (project.run_folder / "aside" / "notes.md").write_text("mine", encoding="utf-8")
    assert made(go(project)) == []


def test_a_moved_project_is_done(project: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    go(project)
    elsewhere = tmp_path_factory.mktemp("moved") / "project"
    shutil.copytree(project.folder, elsewhere, copy_function=shutil.copyfile)  # new times, no permissions
    shutil.rmtree(project.folder / "runs")
    project.recipe.unlink()
    monkeypatch.chdir(elsewhere)
    assert made(run(elsewhere / "recipe.yaml", trust=True)) == []


def test_the_current_folder_does_not_matter(
    project: Any, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(project)
    monkeypatch.chdir(tmp_path_factory.mktemp("away"))
    assert made(run(project.recipe, [f"output={project.run_folder}"], trust=True)) == []
    assert made(run(project.run_folder / "recipe.yaml", trust=True)) == []  # the resolved copy runs from anywhere
    assert {state for state, _ in standing(project).values()} == {"done"}


def test_until_and_from(project: Any) -> None:
    assert made(go(project, until="second")) == ["first", "second"]
    assert standing(project)["end"] == ("waiting", ())
    assert made(go(project)) == ["aside", "end"]
    assert made(go(project, from_stage="second")) == ["second", "end"]
    assert made(go(project)) == []
    with pytest.raises(NormaError, match=r"--until names 'secnd', which is no stage of recipe.yaml. Did you mean 'second'."):
        go(project, until="secnd")
    with pytest.raises(NormaError, match="nothing to make"):
        go(project, until="aside", from_stage="first")


def test_a_killed_from_run_goes_on(project: Any) -> None:
    go(project)
    assert project.norma("run", "recipe.yaml", "--trust", "--from", "first", NORMA_TEST_DIE="second:2").returncode == -9
    assert made(go(project, from_stage="first")) == ["second", "end"]  # `first` was already made again
    assert made(go(project, from_stage="first")) == ["first", "second", "end"]  # a new wish


def test_folder_of_another_recipe(project: Any, other_project: Any) -> None:
    go(project)
    with pytest.raises(NormaError, match="belongs to another recipe, 'toy', not 'toy2'"):
        go(project, "name=toy2", "output=runs/toy")
    other = other_project()
    with pytest.raises(NormaError, match=r"belongs to the recipe .*recipe.yaml. Give recipe.yaml another 'name:'"):
        run(other.recipe, [f"output={project.run_folder}"], trust=True)
    mine = project.folder / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("x", encoding="utf-8")
    with pytest.raises(NormaError, match=r"not empty and is no Norma run \(it holds 'thesis.tex'\)"):
        go(project, "output=mine")
    assert [p.name for p in mine.iterdir()] == ["thesis.tex"]
    with pytest.raises(NormaError, match="the output is a file"):
        go(project, "output=input.txt")
    with pytest.raises(NormaError, match="a part of this path is a file"):
        go(project, "output=input.txt/run")


def test_failure_is_recorded_and_mended(project: Any) -> None:
    with pytest.raises(ValueError, match="the stage broke"):
        go(project, "second.fail=yes")
    assert standing(project)["second"] == ("failed", ("ValueError: the stage broke on two lines",))
    assert made(go(project)) == ["second", "aside", "end"]


def test_two_runs_at_once(project: Any) -> None:
    running = project.start("run", "recipe.yaml", "--trust", "first.pause=20")
    try:
        wait_for(lambda: "first:enter" in project.calls())
        with pytest.raises(NormaError, match=rf"another run is at work in this folder \(process {running.pid}\)"):
            go(project)
        assert standing(project)["first"][0] == "running"
        assert standing(project)["second"][0] == "waiting"
    finally:
        running.kill()
        running.wait()
    assert standing(project)["first"][0] == "stopped"
    assert made(go(project)) == ["first", "second", "aside", "end"]


def test_recipe_edited_while_running(project: Any) -> None:
    running = project.start("run", "recipe.yaml", "--trust", "first.pause=0.3")
    wait_for(lambda: "first:enter" in project.calls())
    project.edit("steps: 2", "steps: 9")
    assert running.wait(timeout=60) == 0, running.stderr
    running.communicate()
    aside = json.loads((project.run_folder / "aside" / "lineage.json").read_text(encoding="utf-8"))
    assert aside["identity"]["options"]["steps"] == 2  # the run went by the recipe it began with, and says so
    assert standing(project)["aside"] == ("stale", ("steps: 2 → 9",))


def test_outside_file_edited_while_it_is_read(project: Any) -> None:
    running = project.start("run", "recipe.yaml", "--trust", "first.pause=0.3")
    wait_for(lambda: "first:1" in project.calls())
    (project.folder / "input.txt").write_text("changed in between\n", encoding="utf-8")
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 2
    assert "what stage 'first' reads changed while it ran (outside: stage.input.txt: " in errors
    assert made(go(project)) == ["first", "second", "aside", "end"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_says_how_to_go_on(project: Any, number: signal.Signals, code: int) -> None:
    running = project.start("run", "recipe.yaml", "--trust", "second.pause=0.5")
    wait_for(lambda: "second:1" in project.calls())
    running.send_signal(number)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == code
    assert errors == "Stopped. To go on: norma run recipe.yaml --trust second.pause=0.5\n"
    assert standing(project)["second"] == ("stopped", ("goes on where it stopped",))
    assert project.norma("run", "recipe.yaml", "--trust", "second.pause=0.5").returncode == 0
    assert project.calls().count("second:1") == 1


def test_full_disk(project: Any, tmp_path: Path) -> None:
    """A 1 MB file system of its own where one can be mounted (root in a container often may)."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        done = project.norma("run", "recipe.yaml", "--trust", f"output={small}/run", "second.megabytes=3")
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1 and "no space left on the disk. Free some space and run the same command again" in done.stderr
        subprocess.run(["mount", "-o", "remount,size=16m", str(small)], check=True)
        again = project.norma("run", "recipe.yaml", "--trust", f"output={small}/run", "second.megabytes=3")
        assert again.returncode == 0, again.stderr
        assert project.calls().count("first:enter") == 1
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_forbidden_folder(project: Any) -> None:
    shut = project.folder / "shut"
    shut.mkdir(mode=0o500)
    with pytest.raises(NormaError, match=r"writing here is not permitted. Choose another output folder"):
        go(project, "output=shut/run")


def test_forbidden_folder_without_being_root(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *arguments: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(NormaError, match=r"writing here is not permitted. Choose another output folder"):
        go(project)


def test_finite_and_content_digest(tmp_path: Path) -> None:
    assert finite({"a": [float("inf"), 1.5, (1, float("nan"))], 2: Path("x")}) == {"a": [None, 1.5, [1, None]], "2": "x"}
    for name in ("b.txt", "a/z.txt", "a.txt", "metrics.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name, encoding="utf-8")
    assert content_digest(list_files(tmp_path)) == folder_digest(tmp_path)


def wait_for(condition: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
