"""What the policy writes for a rollout, judged: a pure function of the weights, the seed and the rollout's number.

    questions of rollout r ─→ each rank's share ─→ answers, random numbers by their places in the whole ─→ rewards
                         └─ groups without signal are replaced by further questions, a few times (dynamic sampling, DAPO)

All answers of a share are written together: a row that has finished takes the next question. Which rank writes one changes nothing.
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
    share = ranks.share(len(items))
    own, judged = items[share], list[Judged]()
    sampling = Sampling(options.max_new_tokens, options.temperature, seed=int(np.random.SeedSequence((seed, *place)).generate_state(1)[0]))
    if own:
        answers = sample(model, own, [i.messages for i in own], sampling, each=options.group, first=share.start)
        judged = reward.judge(list(zip(own, answers, strict=True)), multipliers)
    return [group for part in ranks.gather_readers(judged) for group in part]
