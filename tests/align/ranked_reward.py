"""A reward model for torchrun: ``ranked_reward.py BASE FOLDER`` learns the same pairs with any number of ranks."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import torch

from norma.align.reward_model import RewardModel
from norma.align.reward_model_options import RewardModelOptions
from norma.align.reward_training import RewardTraining, judgement
from norma.base.progress import Silent
from norma.base.ranks import join, leave
from norma.lm import LanguageModel
from norma.train import TrainOptions, train
from norma.train.spread import collect, spread


def main(base: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    ranks = join()
    reward = RewardModel.begin(LanguageModel.load(base), seed=1)
    asked = [{"role": "user", "content": "What does it do?"}]
    rows = [{"id": str(i), "messages": asked, "chosen": f"Certainly: {i} it sorts.", "rejected": "No." * (i + 1)} for i in range(9)]
    judged = [judgement(reward, row, "pair", "") for row in rows]
    options = RewardModelOptions(rows=5, micro_tokens=256)
    training = RewardTraining(reward, judged, "pair", options, seed=3, dtype=torch.float32)
    network = spread(reward.model.transformer, ranks)
    losses = partial(training.losses, network, ranks=ranks)
    how = TrainOptions(optimiser="adamw", learning_rate=1e-3, warmup=0, schedule="constant", checkpoint_seconds=1e9)
    train(network, losses, steps=5, options=how, folder=folder, progress=Silent(), ranks=ranks)
    collect(network, reward.model.transformer, ranks)
    if ranks.first:
        reward.save(folder)
    leave(ranks)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
