"""One system in one process: reads a job, then runs one step a line, and says what it took.

    parent: {"system": "norma", "folder": ..., ...}   worker: {"ready": true, "loss": ...}
    parent: step                                       worker: {"seconds": 1.23, "values": [...]}    what the step gave
    parent: stop                                       worker: {"peak_mb": 1234.0}

Allocator and caches are set before torch is imported, which is why every system has a process of its own.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from norma.base import platform

if TYPE_CHECKING:
    from torch import Tensor

Step = Callable[[], "Tensor"]
MASKED = 0.15  # share of the tokens that BERT predicts (1810.04805, 3.1)


def batch(job: dict[str, Any], vocabulary: int) -> dict[str, Tensor]:
    """The same random tokens for every system. Encoder-decoders read ``length`` tokens and write half as many."""
    import torch

    random = torch.Generator().manual_seed(0)
    rows, length = job["rows"], job["length"]
    ids = torch.randint(5, vocabulary, (rows, length), generator=random)
    labels = ids.clone()
    if job["kind"] == "encoder":
        labels[torch.rand(labels.shape, generator=random) > MASKED] = -100
    if job["kind"] == "encoder-decoder":
        labels = torch.randint(5, vocabulary, (rows, length // 2), generator=random)
    return {"ids": ids.to(job["device"]), "labels": labels.to(job["device"])}


def norma_step(job: dict[str, Any]) -> Step:
    """Norma: fp32 weights, activations in the job's type, scores only where something is predicted."""
    import torch

    from norma.lm.weights import read_weights
    from norma.nn import Transformer, config_from_hf, from_hf
    from norma.objectives.likelihood import cross_entropy_sum

    folder, dtype = Path(job["folder"]), getattr(torch, job["dtype"])
    config = config_from_hf(json.loads((folder / "config.json").read_text(encoding="utf-8")), folder)
    with torch.device("meta"):
        model = Transformer(config)
    model.load_state_dict(from_hf(config, read_weights(folder), folder), assign=True)
    model.requires_grad_(True).to(job["device"]).train()
    data = batch(job, config.vocab_size)
    ids, labels = data["ids"], data["labels"]
    targets = labels
    if config.kind == "decoder":
        targets = torch.cat((labels[:, 1:], torch.full_like(labels[:, :1], -100)), dim=1)
    count = int((targets != -100).sum())
    start = torch.zeros_like(labels[:, :1])
    shifted = torch.cat((start, labels[:, :-1]), dim=1)

    def hidden(read: Tensor, before: Tensor) -> Tensor:
        if config.kind == "encoder-decoder":
            return model.hidden(before, dtype=dtype, memory=model.encode(read, dtype=dtype))
        return model.hidden(read, dtype=dtype)

    compiled = torch.compile(hidden) if job["compile"] else hidden

    update = _update(job, model)

    def step() -> Tensor:
        model.zero_grad(set_to_none=True)
        total = torch.zeros(())
        for part in range(0, len(ids), job["micro"]):
            rows = slice(part, part + job["micro"])
            some = targets[rows].flatten()
            kept = (some != -100).nonzero().squeeze(1)
            features = model.features(compiled(ids[rows], shifted[rows]).flatten(0, 1)[kept])
            weight, cap = model.head_weight(), config.logit_softcap
            nats = cross_entropy_sum(features, weight, some[kept], bias=model.head_bias, softcap=cap, compiled=job["compile"])
            loss = nats / count
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
            total += loss.detach().cpu()
        update()
        return total

    return step


def hf_step(job: dict[str, Any]) -> Step:
    """The same model as transformers has it."""
    import torch
    import transformers

    folder, dtype = job["folder"], getattr(torch, job["dtype"])
    architecture = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))["architectures"][0]
    weights = dtype if job["weights"] == "same" else torch.float32
    model = getattr(transformers, architecture).from_pretrained(folder, dtype=weights, attn_implementation=job["attention"])
    model.to(job["device"]).train()
    for module in model.modules():  # dropout would be work that ours does not do
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    data = batch(job, model.config.vocab_size)
    inputs = {"input_ids": data["ids"], "labels": data["labels"]}
    call = torch.compile(model) if job["compile"] else model
    autocast, update = weights != dtype, _update(job, model)

    def step() -> Tensor:
        model.zero_grad(set_to_none=True)
        with torch.autocast(job["device"], dtype, enabled=autocast):
            loss = call(**inputs).loss
        loss.backward()
        update()
        found: Tensor = loss.detach().float()
        return found

    return step


def nanogpt_step(job: dict[str, Any]) -> Step:
    """nanoGPT as its train.py runs it, on the same tokens; its own random weights."""
    import torch

    values = json.loads((Path(job["folder"]) / "config.json").read_text(encoding="utf-8"))
    sys.path.insert(0, job["source"])
    theirs = importlib.import_module("model")
    shape = {"n_layer": values["n_layer"], "n_head": values["n_head"], "n_embd": values["n_embd"], "block_size": values["n_positions"]}
    torch.manual_seed(0)
    config = theirs.GPTConfig(vocab_size=values["vocab_size"], dropout=0.0, bias=False, **shape)
    model = theirs.GPT(config).to(job["device"]).train()
    data = batch(job, values["vocab_size"])
    read, wanted = data["ids"][:, :-1].contiguous(), data["ids"][:, 1:].contiguous()
    call, update = torch.compile(model) if job["compile"] else model, _update(job, model)

    def step() -> Tensor:
        model.zero_grad(set_to_none=True)
        with torch.autocast(job["device"], getattr(torch, job["dtype"]), enabled=job["dtype"] != "float32"):
            _, loss = call(read, wanted)
        loss.backward()
        update()
        found: Tensor = loss.detach().float()
        return found

    return step


def _update(job: dict[str, Any], model: Any) -> Callable[[], None]:
    """Clipping and AdamW, where whole steps are measured. ``fused`` is what tuning adds; without it torch chooses."""
    import torch

    if not job.get("train"):
        return lambda: None
    parameters = list(model.parameters())
    fused = {"fused": True} if job["fused"] else {}
    # A rate of next to nothing: all steps then are of the same model, and the losses can be compared.
    optimiser = torch.optim.AdamW(parameters, lr=1e-9, betas=(0.9, 0.95), weight_decay=0.1, **fused)

    def update() -> None:
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()

    return update


def _maker(system: str) -> Callable[[dict[str, Any]], Step]:
    """What makes a system's step: one of this file, or ``module:function``."""
    known: dict[str, Callable[[dict[str, Any]], Step]] = {"norma": norma_step, "hf": hf_step, "nanogpt": nanogpt_step}
    if system in known:
        return known[system]
    module, _, function = system.partition(":")
    found: Callable[[dict[str, Any]], Step] = getattr(importlib.import_module(module), function)
    return found


def main() -> None:
    job = json.loads(sys.stdin.readline())
    # Only our own words may go to the parent; what libraries print goes to stderr.
    answer, sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8"), sys.stderr

    def say(**values: Any) -> None:
        print(json.dumps(values), file=answer, flush=True)

    if job["allocator"] == "tuned":
        platform.set_cache_limits()
        platform.tune_allocator()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    if job["threads"]:
        torch.set_num_threads(job["threads"])
    step = _maker(job["system"])(job)
    sync: Callable[[], None] = torch.cuda.synchronize if job["device"] == "cuda" else (lambda: None)
    say(ready=True, loss=float(step().flatten()[0]))
    for line in sys.stdin:
        if line.strip() != "step":
            break
        sync()
        began = time.perf_counter()
        values = step()
        sync()
        say(seconds=time.perf_counter() - began, values=values.flatten().tolist())
    if job["device"] == "cuda":
        say(peak_mb=torch.cuda.max_memory_allocated() / 2**20)
    else:
        import resource

        say(peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main()
