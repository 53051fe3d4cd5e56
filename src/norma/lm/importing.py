"""A stranger's model, a Hugging Face folder or a GGUF file → a Norma model folder: checked whole, canonical names, and where it came from.

    config.json ─→ ModelConfig ─→ config.json           weights: every key checked, each tensor in the type it came in (or in one)
    tokenizer files of any age ─→ tokenizer.json        norma.json: the source, and the digest of every file that was read
    X.gguf ─→ what such a folder would hold (norma.lm.gguf) ─→ the same

``norma.load`` opens a stranger's folder as well; importing settles once what it depends on, and finds what is wrong before training.
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


@dataclass(frozen=True)
class Source:
    """What stands in a stranger's folder or file, read but not yet checked.

    Attributes:
        values: config.json.
        weights: tensors by the layout's names.
        generation: generation_config.json, where there is one.
        digests: of every file that was read, by name.
        left_out: things that nobody reads, in words.
    """

    values: dict[str, Any]
    weights: dict[str, Tensor]
    tokenizer: Tokenizer | None
    generation: dict[str, Any] | None
    digests: dict[str, str]
    left_out: list[str]


def import_model(
    source: Path, target: Path, dtype: torch.dtype | None = None, *, max_shard_bytes: int = MAX_SHARD_BYTES
) -> Imported:
    """Check a Hugging Face folder or a GGUF file and write it as a Norma model folder; ``target`` appears whole or not at all.

    Args:
        dtype: of the weights; None: each as it comes, and fp32 where it is quantised.

    Raises NormaError, before anything is written, for what :meth:`LanguageModel.load` refuses, and for a target that is not empty.
    """
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise NormaError("the folder is not empty", where=target, mend="Choose a new or an empty one")
    work = target.with_name(f".{target.name}.tmp")
    found = read_source(source, dtype)
    config, state = check(found, source)
    with disk_errors(target):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
    try:
        imported = write(found, config, state, source, work, dtype, max_shard_bytes)
        commit_folder(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return imported


def read_source(source: Path, dtype: torch.dtype | None = None) -> Source:
    """Read a model folder, or a GGUF file (with its weights in ``dtype`` at once: quantised ones grow eightfold in fp32)."""
    if source.is_file():
        from norma.lm.gguf import read_gguf

        file = read_gguf(source, dtype)
        return Source(file.values, file.weights, file.tokenizer, None, {source.name: file_digest(source)}, file.left_out)
    if not (source / "config.json").is_file():
        what = "config.json is missing" if source.exists() else "it does not exist"
        raise NormaError(
            f"this is not a model folder: {what}", where=source, mend="Give a folder that transformers wrote, or a .gguf file"
        )
    values: dict[str, Any] = read_json(source / "config.json")
    if values.get("quantization_config"):
        raise NormaError("quantised weights are not supported", where=source / "config.json", mend="Import the model they were made from")
    names = _read_files(source)
    others = sorted({p.name for p in source.iterdir()} - set(names))
    return Source(
        values,
        read_weights(source),
        Tokenizer.load(source) if has_tokenizer(source) else None,
        read_json(source / "generation_config.json") if (source / "generation_config.json").is_file() else None,
        {name: file_digest(source / name) for name in names},
        [f"other files: {_some(others)}"] if others else [],
    )


def check(found: Source, where: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The architecture and our state dict. Raises NormaError for all that does not fit together."""
    config = config_from_hf(found.values, where / "config.json" if where.is_dir() else where)
    state = from_hf(config, found.weights, where)
    if found.tokenizer is not None and len(found.tokenizer) > config.vocab_size:
        raise NormaError(f"the tokenizer has {len(found.tokenizer)} tokens, the model only {config.vocab_size}", where=where)
    return config, state


def write(
    found: Source,
    config: ModelConfig,
    state: dict[str, Tensor],
    source: Path,
    folder: Path,
    dtype: torch.dtype | None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Imported:
    """Write what was read and checked into ``folder``, which is there."""
    files = write_weights(folder, config, state, dtype, max_shard_bytes)
    dtypes = _dtypes(state, dtype)
    written = config_to_hf(config, bos=None, eos=None, pad=None)
    written |= kept(found.values) | {"torch_dtype": next(iter(dtypes))}
    write_json(folder / "config.json", written)
    ends = {key: written.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")}
    write_json(folder / "generation_config.json", ends if found.generation is None else found.generation)
    if found.tokenizer is not None:
        found.tokenizer.save(folder)
    origin = {"from": str(source.resolve()), "family": config.family, "files": found.digests}
    write_json(folder / "norma.json", {"imported": origin})
    return Imported(config, dtypes, found.tokenizer, files, _left_out(found, written, config))


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


def _left_out(found: Source, written: dict[str, Any], config: ModelConfig) -> list[str]:
    """Tensors that are no weights, settings that only training or other programs use, files that are not part of a model folder."""
    out = []
    surplus = sorted(set(found.weights) - set(shapes(config)))
    if surplus:
        out.append(f"tensors that are no weights, or second names of one: {_some(surplus)}")
    keys = sorted(k for k, v in found.values.items() if k not in written and k not in SILENT and v not in (None, False, [], {}))
    if keys:
        out.append(f"settings that scores do not depend on: {_some(keys)}")
    return out + found.left_out


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
