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

    A decoder's trailing padding token (where it is the end token too) is left out: transformers reads the token before it.
    """
    made = backend(model.tokenizer)
    made.enable_truncation(min(length, model.config.max_positions))
    given = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
    pad = model.kept.get("pad_token_id")
    found = []
    for encoding in made.encode_batch(given):
        ids, segments = list(encoding.ids), list(encoding.type_ids)
        while model.config.kind == "decoder" and len(ids) > 1 and ids[-1] == pad:
            del ids[-1], segments[-1]
        found.append(Reading(ids or [model.tokenizer.pad_id], segments or [0]))
    return found


def token_readings(model: LanguageModel, rows: Sequence[Sequence[str]], length: int) -> list[Tokens]:
    """Texts of given tokens, joined as people write them: with spaces, but not between Chinese characters."""
    made = backend(model.tokenizer)
    made.enable_truncation(min(length, model.config.max_positions))
    joined = [join(tokens) for tokens in rows]
    found = []
    for (_, starts), encoding in zip(joined, made.encode_batch([text for text, _ in joined]), strict=True):
        places = (encoding.char_to_token(start) for start in starts)
        found.append(Tokens(Reading(list(encoding.ids), list(encoding.type_ids)), tuple(-1 if p is None else p for p in places)))
    return found


def join(tokens: Sequence[str]) -> tuple[str, list[int]]:
    """The text, and where each token begins in it."""
    text, starts = "", []
    for token in tokens:
        if text and not (_wide(text[-1]) or _wide(token[:1])):
            text += " "
        starts.append(len(text))
        text += token
    return text, starts


def _wide(character: str) -> bool:
    """Whether it belongs to a script without spaces between words, or is its punctuation."""
    return "\u2e80" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff" or "\uff00" <= character <= "\uffef"
