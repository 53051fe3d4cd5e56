"""What a family is: a preset, a name table, and its config.json, each in both directions. A value, not a class per family.

    preset(width=..., ...) ─→ ModelConfig ←─ config_from_hf(config.json)        rows(config): our tensor names ↔ theirs
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

from norma.base.errors import NormaError, nearest
from norma.nn.config import ModelConfig
from norma.nn.names import Row


@dataclass(frozen=True)
class Family:
    """One published architecture and the Hugging Face layout it is written in.

    Attributes:
        name: the preset's name.
        model_type: the layout's, as in ``config.json``. Several families may share one; then ``owns`` tells them apart.
        architectures: the layout's class for each head this family can have (``ModelConfig.head``).
        preset: sizes → config. Every preset takes ``vocab_size``, ``width``, ``layers``, ``max_positions``, ``head_size`` and ``kv_heads``
            by keyword; families with more to choose take more.
        sizes: published sizes, name → keyword arguments of ``preset``.
        keys: our config field → their key, where the value is the same.
        fixed: their key → the only value that this implementation honours; another value is refused by name.
        read: their values → our fields that ``keys`` does not cover. May raise KeyError (a missing key) or NormaError.
        write: config → their entries that ``keys`` and ``fixed`` do not cover. May raise NormaError when the layout cannot hold it.
        rows: the name table for a config.
        defaults: their key → the value that the layout's reader assumes when the key is absent.
        ignored: patterns (fnmatch) of their tensors that are not weights: masks and tables that older writers stored.
        copies: config → their second names of a shared tensor: second name → first name.
        pads: the layout's embedding has a padding row, which gets no gradient (``pad_token_id``).
        owns: whether a ``config.json`` of this model_type is this family's.
        aliases: older names of the layout's classes → the head.
        start: the token that a decoder behind an encoder begins with, ``decoder_start_token_id``.
    """

    name: str
    model_type: str
    architectures: Mapping[str, str]
    preset: Callable[..., ModelConfig]
    sizes: Mapping[str, Mapping[str, Any]]
    keys: Mapping[str, str]
    rows: Callable[[ModelConfig], Sequence[Row]]
    read: Callable[[Mapping[str, Any]], dict[str, Any]]
    write: Callable[[ModelConfig], dict[str, Any]]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    copies: Callable[[ModelConfig], Mapping[str, str]] = lambda config: {}
    pads: bool = False
    owns: Callable[[Mapping[str, Any]], bool] = lambda values: True
    aliases: Mapping[str, str] = field(default_factory=dict)
    start: Literal["pad", "eos"] | None = None


ACTIVATIONS: Mapping[str, str] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""A layout's name of an activation → ours."""


def read_activation(name: str, known: Mapping[str, str] = ACTIVATIONS) -> str:
    """Our name of the layout's activation. Raises NormaError for one that this version does not have."""
    if name not in known:
        raise NormaError(f"activation '{name}' is not supported", mend=nearest(name, known))
    return known[name]


def write_activation(name: str, known: Mapping[str, str] = ACTIVATIONS) -> str:
    """The layout's name of our activation: the first in ``known``. Raises NormaError when there is none."""
    for theirs, ours in known.items():
        if ours == name:
            return theirs
    raise NormaError(f"the layout has no activation '{name}'", mend=nearest(name, known.values()))


FREE = frozenset(
    (
        *("family", "vocab_size", "width", "layers", "attention_heads", "kv_heads", "head_size", "feed_forward_width", "max_positions"),
        *("norm_eps", "pad_id", "activation", "head", "labels", "tie_embeddings", "dropout", "initialisation", "initializer_range"),
    )
)
"""Fields that every layout holds (or needs not hold); the others are a family's structure."""


def must_hold(config: ModelConfig, layout: str, structure: Mapping[str, Any], free: Sequence[str] = ()) -> None:
    """Raise NormaError for the first field that ``layout`` has no place for.

    Args:
        structure: the values that the layout implies; a field that is neither here nor free must have its default.
        free: fields that this layout holds besides those of ``FREE``.
    """
    for item in fields(ModelConfig):
        if item.name in FREE or item.name in free:
            continue
        only = structure.get(item.name, item.default)
        assert only is not MISSING
        if getattr(config, item.name) != only:
            raise NormaError(
                f"{layout} cannot hold {item.name} = {getattr(config, item.name)!r}", where=config.family, mend=f"It has {only!r}"
            )


def parts(ours: str, theirs: str, *, bias: bool = True) -> Iterator[Row]:
    """A weight and its bias, alike in both."""
    yield Row(f"{ours}.weight", f"{theirs}.weight")
    if bias:
        yield Row(f"{ours}.bias", f"{theirs}.bias")


def head_rows(config: ModelConfig, token_scores: str = "lm_head.weight") -> Iterator[Row]:
    """Untied token scores, and the linear layer of ``...ForSequenceClassification``."""
    if config.head == "lm" and not config.tie_embeddings:
        yield Row("head.weight", token_scores)
    if config.head == "classify":
        yield Row("classifier.weight", "score.weight")


def head_size_of(width: int, heads: int) -> int:
    """Features of a head in a layout that splits the width evenly."""
    if width % heads:
        raise NormaError(f"width {width} is not a multiple of the number of heads, {heads}")
    return width // heads


def must_split_evenly(config: ModelConfig, layout: str) -> None:
    """Raise NormaError for sizes of heads that the layout cannot hold: grouped queries, and heads that do not add up to the width."""
    if config.kv_heads != config.attention_heads:
        raise NormaError(
            f"{layout} cannot hold kv_heads = {config.kv_heads}", where=config.family, mend="It has as many as attention_heads"
        )
    if config.attention_heads * config.head_size != config.width:
        raise NormaError(
            f"{layout} cannot hold attention_heads x head_size = {config.attention_heads} x {config.head_size} with width {config.width}",
            where=config.family,
            mend="Their product must be the width",
        )
