"""The architectural choices of a Transformer, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelConfig:
    """What makes one Transformer differ from another; everything else is in the weights.

    Sizes are counts of features unless said otherwise. ``family`` names the Hugging Face layout the model is written in.
    """

    family: str
    vocab_size: int
    width: int  # features of a token in the residual stream (d_model)
    layers: int
    attention_heads: int
    kv_heads: int  # fewer than attention_heads: grouped queries (Ainslie et al., 2305.13245); 1: multi-query
    head_size: int
    feed_forward_width: int
    max_positions: int
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0  # base of the rotary wavelengths (Su et al., 2104.09864)
    attention_bias: bool = False  # on q, k and v (Qwen2)
    qk_norm: bool = False  # RMS norm of each query and key head (Qwen3)
    tie_embeddings: bool = True
    initializer_range: float = 0.02  # standard deviation of the normal initialisation

    def __post_init__(self) -> None:
        if self.attention_heads % self.kv_heads:
            raise ValueError(f"attention_heads ({self.attention_heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.head_size % 2:
            raise ValueError(f"head_size ({self.head_size}) must be even: rotary positions turn pairs of features")

    def parameters(self) -> int:
        """The number of weights, tied embeddings counted once."""
        attention = self.width * self.head_size * 2 * (self.attention_heads + self.kv_heads)
        attention += self.attention_bias * self.head_size * (self.attention_heads + 2 * self.kv_heads)
        attention += self.qk_norm * 2 * self.head_size
        block = attention + 3 * self.width * self.feed_forward_width + 2 * self.width
        return self.layers * block + self.width + self.vocab_size * self.width * (1 if self.tie_embeddings else 2)

    def flops_per_token(self, length: int) -> int:
        """Floating-point operations of forward and backward for one token of a causal sequence of ``length`` tokens.

        6 for every weight of a matrix product (Kaplan et al., 2001.08361, 2.1) and 12 * layers * heads * head_size * T / 2 for
        attention's two products (PaLM, 2204.02311, appendix B, halved for the causal triangle).
        """
        weights = self.layers * (
            self.width * self.head_size * 2 * (self.attention_heads + self.kv_heads) + 3 * self.width * self.feed_forward_width
        )
        weights += self.vocab_size * self.width
        return 6 * weights + 6 * self.layers * self.attention_heads * self.head_size * length

    def kv_cache_bytes(self, length: int, bytes_per_number: int = 2) -> int:
        """Bytes of keys and values for one sequence of ``length`` tokens."""
        return 2 * self.layers * self.kv_heads * self.head_size * length * bytes_per_number
