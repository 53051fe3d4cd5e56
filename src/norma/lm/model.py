"""LanguageModel: tokenizer + Transformer, read from and written to a Hugging Face model folder.

    config.json ─→ ModelConfig ─→ Transformer ←─ name table ←─ *.safetensors     (norma.nn.layout, norma.lm.weights)
    tokenizer.json, or older vocabulary files ─→ Tokenizer, or none

What is written, ``transformers`` and ``vllm`` open as they are; weights are safetensors, nothing is ever unpickled.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from norma.base.errors import NormaError
from norma.base.files import read_json, write_json
from norma.lm.weights import MAX_SHARD_BYTES, read_weights, write_weights
from norma.nn import Mask, ModelConfig, Transformer, Watch, config_from_hf, config_to_hf, from_hf
from norma.nn.layout import family_of, kept, told, untold
from norma.nn.lora import plain_state
from norma.text.chat import prompt_ids
from norma.text.tokenizer import Tokenizer
from norma.text.vocabularies import exists as has_tokenizer

Messages = Sequence[Mapping[str, Any]]


class Engine(Protocol):
    """What turns a model into an author; given by the room above (``norma.generate``)."""

    def complete(self, model: LanguageModel, prompts: list[list[int]], **sampling: Any) -> list[str]: ...

    def stream(self, model: LanguageModel, prompt: list[int], **sampling: Any) -> Iterator[str]: ...


class LanguageModel:
    """A model that reads and writes text.

    Attributes:
        transformer: the network; parameters in fp32 unless it was opened otherwise.
        tokenizer: text to ids and back, chat template included. A model without one reads ids, and says so when it is asked for text.
        lineage: where it comes from (``norma.json``).
        kept: what the ``config.json`` that was read said of special ids and labels; it is written again.
        name: the folder's name.
    """

    def __init__(
        self,
        transformer: Transformer,
        tokenizer: Tokenizer | None,
        *,
        lineage: dict[str, Any] | None = None,
        kept: Mapping[str, Any] | None = None,
        name: str = "model",
    ) -> None:
        if tokenizer is not None and len(tokenizer) > transformer.config.vocab_size:
            raise NormaError(f"the tokenizer has {len(tokenizer)} tokens, the model only {transformer.config.vocab_size}", where=name)
        self.transformer, self._tokenizer, self.lineage, self.name = transformer, tokenizer, lineage or {}, name
        self.kept = dict(kept or {})
        if transformer.config.encoder_layers and transformer.start_id is None:
            said: dict[str, int | None] = {} if tokenizer is None else {"pad": tokenizer.pad_id, "eos": tokenizer.eos_id}
            start = family_of(transformer.config).start
            transformer.start_id = self.kept.get("decoder_start_token_id", said.get(start or ""))
        self.engine: Engine | None = None

    @property
    def config(self) -> ModelConfig:
        return self.transformer.config

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises NormaError where the model has none."""
        if self._tokenizer is None:
            raise NormaError(
                "this model has no tokenizer: it reads and writes ids, no text",
                where=self.name,
                mend="Put its tokenizer.json beside config.json and open it again",
            )
        return self._tokenizer

    @property
    def has_tokenizer(self) -> bool:
        return self._tokenizer is not None

    def copy(self) -> LanguageModel:
        """The same model with weights of its own (a frozen reference, or a branch to train)."""
        twin = LanguageModel(copy.deepcopy(self.transformer), self._tokenizer, lineage=dict(self.lineage), kept=self.kept, name=self.name)
        twin.engine = self.engine
        return twin

    # ── files ──
    def save(self, folder: Path, dtype: torch.dtype = torch.float32, *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
        """Write the model folder: config.json, model.safetensors, tokenizer, generation_config.json, norma.json.

        More than ``max_shard_bytes`` of weights make several files and an index. LoRA is folded in; :mod:`norma.lm.adapter` saves it alone.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_weights(folder, self.config, plain_state(self.transformer), dtype, max_shard_bytes)
        values = self._config_json()
        write_json(folder / "config.json", values | {"torch_dtype": str(dtype).removeprefix("torch.")})
        ends = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
        write_json(folder / "generation_config.json", {name: values[name] for name in ends if name in values} | {"do_sample": False})
        if self._tokenizer is not None:
            self._tokenizer.save(folder)
        write_json(folder / "norma.json", self.lineage | {"model": untold(self.config, values)})

    def _config_json(self) -> dict[str, Any]:
        """Special ids are the tokenizer's where there is one; labels keep their names while there are as many."""
        said, tokenizer = dict(self.kept), self._tokenizer
        if len(said.get("id2label", {})) != self.config.labels:
            said = {name: value for name, value in said.items() if name not in ("id2label", "label2id")}
        if tokenizer is not None:
            for name in ("bos", "eos", "pad"):
                before, now = said.get(f"{name}_token_id"), getattr(tokenizer, f"{name}_id")
                if not (isinstance(before, list) and now in before):  # several ids may end a text
                    said[f"{name}_token_id"] = now
        ends: dict[str, Any] = {name: said.get(f"{name}_token_id") for name in ("bos", "eos", "pad")}
        return config_to_hf(self.config, **ends) | said

    @staticmethod
    def load(folder: str | Path, *, matrices: torch.dtype = torch.float32) -> LanguageModel:
        """Open a Hugging Face model folder of a known family, with or without a tokenizer; weights become fp32.

        Missing or surplus tensors raise and name themselves. ``matrices``: another type for all but norms, biases and routers, for a
        model that is not trained whole.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise NormaError(
                "this is not a model folder: config.json is missing", where=folder, mend="Give a folder that a run or transformers wrote"
            )
        values = read_json(folder / "config.json")
        lineage = read_json(folder / "norma.json") if (folder / "norma.json").exists() else {}
        config = told(config_from_hf(values, folder / "config.json"), lineage.pop("model", {}), folder / "norma.json")
        with torch.device("meta"):
            transformer = Transformer(config)
        state = from_hf(config, read_weights(folder), folder)
        narrow = {name for name, tensor in state.items() if tensor.dim() >= 2 and not name.endswith("router.weight")}
        transformer.load_state_dict(
            {name: state.pop(name).to(matrices if name in narrow else torch.float32) for name in list(state)}, assign=True
        )
        transformer.requires_grad_(True)
        tokenizer = Tokenizer.load(folder) if has_tokenizer(folder) else None
        return LanguageModel(transformer.eval(), tokenizer, lineage=lineage, kept=kept(values), name=folder.resolve().name)

    # ── reading ──
    @torch.no_grad()
    def logits(self, ids_BT: Tensor, mask_BT: Tensor | None = None, decoder_ids: Tensor | None = None) -> Tensor:
        """Token scores (B, T, V) in fp32 of ids (B, T) int64; ``mask`` (B, T) bool is True at real tokens.

        An encoder-decoder reads ``ids`` and scores ``decoder_ids``.
        """
        scores: Tensor = self.transformer(ids_BT, None if mask_BT is None else Mask(padding=mask_BT), decoder_ids=decoder_ids)
        return scores

    @torch.no_grad()
    def attention(
        self,
        text_or_ids: str | Tensor,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        *,
        decoder: str | Tensor | None = None,
        stack: str | None = None,
    ) -> Tensor:
        """Attention weights (L, H, Tq, Tk) of chosen layers and heads (all when None) for one text.

        Args:
            text_or_ids: what is read; ids (T,) or (1, T) int64.
            decoder: what an encoder-decoder's decoder reads.
            stack: of an encoder-decoder, "encoder" (default), "decoder" or "cross".
        """
        network = self.transformer
        stack = stack or ("decoder" if network.encoder is None else "encoder")
        watch = Watch()
        network(self._ids(text_or_ids), decoder_ids=None if decoder is None else self._ids(decoder), watch=watch)
        depth = sum(name == stack for name, _ in watch.weights)
        if not depth:
            raise NormaError(f"this model has no '{stack}' attention", where=self.name, mend="encoder, decoder or cross")
        for what, chosen, most in (("layer", layers, depth), ("head", heads, self.config.attention_heads)):
            for i in chosen or ():
                if not 0 <= i < most:
                    raise NormaError(f"{what} {i} does not exist: this model has {most}", where=self.name, mend=f"0 to {most - 1}")
        weights = torch.stack([watch.weights[stack, i][0] for i in (range(depth) if layers is None else layers)])
        return weights if heads is None else weights[:, list(heads)]

    def _ids(self, text_or_ids: str | Tensor) -> Tensor:
        if isinstance(text_or_ids, Tensor):
            return text_or_ids.reshape(1, -1)
        return torch.tensor([self.tokenizer.encode(text_or_ids)])

    @torch.no_grad()
    def logprob(self, prompt: str | Messages, completion: str) -> float:
        """log p(completion | prompt) in nats. A prompt of messages is rendered as a chat; a string is read as it is."""
        tokenizer = self.tokenizer
        if isinstance(prompt, str):
            before = self._begin() + tokenizer.encode(prompt)
        else:
            before = prompt_ids(tokenizer, prompt)
        after = tokenizer.encode(completion)
        if not before:
            raise NormaError("the prompt is empty and this tokenizer has no BOS token", mend="Give a prompt")
        ids = torch.tensor([before + after])
        hidden = self.transformer.hidden(ids)[0, len(before) - 1 : -1]
        log_p = self.transformer.logits(hidden).log_softmax(dim=-1)
        return float(log_p.gather(1, ids[0, len(before) :, None]).sum())

    # ── writing ──
    def _author(self) -> Engine:
        if self.engine is None:
            raise RuntimeError("this LanguageModel has no engine: open it with norma.load")
        return self.engine

    def chat(self, conversations: Sequence[Messages] | Messages, **sampling: Any) -> list[str]:
        """The assistant's next turn for each conversation. ``sampling``: see :class:`norma.generate.Sampling`."""
        many = [conversations] if conversations and isinstance(conversations[0], Mapping) else conversations
        return self._author().complete(self, [prompt_ids(self.tokenizer, c) for c in many], **sampling)  # type: ignore[arg-type]

    def generate(self, prompts: Sequence[str] | str, **sampling: Any) -> list[str]:
        """Plain continuations of texts."""
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        return self._author().complete(self, [self._begin() + self.tokenizer.encode(t) for t in texts], **sampling)

    def _begin(self) -> list[int]:
        """What a plain text begins with: BOS, unless the tokenizer has none or says that texts do without."""
        bos = self.tokenizer.bos_id
        return [] if bos is None or self.tokenizer.config.get("add_bos_token") is False else [bos]

    def stream(self, messages: Messages, **sampling: Any) -> Iterator[str]:
        """The assistant's next turn, piece by piece."""
        return self._author().stream(self, prompt_ids(self.tokenizer, messages), **sampling)
