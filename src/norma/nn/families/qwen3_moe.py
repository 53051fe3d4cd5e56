"""Qwen3-MoE: Qwen3 whose feed-forward layers are made of experts, of which a token visits a few.

    norm ─→ attention ─→ + ─→ norm ─→ router ─→ the chosen experts, each a SwiGLU ─→ their weighted sum ─→ +
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from norma.base.errors import NormaError
from norma.nn.config import Experts, ModelConfig
from norma.nn.families import llama_layout as layout
from norma.nn.families.base import Family
from norma.nn.names import Row, stacked

_STRUCTURE: Mapping[str, Any] = {"qk_norm": "head"}


def qwen3_moe(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 64,
    kv_heads: int | None = None,
    max_positions: int = 512,
    attention_heads: int | None = None,
    feed_forward_width: int | None = None,
    experts: int = 8,
    per_token: int = 2,
    expert_width: int | None = None,
    normalise: bool = True,
    auxiliary_weight: float = 0.001,
    tie_embeddings: bool = False,
    rope_theta: float = 10000.0,
) -> ModelConfig:
    """Qwen3-MoE (Yang et al., 2505.09388, section 2): Qwen3 with 128 experts of which 8 are active, none shared, in every layer.

    The chosen experts' weights are made to sum to 1 (``normalise``; with one expert a token they then say nothing, and the router does
    not learn: Switch, 2101.03961, keeps the probability), and a load-balancing loss is added (weight 0.001 in the layout). An expert of
    ``expert_width`` inner features, by default such that the active ones together are as wide as a dense layer's (rounded down).
    """
    inner = feed_forward_width or layout.two_thirds(width)
    return layout.build(
        "qwen3-moe",
        width,
        head_size,
        attention_heads,
        kv_heads,
        vocab_size=vocab_size,
        layers=layers,
        max_positions=max_positions,
        feed_forward_width=inner,
        tie_embeddings=tie_embeddings,
        norm_eps=1e-6,
        rope_theta=rope_theta,
        experts=Experts(
            experts,
            per_token,
            width=expert_width or max(1, inner // per_token),
            normalise=normalise,
            auxiliary_weight=auxiliary_weight,
            z_weight=0.0,
        ),
        **_STRUCTURE,
    )


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    if values["mlp_only_layers"]:
        raise NormaError(f"mlp_only_layers = {values['mlp_only_layers']!r} is not supported", mend="Supported: []")
    every = values["decoder_sparse_step"]
    count = values["num_local_experts"] if "num_local_experts" in values else values["num_experts"]
    try:
        experts = Experts(
            count,
            values["num_experts_per_tok"],
            width=values["moe_intermediate_size"],
            every=every,
            first=every - 1,
            normalise=values["norm_topk_prob"],
            auxiliary_weight=values["router_aux_loss_coef"],
            z_weight=values["router_z_loss_coef"],
        )
    except ValueError as error:
        raise NormaError(str(error)) from None
    window = values.get("sliding_window", 4096) if values["use_sliding_window"] else None
    return {
        **layout.common(values, _STRUCTURE, kv_heads=4),
        "attention_output_bias": values["attention_bias"],
        "windows": (window or 0,),
        "experts": experts,
    }


def _write(config: ModelConfig) -> dict[str, Any]:
    written = layout.entries(
        config, "Qwen3Moe", _STRUCTURE, free=("windows", "attention_bias", "attention_output_bias", "experts")
    )
    layout.one_output_bias(config, "Qwen3Moe")
    windows, experts = {config.window(i) for i in range(config.layers)}, config.experts
    if len(windows) > 1:
        raise NormaError(f"Qwen3Moe cannot hold windows = {config.windows}", where=config.family, mend="It has one window for all layers")
    if experts is None:
        raise NormaError("Qwen3Moe needs experts", where=config.family, mend="Without them the model is a qwen3")
    if experts.capacity is not None or experts.balance_bias:
        what = "capacity" if experts.capacity is not None else "balance_bias"
        raise NormaError(f"Qwen3Moe cannot hold experts.{what}", where=config.family, mend="It drops no token and balances by a loss")
    if experts.first != experts.every - 1:
        raise NormaError(
            f"Qwen3Moe cannot hold experts.first = {experts.first}", where=config.family, mend=f"It has {experts.every - 1}, every - 1"
        )
    return {
        **written,
        "head_dim": config.head_size,
        "sliding_window": max(windows) or None,
        "use_sliding_window": max(windows) > 0,
        "max_window_layers": config.layers,
        "num_experts": experts.count,
        "num_experts_per_tok": experts.per_token,
        "moe_intermediate_size": experts.width or config.feed_forward_width,
        "decoder_sparse_step": experts.every,
        "mlp_only_layers": [],
        "norm_topk_prob": experts.normalise,
        "router_aux_loss_coef": experts.auxiliary_weight,
        "router_z_loss_coef": experts.z_weight,  # not of this layout, but kept by its readers
    }


def _rows(config: ModelConfig) -> list[Row]:
    begin = "" if config.head == "none" else "model."
    ours, theirs = "decoder.blocks.{i}.feed_forward", f"{begin}layers.{{i}}.mlp"
    sparse = [i for i in range(config.layers) if config.sparse(i)]
    each = [Row(f"{ours}.{n}", f"{theirs}.experts.{{e}}.{n}_proj.weight", stacked, sparse) for n in ("gate", "up", "down")]
    return [*layout.rows(config), Row(f"{ours}.router.weight", f"{theirs}.gate.weight", layers=sparse), *each]


def _size(width: int, layers: int, heads: int, inner: int, expert_width: int) -> dict[str, Any]:
    return {
        "vocab_size": 151936,
        "width": width,
        "layers": layers,
        "head_size": 128,
        "kv_heads": 4,
        "max_positions": 40960,
        "attention_heads": heads,
        "feed_forward_width": inner,
        "experts": 128,
        "per_token": 8,
        "expert_width": expert_width,
        "rope_theta": 1000000.0,
    }


FAMILIES: tuple[Family, ...] = (
    Family(
        name="qwen3-moe",
        model_type="qwen3_moe",
        architectures=layout.architectures("Qwen3Moe"),
        preset=qwen3_moe,
        sizes={"30b-a3b": _size(2048, 48, 32, 6144, 768), "235b-a22b": _size(4096, 94, 64, 12288, 1536)},  # table 2; widths: model cards
        keys={**layout.KEYS, "attention_bias": "attention_bias"},
        rows=_rows,
        read=_read,
        write=_write,
        defaults={
            **layout.DEFAULTS,
            "attention_bias": False,
            "use_sliding_window": False,
            "decoder_sparse_step": 1,
            "moe_intermediate_size": 768,
            "num_experts_per_tok": 8,
            "norm_topk_prob": False,
            "mlp_only_layers": (),
            "router_aux_loss_coef": 0.001,
            "router_z_loss_coef": 0.0,
        },
        ignored=layout.IGNORED,
        copies=layout.copies,
        pads=True,
    ),
)
