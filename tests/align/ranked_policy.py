"""Policy training for torchrun: ``ranked_policy.py FOLDER OPTIONS`` trains the same tiny policy for any number of ranks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from killing_policy import SPEC
from safetensors.torch import save_file

from norma.align.policy import NormPolicy
from norma.align.policy_options import PolicyOptions
from norma.align.rewarding import NormReward
from norma.base.progress import Silent
from norma.base.ranks import join, leave
from norma.generate import engine
from norma.lm import LanguageModel
from norma.nn import ModelConfig, Transformer
from norma.nn.lora import LoraOptions, add_lora
from norma.spec import Item, Message, Spec
from norma.text.tokenizer import train_tokenizer
from norma.train import train
from norma.train.options import TrainOptions


def main(folder: Path, asked: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    engine.working_dtype = lambda: torch.float32  # type: ignore[attr-defined]
    ranks = join()
    tokenizer = train_tokenizer(["What is an a? It is a letter.", "abba and a bad cab"] * 5, 300)
    config = ModelConfig("llama", len(tokenizer), 24, 2, 4, 2, 6, 40, 96)
    model = LanguageModel(Transformer(config).initialise(torch.Generator().manual_seed(0)).eval(), tokenizer)
    items = [Item(str(n), (Message(role="user", content=f"Letter {n}?"),)) for n in range(9)]
    settings = {"questions": 5, "group": 8, "max_new_tokens": 4, "epochs": 2, "minibatches": 2, "micro_tokens": 256}
    low_rank = asked.pop("lora", False)
    if low_rank:
        add_lora(model.transformer, LoraOptions(rank=4, targets="all"), torch.Generator().manual_seed(0))
    options = PolicyOptions(**settings | asked)
    state: dict[str, Any] = {}
    reward = NormReward(Spec.parse(SPEC), options)
    before = None if low_rank else model.copy()
    policy = NormPolicy(model, before, reward, items, options, seed=1, dtype=torch.float32, state=state, ranks=ranks)
    training = TrainOptions(optimiser="adamw", learning_rate=1e-3, warmup=2, checkpoint_seconds=1e9)
    train(policy.learner, policy.losses, steps=8, options=training, folder=folder, progress=Silent(), state=state, seed=1, ranks=ranks)
    policy.finish()
    if ranks.first:
        save_file({n: p.detach().contiguous() for n, p in model.transformer.named_parameters()}, folder / "end.safetensors")
        (folder / "state.json").write_text(json.dumps({k: v for k, v in state.items() if k not in ("rollout", "seconds")}))
    leave(ranks)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
