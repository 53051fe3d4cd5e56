"""The docs say what the code does: lines, tables, links, commands and examples."""

from __future__ import annotations

import importlib.util
import re
import textwrap
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

import norma
from norma.cli.app import COMMANDS, GROUPS
from norma.pipeline.recipe import load_recipe
from norma.pipeline.stages import KINDS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
READMES = ("README.md", "README.zh-CN.md")
PAGES = (*READMES, "CONTRIBUTING.md", "CHANGELOG.md", *sorted(f"docs/{p.name}" for p in DOCS.glob("*.md")))


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def refresh() -> ModuleType:
    spec = importlib.util.spec_from_file_location("norma_docs_refresh", DOCS / "refresh.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_principles_point_to_the_lines_that_define_what_they_name() -> None:
    """Not by the refresher's own parser: the named line of the file must begin with def or class and the name."""
    text = page("docs/principles.md")
    found = re.findall(r"\[(src/\S+?\.py):(\d+)\]\(\.\./(\S+?)#L(\d+)\) `([\w.]+)`", text)
    assert len(found) >= 35
    assert len(found) == text.count("](../src/"), "a link to code not written [path:line](../path#Lline) `name`"
    for path, line, linked, anchor, symbol in found:
        assert (path, line) == (linked, anchor)
        defined = (ROOT / path).read_text(encoding="utf-8").splitlines()[int(line) - 1]
        name = symbol.rpartition(".")[2]
        assert re.match(rf"\s*(def|class) {name}\b", defined), f"docs/principles.md: line {line} of {path} is not {symbol}; run `make docs`"


@pytest.mark.parametrize("name", ["principles.md", "recipes.md", "checkers.md"])
def test_docs_are_up_to_date(refresh: ModuleType, name: str) -> None:
    text = page(f"docs/{name}")
    assert refresh.FILES[name](text) == text, "run `make docs`"


def test_every_stage_kind_and_option_is_described() -> None:
    text = page("docs/recipes.md")
    for kind in KINDS:
        assert f"### Stage kind `{kind}`" in text
    for line in text.partition("<!-- options -->")[2].splitlines():
        if line.startswith("| `"):
            assert line.split(" | ")[-1].strip(" |"), f"an option without a description: {line}"


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    text = re.sub(r"```.*?```", "", page(name), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), f"{name}: {target} does not exist"
        if anchor and file.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}, f"{name}: no heading {target}"


@pytest.mark.parametrize("name", PAGES)
def test_commands_exist(name: str) -> None:
    said = re.findall(r"(?:`|^\s*(?:\$ )?)norma ([a-z]+)(?: ([a-z-]+))?", page(name), re.MULTILINE)
    for first, second in said:
        command = f"{first} {second}" if first in GROUPS else first
        assert command in COMMANDS or command.strip() in GROUPS, f"{name}: there is no `norma {command}`"


@pytest.mark.parametrize("name", READMES)
def test_the_readmes_list_every_command(name: str) -> None:
    rows = re.findall(r"^\| `norma ([^`]*)`", page(name), re.MULTILINE)
    listed = [" ".join(row.split()[:2]) if row.split()[0] in GROUPS else row.split()[0] for row in rows]
    assert sorted(listed) == sorted(COMMANDS)


@pytest.mark.parametrize("name", READMES)
def test_the_python_example_runs(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With a stand-in for the minutes of training: everything else is the real thing."""
    code = re.findall(r"```python\n(.*?)```", page(name), re.DOTALL)
    assert len(code) == 1
    asked: list[Any] = []

    class Model:
        answers: ClassVar = ["Certainly: `math.floor` rounds x down."]

        def chat(self, messages: Any) -> list[str]:
            asked.append(messages)
            return list(self.answers)

    monkeypatch.chdir(ROOT)
    assert callable(norma.run) and callable(norma.load)
    monkeypatch.setattr(norma, "run", lambda recipe: SimpleNamespace(model=load_recipe(recipe).output / "reward"), raising=False)
    monkeypatch.setattr(norma, "load", lambda folder: Model(), raising=False)
    exec(compile(code[0], name, "exec"), {})
    printed = capsys.readouterr().out
    assert "style.polite violation" in printed and "form.full-stop compliant" in printed
    assert asked[0][0]["role"] == "user"


def test_the_recipe_in_recipes_md_is_one(tmp_path: Path) -> None:
    text = re.search(r"```yaml\n(.*?)```", page("docs/recipes.md"), re.DOTALL)
    assert text is not None
    (tmp_path / "my.spec.yaml").write_text(page("recipes/courteous-docs.spec.yaml"), encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(text.group(1), encoding="utf-8")
    assert list(load_recipe(tmp_path / "recipe.yaml", scale="ci").nodes) == ["corpus", "tokenizer", "pretrain", "instruct", "reward"]
    load_recipe(ROOT / "recipes/courteous-docs.yaml", ["seed=2", "reward.policy.kl=0.1"])


def test_the_checker_in_contributing_is_one() -> None:
    from pydantic import Field

    from norma.check.program import REGISTRY, Outcome, Params, program
    from norma.spec import Item

    text = re.search(r"```python\n(.*?)```", page("CONTRIBUTING.md"), re.DOTALL)
    assert text is not None
    source = textwrap.dedent("   " + text.group(1).lstrip(" "))
    names: dict[str, Any] = {"Field": Field, "Outcome": Outcome, "Params": Params, "program": program, "Item": Item, "re": re}
    try:
        exec(compile(source, "CONTRIBUTING.md", "exec"), names)
        entry = REGISTRY["few_emoji"]
        assert entry.run(Item("a", ()), "Sure \U0001f600\U0001f600", entry.params(most=1)).score == 0.8
    finally:
        REGISTRY.pop("few_emoji", None)


def test_the_rules_are_counted_right() -> None:
    rules = norma.Spec.load(ROOT / "recipes/courteous-docs.spec.yaml").rules
    assert len(rules) == 9, "README.md, README.zh-CN.md (九条) and CHANGELOG.md say nine"


def test_the_floors_in_the_docs_are_the_contract() -> None:
    contract = tomllib.loads(page("pyproject.toml"))["tool"]["importlinter"]["contracts"][0]["layers"]
    table = re.findall(r"^\| (\d) \| (.*)$", page("docs/architecture.md"), re.MULTILINE)
    said = {int(floor): set(re.findall(r"`(norma\.\w+)`", cells)) for floor, cells in table}
    assert said == {len(contract) - 1 - i: {room.strip() for room in layer.split("|")} for i, layer in enumerate(contract)}
    picture = page("docs/architecture.svg")
    for room in (r for rooms in said.values() for r in rooms):
        assert f'class="code">{room.removeprefix("norma.")}<' in picture
