"""Switch Transformers, in the layout SwitchTransformers: T5 whose every second feed-forward layer is made of experts.

    ... ─→ norm ─→ attention ─→ + ─→ norm ─→ router ─→ one expert, times its probability ─→ + ─→ ...

An expert takes ``capacity`` tokens of a row; what comes later passes by on the residual path. The layout counts sparse layers in each
stack, and keeps a tensor for each expert.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from norma.base.errors import NormaError
from norma.nn.config import Experts, ModelConfig
from norma.nn.families import t5
from norma.nn.families.base import Family, read_activation, write_activation
from norma.nn.names import Row, depth, stacked

BOUNDLESS = 2**31 - 1
"""A capacity that no row fills: the layout has no word for a layer that drops nothing."""


def switch(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    experts: int,
    head_size: int = 64,
    kv_heads: int | None = None,
    max_positions: int = 512,
    encoder_layers: int | None = None,
    attention_heads: int | None = None,
    feed_forward_width: int | None = None,
    capacity: int | None = None,
    every: int = 2,
) -> ModelConfig:
    """Switch Transformers (Fedus et al., 2101.03961), in the form that was released: T5 with ReLU and a tied head.

    One expert per token (2.1), chosen by a router in fp32 (2.4, "selective precision"); auxiliary loss with factor 0.01 (2.2, eq. 4) for
    each sparse layer; experts at every other feed-forward layer (table 1); initialisation with a tenth of the usual variance (2.4); dropout
    0.1 outside the experts (2.4, table 4; this implementation has none inside them). The z-loss is ST-MoE's (Zoph et al., 2202.08906,
    eq. 5), factor 0.001.

    Args:
        experts: experts of a sparse layer.
        capacity: tokens of a row that an expert takes; None: no token is dropped. The released models have 64. (The paper's bound is
            tokens / experts x capacity factor (eq. 3), which changes with the length of the text.)
        every: one layer in so many has experts, from the second on.
        encoder_layers: blocks of the encoder; ``layers`` when None.
    """
    heads = attention_heads or width // head_size
    return ModelConfig(
        family="switch",
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        encoder_layers=encoder_layers or layers,
        attention_heads=heads,
        kv_heads=kv_heads or heads,
        head_size=head_size,
        feed_forward_width=feed_forward_width or 4 * width,
        max_positions=max_positions,
        norm_eps=1e-6,
        activation="relu",
        gated=False,
        experts=Experts(count=experts, every=every, first=min(1, every - 1), capacity=capacity),
        logit_scale=width**-0.5,
        dropout=0.1,
        initialisation="switch",
        **t5.RELATIVE,
    )


def _rows(config: ModelConfig) -> Sequence[Row]:
    def feed_forward(ours: str, theirs: str) -> Iterator[Row]:
        layers = range(depth(config, ours.partition(".")[0]))
        dense = [i for i in layers if not config.sparse(i)]
        sparse = [i for i in layers if config.sparse(i)]
        yield Row(f"{ours}.router.weight", f"{theirs}.mlp.router.classifier.weight", layers=sparse)
        for part, name in (("up", "wi"), ("down", "wo")):
            yield Row(f"{ours}.{part}.weight", f"{theirs}.mlp.{name}.weight", layers=dense)
            yield Row(f"{ours}.{part}", f"{theirs}.mlp.experts.expert_{{e}}.{name}.weight", stacked, layers=sparse)

    return t5.relative_rows(config, feed_forward)


def _step(values: Mapping[str, Any], stack: str, layers: int) -> int:
    """How many layers of a stack make a period with one sparse layer: stored, or from the number of sparse layers."""
    stored = values.get(f"{stack}_sparse_step")
    if stored is not None:
        return int(stored)
    count = values[f"num_sparse_{stack}_layers"]
    return int(layers // count if count > 0 else layers)  # with 0 the layout still has one sparse layer, the second


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    fields = t5.read_relative(values)
    steps = {stack: _step(values, stack, n) for stack, n in (("encoder", values["num_layers"]), ("decoder", fields["layers"]))}
    every = steps["encoder"]
    if every != steps["decoder"]:
        raise NormaError(
            f"experts in every {every}. layer of the encoder but every {steps['decoder']}. of the decoder are not supported",
            mend="encoder_sparse_step and decoder_sparse_step must be the same",
        )
    if every < 1:
        raise NormaError(f"encoder_sparse_step = {every} is not supported", mend="A model without experts is a t5")
    capacity = values["expert_capacity"]
    experts = Experts(
        count=values["num_experts"],
        every=every,
        first=min(1, every - 1),
        capacity=None if capacity >= BOUNDLESS else capacity,
        auxiliary_weight=values["router_aux_loss_coef"],
        z_weight=values["router_z_loss_coef"],
    )
    activation = read_activation(values["dense_act_fn"])
    return {**fields, "gated": False, "activation": activation, "experts": experts, "logit_scale": values["d_model"] ** -0.5}


def _write(config: ModelConfig) -> dict[str, Any]:
    structure = {**t5.RELATIVE, "gated": False, "logit_scale": config.width**-0.5}
    entries = t5.write_relative(config, "SwitchTransformers", structure, free=(*t5.HELD, "experts"))
    experts = config.experts
    if experts is None:
        raise NormaError("SwitchTransformers cannot hold a model without experts", where=config.family, mend="That is a t5")
    if not config.tie_embeddings:
        raise NormaError("SwitchTransformers cannot hold tie_embeddings = False", where=config.family, mend="It has True")
    only: dict[str, tuple[Any, ...]] = {
        "per_token": (1,),
        "width": (None, config.feed_forward_width),
        "first": (min(1, experts.every - 1),),
        "normalise": (False,),
        "balance_bias": (False,),
    }
    for name, values in only.items():
        found = getattr(experts, name)
        if found not in values:
            raise NormaError(f"SwitchTransformers cannot hold experts.{name} = {found}", where="switch", mend=f"It has {values[-1]}")
    counts = {
        stack: sum(config.sparse(i) for i in range(n)) for stack, n in (("encoder", config.encoder_layers), ("decoder", config.layers))
    }
    return {
        **entries,
        "dense_act_fn": write_activation(config.activation),
        "num_experts": experts.count,
        "expert_capacity": BOUNDLESS if experts.capacity is None else experts.capacity,
        **{f"num_sparse_{stack}_layers": count for stack, count in counts.items()},
        **{f"{stack}_sparse_step": experts.every for stack in counts},
        "router_aux_loss_coef": experts.auxiliary_weight,
        "router_z_loss_coef": experts.z_weight,
        "router_jitter_noise": 0.0,
    }


def _base(experts: int) -> dict[str, Any]:
    return {"vocab_size": 32128, "width": 768, "layers": 12, "experts": experts, "capacity": 64}


FAMILIES: tuple[Family, ...] = (
    Family(
        name="switch",
        model_type="switch_transformers",
        architectures={"lm": "SwitchTransformersForConditionalGeneration", "none": "SwitchTransformersModel"},
        preset=switch,
        sizes={  # the released models
            **{f"base-{n}": _base(n) for n in (8, 16, 32, 64, 128, 256)},
            "large-128": {**_base(128), "width": 1024, "layers": 24},
        },
        keys=t5.KEYS,
        rows=_rows,
        read=_read,
        write=_write,
        fixed={
            **t5.FIXED,
            "add_cross_attention": False,
            "tie_word_embeddings": True,
            "router_bias": False,
            "router_dtype": "float32",
            "router_ignore_padding_tokens": False,
            "is_gated_act": False,
            "num_selected_experts": 1,
            "router_type": "tokens_masked",
        },
        defaults={
            **t5.DEFAULTS,
            "d_model": 768,
            "num_layers": 12,
            "num_heads": 12,
            "num_decoder_layers": 12,
            "num_sparse_encoder_layers": 3,
            "num_sparse_decoder_layers": 3,
            "num_experts": 8,
            "expert_capacity": 64,
            "dense_act_fn": "relu",
            "router_z_loss_coef": 0.001,
            "router_aux_loss_coef": 0.001,
        },
        ignored=t5.UNUSED,
        copies=t5.relative_copies,
        start="pad",
    ),
)
