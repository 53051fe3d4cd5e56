"""Contrastive stage: a model learns embeddings from pairs of texts that belong together (for retrieval, and classifiers on top).

rows (source, target | question, context | text, label) ─→ pairs ─→ InfoNCE with the batch's negatives ─→ model folder, recall before, after
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from norma.base.errors import NormaError
from norma.base.files import read_jsonl, write_json
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions
from norma.pipeline.stages._fitting import fit
from norma.pipeline.stages._learning import AdaptOptions, adapted, open_model, prepare, save_model
from norma.train.options import TrainOptions

if TYPE_CHECKING:
    from norma.lm import LanguageModel
    from norma.tasks.contrast import Pair

MOST_MEASURED = 1000  # held-out pairs


class ContrastiveOptions(AdaptOptions, StageOptions):
    """Options of a ``contrastive`` stage."""

    from_: InputRef = Field(alias="from", description="The stage whose model learns to embed texts.")
    data: InputRef = Field(
        "data/train.jsonl", description="Rows: source and target, question and context (near and wrong: negative), or text and label."
    )
    validation: InputRef | None = Field(None, description="Rows to measure retrieval on, before and after.")
    pooling: Literal["mean", "first", "last"] = Field("mean", description="How a text's states become one vector.")
    temperature: float = Field(0.05, gt=0, description="Of the cosines; smaller looks harder at the nearest negatives.")
    symmetric: bool = Field(True, description="Partners look for their texts too.")
    length: int = Field(64, ge=8, description="Most tokens of a text.")
    epochs: float = Field(1.0, gt=0, description="Passes over the pairs.")
    batch: int = Field(64, ge=2, description="Pairs a step: each has the others' partners as negatives.")
    train: TrainOptions = Field(
        default_factory=lambda: TrainOptions(optimiser="adamw", learning_rate=1e-4, weight_decay=0.01, schedule="cosine", warmup=10),
        description="Optimiser and schedule.",
    )


class Contrastive(Stage[ContrastiveOptions]):
    """Rows of one context, or of one label, are no negatives of each other."""

    kind, version, Options = "contrastive", 1, ContrastiveOptions

    def run(self, ctx: Context[ContrastiveOptions]) -> dict[str, Any]:
        from norma.tasks.contrast import ContrastiveTraining

        options, dtype = ctx.options, prepare(ctx)
        model = adapted(ctx, open_model(ctx, options.from_))
        pairs = _pairs(ctx, model, options.data)
        held_out = _pairs(ctx, model, options.validation)[:MOST_MEASURED] if options.validation else []
        before = ctx.plan.choose("retrieval_before", lambda: _measured(model, held_out, options.pooling))
        how: dict[str, Any] = {"temperature": options.temperature, "symmetric": options.symmetric, "pooling": options.pooling}
        training = ContrastiveTraining(pairs, rows=options.batch, seed=ctx.seed, dtype=dtype, grouped=True, **how)
        steps = max(1, round(options.epochs * training.steps_per_epoch))
        ctx.progress.say(f"{steps} steps of {training.rows} pairs, {len(pairs):,} in all")
        last = fit(ctx, model, training.losses, steps=steps)
        after = _measured(model, held_out, options.pooling)
        write_json(ctx.folder / "retrieval.json", {"before": before, "after": after, "pairs": len(held_out)})
        save_model(ctx, model, pooling=options.pooling)
        rows = [[name, round(before[name], 4), round(after[name], 4)] for name in after]
        table = {"title": f"Partners found among {len(held_out):,}", "columns": ["measure", "before", "after"], "rows": rows}
        return {"steps": steps, "loss": last.get("loss"), "retrieval": after} | ({"table": table} if rows else {})


def _measured(model: LanguageModel, pairs: list[Pair], pooling: str) -> dict[str, float]:
    import torch
    from torch.nn import functional as F

    from norma.lm.embedding import pooled
    from norma.tasks.contrast import retrieved

    if not pairs:
        return {}
    model.transformer.eval()
    with torch.no_grad():
        sides = [
            torch.cat([F.normalize(pooled(model.transformer, texts[i : i + 32], pooling), dim=-1) for i in range(0, len(texts), 32)])
            for texts in ([p.first for p in pairs], [p.second for p in pairs])
        ]
    return retrieved(sides[0], sides[1])


def _pairs(ctx: Context[ContrastiveOptions], model: LanguageModel, reference: str) -> list[Pair]:
    from norma.lm.embedding import token_rows
    from norma.tasks.contrast import Pair

    path = ctx.path(reference)
    if not path.is_file():
        raise NormaError(f"'{reference}' is not a file of that stage", where=path, mend="Look into the stage's folder for the .jsonl files")
    texts = [_two(row, reference) for row in _labelled(read_jsonl(path), ctx.seed)]
    groups: dict[str, int] = {}
    sides = [token_rows(model, side, ctx.options.length) for side in ([t[0] for t in texts], [t[1] for t in texts])]
    wrong = [None if t[2] is None else token_rows(model, [t[2]], ctx.options.length)[0] for t in texts]
    numbers = [groups.setdefault(t[3], len(groups)) for t in texts]
    return [Pair(a, b, w, g) for a, b, w, g in zip(*sides, wrong, numbers, strict=True)]


def _labelled(rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Rows of a label each become pairs: a text and the next one of its label (Khosla et al., 2004.11362)."""
    from norma.text.split import chance

    if not rows or "label" not in rows[0] or "text" not in rows[0]:
        return rows
    order: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: chance("partner", seed, row["id"])):
        order.setdefault(row["label"], []).append(row)
    return [
        {"source": row["text"], "target": own[(i + 1) % len(own)]["text"], "group": label}
        for label, own in order.items()
        for i, row in enumerate(own)
        if len(own) > 1
    ]


def _two(row: dict[str, Any], where: str) -> tuple[str, str, str | None, str]:
    """(a text, its partner, a wrong one, what partners have in common)."""
    for first, second in (("source", "target"), ("question", "context"), ("text", "pair")):
        if first in row and second in row:
            return row[first], row[second], row.get("negative"), str(row.get("group", row[second]))
    mend = "Give rows source and target, question and context, or text and label"
    raise NormaError("a row holds no pair of texts", where=where, mend=mend)
