"""What goes wrong in norm training, said in words when it begins: rows of metrics.jsonl in, sentences in both languages out.

    rows so far ─→ the first steps (how it began), the last ones (how it is now) ─→ each sign of trouble ─→ Alarm, once: when it begins

| kind | is said when, over the last WINDOW steps |
|---|---|
| entropy | the mean entropy is below ENTROPY_LEFT of what it was at the start |
| hack_gap | over up to LONG rollouts: reward rises, the held-out reward gains under HELD_SHARE of that, the gap is no chance |
| flat_groups | at least FLAT of the groups gave no signal |
| kl | the median KL is above KL_HIGH nats a token and KL_GROWS times that of the window before, or above KL_TOP |
| clip_share | more than CLIPPED of the tokens are clipped |
| unfinished | CUT of the answers are cut off at the limit, CUT_MORE more than at the start (or all but CUT_ALL from the start) |
| mismatch | log-probabilities of rollout and trainer differ by more than MISMATCH nats a token |
| masked | more than MASKED of the answers have no reward |
| chosen_falls | over LONG steps: chosen AND rejected answers cost clearly more nats a token (Smaug, 2402.13228; 2404.19733) |

Numbers that a run does not log warn of nothing. Steps that did not count ("skipped") are not looked at. Pure: no clock, no chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import Any

WINDOW = 10  # steps whose mean is looked at: what a single step says is noise
LONG = 20  # steps on either side of a change of mean, at most
FEWEST = 6  # held-out looks on either side of it: they come every few rollouts only
SPENT = 0.05  # of chance, on all looks at one gap: see Pairs.opened
CLEAR = 6.0  # standard errors from which chosen answers have become less likely: over hundreds of steps less cries wolf
ENTROPY_LEFT = 0.3  # of the entropy at the start; sampling finds little new below it
ENTROPY_FLOOR = 0.05  # nats a token: a model that was as sure as that from the start cannot collapse
HELD_SHARE = 0.25  # of the reward's rise that the held-out reward has to gain as well
RISES = 2.5  # deviations from which the reward is said to rise; the gap itself has to be clear
LEAST_RISE = 0.02  # of reward: smaller changes matter to nobody
FLAT = 0.95
KL_HIGH, KL_GROWS, KL_TOP = 0.5, 1.5, 2.0  # nats a token; useful policies mostly stay below 0.2
CLIPPED = 0.3  # PPO usually clips 1% to 20% of its tokens
CUT, CUT_MORE, CUT_ALL = 0.5, 0.25, 0.1
MISMATCH = 0.1  # nats a token; bf16 decoding beside a bf16 trainer differs by about 0.02
MASKED = 0.5
NATS_MORE = 0.1  # nats a token that chosen answers may lose before it is worth a word


@dataclass(frozen=True)
class Alarm:
    """One sign of trouble: the step at which it was seen, the number, and what it means in words."""

    kind: str
    step: int
    value: float
    en: str
    zh: str

    def row(self) -> dict[str, Any]:
        return {"kind": self.kind, "step": self.step, "value": self.value, "en": self.en, "zh": self.zh}


def alarms(rows: Iterable[Mapping[str, Any]]) -> list[Alarm]:
    """All that a :class:`Lookout` says of these rows, in order."""
    lookout = Lookout()
    return [alarm for row in rows for alarm in lookout.add(row)]


class Lookout:
    """Reads the rows of a training one by one and says each thing once, when it begins."""

    def __init__(self) -> None:
        self._first: dict[str, list[float]] = {}  # the first LONG values of each number
        self._last: dict[str, list[float]] = {}  # the last 2 * LONG
        self._pairs: dict[str, Pairs] = {}  # reward and held-out reward of the same rollouts
        self._said: set[str] = set()

    def add(self, row: Mapping[str, Any]) -> list[Alarm]:
        """The alarms that this row brings."""
        if row.get("skipped"):
            return []
        again = self._same_rollout(row)
        for name, value in row.items():
            if known(value) and not (again and [value] == self._last.get(name, [])[-1:]):
                first, last = self._first.setdefault(name, []), self._last.setdefault(name, [])
                if len(first) < LONG:
                    first.append(float(value))
                last.append(float(value))
                del last[: -2 * LONG]
        found = [w for w in self._signs(int(row.get("step", 0)), {} if again else row) if w.kind not in self._said]
        self._said |= {w.kind for w in found}
        return found

    def _same_rollout(self, row: Mapping[str, Any]) -> bool:
        """Whether this step goes over the rollout of the step before, whose numbers it repeats: they are no news."""
        return "answer_tokens" in row and all([row.get(name)] == self._last.get(name, [])[-1:] for name in ("reward", "answer_tokens"))

    def _signs(self, step: int, row: Mapping[str, Any]) -> Iterator[Alarm]:
        yield from self._entropy(step)
        yield from self._gaps(step, row)
        yield from self._levels(step)
        yield from self._kl(step)
        yield from self._unfinished(step)
        yield from self._chosen(step)

    def _now(self, name: str) -> float | None:
        """Mean of the last WINDOW values; None before there are as many."""
        last = self._last.get(name, [])
        return mean(last[-WINDOW:]) if len(last) >= WINDOW else None

    def _start(self, name: str) -> float | None:
        """Mean of the first WINDOW values, once the last WINDOW are others."""
        return mean(self._first[name][:WINDOW]) if len(self._last.get(name, [])) >= 2 * WINDOW else None

    def _entropy(self, step: int) -> Iterator[Alarm]:
        now, start = self._now("entropy"), self._start("entropy")
        if now is not None and start is not None and start > ENTROPY_FLOOR and now < ENTROPY_LEFT * start:
            yield Alarm(
                "entropy",
                step,
                now,
                f"Entropy collapses: {now:.3g} nats a token, {now / start:.0%} of what it was at the start. Answers become alike, and"
                " sampling finds nothing better. Raise the KL coefficient or the temperature, or lower the learning rate.",
                f"熵坍缩：每词元 {now:.3g} 奈特，仅为开始时的 {now / start:.0%}。回答趋于雷同，采样再难发现更好的回答。"
                "可提高 KL 系数或温度，或降低学习率。",
            )

    def _gaps(self, step: int, row: Mapping[str, Any]) -> Iterator[Alarm]:
        """Paired by step, so that steps with easy questions do not look like a gap."""
        rules = [key.removeprefix("held_out/") for key in row if key.startswith("held_out/")]
        for rule in ("", *rules):
            trained, held = (f"rule/{rule}", f"held_out/{rule}") if rule else ("reward", "reward_held_out")
            if not known(row.get(trained)) or not known(row.get(held)):
                continue
            pairs = self._pairs.setdefault(rule, Pairs())
            pairs.add(float(row[trained]), float(row[held]))
            opened = pairs.opened()
            if opened is None:
                continue
            rise, gain = opened
            what, was = (f"rule {rule}", f"规则 {rule} ") if rule else ("the reward", "奖励")
            held_en, held_zh = ("fell", "下降") if gain < -LEAST_RISE else ("changed", "变化")
            yield Alarm(
                f"hack_gap:{rule}" if rule else "hack_gap",
                step,
                rise - gain,
                f"The hack gap opens: {what} rose by {rise:.3f} since the start, while what held-out checkers say of it {held_en} by"
                f" {abs(gain):.3f}. The model learns the checker, not the rule.",
                f"投机差距正在拉大：{was}自开始上升 {rise:.3f}，留出检查器的判定却{held_zh} {abs(gain):.3f}。"
                "模型学到的是检查器，而不是规则。",
            )

    def _levels(self, step: int) -> Iterator[Alarm]:
        flat, clipped, apart, masked = (self._now(n) for n in ("flat_groups", "clip_share", "mismatch", "masked"))
        if flat is not None and flat >= FLAT:
            en, zh = flat_words(flat)
            yield Alarm(
                "flat_groups",
                step,
                flat,
                f"{en} Make the questions harder or easier, the reward finer, or the groups larger.",
                f"{zh}可调整题目难度、细化奖励，或增大组。",
            )
        if clipped is not None and clipped > CLIPPED:
            yield Alarm(
                "clip_share",
                step,
                clipped,
                f"{clipped:.0%} of the tokens are clipped: the policy moves too far within one rollout. Lower the learning rate, or make"
                " fewer passes over a rollout.",
                f"{clipped:.0%} 的词元被截断：策略在一次采样内移动过远。可降低学习率或减少遍数。",
            )
        if apart is not None and apart > MISMATCH:
            yield Alarm(
                "mismatch",
                step,
                apart,
                f"Rollout and trainer disagree by {apart:.3g} nats a token on what was sampled: the gradient is of another policy than"
                " the one that wrote. Sample in the trainer's precision, and without top-p or top-k.",
                f"采样与训练两侧对同一词元的对数概率平均相差 {apart:.3g} 奈特：梯度所属的策略并非写下回答的策略。"
                "采样请用训练的精度，且不用 top-p、top-k。",
            )
        if masked is not None and masked > MASKED:
            yield Alarm(
                "masked",
                step,
                masked,
                f"{masked:.0%} of the answers have no reward, because a checker failed or was unsure: they teach nothing. Look at the"
                " errors of the checkers.",
                f"{masked:.0%} 的回答没有奖励（检查器出错或不确定），无从学习。请查看检查器的错误。",
            )

    def _kl(self, step: int) -> Iterator[Alarm]:
        """By medians: one answer that the model before would never have given lifts the mean of a whole window."""
        last = self._last.get("kl", [])
        if len(last) < WINDOW:
            return
        now, before = median(last[-WINDOW:]), median(last[-2 * WINDOW : -WINDOW]) if len(last) >= 2 * WINDOW else None
        runs = before is not None and now > KL_HIGH and now > KL_GROWS * before
        if runs or now > KL_TOP:
            yield Alarm(
                "kl",
                step,
                now,
                f"KL runs away: {now:.3g} nats a token from the model before"
                + (f", {now / before:.1f} times the {WINDOW} steps before. " if runs and before else ". ")
                + "Raise the KL coefficient or lower the learning rate.",
                f"KL 失控：与之前的模型相距每词元 {now:.3g} 奈特"
                + (f"，为此前 {WINDOW} 步的 {now / before:.1f} 倍。" if runs and before else "。")
                + "可提高 KL 系数或降低学习率。",
            )

    def _unfinished(self, step: int) -> Iterator[Alarm]:
        now, start, tokens = self._now("unfinished"), self._start("unfinished"), self._now("answer_tokens")
        if now is None:
            return
        grows = start is not None and now >= CUT and now - start >= CUT_MORE
        if grows or now >= 1 - CUT_ALL:
            long_en, long_zh = ("", "") if tokens is None else (f" ({tokens:.0f} tokens on average)", f"（平均 {tokens:.0f} 个词元）")
            yield Alarm(
                "unfinished",
                step,
                now,
                f"{now:.0%} of the answers are cut off at the limit{long_en}"
                + (f", {start:.0%} were at the start: answers grow. " if grows and start is not None else ". ")
                + "Reward short answers, or raise max_new_tokens.",
                f"{now:.0%} 的回答因达到长度上限而被截断{long_zh}"
                + (f"，开始时为 {start:.0%}：回答越来越长。" if grows and start is not None else "。")
                + "可奖励简短的回答，或提高 max_new_tokens。",
            )

    def _chosen(self, step: int) -> Iterator[Alarm]:
        def more(name: str) -> float | None:
            """Nats a token more than at the start, where that is clear."""
            if len(self._last.get(name, [])) < 2 * LONG:
                return None
            first, last = self._first[name], self._last[name][-LONG:]
            rise = mean(last) - mean(first)
            return rise if rise > NATS_MORE and standard_errors(first, last) > CLEAR else None

        chosen, rejected = more("chosen_nats_per_token"), more("rejected_nats_per_token")
        if chosen is not None and rejected is not None:
            yield Alarm(
                "chosen_falls",
                step,
                chosen,
                f"Chosen answers become less likely together with the rejected ones: {chosen:.3g} and {rejected:.3g} nats a token more than"
                " at the start. The model moves to answers that nobody chose. Give the likelihood term more weight, or raise beta.",
                f"被选回答与被拒回答一同变得更不可能：每词元比开始时分别多 {chosen:.3g} 与 {rejected:.3g} 奈特。"
                "模型正移向无人选择的回答。可加大似然项权重，或提高 beta。",
            )


class Pairs:
    """A reward and what held-out checkers say of the same answers, rollout by rollout: the first LONG of them and the last."""

    def __init__(self) -> None:
        self.count = 0
        self._kept: list[tuple[float, float]] = []

    def add(self, trained: float, held: float) -> None:
        self.count += 1
        self._kept.append((trained, held))
        if len(self._kept) > 2 * LONG:
            del self._kept[LONG]

    def opened(self) -> tuple[float, float] | None:
        """(rise of the reward, gain of the held-out reward) where the gap between them opens.

        It is looked at after every rollout: the k-th look may be wrong with a chance of SPENT / k^2, all of them together (from the
        12th on) with less than SPENT / 11.
        """
        size = min(LONG, self.count // 2)
        if size < FEWEST:
            return None
        before, after = self._kept[:size], self._kept[-size:]
        trained, held = ([[pair[i] for pair in part] for part in (before, after)] for i in (0, 1))
        rise, gain = (mean(side[1]) - mean(side[0]) for side in (trained, held))
        enough = NormalDist().inv_cdf(1 - SPENT / self.count**2)
        rises = rise >= LEAST_RISE and deviations(*trained) >= RISES
        opens = deviations([t - h for t, h in before], [t - h for t, h in after]) >= enough
        return (rise, gain) if rises and opens and gain + standard_error(*held) <= HELD_SHARE * rise else None


def known(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def flat_words(share: float) -> tuple[str, str]:
    """How many groups taught nothing, in English and Chinese."""
    return (
        f"{share:.0%} of groups gave no signal because all answers got the same reward.",
        f"{share:.0%} 的组没有提供信号，因为组内所有回答得到相同的奖励。",
    )


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def standard_error(before: Sequence[float], after: Sequence[float]) -> float:
    """Of the change of the mean (Welch): each side's variance its own."""
    return math.sqrt(sum(sum((x - mean(part)) ** 2 for x in part) / (len(part) - 1) / len(part) for part in (before, after)))


def standard_errors(before: Sequence[float], after: Sequence[float]) -> float:
    """The change of the mean in standard errors; without any noise, infinite."""
    change, error = mean(after) - mean(before), standard_error(before, after)
    if error == 0.0:
        return math.copysign(math.inf, change) if change else 0.0
    return change / error


def deviations(before: Sequence[float], after: Sequence[float]) -> float:
    """As :func:`standard_errors`, in deviations of a normal distribution: few values make large ones likelier (Wallace 1959)."""
    t, free = standard_errors(before, after), len(before) + len(after) - 2
    if math.isinf(t):
        return t
    return math.copysign((8 * free + 1) / (8 * free + 3) * math.sqrt(free * math.log1p(t * t / free)), t)
