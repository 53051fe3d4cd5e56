"""What all stages that train do once they have losses: spread the model over ranks, train it, put it together again.

losses(network=, step=, ranks=) ─→ fit ─→ model: trained, whole on every rank; the numbers of the last step
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from norma.base.ranks import ALONE, Ranks
from norma.pipeline.stage import Context

if TYPE_CHECKING:
    from torch import Tensor

    from norma.lm import LanguageModel
    from norma.nn import Transformer


class StepLosses(Protocol):
    """The parts of a step's loss, or of a rank's share of it (then times the number of ranks)."""

    def __call__(self, network: Transformer, step: int, ranks: Ranks = ALONE) -> Iterator[tuple[Tensor, dict[str, float]]]: ...


def fit(
    ctx: Context[Any],
    model: LanguageModel,
    losses: Callable[..., Iterator[tuple[Tensor, dict[str, float]]]],
    *,
    steps: int,
    compiled: bool = False,
    **more: Any,
) -> dict[str, float]:
    """Train ``model`` by the stage's ``train:`` for ``steps``; returns the last step's numbers. Afterwards it is whole on every rank.

    ``losses`` is asked by name for the parts of a ``step`` of the ``network`` that is trained; where several processes train, also for
    the share of one of the ``ranks``, so that losses which cannot be shared fail instead of being counted twice.
    ``more`` goes to :func:`norma.train.train`, before what the stage says: shrink, state, sample, or a folder and seed of its own.
    """
    from norma.train import train
    from norma.train.compiling import compiled_blocks
    from norma.train.spread import collect, recompute, spread

    options = ctx.options.train
    ranks = ctx.ranks.grouped(options.tensor_parallel)
    network = spread(model.transformer, ranks)
    if options.recompute:
        recompute(network)
    shared = {} if ranks.count == 1 else {"ranks": ranks}
    said: dict[str, Any] = {"folder": ctx.folder, "progress": ctx.progress, "seed": ctx.seed, "name": ctx.name, "ranks": ranks}
    with compiled_blocks(network, compiled):
        last = train(network, lambda step: losses(network=network, step=step, **shared), steps=steps, options=options, **said | more)
    collect(network, model.transformer, ranks)
    return last
