"""A changed spec reruns the stages that use what changed, and status names the rule and the facet."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from norma.base.files import write_json
from norma.pipeline import Context, Stage, StageOptions, load_recipe, register, run, run_status

SPEC = Path(__file__).parents[2] / "recipes" / "courteous-docs.spec.yaml"
RECIPE = """\
norma: 1
name: normed
spec: spec.yaml
stages:
  judge: {kind: test-judge}
  prompt: {kind: test-prompt}
  plain: {kind: test-plain}
"""


class Plain(Stage[StageOptions]):
    kind, version, Options = "test-plain", 1, StageOptions

    def run(self, ctx: Context[StageOptions]) -> dict[str, Any]:
        write_json(ctx.folder / "out.json", [ctx.name])
        return {}


class Judge(Plain):
    kind = "test-judge"
    uses_spec: ClassVar[bool | tuple[str, ...]] = True


class Prompt(Plain):
    kind = "test-prompt"
    uses_spec: ClassVar[bool | tuple[str, ...]] = ("wording", "scope")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for stage in (Plain(), Judge(), Prompt()):
        register(stage)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "spec.yaml").write_text(SPEC.read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path / "recipe.yaml"


def edit(recipe: Path, old: str, new: str) -> None:
    path = recipe.with_name("spec.yaml")
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def stale(recipe: Path) -> dict[str, str]:
    return {s.name: s.reasons[0] for s in run_status(recipe).stages if s.state == "stale"}


def test_changes_of_a_spec(recipe: Path) -> None:
    result = run(recipe)
    assert (result.folder / "spec.yaml").read_text(encoding="utf-8") == SPEC.read_text(encoding="utf-8")
    assert stale(recipe) == {}
    edit(recipe, "norma: 1", "# only a comment\nnorma: 1")
    assert stale(recipe) == {}
    edit(recipe, "use: sentences, roles: [train, report], params: {max: 1}", "use: sentences, roles: [train, report], params: {max: 2}")
    assert stale(recipe) == {"judge": "spec: rule form.one-sentence changed (check, checkers)"}
    edit(recipe, "请用一句话回答。", "请只用一句话回答。")
    found = stale(recipe)
    assert found["prompt"] == "spec: rule form.one-sentence changed (wording.zh-Hans)"
    assert set(found) == {"judge", "prompt"}
    assert [s.name for s in run(recipe).stages.values() if s.made] == ["judge", "prompt"]


def test_a_stage_that_uses_the_spec_asks_for_it(recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("spec: spec.yaml\n", ""), encoding="utf-8")
    with pytest.raises(Exception, match=r"recipe.yaml:4:3: stage 'judge' needs a spec. Add 'spec: spec.yaml' to the recipe."):
        load_recipe(recipe)
