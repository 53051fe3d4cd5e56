"""One batch through both implementations: the same names for what comes out of each.

    Batch ─→ theirs(model, batch) ─→ {"logits": (B, T, V), ...} ←─ ours(model, batch) ←─ Batch

Shapes: B rows, T tokens, S tokens of a source text, V vocabulary.
"""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from norma.base.errors import NormaError
from norma.nn import Mask, ModelConfig, Transformer
from norma.nn.attention import Watch
from norma.nn.positions import follow

Outputs = dict[str, Tensor]

IGNORED = -100  # a label that does not count
WHOLE_TEXT = ("classes", "next sentence", "pooled")  # outputs of a whole row; the others have an axis of tokens
FIRST = 5  # token ids below it are left to special tokens

_NAMES = {  # theirs → ours
    "prediction_logits": "logits",
    "seq_relationship_logits": "next sentence",
    "start_logits": "start",
    "end_logits": "end",
    "last_hidden_state": "states",
    "pooler_output": "pooled",
}


def transformers() -> Any:
    """The library, quiet. Raises NormaError when it is not installed."""
    try:
        library = importlib.import_module("transformers")
    except ImportError:
        raise NormaError("transformers is not installed, and parity is measured against it", mend="pip install 'norma-lm[test]'") from None
    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    return library


@dataclass(frozen=True)
class Batch:
    """Rows to read, (B, T) each; of an encoder-decoder ``ids`` is the source (B, S) and ``target`` what the decoder reads."""

    ids: Tensor
    segments: Tensor | None = None
    target: Tensor | None = None
    real: Tensor | None = None  # bool, False at padding; None: no padding
    target_real: Tensor | None = None

    def alone(self, row: int) -> Batch:
        """One row without its padding."""

        def cut(x: Tensor | None, real: Tensor | None) -> Tensor | None:
            return None if x is None else x[row : row + 1] if real is None else x[row, real[row]][None]

        ids = cut(self.ids, self.real)
        assert ids is not None
        return Batch(ids, cut(self.segments, self.real), cut(self.target, self.target_real))

    @property
    def written(self) -> Tensor | None:
        """Which tokens of the side that scores are real."""
        return self.real if self.target is None else self.target_real


def draw(config: ModelConfig, pad: int | None, rows: int, length: int, source: int, random: torch.Generator, *, with_pad: bool) -> Batch:
    """A batch without padding. ``with_pad``: the pad token stands in it once as an ordinary token."""
    known = torch.tensor([i for i in range(FIRST, config.vocab_size) if i != pad])

    def tokens(n: int) -> Tensor:
        ids = known[torch.randint(len(known), (rows, n), generator=random)]
        if with_pad and pad is not None:
            ids[0, 2] = pad
        return ids

    two = config.kind == "encoder-decoder"
    ids = tokens(source if two else length)
    segments = torch.randint(config.segments, ids.shape, generator=random) if config.segments else None
    return Batch(ids, segments, tokens(length) if two else None)


def padded(batch: Batch, side: str, pad: int) -> Batch:
    """Row r of the batch shortened by 3r tokens, the free places at ``side`` filled with ``pad``."""

    def shorten(ids: Tensor) -> tuple[Tensor, Tensor]:
        real = torch.arange(ids.shape[1]) < (ids.shape[1] - 3 * torch.arange(len(ids)))[:, None]
        real = real if side == "right" else real.flip(1)
        return torch.where(real, ids, pad), real

    ids, real = shorten(batch.ids)
    target, target_real = (None, None) if batch.target is None else shorten(batch.target)
    return Batch(ids, batch.segments, target, real, target_real)


# ── outputs ──
def ours(model: Transformer, batch: Batch, watch: Watch | None = None) -> Outputs:
    """Our outputs, by the names of :data:`_NAMES`."""
    config, mask = model.config, Mask(padding=batch.real)
    if batch.target is None:
        hidden = model.hidden(batch.ids, mask, segments_BT=batch.segments, watch=watch)
    else:
        memory = model.encode(batch.ids, mask, watch=watch)
        hidden = model.hidden(batch.target, Mask(padding=batch.target_real), memory=memory, watch=watch)
    if config.head == "lm":
        return {"logits": model.logits(hidden)}
    if config.head == "pretraining":
        return {"logits": model.logits(hidden), "next sentence": model.next_sentence_scores(hidden)}
    if config.head == "none":
        return {"states": hidden} | ({"pooled": model.pooled(hidden)} if config.pools else {})
    scores = model.classify(hidden, batch.written)
    if config.head == "span":
        return {"start": scores[..., 0], "end": scores[..., 1]}
    return {"classes" if config.head == "classify" else "logits": scores}


def arguments(model: Any, config: ModelConfig, batch: Batch) -> dict[str, Any]:
    """What their ``forward`` takes. Position ids follow the mask where they take any and do not count by themselves."""
    given: dict[str, Any] = {"input_ids": batch.ids}
    if batch.segments is not None:
        given["token_type_ids"] = batch.segments
    if batch.target is not None:
        given["decoder_input_ids"] = batch.target
    if batch.real is not None:
        given["attention_mask"] = batch.real.long()
        if takes_positions(model) and not config.position_offset:
            given["position_ids"] = follow(batch.real)
    if batch.target_real is not None:
        given["decoder_attention_mask"] = batch.target_real.long()
    return given


def takes_positions(model: Any) -> bool:
    return "position_ids" in inspect.signature(model.forward).parameters


def named(result: Any, config: ModelConfig) -> Outputs:
    """Their outputs under our names."""
    found = {ours: result[theirs] for theirs, ours in _NAMES.items() if result.get(theirs) is not None}
    if "logits" in result:
        found["classes" if config.head == "classify" else "logits"] = result["logits"]
    if not config.pools:
        found.pop("pooled", None)
    return found


def attention(result: Any, config: ModelConfig) -> dict[tuple[str, int], Tensor]:
    """Their attention weights under the names of :class:`norma.nn.attention.Watch`."""
    if config.kind == "encoder-decoder":
        stacks = {"encoder": result["encoder_attentions"], "decoder": result["decoder_attentions"], "cross": result["cross_attentions"]}
    else:
        stacks = {config.kind: result["attentions"]}
    return {(stack, i): weights for stack, layers in stacks.items() for i, weights in enumerate(layers)}


# ── losses ──
def labels(config: ModelConfig, batch: Batch, random: torch.Generator) -> dict[str, Tensor]:
    """Their ``labels=`` and so on; empty for a model without a head."""
    rows, T = batch.ids.shape if batch.target is None else batch.target.shape

    def anything(below: int, *shape: int) -> Tensor:
        return torch.randint(below, shape, generator=random)

    if config.head == "none":
        return {}
    if config.head == "span":
        return {"start_positions": anything(T, rows), "end_positions": anything(T, rows)}
    if config.head == "classify":
        return {"labels": anything(config.labels, rows)}
    if config.head == "tokens":
        return {"labels": anything(config.labels, rows, T)}
    if config.kind == "decoder":
        return {"labels": batch.ids}
    wanted = anything(config.vocab_size, rows, T)
    wanted[:, ::3] = IGNORED
    return {"labels": wanted} | ({"next_sentence_label": anything(2, rows)} if config.head == "pretraining" else {})


def our_loss(config: ModelConfig, outputs: Outputs, wanted: dict[str, Tensor]) -> Tensor:
    """Written from the definitions: mean cross-entropies, of the next token in a decoder."""
    if config.head == "none":
        return stateless_loss(outputs)
    if config.head == "span":
        both = (outputs["start"], wanted["start_positions"]), (outputs["end"], wanted["end_positions"])
        return torch.stack([F.cross_entropy(scores, right) for scores, right in both]).mean()
    if config.head == "classify":
        return F.cross_entropy(outputs["classes"], wanted["labels"])
    scores, right = outputs["logits"], wanted["labels"]
    if config.kind == "decoder" and config.head == "lm":
        scores, right = scores[:, :-1], right[:, 1:]
    loss = F.cross_entropy(scores.flatten(0, 1), right.flatten(), ignore_index=IGNORED)
    return loss + F.cross_entropy(outputs["next sentence"], wanted["next_sentence_label"]) if "next sentence" in outputs else loss


def stateless_loss(outputs: Outputs) -> Tensor:
    """For models without a head: the mean of all states, each times a fixed random number."""
    random = torch.Generator().manual_seed(0)
    return torch.stack([(x * torch.randn(x.shape, generator=random)).mean() for _, x in sorted(outputs.items())]).sum()


# ── files ──
def saved(model: Any, folder: Path) -> dict[str, Tensor]:
    """What their ``save_pretrained`` writes."""
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def gradients(model: Any, folder: Path) -> dict[str, Tensor]:
    """Their gradients under the names and in the shapes of their file: saved as if they were the weights. The model is used up."""
    for parameter in model.parameters():
        parameter.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return saved(model, folder)


def randomise(model: torch.nn.Module, spread: float, random: torch.Generator) -> None:
    """Add normal numbers to every weight and every stored buffer, so that no norm is 1 and no bias 0."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    stored = {name for name, _ in model.named_buffers()}
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in trained or (name in stored and tensor.is_floating_point()):
                tensor += spread * torch.randn(tensor.shape, generator=random)
