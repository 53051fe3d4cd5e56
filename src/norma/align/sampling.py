"""What the policy writes for a rollout, judged: a pure function of the weights, the seed and the rollout's number.

    questions of rollout r ─→ sheets of a few questions, each with random numbers of its own ─→ answers ─→ rewards
                         └─ groups without signal are replaced by further questions, a few times (dynamic sampling, DAPO)

A sheet is written by one rank; which one changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from norma.align.marks import sample
from norma.align.policy_options import PolicyOptions
from norma.align.rewarding import Judged, NormReward
from norma.base.random import keyed
from norma.base.ranks import ALONE, Ranks
from norma.generate import Sampling
from norma.lm import LanguageModel
from norma.objectives.advantages import flat
from norma.spec import Item

SHEET = 32  # answers that are written together, at least one question's


def draw(
    model: LanguageModel,
    items: Sequence[Item],
    reward: NormReward,
    options: PolicyOptions,
    number: int,
    multipliers: Mapping[str, float],
    *,
    seed: int,
    ranks: Ranks = ALONE,
) -> tuple[list[Judged], list[Judged]]:
    """(the groups to learn from, all groups that were written) of rollout ``number``."""
    order = keyed(seed, number, use="questions").permutation(len(items)).tolist()
    wanted = min(options.questions, len(items))
    kept: list[Judged] = []
    written: list[Judged] = []
    for turn in range(1 + options.refills):
        asked = [items[i] for i in order[len(written) : len(written) + wanted - len(kept)]]
        if not asked:
            break
        made = _write(model, asked, reward, options, (number, turn), multipliers, seed=seed, ranks=ranks)
        written += made
        kept += [g for g in made if not (options.refills and flat(g.rewards))]
    return kept, written


def _write(
    model: LanguageModel,
    items: Sequence[Item],
    reward: NormReward,
    options: PolicyOptions,
    place: tuple[int, int],
    multipliers: Mapping[str, float],
    *,
    seed: int,
    ranks: Ranks,
) -> list[Judged]:
    """Answers to ``items`` and their rewards, in the order of the items."""
    size = max(1, SHEET // options.group)
    sheets = [items[i : i + size] for i in range(0, len(items), size)]
    own: dict[int, list[Judged]] = {}
    for number in range(ranks.reader, len(sheets), ranks.readers):
        chance = np.random.SeedSequence((seed, *place, number)).generate_state(1)[0]
        sampling = Sampling(options.max_new_tokens, options.temperature, seed=int(chance))
        answers = sample(model, sheets[number], [i.messages for i in sheets[number]], sampling, each=options.group)
        own[number] = reward.judge(list(zip(sheets[number], answers, strict=True)), multipliers)
    made = {number: judged for part in ranks.gather_readers(own) for number, judged in part.items()}
    return [judged for number in sorted(made) for judged in made[number]]
