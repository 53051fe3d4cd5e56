"""Models that score a text for a checker: a folder with a classification head, opened at the first answer, never before.

    messages, answer ─reads: response | pair | chat─→ Reading ─→ Transformer ─→ one number per label (logits, fp32)

``response`` is the answer alone, ``pair`` the last user message and the answer as two segments, ``chat`` the whole conversation
through the model's chat template, as reward models are trained. Of two stacks the encoder reads the prompt of a chat and the decoder
the answer; a response or a pair stands in both, as in transformers' T5 and BART. Norma's own folders say in norma.json what they read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field

from norma.base.errors import NormaError
from norma.base.files import read_json
from norma.base.hashing import folder_digest
from norma.check.binding import parameters
from norma.check.program import hollow
from norma.check.segment import visible
from norma.spec.types import CheckerFailure, Finding, Item, Message, Status

if TYPE_CHECKING:
    from norma.lm import LanguageModel
    from norma.train.reading import Reading

Reads = Literal["chat", "pair", "response"]


class FolderParams(BaseModel):
    """Parameters of every checker that is a model folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reads: Reads | None = Field(
        default=None,
        description="chat (the whole conversation), pair (question and answer) or response; null: as the folder's norma.json says.",
    )
    languages: tuple[str, ...] = Field(default=(), description="Languages that the model was trained for (BCP-47); none: every one.")


P = TypeVar("P", bound=FolderParams)


@dataclass(frozen=True)
class Folder:
    """A sequence-classification model folder as a checker sees it: what its files say, before the weights are read."""

    path: Path
    labels: tuple[str, ...]  # by index
    independent: bool  # each label is a question of its own (one logit, one sigmoid); else they compete (softmax)
    reads: Reads
    centre: tuple[float, ...]  # taken off the logits, so that reference answers have a mean of 0
    digest: str  # of its files

    def logits(self, item: Item, text: str) -> list[float]:
        """What the head says of one answer, one number per label. Raises CheckerFailure for a text longer than the model reads."""
        import torch

        from norma.train.reading import fits, text_scores

        model = _opened(self.path, self.digest)
        read = reading(model, self.reads, item.messages, text)
        if read.longest > model.config.max_positions:
            raise CheckerFailure(f"{read.longest} tokens; the model '{self.path.name}' reads at most {model.config.max_positions}")
        if not fits(model.config, read):
            raise CheckerFailure(f"the tokenizer of '{self.path.name}' gives no tokens for this answer")
        with torch.no_grad():
            scores = text_scores(model.transformer, [[read]], torch.float32)[0].tolist()
        return [float(score) - centre for score, centre in zip(scores, self.centre, strict=True)]

    def judge(self, item: Item, response: str) -> Finding | list[float]:
        """The logits of what people see of a response; a finding at once where it says nothing."""
        return hollow(item, response) or self.logits(item, visible(response)[0])


def bind(use: str, kind: str, model: type[P], params: dict[str, Any], where: str, default: Reads) -> tuple[Folder, P]:
    """The folder ``use`` and its parameters, checked. Raises NormaError; weights are not read.

    ``default``: what the model reads when neither the parameters nor the folder say so.
    """
    values = parameters(model, kind, params, where)
    path = Path(use).expanduser()
    labels, independent = labels_of(path, where)
    said = told(path)
    reads = values.reads or said.get("reads") or default
    if reads not in get_args(Reads):
        raise NormaError(f"norma.json says that the model reads {reads!r}", where=path, mend="chat, pair or response")
    centre = tuple(said.get("centre") or [0.0] * len(labels))
    return Folder(path, labels, independent, reads, centre, identity(path)), values


def told(folder: Path) -> dict[str, Any]:
    """What ``norma.json`` says of a reward model: ``reads`` and ``centre``; nothing of other people's folders."""
    path = folder / "norma.json"
    found = read_json(path).get("reward_model") if path.is_file() else None
    return found if isinstance(found, dict) else {}


def labels_of(folder: Path, where: str) -> tuple[tuple[str, ...], bool]:
    """The names of a classifier's labels by index, and whether each is a question of its own.

    Raises NormaError when the folder holds no classifier.
    """
    if not (folder / "config.json").is_file():
        raise NormaError(
            f"no model folder: '{folder}'", where=where, mend="Give a folder with config.json, model.safetensors and tokenizer.json"
        )
    values = read_json(folder / "config.json")
    if not any("SequenceClassification" in str(name) for name in values.get("architectures") or ()):
        raise NormaError(f"the model in '{folder}' is no sequence classifier", where=where, mend="Its config.json names its architecture")
    names = values.get("id2label") or {str(i): f"LABEL_{i}" for i in range(int(values.get("num_labels") or 2))}
    return tuple(str(names[key]) for key in sorted(names, key=int)), values.get("problem_type") == "multi_label_classification"


def identity(folder: Path) -> str:
    """The digest of a model folder's files; files that have not changed since are not read again in this process."""
    stamp = tuple(sorted((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()))
    return _identity(folder, stamp)


@lru_cache(maxsize=32)
def _identity(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> str:
    return folder_digest(folder)


@lru_cache(maxsize=4)
def _opened(folder: Path, digest: str) -> LanguageModel:
    from norma.lm import LanguageModel

    return LanguageModel.load(folder)


def reading(model: LanguageModel, reads: Reads, messages: Sequence[Message], text: str) -> Reading:
    """An answer as a model reads it. What people wrote never becomes a special token; the tokenizer's own frame ([CLS] and the like) does.

    transformers reads a decoder's score at the last token that is not config.json's ``pad_token_id``. Where that is the end token too, it
    is the last one before it: what the layout's models were trained on, so it is read there here as well.
    """
    from norma.train.reading import Reading

    tokenizer, kind = model.tokenizer, model.config.kind
    if reads == "chat" and kind == "encoder-decoder":
        from norma.text.chat import prompt_ids

        return Reading.of_two(tokenizer, prompt_ids(tokenizer, messages), tokenizer.encode(text))
    if reads == "chat":
        from norma.text.chat import render

        ids: list[int] = []
        for piece, index in render(tokenizer, [*messages, {"role": "assistant", "content": text}], generation=False):
            ids += tokenizer.encode(piece, special=index is None)
        segments = [0] * len(ids)
    else:
        tokenizer.backend.encode_special_tokens = True
        user = next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")
        found = tokenizer.backend.encode(user, text) if reads == "pair" else tokenizer.backend.encode(text)
        ids, segments = list(found.ids), list(found.type_ids)
    if kind == "encoder-decoder":
        return Reading.of_two(tokenizer, ids, ids)
    pad = model.kept.get("pad_token_id")
    while kind == "decoder" and len(ids) > 1 and ids[-1] == pad:
        del ids[-1], segments[-1]
    return Reading(ids, segments)


def finding(score: float, margin: float, abstain: float, note: str, threshold: float) -> Finding:
    """What a distance from the threshold says: within ``abstain`` of it, nothing."""
    if abs(margin) < abstain:
        return Finding(Status.UNSURE, None, (), f"{note}, too near {threshold}", margin)
    return Finding(Status.COMPLIANT if margin >= 0 else Status.VIOLATION, score, (), note, margin)
