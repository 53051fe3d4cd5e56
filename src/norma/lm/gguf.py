"""GGUF, llama.cpp's model file, read as the Hugging Face folder it was made from.

    general.architecture, <architecture>.*  ─→ config.json      blk.0.attn_q.weight, ... ─→ model.layers.0.self_attn.q_proj.weight, ...
    tokenizer.*                             ─→ tokenizer.json (norma.lm.gguf_tokenizer)

Quantised blocks become numbers by the ``gguf`` package's own functions. What llama.cpp changed is undone: rows of Llama's queries and
keys, which stand in the order of interleaved rotary positions, and wavelengths of Llama 3, which are a tensor there. What is not known
is an error that names it; nothing is guessed, nothing dropped. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from norma.base.errors import NormaError, nearest
from norma.lm.gguf_tokenizer import build_tokenizer
from norma.nn.config import RotaryScaling
from norma.nn.positions import frequencies
from norma.text.tokenizer import Tokenizer

SUFFIX = ".gguf"
INSTALL = "pip install 'norma-lm[gguf]'"
AGAIN = "Fetch the file again: it may be cut short"

Metadata = Mapping[str, Any]


@dataclass(frozen=True)
class GgufModel:
    """What a file holds, as a Hugging Face folder would have it.

    Attributes:
        values: config.json.
        weights: tensors by the layout's names.
        tokenizer: None where the file has none.
        left_out: entries that have no place in a model folder, in words.
    """

    values: dict[str, Any]
    weights: dict[str, Tensor]
    tokenizer: Tokenizer | None
    left_out: list[str]


@dataclass(frozen=True)
class Architecture:
    """How one architecture of GGUF maps to a ``model_type``: ``turned`` says whether rows of queries and keys were reordered."""

    model_type: str
    turned: bool = False


ARCHITECTURES = {"llama": Architecture("llama", turned=True), "qwen2": Architecture("qwen2"), "qwen3": Architecture("qwen3")}
"""llama: also Mistral, SmolLM and others of its shape."""

_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}

# Part of a block, theirs → the layout's.
_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_WHOLE = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
_WAVELENGTHS = "rope_freqs.weight"
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")


def read_gguf(path: Path, dtype: torch.dtype | None = None) -> GgufModel:
    """Read a whole file.

    Args:
        dtype: of the weights; None: as they are, and fp32 where they are quantised.

    Raises NormaError for a file that is damaged or cut short, an architecture, type of quantisation or tokenizer that is not known here,
    and where the ``gguf`` package is missing.
    """
    reader = _open(path)
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    if int(metadata.get("split.count") or 1) > 1:
        raise NormaError(f"this is one of {metadata['split.count']} files", where=path, mend="Join them first: llama-gguf-split --merge")
    architecture = _architecture(metadata, path)
    shapes = {tensor.name: tuple(int(n) for n in reversed(tensor.shape)) for tensor in reader.tensors}
    values = _config(metadata, shapes, architecture, path)
    weights: dict[str, Tensor] = {}
    for tensor in reader.tensors:
        found = _tensor(tensor, path)
        if tensor.name == _WAVELENGTHS:
            values["rope_scaling"] = _scaling(found, values, path)
            continue
        if architecture.turned and (part := re.search(r"\.attn_([qk])\.", tensor.name)):
            heads = values["num_attention_heads" if part[1] == "q" else "num_key_value_heads"]
            found = turn_back(found, heads)
        weights[_name(tensor.name)] = found if dtype is None else found.to(dtype)
    tokenizer = build_tokenizer(metadata, path) if "tokenizer.ggml.model" in metadata else None
    return GgufModel(values, weights, tokenizer, _left_out(metadata, str(metadata["general.architecture"])))


def _open(path: Path) -> Any:
    """The package's reader. It reports a damaged file by whatever happens to go wrong."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise NormaError("reading GGUF needs the gguf package", where=path, mend=INSTALL) from None
    if not path.is_file():
        raise NormaError("file not found", where=path, mend="Check the path")
    with path.open("rb") as handle:
        if handle.read(4) != b"GGUF":
            raise NormaError("this is not a GGUF file: it does not begin with GGUF", where=path, mend=AGAIN)
    try:
        reader = GGUFReader(path)
        for field in reader.fields.values():
            field.contents()
        return reader
    except (ValueError, IndexError, KeyError, OverflowError, TypeError, OSError, MemoryError) as error:
        raise NormaError(f"not readable as GGUF ({str(error).splitlines()[0] or type(error).__name__})", where=path, mend=AGAIN) from None


def _architecture(metadata: Metadata, path: Path) -> Architecture:
    name = str(metadata.get("general.architecture"))
    if name not in ARCHITECTURES:
        mend = f"{nearest(name, ARCHITECTURES)} Supported: {', '.join(ARCHITECTURES)}"
        raise NormaError(f"the GGUF architecture '{name}' is not supported", where=path, mend=mend)
    if int(metadata.get(f"{name}.expert_count") or 0):
        raise NormaError(f"'{name}' with experts is not read from GGUF", where=path, mend="Import the Hugging Face folder of the model")
    return ARCHITECTURES[name]


# ── settings ──
def _config(metadata: Metadata, shapes: Mapping[str, tuple[int, ...]], architecture: Architecture, path: Path) -> dict[str, Any]:
    """config.json. Everything that the weights' shape or the scores depend on is said, so that no default of a layout slips in."""
    name = metadata["general.architecture"]

    def need(key: str) -> Any:
        if metadata.get(f"{name}.{key}") is None:
            raise NormaError(f"the file lacks {name}.{key}", where=path, mend="Convert the model again with a newer llama.cpp")
        return metadata[f"{name}.{key}"]

    def first(*keys: str) -> Any:
        return next((metadata[f"{name}.{key}"] for key in keys if metadata.get(f"{name}.{key}") is not None), None)

    if "token_embd.weight" not in shapes:
        raise NormaError("the file holds no token_embd.weight", where=path, mend="Give the file of a language model")
    heads, width = need("attention.head_count"), need("embedding_length")
    if isinstance(heads, list) or isinstance(need("feed_forward_length"), list):
        raise NormaError("layers that differ in size are not supported", where=path, mend="Supported: all layers alike")
    ids = {f"{role}_token_id": metadata.get(f"tokenizer.ggml.{key}_token_id") for role, key in _ENDS.items()}
    return {
        "architectures": [_CLASSES[architecture.model_type]],
        "model_type": architecture.model_type,
        "vocab_size": shapes["token_embd.weight"][0],
        "hidden_size": width,
        "num_hidden_layers": need("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": first("attention.head_count_kv") or heads,
        "head_dim": first("attention.key_length", "rope.dimension_count") or width // heads,
        "intermediate_size": need("feed_forward_length"),
        "max_position_embeddings": need("context_length"),
        "hidden_act": "silu",
        "rms_norm_eps": _short(need("attention.layer_norm_rms_epsilon")),
        "rope_theta": _short(first("rope.freq_base") or 10000.0),
        "rope_scaling": _linear(first("rope.scaling.type"), first("rope.scaling.factor"), path),
        "tie_word_embeddings": "output.weight" not in shapes,
        **({"attention_bias": "blk.0.attn_q.bias" in shapes} if architecture.model_type != "qwen2" else {}),
        **({"mlp_bias": "blk.0.ffn_up.bias" in shapes} if architecture.model_type == "llama" else {}),
        **{key: value for key, value in ids.items() if value is not None},
    }


_ENDS = {"bos": "bos", "eos": "eos", "pad": "padding"}


def _short(number: float) -> float:
    """The number that somebody wrote before it became an fp32: 9.999999747378752e-06 was 1e-05."""
    return float(f"{number:.7g}")


def _linear(kind: str | None, factor: float | None, path: Path) -> dict[str, Any] | None:
    if kind in (None, "none") or (kind == "linear" and factor in (None, 0, 1)):
        return None
    if kind != "linear":
        raise NormaError(f"rotary scaling '{kind}' is not supported", where=path, mend="Supported: none, linear, Llama 3's")
    return {"rope_type": "linear", "factor": _short(float(factor or 1))}


def _scaling(factors: Tensor, values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Llama 3's settings from what llama.cpp made of them: by how much each wavelength is stretched. They are tried, not guessed."""
    size, theta, device = values["head_dim"], values["rope_theta"], factors.device
    candidate = RotaryScaling("llama3", _short(float(factors.max())))
    plain, stretched = (frequencies(size, theta, scaling, device) for scaling in (None, candidate))
    if factors.shape != plain.shape or not torch.allclose(plain / stretched, factors.float(), rtol=1e-3):
        raise NormaError("its rotary wavelengths (rope_freqs.weight) are not those of Llama 3", where=path, mend="Import its HF folder")
    return {
        "rope_type": "llama3",
        "factor": candidate.factor,
        "low_freq_factor": candidate.low_frequency_factor,
        "high_freq_factor": candidate.high_frequency_factor,
        "original_max_position_embeddings": candidate.original_positions,
    }


# ── tensors ──
def _name(theirs: str) -> str:
    """The layout's name; a name that no table has stays, and is an error for the reader of the layout."""
    if theirs in _WHOLE:
        return _WHOLE[theirs]
    match = _BLOCK.fullmatch(theirs)
    if match is None or match[2] not in _PARTS:
        return theirs
    return f"model.layers.{match[1]}.{_PARTS[match[2]]}.{match[3]}"


def _tensor(tensor: Any, path: Path) -> Tensor:
    """One tensor as numbers: the types that torch has as they are, others in fp32."""
    from gguf.quants import dequantize

    kind = tensor.tensor_type.name
    if kind == "BF16":
        return torch.from_numpy(tensor.data.copy()).view(torch.bfloat16)
    if kind in ("F16", "F32", "F64"):
        return torch.from_numpy(tensor.data.copy())
    try:
        return torch.from_numpy(dequantize(tensor.data, tensor.tensor_type))
    except NotImplementedError:
        raise NormaError(f"{tensor.name} is quantised as {kind}, which the gguf package cannot undo", where=path) from None


def turn_back(tensor: Tensor, heads: int) -> Tensor:
    """Rows of each head from (0, n/2, 1, n/2 + 1, ...), pairs that turn together, to the two halves that the layout has."""
    return tensor.reshape(heads, -1, 2, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape).contiguous()


_READ: tuple[Callable[[str], bool], ...] = (
    lambda key: key.startswith(("GGUF.", "split.", "tokenizer.ggml.")),
    lambda key: key in ("tokenizer.chat_template", "general.architecture", "general.quantization_version", "general.file_type"),
    lambda key: key.endswith(".vocab_size"),
)
_SETTINGS = {
    "block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count", "attention.head_count_kv",
    "attention.key_length", "attention.value_length", "attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.dimension_count",
    "rope.scaling.type", "rope.scaling.factor", "expert_count", "expert_used_count",
}  # fmt: skip


def _left_out(metadata: Metadata, architecture: str) -> list[str]:
    """Entries that are read by nobody: what the model is called, who made it, under which licence."""
    names = sorted(
        key for key in metadata if not any(read(key) for read in _READ) and key.removeprefix(f"{architecture}.") not in _SETTINGS
    )
    return [f"{key} = {metadata[key]!r}"[:100] for key in names]
