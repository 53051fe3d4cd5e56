"""How far rules in the prompt change what a model does: the same held-out questions with them and without, paired.

arms (a model, which rules it is shown) ─→ answers ─→ verdicts of the report checkers ─→ gap.json, a table
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from norma.base.files import write_json
from norma.pipeline.stage import Context, InputRef
from norma.spec.shown import Choice, Layout

if TYPE_CHECKING:
    from norma.evaluate.prompt_gap import Arm


class GapOptions(BaseModel):
    """Which held-out questions are asked, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    questions: InputRef = Field("corpus/qa.validation.jsonl", description="Held-out questions.")
    count: int = Field(100, ge=1, description="How many of them; one of a source.")
    max_new_tokens: int = Field(64, ge=1, description="Longest answer in tokens.")


class ModesOptions(GapOptions):
    """The same, and which rules are shown."""

    modes: list[Choice] = Field(
        ["rule", "applicable", "all"],
        min_length=1,
        description="Compared with no rules in the prompt: rule (each that applies by itself), applicable (all that do), all.",
    )


def measure_gap(ctx: Context[Any], options: GapOptions, arms: Mapping[str, Arm], base: str, layout: Layout) -> dict[str, Any]:
    """Ask every arm, write ``gap.json``, and return the table and the overall rates for the stage's summary."""
    from norma.align.rows import choose, read_items
    from norma.evaluate.prompt_gap import gap, shared
    from norma.generate import Sampling

    spec = ctx.need_spec()
    items = choose(read_items(ctx.path(options.questions)), 1_000_000, ctx.seed)
    items = list({item.source: item for item in reversed(items)}.values())[::-1][: options.count]
    sampling = Sampling(options.max_new_tokens)
    asked = shared(spec, items, arms, layout, sampling)
    ctx.progress.say(f"asking {len(asked)} held-out questions in {len(arms)} ways; {len(items) - len(asked)} are too long with the rules")
    found = gap(spec, asked, arms, base, layout, sampling, seed=ctx.seed)
    write_json(ctx.folder / "gap.json", found)
    rates = {row["method"]: row["overall"]["rate"] for row in found["methods"]}
    return {"compliance": rates, "table": _table(found, base)}


def _table(found: Mapping[str, Any], base: str) -> dict[str, Any]:
    changes = {row["after"]: row for row in found["comparisons"] if row["rule"] is None}
    rows: list[Sequence[str]] = []
    for entry in found["methods"]:
        overall, change = entry["overall"], changes.get(entry["method"])
        rows.append(
            [
                entry["method"],
                _percent(overall["rate"], overall["low"], overall["high"]),
                "" if change is None else _percent(change["delta"], change["low"], change["high"], "+"),
                "" if change is None or change["p_holm"] is None else f"{change['p_holm']:.2g}",
            ]
        )
    return {"title": "Compliance on held-out questions", "columns": ["prompt", "% [95%]", f"against {base}", "p (Holm)"], "rows": rows}


def _percent(value: float | None, low: float | None, high: float | None, sign: str = "") -> str:
    if value is None or low is None or high is None:
        return "no verdict"
    return f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"
