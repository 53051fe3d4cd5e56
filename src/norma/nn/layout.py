"""Model folders in the Hugging Face layout, both ways: config.json ↔ ModelConfig, their tensors ↔ ours.

What a table does not name is an error: nothing is dropped, nothing stays at its initial value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import torch
from torch import Tensor

from norma.base.errors import NormaError, nearest
from norma.nn.config import Experts, ModelConfig, RotaryScaling
from norma.nn.families import FAMILIES
from norma.nn.families.base import Family
from norma.nn.model import Transformer


def family_of(config: ModelConfig) -> Family:
    return FAMILIES[config.family]


def expanded(config: ModelConfig) -> list[tuple[tuple[str, ...], tuple[str, ...], Any]]:
    """The name table with layers and experts written out."""
    return [line for row in family_of(config).rows(config) for line in row.expand(config)]


def to_hf(config: ModelConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under the layout's names, in the layout's shapes."""
    left, out = dict(state), dict[str, Tensor]()
    for ours, theirs, transform in expanded(config):
        tensors = [left.pop(name) for name in ours]
        out.update(zip(theirs, tensors if transform is None else transform.write(config, tensors), strict=True))
    assert not left, f"the table of {config.family} does not name {sorted(left)}"
    return out


@cache
def shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """Every tensor of the layout and its shape, found by writing a model that has no memory."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in to_hf(config, Transformer(config).state_dict()).items()}


def from_hf(config: ModelConfig, state: Mapping[str, Tensor], where: object) -> dict[str, Tensor]:
    """A layout's state dict under our names. Missing, surplus and misshapen tensors are errors that name themselves."""
    family, expected = family_of(config), shapes(config)
    present = {n: t for n, t in state.items() if n in expected or not any(fnmatchcase(n, pattern) for pattern in family.ignored)}
    for copy, original in family.copies(config).items():
        if copy in expected:  # a tensor of its own, which a file may leave out where it equals the original
            if copy not in present and original in present:
                present[copy] = present[original].clone()
        elif copy in present and original in present:
            if not torch.equal(present.pop(copy), present[original]):
                raise NormaError(
                    f"{copy} differs from {original}, but config.json ties them",
                    where=where,
                    mend='Set "tie_word_embeddings": false, or save the folder again',
                )
        elif copy in present and original in expected:
            present[original] = present.pop(copy)  # a writer that kept the other name of the shared tensor
    _complain("missing", sorted(set(expected) - set(present)), config, where)
    _complain("surplus", sorted(set(present) - set(expected)), config, where)
    for name, shape in expected.items():
        if present[name].shape != shape:
            raise NormaError(
                f"tensor {name} has shape {tuple(present[name].shape)}, config.json says {tuple(shape)}",
                where=where,
                mend="The weights and config.json do not belong together",
            )
    out: dict[str, Tensor] = {}
    for ours, theirs, transform in expanded(config):
        tensors = [present[name] for name in theirs]
        out.update(zip(ours, tensors if transform is None else transform.read(config, tensors), strict=True))
    return out


def _complain(problem: str, names: list[str], config: ModelConfig, where: object) -> None:
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise NormaError(
            f"{problem} tensors for {config.family}: {', '.join(names[:3])}{more}",
            where=where,
            mend="The weights and config.json do not belong together; fetch or save the folder again",
        )


def config_to_hf(config: ModelConfig, *, bos: int | None, eos: int | None, pad: int | None) -> dict[str, Any]:
    """``config.json`` as ``transformers`` reads it."""
    family = family_of(config)
    values = {
        "architectures": [family.architectures[config.head]],
        "model_type": family.model_type,
        **{theirs: getattr(config, ours) for ours, theirs in family.keys.items()},
        **family.fixed,
        **({"num_labels": config.labels, **_labels(config.labels)} if config.labels else {}),
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": config.pad_id if pad is None else pad,
        **({"decoder_start_token_id": {"pad": pad, "eos": eos}[family.start]} if family.start else {}),
        "torch_dtype": "float32",
        **family.write(config),
    }
    if pad is not None and values["pad_token_id"] != pad:  # RoBERTa's positions are counted from it
        raise NormaError(
            f"{family.name} with pad_id = {values['pad_token_id']} cannot be written for a tokenizer that pads with {pad}",
            mend=f"Make the model with pad_id={pad}",
        )
    return values


KEPT = (
    *("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id", "cls_token_id", "mask_token_id"),
    *("decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "id2label", "label2id", "problem_type"),
)
"""What a config.json says besides the architecture, and people rely on: which ids begin and end a text, what labels are called."""


def kept(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of :data:`KEPT`."""
    return {key: values[key] for key in KEPT if key in values}


def untold(config: ModelConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    """Our fields that a reader of ``values`` (what :func:`config_to_hf` wrote) takes otherwise: how weights begin, dropout, a folded scale.

    JSON; :func:`told` brings them back.
    """
    read = config_from_hf(values, "what was written")
    changed = [f.name for f in fields(ModelConfig) if getattr(read, f.name) != getattr(config, f.name)]
    return {name: asdict(value) if isinstance(value := getattr(config, name), Experts | RotaryScaling) else value for name in changed}


def told(config: ModelConfig, changed: Mapping[str, Any], where: object) -> ModelConfig:
    """``config`` with the fields that :func:`untold` gave. Raises NormaError for what is no field of ours."""
    kinds: Mapping[str, Any] = {"experts": Experts, "rope_scaling": RotaryScaling, "windows": tuple}
    values = {n: kinds[n](**v) if isinstance(v, Mapping) else kinds[n](v) if isinstance(v, list) else v for n, v in changed.items()}
    try:
        return replace(config, **values)
    except (TypeError, ValueError) as error:
        raise NormaError(f'"model" does not fit: {error}', where=where, mend="Remove that entry: config.json alone is read then") from None


def _labels(count: int) -> dict[str, Any]:
    return {"id2label": {str(i): f"LABEL_{i}" for i in range(count)}, "label2id": {f"LABEL_{i}": i for i in range(count)}}


def config_from_hf(values: Mapping[str, Any], where: object) -> ModelConfig:
    """Read ``config.json``. A family or a setting that this version cannot honour is refused by name."""
    model_type = str(values.get("model_type"))
    candidates = [f for f in FAMILIES.values() if f.model_type == model_type]
    if not candidates:
        known = sorted({f.model_type for f in FAMILIES.values()})
        raise NormaError(
            f"model type '{model_type}' is not supported", where=where, mend=f"{nearest(model_type, known)} Supported: {', '.join(known)}"
        )
    family = next((f for f in candidates if f.owns(values)), candidates[0])
    merged = {**family.defaults, **{k: v for k, v in values.items() if v is not None or k not in family.defaults}}
    for key, only in family.fixed.items():
        if merged.get(key, only) != only:
            raise NormaError(f"{key} = {merged[key]!r} is not supported for {family.name}", where=where, mend=f"Supported: {only!r}")
    try:
        found = {ours: merged[theirs] for ours, theirs in family.keys.items()}
        found |= family.read(merged)
    except KeyError as error:
        raise NormaError(f"config.json lacks {error}", where=where) from None
    if family.pads and values.get("pad_token_id") != values.get("eos_token_id"):
        # Where padding and end of text are one token, the row must learn.
        found["pad_id"] = values.get("pad_token_id")
    found |= _head(family, values, where)
    try:
        return ModelConfig(family=family.name, **found)
    except ValueError as error:
        raise NormaError(str(error), where=where) from None


def _head(family: Family, values: Mapping[str, Any], where: object) -> dict[str, Any]:
    """The head that ``architectures`` names, and its labels."""
    named: Iterable[str] = values.get("architectures") or [family.architectures["lm"]]
    architecture = next(iter(named))
    head = next((h for h, a in family.architectures.items() if a == architecture), family.aliases.get(architecture))
    if head is None:
        supported = ", ".join(family.architectures.values())
        raise NormaError(f"architecture '{architecture}' is not supported", where=where, mend=f"Supported: {supported}")
    labels = 0
    if head in ("classify", "tokens"):
        labels = len(values["id2label"]) if "id2label" in values else int(values.get("num_labels") or 2)
    return {"head": head, "labels": labels}


def with_head(config: ModelConfig, head: str, labels: int = 0) -> ModelConfig:
    """The same model with another head. Raises NormaError when the layout has no such class."""
    family = family_of(config)
    if head not in family.architectures:
        raise NormaError(f"{family.name} has no '{head}' head", mend=f"It has: {', '.join(family.architectures)}")
    return replace(config, head=head, labels=labels)  # type: ignore[arg-type]  # checked against the family's own list
