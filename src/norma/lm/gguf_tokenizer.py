"""The tokenizer that a GGUF file describes in its metadata: tokens, merges or scores, which tokens are special, a name for the splitting.

    tokenizer.ggml.model  gpt2: BPE over bytes; how text is split first is known only by name (tokenizer.ggml.pre)
                          llama: BPE over characters, SentencePiece's; merges follow from the scores
    tokenizer.chat_template ─→ tokenizer_config.json

A name of a splitting that is not known is an error: another splitting would give other tokens than the model has learnt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from norma.base.errors import NormaError, nearest
from norma.text.tokenizer import Tokenizer

UNKNOWN, CONTROL, DEFINED = 2, 3, 4  # tokenizer.ggml.token_type; 1 is an ordinary token, 5 unused, 6 a byte

# How text is split before merging, as the models' own tokenizer.json have it.
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
_MARKS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"

_PATTERNS = {
    "llama-bpe": rf"{_CONTRACTIONS}|{_LETTERS}|\p{{N}}{{1,3}}|{_REST}",
    "qwen2": rf"{_CONTRACTIONS}|{_LETTERS}|\p{{N}}|{_REST}",
    "tekken": rf"{_CASED % ('', '')}|\p{{N}}|{_MARKS}",
    "gpt-4o": rf"{_CASED % (f'{_CONTRACTIONS}?', f'{_CONTRACTIONS}?')}|\p{{N}}{{1,3}}|{_MARKS}",
}
_SAME = {
    "gpt-2": ("gpt-2", "gpt2", "phi-2"),
    "smollm": ("smollm", "starcoder", "refact"),  # each digit by itself, then as GPT-2
    "llama-bpe": ("llama-bpe", "llama3", "llama-v3"),
    "qwen2": ("qwen2", "deepseek-r1-qwen"),
    "tekken": ("tekken",),  # Mistral Nemo
    "gpt-4o": ("gpt-4o", "llama4"),
}
SPLITTINGS = {name: kind for kind, names in _SAME.items() for name in names}
_WHOLE_WORDS = ("llama-bpe", "tekken")  # a word that is a token as it stands is not merged together

_ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def build_tokenizer(metadata: Mapping[str, Any], path: Path) -> Tokenizer:
    """The tokenizer of a file whose metadata are given. Raises NormaError for kinds and splittings that are not known here."""
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or len(set(tokens)) != len(tokens):
        what = "no list of tokens" if not isinstance(tokens, list) else "the same token twice"
        raise NormaError(f"the file's tokenizer has {what}", where=path, mend="Convert the model again with a newer llama.cpp")
    kind = metadata["tokenizer.ggml.model"]
    makers = {"gpt2": _bytes, "llama": _pieces}
    if kind not in makers:
        mend = "Supported: gpt2 (BPE over bytes), llama (SentencePiece's BPE). Import the Hugging Face folder of the model"
        raise NormaError(f"the GGUF tokenizer '{kind}' is not supported", where=path, mend=mend)
    backend = makers[kind](tokens, metadata, path)
    types = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    for number, special in ((CONTROL, True), (UNKNOWN, True), (DEFINED, False)):
        add = backend.add_special_tokens if special else backend.add_tokens
        add([AddedToken(token, special=special, normalized=False) for token, t in zip(tokens, types, strict=True) if t == number])
    roles = {role: metadata.get(f"tokenizer.ggml.{key}_token_id") for role, key in _ROLES.items()}
    config: dict[str, Any] = {role: tokens[i] for role, i in roles.items() if isinstance(i, int) and i < len(tokens)}
    # Older files of SentencePiece models say nothing, and llama.cpp begins their texts with BOS.
    config["add_bos_token"] = bool(metadata.get("tokenizer.ggml.add_bos_token", kind == "llama"))
    if config["add_bos_token"] and "bos_token" in config:
        bos = config["bos_token"]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config, "clean_up_tokenization_spaces": False}
    if metadata.get("tokenizer.chat_template"):
        config["chat_template"] = metadata["tokenizer.chat_template"]
    return Tokenizer(backend, config)


def _bytes(tokens: Sequence[str], metadata: Mapping[str, Any], path: Path) -> tokenizers.Tokenizer:
    """BPE over bytes: each of the 256 is written as a character (Radford et al., 2019, section 2.2)."""
    name = str(metadata.get("tokenizer.ggml.pre"))
    if name not in SPLITTINGS:
        mend = f"{nearest(name, SPLITTINGS)} Import the Hugging Face folder of the model"
        raise NormaError(f"the way to split text '{name}' (tokenizer.ggml.pre) is not known", where=path, mend=mend)
    splitting = SPLITTINGS[name]
    merges = [tuple(merge.split(" ")) for merge in metadata.get("tokenizer.ggml.merges") or []]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(_model(vocabulary, merges, path, ignore_merges=splitting in _WHOLE_WORDS))
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=splitting not in _PATTERNS)
    if splitting in _PATTERNS:
        steps: list[Any] = [pre_tokenizers.Split(Regex(_PATTERNS[splitting]), behavior="isolated"), last]
    else:
        steps = [pre_tokenizers.Digits(individual_digits=True), last] if splitting == "smollm" else [last]
    if splitting == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    return backend


def _pieces(tokens: Sequence[str], metadata: Mapping[str, Any], path: Path) -> tokenizers.Tokenizer:
    """SentencePiece's BPE over characters, "▁" for a space, bytes (<0x0A>) for characters that are no token."""
    vocabulary = {token: number for number, token in enumerate(tokens)}
    scores = metadata.get("tokenizer.ggml.scores")
    given = metadata.get("tokenizer.ggml.merges")
    if given is None and not isinstance(scores, list):
        raise NormaError("the file's tokenizer has neither merges nor scores", where=path, mend="Import the Hugging Face folder")
    merges = [tuple(merge.split(" ")) for merge in given] if given is not None else merges_of(tokens, scores or [])
    unknown = metadata.get("tokenizer.ggml.unknown_token_id")
    unknown = tokens[unknown] if isinstance(unknown, int) and unknown < len(tokens) else None
    backend = tokenizers.Tokenizer(_model(vocabulary, merges, path, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    space: list[Any] = [normalizers.Replace(" ", "▁")]
    if prefixed := bool(metadata.get("tokenizer.ggml.add_space_prefix", True)):
        space.insert(0, normalizers.Prepend("▁"))
    backend.normalizer = normalizers.Sequence(space)
    written: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*written, *([decoders.Strip(" ", 1, 0)] if prefixed else [])])
    return backend


def merges_of(tokens: Sequence[str], scores: Sequence[float]) -> list[tuple[str, ...]]:
    """The merges that a SentencePiece vocabulary stands for: two tokens join into a third, the one with the best score first."""
    known = set(tokens)
    found = [
        (-score, token, (token[:i], token[i:]))
        for token, score in zip(tokens, scores, strict=True)
        for i in range(1, len(token))
        if token[:i] in known and token[i:] in known
    ]
    order = {token: number for number, token in enumerate(tokens)}
    return [pair for _, _, pair in sorted(found, key=lambda f: (f[0], order[f[1]], len(f[2][0])))]


def _model(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, ...]], path: Path, **options: Any) -> models.BPE:
    """The library reports a merge that does not fit with neither its number nor its text."""
    for pair in merges:
        if len(pair) != 2 or any(piece not in vocabulary for piece in (*pair, "".join(pair))):
            raise NormaError(f"the merge {' '.join(pair)!r} does not fit the file's tokens", where=path, mend="Fetch the file again")
    return models.BPE(vocab=dict(vocabulary), merges=[(pair[0], pair[1]) for pair in merges], **options)
