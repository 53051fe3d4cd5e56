"""Minimal pairs: of two sentences that differ in one point of grammar, which does a model find likelier?

    rows {good, bad, uid} ─→ a sample of each phenomenon ─→ nats of each sentence ─→ good < bad? ─→ accuracy

Nats of a sentence, by what the model can do:
    left    -sum_t log p(x_t | x_<t)                          what generates (BLiMP, Warstadt et al., 1912.00582, section 4)
    both    -sum_t log p(x_t | all but x_t and what follows it in its word)
            pseudo-log-likelihood (Salazar et al., 1910.14659, section 2), with the rest of a word hidden too (Kauf and Ivanova,
            2305.10588): else the pieces of a long word give each other away

Chance is 0.5. What stands first or last in every text (BOS, the end token) is read, and not scored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from norma.base.errors import NormaError
from norma.base.random import keyed
from norma.lm import LanguageModel
from norma.nn.families import FAMILIES
from norma.objectives.alternating import masked_next_token, next_token
from norma.text.packing import IGNORE
from norma.text.quarantine import Quarantine
from norma.text.readers import read
from norma.text.tokenizer import Tokenizer
from norma.text.words import WORD, flags_of
from norma.train.examples import Examples, target_nats
from norma.train.seq2seq import padded, shifted

Way = Literal["left", "both"]
Ints = npt.NDArray[np.int64]
TOKENS = 8192  # read at one time


@dataclass(frozen=True)
class Pair:
    """Two sentences, and the phenomenon that tells them apart; ``field`` is the branch of linguistics it belongs to."""

    good: str
    bad: str
    phenomenon: str
    field: str


def read_pairs(source: Path, *, count: int | None = None, seed: int = 0) -> list[Pair]:
    """Rows with ``good`` and ``bad`` (and BLiMP's ``uid``, ``field``) of a file or folder; ``count`` of each phenomenon, by ``seed``."""
    groups: dict[str, list[Pair]] = defaultdict(list)
    with Quarantine() as quarantine:
        for row in read(source, quarantine):
            good, bad = (row.fields.get(name) or row.fields.get(f"sentence_{name}") for name in ("good", "bad"))
            if not isinstance(good, str) or not isinstance(bad, str):
                raise NormaError("this row is no minimal pair", where=f"{source}, {row.file}:{row.line}", mend="Give each row good and bad")
            uid = str(row.fields.get("uid") or "all")
            groups[uid].append(Pair(good, bad, uid, str(row.fields.get("field") or "all")))
    found: list[Pair] = []
    for name in sorted(groups):
        rows = groups[name]
        chosen = keyed(seed, 0, use=f"pairs {name}").permutation(len(rows))[:count]
        found += [rows[i] for i in np.sort(chosen).tolist()]
    return found


def ways_of(model: LanguageModel) -> list[Way]:
    """What a model of this shape can do; a decoder that was trained to fill in masks can do both."""
    return ["left"] if model.config.kind == "decoder" else ["both"]


def sentence_nats(model: LanguageModel, texts: Sequence[str], way: Way, *, dtype: torch.dtype = torch.float32) -> npt.NDArray[np.float64]:
    """(N,) nats of each text.

    Raises NormaError where the model cannot: an encoder from the left, masks without a mask token.
    """
    if way == "left" and model.config.kind != "decoder":
        raise NormaError(f"{model.config.family} does not read from the left alone", mend="Score it with 'both'")
    nats = np.zeros(len(texts))
    made = _from_left(model, texts) if way == "left" else _from_both(model, texts)
    for owners, examples in made:
        found = target_nats(model.transformer, examples, dtype).double().numpy()
        rows = np.nonzero(examples.targets != IGNORE)[0]
        np.add.at(nats, owners[rows], found)
    return nats


def accuracy(good: npt.NDArray[np.float64], bad: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N,) 1 where the good sentence costs less, 0 where it costs more, a half where neither."""
    return np.where(good < bad, 1.0, np.where(good > bad, 0.0, 0.5))


# ── what is asked ──
def _ends(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    head, tail = ([] if token is None else [token] for token in (tokenizer.bos_id, tokenizer.eos_id))
    return head, tail


def _from_left(model: LanguageModel, texts: Sequence[str]) -> Iterator[tuple[Ints, Examples]]:
    tokenizer = model.tokenizer
    head, _ = _ends(tokenizer)
    rows = [np.array(head + ids, dtype=np.int64) for ids in tokenizer.encode_batch(texts)]
    for chosen in _by_length([len(row) for row in rows]):
        ids, documents = padded([rows[i] for i in chosen], tokenizer.pad_id)
        yield np.array(chosen), Examples(ids, next_token(ids, documents), documents, _places(ids))


def _from_both(model: LanguageModel, texts: Sequence[str]) -> Iterator[tuple[Ints, Examples]]:
    """For each token a row in which it is hidden."""
    tokenizer, kind = model.tokenizer, model.config.kind
    head, tail = _ends(tokenizer)
    words: list[tuple[Ints, npt.NDArray[np.bool_]]] = []
    tokenizer.backend.encode_special_tokens = True
    for text, encoding in zip(texts, tokenizer.backend.encode_batch(list(texts), add_special_tokens=False), strict=True):
        flags = flags_of(text, np.array([end for _, end in encoding.offsets], dtype=np.int64))
        words.append((np.array(head + encoding.ids + tail, dtype=np.int64), (flags & WORD) > 0))
    asked = [(i, t) for i, (_, begins) in enumerate(words) for t in range(len(begins))]
    for chosen in _by_length([len(words[i][0]) for i, _ in asked]):
        here = [asked[c] for c in chosen]
        made = [_hidden(*words[i], t, len(head)) for i, t in here]
        owners = np.array([i for i, _ in here])
        places = [len(head) + t for _, t in here]
        if kind == "encoder-decoder":
            yield owners, _rewritten(model, [words[i][0] for i, _ in here], made, places)
        else:
            yield owners, _masked(model, [words[i][0] for i, _ in here], made, places)


def _hidden(ids: Ints, begins: npt.NDArray[np.bool_], place: int, offset: int) -> npt.NDArray[np.bool_]:
    """Which tokens are hidden when that at ``place`` is asked for: it, and what follows it in its word."""
    later = np.flatnonzero(begins[place + 1 :])
    end = place + 1 + (int(later[0]) if len(later) else len(begins) - place - 1)
    out = np.zeros(len(ids), dtype=np.bool_)
    out[offset + place : offset + end] = True
    return out


def _masked(model: LanguageModel, rows: list[Ints], hidden: list[npt.NDArray[np.bool_]], places: list[int]) -> Examples:
    tokenizer = model.tokenizer
    mask = tokenizer.objective_tokens("masked")[0]
    ids, documents = padded([np.where(h, mask, row) for row, h in zip(rows, hidden, strict=True)], tokenizer.pad_id)
    targets = np.full_like(ids, IGNORE)
    for b, (row, place) in enumerate(zip(rows, places, strict=True)):
        targets[b, place] = row[place]
    if model.config.kind == "decoder":  # taught to read token t off place t - 1
        targets = masked_next_token(targets, documents)
    return Examples(ids, targets, documents, _places(ids), causal=False)


def _rewritten(model: LanguageModel, rows: list[Ints], hidden: list[npt.NDArray[np.bool_]], places: list[int]) -> Examples:
    """Of two stacks: T5 writes what its sentinel stands for, BART the whole text; only the token asked for is scored."""
    tokenizer, family = model.tokenizer, FAMILIES[model.config.family]
    start = tokenizer.eos_id if family.start == "eos" else tokenizer.pad_id
    spans = family.start != "eos"
    mark = tokenizer.objective_tokens("spans" if spans else "masked")[0]
    # A hidden stretch is one mark, as both were taught.
    sources = [np.concatenate([row[:p], [mark], row[p:][~h[p:]]]) for row, h, p in zip(rows, hidden, places, strict=True)]
    written = [np.array([mark, row[p]]) if spans else row for row, p in zip(rows, places, strict=True)]
    source, read_documents = padded(sources, tokenizer.pad_id)
    full, documents = padded(written, tokenizer.pad_id)
    targets = np.full_like(full, IGNORE)
    for b, (row, place) in enumerate(zip(rows, places, strict=True)):
        targets[b, 1 if spans else place] = row[place]
    assert start is not None
    return Examples(
        shifted(full, documents, start), targets, documents, _places(full), source=source, source_documents=read_documents
    )


def _places(ids: Ints) -> Ints:
    return np.broadcast_to(np.arange(ids.shape[1]), ids.shape).copy()


def _by_length(lengths: Sequence[int]) -> Iterable[list[int]]:
    """Numbers of rows that are read together: of like length, at most ``TOKENS`` with their padding."""
    order = np.argsort(np.array(lengths), kind="stable").tolist()
    part: list[int] = []
    for i in order:
        if part and (len(part) + 1) * lengths[i] > TOKENS:
            yield part
            part = []
        part.append(i)
    if part:
        yield part
