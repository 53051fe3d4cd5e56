"""LanguageModel: tokenizer + Transformer, read from and written to a Hugging Face model folder.

What is written, ``transformers`` and ``vllm`` open as they are; weights are safetensors, nothing is ever unpickled.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from norma.base.errors import NormaError
from norma.base.files import disk_errors, read_json, write_json
from norma.nn import Mask, ModelConfig, Transformer
from norma.nn.names import config_from_hf, config_to_hf, from_hf, to_hf
from norma.text.chat import prompt_ids
from norma.text.tokenizer import Tokenizer

Messages = Sequence[Mapping[str, Any]]


class Engine(Protocol):
    """What turns a model into an author; given by the room above (``norma.generate``)."""

    def complete(self, model: LanguageModel, prompts: list[list[int]], **sampling: Any) -> list[str]: ...

    def stream(self, model: LanguageModel, prompt: list[int], **sampling: Any) -> Iterator[str]: ...


class LanguageModel:
    """A model that reads and writes text.

    Attributes:
        transformer: the network; parameters in fp32.
        tokenizer: text to ids and back, chat template included.
        lineage: where it comes from (``norma.json``).
        name: the folder's name.
    """

    def __init__(
        self, transformer: Transformer, tokenizer: Tokenizer, *, lineage: dict[str, Any] | None = None, name: str = "model"
    ) -> None:
        if len(tokenizer) > transformer.config.vocab_size:
            raise NormaError(f"the tokenizer has {len(tokenizer)} tokens, the model only {transformer.config.vocab_size}", where=name)
        self.transformer, self.tokenizer, self.lineage, self.name = transformer, tokenizer, lineage or {}, name
        self.engine: Engine | None = None

    @property
    def config(self) -> ModelConfig:
        return self.transformer.config

    def copy(self) -> LanguageModel:
        """The same model with weights of its own (a frozen reference, or a branch to train)."""
        twin = LanguageModel(copy.deepcopy(self.transformer), self.tokenizer, lineage=dict(self.lineage), name=self.name)
        twin.engine = self.engine
        return twin

    # ── files ──
    def save(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write the model folder: config.json, model.safetensors, tokenizer, generation_config.json, norma.json."""
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = self.tokenizer
        ends = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
        state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in self.transformer.state_dict().items()}
        with disk_errors(folder):
            temporary = folder / ".model.safetensors.tmp"
            save_file(to_hf(self.config, state), temporary, metadata={"format": "pt"})
            temporary.replace(folder / "model.safetensors")
        write_json(folder / "config.json", config_to_hf(self.config, **ends) | {"torch_dtype": str(dtype).removeprefix("torch.")})
        write_json(
            folder / "generation_config.json",
            {"bos_token_id": ends["bos"], "eos_token_id": ends["eos"], "pad_token_id": ends["pad"], "do_sample": False},
        )
        tokenizer.save(folder)
        write_json(folder / "norma.json", self.lineage)

    @staticmethod
    def load(folder: str | Path) -> LanguageModel:
        """Open a Hugging Face model folder of a known family. Missing or surplus tensors raise and name themselves."""
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise NormaError(
                "this is not a model folder: config.json is missing", where=folder, mend="Give a folder that a run or transformers wrote"
            )
        config = config_from_hf(read_json(folder / "config.json"), folder / "config.json")
        with torch.device("meta"):
            transformer = Transformer(config)
        state = from_hf(config, _read_weights(folder), folder)
        for name, parameter in transformer.named_parameters():
            if state[name].shape != parameter.shape:
                raise NormaError(
                    f"tensor {name} has shape {tuple(state[name].shape)}, config.json says {tuple(parameter.shape)}",
                    where=folder,
                    mend="The weights and config.json do not belong together",
                )
        transformer.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
        transformer.requires_grad_(True)
        lineage = read_json(folder / "norma.json") if (folder / "norma.json").exists() else {}
        return LanguageModel(transformer.eval(), Tokenizer.load(folder), lineage=lineage, name=folder.resolve().name)

    # ── reading ──
    @torch.no_grad()
    def logits(self, ids_BT: Tensor, mask_BT: Tensor | None = None) -> Tensor:
        """Next-token scores (B, T, V) in fp32 of ids (B, T) int64; ``mask`` (B, T) bool is True at real tokens."""
        if mask_BT is None:
            whole: Tensor = self.transformer(ids_BT)
            return whole
        positions = (mask_BT.long().cumsum(1) - 1).clamp(min=0)
        padded: Tensor = self.transformer(ids_BT, Mask(padding=mask_BT), positions)
        return padded

    @torch.no_grad()
    def logprob(self, prompt: str | Messages, completion: str) -> float:
        """log p(completion | prompt) in nats. A prompt of messages is rendered as a chat; a string is read as it is."""
        tokenizer = self.tokenizer
        if isinstance(prompt, str):
            before = ([] if tokenizer.bos_id is None else [tokenizer.bos_id]) + tokenizer.encode(prompt)
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
        bos = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        return self._author().complete(self, [bos + self.tokenizer.encode(t) for t in texts], **sampling)

    def stream(self, messages: Messages, **sampling: Any) -> Iterator[str]:
        """The assistant's next turn, piece by piece."""
        return self._author().stream(self, prompt_ids(self.tokenizer, messages), **sampling)


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder: one ``model.safetensors``, or the shards that its index names."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        shards = sorted(set(read_json(index)["weight_map"].values()))
    elif (folder / "model.safetensors").exists():
        shards = ["model.safetensors"]
    else:
        pickles = sorted(p.name for p in folder.glob("*.bin")) + sorted(p.name for p in folder.glob("*.pt"))
        mend = f"{pickles[0]} is a pickle, which Norma never opens: save it as safetensors" if pickles else "The weights are missing"
        raise NormaError("no model.safetensors here", where=folder, mend=mend)
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        if Path(shard).name != shard:
            raise NormaError(f"the index names a file outside the folder: {shard}", where=index)
        try:
            tensors |= load_file(folder / shard)
        except (safetensors.SafetensorError, json.JSONDecodeError, OSError) as error:
            raise NormaError(f"not readable as safetensors ({error})", where=folder / shard, mend="Fetch or save the file again") from None
    return tensors
