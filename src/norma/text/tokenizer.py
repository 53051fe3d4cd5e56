"""The tokenizer: byte-level BPE or characters, trained here or opened from a folder's files, with its chat template.

    text ─→ encode ─→ ids                                (user text never becomes a special token)
    messages ─→ chat template (sandboxed) ─→ ids + mask  (see norma.text.chat)

Files are the Hugging Face layout: ``tokenizer.json`` and ``tokenizer_config.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

from norma.base.errors import NormaError
from norma.base.files import write_json, write_text
from norma.text.vocabularies import build, complete, read_config, text_of

PAD, BOS, END = "<|pad|>", "<|bos|>", "<|end|>"
UNKNOWN = "<|unk|>"  # of tokenizers of characters only: bytes spell everything
SENTINELS = 100  # for spans, as T5 has them (1910.10683, 3.1.4)
OBJECTIVE_TOKENS: Mapping[str, tuple[str, ...]] = {
    "masked": ("<|mask|>",),
    "pairs": ("<|cls|>", "<|sep|>"),
    "infilling": ("<|prefix|>", "<|suffix|>", "<|middle|>"),
    "norms": ("<|good|>", "<|bad|>"),
    "spans": tuple(f"<|span_{i}|>" for i in range(SENTINELS)),
}
"""Special tokens that some objectives of pretraining need."""

SPECIAL_TOKENS = (PAD, BOS, END, "<|system|>", "<|user|>", "<|assistant|>")
# No white space between markers and content: a piecewise encoding then equals the joint one that transformers makes.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


class Tokenizer:
    """Text to token ids and back.

    Args:
        backend: a Hugging Face ``tokenizers.Tokenizer``.
        config: the content of ``tokenizer_config.json`` (``bos_token``, ``eos_token``, ``pad_token``, ``chat_template``).
    """

    def __init__(self, backend: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
        self.backend, self.config = backend, config
        self.backend.no_padding()
        self.backend.no_truncation()
        self.bos_id, self.eos_id = self._id("bos_token"), self._id("eos_token")
        pad = self._id("pad_token")
        self.pad_id: int = pad if pad is not None else (self.eos_id if self.eos_id is not None else 0)
        self.chat_template: str | None = config.get("chat_template")

    def _id(self, name: str) -> int | None:
        token = text_of(self.config.get(name))
        return None if token is None else self.backend.token_to_id(token)

    def objective_tokens(self, objective: str) -> tuple[int, ...]:
        """Ids of the tokens that ``objective`` (a key of ``OBJECTIVE_TOKENS``) needs. Raises NormaError when there are none."""
        ids = [self.backend.token_to_id(token) for token in OBJECTIVE_TOKENS[objective]]
        if objective == "masked" and None in ids:
            ids = [self._id("mask_token")]  # another program's tokenizer calls it otherwise
        if objective == "pairs" and None in ids:
            ids = [self._id("cls_token"), self._id("sep_token")]
        found = tuple(i for i in ids if i is not None)
        if len(found) < len(ids):
            raise NormaError(
                f"this tokenizer has no tokens for '{objective}'", mend=f"Train it with objectives: [{objective}] in the tokenizer stage"
            )
        return found

    @property
    def control_tokens(self) -> tuple[int, ...]:
        """Ids of <|good|> and <|bad|>, which say how well the text behind them keeps the norms; () where there are none."""
        ids = [self.backend.token_to_id(token) for token in OBJECTIVE_TOKENS["norms"]]
        return tuple(i for i in ids if i is not None)

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of all tokens that stand for no text."""
        return tuple(sorted(i for i, token in self.backend.get_added_tokens_decoder().items() if token.special))

    def __len__(self) -> int:
        """The number of tokens, special ones included."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def special(self, name: str) -> str:
        """The text of ``bos_token``, ``eos_token`` or ``pad_token``; empty where the tokenizer has none."""
        return text_of(self.config.get(name)) or ""

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of ``text``, without BOS or EOS. ``<|end|>`` in the text stays text unless ``special`` is set."""
        return self.encode_batch([text], special=special)[0]

    def encode_batch(self, texts: Sequence[str], *, special: bool = False) -> list[list[int]]:
        """Ids of many texts, on all cores."""
        # A property of the shared Rust object: set it every time, so that no caller inherits another's choice.
        self.backend.encode_special_tokens = not special
        return [e.ids for e in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of ``ids``; bytes that form no character become U+FFFD."""
        return str(self.backend.decode(list(ids), skip_special_tokens=skip_special))

    def token_bytes(self, ids: Sequence[int]) -> int:
        """The number of UTF-8 bytes that ``ids`` decode to, special tokens excluded: the unit of bits per byte."""
        return len(self.decode(ids).encode())

    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """(V,) how many bytes of text each token stands for; special tokens stand for none."""
        lengths = np.zeros(len(self), dtype=np.int64)
        bytewise = "ByteLevel" in str(json.loads(self.backend.to_str()).get("decoder"))
        for token, i in self.backend.get_vocab(with_added_tokens=True).items():
            if re.fullmatch(r"<0x[0-9A-F]{2}>", token):
                lengths[i] = 1
            elif bytewise:
                lengths[i] = len(token)  # one character for each byte
            else:
                lengths[i] = len(token.removeprefix("##").replace("▁", " ").encode())
        lengths[list(self.special_ids)] = 0
        return lengths

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``."""
        self.backend.encode_special_tokens = False
        write_text(folder / "tokenizer.json", self.backend.to_str(pretty=False))
        write_json(folder / "tokenizer_config.json", self.config)

    @staticmethod
    def load(folder: Path) -> Tokenizer:
        """Open the tokenizer of a model folder: ``tokenizer.json``, or older vocabulary files (see :mod:`norma.text.vocabularies`).

        A template beside it (``chat_template.jinja``) is read too.
        """
        folder = Path(folder)
        path, config = folder / "tokenizer.json", read_config(folder)
        if path.exists():
            try:
                backend = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
            except Exception as error:  # the Rust side raises nothing narrower
                raise NormaError(f"not a readable tokenizer ({error})", where=path) from None
        else:
            backend = build(folder, config)
        return Tokenizer(backend, complete(backend, config, folder))


def framed(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that puts texts into a frame as BERT's does, where it has none: [CLS] text [SEP] text [SEP], or begin and end of text."""
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    made = Tokenizer(backend, dict(tokenizer.config))
    frames = [("cls_token", "sep_token"), ("bos_token", "eos_token")]
    frame = next((pair for pair in frames if all(made.special(name) for name in pair)), None)
    if backend.post_processor is None and frame is not None:
        begin, end = map(made.special, frame)
        special = [(token, backend.token_to_id(token)) for token in dict.fromkeys((begin, end))]
        backend.post_processor = TemplateProcessing([begin, "$A", end], [begin, "$A", end, "$B:1", f"{end}:1"], special)
    return made


def train_tokenizer(texts: Iterable[str], vocab_size: int, objectives: Sequence[str] = ()) -> Tokenizer:
    """Train a byte-level BPE (Sennrich et al., 1508.07909; bytes as in GPT-2) with Norma's chat tokens.

    Args:
        texts: the corpus, streamed once.
        vocab_size: tokens in all: 256 bytes, the special tokens, and merges.
        objectives: keys of ``OBJECTIVE_TOKENS`` whose tokens are to be there.

    Every string of bytes can be encoded, so there is no unknown token. Digits stand alone (numbers stay regular).
    """
    special = [*SPECIAL_TOKENS, *(token for name in objectives for token in OBJECTIVE_TOKENS[name])]
    least = 256 + len(special)
    if vocab_size < least:
        raise NormaError(f"a vocabulary of {vocab_size} is too small", mend=f"Bytes and special tokens alone need {least}")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
        show_progress=False,
    )
    backend.train_from_iterator(_batches(texts), trainer)
    return Tokenizer(backend, _config(objectives))


def character_tokenizer(texts: Iterable[str], objectives: Sequence[str] = ()) -> Tokenizer:
    """A token for each character (Unicode code point) of ``texts``, in their order, behind the special tokens; others become <|unk|>.

    It is a BPE without merges. Nothing is normalised: decoding gives the text back to the character.
    """
    special = [*SPECIAL_TOKENS, UNKNOWN, *(token for name in objectives for token in OBJECTIVE_TOKENS[name])]
    characters = sorted(set().union(*map(set, texts)))
    vocabulary = {token: i for i, token in enumerate([*special, *characters])}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN))
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens(special)
    return Tokenizer(backend, {**_config(objectives), "unk_token": UNKNOWN})


def _config(objectives: Sequence[str]) -> dict[str, Any]:
    """``tokenizer_config.json`` of a tokenizer that is made here."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": END,
        "pad_token": PAD,
        **({"mask_token": "<|mask|>"} if "masked" in objectives else {}),
        **({"cls_token": "<|cls|>", "sep_token": "<|sep|>"} if "pairs" in objectives else {}),
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1 << 30,
        "chat_template": CHAT_TEMPLATE,
    }


def _batches(texts: Iterable[str], size: int = 1 << 20) -> Iterator[list[str]]:
    """Texts that together have at least ``size`` characters, which bounds the memory."""
    batch: list[str] = []
    held = 0
    for text in texts:
        batch.append(text)
        held += len(text)
        if held >= size:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
