"""Preference training: pairs or marks of answers move the policy, on a leash to the model before or without one.

    rows ─→ the batch of step N (data, seed, N) ─→ norma.align.comparison ─→ losses and numbers of step N
    the model before ─→ log p of every answer, once ─→ reference.json
    held-out rows ─→ the same numbers, before and after
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from norma.align.compared import Row, mismatched
from norma.align.comparison import Comparison, Numbers, Seen, Settings, answer_sums
from norma.align.preference_options import METHODS, PairOptions
from norma.base.files import read_json, to_json, write_text
from norma.base.hashing import digest
from norma.base.ranks import ALONE, Ranks, total
from norma.lm import LanguageModel
from norma.nn import Transformer
from norma.train.scoring import Group, split_groups

__all__ = ["PreferenceTraining", "Settings", "in_order"]


class PreferenceTraining:
    """The losses of preference training, for :func:`norma.train.train`.

    Args:
        reference: the frozen model; None: ``model`` as it is now (training has not begun, and adapters begin as nothing).
        folder: where reference.json is kept, so that a run that goes on does not make it from trained weights.
        name: of that file.
    """

    def __init__(
        self,
        model: LanguageModel,
        rows: Sequence[Row],
        settings: Settings,
        options: PairOptions,
        *,
        seed: int,
        dtype: torch.dtype,
        reference: LanguageModel | None = None,
        folder: Path | None = None,
        name: str = "reference.json",
        ranks: Ranks = ALONE,
    ) -> None:
        self.model, self.seed, self.dtype, self.size = model, seed, dtype, min(options.pairs, len(rows))
        self.micro_tokens = options.micro_tokens
        facts = METHODS[settings.method]
        apart = mismatched(rows, model.config.max_positions) if settings.method == "kto" else None
        before: list[list[float]] = [[0.0] * len(row.desirable) for row in rows]
        before_apart: list[list[float]] = []
        if facts.reference:
            groups = [row.group for row in rows] + (apart or [])
            known = self._reference(reference or model, groups, folder / name if folder else None, ranks)
            before, before_apart = known[: len(rows)], known[len(rows) :]
        self.comparison = Comparison(rows, settings, before, None if apart is None else (apart, before_apart), dtype=dtype)

    @property
    def rows(self) -> Sequence[Row]:
        return self.comparison.rows

    @torch.no_grad()
    def _reference(self, model: LanguageModel, groups: Sequence[Group], path: Path | None, ranks: Ranks) -> list[list[float]]:
        """log p of every answer of every group: read from ``path``, or made once and written there."""
        wanted = digest([[list(g.prompt), [list(a) for a in g.answers]] for g in groups])
        found = read_json(path) if ranks.first and path is not None and path.is_file() else None
        found = ranks.tell(found if found and found["rows"] == wanted else None)
        if found is not None:
            return list(found["logp"])
        model.transformer.eval()
        mine: list[tuple[int, list[float]]] = []
        own = list(range(ranks.rank, len(groups), ranks.count))
        for part in split_groups([groups[i] for i in own], self.micro_tokens):
            chosen = [own[i] for i in part]
            values = iter(answer_sums(model.transformer, [groups[i] for i in chosen], self.dtype).tolist())
            mine += [(i, [next(values) for _ in groups[i].answers]) for i in chosen]
        made = dict(pair for share in ranks.gather(mine) for pair in share)
        logp = [made[i] for i in range(len(groups))]
        if ranks.first and path is not None:
            write_text(path, to_json({"rows": wanted, "logp": logp}) + "\n")
        return logp

    def steps(self, epochs: float) -> int:
        """Steps of so many passes."""
        return max(1, round(epochs * len(self.rows) / self.size))

    def order(self, step: int) -> list[int]:
        """The rows of a step. Each epoch goes through all rows once, in an order of its own: a pure function of (rows, seed, step)."""
        count, size = len(self.rows), self.size
        epoch, place = divmod(step * size, max(1, count - count % size))
        order = np.random.Generator(np.random.Philox(key=(self.seed << 32) + epoch)).permutation(count)
        found: list[int] = order[place : place + size].tolist()
        return found

    def losses(self, step: int, network: Transformer | None = None, ranks: Ranks = ALONE) -> Iterator[tuple[Tensor, Numbers]]:
        """The parts of one step's loss, this rank's where there are several."""
        for loss, numbers, _ in self.comparison.parts(network or self.model.transformer, self.order(step), self.micro_tokens, ranks):
            yield loss, numbers

    def shrink(self) -> str | None:
        """Half as many tokens at one time, when memory does not suffice."""
        if self.micro_tokens <= 256:
            return None
        self.micro_tokens //= 2
        return f"micro-batches of {self.micro_tokens} tokens from here on"

    @torch.no_grad()
    def evaluate(self, ranks: Ranks = ALONE) -> dict[str, Any]:
        """All rows as one batch under the model as it is: the loss, and how often the better answer wins.

        ``pairs_correct`` goes by implicit reward, ``likelier`` by mean log p of a token, which means something before training too; a
        tie is half. Of pairs, the share of them; of marks, the share of all (desirable, undesirable) answers in their right order.
        ``by_row``: of pairs, ``pairs_correct`` of each.
        """
        sums: list[Numbers] = []
        seen: list[Seen] = []
        for _, numbers, found in self.comparison.parts(self.model.transformer, range(len(self.rows)), self.micro_tokens, ranks):
            sums.append(numbers)
            seen += found
        numbers = ranks.total(total(sums))
        numbers.pop("pairs_correct", None)
        every = sorted((one for share in ranks.gather_readers(seen) for one in share), key=lambda one: one.row)
        rewards, means = [s.rewards for s in every], [tuple(p / n for p, n in zip(s.logp, s.tokens, strict=True)) for s in every]
        result: dict[str, Any] = {**numbers, "rows": len(self.rows)}
        if all(row.paired for row in self.rows):
            by_row = [_won(a, b) for a, b in rewards]
            likelier = float(np.mean([_won(a, b) for a, b in means]))
            result |= {"pairs_correct": float(np.mean(by_row)), "likelier": likelier, "by_row": by_row}
        else:
            good = np.array([good for row in self.rows for good in row.desirable])
            for name, values in (("pairs_correct", rewards), ("likelier", means)):
                result[name] = in_order(np.array([v for row in values for v in row]), good)
        return result


def _won(better: float, worse: float) -> float:
    return 0.5 if better == worse else float(better > worse)


def in_order(values: npt.NDArray[Any], good: npt.NDArray[Any]) -> float | None:
    """The share of (good, bad) couples of which the good one has the larger value, a tie being half; None without both kinds.

    That is the area under the ROC curve (Hanley and McNeil 1982), by ranks.
    """
    from scipy.stats import rankdata

    n, m = int(good.sum()), int((~good).sum())
    if not n or not m:
        return None
    return float((rankdata(values)[good].sum() - n * (n + 1) / 2) / (n * m))
