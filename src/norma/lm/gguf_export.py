"""A model folder as one GGUF file, for llama.cpp and what is built on it: what :mod:`norma.lm.gguf` reads, the other way round.

    config.json ─→ general.*, <architecture>.*       model.layers.0.self_attn.q_proj.weight, ... ─→ blk.0.attn_q.weight, ...
    tokenizer.json ─→ tokenizer.ggml.* (tokens, their types, merges or scores, how text is split, by name)

What the file cannot hold is refused by name: another architecture, a bias that llama.cpp has no place for, a way of splitting text that it
does not know. What it holds otherwise is told (``Exported.notes``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from norma.base.errors import NormaError
from norma.base.files import disk_errors
from norma.lm.gguf import _PARTS, _WAVELENGTHS, _WHOLE, ARCHITECTURES, INSTALL
from norma.lm.gguf_tokenizer import _PATTERNS, CONTROL, UNKNOWN
from norma.lm.model import LanguageModel
from norma.nn import to_hf
from norma.nn.config import RotaryScaling
from norma.nn.lora import plain_state
from norma.nn.positions import frequencies

TYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}
_NORMAL, _UNUSED, _BYTE = 1, 5, 6
_SMOLLM, _GPT2 = "smollm", "gpt-2"
_NAMES = {"llama-bpe": "llama-bpe", "qwen2": "qwen2", "tekken": "tekken", "gpt-4o": "gpt-4o"}
_BLOCK = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")


@dataclass(frozen=True)
class Exported:
    """``tensors`` written, and what the file holds otherwise than the folder, in words."""

    path: Path
    tensors: int
    bytes: int
    notes: list[str]


def write_gguf(model: LanguageModel, path: Path, kind: str = "fp16") -> Exported:
    """Write ``model`` to ``path``, whole or not at all; matrices as ``kind`` (a key of ``TYPES``), all else in fp32.

    Raises NormaError for what the format, or llama.cpp, has no place for.
    """
    try:
        import gguf
    except ImportError:
        raise NormaError("writing GGUF needs the gguf package", where=path, mend=INSTALL) from None
    values = model._config_json()
    name = str(values["model_type"])
    if name not in ARCHITECTURES:
        raise NormaError(f"GGUF is not written for the family '{name}'", where=model.name, mend=f"Supported: {', '.join(ARCHITECTURES)}")
    weights = _tensors(model, values, ARCHITECTURES[name].turned)
    notes: list[str] = []
    tokenizer = tokens_of(model, notes) if model.has_tokenizer else {}
    temporary = path.with_name(f".{path.name}.tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = gguf.GGUFWriter(temporary, name)
        try:
            _settings(writer, model, values, name, gguf, kind)
            for key, value in tokenizer.items():
                _entry(writer, f"tokenizer.{key}", value)
            for tensor, data in weights.items():
                _add(writer, tensor, data, kind, gguf)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return Exported(path, len(weights), path.stat().st_size, notes)


# ── settings ──
def _settings(writer: Any, model: LanguageModel, values: Mapping[str, Any], name: str, gguf: Any, kind: str) -> None:
    if values.get("sliding_window") and values.get("use_sliding_window", True):
        raise NormaError("llama.cpp has no sliding windows for this family", where=model.name, mend="Serve the folder with 'norma serve'")
    if values.get("hidden_act", "silu") != "silu":
        raise NormaError(f"GGUF's '{name}' has the activation silu, not {values['hidden_act']}", where=model.name)
    heads = values["num_attention_heads"]
    head = values.get("head_dim") or values["hidden_size"] // heads
    writer.add_name(model.name)
    writer.add_context_length(values["max_position_embeddings"])
    writer.add_embedding_length(values["hidden_size"])
    writer.add_block_count(values["num_hidden_layers"])
    writer.add_feed_forward_length(values["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(values.get("num_key_value_heads") or heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(values["rms_norm_eps"])
    rope = values.get("rope_parameters") or {}
    writer.add_rope_freq_base(float(values.get("rope_theta") or rope.get("rope_theta") or 10000.0))
    writer.add_vocab_size(model.config.vocab_size)
    writer.add_file_type(
        getattr(gguf.LlamaFileType, {"fp32": "ALL_F32", "fp16": "MOSTLY_F16", "bf16": "MOSTLY_BF16"}.get(kind, "MOSTLY_Q8_0"))
    )
    if model.config.rope_scaling is not None and model.config.rope_scaling.kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(model.config.rope_scaling.factor)


def _entry(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


# ── tensors ──
def _tensors(model: LanguageModel, values: Mapping[str, Any], turned: bool) -> dict[str, Tensor]:
    """The layout's tensors by llama.cpp's names."""
    parts = {theirs: ours for ours, theirs in _PARTS.items()}
    whole = {theirs: ours for ours, theirs in _WHOLE.items()}
    heads = {"attn_q": values["num_attention_heads"], "attn_k": values.get("num_key_value_heads") or values["num_attention_heads"]}
    found: dict[str, Tensor] = {}
    for name, tensor in to_hf(model.config, plain_state(model.transformer)).items():
        if name == "lm_head.weight" and values.get("tie_word_embeddings"):
            continue
        block = _BLOCK.fullmatch(name)
        if name in whole:
            found[whole[name]] = tensor
        elif block is not None and block[2] in parts:
            part = parts[block[2]]
            data = turn(tensor, heads[part]) if turned and part in heads else tensor
            found[f"blk.{block[1]}.{part}.{block[3]}"] = data
        else:
            raise NormaError(f"GGUF has no place for {name}", where=model.name)
    scaling = model.config.rope_scaling
    if scaling is not None and scaling.kind == "llama3":
        found[_WAVELENGTHS] = _wavelengths(model, scaling)
    elif scaling is not None and scaling.kind != "linear":
        raise NormaError(f"rotary scaling '{scaling.kind}' is not written to GGUF", where=model.name)
    return found


def _wavelengths(model: LanguageModel, scaling: RotaryScaling) -> Tensor:
    """By how much each wavelength is stretched, as llama.cpp has Llama 3's."""
    config, device = model.config, torch.device("cpu")
    plain, stretched = (frequencies(config.head_size, config.rope_theta, s, device) for s in (None, scaling))
    return plain / stretched


def turn(tensor: Tensor, heads: int) -> Tensor:
    """Rows of each head from the layout's two halves to pairs that turn together: (0, n/2, 1, n/2 + 1, ...)."""
    return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape).contiguous()


def _add(writer: Any, name: str, tensor: Tensor, kind: str, gguf: Any) -> None:
    data = tensor.detach().float().cpu().contiguous().numpy()
    wanted = getattr(gguf.GGMLQuantizationType, TYPES[kind] if data.ndim > 1 else "F32")
    if kind == "q8_0" and data.ndim > 1 and data.shape[-1] % 32:
        wanted = gguf.GGMLQuantizationType.F16  # blocks of 32 do not fit
    if wanted == gguf.GGMLQuantizationType.F32:
        writer.add_tensor(name, data)
    elif wanted == gguf.GGMLQuantizationType.F16:
        writer.add_tensor(name, data.astype(np.float16))
    else:
        writer.add_tensor(name, gguf.quants.quantize(data, wanted), raw_dtype=wanted)


# ── tokenizer ──
def tokens_of(model: LanguageModel, notes: list[str]) -> dict[str, Any]:
    """The ``tokenizer.*`` entries. Raises NormaError for a kind, or a way of splitting text, that llama.cpp has no name for."""
    tokenizer = model.tokenizer
    written = json.loads(tokenizer.backend.to_str())
    if written["model"]["type"] != "BPE":
        raise NormaError(
            f"a tokenizer of the kind {written['model']['type']} is not written to GGUF", where=model.name, mend="Supported: BPE"
        )
    size = model.config.vocab_size
    by_id = {i: token for token, i in tokenizer.backend.get_vocab(with_added_tokens=True).items()}
    tokens = [by_id.get(i, f"[UNUSED{i}]") for i in range(size)]
    special = set(tokenizer.special_ids)
    unknown = written["model"].get("unk_token")
    bytewise = "ByteLevel" in str(written.get("decoder"))

    def type_of(i: int) -> int:
        if i not in by_id:
            return _UNUSED
        if by_id[i] == unknown:
            return UNKNOWN
        if i in special:
            return CONTROL
        return _BYTE if not bytewise and re.fullmatch(r"<0x[0-9A-F]{2}>", by_id[i]) else _NORMAL

    merges = [" ".join(m) if isinstance(m, list) else m for m in written["model"]["merges"]]
    found: dict[str, Any] = {"ggml.tokens": tokens, "ggml.token_type": [type_of(i) for i in range(size)]}
    if bytewise:
        found |= {"ggml.model": "gpt2", "ggml.pre": _splitting(written, model.name), "ggml.merges": merges}
        if "NFC" in str(written.get("normalizer")):
            notes.append("llama.cpp does not normalise to NFC: text in another Unicode form gives other tokens there")
    else:
        found |= {"ggml.model": "llama", "ggml.scores": _scores(tokens, merges), "ggml.pre": "default"}
        found["ggml.add_space_prefix"] = "Prepend" in str(written.get("normalizer"))
    ids = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "padding": tokenizer.pad_id}
    if unknown is not None:
        ids["unknown"] = tokenizer.backend.token_to_id(unknown)
    found |= {f"ggml.{role}_token_id": i for role, i in ids.items() if i is not None}
    found["ggml.add_bos_token"] = tokenizer.bos_id is not None and tokenizer.config.get("add_bos_token") is not False
    found["ggml.add_eos_token"] = False
    if tokenizer.chat_template:
        found["chat_template"] = tokenizer.chat_template
    return found


def _splitting(written: Mapping[str, Any], where: str) -> str:
    """llama.cpp's name for the way a byte-level tokenizer splits text."""
    steps = written.get("pre_tokenizer") or {}
    parts = steps.get("pretokenizers", [steps])
    kinds = [p.get("type") for p in parts]
    last = parts[-1] if parts else {}
    if kinds == ["ByteLevel"] and last.get("use_regex", True) and not last.get("add_prefix_space"):
        return _GPT2
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits") and last.get("use_regex", True):
        return _SMOLLM
    if kinds == ["Split", "ByteLevel"]:
        pattern = (parts[0].get("pattern") or {}).get("Regex")
        for name, known in _PATTERNS.items():
            if pattern == known:
                return _NAMES[name]
    raise NormaError(
        "llama.cpp has no name for the way this tokenizer splits text", where=where, mend="Serve the folder with 'norma serve' or vLLM"
    )


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """SentencePiece's scores from the order of merges: the earlier a token is made, the better; what no merge makes is never preferred."""
    rank: dict[str, int] = {}
    for number, merge in enumerate(merges):
        rank.setdefault(merge.replace(" ", ""), number)
    return [-float(rank[token]) if token in rank else -1e6 for token in tokens]
