"""Norma's side of ``norma bench align``: losses of each kind of work, and the update that the training loop would make.

A step gives (loss, samples, tokens of real text). Which class makes a kind of work's losses is said in one function each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
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
    from norma.align.correction import Pair, PairTraining
    from norma.align.options import PairOptions
    from norma.spec import Item, Message

    items = [Item(r["id"], tuple(Message(**m) for m in r["messages"])) for r in rows]
    pairs = [Pair(item, r["chosen"], r["rejected"]) for item, r in zip(items, rows, strict=True)]
    options = PairOptions(pairs=job["rows"], likelihood=0.0)
    training = PairTraining(model, pairs, options, seed=0, dtype=_dtype(job))
    mean = sum(g.tokens() + len(g.prompt) for g in training.groups) / len(training.groups)  # a peer reads the prompt twice
    return Work(training.losses, lambda step: (job["rows"], round(job["rows"] * mean))), model.transformer


def _kto(job: dict[str, Any], model: LanguageModel, rows: list[dict[str, Any]]) -> tuple[Work, Any]:
    raise _missing("KTO")


def _reward_model(job: dict[str, Any], model: LanguageModel, rows: list[dict[str, Any]]) -> tuple[Work, Any]:
    raise _missing("reward models")


def _missing(what: str) -> Exception:
    from norma.base.errors import NormaError

    return NormaError(f"this version of Norma does not train {what}", mend="Leave it out")


class Written:
    """A spec of one rule that costs nothing: an answer is the better the nearer it comes to eighty words."""

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
    from norma.align.options import PolicyOptions
    from norma.align.reward import NormPolicy
    from norma.spec import Item, Message
    from norma.text.chat import prompt_ids

    items = [Item(r["id"], tuple(Message(**m) for m in r["messages"])) for r in rows]
    options = PolicyOptions(questions=job["questions"], group=job["group"], max_new_tokens=job["new_tokens"], kl=0.05)
    spec: Any = Written()
    policy = NormPolicy(model, model.copy(), spec, items, options, seed=0, dtype=_dtype(job))
    last: list[Any] = []

    def noted(step: int, groups: Any) -> None:
        last[:] = groups

    policy.on_rollout = noted

    def took(step: int) -> tuple[int, int]:
        answers = [a for group in last for a in group]
        return len(answers), sum(len(a.ids) + len(prompt_ids(model.tokenizer, a.item.messages)) for a in answers)

    return Work(policy.losses, took), model.transformer
