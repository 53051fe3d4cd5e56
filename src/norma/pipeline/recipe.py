"""A recipe: one YAML file that names the stages of a run, their options and how they hang together.

    file ─→ strict YAML with places ─→ --scale ─→ key=value ─→ Recipe ─→ each stage's Options ─→ graph in running order

Nothing is guessed: an unknown key, stage, kind or scale is one line with file:line:column (or the override's own text) and the
nearest right name. Relative paths in a recipe start from the recipe's folder; ``output`` from the folder the command runs in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

from norma.base.errors import NormaError, nearest
from norma.base.strict_yaml import load_yaml, validate
from norma.pipeline.overrides import Editable, apply
from norma.pipeline.stage import Engine, Stage, StageOptions
from norma.pipeline.stages import find
from norma.pipeline.trust import load_trusted
from norma.spec import shipped

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Recipe(BaseModel):
    """The keys of a recipe file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    norma: int = Field(description="Version of the recipe format; 1.")
    name: str = Field(description="Name of the run; letters, digits, '-' and '_'.")
    seed: int = Field(0, ge=0, lt=2**32, description="All randomness of the run follows from this number.")
    spec: str | None = Field(None, description="The spec file with the rules, relative to the recipe, or the name of a shipped spec.")
    output: str | None = Field(None, description="The run folder, relative to the current folder; 'runs/<name>' when absent.")
    base: str | None = Field(None, description="Folder that relative paths start from; the recipe's own folder when absent.")
    trust: list[str] = Field([], description="Python files that add stage kinds; they run only with --trust.")
    stages: dict[str, dict[str, Any]] = Field(description="Stage name -> kind and its options, in reading order.")
    scales: dict[str, dict[str, Any]] = Field({}, description="Scale name -> {stage.option: value}, chosen with --scale.")

    @field_validator("norma")
    @classmethod
    def _format(cls, value: int) -> int:
        if value != 1:
            raise ValueError(f"this version of Norma reads recipe format 1, not {value}")
        return value

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError(f"'{value}' is not a plain name (letters, digits, '-' and '_')")
        return value


@dataclass(frozen=True)
class Node:
    """One stage of the recipe, checked."""

    name: str
    stage: Stage[Any]
    options: StageOptions
    inputs: tuple[str, ...]  # names of the stages it reads


@dataclass(frozen=True)
class Loaded:
    """A recipe after scale and overrides, checked, its paths absolute, its stages in running order."""

    recipe: Recipe
    path: Path
    base: Path
    output: Path
    spec_path: Path | None
    nodes: dict[str, Node]
    scale: str | None
    overrides: tuple[str, ...]
    engine: Engine = "local"

    def needed_for(self, name: str) -> set[str]:
        """The stage and all it reads, directly or not."""
        found, queue = set[str](), [name]
        while queue:
            current = queue.pop()
            if current not in found:
                found.add(current)
                queue += self.nodes[current].inputs
        return found

    def dependants(self, name: str) -> set[str]:
        """The stage and all that read it, directly or not."""
        return {other for other in self.nodes if name in self.needed_for(other)}

    def check_stage(self, name: str, option: str) -> None:
        if name not in self.nodes:
            raise NormaError(f"{option} names '{name}', which is no stage of {self.path.name}", mend=nearest(name, self.nodes))

    def resolved(self) -> str:
        """The recipe as YAML with every default written out and absolute paths, so that it runs again from anywhere."""
        data: dict[str, Any] = {
            "norma": 1,
            "name": self.recipe.name,
            "seed": self.recipe.seed,
            "spec": None if self.spec_path is None else str(self.spec_path),
            "output": str(self.output),
            "base": str(self.base),
            "trust": [str(self.base / file) for file in self.recipe.trust],
            "stages": {name: {"kind": node.stage.kind, **node.options.resolved()} for name, node in self.nodes.items()},
        }
        head = f"# The recipe as it ran, every default written out. Made from {self.path}; edit that one.\n"
        return head + yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=140)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def load_recipe(
    path: Path | str,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    scale: str | None = None,
    trust: bool = False,
    engine: Engine = "local",
) -> Loaded:
    """Read and check a recipe.

    Args:
        overrides: ``key=value`` texts as on the command line, or a mapping from dotted keys to values.
        scale: name of one of the recipe's ``scales``, applied before the overrides.
        trust: whether the Python files that the recipe names may run.
        engine: who reads and tokenises text: this machine, or a Ray cluster. The artefacts are the same.

    Raises:
        NormaError: with the place of the first thing that is wrong.
    """
    path = Path(path).expanduser().absolute()
    if path.is_dir() and (path / "recipe.yaml").is_file():
        path = path / "recipe.yaml"
    document = Editable(load_yaml(path))
    head = validate(document, Recipe)
    base = (path.parent / Path(head.base or "").expanduser()).resolve()
    load_trusted([base / file for file in head.trust], trust, document.where(("trust",)))
    texts = [f"{key}={value}" for key, value in overrides.items()] if isinstance(overrides, Mapping) else list(overrides)
    if scale is not None and scale not in head.scales:
        known = nearest(scale, head.scales) if head.scales else "The recipe has no 'scales:'"
        raise NormaError(f"unknown scale '{scale}'", where=document.where(("scales",)), mend=known)
    # A scale that is not chosen today is checked too: its mistakes would otherwise wait for the day it is needed.
    for name in head.scales:
        if name != scale:
            _check_stages(_scaled(path, name))
    if scale is not None:
        document = _scaled(path, scale)
    apply(document, list(overrides.items()) if isinstance(overrides, Mapping) else texts, list(Recipe.model_fields))
    recipe = validate(document, Recipe)
    nodes = _check_stages(document)
    spec_path = None
    if recipe.spec is not None:
        spec_path = (base / Path(recipe.spec).expanduser()).resolve()
        if not spec_path.is_file() and recipe.spec in shipped.names():
            spec_path = shipped.path(recipe.spec)
        if not spec_path.is_file():
            raise NormaError(f"the spec file '{recipe.spec}' does not exist", where=document.where(("spec",)), mend="Check the path")
    for node in nodes.values():
        if spec_path is None and node.stage.spec_use(node.options):
            where = document.where(("stages", node.name))
            raise NormaError(f"stage '{node.name}' needs a spec", where=where, mend="Add 'spec: spec.yaml' to the recipe")
    output = Path(recipe.output or Path("runs") / recipe.name).expanduser().absolute()
    return Loaded(recipe, path, base, output, spec_path, nodes, scale, tuple(texts), engine)


def _scaled(path: Path, scale: str) -> Editable:
    document = Editable(load_yaml(path))
    values = document.data["scales"][scale]
    places = {key: document.where(("scales", scale, key)) for key in values}
    apply(document, list(values.items()), list(Recipe.model_fields), places)
    return document


def _check_stages(document: Editable) -> dict[str, Node]:
    recipe = validate(document, Recipe)
    if not recipe.stages:
        raise NormaError("the recipe has no stages", where=document.where(("stages",)), mend="Add at least one stage")
    nodes: dict[str, Node] = {}
    for name, data in recipe.stages.items():
        path = ("stages", name)
        if not _NAME.fullmatch(name) or name in Recipe.model_fields:
            why = "is a key of the recipe itself" if name in Recipe.model_fields else "is not a plain name (letters, digits, '-' and '_')"
            raise NormaError(f"a stage cannot be called '{name}': it {why}", where=document.where(path), mend="Choose another name")
        if not isinstance(data.get("kind"), str):
            raise NormaError(f"stage '{name}' has no 'kind'", where=document.where(path), mend="Add 'kind:'")
        stage = find(data["kind"], document.where((*path, "kind")))
        options = validate(document, stage.Options, path)
        names = []
        for reference in stage.inputs(options):
            target = reference.partition("/")[0]
            if target not in recipe.stages:
                where = document.where(next(_find(data, reference, path), path))
                raise NormaError(f"stage '{name}' reads '{target}', which is no stage", where=where, mend=nearest(target, recipe.stages))
            names.append(target)
        nodes[name] = Node(name, stage, options, tuple(dict.fromkeys(names)))
    return _ordered(nodes, document)


def _find(data: Any, text: str, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Where in ``data`` the value ``text`` stands."""
    if data == text:
        yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from _find(value, text, (*path, key))


def _ordered(nodes: dict[str, Node], document: Editable) -> dict[str, Node]:
    """In the file's order, except that what is read comes first."""
    done: dict[str, Node] = {}
    while len(done) < len(nodes):
        ready = [n for n in nodes if n not in done and all(i in done for i in nodes[n].inputs)]
        if not ready:
            ring = [n for n in nodes if n not in done]
            where = document.where(("stages", ring[0]))
            raise NormaError(f"these stages wait for each other: {', '.join(ring)}", where=where, mend="Break the circle")
        done[ready[0]] = nodes[ready[0]]
    return done
