"""Tokenizers from older vocabulary files, beside transformers' own of the same files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, trainers

from norma.base.errors import NormaError
from norma.text.tokenizer import Tokenizer

CORPUS = [
    "The miller's wheel turned twelve times, and the miller wrote it down: 12.",
    "Ça va? Naïve Übermut, and the wheel isn't turning.",
    "轮子转了十二次。The wheel turned.",
] * 4
TEXTS = [
    "The wheel turned 12 times!",
    " a leading blank",
    "Naïve ÜBER the miller's",
    "十二 wheels\n\ttab",
    "unseen ☃ snow [MASK] <s> <|endoftext|>",
]


def _write_bpe(folder: Path, backend: Backend) -> None:
    model = json.loads(backend.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")


def byte_level(folder: Path, specials: list[str]) -> None:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    _write_bpe(folder, backend)


def gpt2(folder: Path) -> None:
    byte_level(folder, ["<|endoftext|>"])


def roberta(folder: Path) -> None:
    byte_level(folder, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])


def gpt(folder: Path) -> None:
    backend = Backend(models.BPE(end_of_word_suffix="</w>", unk_token="<unk>"))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(vocab_size=150, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    _write_bpe(folder, backend)


def bert(folder: Path) -> None:
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=specials, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    words = sorted(backend.get_vocab().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words), encoding="utf-8")


KINDS: dict[str, tuple[Callable[[Path], None], str, Any]] = {
    "gpt2": (gpt2, "gpt2", transformers.GPT2Tokenizer),
    "bart": (roberta, "bart", transformers.RobertaTokenizer),
    "gpt": (gpt, "openai-gpt", transformers.OpenAIGPTTokenizer),
    "bert": (bert, "bert", transformers.BertTokenizer),
}
IDS = {"bos_id": "bos_token_id", "eos_id": "eos_token_id"}


def same(ours: Tokenizer, theirs: Any) -> None:
    """Equal ids of every text, with special tokens around it and without; equal text back; equal special tokens."""
    for text in TEXTS:
        wanted = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode(text, special=True) == wanted
        assert ours.backend.encode(text).ids == theirs(text)["input_ids"]
        assert ours.decode(wanted) == theirs.decode(wanted, skip_special_tokens=True)
    assert len(ours) == len(theirs)
    for name, their_name in IDS.items():
        assert getattr(ours, name) == getattr(theirs, their_name)
    if theirs.pad_token_id is not None:
        assert ours.pad_id == theirs.pad_token_id


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("told", ["model type", "class"])
def test_vocabulary_files_alone(kind: str, told: str, tmp_path: Path) -> None:
    write, model_type, their_class = KINDS[kind]
    write(tmp_path)
    if told == "class":
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": their_class.__name__}))
    else:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    ours = Tokenizer.load(tmp_path)
    same(ours, their_class.from_pretrained(tmp_path))
    ours.save(tmp_path / "again")
    same(Tokenizer.load(tmp_path / "again"), their_class.from_pretrained(tmp_path))


def test_cased_bert_and_added_tokens(tmp_path: Path) -> None:
    bert(tmp_path)
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "strip_accents": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    size = len((tmp_path / "vocab.txt").read_text(encoding="utf-8").splitlines())
    (tmp_path / "added_tokens.json").write_text(json.dumps({"wheelwright": size + 1, "[THING]": size}))
    special = {"additional_special_tokens": ["[THING]"], "bos_token": {"content": "[CLS]"}}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(special))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("a wheelwright")[-1] == size + 1 and len(tokenizer) == size + 2
    assert size not in tokenizer.encode("[THING]") and tokenizer.encode("[THING]", special=True) == [size]
    assert tokenizer.bos_id == 2 and tokenizer.special("bos_token") == "[CLS]"
    lower, capital = (tokenizer.encode(word) for word in ("the", "The"))
    assert lower != capital

    (tmp_path / "added_tokens.json").write_text(json.dumps({"wheelwright": size + 7}))
    with pytest.raises(NormaError, match=f"'wheelwright' cannot have the number {size + 7}"):
        Tokenizer.load(tmp_path)


def test_tokens_of_old_configs_are_found_beside_a_tokenizer_json(tmp_path: Path) -> None:
    gpt2(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    made = Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text(made.backend.to_str(), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1024}')  # as published with GPT-2
    assert Tokenizer.load(tmp_path).eos_id == 0 == transformers.AutoTokenizer.from_pretrained(tmp_path).eos_token_id
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "the", "pad_token": {"content": "!"}}')
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.eos_id == made.backend.token_to_id("the") and tokenizer.pad_id == made.backend.token_to_id("!")
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": null}')
    assert Tokenizer.load(tmp_path).eos_id is None


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"spiece.model": b"\x0a\x0b", "config.json": b'{"model_type": "t5"}'}, "spiece.model, a SentencePiece model.*save_pretrained"),
        ({"tokenizer.model": b"", "tokenizer_config.json": b'{"tokenizer_class": "LlamaTokenizer"}'}, "tokenizer.model, a Sentence"),
        ({"vocab.json": b"{}", "merges.txt": b"", "tokenizer_config.json": b'{"tokenizer_class": "CLIPTokenizer"}'}, "files of CLIP"),
        ({"vocab.json": b'{"a": 0, "b": 1}', "merges.txt": b"#version: 0.2\na b\n"}, "merges.txt:2: this merge does not fit"),
        ({"vocab.json": b"[1]", "merges.txt": b""}, "no vocabulary of tokens and numbers"),
        ({"vocab.txt": b"a\nb\n"}, r"unknown words, \[UNK\]"),
        ({"tokenizer.json": b"{}"}, "not a readable tokenizer"),
        ({}, "no tokenizer.json here"),
    ],
)
def test_what_cannot_be_read_says_so(files: dict[str, bytes], said: str, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(NormaError) as caught:
        Tokenizer.load(tmp_path)
    assert re.search(said, str(caught.value))


def test_of_several_chat_templates_the_default_one_counts(tmp_path: Path) -> None:
    gpt2(tmp_path)
    templates = [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    assert Tokenizer.load(tmp_path).chat_template == "d"
