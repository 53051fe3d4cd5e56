"""A stranger's model folder → a Norma model folder: checked whole, canonical names, and a note of where it came from.

    config.json ─→ ModelConfig ─→ config.json           weights: every key checked, each tensor in the type it came in (or in one)
    tokenizer files of any age ─→ tokenizer.json        norma.json: the folder, and the digest of every file that was read

``norma.load`` opens the stranger's folder as well; importing settles once what it depends on, and finds what is wrong before training.
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from norma.base.errors import NormaError
from norma.base.files import commit_folder, disk_errors, read_json, write_json
from norma.base.hashing import file_digest
from norma.lm.weights import MAX_SHARD_BYTES, read_weights, weight_files, write_weights
from norma.nn.config import ModelConfig
from norma.nn.layout import config_from_hf, config_to_hf, from_hf, kept, shapes
from norma.text.tokenizer import Tokenizer
from norma.text.vocabularies import exists as has_tokenizer
from norma.text.vocabularies import tokenizer_files

# Not worth mentioning: they say which program wrote the file, and how it was run.
SILENT = {"_name_or_path", "transformers_version", "dtype", "use_cache", "output_attentions", "output_hidden_states", "return_dict"}


@dataclass(frozen=True)
class Imported:
    """What was imported.

    Attributes:
        config: the architecture.
        dtypes: weights in the files that were written, type → numbers.
        tokenizer: None where the folder has none.
        files: the weight files that were written.
        left_out: things of the source that have no place in the model folder, in words.
    """

    config: ModelConfig
    dtypes: dict[str, int]
    tokenizer: Tokenizer | None
    files: list[str]
    left_out: list[str]


def import_folder(
    source: Path, target: Path, dtype: torch.dtype | None = None, *, max_shard_bytes: int = MAX_SHARD_BYTES
) -> Imported:
    """Check a Hugging Face folder and write it as a Norma model folder; ``target`` appears whole or not at all.

    Args:
        dtype: of the weights; None: each as it comes.

    Raises NormaError, before anything is written, for what :meth:`LanguageModel.load` refuses, and for a target that is not empty.
    """
    if not (source / "config.json").is_file():
        raise NormaError("this is not a model folder: config.json is missing", where=source, mend="Give a folder that transformers wrote")
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise NormaError("the folder is not empty", where=target, mend="Choose a new or an empty one")
    values: dict[str, Any] = read_json(source / "config.json")
    if values.get("quantization_config"):
        raise NormaError("quantised weights are not supported", where=source / "config.json", mend="Import the model they were made from")
    config = config_from_hf(values, source / "config.json")
    theirs = read_weights(source)
    state = from_hf(config, theirs, source)
    tokenizer = Tokenizer.load(source) if has_tokenizer(source) else None
    if tokenizer is not None and len(tokenizer) > config.vocab_size:
        raise NormaError(f"the tokenizer has {len(tokenizer)} tokens, the model only {config.vocab_size}", where=source)

    work = target.with_name(f".{target.name}.tmp")
    with disk_errors(target):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
    try:
        files = write_weights(work, config, state, dtype, max_shard_bytes)
        dtypes = _dtypes(state, dtype)
        written = config_to_hf(config, bos=None, eos=None, pad=None)
        written |= kept(values) | {"torch_dtype": next(iter(dtypes))}
        write_json(work / "config.json", written)
        generation = source / "generation_config.json"
        ends = {key: written.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")}
        write_json(work / generation.name, read_json(generation) if generation.is_file() else ends)
        if tokenizer is not None:
            tokenizer.save(work)
        digests = {name: file_digest(source / name) for name in _read_files(source)}
        write_json(work / "norma.json", {"imported": {"from": str(source.resolve()), "family": config.family, "files": digests}})
        commit_folder(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Imported(config, dtypes, tokenizer, files, _left_out(source, values, written, theirs, config))


def _dtypes(state: dict[str, Tensor], dtype: torch.dtype | None) -> dict[str, int]:
    """Numbers of each type, the commonest first."""
    count: Counter[str] = Counter()
    for tensor in state.values():
        kind = tensor.dtype if dtype is None or not tensor.is_floating_point() else dtype
        count[str(kind).removeprefix("torch.")] += tensor.numel()
    return dict(count.most_common())


def _read_files(source: Path) -> list[str]:
    """Files of the source that what is written depends on."""
    names = ["config.json", "generation_config.json", *weight_files(source)]
    return sorted(name for name in (*names, *tokenizer_files(source)) if (source / name).is_file())


def _left_out(
    source: Path, values: dict[str, Any], written: dict[str, Any], theirs: dict[str, Tensor], config: ModelConfig
) -> list[str]:
    """Tensors that are no weights, settings that only training or other programs use, files that are not part of a model folder."""
    out = []
    surplus = sorted(set(theirs) - set(shapes(config)))
    if surplus:
        out.append(f"tensors that are no weights, or second names of one: {_some(surplus)}")
    keys = sorted(k for k, v in values.items() if k not in written and k not in SILENT and v not in (None, False, [], {}))
    if keys:
        out.append(f"settings that scores do not depend on: {_some(keys)}")
    others = sorted({p.name for p in source.iterdir()} - set(_read_files(source)))
    if others:
        out.append(f"other files: {_some(others)}")
    return out


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
