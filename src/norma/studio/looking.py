"""Inside a model, as numbers that a page can draw: the founding text's pictures made of a real model.

    text ─→ tokens ─→ next-token or masked-word probabilities, attention weights, router probabilities, logit lens
    config ─→ mask pictures, rotary angles

Pure functions of a model and a text; shapes: T tokens, H heads, L layers, E experts.
"""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Any

import torch
from torch import Tensor

from norma.base.errors import NormaError
from norma.generate.beam import beam_search
from norma.lm import LanguageModel
from norma.nn import Mask, Watch
from norma.nn.experts import ExpertFeedForward
from norma.nn.positions import frequencies

MOST = 96  # tokens of a text that is looked into: more cannot be seen in one picture
WRITTEN = 40  # tokens that a decoder behind an encoder writes of itself
BLANK = "___"  # what people type for a masked word


def describe(model: LanguageModel) -> dict[str, Any]:
    """What kind of model it is, and which pictures it has."""
    c = model.config
    stacks = {"decoder": ["decoder"], "encoder": ["encoder"], "encoder-decoder": ["encoder", "decoder", "cross"]}[c.kind]
    return {
        "name": model.name, "family": c.family, "kind": c.kind, "layers": c.layers, "encoder_layers": c.encoder_layers,
        "heads": c.attention_heads, "kv_heads": c.kv_heads, "width": c.width, "head_size": c.head_size, "vocabulary": c.vocab_size,
        "positions": c.positions, "rope_theta": c.rope_theta, "rotary": c.rotary, "windows": list(c.windows), "norm": c.norm,
        "norm_placement": c.norm_placement, "parameters": c.parameters(), "max_positions": c.max_positions, "stacks": stacks,
        "experts": None if c.experts is None else {"count": c.experts.count, "per_token": c.experts.per_token},
        "masked": mask_id(model) is not None and c.kind == "encoder", "scale": c.scale, "tied": c.tie_embeddings,
    }  # fmt: skip


def encode(model: LanguageModel, text: str) -> list[int]:
    """Ids of a text as the model reads it. Raises NormaError when it is empty or longer than can be shown."""
    tokenizer = model.tokenizer
    ids: list[int] = []
    if model.config.kind == "decoder" and tokenizer.bos_id is not None and tokenizer.config.get("add_bos_token") is not False:
        ids.append(tokenizer.bos_id)
    mask = mask_id(model)
    if mask is not None:
        *before, text = text.split(BLANK)
        for part in before:  # a word's token begins with the space before it, and so does what stands for the word
            ids += [*tokenizer.encode(part.removesuffix(" ")), mask]
    ids += tokenizer.encode(text)
    if model.config.kind == "encoder":
        ends = tokenizer.objective_tokens("pairs") if _has_pairs(model) else ()
        ids = [*ends[:1], *ids, *ends[1:]]
    if not ids:
        raise NormaError("there is nothing to look at", mend="Type a text")
    if model.config.encoder_layers and tokenizer.eos_id is not None:
        return [*ids[: min(MOST, model.config.max_positions) - 1], tokenizer.eos_id]  # as norma.tasks.writing.prompt has it
    return ids[: min(MOST, model.config.max_positions)]


def written(model: LanguageModel, target: str) -> list[int]:
    """Ids that a decoder behind an encoder has read: the token it begins with, then what it has written."""
    start = model.transformer.start_id
    ids = [model.tokenizer.pad_id if start is None else start, *(model.tokenizer.encode(target) if target else [])]
    return ids[: min(MOST, model.config.max_positions)]


def _has_pairs(model: LanguageModel) -> bool:
    try:
        return len(model.tokenizer.objective_tokens("pairs")) == 2
    except NormaError:
        return False


def mask_id(model: LanguageModel) -> int | None:
    """The id of the token that stands for a masked word; None where there is none."""
    if not model.has_tokenizer:
        return None
    try:
        return model.tokenizer.objective_tokens("masked")[0]
    except NormaError:
        return None


def words(model: LanguageModel, ids: list[int]) -> list[dict[str, Any]]:
    """Each token's id and text; of a token that is part of a character (``part``) the bytes, as \\xe4."""
    tokenizer, special = model.tokenizer, set(model.tokenizer.special_ids)
    found = []
    for i in ids:
        text = tokenizer.decode([i], skip_special=False)
        part = "\ufffd" in text
        shown = _bytes(tokenizer.backend.id_to_token(i) or "") if part else text
        found.append({"id": i, "text": shown, "special": i in special, "part": part})
    return found


@cache
def _alphabet() -> dict[str, int]:
    """The bytes behind the characters of a byte-level BPE (GPT-2): those that can be seen are themselves, the others follow from 256 on."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return {chr(b): b for b in seen} | {chr(256 + n): b for n, b in enumerate(b for b in range(256) if b not in seen)}


def _bytes(piece: str) -> str:
    """A piece of a byte-level BPE, or a byte as Llama's tokenizer names it, <0xE4>: characters where they are whole, else bytes."""
    named = re.fullmatch(r"<0x([0-9A-F]{2})>", piece)
    raw = bytes.fromhex(named[1]) if named else bytes(_alphabet().get(c, 0x3F) for c in piece)
    return raw.decode("utf-8", "backslashreplace")


def write(model: LanguageModel, text: str) -> str:
    """What a decoder behind an encoder writes of a text: the most probable token each time."""
    if not model.config.encoder_layers:
        raise NormaError("this model has one stack: it goes on with the text itself", mend="Choose the next token")
    return beam_search(model, [encode(model, text)], beams=1, max_new_tokens=WRITTEN)[0][0].text


@torch.no_grad()
def next_tokens(model: LanguageModel, text: str, target: str = "", count: int = 12, temperature: float = 1.0) -> dict[str, Any]:
    """The most probable next tokens, softmax(z / temperature), and how probable each token of the text was where it stands."""
    ids = encode(model, text)
    if model.config.kind == "encoder":
        raise NormaError("this model reads both ways and foretells no next token", mend=f"Mask a word instead: type {BLANK}")
    source = ids
    if model.config.encoder_layers:
        ids = written(model, target)
        scores = model.logits(torch.tensor([source]), decoder_ids=torch.tensor([ids]))[0]
    else:
        scores = model.logits(torch.tensor([ids]))[0]
    own = scores.log_softmax(dim=-1)
    said = [None, *own[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()] if len(ids) > 1 else [None]
    p = (scores[-1] / max(temperature, 1e-3)).softmax(dim=-1)
    entropy = float(-(p * p.clamp_min(1e-12).log2()).sum())
    return {
        "tokens": [{**w, "p": None if s is None else round(math.exp(s), 5)} for w, s in zip(words(model, ids), said, strict=True)],
        "source": words(model, source) if model.config.encoder_layers else None,
        "next": _top(model, p, count), "entropy": round(entropy, 3),
    }  # fmt: skip


def _top(model: LanguageModel, p_V: Tensor, count: int) -> list[dict[str, Any]]:
    best = p_V.topk(min(count, len(p_V)))
    return [{**w, "p": round(float(v), 5)} for w, v in zip(words(model, best.indices.tolist()), best.values, strict=True)]


@torch.no_grad()
def masked(model: LanguageModel, text: str, count: int = 10) -> dict[str, Any]:
    """What an encoder puts in each masked place."""
    mask = mask_id(model)
    if mask is None or model.config.kind != "encoder":
        raise NormaError("this model was not trained to fill masked words", mend="Choose an encoder such as BERT")
    ids = encode(model, text)
    if mask not in ids:
        raise NormaError("no word is masked", mend=f"Type {BLANK} in place of a word")
    p = model.logits(torch.tensor([ids]))[0].softmax(dim=-1)
    return {"tokens": words(model, ids), "places": [{"at": t, "top": _top(model, p[t], count)} for t, i in enumerate(ids) if i == mask]}


@torch.no_grad()
def attention(model: LanguageModel, text: str, stack: str, layer: int, target: str = "") -> dict[str, Any]:
    """Weights (H, Tq, Tk) of one layer, with the tokens that ask (rows) and are looked at (columns)."""
    ids = encode(model, text)
    network, watch = model.transformer, Watch(layers=frozenset([layer]))
    rows = columns = ids
    if model.config.encoder_layers:
        after = written(model, target)
        network(torch.tensor([ids]), decoder_ids=torch.tensor([after]), watch=watch)
        rows = ids if stack == "encoder" else after
        columns = after if stack == "decoder" else ids
    else:
        network.hidden(torch.tensor([ids]), watch=watch)
    weights = watch.weights.get((stack, layer))
    if weights is None:
        have = sorted({name for name, _ in watch.weights}) or ["none of that layer"]
        raise NormaError(f"this model has no layer {layer} of '{stack[:20]}' attention", mend=f"It has: {', '.join(have)}")
    return {"rows": words(model, rows), "columns": words(model, columns), "weights": _rounded(weights[0])}


@torch.no_grad()
def experts(model: LanguageModel, text: str, target: str = "") -> dict[str, Any]:
    """Which experts each token is sent to: router probabilities (T, E) and the chosen ones, of every layer that has experts."""
    ids = encode(model, text)
    after = written(model, target) if model.config.encoder_layers else ids
    layers = [(n, m) for n, m in model.transformer.named_modules() if isinstance(m, ExpertFeedForward)]
    if not layers:
        raise NormaError("this model has no experts", mend="Choose a mixture of experts such as Switch")
    for _, module in layers:
        module.record = True
    try:
        if model.config.encoder_layers:
            model.transformer(torch.tensor([ids]), decoder_ids=torch.tensor([after]))
        else:
            model.transformer.hidden(torch.tensor([ids]))
        found = []
        for name, module in layers:
            if module.routing is not None:
                read = ids if name.startswith("encoder.") else after
                found.append(
                    {
                        "layer": name.removesuffix(".feed_forward").replace("blocks.", ""), "tokens": words(model, read),
                        "probabilities": _rounded(module.routing.probabilities_NE), "chosen": module.routing.chosen_NK.tolist(),
                    }
                )  # fmt: skip
    finally:
        for _, module in layers:
            module.record, module.routing = False, None
    return {"tokens": words(model, ids), "layers": found}


@torch.no_grad()
def lens(model: LanguageModel, text: str, target: str = "") -> dict[str, Any]:
    """The logit lens (nostalgebraist 2020): last norm and head after every block. (L + 1, T) best token and its probability.

    Of two stacks it is the decoder that is looked through.
    """
    if model.config.head not in ("lm", "pretraining"):
        raise NormaError("the lens looks through models that score tokens")
    ids, stack = encode(model, text), model.transformer.stack
    source, ids = (ids, written(model, target)) if model.config.encoder_layers else (None, ids)
    states: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda m, i, out: states.append(out[0])) for block in stack.blocks]
    first = stack.blocks[0].register_forward_pre_hook(lambda m, args: states.append(args[0][0]))
    try:
        memory = None if source is None else model.transformer.encode(torch.tensor([source]))
        model.transformer.hidden(torch.tensor([ids]), memory=memory)
    finally:
        for hook in (*hooks, first):
            hook.remove()
    rows = []
    for state in states:
        p = model.transformer.logits(state if stack.norm is None else stack.norm(state)).softmax(dim=-1)
        best = p.max(dim=-1)
        rows.append([{**w, "p": round(float(v), 4)} for w, v in zip(words(model, best.indices.tolist()), best.values, strict=True)])
    return {"tokens": words(model, ids), "rows": rows}


def masks(model: LanguageModel, length: int = 16) -> dict[str, Any]:
    """Who may look at whom, (T, T) of 0 and 1: causal, both ways, a prefix, a window, packed documents. The model's own are marked."""
    c, positions = model.config, torch.arange(length)[None]
    prefix = torch.arange(length)[None] < length // 3
    documents = 1 + (torch.arange(length)[None] >= length // 2).long()
    window = max((w for w in c.windows if w), default=0)
    kinds = {
        "causal": (Mask(), True, 0), "bidirectional": (Mask(), False, 0), "prefix": (Mask(prefix=prefix), True, 0),
        "window": (Mask(), c.causal, min(window or 4, length // 3)), "documents": (Mask(documents=documents), True, 0),
    }  # fmt: skip
    own = (
        {"causal" if c.causal else "bidirectional"} | ({"bidirectional"} if c.encoder_layers else set()) | ({"window"} if window else set())
    )
    drawn = [
        {"kind": kind, "own": kind in own, "allowed": m.allowed(positions, causal=causal, window=w)[0, 0].int().tolist()}
        for kind, (m, causal, w) in kinds.items()
    ]
    return {"masks": drawn, "window": window}


def rotary(model: LanguageModel, length: int = 64) -> dict[str, Any]:
    """cos(position x frequency) of every pair of features, (pairs, length), and how the product of equal vectors fades with distance."""
    c = model.config
    if c.positions != "rotary":
        raise NormaError(f"this model has no rotary positions but '{c.positions}'")
    inverse = frequencies(c.rotary, c.rope_theta, c.rope_scaling, torch.device("cpu"))
    angles = torch.arange(length).float()[None, :] * inverse[:, None]
    return {
        "cos": _rounded(angles.cos()), "wavelengths": [round(2 * math.pi / float(f), 2) for f in inverse],
        "fade": _rounded(angles.cos().mean(dim=0)),
    }  # fmt: skip


def _rounded(x: Tensor) -> Any:
    return [round(v, 4) for v in x.tolist()] if x.dim() == 1 else [_rounded(row) for row in x]
