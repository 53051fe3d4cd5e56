"""Low-rank adaptation: the model stays as it is, small matrices beside its linear layers learn (Hu et al., 2106.09685).

    x ─┬─→ base (frozen) ──────────────────→ + ─→ y        y = W x + b + s B A x        s = alpha / rank
       └─→ dropout ─→ A (r, in) ─→ B (out, r) ─→ s ┘        or alpha / sqrt(rank) (rank-stabilised; Kalajdzievski, 2312.03732)

``add_lora`` puts the matrices in; ``merge`` adds s B A to the weights for a while and ``unmerge`` gives the very same weights back.
``switched_off`` lets the model answer as the base for a while: the frozen reference of preference and reward training without a copy.
Saving beside a model folder, in PEFT's format, is ``norma.lm.adapter``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from norma.base.errors import NormaError, nearest
from norma.nn.experts import Router
from norma.nn.layers import Linear


@dataclass(frozen=True)
class LoraOptions:
    """What to adapt, and how much room it gets.

    Attributes:
        rank: columns of B; one adapted layer learns rank * (in + out) numbers.
        alpha: strength of the update, see the module's formula.
        targets: names of linear layers, each a whole name or its end ("query", "cross.query", "decoder.blocks.0.feed_forward.up"), or
            "all": every linear layer of the blocks. Heads stay as they are, and so do experts and their routers.
        dropout: of what A reads, while training.
        rank_stabilised: s = alpha / sqrt(rank).
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] | str = ("query", "value")
    dropout: float = 0.0
    rank_stabilised: bool = False

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise NormaError(f"a LoRA rank of {self.rank} holds nothing", mend="Give a rank of 1 or more")
        if not 0.0 <= self.dropout < 1.0:
            raise NormaError(f"a LoRA dropout of {self.dropout} is no probability", mend="Give a number from 0 up to, not including, 1")


class LoraLinear(nn.Module):
    """A frozen linear layer and its low-rank update.

    A (r, in) begins uniform within 1 / sqrt(in), the Kaiming initialisation of 1502.01852 as the first code has it; B (out, r) begins
    at zero, so that a new update changes nothing. Both are fp32 even beside a base in bf16, and work in the type of what flows through.
    """

    kept: Tensor | None  # the base's own weight while the update is merged into it
    off = False  # True: the layer is its base
    working: tuple[Tensor, Tensor] | None = None  # A and B in the working type, while `working_weights` holds

    def __init__(self, base: Linear, options: LoraOptions, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.rank, self.alpha, self.rank_stabilised, self.dropout = options.rank, options.alpha, options.rank_stabilised, options.dropout
        home = base.weight
        bound = base.in_features**-0.5
        a = torch.empty(self.rank, base.in_features).uniform_(-bound, bound, generator=generator)
        learning = torch.promote_types(home.dtype, torch.float32)  # steps of training are smaller than half types can hold
        self.A = nn.Parameter(a.to(home.device, learning))
        self.B = nn.Parameter(torch.zeros(base.out_features, self.rank, device=home.device, dtype=learning))
        self.register_buffer("kept", None, persistent=False)

    @property
    def scale(self) -> float:
        return self.alpha / (self.rank**0.5 if self.rank_stabilised else self.rank)

    @property
    def merged(self) -> bool:
        return self.kept is not None

    @property
    def update(self) -> Tensor:
        """s B A, (out, in)."""
        return self.scale * (self.B @ self.A)

    @property
    def weight(self) -> Tensor:
        """The weight this layer amounts to (without dropout), (out, in); who reads it instead of calling the layer gets the update too."""
        return self.base.weight if self.merged else self.base.weight + self.update

    @property
    def bias(self) -> Tensor | None:
        return self.base.bias

    @property
    def in_features(self) -> int:
        return self.base.in_features

    @property
    def out_features(self) -> int:
        return self.base.out_features

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        if self.merged or self.off:
            return out
        A, B = self.working or (self.A.to(x.dtype), self.B.to(x.dtype))
        narrow = F.linear(F.dropout(x, self.dropout, self.training), A)
        return torch.add(out, F.linear(narrow, B), alpha=self.scale)

    def work_in(self, dtype: torch.dtype | None) -> None:
        """As :meth:`norma.nn.layers.Linear.work_in`.

        The update stays apart: it begins smaller than the steps between bf16 numbers, and added to a bf16 weight it would be rounded
        away, so that what is sampled would not show what was learnt.
        """
        self.working = None if dtype is None else (self.A.detach().to(dtype), self.B.detach().to(dtype))

    @torch.no_grad()
    def merge(self) -> None:
        """Work with base + update as one weight. The base's own weight is kept aside: subtracting would not give the same bits back."""
        if not self.merged:
            own = self.base.weight.data
            self.base.weight.data = own + self.update
            self.kept = own
            self.base.working = None

    def unmerge(self) -> None:
        """The base's own weight again, to the bit."""
        if self.kept is not None:
            self.base.weight.data = self.kept
            self.kept = None
            self.base.working = None


def add_lora(model: nn.Module, options: LoraOptions, generator: torch.Generator, also: Sequence[str] = ()) -> list[str]:
    """Wrap the target layers of ``model`` and freeze all else; returns their names.

    Args:
        also: names of modules that are trained whole beside the update (a new head, which has nothing to adapt yet).

    Raises NormaError when a target names no linear layer, or when the model carries LoRA already.
    """
    refuse_second(model)
    linears = adaptable(model)
    if options.targets == "all":
        chosen = [n for n in linears if ".blocks." in n]
    else:
        targets = (options.targets,) if isinstance(options.targets, str) else options.targets
        for target in targets:
            if not any(_ends(name, target) for name in linears):
                known = {name.rpartition(".")[2] for name in linears}
                raise NormaError(f"LoRA target '{target}' names no linear layer of this model", mend=nearest(target, known))
        chosen = [n for n in linears if any(_ends(n, target) for target in targets)]
    model.requires_grad_(False)
    for name in chosen:
        wrap(model, name, options, generator)
    for name in also:
        model.get_submodule(name).requires_grad_(True)
    return chosen


def adaptable(model: nn.Module) -> list[str]:
    """Names of the layers that can carry LoRA: linear ones, without routers, which are linear but stay in fp32."""
    return [name for name, module in model.named_modules() if type(module) is Linear]


def refuse_second(model: nn.Module) -> None:
    """Raise NormaError when ``model`` carries LoRA."""
    if lora_layers(model):
        raise NormaError("this model carries LoRA already", mend="Take it off first: norma.nn.lora.remove_lora(model)")


def _ends(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")


def wrap(model: nn.Module, name: str, options: LoraOptions, generator: torch.Generator | None = None) -> LoraLinear:
    """Put a :class:`LoraLinear` around the linear layer called ``name``."""
    layer = model.get_submodule(name)
    assert isinstance(layer, Linear)
    wrapped = LoraLinear(layer, options, generator).train(layer.training)
    model.set_submodule(name, wrapped)
    return wrapped


def remove_lora(model: nn.Module) -> None:
    """Take the matrices off: the model as it was before ``add_lora``, to the bit, with every parameter trainable again."""
    for name, layer in lora_layers(model).items():
        layer.unmerge()
        model.set_submodule(name, layer.base)
    model.requires_grad_(True)


def lora_layers(model: nn.Module) -> dict[str, LoraLinear]:
    """The wrapped layers by the names that the layers inside have without LoRA."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


def lora_parameters(model: nn.Module) -> list[nn.Parameter]:
    """What training moves: A and B of every wrapped layer."""
    return [parameter for layer in lora_layers(model).values() for parameter in (layer.A, layer.B)]


def merge(model: nn.Module) -> None:
    """Fold every update into its weight: the model runs at its usual speed and memory doubles for the wrapped weights. Not for training."""
    for layer in lora_layers(model).values():
        layer.merge()


def unmerge(model: nn.Module) -> None:
    """Undo :func:`merge`; base weights are bit-identical to those before."""
    for layer in lora_layers(model).values():
        layer.unmerge()


@contextmanager
def switched_off(model: nn.Module) -> Iterator[None]:
    """Inside, ``model`` is its base, to the bit, and in evaluation mode: its own frozen reference.

    Raises NormaError when it carries no LoRA, or when more than LoRA is trained: the base is then no longer there.
    """
    layers = lora_layers(model)
    if not layers:
        raise NormaError("this model carries no LoRA, so it holds no frozen reference", mend="Give the reference as a model of its own")
    learning = {id(p) for p in lora_parameters(model)}
    others = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in learning]
    if others:
        raise NormaError(
            f"{others[0]} is trained beside the LoRA, so the model is no frozen reference", mend="Give the reference as a model of its own"
        )
    assert not any(layer.merged for layer in layers.values()), "unmerge first: the base's own weights are kept aside"
    training = model.training
    try:
        model.eval()
        for layer in layers.values():
            layer.off = True
        yield
    finally:
        for layer in layers.values():
            layer.off = False
        model.train(training)


@torch.no_grad()
def narrow(model: nn.Module, dtype: torch.dtype) -> None:
    """Keep the matrices that are not trained in ``dtype``: half the memory of a large frozen base.

    Norms and biases stay as they are, and so do routers, whose choices rounding would change.
    """
    routers = {id(module.weight) for module in model.modules() if isinstance(module, Router)}
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.dim() >= 2 and id(parameter) not in routers:
            parameter.data = parameter.data.to(dtype)


@torch.no_grad()
def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """``model.state_dict()`` as it would be without LoRA in its names, every update folded in: what a model folder holds."""
    state: dict[str, Tensor] = model.state_dict()
    for name, layer in lora_layers(model).items():
        for own in ("A", "B", "base.weight", "base.bias"):
            state.pop(f"{name}.{own}", None)
        state[f"{name}.weight"] = layer.weight.detach()
        if layer.bias is not None:
            state[f"{name}.bias"] = layer.bias.detach()
    return state
