"""T5 and T5 1.1, both in the layout T5: text to text, with relative positions.

    source ids ─→ embedding ─→ encoder ─→ memory             (RMS norms before the sublayers and one at the end; no biases)
    target ids ─→ the same embedding ─→ decoder ─→ scores    T5: the embedding, features / sqrt(width); 1.1: a matrix of its own

Of ``...ForSequenceClassification`` (classify) the last state of the decoder goes through a dense layer and tanh to the labels.

A stack has one table of relative biases, which the layout keeps in its first block. Query-key products are not scaled. The depths of
encoder and decoder may differ, and heads x head_size need not be the width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from norma.base.errors import NormaError
from norma.nn.config import ModelConfig
from norma.nn.families.base import Family, must_hold, read_activation, write_activation
from norma.nn.families.marian import labels_rows, must_have_encoder
from norma.nn.names import Row

RELATIVE: Mapping[str, Any] = {"positions": "relative", "attention_scale": 1.0}
"""What T5, T5 1.1 and Switch share; the rest are the defaults of ModelConfig."""

STRUCTURE: Mapping[str, Any] = {**RELATIVE, "pooler": True}
"""T5's own: Switch's layout has no class for labels."""

HELD = ("encoder_layers", "relative_buckets", "relative_distance")


def t5(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 64,
    kv_heads: int | None = None,
    max_positions: int = 512,
    encoder_layers: int | None = None,
    attention_heads: int | None = None,
    feed_forward_width: int | None = None,
) -> ModelConfig:
    """T5 (Raffel et al., 1910.10683, section 2.1).

    Norms without bias or centring, before the sublayer and outside the residual path; 32 buckets of relative positions, logarithmic up to
    128, shared by the layers of a stack; ReLU feed-forward of 4 x width and dropout 0.1 (3.1.1). Embeddings and scores share a
    matrix; features are divided by sqrt(width) before it, and attention is not scaled by 1 / sqrt(head_size) because initialisation is
    (Mesh TensorFlow, which the paper's code uses). ``max_positions`` is the length of pretraining (512, 3.1.2), not a limit.

    Args:
        encoder_layers: blocks of the encoder; ``layers`` when None.
    """
    return _config(
        family="t5",
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        encoder_layers=encoder_layers or layers,
        head_size=head_size,
        attention_heads=attention_heads or width // head_size,
        kv_heads=kv_heads,
        feed_forward_width=feed_forward_width or 4 * width,
        max_positions=max_positions,
        activation="relu",
        gated=False,
        logit_scale=width**-0.5,
        dropout=0.1,
    )


def t5_v1_1(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 64,
    kv_heads: int | None = None,
    max_positions: int = 512,
    encoder_layers: int | None = None,
    attention_heads: int | None = None,
    feed_forward_width: int | None = None,
) -> ModelConfig:
    """T5 1.1 (google-research/text-to-text-transfer-transformer, released_checkpoints.md), of which FLAN-T5 and ByT5 are made.

    T5 with a feed-forward gated by GELU (Shazeer, "GLU variants improve Transformer", 2002.05202), scores from a matrix of their own and
    not scaled, no dropout in pretraining. The feed-forward has 8/3 of the width unless said otherwise: as many weights as 4 x width
    without a gate (2002.05202, section 2). Arguments as :func:`t5`.
    """
    return _config(
        family="t5-v1.1",
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        encoder_layers=encoder_layers or layers,
        head_size=head_size,
        attention_heads=attention_heads or width // head_size,
        kv_heads=kv_heads,
        feed_forward_width=feed_forward_width or 8 * width // 3,
        max_positions=max_positions,
        activation="gelu_tanh",
        gated=True,
        tie_embeddings=False,
    )


def _config(**fields: Any) -> ModelConfig:
    fields["kv_heads"] = fields["kv_heads"] or fields["attention_heads"]
    return ModelConfig(**STRUCTURE, **fields, norm_eps=1e-6, initialisation="t5")


def prefix(config: ModelConfig) -> str:
    """Of both stacks, in the class for labels alone."""
    return "transformer." if config.head == "classify" else ""


def relative_rows(config: ModelConfig, feed_forward: Callable[[str, str], Iterable[Row]]) -> list[Row]:
    """The tensors that T5 and Switch name alike; ``feed_forward(ours, theirs)`` names those of a stack's feed-forward layers."""
    begin = prefix(config)
    rows = [Row("embedding.weight", f"{begin}shared.weight")]
    for stack in ("encoder", "decoder"):
        block, theirs = f"{stack}.blocks.{{i}}", f"{begin}{stack}.block.{{i}}.layer"
        sublayers = {"attention": "SelfAttention", **({"cross": "EncDecAttention"} if stack == "decoder" else {})}
        for i, (ours, name) in enumerate(sublayers.items()):
            for part in ("query", "key", "value", "output"):
                rows.append(Row(f"{block}.{ours}.{part}.weight", f"{theirs}.{i}.{name}.{part[0]}.weight"))
            rows.append(Row(f"{block}.{ours}_norm.weight", f"{theirs}.{i}.layer_norm.weight"))
        last = len(sublayers)
        rows.append(Row(f"{block}.feed_forward_norm.weight", f"{theirs}.{last}.layer_norm.weight"))
        rows += feed_forward(f"{block}.feed_forward", f"{theirs}.{last}")
        rows.append(Row(f"{stack}.relative_bias.weight", f"{begin}{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"))
        rows.append(Row(f"{stack}.norm.weight", f"{begin}{stack}.final_layer_norm.weight"))
    if config.head == "lm" and not config.tie_embeddings:
        rows.append(Row("head.weight", "lm_head.weight"))
    if config.head == "classify":
        rows += labels_rows()
    return rows


def _rows(config: ModelConfig) -> Sequence[Row]:
    names = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if config.gated else {"up": "wi", "down": "wo"}
    return relative_rows(
        config,
        lambda ours, theirs: [Row(f"{ours}.{part}.weight", f"{theirs}.DenseReluDense.{name}.weight") for part, name in names.items()],
    )


def relative_copies(config: ModelConfig) -> dict[str, str]:
    """Other names of the embedding. A head that the file leaves out is the embedding too: transformers 5 ties all T5s that it makes."""
    begin = prefix(config)
    names = [f"{begin}encoder.embed_tokens.weight", f"{begin}decoder.embed_tokens.weight"]
    return dict.fromkeys([*names, *(["lm_head.weight"] if config.head == "lm" else [])], f"{begin}shared.weight")


def read_relative(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that T5 and Switch read alike."""
    depth = values.get("num_decoder_layers")
    return {
        **RELATIVE,
        "layers": values["num_layers"] if depth is None else depth,
        "kv_heads": values["num_heads"],
        "max_positions": values.get("n_positions") or 512,  # says how long texts were; older writers kept it
    }


def write_relative(config: ModelConfig, layout: str, structure: Mapping[str, Any], free: Sequence[str] = HELD) -> dict[str, Any]:
    """The entries that T5 and Switch write alike. Raises NormaError for a config that they cannot hold."""
    must_hold(config, layout, structure, free=free)
    must_have_encoder(config, layout)
    if config.kv_heads != config.attention_heads:
        raise NormaError(
            f"{layout} cannot hold kv_heads = {config.kv_heads}", where=config.family, mend="It has as many as attention_heads"
        )
    return {"n_positions": config.max_positions, "dropout_rate": config.dropout, "initializer_factor": 1.0}


def _gated(values: Mapping[str, Any]) -> bool:
    stored = values.get("is_gated_act")
    return str(values.get("feed_forward_proj", "relu")).startswith("gated-") if stored is None else bool(stored)


def _activation(values: Mapping[str, Any]) -> str:
    """``dense_act_fn`` where it is written; else what ``feed_forward_proj`` means: ``gated-gelu`` is the tanh form."""
    name = values.get("dense_act_fn") or values["feed_forward_proj"].removeprefix("gated-")
    return "gelu_new" if "dense_act_fn" not in values and values["feed_forward_proj"] == "gated-gelu" else name


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    # T5 scales its features where 1.1 does not. transformers 4 took tie_word_embeddings = false to mean 1.1; transformers 5 writes that
    # key as true always, and what it means as scale_decoder_outputs.
    tied = values["tie_word_embeddings"] is not False
    scaled = tied if values.get("scale_decoder_outputs") is None else bool(values["scale_decoder_outputs"])
    if scaled and not tied:
        raise NormaError("scale_decoder_outputs = True beside tie_word_embeddings = False is not supported", mend="They must be the same")
    return {
        **read_relative(values),
        "pooler": True,
        "gated": _gated(values),
        "activation": read_activation(_activation(values)),
        "tie_embeddings": scaled,
        "logit_scale": values["d_model"] ** -0.5 if scaled else 1.0,
    }


def _write(config: ModelConfig) -> dict[str, Any]:
    scale = config.width**-0.5 if config.tie_embeddings else 1.0
    entries = write_relative(config, "T5", {**STRUCTURE, "gated": config.family == "t5-v1.1", "logit_scale": scale})
    activation = write_activation(config.activation)
    projection = "gelu" if activation == "gelu_new" else activation
    return {
        **entries,
        "feed_forward_proj": f"gated-{projection}" if config.gated else activation,
        "dense_act_fn": activation,
        "is_gated_act": config.gated,
        "tie_word_embeddings": config.tie_embeddings,
        "scale_decoder_outputs": config.tie_embeddings,
    }


KEYS: Mapping[str, str] = {
    "vocab_size": "vocab_size",
    "width": "d_model",
    "encoder_layers": "num_layers",
    "layers": "num_decoder_layers",
    "attention_heads": "num_heads",
    "head_size": "d_kv",
    "feed_forward_width": "d_ff",
    "relative_buckets": "relative_attention_num_buckets",
    "relative_distance": "relative_attention_max_distance",
    "norm_eps": "layer_norm_epsilon",
}
DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 32128,
    "d_kv": 64,
    "d_ff": 2048,
    "num_decoder_layers": None,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "tie_word_embeddings": True,
}
"""Of T5Config and SwitchTransformersConfig both."""

FIXED: Mapping[str, Any] = {"is_encoder_decoder": True, "is_decoder": False}
UNUSED = ("*decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)  # the first T5 files hold it; nothing ever read it


def _size(width: int, layers: int, heads: int, inner: int, head_size: int = 64) -> dict[str, Any]:
    sizes = {"width": width, "layers": layers, "attention_heads": heads, "feed_forward_width": inner, "head_size": head_size}
    return {"vocab_size": 32128, **sizes}


def _family(name: str, preset: Callable[..., ModelConfig], sizes: Mapping[str, Mapping[str, Any]], owns: Callable[..., bool]) -> Family:
    return Family(
        name=name,
        model_type="t5",
        architectures={"lm": "T5ForConditionalGeneration", "classify": "T5ForSequenceClassification", "none": "T5Model"},
        aliases={"T5WithLMHeadModel": "lm"},
        preset=preset,
        sizes=sizes,
        keys=KEYS,
        rows=_rows,
        read=_read,
        write=_write,
        fixed=FIXED,
        defaults={**DEFAULTS, "d_model": 512, "num_layers": 6, "num_heads": 8, "feed_forward_proj": "relu"},
        ignored=UNUSED,
        copies=relative_copies,
        owns=owns,
        start="pad",
    )


FAMILIES: tuple[Family, ...] = (
    _family(
        "t5",
        t5,
        {  # section 3.7, "Model sizes"; base: section 3.1.1
            "small": _size(512, 6, 8, 2048),
            "base": _size(768, 12, 12, 3072),
            "large": _size(1024, 24, 16, 4096),
            "3b": _size(1024, 24, 32, 16384, 128),
            "11b": _size(1024, 24, 128, 65536, 128),
        },
        lambda values: not _gated(values),
    ),
    _family(
        "t5-v1.1",
        t5_v1_1,
        {  # released_checkpoints.md
            "small": _size(512, 8, 6, 1024),
            "base": _size(768, 12, 12, 2048),
            "large": _size(1024, 24, 16, 2816),
            "xl": _size(2048, 24, 32, 5120),
            "xxl": _size(4096, 24, 64, 10240),
        },
        _gated,
    ),
)
