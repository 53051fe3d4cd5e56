"""The architectural choices of a Transformer, as one frozen value.

A model has one stack of blocks (a decoder when ``causal``, else an encoder), or two: ``encoder_layers`` > 0 puts an encoder in front
of the decoder. What differs between families is a field here; there is no class per family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Positions = Literal["rotary", "learned", "sinusoidal", "relative", "none"]
Placement = Literal["pre", "post", "output", "both"]
Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]
Head = Literal["lm", "pretraining", "classify", "tokens", "span", "none"]
Initialisation = Literal["identity", "normal", "gpt2", "bert", "glorot", "t5", "switch", "palm", "neox", "megatron"]


@dataclass(frozen=True)
class Experts:
    """A feed-forward layer made of experts, of which a router picks a few for every token (Shazeer et al., 1701.06538)."""

    count: int  # experts of a layer
    per_token: int = 1  # experts a token is sent to; 1: Switch (Fedus et al., 2101.03961)
    width: int | None = None  # inner features of one expert; feed_forward_width when None
    every: int = 1  # layer i has experts when i % every == first
    first: int = 0
    normalise: bool = False  # the chosen experts' weights are made to sum to 1 (Qwen3)
    capacity: int | None = None  # tokens of one row an expert takes at most, first come first served; None: no token is dropped
    balance_bias: bool = False  # a bias for the choice alone, moved by load (Wang et al., 2408.15664)
    auxiliary_weight: float = 0.01  # of the load-balancing loss (2101.03961, eq. 4)
    z_weight: float = 0.001  # of the router z-loss (Zoph et al., 2202.08906, eq. 5)

    def __post_init__(self) -> None:
        if not 1 <= self.per_token <= self.count:
            raise ValueError(f"experts.per_token ({self.per_token}) must lie between 1 and experts.count ({self.count})")
        if not 0 <= self.first < self.every:
            raise ValueError(f"experts.first ({self.first}) must lie between 0 and experts.every - 1 ({self.every - 1})")
        if self.capacity is not None and self.capacity < 1:
            raise ValueError(f"experts.capacity ({self.capacity}) must be at least 1")


@dataclass(frozen=True)
class RotaryScaling:
    """How rotary wavelengths are stretched for texts longer than those of pretraining."""

    kind: Literal["linear", "llama3"]
    factor: float
    low_frequency_factor: float = 1.0  # llama3: wavelengths above original / low are divided by factor
    high_frequency_factor: float = 4.0  # llama3: wavelengths below original / high stay
    original_positions: int = 8192


@dataclass(frozen=True)
class ModelConfig:
    """What makes one Transformer differ from another; everything else is in the weights.

    Sizes are counts of features unless said otherwise. ``family`` names the entry of ``norma.nn.families`` whose Hugging Face layout
    the model is written in.
    """

    family: str
    vocab_size: int
    width: int  # features of a token in the residual stream (d_model)
    layers: int  # blocks of the only stack, or of the decoder
    attention_heads: int
    kv_heads: int  # fewer than attention_heads: grouped queries (Ainslie et al., 2305.13245); 1: multi-query
    head_size: int
    feed_forward_width: int
    max_positions: int

    # Structure
    encoder_layers: int = 0  # blocks of an encoder in front of the decoder; 0: there is one stack only
    causal: bool = True  # the (only) stack reads left to right; False: an encoder such as BERT
    parallel: bool = False  # attention and feed-forward read the same input, their outputs are added (PaLM, 2204.02311, section 2)
    shared_norm: bool = False  # a parallel block has one norm for both (PaLM); False: one each (GPT-NeoX)

    # Norms
    norm: Literal["layer", "rms"] = "rms"
    norm_bias: bool = False  # LayerNorm with an additive term
    norm_eps: float = 1e-5
    norm_placement: Placement = "pre"  # x + f(n(x)); post: n(x + f(x)); output: x + n(f(x)) (OLMo 2); both: x + n(f(n(x))) (Gemma 2)
    norm_offset: float = 0.0  # added to the norm's weight (Gemma: 1, weights start at 0)
    embedding_norm: bool = False  # a norm right after the embeddings (BERT, BART)
    first_attention_norm: bool = True  # False: the first block has none, because the embedding norm has just run (ModernBERT)

    # Embeddings and positions
    positions: Positions = "rotary"
    rope_theta: float = 10000.0  # base of the rotary wavelengths (Su et al., 2104.09864)
    rope_theta_local: float | None = None  # another base for layers with a window (ModernBERT)
    rope_scaling: RotaryScaling | None = None
    rotary_size: int | None = None  # features of a head that turn; the whole head when None (GPT-NeoX: a quarter)
    rotary_interleaved: bool = False  # pairs (0, 1), (2, 3), ... instead of (i, i + rotary_size / 2)
    position_offset: int = 0  # unused rows before position 0 of a learned table (BART, RoBERTa: 2)
    relative_buckets: int = 32  # of relative positions (Raffel et al., 1910.10683, section 2.1)
    relative_distance: int = 128  # from here on all distances share a bucket
    embedding_scale: float = 1.0  # embeddings are multiplied by it (Vaswani et al., 1706.03762, 3.4: sqrt(width))
    segments: int = 0  # rows of the segment embedding (BERT: 2)
    pad_id: int | None = None  # the embedding row of this token gets no gradient from being read

    # Attention
    attention_bias: bool = False  # on query, key and value
    attention_output_bias: bool = False
    attention_scale: float | None = None  # of query-key products; 1 / sqrt(head_size) when None
    attention_softcap: float | None = None  # scores become cap * tanh(scores / cap) (Gemma 2, 2408.00118)
    qk_norm: Literal["none", "head", "width"] = "none"  # RMS norm of queries and keys: of each head (Qwen3) or all together (OLMo 2)
    windows: tuple[int, ...] = (0,)  # a pattern that repeats over the layers: how far a layer looks (see Mask.window); 0: everywhere

    # Feed-forward
    activation: Activation = "silu"
    gated: bool = True  # activation(x W_gate) * (x W_up) (Shazeer, 2002.05202)
    feed_forward_bias: bool = False
    experts: Experts | None = None

    # Head
    head: Head = "lm"  # lm: scores of tokens; pretraining: those and next-sentence; classify, tokens, span: tasks; none: hidden states
    labels: int = 0  # classes of classify and tokens
    tie_embeddings: bool = True  # the head's weight is the embedding (Press and Wolf, 1608.05859)
    head_bias: Literal["none", "learned", "fixed"] = "none"  # of the token scores; fixed: stored, not trained (Marian, BART)
    head_transform: bool = False  # dense, activation and norm before the token scores (BERT)
    head_transform_bias: bool = True
    pooling: Literal["first", "mean"] = "first"  # an encoder's state for the whole text: the first token's, or the mean (ModernBERT)
    pooler: bool = False  # tanh(dense(state of the text)) before classify and next-sentence (BERT, BART); see `pools`
    classifier_bias: bool = True
    logit_scale: float = 1.0  # token scores are multiplied by it (PaLM: 1 / sqrt(width))
    logit_softcap: float | None = None  # as attention_softcap, of the token scores

    # Training
    dropout: float = 0.0  # of embeddings and of each sublayer's output (1706.03762, 5.4)
    initialisation: Initialisation = "identity"  # see norma.nn.initialise
    initializer_range: float = 0.02  # standard deviation where the scheme has one

    def __post_init__(self) -> None:
        if self.attention_heads % self.kv_heads:
            raise ValueError(f"attention_heads ({self.attention_heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.positions == "rotary" and self.rotary % 2:
            raise ValueError(f"head_size or rotary_size ({self.rotary}) must be even: rotary positions turn pairs of features")
        if self.encoder_layers and not self.causal:
            raise ValueError("a model with an encoder in front has a causal decoder: causal must be True")
        if self.shared_norm and not self.parallel:
            raise ValueError("shared_norm belongs to parallel blocks")
        if self.parallel and self.norm_placement != "pre":
            raise ValueError("parallel blocks are pre-norm")
        if self.parallel and self.encoder_layers:
            raise ValueError("parallel blocks have no attention to an encoder: encoder_layers must be 0")

    @property
    def kind(self) -> Literal["encoder", "decoder", "encoder-decoder"]:
        return "encoder-decoder" if self.encoder_layers else ("decoder" if self.causal else "encoder")

    @property
    def rotary(self) -> int:
        """Features of a head that rotary positions turn."""
        return self.head_size if self.rotary_size is None else self.rotary_size

    @property
    def scale(self) -> float:
        """What query-key products are multiplied by."""
        return self.head_size**-0.5 if self.attention_scale is None else self.attention_scale

    @property
    def pools(self) -> bool:
        """Whether the model holds its pooler: for the heads that read one state of a text; the layouts of bare encoders keep it too."""
        return self.pooler and (self.head in ("pretraining", "classify") or (self.head == "none" and self.kind == "encoder"))

    def window(self, layer: int) -> int:
        """How far layer ``layer`` looks; 0: everywhere."""
        return self.windows[layer % len(self.windows)]

    def sparse(self, layer: int) -> bool:
        """Whether layer ``layer`` has experts."""
        return self.experts is not None and layer % self.experts.every == self.experts.first

    def parameters(self) -> int:
        """The number of weights that training moves, tied embeddings counted once."""
        from norma.nn.counting import parameters

        return parameters(self)

    def active_parameters(self) -> int:
        """As :meth:`parameters`, of experts only those a token is sent to."""
        from norma.nn.counting import parameters

        return parameters(self, active=True)

    def flops_per_token(self, length: int) -> int:
        """Floating-point operations of forward and backward for one token of a sequence; see :func:`norma.nn.counting.flops_per_token`."""
        from norma.nn.counting import flops_per_token

        return flops_per_token(self, length)

    def kv_cache_bytes(self, length: int, bytes_per_number: int = 2, source: int = 0) -> int:
        """Bytes of keys and values for one sequence of ``length`` tokens (and ``source`` tokens that an encoder read)."""
        from norma.nn.counting import kv_cache_bytes

        return kv_cache_bytes(self, length, bytes_per_number, source)
