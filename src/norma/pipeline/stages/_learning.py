"""What all stages that train share: the machine's set-up (frozen in the plan), models and their LoRA, rows, a coloured row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from norma.base.errors import NormaError
from norma.base.files import read_jsonl
from norma.pipeline.stage import Context, InputRef

if TYPE_CHECKING:
    import torch

    from norma.base.ranks import Ranks
    from norma.lm import LanguageModel
    from norma.text.packing import Rows
    from norma.text.tokenizer import Tokenizer
    from norma.train.examples import Scoring
    from norma.train.options import TrainOptions


class Source(BaseModel):
    """One set of rows to train on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: InputRef = Field(description="A .jsonl file of a stage, such as corpus/qa.train.jsonl: text rows or conversations.")
    weight: float = Field(1.0, gt=0, description="How often its rows come in one epoch: 0.5 half of them, 2 each twice.")
    trained: Literal["answers", "last", "everything"] | list[int] = Field(
        "answers",
        description="In conversations: the assistant's words (answers), those of its last turn, of some turns ([0, -1]: the first and"
        " the last), or every token. A message with train: false is never trained.",
    )


class LoraChoice(BaseModel):
    """Low-rank adaptation: the model stays as it is, small matrices beside its linear layers learn (2106.09685)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rank: int = Field(16, ge=1, description="Columns of the small matrices; a layer learns rank x (in + out) numbers.")
    alpha: float = Field(32.0, gt=0, description="Strength: the update is multiplied by alpha / rank.")
    targets: list[str] | Literal["all"] = Field(
        "all", description="Which linear layers: all of the blocks, or names and ends of names such as [query, value]."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Of what the small matrices read, while training.")
    base: Literal["float32", "bfloat16"] = Field(
        "float32", description="Type in which the frozen matrices are kept: bfloat16 halves the memory and rounds them once."
    )


class AdaptOptions(BaseModel):
    """For stages that can train an adapter instead of all weights."""

    lora: LoraChoice | None = Field(
        None, description="Train LoRA beside frozen weights; the artefact holds the merged model, and the adapter in adapter/."
    )


class RolloutServer(BaseModel):
    """A server that writes a stage's answers: vLLM, or one that speaks its dialect."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    url: str = Field(description="Its address, such as http://127.0.0.1:8000/v1.")
    model: str = Field(description="The name under which it serves the model.")
    weights: str | None = Field(
        None,
        description="A folder that the server sees under the same name: the weights are put there, and the server loads them. Left out, a"
        " folder of the stage's own, which is dropped at its end.",
    )
    key_env: str | None = Field(None, description="Environment variable that holds the server's key.")
    timeout: float = Field(600.0, gt=0, description="Seconds that an answer may take.")


class AnswerOptions(BaseModel):
    """For stages that learn from what the model itself answers."""

    rollouts: RolloutServer | None = Field(None, description="A vLLM server that writes the answers; left out, this process writes them.")


def prepare(ctx: Context[Any]) -> torch.dtype:
    """Set threads, kernels and determinism as the plan froze them; returns the type of activations (bf16 where the CPU has it)."""
    import torch

    from norma.base.platform import threads, working_device, working_dtype
    from norma.nn import kernels

    together = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if ctx.ranks.count > 1 else 1  # ranks on this machine
    torch.set_num_threads(ctx.plan.choose("threads", lambda: threads(together)))
    # Scattered additions are the one thing on a CPU whose order could change from run to run.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())  # a GPU has no such form of some
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    fused = ctx.plan.choose("kernels", lambda: kernels.state() is None)
    kernels.leave_out(not fused)
    if fused and kernels.state() is not None:
        ctx.progress.say(f"this stage began with Norma's own kernels, and here are none ({kernels.state()}): its last bits will differ")
    device = ctx.plan.choose("device", working_device)
    if device != working_device():
        ctx.progress.say(f"this stage began on {device} and goes on on {working_device()}: its last bits will differ")
    name = ctx.plan.choose("activations", lambda: str(working_dtype(device)).removeprefix("torch."))
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def scoring(training: TrainOptions, tokenizer: Tokenizer) -> Scoring:
    """How a stage that learns text scores its targets."""
    from norma.train.examples import Scoring

    return Scoring(training.z_loss, training.label_smoothing, tokenizer.byte_lengths())


def open_model(ctx: Context[Any], reference: str) -> LanguageModel:
    """The model of another stage. Where this stage trains an adapter, the matrices are in the type that ``lora.base`` says."""
    import torch

    from norma.base.platform import working_device
    from norma.generate import LocalEngine
    from norma.lm import LanguageModel

    path = ctx.path(reference)
    if not (path / "config.json").is_file():
        raise NormaError(f"stage '{reference}' holds no model", where=path, mend="Let 'from:' name a stage that trains one")
    lora: LoraChoice | None = getattr(ctx.options, "lora", None)
    model = LanguageModel.load(path, matrices=torch.float32 if lora is None else getattr(torch, lora.base))
    model.transformer.to(working_device())
    model.engine = LocalEngine()
    return model


def answering(ctx: Context[Any], model: LanguageModel, version: str = "before", ranks: Ranks | None = None) -> LanguageModel:
    """``model`` with the stage's ``rollouts:`` server as its engine, which then has the weights of now, known as ``version``.

    ``ranks``: those that call this (by default all of the stage's): they wait for each other.
    """
    from norma.generate import EndpointEngine

    server: RolloutServer | None = ctx.options.rollouts
    if server is None:
        return model
    weights = ctx.scratch / "weights" if server.weights is None else ctx.outside(server.weights)
    journal = ctx.folder / f"rollouts-{ctx.ranks.rank}.jsonl"
    how: dict[str, Any] = {"weights": weights, "journal": journal, "key_env": server.key_env, "timeout": server.timeout}
    engine = EndpointEngine(server.url, model=server.model, **how)
    model.engine = engine
    engine.publish(model, version, ctx.ranks if ranks is None else ranks)
    ctx.progress.say(f"answers come from {engine.url} ('{server.model}'), which reads the weights from {weights}")
    return model


def adapted(ctx: Context[Any], model: LanguageModel, also: Sequence[str] = ()) -> LanguageModel:
    """``model`` with LoRA where the stage's ``lora:`` asks for it; the base is frozen. A pure function of the recipe's seed.

    ``also`` names modules that are trained whole, such as a new head.
    """
    import torch

    from norma.nn.lora import LoraOptions, add_lora, lora_parameters, narrow

    lora: LoraChoice | None = ctx.options.lora
    if lora is None:
        return model
    targets = lora.targets if lora.targets == "all" else tuple(lora.targets)
    options = LoraOptions(rank=lora.rank, alpha=lora.alpha, targets=targets, dropout=lora.dropout)
    network = model.transformer
    names = add_lora(network, options, torch.Generator().manual_seed(ctx.seed), also)
    narrow(network, getattr(torch, lora.base))
    learning = sum(p.numel() for p in lora_parameters(network))
    ctx.progress.say(
        f"LoRA of rank {lora.rank} on {len(names)} layers: {learning:,} numbers learn beside {model.config.parameters():,} frozen ones"
    )
    return model


def save_model(ctx: Context[Any], model: LanguageModel, **facts: Any) -> None:
    """Write the model folder into the artefact and drop the checkpoints. LoRA is folded in, and stands in ``adapter/`` by itself."""
    from norma.lm.adapter import save_adapter
    from norma.nn.lora import lora_layers, lora_parameters
    from norma.train import checkpoint

    model.lineage = {"stage": ctx.name, "recipe_seed": ctx.seed, **facts}
    layers = lora_layers(model.transformer)
    learning = {id(p) for p in lora_parameters(model.transformer)}
    if layers and all(id(p) in learning for p in model.transformer.parameters() if p.requires_grad):
        # PEFT's format holds LoRA alone: with a new head beside it the merged model is all there is.
        save_adapter(model, ctx.folder / "adapter", base=f"../../{ctx.options.from_.partition('/')[0]}")
    model.save(ctx.folder)
    checkpoint.remove(ctx.folder, ctx.options.train)


def load_rows(ctx: Context[Any], tokenizer: Tokenizer, sources: Sequence[Source], limit: int) -> Rows:
    """All sources as one set of token rows, each taken ``weight`` times."""
    from norma.text.packing import Rows

    parts = []
    for number, source in enumerate(sources):
        path = ctx.path(source.rows)
        if not path.is_file():
            raise NormaError(
                f"'{source.rows}' is not a file of that stage", where=path, mend="Look into the stage's folder for the .jsonl files"
            )
        parts.append(_weighted(_tokenise(tokenizer, path, source, limit), source.weight, ctx.seed + number))
    return Rows.join(parts)


def _tokenise(tokenizer: Tokenizer, path: Path, source: Source, limit: int) -> Rows:
    from norma.align.rows import conversation_rows
    from norma.text.chat import training_row
    from norma.text.packing import Rows

    rows = read_jsonl(path)
    if rows and "text" in rows[0]:
        head = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        tail = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
        encoded = (head + ids + tail for ids in tokenizer.encode_batch([r["text"] for r in rows]))
        return Rows.build(((ids, [True] * len(ids)) for ids in encoded), limit)
    if source.trained != "everything":
        return conversation_rows(tokenizer, (r["messages"] for r in rows), limit, source.trained)
    made = (training_row(tokenizer, r["messages"])[0] for r in rows)
    return Rows.build(((ids, [True] * len(ids)) for ids in made if len(ids) <= limit), limit)


def _weighted(rows: Rows, weight: float, seed: int) -> Rows:
    import numpy as np

    if weight == 1.0:
        return rows
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(rows))
    whole, rest = divmod(weight, 1.0)
    index = np.concatenate([*[order] * int(whole), order[: round(rest * len(rows))]]).astype(np.int64)
    return rows.take(index)


SHOWN = 1500  # characters of a row that the report keeps
_STYLES = {"learnt": "bold green", "read": "dim", "unlearnt": "red"}


def show_row(ctx: Context[Any], tokenizer: Tokenizer, ids: Sequence[int], trained: Sequence[bool]) -> None:
    """Print one row as it is trained: green is learnt, grey is only read. The report shows it too."""
    _show(ctx, tokenizer, ids, ["learnt" if learnt else "read" for learnt in trained])


def show_answers(ctx: Context[Any], tokenizer: Tokenizer, prompt: Sequence[int], good: Sequence[int], bad: Sequence[int] = ()) -> None:
    """As :func:`show_row`, of a prompt with an answer, or with a pair of them: what ``bad`` (red) says is made less likely."""
    marks = ["read"] * len(prompt) + ["learnt"] * len(good) + ["unlearnt"] * len(bad)
    _show(ctx, tokenizer, [*prompt, *good, *bad], marks)


def _show(ctx: Context[Any], tokenizer: Tokenizer, ids: Sequence[int], marks: Sequence[str]) -> None:
    from rich.markup import escape

    from norma.text.chat import runs

    pieces = runs(tokenizer, ids, marks)
    ctx.plan.choose("row", lambda: _cut(pieces, SHOWN))
    legend = ", ".join(f"[{_STYLES[part]}]{name}[/]" for part, name in _LEGEND.items() if any(p == part for _, p in pieces))
    ctx.progress.say(f"one row ({legend}): " + "".join(f"[{_STYLES[part]}]{escape(text)}[/]" for text, part in pieces))


_LEGEND = {"learnt": "learnt", "read": "only read", "unlearnt": "made less likely"}


def _cut(pieces: Sequence[tuple[str, str]], limit: int) -> list[list[str]]:
    """The first ``limit`` characters of the pieces."""
    kept: list[list[str]] = []
    for text, part in pieces:
        if limit > 0:
            kept.append([text if len(text) <= limit else text[:limit] + "…", part])
        limit -= len(text)
    return kept


def validation_texts(path: Path, limit: int) -> list[str]:
    """Texts to measure bits per byte on: about ``limit`` bytes from the start of a file of text rows."""
    texts: list[str] = []
    size = 0
    for row in read_jsonl(path):
        texts.append(row["text"])
        size += len(row["text"].encode())
        if size >= limit:
            break
    if not texts:
        raise NormaError("there is no validation text", where=path, mend="Raise validation_share in the corpus stage")
    return texts
