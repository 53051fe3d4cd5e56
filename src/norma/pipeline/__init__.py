"""Floor 6: recipes, stages, lineage and run folders.

    recipe.yaml ─→ load_recipe ─→ execute ─→ runs/<name>/<stage>/   one artefact per stage, each with its lineage.json

``run`` does it in one call. A stage kind is written against ``norma.pipeline.stage`` and named in ``norma.pipeline.stages``.
"""

from __future__ import annotations

from norma.pipeline.engine import Run, StageResult, execute, plan_run, run
from norma.pipeline.plan import Plan
from norma.pipeline.recipe import Loaded, Recipe, load_recipe
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions
from norma.pipeline.stages import register
from norma.pipeline.status import RunStatus, StageState, State, run_status

__all__ = [
    "Context",
    "InputRef",
    "Loaded",
    "Plan",
    "Recipe",
    "Run",
    "RunStatus",
    "Stage",
    "StageOptions",
    "StageResult",
    "StageState",
    "State",
    "execute",
    "load_recipe",
    "plan_run",
    "register",
    "run",
    "run_status",
]
