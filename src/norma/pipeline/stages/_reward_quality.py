"""What a reward model is worth on held-out judgements, and the calibration of heads that are to be checkers of rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from norma.base.errors import NormaError

if TYPE_CHECKING:
    from norma.align.reward_model import RewardModel
    from norma.align.reward_model_options import RewardModelOptions
    from norma.align.reward_training import Judgement


def pairs(reward: RewardModel, held_out: Sequence[Judgement]) -> dict[str, Any]:
    """Of pairs; see :func:`norma.evaluate.reward_models.pair_quality`."""
    from norma.evaluate.reward_models import pair_quality

    scores = reward.rate([j.texts for j in held_out])[:, 0].view(-1, 2)
    lengths = [[len(text.ids) for text in j.texts] for j in held_out]
    return pair_quality(scores[:, 0], scores[:, 1], lengths, [j.source for j in held_out])


def scores(reward: RewardModel, held_out: Sequence[Judgement], options: RewardModelOptions, mean: float, *, seed: int) -> dict[str, Any]:
    """Of scored answers; see :func:`norma.evaluate.reward_models.mark_quality`. ``mean``: of the scores that were learnt."""
    return _marks(reward.rate([j.texts for j in held_out])[:, 0], held_out, None, mean if options.pointwise == "squared" else None, seed)


def rules(reward: RewardModel, held_out: Sequence[Judgement], *, seed: int) -> dict[str, Any]:
    """Divide each rule's logits by the temperature that makes one half of the sources likeliest, and measure on the other half.

    A rule's ``checker`` holds what ``params:`` of a checker of kind ``classifier`` are to say; the temperature is in the weights already.
    """
    import torch

    from norma.check.calibrate import calibrate
    from norma.text.split import split

    logits = reward.rate([j.texts for j in held_out])
    halves = [split(j.source, seed + 1, 0.5) for j in held_out]
    temperatures, found = [], {}
    for k, rule in enumerate(reward.names):
        one, other = ([i for i, j in enumerate(held_out) if rule in j.kept and halves[i] == half] for half in ("train", "validation"))
        kept = [held_out[i].kept[rule] for i in one]
        if not other or all(kept) or not any(kept):
            what = f"rule '{rule}' has too few held-out marks to be calibrated and measured: {len(one)} and {len(other)}"
            raise NormaError(what, mend="Hold out more (validation_share), or name files under 'validation'")
        two = torch.stack([torch.zeros(len(one)), logits[one, k]], dim=1)
        made = calibrate(two, kept, 1)
        before = _marks(logits[other, k], [held_out[i] for i in other], rule, None, seed)
        after = _marks(logits[other, k] / made.temperature, [held_out[i] for i in other], rule, None, seed)
        checker = {"label": rule, "threshold": made.threshold, "abstain": made.abstain}
        found[rule] = {
            **after,
            "uncalibrated": before["calibration_error"],
            "temperature": made.temperature,
            "checker": checker,
            "abstained": made.abstained,
        }
        temperatures.append(made.temperature)
    reward.finish(temperature=torch.tensor(temperatures))
    return {"rules": found}


def _marks(scores: Any, held_out: Sequence[Judgement], rule: str | None, shift: float | None, seed: int) -> dict[str, Any]:
    from norma.evaluate.reward_models import mark_quality

    good = [j.desirable if rule is None else j.kept[rule] for j in held_out]
    targets = [j.target for j in held_out] if rule is None else good
    lengths = [len(j.texts[0].ids) for j in held_out]
    return mark_quality(scores, good, targets, lengths, [j.source for j in held_out], shift=shift, seed=seed)
