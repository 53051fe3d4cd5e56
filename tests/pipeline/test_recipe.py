"""Recipes: places of errors, scales, overrides, the order of stages, and the resolved copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.pipeline import load_recipe
from norma.pipeline.recipe import Recipe


def error_of(project: Any, *overrides: str, **options: Any) -> str:
    with pytest.raises(NormaError) as caught:
        load_recipe(project.recipe, list(overrides), **{"trust": True, **options})
    return str(caught.value)


def test_python_files_need_trust(project: Any) -> None:
    line = error_of(project, trust=False)
    assert line.startswith(f"{project.recipe}:4:1: this recipe runs Python code of its own: kinds.py. Read them, then run")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("seed: 5", "sead: 5", "recipe.yaml:3:1: unknown key 'sead'. Did you mean 'seed'."),
        ("seed: 5", "seed: -1", "recipe.yaml:3:1: 'seed': input should be greater than or equal to 0"),
        ("seed: 5", "seed: 5\nseed: 6", "recipe.yaml:4:1: the key 'seed' stands twice. Keep one of the two."),
        ("norma: 1", "norma: 2", "recipe.yaml:1:1: 'norma': this version of Norma reads recipe format 1, not 2"),
        ("name: toy", "name: a/b", "recipe.yaml:2:1: 'name': 'a/b' is not a plain name (letters, digits, '-' and '_')"),
        ("    steps: 3", "    stepps: 3", "recipe.yaml:8:5: unknown key 'stepps'. Did you mean 'steps'."),
        ("    steps: 3", "    steps: many", "recipe.yaml:8:5: 'steps': input should be a valid integer"),
        ("kind: join", "kind: jion", "recipe.yaml:12:9: unknown stage kind 'jion'. Did you mean 'join'."),
        ("from: first", "from: frist", "recipe.yaml:10:25: stage 'second' reads 'frist', which is no stage. Did you"),
        ("[second, aside]", "[second, asside/x]", "recipe.yaml:12:37: stage 'end' reads 'asside', which is no stage. Did you"),
        ("aside: {kind: chain, steps: 2}", "aside: {kind: chain, from: aside}", "recipe.yaml:11:3: these stages wait for"),
        ("aside: {kind: chain, steps: 2}", "aside: {steps: 2}", "recipe.yaml:11:3: stage 'aside' has no 'kind'. Add 'kind:'."),
        ("  aside:", "  seed:", "recipe.yaml:11:3: a stage cannot be called 'seed': it is a key of the recipe itself"),
        ("first.steps: 1,", "first.stepz: 1,", "recipe.yaml:14:8: unknown key 'stepz'. Did you mean 'steps'."),
        ("first.steps: 1,", "frist.steps: 1,", "recipe.yaml:14:8: 'frist' is neither a stage nor a key of the recipe. Did"),
        ("seed: 5", "seed: 5\nspec: nowhere.yaml", "recipe.yaml:4:1: the spec file 'nowhere.yaml' does not exist. Check the path."),
        ("kinds.py", "kindz.py", "kindz.py: file not found. It is named under 'trust:'"),
    ],
)
def test_errors_name_place_and_mend(project: Any, old: str, new: str, expected: str) -> None:
    project.edit(old, new)
    assert expected in error_of(project)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("first.stepps=4", "first.stepps=4: unknown key 'stepps'. Did you mean 'steps'."),
        ("first.steps=x", "first.steps=x: 'steps': input should be a valid integer"),
        ("frist.steps=4", "frist.steps=4: 'frist' is neither a stage nor a key of the recipe. Did"),
        ("sead=4", "sead=4: 'sead' is neither a stage nor a key of the recipe. Did you mean 'seed'."),
        ("first", "'first' is not key=value"),
        ("first=3", "first=3: 'first' is a stage, not an option. Write 'first.OPTION=value'."),
        ("first.steps.more=3", "first.steps.more=3: 'stages.first.steps' holds one value, it has no 'more'"),
        ("end.parts.7=aside", "end.parts.7=aside: '7' is no place in the list 'stages.end.parts' of 2"),
        ("first.steps=[1", "first.steps=[1:1:"),
        ("end.parts.0=nix", "end.parts.0=nix: stage 'end' reads 'nix', which is no stage"),
    ],
)
def test_errors_in_overrides_show_the_override(project: Any, override: str, expected: str) -> None:
    assert expected in error_of(project, override)


def test_overrides_and_scales(project: Any) -> None:
    loaded = load_recipe(project.recipe, ["second.steps=9", "seed=7", "end.parts.1=first", "name=other"], scale="ci", trust=True)
    assert loaded.nodes["first"].options.resolved()["steps"] == 1  # from the scale
    assert loaded.nodes["second"].options.resolved()["steps"] == 9  # the command line wins over the scale
    assert loaded.recipe.seed == 7
    assert loaded.nodes["end"].inputs == ("second", "first")
    assert loaded.output == project.folder / "runs" / "other"
    same = load_recipe(project.recipe, {"second.steps": 9, "stages.end.parts.1": "first"}, scale="ci", trust=True)
    assert same.nodes["end"].options.resolved() == loaded.nodes["end"].options.resolved()
    assert "unknown scale 'cj'. Known: ci." in error_of(project, scale="cj")


def test_stages_run_after_what_they_read(project: Any) -> None:
    lines = project.recipe.read_text(encoding="utf-8").splitlines()
    end = next(line for line in lines if line.startswith("  end:"))
    lines.remove(end)
    lines.insert(lines.index("stages:") + 1, end)
    project.recipe.write_text("\n".join(lines), encoding="utf-8")
    loaded = load_recipe(project.recipe, trust=True)
    assert list(loaded.nodes) == ["first", "second", "aside", "end"]
    assert loaded.needed_for("second") == {"first", "second"}
    assert loaded.dependants("first") == {"first", "second", "end"}


def test_resolved_copy_reads_back_the_same(project: Any, tmp_path: Path) -> None:
    loaded = load_recipe(project.recipe, ["first.pause=1e-05"], trust=True)
    copy = tmp_path / "elsewhere" / "copy.yaml"
    copy.parent.mkdir()
    copy.write_text(loaded.resolved(), encoding="utf-8")
    again = load_recipe(copy, trust=True)
    for name, node in loaded.nodes.items():
        assert again.nodes[name].options.resolved() == node.options.resolved()
    assert list(again.nodes) == list(loaded.nodes)
    assert (again.output, again.base, again.recipe.seed) == (loaded.output, loaded.base, loaded.recipe.seed)


def test_a_folder_stands_for_its_recipe(project: Any) -> None:
    assert load_recipe(project.folder, trust=True).path == project.recipe


def test_every_key_is_described() -> None:
    assert [name for name, field in Recipe.model_fields.items() if not (field.description or "").endswith(".")] == []


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=30))
def test_any_override_text_is_read_or_refused_in_one_line(project: Any, text: str) -> None:
    for override in (text, f"first.steps={text}", f"first.{text}=1"):
        try:
            load_recipe(project.recipe, [override], trust=True)
        except NormaError as error:
            assert "\n" not in str(error)


def test_settings_of_a_preset_are_numbers_again() -> None:
    """A recipe's values are text until an option says what they are; of a preset's settings only the preset knows."""
    from norma.pipeline.stages._dialling import ModelOptions

    given = {"experts": "4", "normalise": "false", "rope_theta": "1e4", "activation": "silu", "window": None, "tie": True}
    found = ModelOptions(settings=given).settings
    assert found == {"experts": 4, "normalise": False, "rope_theta": 1e4, "activation": "silu", "window": None, "tie": True}
    assert {name: type(value) for name, value in found.items()}["tie"] is bool
