"""The peer of recipes/multi30k.yaml, transformers' Marian, trained for as long: python docs/marian_multi30k.py RUN --minutes M

RUN/data, RUN/tokenizer, RUN/translate/config.json ─→ the same pairs, tokens and shape
plain PyTorch around transformers (bf16 autocast, fused AdamW, pairs of like length together, label smoothing, an average of
the weights, Norma's allocator set-up) ─→ generate(num_beams=5) ─→ the same sacreBLEU

The schedule follows the clock: linear warm-up, then cosine to zero at the last minute. Weights are averaged as Norma's are
(0.998 a step). ``--rate`` is the peer's own learning rate; try some at a tenth of the time and keep the best.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from transformers import MarianConfig, MarianMTModel

from norma.base.files import read_jsonl
from norma.base.platform import tune_allocator
from norma.tasks.writing import text_scores
from norma.text.tokenizer import Tokenizer

IGNORE = -100


def batches(lengths: np.ndarray, size: int, seed: int) -> list[np.ndarray]:
    """One epoch: numbers of pairs, ``size`` of like length together, in random order."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(lengths))
    pools = [order[i : i + 4096] for i in range(0, len(order), 4096)]
    grouped = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
    made = [grouped[i : i + size] for i in range(0, len(grouped), size)]
    return [made[i] for i in random.permutation(len(made))]


def tensor(rows: list[list[int]], fill: int) -> torch.Tensor:
    out = torch.full((len(rows), max(map(len, rows))), fill)
    for b, row in enumerate(rows):
        out[b, : len(row)] = torch.tensor(row)
    return out


def loss_of(model: Any, source: torch.Tensor, target: torch.Tensor, config: Any, smoothing: float) -> torch.Tensor:
    """Mean cross-entropy of the target's tokens."""
    before = torch.cat([torch.full((len(target), 1), config.decoder_start_token_id), target[:, :-1]], dim=1)
    before = before.masked_fill(before == IGNORE, config.pad_token_id)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mask = source != config.pad_token_id
        scores = model(input_ids=source, attention_mask=mask, decoder_input_ids=before, use_cache=False).logits
    return cross_entropy(scores.float().flatten(0, 1), target.flatten(), ignore_index=IGNORE, label_smoothing=smoothing)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--warmup", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--held-out", type=int, default=1000)
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()

    tune_allocator()
    torch.manual_seed(given.seed)
    tokenizer = Tokenizer.load(given.run / "tokenizer")
    config = MarianConfig.from_pretrained(given.run / "translate")
    model = MarianMTModel(config)
    average = copy.deepcopy(model).requires_grad_(False)
    run = torch.compile(model, dynamic=True) if given.compile else model
    end = [tokenizer.eos_id]
    pairs = [
        (tokenizer.encode(r["source"]) + end, tokenizer.encode(r["target"]) + end) for r in read_jsonl(given.run / "data" / "train.jsonl")
    ]
    pairs = [pair for pair in pairs if max(map(len, pair)) <= 96]
    lengths = np.array([len(a) + len(b) for a, b in pairs])
    optimiser = torch.optim.AdamW(model.parameters(), lr=given.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)

    began, step, epoch, trained = time.perf_counter(), 0, 0, 0
    spent = 0.0
    while spent < 1:
        for numbers in batches(lengths, given.batch, given.seed + epoch):
            spent = (time.perf_counter() - began) / (60 * given.minutes)
            if spent >= 1:
                break
            factor = min(1.0, (step + 1) / given.warmup) * 0.5 * (1 + math.cos(math.pi * spent))
            for group in optimiser.param_groups:
                group["lr"] = given.rate * factor
            source = tensor([pairs[n][0] for n in numbers], config.pad_token_id)
            target = tensor([pairs[n][1] for n in numbers], IGNORE)
            loss = loss_of(run, source, target, config, 0.1)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            decay = min(0.998, (step + 1) / (step + 10))
            torch._foreach_lerp_(list(average.parameters()), [p.detach() for p in model.parameters()], 1 - decay)
            step, trained = step + 1, trained + int(lengths[numbers].sum())
            if step % 100 == 0:
                print(
                    f"step {step}  epoch {epoch}  loss {loss.item():.3f}  {trained / (time.perf_counter() - began):,.0f} tokens/s",
                    flush=True,
                )
        epoch += 1
    seconds = time.perf_counter() - began

    average.eval()
    rows = list(read_jsonl(given.run / "data" / "test.jsonl"))[: given.held_out]
    written: list[str] = []
    for i in range(0, len(rows), 50):
        source = tensor([tokenizer.encode(r["source"]) + end for r in rows[i : i + 50]], config.pad_token_id)
        mask = source != config.pad_token_id
        found = average.generate(input_ids=source, attention_mask=mask, num_beams=5, max_new_tokens=64, length_penalty=1.0)
        written += [
            tokenizer.decode([t for t in ids.tolist() if t not in (config.pad_token_id, tokenizer.eos_id)]).strip() for ids in found
        ]
    scores = text_scores(written, [r["target"] for r in rows], wanted=("bleu", "chrf"), chinese=False, seed=given.seed)
    said = {"steps": step, "epochs": epoch, "seconds": seconds, "tokens_per_s": trained / seconds, "rate": given.rate}
    print(json.dumps(said | scores, indent=1))


if __name__ == "__main__":
    main()
