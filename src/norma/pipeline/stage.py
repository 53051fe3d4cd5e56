"""What a stage is: a kind with checked options that turns input folders into one artefact folder.

    options (from the recipe) ─┐
    artefacts of other stages ─┼─→ Stage.run(ctx) ─→ files in ctx.folder, and a summary
    spec, seed, outside files ─┘

A stage kind is ONE small class in ``norma/pipeline/stages/<kind>.py`` and one line in ``stages/__init__.py``:

    class CountOptions(StageOptions):
        corpus: InputRef = Field(description="The corpus to count.")

    class Count(Stage[CountOptions]):
        kind, version, Options = "count", 1, CountOptions

        def run(self, ctx: Context[CountOptions]) -> dict[str, Any]:
            rows = read_jsonl(ctx.path(ctx.options.corpus) / "text.train.jsonl")
            write_json(ctx.folder / "count.json", {"rows": len(rows)})
            return {"rows": len(rows)}

The module of a kind is imported to check a recipe and to print ``norma status``: torch and other heavy things are imported
inside ``run``. ``run`` may be killed anywhere and is then called again on the same ``ctx.folder``; it goes on from what it finds
there. What is chosen by measuring or by the clock goes through ``ctx.plan``, everything else follows from options, inputs and
seed alone. Files named in ``norma.base.hashing.UNHASHED`` (metrics.jsonl, plan.json, log.txt) stay out of the content digest.

The summary is JSON. Four keys mean something to the engine and the command line, all optional:
    publish  names of files of the artefact that are copied to the run's own folder (report.html, report.json, junit.xml)
    table    {"title", "columns": [...], "rows": [[...], ...]}: printed when the run ends (the last stage that has one wins)
    model    true when the artefact is a model folder; the last one is proposed for ``norma chat``
    talk     the name of the stage whose model is to be proposed instead
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field

from norma.base.errors import NormaError
from norma.base.progress import Progress
from norma.base.ranks import ALONE, Ranks
from norma.pipeline.plan import Plan

if TYPE_CHECKING:
    from norma.spec import Spec


Engine = Literal["local", "ray"]


class _Input:
    """Marks an option that names a stage."""


_INPUT = _Input()

# An option of this type names a stage (``pretrain``) or a part of its folder (``corpus/qa``).
InputRef = Annotated[str, _INPUT]


class StageOptions(BaseModel):
    """Base of the options of every stage kind. Every field carries a one-line description."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: str = Field(description="What this stage does: the name of a stage kind.")

    def resolved(self) -> dict[str, Any]:
        """The options as JSON, defaults filled in, without ``kind``: what is hashed and written to lineage.json."""
        return self.model_dump(mode="json", by_alias=True, exclude={"kind"})


O = TypeVar("O", bound=StageOptions)  # noqa: E741  the options of a kind; the letter stands alone in signatures


SCRATCH = "scratch"


@dataclass(frozen=True)
class Context(Generic[O]):
    """All that a stage may look at while it runs."""

    name: str  # the stage's name in the recipe
    folder: Path  # the work folder: what is written here becomes the artefact
    inputs: dict[str, Path]  # stage name -> its artefact folder
    options: O
    spec: Spec | None
    seed: int
    progress: Progress
    plan: Plan
    base: Path  # the recipe's folder: relative paths in options start here
    ranks: Ranks = ALONE  # the processes that run this stage together
    engine: Engine = "local"  # who reads and tokenises text; what comes out is the same

    def path(self, reference: str) -> Path:
        """The folder or path that an ``InputRef`` points to: ``corpus/qa`` -> ``<run>/corpus/qa``."""
        name, _, rest = reference.partition("/")
        return self.inputs[name] / rest if rest else self.inputs[name]

    @property
    def scratch(self) -> Path:
        """A folder for what is needed only while the stage runs: it is dropped before the artefact is sealed."""
        return self.folder / SCRATCH

    def outside(self, path: str | Path) -> Path:
        """A path written in the recipe, made absolute."""
        return (self.base / Path(path).expanduser()).resolve()

    def need_spec(self) -> Spec:
        """The spec; the engine has made sure that it is there when the kind says ``uses_spec``."""
        if self.spec is None:
            raise NormaError(f"stage '{self.name}' needs a spec", mend="Add 'spec: spec.yaml' to the recipe")
        return self.spec


class Stage(ABC, Generic[O]):
    """A stage kind. Raise ``version`` when the same options give another artefact than before: artefacts on disk go stale."""

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    Options: type[O]
    parallel: ClassVar[bool] = False  # True: all ranks of torchrun call ``run``; else the first does, and the others wait
    uses_spec: ClassVar[bool | tuple[str, ...]] = False  # True: all of it; a tuple: only these facets of its rules

    def inputs(self, options: O) -> list[str]:
        """References to the stages that are read: by default the values of all ``InputRef`` options."""
        return list(_references(options))

    def fingerprint(self, options: O, base: Path) -> Any:
        """JSON that changes when something outside the run that the stage reads changes: digests of files, package versions."""
        return {}

    def spec_use(self, options: O) -> bool | tuple[str, ...]:
        """``uses_spec``, for kinds where it depends on the options."""
        return self.uses_spec

    @abstractmethod
    def run(self, ctx: Context[O]) -> dict[str, Any]:
        """Make the artefact in ``ctx.folder``, going on from what an earlier, killed run left there; returns the summary."""


def _references(options: BaseModel) -> Iterator[str]:
    for name, field in type(options).model_fields.items():
        value = getattr(options, name)
        if isinstance(value, BaseModel):
            yield from _references(value)
        elif _INPUT in field.metadata or _marked(field.annotation):
            values = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
            yield from (v for v in values if isinstance(v, str))
        elif isinstance(value, (list, tuple)):
            for item in value:
                if isinstance(item, BaseModel):
                    yield from _references(item)


def _marked(annotation: Any) -> bool:
    return _INPUT in getattr(annotation, "__metadata__", ()) or any(_marked(part) for part in get_args(annotation))
