"""One rollout a step, by Norma and by transformers; see ``norma.bench.worker``. A step gives the mean length of its answers."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from norma.bench.worker import Step

if TYPE_CHECKING:
    from torch import Tensor


def prompts_of(job: dict[str, Any]) -> list[list[int]]:
    """The same random prompts for every system, of lengths that fall off like those of questions: few are long."""
    import torch

    random = torch.Generator().manual_seed(1)
    most, count = job["prompt_tokens"], job["prompts"]
    spread = torch.randn(count, generator=random).mul(0.4).exp() * most / 2.5
    lengths = spread.round().long().clamp(most // 4, most).tolist()
    lengths[0] = most
    first = job["vocabulary"] // 32  # ids above those that may end an answer
    return [torch.randint(first, job["vocabulary"], (n,), generator=random).tolist() for n in lengths]


def norma_step(job: dict[str, Any]) -> Step:
    """Our engine."""
    import torch

    from norma.generate import Sampling, generate
    from norma.lm import LanguageModel

    model = LanguageModel.load(Path(job["folder"]))
    asked = [p for p in prompts_of(job) for _ in range(job["group"])]
    seeds = itertools.count()

    def step() -> Tensor:
        how = Sampling(max_new_tokens=job["new_tokens"], temperature=1.0, seed=next(seeds))
        made = generate(model, asked, how, dtype=getattr(torch, job["dtype"]))
        return torch.tensor(sum(len(c.ids) for c in made) / len(made))

    return step


def hf_step(job: dict[str, Any]) -> Step:
    """``generate`` of transformers; finished answers are filled up with padding until the last is done."""
    import torch
    import transformers

    torch.manual_seed(0)
    dtype = getattr(torch, job["dtype"])
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(job["folder"], dtype=dtype, attn_implementation=job["attention"])
    model.eval()
    rows = prompts_of(job)
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    real = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :], real[i, longest - len(row) :] = torch.tensor(row), 1
    ends = model.generation_config.eos_token_id
    how: dict[str, Any] = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "num_return_sequences": job["group"]}
    if job["cache"] == "static":
        how["cache_implementation"] = "static"

    def step() -> Tensor:
        out = model.generate(ids, attention_mask=real, max_new_tokens=job["new_tokens"], pad_token_id=0, eos_token_id=ends, **how)
        written = out[:, longest:]
        if ends is None:
            return torch.tensor(float(written.shape[1]))
        over = torch.isin(written, torch.tensor(ends))
        first = torch.where(over.any(1), over.int().argmax(1) + 1, written.shape[1])
        return first.float().mean()

    return step
