"""Norma's side of ``norma bench align``: losses of each kind of work, and the update that the training loop would make.

A step gives (loss, samples, tokens of real text). Which class makes a kind of work's losses is said in one function each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from norma.bench.worker import Step

if TYPE_CHECKING:
    from torch import Tensor

    from norma.lm import LanguageModel

Parts = Iterator[tuple["Tensor", dict[str, float]]]


@dataclass
class Work:
    """The parts of a step's loss, and what the step took: (samples, tokens), asked for after it."""

    losses: Callable[[int], Parts]
    took: Callable[[int], tuple[int, int]]


def step_of(job: dict[str, Any]) -> Step:
    """A whole step: losses, backward, clipping, AdamW, as ``norma.train.loop`` has them."""
    import torch

    from norma.base.files import read_jsonl
    from norma.generate import LocalEngine
    from norma.lm import LanguageModel
    from norma.train.optimiser import make_optimisers

    folder = Path(job["folder"])
    model = LanguageModel.load(folder / "model")
    model.engine = LocalEngine()
    makers = {"sft": _sft, "dpo": _dpo, "kto": _kto, "reward-model": _reward_model, "grpo": _grpo}
    work, module = makers[job["method"]](job, model, read_jsonl(folder / "rows.jsonl"))
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimisers = make_optimisers(module, kind="adamw", learning_rate=1e-6, matrix_learning_rate=1e-6, weight_decay=0.0)
    done = 0

    def step() -> Tensor:
        nonlocal done
        module.train()
        total = 0.0
        for loss, _ in work.losses(done):
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser in optimisers:
            optimiser.step()
        module.zero_grad(set_to_none=True)
        samples, tokens = work.took(done)
        done += 1
        return torch.tensor([total, samples, tokens])

    return step


def _dtype(job: dict[str, Any]) -> Any:
    import torch

    return getattr(torch, job["dtype"])


def _sft(job: dict[str, Any], model: LanguageModel, rows: list[dict[str, Any]]) -> tuple[Work, Any]:
    """Packed rows, as the stage ``sft`` trains them: as many sequences as a step's texts fill."""
    from norma.text.chat import training_row
    from norma.text.packing import Batches, Rows
    from norma.train.step import language_losses

    made = [training_row(model.tokenizer, [*r["messages"], {"role": "assistant", "content": r["chosen"]}]) for r in rows]
    packed = Rows.build([row for row in made if len(row[0]) <= job["length"]], job["length"])
    mean = float(packed.lengths().mean())
    size = max(1, round(job["rows"] * mean / job["length"]))
    batches = Batches(packed, length=job["length"], size=size, seed=0, pad=model.tokenizer.pad_id)

    def took(step: int) -> tuple[int, int]:
        documents = batches[step].documents
        return int(documents.max(axis=1).sum()), int((documents > 0).sum())

    return Work(lambda step: language_losses(model.transformer, batches, step, micro=16, dtype=_dtype(job)), took), model.transformer


def _dpo(job: dict[str, Any], model: LanguageModel, rows: list[dict[str, Any]]) -> tuple[Work, Any]:
    return _preference(job, model, "dpo", [{**r, "source": r["id"]} for r in rows])


def _kto(job: dict[str, Any], model: LanguageModel, rows: list[dict[str, Any]]) -> tuple[Work, Any]:
    marks = [
        {"id": r["id"], "messages": r["messages"], "answer": r["chosen" if i % 2 else "rejected"], "desirable": bool(i % 2)}
        for i, r in enumerate(rows)
    ]
    return _preference(job, model, "kto", marks)


def _preference(job: dict[str, Any], model: LanguageModel, method: Any, rows: list[dict[str, Any]]) -> tuple[Work, Any]:
    """What the stage ``preference`` does with rows of pairs or marks."""
    import tempfile

    from norma.align.compared import read_rows
    from norma.align.comparison import Settings
    from norma.align.preference import PreferenceTraining
    from norma.align.preference_options import PairOptions
    from norma.base.files import write_jsonl

    options = PairOptions(pairs=job["rows"], beta=0.1)
    with tempfile.TemporaryDirectory() as folder:
        write_jsonl(Path(folder) / "rows.jsonl", rows)
        read = read_rows(Path(folder) / "rows.jsonl", model.tokenizer, model.config)
    training = PreferenceTraining(model, read.rows, Settings.of(method, options), options, seed=0, dtype=_dtype(job))

    def took(step: int) -> tuple[int, int]:
        groups = [training.rows[i].group for i in training.order(step)]
        return len(groups), sum(len(g.answers) * len(g.prompt) + sum(map(len, g.answers)) for g in groups)  # a peer reads prompts again

    return Work(training.losses, took), model.transformer


def _reward_model(job: dict[str, Any], model: LanguageModel, rows: list[dict[str, Any]]) -> tuple[Work, Any]:
    """What the stage ``reward-model`` does with pairs."""
    from norma.align.reward_model import RewardModel
    from norma.align.reward_model_options import RewardModelOptions
    from norma.align.reward_training import RewardTraining, judgement

    reward = RewardModel.begin(model)
    judged = [judgement(reward, r, "pair", r["id"]) for r in rows]
    training = RewardTraining(reward, judged, "pair", RewardModelOptions(rows=job["rows"]), seed=0, dtype=_dtype(job))
    network, tokens = reward.model.transformer, [0]

    def losses(step: int) -> Parts:
        tokens[0] = 0
        for loss, numbers in training.losses(network, step):
            tokens[0] += int(numbers["tokens"])
            yield loss, numbers

    return Work(losses, lambda step: (job["rows"], tokens[0])), network


class Written:
    """A spec of one rule that costs nothing: an answer is the better the nearer it comes to eighty words."""

    composition = SimpleNamespace(constraints={})

    def checkers(self, role: str) -> dict[str, Any]:
        return {}

    def verdicts(self, item: Any, response: str, role: str) -> list[Any]:
        from norma.spec import Status, Verdict

        return [Verdict("length", "hash", item.id, "bench", "digest", "train", Status.COMPLIANT, reward_of(response))]

    def rewards(self, items: Any, group: Any) -> list[Any]:
        from norma.spec import Reward

        return [Reward(verdicts[0].score, {}, ("length",)) for verdicts in group]


def reward_of(text: str) -> float:
    """The reward that every system optimises."""
    return -abs(len(text.split()) - 80) / 80


def _grpo(job: dict[str, Any], model: LanguageModel, rows: list[dict[str, Any]]) -> tuple[Work, Any]:
    """What the stage ``reward`` does with method grpo: one step of each rollout, on a leash to the model before."""
    from norma.align.policy import NormPolicy
    from norma.align.policy_options import PolicyOptions
    from norma.align.rewarding import NormReward
    from norma.spec import Item, Message
    from norma.text.chat import prompt_ids

    items = [Item(r["id"], tuple(Message(role=m["role"], content=m["content"]) for m in r["messages"])) for r in rows]
    told = {"questions": job["questions"], "group": job["group"], "max_new_tokens": job["new_tokens"], "kl": 0.05, "unfinished": 0.0}
    options = PolicyOptions(method="grpo", **told)
    spec: Any = Written()
    policy = NormPolicy(model, model.copy(), NormReward(spec, options), items, options, seed=0, dtype=_dtype(job))
    last: list[Any] = []

    def noted(number: int, judged: Any) -> None:
        last[:] = judged

    policy.on_rollout = noted

    def took(step: int) -> tuple[int, int]:
        answers = [(group.item, a) for group in last for a in group.answers]
        return len(answers), sum(len(a.ids) + len(prompt_ids(model.tokenizer, item.messages)) for item, a in answers)

    return Work(policy.losses, took), policy.learner
