"""LoRA adapters beside a model folder, in PEFT's format: what Norma writes, ``peft`` opens on the same base model, and the other way.

    adapter_config.json         rank, alpha, which modules
    adapter_model.safetensors   base_model.model.<their module>.lora_A.weight (r, in), ....lora_B.weight (out, r)

Names go through the family's name table. A module of theirs may hold several layers of ours (GPT-2's c_attn: query, key and value):

    reading   each of ours gets their A and its rows of their B
    writing   layers that share their A again make rank r; others stand beside each other, exactly, at rank r_query + r_key + r_value:

              A = [A_q; A_k; A_v]      B = [[B_q, 0, 0], [0, B_k, 0], [0, 0, B_v]], its rows in their order
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import re2
import torch
from safetensors.torch import save
from torch import Tensor

from norma.base.errors import NormaError
from norma.base.files import atomic_writer, read_json, write_json
from norma.lm.model import LanguageModel
from norma.lm.weights import read_tensors
from norma.nn.config import ModelConfig
from norma.nn.layers import Linear
from norma.nn.layout import expanded, family_of
from norma.nn.lora import LoraLinear, LoraOptions, adaptable, lora_layers, refuse_second, switched_off, wrap
from norma.nn.model import Transformer
from norma.nn.names import Transform

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."

READ = {"r", "lora_alpha", "lora_dropout", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules", "init_lora_weights", "bias"}
# Says where the adapter comes from, how it was trained or began, or what the tensors themselves tell.
UNUSED = {
    "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "peft_type", "peft_version", "task_type", "fan_in_fan_out",
    "exclude_modules", "layers_pattern", "layers_to_transform", "megatron_core", "eva_config", "runtime_config", "ensure_weight_tying",
    "qalora_group_size",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """One module of theirs and the linear layers of ours in it. ``flipped``: its weight is (in, out)."""

    module: str
    ours: tuple[str, ...]
    transform: Transform | None
    flipped: bool

    def join(self, config: ModelConfig, parts: list[Tensor]) -> Tensor:
        """Matrices (out, any) of each of ours → the one of theirs, (out, any)."""
        whole = parts[0] if self.transform is None else self.transform.write(config, parts)[0]
        return whole.t() if self.flipped else whole

    def split(self, config: ModelConfig, whole: Tensor) -> list[Tensor]:
        """The reverse of :meth:`join`."""
        whole = whole.t() if self.flipped else whole
        return [whole] if self.transform is None else self.transform.read(config, [whole.contiguous()])


def places(model: Transformer) -> dict[str, Place]:
    """The layout's modules that can carry LoRA, by name."""
    linears = set(adaptable(model)) | set(lora_layers(model))
    found: dict[str, Place] = {}
    for ours, theirs, transform in expanded(model.config):
        layers = tuple(name.removesuffix(".weight") for name in ours)
        if len(theirs) == 1 and theirs[0].endswith(".weight") and set(layers) <= linears:
            flipped = _flipped(model, layers, transform)
            if flipped is not None:
                module = theirs[0].removesuffix(".weight")
                found[module] = Place(module, layers, transform, flipped)
    return found


def _flipped(model: Transformer, layers: tuple[str, ...], transform: Transform | None) -> bool | None:
    """Whether the layout's weight is (in, out); None when the transform does more than move output rows.

    Tried on matrices with a number of columns that no layer has: what follows the rows alone takes any.
    """
    if transform is None:
        return False
    outs = [_layer(model, name).out_features for name in layers]
    columns = sum(outs) + 1
    try:
        (theirs,) = transform.write(model.config, [torch.empty(out, columns, device="meta") for out in outs])
    except (RuntimeError, ValueError):
        return None
    by_shape = {torch.Size((sum(outs), columns)): False, torch.Size((columns, sum(outs))): True}
    return by_shape.get(theirs.shape)


def _layer(model: Transformer, name: str) -> Linear | LoraLinear:
    layer = model.get_submodule(name)
    assert isinstance(layer, (Linear, LoraLinear))
    return layer


@contextmanager
def reference(language_model: LanguageModel) -> Iterator[LanguageModel]:
    """The model as it is without its LoRA, bit for bit and without a copy: the frozen reference of whatever trains the adapter."""
    with switched_off(language_model.transformer):
        yield language_model


# ── writing ──
def save_adapter(language_model: LanguageModel, folder: str | Path, *, base: str | None = None) -> None:
    """Write the model's LoRA as a PEFT adapter.

    Args:
        base: where the base model lies (a folder or the Hub's name), for readers of ``adapter_config.json``.

    Raises NormaError when there is no LoRA, or when the layout cannot hold it (an adapted layer that is no module of its own there).
    """
    folder, model = Path(folder), language_model.transformer
    layers = lora_layers(model)
    if not layers:
        raise NormaError("this model carries no LoRA", mend="Put it on first: norma.nn.lora.add_lora(model, LoraOptions(), generator)")
    known = places(model)
    chosen = [place for place in known.values() if any(name in layers for name in place.ours)]
    homeless = sorted(set(layers) - {name for place in chosen for name in place.ours})
    if homeless:
        raise NormaError(f"the layout of {model.config.family} cannot hold LoRA on {homeless[0]}", mend="Save the merged model instead")
    tensors: dict[str, Tensor] = {}
    strength: dict[str, tuple[int, float]] = {}
    for place in chosen:
        A, B, alpha = _joined(model, place, layers)
        strength[place.module] = (A.shape[0], alpha)
        tensors[f"{PREFIX}{place.module}.lora_A.weight"], tensors[f"{PREFIX}{place.module}.lora_B.weight"] = A, B
    first = next(iter(layers.values()))
    common, _ = Counter(strength.values()).most_common(1)[0]
    config = {
        "peft_type": "LORA",
        "task_type": {"decoder": "CAUSAL_LM", "encoder-decoder": "SEQ_2_SEQ_LM"}.get(model.config.kind)
        if model.config.head == "lm"
        else None,  # PEFT's other kinds expect a head inside the adapter
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": common[0],
        "lora_alpha": _whole(common[1]),
        "lora_dropout": first.dropout,
        "use_rslora": first.rank_stabilised,
        "target_modules": _targets(known, {place.module for place in chosen}),
        "rank_pattern": {re.escape(m): r for m, (r, _) in strength.items() if r != common[0]},
        "alpha_pattern": {re.escape(m): _whole(alpha) for m, (_, alpha) in strength.items() if alpha != common[1]},
        "fan_in_fan_out": any(place.flipped for place in chosen),
        "bias": "none",
        "init_lora_weights": True,
        "modules_to_save": None,
    }
    with atomic_writer(folder / WEIGHTS, "wb") as handle:
        handle.write(save(tensors, {"format": "pt"}))
    write_json(folder / CONFIG, config)


def _joined(model: Transformer, place: Place, layers: Mapping[str, LoraLinear]) -> tuple[Tensor, Tensor, float]:
    """A (R, in), B (out, R) and alpha of one module of theirs. A layer of ours without LoRA has rows of zeros in B."""
    mine = [layers[name] for name in place.ours if name in layers]
    first = mine[0]
    shared = all(torch.equal(layer.A, first.A) and layer.scale == first.scale for layer in mine)
    rank = first.rank if shared else sum(layer.rank for layer in mine)
    A = first.A if shared else torch.cat([layer.A for layer in mine])
    rows, column = [], 0
    for name in place.ours:
        wide = torch.zeros(_layer(model, name).out_features, rank, dtype=A.dtype, device=A.device)
        if name in layers:
            layer = layers[name]
            start = 0 if shared else column
            wide[:, start : start + layer.rank] = layer.B.detach() * (layer.scale / first.scale)
            column += layer.rank
        rows.append(wide)
    B = place.join(model.config, rows)
    growth = rank / first.rank  # alpha / rank, or alpha / sqrt(rank), must stay what it is
    alpha = first.alpha * (growth**0.5 if first.rank_stabilised else growth)
    A, B = A.detach().to("cpu").contiguous().clone(), B.detach().to("cpu").contiguous()
    wanted = place.join(model.config, [_update(model, name, layers) for name in place.ours])
    if not torch.allclose(first.scale * (B @ A), wanted, rtol=1e-3, atol=1e-5 * float(wanted.abs().max())):
        raise NormaError(f"the layout of {model.config.family} cannot hold LoRA on {place.ours[0]}", mend="Save the merged model instead")
    return A, B, alpha


def _update(model: Transformer, name: str, layers: Mapping[str, LoraLinear]) -> Tensor:
    if name in layers:
        return layers[name].update.detach().to("cpu")
    layer = _layer(model, name)
    return torch.zeros(layer.out_features, layer.in_features)


def _targets(known: Mapping[str, Place], chosen: set[str]) -> list[str]:
    """``target_modules``: the last parts of the names where they choose exactly these modules, as people write them; else whole names."""
    ends = {name.rpartition(".")[2] for name in chosen}
    return sorted(ends if {name for name in known if name.rpartition(".")[2] in ends} == chosen else chosen)


def _whole(number: float) -> float:
    """16.0 as 16: PEFT's alpha is an integer wherever it can be."""
    return int(number) if number == int(number) else number


# ── reading ──
def load_adapter(language_model: LanguageModel, folder: str | Path) -> None:
    """Put a PEFT LoRA adapter on the model: base weights are frozen, A and B can be trained on. On an error the model stays as it was.

    Raises NormaError for an adapter that does not fit the model, and for what this version cannot honour (DoRA, trained biases, modules
    saved whole, LoRA of embeddings or experts, starts that change the base weights such as PiSSA), by name.
    """
    folder, model = Path(folder), language_model.transformer
    if not (folder / CONFIG).is_file():
        raise NormaError(f"this is not an adapter: {CONFIG} is missing", where=folder, mend="Give a folder that save_adapter or peft wrote")
    refuse_second(model)
    values = _settings(folder / CONFIG)
    pickled = (folder / "adapter_model.bin").is_file()
    mend = "adapter_model.bin is a pickle, which Norma never opens: save it as safetensors" if pickled else "The weights are missing"
    tensors = read_tensors(folder / WEIGHTS, mend)
    known, second = places(model), family_of(model.config).copies(model.config)
    _drop_base(tensors, known, model, folder / WEIGHTS)
    pairs = _pairs(tensors, folder / WEIGHTS)
    found: list[tuple[str, LoraOptions, Tensor, Tensor]] = []
    for module, (A, B) in pairs.items():
        place = known.get(module) or known.get(second.get(f"{module}.weight", "").removesuffix(".weight"))
        if place is None:
            raise NormaError(f"{module} is no linear layer of this {model.config.family}", where=folder, mend="Load the adapter's own base")
        options = _strength(values, module, A, folder / CONFIG)
        outs, inside = [_layer(model, n).out_features for n in place.ours], _layer(model, place.ours[0]).in_features
        if A.shape[1] != inside or tuple(B.shape) != (sum(outs), A.shape[0]):
            raise NormaError(
                f"{module}: A {tuple(A.shape)} and B {tuple(B.shape)} do not fit a layer from {inside} to {sum(outs)}",
                where=folder,
                mend="Load the adapter's own base",
            )
        found += [(name, options, A, part) for name, part in zip(place.ours, place.split(model.config, B), strict=True)]
    model.requires_grad_(False)
    for name, options, A, B in found:
        layer = wrap(model, name, options)
        with torch.no_grad():
            layer.A.copy_(A)
            layer.B.copy_(B)


def _settings(path: Path) -> dict[str, Any]:
    """adapter_config.json; every setting that would change the result and is not read here must be off."""
    values = read_json(path)
    if not isinstance(values, dict) or values.get("peft_type") != "LORA":
        raise NormaError("this is not a LoRA adapter", where=path, mend="Of other kinds, merge it with peft and load that model")
    on = {k: v for k, v in values.items() if k not in READ | UNUSED and v not in (None, False, "none") and v != [] and v != {}}
    if values.get("bias", "none") != "none":
        on["bias"] = values["bias"]
    if values.get("init_lora_weights", True) not in (True, False, "gaussian", "eva", "orthogonal"):
        on["init_lora_weights"] = values["init_lora_weights"]
    if on:
        name = min(on)
        raise NormaError(
            f"{name} = {on[name]!r} is not supported", where=path, mend="Merge it with peft (merge_and_unload), then load that model"
        )
    if "r" not in values:
        raise NormaError("the adapter's rank (r) is missing", where=path)
    return values


def _drop_base(tensors: dict[str, Tensor], known: Mapping[str, Place], model: Transformer, where: Path) -> None:
    """Take out base weights, which PEFT saves along where a head is adapted. They must be the model's own."""
    for name in [n for n in tensors if n.endswith(".base_layer.weight")]:
        place = known.get(name.removeprefix(PREFIX).removesuffix(".base_layer.weight"))
        own = None if place is None or place.transform is not None else _layer(model, place.ours[0]).weight
        if own is None or not torch.equal(tensors.pop(name).float(), own.detach().float().cpu()):
            raise NormaError(f"{name} differs from the model's own", where=where, mend="Load the adapter's own base, or merge it with peft")


def _pairs(tensors: Mapping[str, Tensor], where: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Their module → A and B."""
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(rf"{re.escape(PREFIX)}(.+)\.lora_([AB])\.weight", name)
        if match is None or tensor.dim() != 2:
            raise NormaError(f"{name} is not the A or B of a linear layer", where=where, mend="Merge the adapter with peft first")
        halves.setdefault(match[1], {})[match[2]] = tensor
    for module, half in halves.items():
        if len(half) < 2:
            raise NormaError(f"lora_{'B' if 'A' in half else 'A'} of {module} is missing", where=where, mend="Fetch or save it again")
    if not halves:
        raise NormaError("the adapter is empty", where=where, mend="Fetch or save it again")
    return {module: (half["A"], half["B"]) for module, half in halves.items()}


def _strength(values: Mapping[str, Any], module: str, A: Tensor, where: Path) -> LoraOptions:
    """Rank and alpha of one module: the first pattern that matches the end of its name, else the adapter's own."""

    def setting(plain: str, patterns: str, default: float) -> Any:
        for pattern, value in (values.get(patterns) or {}).items():
            try:
                if re2.fullmatch(rf"(.*\.)?({pattern})", module):
                    return value
            except re2.error as error:
                raise NormaError(f"{patterns}: {pattern!r} is not a pattern that Norma can read ({error})", where=where) from None
        return values.get(plain, default)

    rank = setting("r", "rank_pattern", 8)
    if rank != A.shape[0]:
        raise NormaError(f"{module} has rank {A.shape[0]}, the config says {rank}", where=where, mend="Fetch or save the adapter again")
    return LoraOptions(
        rank=rank,
        alpha=float(setting("lora_alpha", "alpha_pattern", 8)),
        dropout=float(values.get("lora_dropout") or 0.0),
        rank_stabilised=bool(values.get("use_rslora")),
    )
