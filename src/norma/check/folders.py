"""Models that score a text for a checker: a folder with a classification head, opened at the first answer, never before.

    item, answer ─reads: response | pair | chat─→ ids ─→ Transformer ─→ one number per label (logits, fp32)

``response`` is the answer alone, ``pair`` the last user message and the answer as two segments, ``chat`` the whole conversation
through the model's chat template, as reward models are trained.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from norma.base.errors import NormaError
from norma.base.files import read_json
from norma.base.hashing import folder_digest
from norma.spec.types import CheckerFailure, Item

if TYPE_CHECKING:
    from norma.lm import LanguageModel

Reads = Literal["response", "pair", "chat"]


def labels_of(folder: Path, where: str) -> list[str]:
    """The names of a classifier's labels, by index. Raises NormaError when the folder holds no classifier."""
    if not (folder / "config.json").is_file():
        raise NormaError(
            f"no model folder: '{folder}'", where=where, mend="Give a folder with config.json, model.safetensors and tokenizer.json"
        )
    values = read_json(folder / "config.json")
    if not any("SequenceClassification" in str(name) for name in values.get("architectures") or ()):
        raise NormaError(f"the model in '{folder}' is no sequence classifier", where=where, mend="Its config.json names its architecture")
    names = values.get("id2label") or {str(i): f"LABEL_{i}" for i in range(int(values.get("num_labels") or 2))}
    return [str(names[key]) for key in sorted(names, key=int)]


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


def logits(folder: Path, digest: str, reads: Reads, item: Item, text: str) -> list[float]:
    """What the head says of one answer, one number per label. Raises CheckerFailure for a text longer than the model reads."""
    import torch

    model = _opened(folder, digest)
    ids, segments = _encoded(model, reads, item, text)
    if len(ids) > model.config.max_positions:
        raise CheckerFailure(f"{len(ids)} tokens; the model '{folder.name}' reads at most {model.config.max_positions}")
    if not ids:
        raise CheckerFailure(f"the tokenizer of '{folder.name}' gives no tokens for this answer")
    with torch.no_grad():
        two = torch.tensor([segments]) if any(segments) and model.config.segments else None
        hidden = model.transformer.hidden(torch.tensor([ids]), segments_BT=two)
        return [float(value) for value in model.transformer.classify(hidden)[0]]


def _encoded(model: LanguageModel, reads: Reads, item: Item, text: str) -> tuple[list[int], list[int]]:
    """Ids and segments. What people wrote never becomes a special token; the tokenizer's own frame ([CLS] and the like) does."""
    tokenizer = model.tokenizer
    if reads == "chat":
        from norma.text.chat import render

        turns = [*item.messages, {"role": "assistant", "content": text}]
        ids: list[int] = []
        for piece, index in render(tokenizer, turns, generation=False):
            ids += tokenizer.encode(piece, special=index is None)
        return ids, [0] * len(ids)
    tokenizer.backend.encode_special_tokens = True
    found = tokenizer.backend.encode(item.user, text) if reads == "pair" else tokenizer.backend.encode(text)
    return list(found.ids), list(found.type_ids)
