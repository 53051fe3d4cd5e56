"""Rows of a task as ids and targets.

text, pair ─→ [CLS] text [SEP] pair [SEP], cut to the length ─→ Reading, label
tokens ─→ one text ─→ Reading, and the place of each token's first piece ─→ a label there, IGNORE elsewhere
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tokenizers

from norma.lm import LanguageModel
from norma.text.packing import IGNORE
from norma.text.tokenizer import Tokenizer, framed
from norma.train.reading import Reading


@dataclass(frozen=True)
class Tokens:
    """A text of given tokens. ``places``: where each token's first piece stands, -1 where it was cut off."""

    reading: Reading
    places: tuple[int, ...]

    def targets(self, labels: Sequence[int]) -> list[int]:
        """A target for each id: the token's label at its first piece (BERT, 1810.04805, 5.3), ``IGNORE`` elsewhere."""
        made = [IGNORE] * len(self.reading.ids)
        for place, label in zip(self.places, labels, strict=True):
            if place >= 0:
                made[place] = label
        return made


def backend(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """A copy of the tokenizer that frames texts, and takes special tokens that people wrote for text."""
    made = framed(tokenizer).backend
    made.encode_special_tokens = True
    return made


def readings(model: LanguageModel, texts: Sequence[str], pairs: Sequence[str] | None, length: int) -> list[Reading]:
    """Texts, or pairs of texts, of at most ``length`` tokens with their frame: the longer text of a pair is cut first.

    A decoder's trailing padding token (where it is the end token too) is left out: transformers reads the token before it. Two stacks
    both read the text, as theirs do.
    """
    made, two = backend(model.tokenizer), model.config.kind == "encoder-decoder"
    made.enable_truncation(min(length, model.config.max_positions) - two)  # there an end token may come behind
    given = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
    pad = model.kept.get("pad_token_id")
    found = []
    for encoding in made.encode_batch(given):
        ids, segments = list(encoding.ids), list(encoding.type_ids)
        while model.config.kind == "decoder" and len(ids) > 1 and ids[-1] == pad:
            del ids[-1], segments[-1]
        ids = ids or [model.tokenizer.pad_id]
        found.append(Reading.of_two(model.tokenizer, ids, ids) if two else Reading(ids, segments or [0]))
    return found


def token_readings(model: LanguageModel, rows: Sequence[Sequence[str]], length: int) -> list[Tokens]:
    """Texts of given tokens, joined as people write them. No piece reaches over two tokens: each has a place of its own."""
    made = backend(model.tokenizer)
    made.enable_truncation(min(length, model.config.max_positions))
    found = []
    for tokens, encoding in zip(rows, made.encode_batch([spaced(tokens) for tokens in rows], is_pretokenized=True), strict=True):
        first: dict[int, int] = {}
        for place, word in enumerate(encoding.word_ids):
            if word is not None:
                first.setdefault(word, place)
        places = tuple(first.get(number, -1) for number in range(len(tokens)))
        found.append(Tokens(Reading(list(encoding.ids), list(encoding.type_ids)), places))
    return found


def spaced(tokens: Sequence[str]) -> list[str]:
    """The tokens with the spaces that stand before them in a text: none between Chinese characters."""
    pairs = zip(["", *tokens], tokens, strict=False)
    return [token if not before or _wide(before[-1]) or _wide(token[:1]) else f" {token}" for before, token in pairs]


def _wide(character: str) -> bool:
    """Whether it belongs to a script without spaces between words, or is its punctuation."""
    return "\u2e80" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff" or "\uff00" <= character <= "\uffef"
