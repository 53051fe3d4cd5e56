"""TRL's side of ``norma bench align``: its trainers as they are, stopped between two steps (:mod:`norma.bench.gated`)."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from norma.bench.align_norma import reward_of
from norma.bench.gated import FOREVER, gated
from norma.bench.worker import Step

if TYPE_CHECKING:
    from torch import Tensor


def step_of(job: dict[str, Any]) -> Step:
    """One step of the trainer; its loss (0 where it logs none), samples, tokens of real text."""
    import torch

    counts = Counts(job)
    once = gated(lambda gate: trainer_of(job, gate, counts), job["threads"])

    def step() -> Tensor:
        once()
        return torch.tensor([0.0, *counts.take()])

    return step


class Counts:
    """Samples and tokens of real text of a step, seen where the trainer takes its batch."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.per_step = job["questions"] * job["group"] if job["method"] == "grpo" else job["rows"]
        self.tokens = 0

    def see(self, inputs: Any) -> None:
        """Count a batch, whatever its layout."""
        if "prompt_mask" in inputs and "completion_mask" in inputs:
            self.tokens += int(inputs["prompt_mask"].sum()) + int(inputs["completion_mask"].sum())
        else:
            masks = [value for key, value in inputs.items() if key.endswith("attention_mask") and not key.startswith(("KL_", "kl_"))]
            self.tokens += sum(int(mask.sum()) for mask in masks)

    def take(self) -> tuple[int, int]:
        tokens, self.tokens = self.tokens, 0
        return self.per_step, tokens


def trainer_of(job: dict[str, Any], gate: Any, counts: Counts) -> Any:
    """The trainer of a kind of work, with the settings of the job."""
    trl = importlib.import_module("trl")
    names = {"sft": "SFT", "dpo": "DPO", "kto": "KTO", "reward-model": "Reward", "grpo": "GRPO"}
    name = names[job["method"]]
    base, config_class = getattr(trl, f"{name}Trainer"), getattr(trl, f"{name}Config")
    tokenizer = importlib.import_module("transformers").AutoTokenizer.from_pretrained(Path(job["folder"]) / "model")
    known = set(inspect.signature(config_class).parameters)
    config = config_class(**{key: value for key, value in settings(job).items() if key in known})
    more: dict[str, Any] = {}
    if job["method"] == "grpo":
        more["reward_funcs"] = [lambda completions, **_: [reward_of(c[0]["content"]) for c in completions]]
    if job["method"] in ("dpo", "kto") and not job["tuned"]:
        more["ref_model"] = model_of(job)

    class Counted(base):  # type: ignore[valid-type, misc]
        def compute_loss(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            counts.see(inputs)
            return super().compute_loss(model, inputs, *rest, **named)

    return Counted(model=model_of(job), args=config, train_dataset=dataset(job), processing_class=tokenizer, callbacks=[gate], **more)


def settings(job: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the trainer's config; what a config does not know is left out."""
    rollout = job["method"] == "grpo"
    batch = job["questions"] * job["group"] if rollout else job["rows"]
    found: dict[str, Any] = {
        "output_dir": str(Path(job["folder"]) / "trl"), "use_cpu": True, "max_steps": FOREVER, "report_to": "none", "save_strategy": "no",
        "logging_strategy": "no", "disable_tqdm": True, "seed": 0, "max_length": job["length"], "per_device_train_batch_size": batch,
        "learning_rate": 1e-6, "max_grad_norm": 1.0, "bf16": job["dtype"] == "bfloat16" and job["weights"] == "fp32",
        "lr_scheduler_type": "constant", "num_generations": job["group"], "max_completion_length": job["new_tokens"],
        "beta": 0.05 if rollout else 0.1,
    }  # fmt: skip
    if job["tuned"]:
        found |= {"gradient_checkpointing": False, "optim": "adamw_torch_fused", "precompute_ref_log_probs": True}
        if job["method"] == "sft":  # the others' rows have no column that its sampler reads lengths from
            found["train_sampling_strategy"] = "group_by_length"
    return found


def model_of(job: dict[str, Any]) -> Any:
    import torch

    transformers = importlib.import_module("transformers")
    weights = getattr(torch, job["dtype"]) if job["weights"] == "same" else torch.float32
    folder = Path(job["folder"]) / "model"
    if job["method"] == "reward-model":
        return transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=weights)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=weights)


def dataset(job: dict[str, Any]) -> Any:
    """The rows in the shape that each trainer wants."""
    from norma.base.files import read_jsonl

    rows = read_jsonl(Path(job["folder"]) / "rows.jsonl")

    def said(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    method = job["method"]
    if method == "sft":
        made = [{"prompt": r["messages"], "completion": said(r["chosen"])} for r in rows]
    elif method == "grpo":
        made = [{"prompt": r["messages"]} for r in rows]
    elif method == "kto":
        made = [
            {"prompt": r["messages"], "completion": said(r["chosen" if i % 2 else "rejected"]), "label": bool(i % 2)}
            for i, r in enumerate(rows)
        ]
    else:
        made = [{"prompt": r["messages"], "chosen": said(r["chosen"]), "rejected": said(r["rejected"])} for r in rows]
    return importlib.import_module("datasets").Dataset.from_list(made)
