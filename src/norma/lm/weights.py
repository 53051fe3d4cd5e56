"""The tensors of a model folder: safetensors, in one file or in shards with an index, read and written without a second copy.

    our state ─→ name table, a row at a time ─→ bytes at their place in model-00001-of-0000N.safetensors ... ─→ index

Which file and which bytes a tensor gets is known from the shapes alone, before anything is converted; so one row of the table at a
time is in memory besides the model, and the number of shards stands in their names from the start. The format:
https://huggingface.co/docs/safetensors (8 bytes length, JSON header, bytes).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from norma.base.errors import NormaError
from norma.base.files import disk_errors, fsync_folder, read_json, write_json
from norma.nn.config import ModelConfig
from norma.nn.layout import expanded, to_hf

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
MAX_SHARD_BYTES = 5_000_000_000

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""Names of the format."""


# ── reading ──
def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder: one ``model.safetensors``, or the shards that its index names. They stay on the disk until they are used.

    Raises NormaError for a pickle, a shard that is missing or outside the folder, a file that is damaged, and an index that is wrong.
    """
    tensors: dict[str, Tensor] = {}
    promised = _weight_map(folder / INDEX) if (folder / INDEX).exists() else {}
    for file in weight_files(folder):
        if file != INDEX:
            tensors |= read_tensors(folder / file, f"{INDEX} names it: fetch the missing file" if promised else "Fetch the file again")
    absent = sorted(set(promised) - set(tensors))
    if absent:
        raise NormaError(f"the index promises {absent[0]} in {promised[absent[0]]}, which does not hold it", where=folder / INDEX)
    return tensors


def weight_files(folder: Path) -> list[str]:
    """The files that hold the weights: ``model.safetensors``, or the index and its shards."""
    if (folder / INDEX).exists():
        return [INDEX, *sorted(set(_weight_map(folder / INDEX).values()))]
    if (folder / SINGLE).exists():
        return [SINGLE]
    pickles = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt"))
    mend = f"{pickles[0]} is a pickle, which Norma never opens: save it as safetensors" if pickles else "The weights are missing"
    raise NormaError("no model.safetensors here", where=folder, mend=mend)


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor → file, as an index has it; every file lies in the index's folder."""
    values = read_json(index)
    found = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(found, dict) or not all(isinstance(file, str) for file in found.values()):
        raise NormaError("the index has no weight_map from tensors to files", where=index, mend="Fetch or save the folder again")
    for file in found.values():
        if Path(file).name != file:
            raise NormaError(f"the index names a file outside the folder: {file}", where=index)
    return found


def read_tensors(path: Path, mend: str = "Fetch or save the file again") -> dict[str, Tensor]:
    """The tensors of one safetensors file."""
    if not path.is_file():
        raise NormaError("file not found", where=path, mend=mend)
    try:
        return load_file(path)
    except (safetensors.SafetensorError, json.JSONDecodeError, OSError) as error:
        raise NormaError(f"not readable as safetensors ({error})", where=path, mend="Fetch or save the file again") from None


# ── writing ──
@dataclass
class _Shard:
    """One file to be: which tensors, of which shape and type, and where their bytes begin."""

    shapes: dict[str, Tensor] = field(default_factory=dict)  # without memory
    size: int = 0

    def header(self) -> tuple[bytes, dict[str, int]]:
        """The file's head, and the place in the file of each tensor. Wider types come first, so that every tensor is aligned."""
        entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
        offsets: dict[str, int] = {}
        end = 0
        for name, tensor in sorted(self.shapes.items(), key=lambda item: -item[1].itemsize):
            offsets[name], begin, end = end, end, end + tensor.nbytes
            entries[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        head = len(text).to_bytes(8, "little") + text
        return head, {name: len(head) + offset for name, offset in offsets.items()}


def write_weights(
    folder: Path,
    config: ModelConfig,
    state: Mapping[str, Tensor],
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> list[str]:
    """Write our state dict as the layout of ``config`` has it; returns the names of the files.

    Args:
        dtype: of floating-point tensors in the file; None: as they are.
        max_shard_bytes: more bytes of tensors than this make several files, model-00001-of-0000N.safetensors, and an index. A tensor
            larger than that has a file of its own.

    Files of an older save that no longer belong are removed once the new ones are whole.
    """
    if max_shard_bytes < 1:
        raise NormaError(f"a shard of {max_shard_bytes} bytes holds nothing", mend="Give max_shard_bytes of 1 or more")
    weightless = to_hf(config, {n: torch.empty_like(t, device="meta", dtype=_target(t, dtype)) for n, t in state.items()})
    shards = _plan(weightless, max_shard_bytes)
    names = [SINGLE] if len(shards) == 1 else [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    temporary = [folder / f".{name}.tmp" for name in names]
    with disk_errors(folder), ExitStack() as cleanup:
        folder.mkdir(parents=True, exist_ok=True)
        handles: list[IO[bytes]] = []
        place: dict[str, tuple[IO[bytes], int]] = {}
        for path, shard in zip(temporary, shards, strict=True):
            cleanup.callback(path.unlink, missing_ok=True)
            handles.append(cleanup.enter_context(path.open("wb")))
            head, offsets = shard.header()
            handles[-1].write(head)
            place |= {name: (handles[-1], offset) for name, offset in offsets.items()}
        for name, tensor in _rows(config, state, dtype):
            file, offset = place[name]
            file.seek(offset)
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        for handle in handles:
            handle.flush()
            os.fsync(handle.fileno())
            handle.close()
        for path, name in zip(temporary, names, strict=True):
            path.replace(folder / name)
        _index(folder, names, shards)
        fsync_folder(folder)
    return names


def _index(folder: Path, names: list[str], shards: list[_Shard]) -> None:
    """Say where each tensor is when there are several files, and remove files of an older save."""
    if len(names) > 1:
        weight_map = {name: file for file, shard in zip(names, shards, strict=True) for name in shard.shapes}
        numbers = sum(t.numel() for shard in shards for t in shard.shapes.values())
        total = {"total_size": sum(shard.size for shard in shards), "total_parameters": numbers}
        write_json(folder / INDEX, {"metadata": total, "weight_map": dict(sorted(weight_map.items()))})
    else:
        (folder / INDEX).unlink(missing_ok=True)
    for path in folder.glob("model*.safetensors"):
        if path.name not in names and (path.name == SINGLE or SHARD.fullmatch(path.name)):
            path.unlink()


def _target(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return tensor.dtype if dtype is None or not tensor.is_floating_point() else dtype


def _plan(weightless: Mapping[str, Tensor], limit: int) -> list[_Shard]:
    """Tensors in order; the next shard begins where the next tensor would make this one larger than ``limit``."""
    shards = [_Shard()]
    for name, tensor in weightless.items():
        if shards[-1].shapes and shards[-1].size + tensor.nbytes > limit:
            shards.append(_Shard())
        shards[-1].shapes[name] = tensor
        shards[-1].size += tensor.nbytes
    return shards


def _rows(config: ModelConfig, state: Mapping[str, Tensor], dtype: torch.dtype | None) -> Iterator[tuple[str, Tensor]]:
    """The layout's tensors, converted as they are asked for."""
    for ours, theirs, transform in expanded(config):
        tensors = [state[name].detach() for name in ours]
        for name, tensor in zip(theirs, tensors if transform is None else transform.write(config, tensors), strict=True):
            yield name, tensor.to("cpu", _target(tensor, dtype))
