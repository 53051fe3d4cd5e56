"""Reward modelling (奖惩建模), the policy's half: maximise E[R(x, y)] by policy gradient, on a leash to the model before.

    step N = (rollout N // k, minibatch N % k)            k = epochs x minibatches
    rollout: questions ─→ answers ─→ R(x, y) ─→ log p by the trainer's own forward pass, values ─→ advantages of every token
    step:    minibatch ─→ micro-batches of each rank ─→ -min(ratio A, clip(ratio) A), value loss, leash, pretraining rows

With k = 1 the policy that samples is the policy that learns and the ratio is exactly one. Sampling is at one temperature over the
whole vocabulary, so the gradient is that of the distribution that was sampled; dropout is off in every pass. The rollout in progress,
the multipliers, the leash's strength and the running mean live in the loop's ``state``: a killed run goes on with the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from norma.align.credit import assign
from norma.align.critic import Critic, Learner, collect_learner, spread_learner
from norma.align.policy_options import PolicyOptions
from norma.align.rewarding import Judged, NormReward, reward_numbers
from norma.align.rollout import Rollout
from norma.align.sampling import draw
from norma.base.errors import NormaError
from norma.base.random import keyed
from norma.base.ranks import ALONE, Ranks, total
from norma.generate import writer
from norma.lm import LanguageModel
from norma.nn import Transformer
from norma.nn.lora import lora_layers, switched_off
from norma.objectives.advantages import flat
from norma.objectives.policy_gradient import (
    average_weights,
    clipped,
    clipped_policy_loss,
    kl_estimate,
    kl_penalty,
    sequence_ratio,
    token_ratio,
)
from norma.objectives.shaping import adapted_coefficient, running_mean
from norma.objectives.value import clipped_value_loss, explained_variance
from norma.spec import Item
from norma.text.chat import prompt_ids
from norma.train.scoring import Group, answer_logprobs, answer_states, split_groups, state_logprobs

Parts = Iterator[tuple[Tensor, dict[str, float]]]


class NormPolicy:
    """The losses of policy training, for :func:`norma.train.train`; ``learner`` is the module to train.

    Args:
        model: writes the answers; the trained weights are in it whenever a rollout begins, and after :meth:`finish`.
        reference: where the leash leads; None: the model itself with its LoRA switched off.
        state: the loop's own; what must survive a kill is kept there.
        pretraining: the parts of step N's loss on other rows, already weighted (PPO-ptx, InstructGPT, 2203.02155, eq. 2).
    """

    def __init__(
        self,
        model: LanguageModel,
        reference: LanguageModel | None,
        reward: NormReward,
        items: Sequence[Item],
        options: PolicyOptions,
        *,
        seed: int,
        dtype: torch.dtype,
        state: dict[str, Any] | None = None,
        ranks: Ranks = ALONE,
        pretraining: Callable[[Transformer, int], Parts] | None = None,
    ) -> None:
        self.model, self.reference, self.reward, self.items, self.options = model, reference, reward, items, options
        self.seed, self.dtype, self.ranks, self.pretraining = seed, dtype, ranks, pretraining
        self.state: dict[str, Any] = {} if state is None else state
        self.leashed = reference is not None or bool(lora_layers(model.transformer))
        if not self.leashed and (options.kl > 0 or options.kl_target is not None):
            mend = "Give a reference, train with LoRA, or set kl to 0"
            raise NormaError("a leash needs a model before to lead to, and there is none", where="policy.kl", mend=mend)
        valued = options.advantage == "value"
        self.critic = Critic.of(model.transformer, shared=options.value.backbone == "shared") if valued else None
        self.learner: Learner = spread_learner(model.transformer, self.critic, ranks)
        self.on_rollout: Callable[[int, list[Judged]], None] | None = None
        self._held: tuple[str, Rollout] | None = None  # the state's text and what it says

    # ── rollouts ──
    @property
    def looks_back(self) -> bool:
        """Whether the models are asked about the whole rollout before the first step; else the step's own pass is enough."""
        options = self.options
        in_reward = options.kl_in == "reward" and options.kl > 0
        return options.steps > 1 or in_reward or options.kl_target is not None or self.critic is not None

    @property
    def coefficient(self) -> float:
        """The leash's strength now."""
        return float(self.state.get("kl_coefficient", self.options.kl))

    def rollout(self, number: int) -> Rollout:
        """Rollout ``number``: the one in ``state``, or a new one by the weights of now."""
        text = self.state.get("rollout")
        if text is not None:
            if self._held is None or self._held[0] != text:
                self._held = (text, Rollout.from_text(text))
            if self._held[1].number == number:
                return self._held[1]
        made = self._make(number)
        if self.options.steps > 1:
            self.state["rollout"] = made.to_text()
            self._held = (self.state["rollout"], made)
        return made

    def _make(self, number: int) -> Rollout:
        collect_learner(self.learner, self.model.transformer, self.critic, self.ranks)
        writer(self.model).publish(self.model, f"rollout {number}", self.ranks)
        multipliers: Mapping[str, float] = self.state.get("multipliers", dict.fromkeys(self.reward.budgets, 0.0))
        drawn = draw(self.model, self.items, self.reward, self.options, number, multipliers, seed=self.seed, ranks=self.ranks)
        judged, written = drawn
        if self.on_rollout:
            self.on_rollout(number, written)
        self._steady()
        made = _pack(number, self.model, judged)
        made.numbers |= self._numbers(number, written) | {f"multiplier/{rule}": value for rule, value in sorted(multipliers.items())}
        if self.looks_back and made.groups:
            made.tokens |= self._look_back(made)
        used = made.numbers["kl_coefficient"] = self.coefficient
        assign(made, self.options, coefficient=used if self.options.kl_in == "reward" else 0.0, baseline=self._baseline(made))
        if "values" in made.tokens:
            made.numbers["explained_variance"] = explained_variance(made.tokens["values"], made.tokens["returns"])
        if self.options.kl_target is not None and made.groups:
            drift = float(kl_estimate(made.tokens["old"], made.tokens["reference"])) / len(made.tokens["old"])
            self.state["kl_coefficient"] = adapted_coefficient(used, drift, self.options.kl_target)
        if self.reward.budgets:
            self.state["multipliers"] = self.reward.ascended(multipliers, written)
        return made

    def _steady(self) -> None:
        """Dropout off, everywhere: it would make the first ratio something else than one, and a leash of its own noise."""
        models = [self.learner, self.model.transformer, self.critic, None if self.reference is None else self.reference.transformer]
        for module in models:
            if module is not None:
                module.eval()

    def _baseline(self, made: Rollout) -> float:
        """The running mean of the reward before this rollout, which then moves it; the first has only itself to be compared with."""
        if self.options.advantage != "baseline" or not made.groups:
            return 0.0
        mean, before = float(made.rewards_A.mean()), self.state.get("baseline")
        self.state["baseline"] = running_mean(before, mean, self.options.baseline_decay)
        return mean if before is None else float(before)

    def _numbers(self, number: int, written: Sequence[Judged]) -> dict[str, float]:
        numbers = reward_numbers(written)
        if self.options.advantage in ("group", "leave-one-out"):
            numbers["flat_groups"] = sum(flat(g.rewards) for g in written) / max(1, len(written))
        if number % self.options.held_out_every == 0:
            numbers |= self.reward.held_out(written)
        return numbers

    @torch.no_grad()
    def _look_back(self, rollout: Rollout) -> dict[str, Tensor]:
        """What the models think of the rollout's tokens, in the very micro-batches of its first pass: the first ratios are exactly 1."""
        own: dict[int, dict[str, Tensor]] = {}
        for minibatch in range(self.options.minibatches):
            for part in self._shares(rollout, 0, minibatch)[self.ranks.reader]:
                groups = [rollout.groups[g] for g in part]
                states, targets, _ = answer_states(self.model.transformer, groups, dtype=self.dtype)
                found = {"old": state_logprobs(self.model.transformer, states, targets, self.options.temperature)}
                if self.leashed:
                    found["reference"] = self._reference(groups)
                if self.critic is not None:
                    found["values"] = self.critic(self._value_states(self.critic, states, groups))
                sizes = [sum(map(len, g.answers)) for g in groups]
                for name, values in found.items():
                    for g, piece in zip(part, torch.split(values.cpu(), sizes), strict=True):
                        own.setdefault(g, {})[name] = piece
        pieces = {g: found for share in self.ranks.gather_readers(own) for g, found in share.items()}
        return {name: torch.cat([pieces[g][name] for g in range(len(rollout.groups))]) for name in pieces[0]}

    def _value_states(self, critic: Critic, states_MW: Tensor, groups: Sequence[Group]) -> Tensor:
        return states_MW if critic.backbone is None else answer_states(critic.backbone, groups, dtype=self.dtype)[0]

    @torch.no_grad()
    def _reference(self, groups: Sequence[Group]) -> Tensor:
        how: dict[str, Any] = {"dtype": self.dtype, "temperature": self.options.temperature}
        if self.reference is not None:
            return answer_logprobs(self.reference.transformer, groups, **how)[0]
        with switched_off(self.model.transformer):  # what LoRA stands beside never moves: this copy will do on every rank
            return answer_logprobs(self.model.transformer, groups, **how)[0]

    # ── steps ──
    def _shares(self, rollout: Rollout, epoch: int, minibatch: int) -> list[list[list[int]]]:
        """Groups of a step: for each reader its micro-batches. Cut over ranks first, then by length; the step is their union."""
        order = list(range(len(rollout.groups)))
        if self.options.minibatches > 1:
            order = keyed(self.seed, rollout.number, epoch, use="minibatches").permutation(len(order)).tolist()
        chosen = order[minibatch :: self.options.minibatches]
        shares = []
        for reader in range(self.ranks.readers):
            own = chosen[reader * len(chosen) // self.ranks.readers : (reader + 1) * len(chosen) // self.ranks.readers]
            cut = split_groups([rollout.groups[g] for g in own], self.options.micro_tokens)
            shares.append([[own[i] for i in part] for part in cut])
        return shares

    def losses(self, step: int) -> Parts:
        """The parts of one step's loss: a rollout when its turn has come, then a micro-batch of groups at a time."""
        options = self.options
        number, within = divmod(step, options.steps)
        rollout = self.rollout(number)
        self._steady()
        shares = self._shares(rollout, *divmod(within, options.minibatches))
        own, most = shares[self.ranks.reader], max(map(len, shares))
        chosen = [g for share in shares for part in share for g in part]
        numbers = dict(rollout.numbers) if self.ranks.reader == 0 else {}
        answers = rollout.answers_of(chosen)
        lengths = rollout.lengths_A[answers]
        weights = torch.zeros(len(rollout.lengths_A))
        weights[answers] = average_weights(lengths, options.average, options.max_new_tokens)
        if not most:
            yield self._idle(), {"loss": 0.0} | numbers
            numbers = {}
        for i in range(most):
            part = own[i] if i < len(own) else chosen[:1]  # ranks go forward and backward together
            loss, found = self._part(rollout, part, weights, int(lengths.sum()), sampled=within == 0)
            if i >= len(own):
                loss, found = loss * 0.0, {}
            yield loss * self.ranks.readers, total([found, numbers])
            numbers = {}
        if self.pretraining is not None:
            yield from self.pretraining(self.learner.policy, step)
        if within == options.steps - 1:
            self.state.pop("rollout", None)

    def _part(self, rollout: Rollout, part: list[int], weights_A: Tensor, count: int, *, sampled: bool) -> tuple[Tensor, dict[str, float]]:
        """Loss and numbers of some groups; ``count``: the tokens of the whole step."""
        options, policy, critic = self.options, self.learner.policy, self.learner.critic
        groups, places = [rollout.groups[g] for g in part], rollout.places_of(part)
        states, targets, owners = answer_states(policy, groups, dtype=self.dtype)
        new = state_logprobs(policy, states, targets, options.temperature)
        now = new.detach()

        def kept(name: str) -> Tensor | None:
            return rollout.tokens[name][places].to(new.device) if name in rollout.tokens else None

        old, reference, advantages = kept("old"), kept("reference"), kept("advantages")
        assert advantages is not None
        if reference is None and self.leashed:
            reference = self._reference(groups)
        old = now if old is None else old
        weights = weights_A[rollout.answers_of(part)].to(new.device)[owners]
        ratio = token_ratio(new, old) if options.ratio == "token" else sequence_ratio(new, old, owners)
        clips = {"clip_low": options.clip_low, "clip_high": options.clip_high}
        loss = clipped_policy_loss(ratio, advantages, weights, **clips)
        numbers = {
            "entropy": float(-now.sum()) / count,
            "clip_share": float(clipped(ratio.detach(), advantages, **clips).sum()) / count,
        }
        if reference is not None:
            numbers["kl"] = float(kl_estimate(new, reference)) / count
            if options.kl_in == "loss":
                loss = loss + rollout.numbers["kl_coefficient"] * kl_penalty(new, reference, weights)
        if critic is not None:
            before, returns = kept("values"), kept("returns")
            assert before is not None and returns is not None
            values = critic(self._value_states(critic, states, groups))
            value_loss = clipped_value_loss(values, before, returns, options.value.clip) / count
            loss = loss + options.value.coefficient * value_loss
            numbers["value_loss"] = float(value_loss.detach())
        written = kept("sampled")
        if written is not None and sampled:
            numbers["mismatch"] = float((written - old).abs().sum()) / count
        return loss, {"loss": float(loss.detach()), **numbers}

    def _idle(self) -> Tensor:
        """A loss without gradient, where every answer is masked: the step counts and moves nothing. Several ranks still go in step."""
        group = Group(prompt_ids(self.model.tokenizer, self.items[0].messages), [[0]])
        loss = answer_logprobs(self.learner.policy, [group], dtype=self.dtype)[0].sum() * 0.0
        critic = self.learner.critic
        if critic is None:
            return loss
        states, _, _ = answer_states(critic.backbone or self.learner.policy, [group], dtype=self.dtype)
        nothing: Tensor = critic(states).sum() * 0.0
        return loss + nothing

    def finish(self) -> None:
        """After training: the trained weights, whole, in ``model``."""
        collect_learner(self.learner, self.model.transformer, self.critic, self.ranks)


def _pack(number: int, model: LanguageModel, judged: Sequence[Judged]) -> Rollout:
    """The answers that have a reward, as ids."""
    groups: list[Group] = []
    rewards: list[float] = []
    sampled: list[float] = []
    for group in judged:
        known = [i for i, reward in enumerate(group.rewards) if reward is not None]
        if not known:
            continue
        groups.append(Group(prompt_ids(model.tokenizer, group.item.messages), [group.answers[i].ids for i in known]))
        rewards += [float(group.rewards[i] or 0.0) for i in known]
        for i in known:
            sampled += group.written[i].logprobs or ()
    made = Rollout(number, groups, torch.tensor(rewards, dtype=torch.float64))
    if sampled and len(sampled) == int(made.lengths_A.sum()):
        made.tokens["sampled"] = torch.tensor(sampled)
    return made
