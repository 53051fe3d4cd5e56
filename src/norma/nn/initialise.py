"""New weights, drawn as each family's paper or its authors' code draws them.

    named_parameters() ─→ SCHEMES[config.initialisation](role, parameter, config) ─→ Draw ─→ parameter.fill(generator)

A role is the last word of a tensor's name: query, output, up, embedding, ... Norm weights become 1 (less ``norm_offset``), biases and
buffers 0, whatever the scheme. Everything comes from one generator, in the order of the names: a seed fixes a model.

Letters: W width, D features of a head, H heads, L blocks of a stack, n a matrix's inputs, m its outputs, r ``initializer_range``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from norma.nn.config import Initialisation, ModelConfig

CUTOFF = 2.0  # standard deviations beyond which TensorFlow's truncated_normal draws again
RESIDUAL = ("output", "down")  # projections whose result is added to the residual stream
TABLES = ("embedding", "position_embedding", "segment_embedding")


@dataclass(frozen=True)
class Draw:
    """Where one tensor's numbers come from.

    ``scale`` is the standard deviation of a normal, that of the normal which ``truncated`` cuts at two of them (what is left has 0.88 of
    it), the largest size of a ``uniform``, or the constant itself.
    """

    distribution: Literal["normal", "truncated", "uniform", "constant"]
    scale: float

    def fill(self, parameter: Tensor, generator: torch.Generator) -> None:
        if self.distribution == "normal":
            parameter.normal_(0.0, self.scale, generator=generator)
        elif self.distribution == "truncated":
            cut = CUTOFF * self.scale
            nn.init.trunc_normal_(parameter, 0.0, self.scale, -cut, cut, generator=generator)
        elif self.distribution == "uniform":
            parameter.uniform_(-self.scale, self.scale, generator=generator)
        else:
            parameter.fill_(self.scale)


@dataclass(frozen=True)
class Place:
    """A tensor to be drawn: its name, what it does, its sizes, and the stack it stands in."""

    name: str
    role: str
    shape: torch.Size
    config: ModelConfig

    @property
    def inputs(self) -> int:
        """n: a matrix is (m, n), experts are (E, m, n)."""
        return self.shape[-1]

    @property
    def outputs(self) -> int:
        return self.shape[-2]

    @property
    def depth(self) -> int:
        """L of the stack that the tensor stands in."""
        encoder = self.name.startswith("encoder.") and self.config.encoder_layers
        return self.config.encoder_layers if encoder else self.config.layers

    @property
    def residuals(self) -> int:
        """How many sublayers of that stack add to the residual stream."""
        crossed = self.config.kind == "encoder-decoder" and self.name.startswith("decoder.")
        return self.depth * (3 if crossed else 2)


Scheme = Callable[[Place], Draw]


@torch.no_grad()
def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Fill the model's weights and buffers as ``model.config.initialisation`` says. Tensors without memory (meta device) stay as they are.

    ``generator`` must live on the weights' device.
    """
    config = model.config
    assert isinstance(config, ModelConfig)
    scheme = SCHEMES[config.initialisation]
    for name, parameter in model.named_parameters():
        if not parameter.is_meta:
            draw(name, parameter.shape, config, scheme).fill(parameter, generator)
    for buffer in model.buffers():
        if not buffer.is_meta:
            buffer.zero_()  # fixed biases and experts' balance: with to_empty() they hold what the memory held


def draw(name: str, shape: torch.Size, config: ModelConfig, scheme: Scheme | None = None) -> Draw:
    """Where the tensor ``name`` of a model begins."""
    if name.endswith(".bias") or name == "head_bias":
        return Draw("constant", 0.0)
    role = name.removesuffix(".weight").rpartition(".")[2]
    if role.endswith("norm"):
        return Draw("constant", (0.0 if _silent(name, config) else 1.0) - config.norm_offset)
    return (scheme or SCHEMES[config.initialisation])(Place(name, role, shape, config))


def _silent(name: str, config: ModelConfig) -> bool:
    """Whether a norm weight begins at zero: of ``identity`` the norms that stand between a sublayer and the residual stream.

    Zeroing the projection in front of such a norm instead would divide by the root of eps in the backward pass (Goyal et al., 1706.02677,
    5.1, begin the last norm of a residual block at zero).
    """
    if config.initialisation != "identity" or ".blocks." not in name or name.endswith(("query_norm.weight", "key_norm.weight")):
        return False
    role = name.split(".")[-2]
    return config.norm_placement == "output" or (config.norm_placement == "both" and role.endswith("_output_norm"))


def identity(place: Place) -> Draw:
    """Norma's own, where a paper says nothing: normal with r, but what is added to the residual stream begins at zero.

    A pre-norm block so begins as the identity (Zhang et al., Fixup, 1901.09321, section 3): zero projections, or zero norms behind them.
    """
    behind = place.config.norm_placement == "output" or (place.config.norm_placement == "both" and ".cross." not in place.name)
    if place.role in RESIDUAL and not behind:
        return Draw("constant", 0.0)
    return normal(place)


def normal(place: Place) -> Draw:
    """r = 0.02 everywhere: GPT (Radford et al., 2018, 4.1) and what transformers does for most families."""
    return Draw("normal", place.config.initializer_range)


def gpt2(place: Place) -> Draw:
    """r, and r / sqrt(N) for what is added to the residual stream, N the number of residual layers (Radford et al., 2019, 2.3).

    A block has two, so N = 2 L, as transformers reads it too. Position embeddings have half of r (OpenAI's src/model.py: 0.01 beside 0.02;
    transformers: r).
    """
    scale = place.config.initializer_range
    if place.role in RESIDUAL:
        return Draw("normal", scale / math.sqrt(place.residuals))
    return Draw("normal", scale / 2 if place.role == "position_embedding" else scale)


def bert(place: Place) -> Draw:
    """Truncated normal with r, tables and heads too (google-research/bert, modeling.py, create_initializer)."""
    return Draw("truncated", place.config.initializer_range)


def megatron(place: Place) -> Draw:
    """r, and r / sqrt(2 L) before the residual stream (Shoeybi et al., 1909.08053, 4.2), with ModernBERT's choices where that is silent.

    ModernBERT (2412.13663; its src/bert_layers/initialization.py, full_megatron): all truncated at two standard deviations, the
    prediction head counted as an output, the classifier with 1 / sqrt(W).
    """
    if place.role == "classifier":
        return Draw("truncated", place.config.width**-0.5)
    scale = place.config.initializer_range
    if place.role in RESIDUAL or place.role in ("head_transform", "head"):
        return Draw("truncated", scale / math.sqrt(place.residuals))
    return Draw("truncated", scale)


def glorot(place: Place) -> Draw:
    """Uniform within sqrt(6 / (n + m)) (Glorot and Bengio, 2010, eq. 16); tables and the head normal with 1 / sqrt(W).

    The Transformer's paper (1706.03762) does not say; this is its code, tensor2tensor (transformer_base_v1: uniform_unit_scaling, gain 1;
    modalities.py). With embeddings multiplied by sqrt(W) a token's features begin with variance 1.
    """
    if place.role in (*TABLES, "head"):
        return Draw("normal", place.config.width**-0.5)
    return Draw("uniform", math.sqrt(6.0 / (place.inputs + place.outputs)))


def t5(place: Place) -> Draw:
    """Mesh TensorFlow's, which T5 (1910.10683) was trained with; the paper does not say.

    attention.py: 1 / sqrt(n), the query's divided by sqrt(D) as well, because T5's scores are not. layers.py: tables 1, other matrices
    1 / sqrt(n), truncated. Relative biases have no initializer there, which means Glorot's. (transformers truncates nothing, and has
    1 / sqrt(W) for relative biases and 1 for an untied head.)
    """
    config, scale = place.config, place.inputs**-0.5
    if place.role in TABLES:
        return Draw("normal", 1.0)
    if place.role == "relative_bias":
        return glorot(place)
    if place.role == "query":
        return Draw("normal", scale * config.head_size**-0.5 / config.scale)
    return Draw("normal" if place.role in ("key", "value", "output") else "truncated", scale)


def switch(place: Place) -> Draw:
    """Truncated normal with sqrt(s / n), s = 0.1: a tenth of the usual variance (Fedus et al., 2101.03961, 2.4).

    That is said of weight matrices; tables and relative biases are T5's, of which Switch is a variant.
    """
    if place.role in (*TABLES, "relative_bias"):
        return t5(place)
    return Draw("truncated", math.sqrt(0.1 / place.inputs))


def palm(place: Place) -> Draw:
    """Kernels normal with 1 / sqrt(n), tables with 1 (Chowdhery et al., 2204.02311, section 5, weight initialization).

    The paper scales the token scores by 1 / sqrt(W) for that reason: ``logit_scale``.
    """
    return Draw("normal", 1.0 if place.role in TABLES else place.inputs**-0.5)


def neox(place: Place) -> Draw:
    """sqrt(2 / (5 W)) (Nguyen and Salazar, 1910.05895, 2.2), and 2 / (L sqrt(W)) before the residual stream (Wang and Komatsuzaki, 2021).

    GPT-NeoX-20B, 2204.06745, 2.1. The paper names the feed-forward's output; its code (configs/20B.yml, output_layer_init_method) draws
    the attention's so too.
    """
    width = place.config.width
    if place.role in RESIDUAL:
        return Draw("normal", 2.0 / (place.depth * math.sqrt(width)))
    return Draw("normal", math.sqrt(2.0 / (5.0 * width)))


SCHEMES: Mapping[Initialisation, Scheme] = {
    "identity": identity,
    "normal": normal,
    "gpt2": gpt2,
    "bert": bert,
    "glorot": glorot,
    "t5": t5,
    "switch": switch,
    "palm": palm,
    "neox": neox,
    "megatron": megatron,
}
