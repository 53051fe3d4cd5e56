"""Tokenizers from before ``tokenizer.json``: vocabulary files of the GPT-2, GPT and BERT kinds, and where special tokens are named.

    vocab.json + merges.txt  byte-level BPE (GPT-2, RoBERTa, BART), or BPE of words (GPT)  ┐
    vocab.txt                WordPiece (BERT)                                              ┴─→ a tokenizers.Tokenizer
    tokenizer_config.json ← special_tokens_map.json ← the kind's own defaults: which token begins, ends, pads a text
    added_tokens.json, added_tokens_decoder: tokens that came later

Pipelines and defaults are those of the kinds' own tokenizers in ``transformers``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from norma.base.errors import NormaError
from norma.base.files import read_json

CONVERT = "Convert it with transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes tokenizer.json"
SENTENCEPIECE = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model", "source.spm")
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")

Config = dict[str, Any]


def text_of(token: object) -> str | None:
    """A special token's text: configs hold it plainly or as a record with ``content``."""
    if isinstance(token, Mapping):
        token = token.get("content")
    return token if isinstance(token, str) else None


# ── kinds ──
def _byte_level(folder: Path, config: Config) -> tokenizers.Tokenizer:
    """BPE over bytes (Radford et al., 2019, section 2.2)."""
    vocabulary, merges = _vocabulary_and_merges(folder)
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(config.get("add_prefix_space")))
    backend.decoder = decoders.ByteLevel()
    return backend


def _roberta(folder: Path, config: Config) -> tokenizers.Tokenizer:
    """As GPT-2's, and a text that is encoded with special tokens stands between two of them."""
    backend = _byte_level(folder, config)
    vocabulary = backend.get_vocab()
    last, first = text_of(config["sep_token"]), text_of(config["cls_token"])
    if first in vocabulary and last in vocabulary:
        ends = (last, vocabulary[last]), (first, vocabulary[first])
        backend.post_processor = processors.RobertaProcessing(*ends, True, bool(config.get("add_prefix_space")))
    return backend


def _words(folder: Path, config: Config) -> tokenizers.Tokenizer:
    """BPE of lower-case words, whose last piece ends with ``</w>`` (Radford et al., 2018, section 4.1)."""
    vocabulary, merges = _vocabulary_and_merges(folder)
    unknown = text_of(config["unk_token"])
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>", unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    return backend


def _wordpiece(folder: Path, config: Config) -> tokenizers.Tokenizer:
    """WordPiece (Wu et al., 1609.08144, section 4.1) behind BERT's splitting at blanks, punctuation and Chinese characters."""
    path = folder / "vocab.txt"
    lines = path.read_text(encoding="utf-8").split("\n")
    vocabulary = {token: number for number, token in enumerate(lines[:-1] if lines[-1] == "" else lines)}
    unknown = text_of(config["unk_token"])
    if unknown is None or unknown not in vocabulary:
        raise NormaError(f"the vocabulary lacks its token for unknown words, {unknown}", where=path, mend=CONVERT)
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    first, last = text_of(config["cls_token"]), text_of(config["sep_token"])
    if first in vocabulary and last in vocabulary:
        ends = [(first, vocabulary[first]), (last, vocabulary[last])]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{first}:0 $A:0 {last}:0", pair=f"{first}:0 $A:0 {last}:0 $B:1 {last}:1", special_tokens=ends
        )
    return backend


@dataclass(frozen=True)
class Kind:
    """A tokenizer class: its special tokens where no file names them; for older files also which they are, and what they mean."""

    defaults: Mapping[str, str]
    files: tuple[str, ...] = ()
    build: Callable[[Path, Config], tokenizers.Tokenizer] | None = None
    model_types: tuple[str, ...] = field(default=())


_END = "<|endoftext|>"
_ROBERTA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "sep_token": "</s>", "cls_token": "<s>"}
_BERT = {"unk_token": "[UNK]", "pad_token": "[PAD]", "sep_token": "[SEP]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
_MERGES = ("vocab.json", "merges.txt")

KINDS: dict[str, Kind] = {
    "GPT2Tokenizer": Kind({"bos_token": _END, "eos_token": _END, "unk_token": _END}, _MERGES, _byte_level, ("gpt2", "gpt_neo")),
    "RobertaTokenizer": Kind(_ROBERTA | {"mask_token": "<mask>"}, _MERGES, _roberta, ("roberta", "bart")),
    "OpenAIGPTTokenizer": Kind({"unk_token": "<unk>"}, _MERGES, _words, ("openai-gpt",)),
    "BertTokenizer": Kind(_BERT, ("vocab.txt",), _wordpiece, ("bert",)),
    "T5Tokenizer": Kind(
        {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}, model_types=("t5", "switch_transformers")
    ),
    "GPTNeoXTokenizer": Kind({"bos_token": _END, "eos_token": _END, "unk_token": _END}, model_types=("gpt_neox",)),
    "LlamaTokenizer": Kind({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, model_types=("llama", "mistral")),
    "MarianTokenizer": Kind({"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}, model_types=("marian",)),
}
_ALIASES = {"BartTokenizer": "RobertaTokenizer"}


def kind_of(folder: Path, config: Config) -> Kind | None:
    """The kind that ``tokenizer_class`` names, or that models of the folder's type have; None: another one, or nothing says."""
    name = str(config.get("tokenizer_class") or "").removesuffix("Fast")
    if name and name not in ("PreTrainedTokenizer", "TokenizersBackend"):
        return KINDS.get(_ALIASES.get(name, name))
    if name or not (folder / "config.json").is_file():
        return None
    model_type = read_json(folder / "config.json").get("model_type")
    return next((kind for kind in KINDS.values() if model_type in kind.model_types), None)


# ── opening ──
def exists(folder: Path) -> bool:
    """Whether the folder has a tokenizer, readable or not."""
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "vocab.txt", *SENTENCEPIECE))


def tokenizer_files(folder: Path) -> list[str]:
    """Names of the files that opening the folder's tokenizer reads, as far as they are there."""
    words = ("tokenizer.json",) if (folder / "tokenizer.json").is_file() else ("vocab.json", "merges.txt", "vocab.txt")
    names = (*words, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
    return [name for name in names if (folder / name).is_file()]


def build(folder: Path, config: Config) -> tokenizers.Tokenizer:
    """A tokenizer from older vocabulary files. Raises NormaError, with the way out, for kinds that cannot be built here."""
    kind = kind_of(folder, config)
    if kind is None and not config.get("tokenizer_class"):
        kind = KINDS["BertTokenizer"] if (folder / "vocab.txt").is_file() else KINDS["GPT2Tokenizer"]
    if kind is not None and kind.build is not None and all((folder / name).is_file() for name in kind.files):
        return kind.build(folder, {**dict.fromkeys(ROLES), **kind.defaults, **config})
    pieces = [name for name in SENTENCEPIECE if (folder / name).is_file()]
    if pieces:
        raise NormaError(f"no tokenizer.json here, only {pieces[0]}, a SentencePiece model", where=folder, mend=CONVERT)
    if kind is None and exists(folder):
        name = config["tokenizer_class"]
        raise NormaError(f"no tokenizer.json here, and older files of {name} are not read", where=folder, mend=CONVERT)
    raise NormaError("no tokenizer.json here", where=folder, mend="Give a folder that holds a model or a tokenizer")


def read_config(folder: Path) -> Config:
    """tokenizer_config.json, completed with special_tokens_map.json and a chat template that stands in a file of its own."""
    config: Config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    if (folder / "special_tokens_map.json").exists():
        config = {**read_json(folder / "special_tokens_map.json"), **config}
    if (folder / "chat_template.jinja").exists():
        config["chat_template"] = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several by name
        config["chat_template"] = next((t.get("template") for t in template if t.get("name") == "default"), None)
    return config


def complete(backend: tokenizers.Tokenizer, config: Config, folder: Path) -> Config:
    """Add the tokens that came after the vocabulary, mark the special ones, and name those that no file names but the kind has.

    Raises NormaError when an added token cannot have the number that the files give it.
    """
    kind = kind_of(folder, config)
    if kind is not None:
        config = {**{role: t for role, t in kind.defaults.items() if backend.token_to_id(t) is not None}, **config}
    special = {text for role in ROLES if (text := text_of(config.get(role))) is not None}
    extra = config.get("additional_special_tokens") or config.get("extra_special_tokens") or []
    special |= {text for token in (extra.values() if isinstance(extra, dict) else extra) if (text := text_of(token)) is not None}
    added: dict[int, AddedToken] = {}
    if (folder / "added_tokens.json").is_file():
        later = read_json(folder / "added_tokens.json")
        added = {number: AddedToken(token, special=token in special, normalized=False) for token, number in later.items()}
    for number, token in (config.get("added_tokens_decoder") or {}).items():
        flags = {name: bool(token[name]) for name in ("single_word", "lstrip", "rstrip", "normalized", "special") if name in token}
        added[int(number)] = AddedToken(token["content"], **flags)
    known = set(backend.get_added_tokens_decoder())
    for number, token in sorted(added.items()):
        if number not in known:
            (backend.add_special_tokens if token.special else backend.add_tokens)([token])
            if backend.token_to_id(token.content) != number:
                raise NormaError(f"the added token {token.content!r} cannot have the number {number}", where=folder, mend=CONVERT)
    marked = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    backend.add_special_tokens(sorted(t for t in special - marked if backend.token_to_id(t) is not None))
    return config


def _vocabulary_and_merges(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """vocab.json and merges.txt, checked: tokenizers reports what is wrong with neither place nor line."""
    vocabulary = read_json(folder / "vocab.json")
    if not isinstance(vocabulary, dict) or not all(isinstance(number, int) for number in vocabulary.values()):
        raise NormaError("this is no vocabulary of tokens and numbers", where=folder / "vocab.json", mend="Fetch the file again")
    merges: list[tuple[str, str]] = []
    for number, line in enumerate((folder / "merges.txt").read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        parts = line.split(" ")
        if len(parts) != 2 or any(piece not in vocabulary for piece in (*parts, "".join(parts))):
            place = f"{folder / 'merges.txt'}:{number}"
            raise NormaError(f"this merge does not fit vocab.json: {line!r}", where=place, mend="Fetch both files again")
        merges.append((parts[0], parts[1]))
    return vocabulary, merges
