"""How many weights a config has, how much arithmetic a token costs, how much memory its reading keeps: exact, in closed form.

    parameters(config)            weights that training moves: what sum(p.numel()) over the model would say, without the model
    flops_of_text(config, T, S)   arithmetic of forward and backward for one text, an integer
    flops_per_token(config, T)    that, divided by T
    kv_cache_bytes(config, T)     keys and values that decoding keeps

Letters: W width, H heads, G key/value heads, D features of a head, F inner features, V vocabulary, T tokens, S source tokens.
"""

from __future__ import annotations

from norma.nn.config import ModelConfig

STATES = 16  # bytes a weight takes in training: itself, its gradient and AdamW's two moments, each in fp32


# ── weights ──
def parameters(config: ModelConfig, active: bool = False) -> int:
    """The number of weights that training moves, tied embeddings counted once; fixed biases are not weights.

    Args:
        active: of experts count only those a token is sent to.
    """
    total = config.vocab_size * config.width
    total += sum(_stack(config, stack, active) for stack in _stacks(config))
    return total + _head(config)


def _stacks(config: ModelConfig) -> tuple[str, ...]:
    return ("encoder", "decoder") if config.kind == "encoder-decoder" else (config.kind,)


def _depth(config: ModelConfig, stack: str) -> int:
    return config.encoder_layers if stack == "encoder" and config.encoder_layers else config.layers


def _crossed(config: ModelConfig, stack: str) -> bool:
    """Whether the blocks of ``stack`` look at an encoder's output."""
    return stack == "decoder" and config.kind == "encoder-decoder"


def _stack(config: ModelConfig, stack: str, active: bool) -> int:
    W = config.width
    total = (config.max_positions + config.position_offset) * W if config.positions == "learned" else 0
    total += config.segments * W
    total += config.relative_buckets * config.attention_heads if config.positions == "relative" else 0
    total += _norm(config) * (config.embedding_norm + (config.norm_placement != "post"))
    return total + sum(_block(config, stack, layer, active) for layer in range(_depth(config, stack)))


def _block(config: ModelConfig, stack: str, layer: int, active: bool) -> int:
    crossed = _crossed(config, stack)
    norms = (layer > 0 or config.first_attention_norm) + crossed + (not config.shared_norm) + 2 * (config.norm_placement == "both")
    return norms * _norm(config) + (1 + crossed) * _attention(config) + _feed_forward(config, layer, active)


def _norm(config: ModelConfig) -> int:
    return config.width * (1 + (config.norm == "layer" and config.norm_bias))


def _attention(config: ModelConfig) -> int:
    queries, keys = config.attention_heads * config.head_size, config.kv_heads * config.head_size
    normed = {"none": 0, "head": 2 * config.head_size, "width": queries + keys}[config.qk_norm]
    biases = config.attention_bias * (queries + 2 * keys) + config.attention_output_bias * config.width
    return sum(_attention_products(config)) + biases + normed


def _attention_products(config: ModelConfig) -> tuple[int, int]:
    """Weights of a layer's products with what the queries are made of (query, output), and with what the keys are (key, value)."""
    return 2 * config.width * config.attention_heads * config.head_size, 2 * config.width * config.kv_heads * config.head_size


def _feed_forward(config: ModelConfig, layer: int, active: bool) -> int:
    products = _feed_forward_products(config, layer, active)
    if config.sparse(layer):
        return products  # experts have no biases
    return products + config.feed_forward_bias * ((1 + config.gated) * config.feed_forward_width + config.width)


def _feed_forward_products(config: ModelConfig, layer: int, active: bool) -> int:
    """Weights of a layer's matrices; with experts the router's too."""
    matrices, experts = 2 + config.gated, config.experts
    if experts is None or not config.sparse(layer):
        return matrices * config.width * config.feed_forward_width
    inner = experts.width or config.feed_forward_width
    return experts.count * config.width + (experts.per_token if active else experts.count) * matrices * config.width * inner


def _scores_tokens(config: ModelConfig) -> bool:
    return config.head in ("lm", "pretraining")


def _transformed(config: ModelConfig) -> bool:
    return config.head_transform and (_scores_tokens(config) or (not config.pooler and config.head != "none"))


def _classes(config: ModelConfig) -> int:
    return {"classify": config.labels, "tokens": config.labels, "span": 2}.get(config.head, 0)


def _head(config: ModelConfig) -> int:
    W, classes = config.width, _classes(config)
    total = 0
    if _scores_tokens(config):
        total += config.vocab_size * (W * (not config.tie_embeddings) + (config.head_bias == "learned"))
    if _transformed(config):
        total += W * W + W * config.head_transform_bias + _norm(config)
    if config.pools:
        total += W * W + W
    if config.head == "pretraining":
        total += 2 * W + 2
    return total + classes * (W + config.classifier_bias)


# ── arithmetic ──
def flops_per_token(config: ModelConfig, length: int) -> int:
    """Floating-point operations of forward and backward for one token of a text of ``length`` tokens, rounded to a whole number.

    That is :func:`flops_of_text` / length. Of an encoder-decoder, source and target have ``length`` tokens each, and the number is for
    one of the source together with one of the target.
    """
    total = flops_of_text(config, length, length)
    return (2 * total + length) // (2 * length)


def flops_of_text(config: ModelConfig, length: int, source: int = 0, *, scored: int | None = None) -> int:
    """Floating-point operations of the matrix products, forward and backward, for one text of ``length`` tokens.

    Counted: 6 for every weight of every matrix that a token passes through, 2 of them forward (Kaplan et al., 2001.08361, 2.1), experts
    only where the token is sent, the router, the head on every token; 12 H D for every pair of a query and a key it sees (PaLM,
    2204.02311, appendix B, who count all pairs; here exactly those that the mask leaves). Layers that look at a whole text (pooler,
    classifier of texts) count once. Not counted: norms, activations, softmax, biases, reading the embedding, and what a kernel computes
    for pairs that are masked.

    Args:
        length: tokens of the text; of an encoder-decoder those of the target.
        source: tokens that the encoder of an encoder-decoder reads; other models have none.
        scored: tokens that the head is asked about; by default all.
    """
    total = 6 * ((length if scored is None else scored) * _per_token(config) + _per_text(config))
    for stack in _stacks(config):
        tokens = source if stack == "encoder" and config.encoder_layers else length
        for layer in range(_depth(config, stack)):
            on_queries, on_keys = _attention_products(config)
            weights = tokens * (on_queries + on_keys + _feed_forward_products(config, layer, active=True))
            pairs = keys_seen(tokens, causal=stack == "decoder", window=config.window(layer))
            if _crossed(config, stack):
                weights += tokens * on_queries + source * on_keys
                pairs += tokens * source
            total += 6 * weights + 12 * config.attention_heads * config.head_size * pairs
    return total


def keys_seen(length: int, *, causal: bool, window: int = 0) -> int:
    """Pairs of a query and a key that it sees, in a text of ``length`` tokens; ``window`` as in :class:`norma.nn.mask.Mask`.

    Causal: 1 + 2 + ... + n, then n for each further query. Bidirectional: that on both sides, the query itself counted once.
    """
    reach = min(window or length, length)
    left = reach * (reach + 1) // 2 + (length - reach) * reach
    return left if causal else 2 * left - length


def _per_token(config: ModelConfig) -> int:
    """Weights of the head's matrices that every token passes through."""
    W = config.width
    total = W * config.vocab_size if _scores_tokens(config) else 0
    if config.head != "classify":
        total += W * W * _transformed(config) + W * _classes(config)
    return total


def _per_text(config: ModelConfig) -> int:
    """Weights of the head's matrices that one state of the whole text passes through."""
    W = config.width
    total = W * W if config.pools and config.head != "none" else 0  # without a head nobody asks for the pooled state
    if config.head == "classify":
        total += W * W * _transformed(config) + W * _classes(config)
    return total + 2 * W * (config.head == "pretraining")


# ── memory ──
def kv_cache_bytes(config: ModelConfig, length: int, bytes_per_number: int = 2, source: int = 0) -> int:
    """Bytes of keys and values that :class:`norma.nn.cache.Cache` keeps for one text of ``length`` tokens.

    Layers with a window keep all tokens too. The decoder of an encoder-decoder keeps ``source`` more of what the encoder has read. An
    encoder alone keeps nothing.
    """
    if config.kind == "encoder":
        return 0
    slots = length + (source if config.kind == "encoder-decoder" else 0)
    return 2 * config.layers * config.kv_heads * config.head_size * slots * bytes_per_number


def training_bytes(config: ModelConfig) -> int:
    """Bytes of weights, gradients and AdamW's two moments, all in fp32; activations come on top."""
    return STATES * parameters(config)
