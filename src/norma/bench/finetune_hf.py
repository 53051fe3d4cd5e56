"""The Trainer's side of ``norma bench finetune``: as it is, one epoch of its steps at a time (:mod:`norma.bench.gated`)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from norma.bench.gated import FOREVER, gated
from norma.bench.worker import Step

if TYPE_CHECKING:
    from torch import Tensor

ROUND = 32  # compiled code is made for a length: fewer lengths, and no new ones after the first epoch


def step_of(job: dict[str, Any]) -> Step:
    """An epoch: its mean loss, samples, tokens of real text."""
    import torch

    from norma.base.files import read_jsonl

    rows = read_jsonl(Path(job["folder"]) / "rows.jsonl")
    losses: list[float] = []
    once = gated(lambda gate: trainer_of(job, rows, gate, losses), job["threads"])
    tokens = sum(len(row["ids"]) for row in rows)

    def epoch() -> Tensor:
        losses.clear()
        for _ in range(len(rows) // job["rows"]):
            once()
        return torch.tensor([sum(losses) / len(losses), len(rows), tokens])

    return epoch


def trainer_of(job: dict[str, Any], rows: list[dict[str, Any]], gate: Any, losses: list[float]) -> Any:
    """The trainer with the settings of the job; it appends the loss of each step to ``losses``."""
    import torch

    library = importlib.import_module("transformers")
    folder = Path(job["folder"])
    weights = getattr(torch, job["dtype"]) if job["weights"] == "same" else torch.float32
    load = library.AutoModelForSequenceClassification.from_pretrained
    model = load(folder / "model", dtype=weights, attn_implementation=job["attention"])
    tokenizer = library.AutoTokenizer.from_pretrained(folder / "model")
    collate = library.DataCollatorWithPadding(tokenizer, pad_to_multiple_of=ROUND if job["compile"] else None)
    data = importlib.import_module("datasets").Dataset.from_list([
        {"input_ids": row["ids"], "attention_mask": [1] * len(row["ids"]), "labels": row["label"]} for row in rows
    ])  # fmt: skip
    settings: dict[str, Any] = {
        "output_dir": str(folder / "trainer"), "use_cpu": True, "max_steps": FOREVER, "report_to": "none", "save_strategy": "no",
        "logging_strategy": "no", "disable_tqdm": True, "seed": 0, "per_device_train_batch_size": job["rows"], "weight_decay": 0.01,
        "learning_rate": job["rate"], "max_grad_norm": 1.0, "lr_scheduler_type": "constant", "torch_compile": job["compile"],
        "bf16": job["dtype"] == "bfloat16" and job["weights"] == "fp32",
    }  # fmt: skip
    if job["tuned"]:
        settings |= {"optim": "adamw_torch_fused", "train_sampling_strategy": "group_by_length"}

    class Told(library.Trainer):  # type: ignore[name-defined, misc]
        def compute_loss(self, *given: Any, **named: Any) -> Any:
            found = super().compute_loss(*given, **named)
            losses.append(float((found[0] if isinstance(found, tuple) else found).detach()))
            return found

    args = library.TrainingArguments(**settings)
    return Told(model=model, args=args, train_dataset=data, data_collator=collate, callbacks=[gate])
