"""A model that says how good an answer is: one reward, or one logit a rule, on the backbone of a decoder, an encoder, or both.

    model ─→ begin: another head ─→ RewardTraining ─→ finish: centred, calibrated ─→ save: a sequence-classification folder
    prompts, answers ─→ read (chat | pair | response) ─→ Reading ─→ text_scores ─→ scores (N, names), reference answers at 0

The folder is what transformers calls ...ForSequenceClassification, so that it opens there, and in the spec as a checker of kind
``reward`` or ``classifier``. Letters: N texts, L labels, P pairs, A answers, K rules, B rows, T tokens, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from norma.base.errors import NormaError
from norma.base.files import read_json, write_json
from norma.check import folders
from norma.lm import LanguageModel
from norma.nn import Transformer, with_head
from norma.nn.lora import plain_state
from norma.spec import Message
from norma.text.tokenizer import Tokenizer, framed
from norma.train.reading import Reading, fits, parts, size, text_scores

REWARD = ("reward",)  # the name of a single output
MICRO_TOKENS = 4096  # padded tokens that are scored at one time
BRANCHES = 8  # answers to one prompt that share its row


class RewardModel:
    """A network with a classification head, and how texts are put before it.

    Attributes:
        model: tokenizer and Transformer, ``config.head == "classify"``.
        reads: what of a conversation it reads.
        names: of its outputs: ``("reward",)``, or rule ids.
        centre: (L,) taken off the network's scores, so that reference answers have a mean of 0.
    """

    def __init__(self, model: LanguageModel, reads: folders.Reads, names: Sequence[str], centre: Sequence[float] | None = None) -> None:
        self.model, self.reads, self.names = model, reads, tuple(names)
        self.centre = torch.zeros(len(self.names)) if centre is None else torch.tensor(list(centre))

    # ── where it comes from, and where it goes ──
    @staticmethod
    def begin(model: LanguageModel, names: Sequence[str] = REWARD, reads: folders.Reads | None = None, *, seed: int = 0) -> RewardModel:
        """``model`` with a new head, normal with 1 / sqrt(width + 1), and without dropout (Huang et al., 2403.17031).

        A model that already has as many outputs keeps its head, and goes on learning. The weights are copies. Raises NormaError for a
        family whose layout has no such head.
        """
        config = replace(with_head(model.config, "classify", len(names)), dropout=0.0)
        if config.kind == "decoder":
            config = replace(config, classifier_bias=False)  # their layouts have no place for it
        generator = torch.Generator().manual_seed(seed)
        network = Transformer(config).initialise(generator)
        new = network.state_dict()
        new["classifier.weight"].normal_(0.0, (config.width + 1) ** -0.5, generator=generator)
        old = {name: tensor for name, tensor in plain_state(model.transformer).items() if name in new and tensor.shape == new[name].shape}
        network.load_state_dict(new | old)
        tokenizer = framed(model.tokenizer)
        kept = dict(model.kept) | {"pad_token_id": _padding(tokenizer)}
        made = LanguageModel(network.to(model.transformer.device).eval(), tokenizer, kept=kept, name=model.name)
        return RewardModel(made, reads or ("pair" if config.kind == "encoder" else "chat"), names)

    @staticmethod
    def load(folder: Path) -> RewardModel:
        """Open a folder of ours, or another program's reward model (which reads chats, and is centred nowhere)."""
        names, _ = folders.labels_of(folder, str(folder))
        said = folders.told(folder)
        model = LanguageModel.load(folder)
        return RewardModel(model, said.get("reads") or "chat", names if said or len(names) > 1 else REWARD, said.get("centre"))

    @torch.no_grad()
    def finish(self, centre: Tensor | None = None, temperature: Tensor | None = None) -> None:
        """Take ``centre`` (L,) off the scores and divide them by ``temperature`` (L,): into the head, as far as it has a bias."""
        head = self.model.transformer.classifier
        assert head is not None
        scale = torch.ones(len(self.names)) if temperature is None else temperature.float()
        self.centre = (self.centre if centre is None else self.centre + centre.cpu()) / scale
        head.weight /= scale.to(head.weight.device)[:, None]
        if head.bias is not None:
            head.bias.copy_(head.bias / scale.to(head.bias.device) - self.centre.to(head.bias.device))
            self.centre = torch.zeros(len(self.names))

    def save(self, folder: Path, **lineage: Any) -> None:
        """Write the folder. Where padding is the end token, config.json names no padding: transformers would read the token before it."""
        self.model.kept |= {
            "id2label": {str(i): name for i, name in enumerate(self.names)},
            "label2id": {name: i for i, name in enumerate(self.names)},
            "problem_type": "regression" if self.names == REWARD else "multi_label_classification",
        }
        self.model.lineage = {**lineage, "reward_model": {"reads": self.reads, "centre": self.centre.tolist()}}
        self.model.save(folder)
        if self.model.config.kind == "decoder" and _padding(self.model.tokenizer) is None:
            for name in ("config.json", "generation_config.json"):
                write_json(folder / name, read_json(folder / name) | {"pad_token_id": None})

    # ── scoring ──
    def read(self, messages: Sequence[Message], answer: str) -> Reading:
        """An answer to a conversation (which may be empty) as ids."""
        return folders.reading(self.model, self.reads, messages, answer)

    @property
    def limit(self) -> int:
        """The most tokens that it reads."""
        return self.model.config.max_positions

    def fits(self, reading: Reading) -> bool:
        """Whether there is something to read, and the model has positions for all of it."""
        return fits(self.model.config, reading)

    @torch.no_grad()
    def scores(self, prompts: Sequence[Sequence[Message]], answers: Sequence[str], *, dtype: torch.dtype = torch.float32) -> Tensor:
        """(N, L) fp32, centred; on the CPU. Answers in a row that share their prompt cost its tokens once.

        Raises NormaError for an answer that the model cannot read to its end: a score for half of it would be another answer's.
        """
        readings = [self.read(messages, answer) for messages, answer in zip(prompts, answers, strict=True)]
        for number, reading in enumerate(readings):
            if not self.fits(reading):
                prompt = f", its prompt {len(reading.source)}" if reading.source else " with its prompt"
                what = f"answer {number} has {len(reading.ids)} tokens{prompt}, the reward model reads 1 to {self.limit}"
                mend = "Make answers shorter (max_new_tokens), or train the reward model with more positions"
                raise NormaError(what, where=self.model.name, mend=mend)
        groups: list[list[Reading]] = []
        for _, same in groupby(zip(prompts, readings, strict=True), key=lambda pair: [*map(dict, pair[0])]):
            texts = [reading for _, reading in same]
            groups += [texts[i : i + BRANCHES] for i in range(0, len(texts), BRANCHES)]
        return self.rate(groups, dtype)

    @torch.no_grad()
    def rate(self, groups: Sequence[Sequence[Reading]], dtype: torch.dtype = torch.float32) -> Tensor:
        """As :meth:`scores`, of texts that have been read; those of a group begin alike."""
        ends = np.cumsum([len(group) for group in groups]).tolist()
        out = torch.zeros(ends[-1] if ends else 0, len(self.names))
        for part in parts([size(self.model.transformer, group) for group in groups], MICRO_TOKENS):
            found = text_scores(self.model.transformer, [groups[i] for i in part], dtype)
            out[[n for i in part for n in range(ends[i] - len(groups[i]), ends[i])]] = found.cpu()
        return out - self.centre


def _padding(tokenizer: Tokenizer) -> int | None:
    """The padding token, where it is one of its own."""
    return None if tokenizer.pad_id == tokenizer.eos_id else tokenizer.pad_id
