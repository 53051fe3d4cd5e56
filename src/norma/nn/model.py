"""The Transformer: embedding, one stack or two, head.

    ids ─→ embedding ─→ encoder or decoder ─→ hidden states ─→ features ─→ scores
    source ids ─→ embedding ─→ encoder ─→ Memory ─→ decoder (ids) ─→ ...            (encoder-decoder)

Shapes: B batch, T tokens, S source tokens or cache slots, W width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from norma.base.errors import NormaError
from norma.nn.attention import Watch
from norma.nn.cache import Cache
from norma.nn.config import ModelConfig
from norma.nn.initialise import initialise
from norma.nn.layers import Linear, activated, make_norm, product
from norma.nn.mask import Mask
from norma.nn.positions import follow
from norma.nn.stack import Memory, Stack


class Transformer(nn.Module):
    """The Transformer that ``config`` describes. Built on the meta device it costs no memory; it knows nothing of devices or ranks.

    ``start_id``: the token that a decoder behind an encoder begins with; told by who knows the vocabulary.
    """

    start_id: int | None = None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.encoder = Stack(config, "encoder") if config.kind != "decoder" else None
        self.decoder = Stack(config, "decoder") if config.kind != "encoder" else None
        scores_tokens = config.head in ("lm", "pretraining")
        self.head = None if config.tie_embeddings or not scores_tokens else Linear(width, config.vocab_size, bias=False)
        self.register_parameter("head_bias", None)
        if scores_tokens and config.head_bias == "learned":
            self.head_bias = nn.Parameter(torch.zeros(config.vocab_size))
        elif scores_tokens and config.head_bias == "fixed":
            del self.head_bias
            self.register_buffer("head_bias", torch.zeros(config.vocab_size))
        transformed = config.head_transform and (scores_tokens or (not config.pooler and config.head != "none"))
        self.head_transform = Linear(width, width, bias=config.head_transform_bias) if transformed else None
        self.head_norm = make_norm(config) if transformed else None
        self.pooler = Linear(width, width) if config.pools else None
        self.next_sentence = Linear(width, 2) if config.head == "pretraining" else None
        classes = {"classify": config.labels, "tokens": config.labels, "span": 2}.get(config.head)
        self.classifier = None if classes is None else Linear(width, classes, bias=config.classifier_bias)

    def initialise(self, generator: torch.Generator) -> Transformer:
        """New weights as ``config.initialisation`` says; see :mod:`norma.nn.initialise`."""
        initialise(self, generator)
        return self

    @property
    def device(self) -> torch.device:
        """Where the weights are: what is given to the model has to be there too."""
        return self.embedding.weight.device

    @property
    def stack(self) -> Stack:
        """The stack that writes: the decoder, or an encoder that stands alone."""
        stack = self.encoder if self.decoder is None else self.decoder
        assert stack is not None
        return stack

    # ── tokens to hidden states ──
    def hidden(
        self,
        ids_BT: Tensor,
        mask: Mask | None = None,
        positions_BT: Tensor | None = None,
        cache: Cache | None = None,
        dtype: torch.dtype = torch.float32,
        *,
        segments_BT: Tensor | None = None,
        memory: Memory | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Final hidden states (B, T, W) in ``dtype``, of the decoder or of an encoder that stands alone.

        Args:
            ids_BT: token ids, int64.
            mask: which keys are seen. With a cache, the cache's ``visible`` slots decide instead.
            positions_BT: positions; None: 0, 1, 2, ..., counting real tokens only where the mask has padding.
            cache: keys and values read before; the new ones are appended.
            dtype: type of the activations; weights stay in fp32.
            segments_BT: segment of each token, int64 (BERT); None: 0.
            memory: what the encoder has read (:meth:`encode`); an encoder-decoder needs it.
            watch: collects attention weights.
        """
        if self.config.kind == "encoder-decoder" and memory is None:
            raise NormaError(f"{self.config.family} needs a source text", mend="Encode it first: memory=model.encode(ids)")
        mask = mask or Mask()
        start = 0 if cache is None else cache.length
        positions_BT = self._positions(ids_BT, mask, positions_BT, start)
        x = self._embed(ids_BT, dtype)
        out: Tensor = self.stack(x, mask, positions_BT, segments_BT=segments_BT, cache=cache, memory=memory, watch=watch)
        return out

    def encode(
        self,
        ids_BS: Tensor,
        mask: Mask | None = None,
        positions_BS: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        watch: Watch | None = None,
    ) -> Memory:
        """Read a source text with the encoder of an encoder-decoder; arguments as :meth:`hidden`."""
        assert self.encoder is not None and self.decoder is not None, f"{self.config.family} is not an encoder-decoder"
        mask = mask or Mask()
        states = self.encoder(self._embed(ids_BS, dtype), mask, self._positions(ids_BS, mask, positions_BS, 0), watch=watch)
        return Memory(states, mask.padding, mask.documents)

    def _positions(self, ids: Tensor, mask: Mask, positions: Tensor | None, start: int) -> Tensor:
        if positions is not None:
            return positions
        if mask.padding is not None and not start:
            return follow(mask.padding)
        end = start + ids.shape[1]
        if self.config.positions == "learned" and end > self.config.max_positions:
            raise NormaError(f"{end} tokens are more than the {self.config.max_positions} positions of this model", mend="Shorten the text")
        return torch.arange(start, end, device=ids.device)[None]

    def _embed(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        x = F.embedding(ids, self.embedding.weight, self.config.pad_id).to(dtype)
        return x if self.config.embedding_scale == 1.0 else x * self.config.embedding_scale

    # ── hidden states to scores ──
    def head_weight(self) -> Tensor:
        """(V, W): the rows that features are compared with; the embedding itself when tied (Press and Wolf, 1608.05859)."""
        return self.embedding.weight if self.head is None else self.head.weight

    def features(self, hidden: Tensor) -> Tensor:
        """What the head's rows are compared with (..., W): transformed where the head has it, times ``logit_scale``."""
        if self.head_transform is not None and self.head_norm is not None:
            hidden = self.head_norm(activated(self.head_transform, self.config.activation, hidden))
        return hidden if self.config.logit_scale == 1.0 else hidden * self.config.logit_scale

    def logits(self, hidden: Tensor) -> Tensor:
        """Token scores (..., V) in fp32 of hidden states (..., W)."""
        return self.scores(self.features(hidden), self.head_weight())

    def scores(self, features: Tensor, weight: Tensor) -> Tensor:
        """Token scores (..., V) in fp32 of :meth:`features`; ``weight`` is :meth:`head_weight`, perhaps in another type or packed."""
        scores = product(features, weight).float()
        if self.head_bias is not None:
            scores = scores + self.head_bias.float()
        cap = self.config.logit_softcap
        return scores if cap is None else cap * torch.tanh(scores / cap)

    def forward(
        self,
        ids_BT: Tensor,
        mask: Mask | None = None,
        positions_BT: Tensor | None = None,
        *,
        decoder_ids: Tensor | None = None,
        decoder_mask: Mask | None = None,
        segments_BT: Tensor | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Token scores (B, T, V), everything in fp32. An encoder-decoder reads ``ids`` and scores ``decoder_ids``."""
        if self.config.kind != "encoder-decoder":
            return self.logits(self.hidden(ids_BT, mask, positions_BT, segments_BT=segments_BT, watch=watch))
        if decoder_ids is None:
            raise NormaError(f"{self.config.family} reads a source and scores a target", mend="Give decoder_ids=")
        memory = self.encode(ids_BT, mask, positions_BT, watch=watch)
        return self.logits(self.hidden(decoder_ids, decoder_mask, memory=memory, watch=watch))

    # ── hidden states to labels ──
    def pooled(self, hidden_BTW: Tensor, padding_BT: Tensor | None = None) -> Tensor:
        """(B, W): one state for a text, of its real tokens: a decoder's last; an encoder's first, or the mean. Through the pooler.

        The last state of a decoder behind an encoder has seen all of the source and of the target (BART, 1910.13461, section 3.1).
        """
        if padding_BT is None:
            padding_BT = torch.ones(hidden_BTW.shape[:2], dtype=torch.bool, device=hidden_BTW.device)
        B, T, _ = hidden_BTW.shape
        rows, places = torch.arange(B, device=hidden_BTW.device), torch.arange(T, device=hidden_BTW.device)
        if self.decoder is not None:
            state = hidden_BTW[rows, (places * padding_BT).amax(dim=-1)]
        elif self.config.pooling == "mean":
            real = padding_BT[..., None].to(hidden_BTW.dtype)
            state = (hidden_BTW * real).sum(dim=1) / real.sum(dim=1)
        else:
            state = hidden_BTW[rows, padding_BT.int().argmax(dim=-1)]
        return state if self.pooler is None else torch.tanh(self.pooler(state))

    def classify(self, hidden_BTW: Tensor, padding_BT: Tensor | None = None) -> Tensor:
        """Scores of labels in fp32: (B, labels) for ``classify``, (B, T, labels) for ``tokens``, (B, T, 2) start and end for ``span``."""
        assert self.classifier is not None, f"this model has no classifier: its head is '{self.config.head}'"
        x = self.pooled(hidden_BTW, padding_BT) if self.config.head == "classify" else hidden_BTW
        out: Tensor = self.classifier(self.features(x) if self.head_transform is not None else x)
        return out.float()

    def next_sentence_scores(self, hidden_BTW: Tensor, padding_BT: Tensor | None = None) -> Tensor:
        """(B, 2) fp32: that the second segment follows the first, that it does not (BERT, 1810.04805, 3.1)."""
        assert self.next_sentence is not None, f"this model has no next-sentence head: its head is '{self.config.head}'"
        out: Tensor = self.next_sentence(self.pooled(hidden_BTW, padding_BT))
        return out.float()
