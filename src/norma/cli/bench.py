"""``norma bench``: measurements beside peers, in one run on the same work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Families = Annotated[list[str] | None, typer.Argument(help="Families; all that the benchmark knows when none is named.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the rows to this file too.")]


def model(
    families: Families = None,
    dtype: Annotated[str, typer.Option(help="bf16, fp32, or both with a comma.")] = "bf16,fp32",
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds; the median counts.")] = 5,
    rows: Annotated[int, typer.Option(min=1, help="Texts in a batch.")] = 32,
    length: Annotated[int, typer.Option(min=16, help="Tokens of a text.")] = 256,
    width: Annotated[int, typer.Option(min=64, help="Features of a token; heads of 64.")] = 384,
    layers: Annotated[int, typer.Option(min=1, help="Blocks.")] = 6,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0: as torch chooses.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Forward and backward beside transformers: same weights, same tokens, best setting of each."""
    from rich.console import Console

    from norma.base.errors import NormaError, nearest
    from norma.bench.model import FAMILIES, Shape, run

    for family in families or ():
        if family not in FAMILIES:
            raise NormaError(f"'{family}' is not in this benchmark", mend=f"{nearest(family, FAMILIES)} It has: {', '.join(FAMILIES)}")
    shape = Shape(width=width, layers=layers, length=length, rows=rows, device=device)
    run(families or FAMILIES, _dtypes(dtype), shape, rounds=rounds, threads=threads, json_path=json_file, console=Console())


def train(
    families: Families = None,
    vs: Annotated[str, typer.Option(help="Peers with a comma: hf, nanogpt (for gpt2).")] = "hf",
    nanogpt: Annotated[Path | None, typer.Option(help="Your copy of nanoGPT: the folder of its model.py.")] = None,
    dtype: Annotated[str, typer.Option(help="bf16, fp32, or both with a comma.")] = "bf16",
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds; the median counts.")] = 7,
    rows: Annotated[int, typer.Option(min=1, help="Texts in a batch.")] = 32,
    length: Annotated[int, typer.Option(min=16, help="Tokens of a text.")] = 256,
    width: Annotated[int, typer.Option(min=64, help="Features of a token; heads of 64.")] = 384,
    layers: Annotated[int, typer.Option(min=1, help="Blocks.")] = 6,
    vocabulary: Annotated[int, typer.Option(min=64, help="Tokens of the vocabulary.")] = 8192,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0: as torch chooses.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Whole steps of training (forward, backward, clipping, AdamW) beside peers: same tokens, best setting of each."""
    from rich.console import Console

    from norma.base.errors import NormaError, nearest
    from norma.bench.model import FAMILIES, Shape, run

    peers = [name.strip() for name in vs.split(",") if name.strip()]
    for name in peers:
        if name not in ("hf", "nanogpt"):
            raise NormaError(f"unknown peer '{name}'", where="--vs", mend="hf, nanogpt, or both with a comma")
    for family in families or ():
        if family not in FAMILIES:
            raise NormaError(f"'{family}' is not in this benchmark", mend=f"{nearest(family, FAMILIES)} It has: {', '.join(FAMILIES)}")
    shape = Shape(width=width, layers=layers, vocabulary=vocabulary, length=length, rows=rows, device=device)
    how = {"train": True, "peers": peers, "nanogpt": nanogpt, "rounds": rounds, "threads": threads, "json_path": json_file}
    run(families or FAMILIES, _dtypes(dtype), shape, console=Console(), **how)  # type: ignore[arg-type]


def generate(
    vs: Annotated[str, typer.Option(help="Peers: hf, or nothing.")] = "hf",
    kinds: Annotated[str, typer.Option(help="fixed (all answers as long as may be), varied (they end by chance).")] = "fixed,varied",
    dtype: Annotated[str, typer.Option(help="bf16 or fp32.")] = "bf16",
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds; the median counts.")] = 5,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts of a rollout.")] = 8,
    group: Annotated[int, typer.Option(min=1, help="Answers to each.")] = 8,
    prompt_tokens: Annotated[int, typer.Option(min=4, help="Tokens of the longest prompt.")] = 64,
    new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 128,
    width: Annotated[int, typer.Option(min=64, help="Features of a token; heads of 64.")] = 384,
    layers: Annotated[int, typer.Option(min=1, help="Blocks.")] = 6,
    vocabulary: Annotated[int, typer.Option(min=64, help="Tokens of the vocabulary.")] = 8192,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0: as torch chooses.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Batched sampling beside transformers' generate: same weights, same prompts, best setting of each."""
    from rich.console import Console

    from norma.base.errors import NormaError
    from norma.bench.generate import KINDS, Shape, run

    wanted, peers = ([x.strip() for x in text.split(",") if x.strip()] for text in (kinds, vs))
    for name, known, where in ((wanted, KINDS, "--kinds"), (peers, ("hf",), "--vs")):
        if unknown := [x for x in name if x not in known]:
            raise NormaError(f"unknown: {unknown[0]}", where=where, mend=", ".join(known))
    shape = Shape("llama", width, layers, vocabulary, prompts, group, prompt_tokens, new_tokens)
    (number,) = _dtypes(dtype)[:1]
    run(shape, wanted, number, rounds=rounds, threads=threads, peers=peers, json_path=json_file, console=Console())


def align(
    methods: Annotated[list[str] | None, typer.Argument(help="sft, dpo, kto, reward-model, grpo; all when none is named.")] = None,
    vs: Annotated[str, typer.Option(help="Peers: trl, or nothing.")] = "trl",
    dtype: Annotated[str, typer.Option(help="bf16 or fp32.")] = "bf16",
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds.")] = 5,
    rows: Annotated[int, typer.Option(min=2, help="Texts or pairs of a step.")] = 16,
    questions: Annotated[int, typer.Option(min=1, help="Questions of a rollout.")] = 8,
    group: Annotated[int, typer.Option(min=2, help="Answers to each.")] = 8,
    new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 128,
    width: Annotated[int, typer.Option(min=64, help="Features of a token; heads of 64.")] = 384,
    layers: Annotated[int, typer.Option(min=1, help="Blocks.")] = 6,
    vocabulary: Annotated[int, typer.Option(min=300, help="Tokens of the vocabulary.")] = 8192,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0: as torch chooses.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Whole steps of post-training beside TRL: same rows of natural length, best setting of each."""
    from rich.console import Console

    from norma.base.errors import NormaError, nearest
    from norma.bench.align import METHODS, Shape, run

    peers = [x.strip() for x in vs.split(",") if x.strip()]
    for names, known in ((methods or (), METHODS), (peers, ("trl",))):
        if unknown := [x for x in names if x not in known]:
            raise NormaError(f"unknown: {unknown[0]}", mend=f"{nearest(unknown[0], known)} There are: {', '.join(known)}")
    shape = Shape(width, layers, vocabulary, rows, questions, group, new_tokens)
    (number,) = _dtypes(dtype)[:1]
    run(methods or METHODS, shape, number, rounds=rounds, threads=threads, peers=peers, json_path=json_file, console=Console())


def finetune(
    families: Annotated[list[str] | None, typer.Argument(help="bert, llama; bert when none is named.")] = None,
    vs: Annotated[str, typer.Option(help="Peers: hf, or nothing.")] = "hf",
    text: Annotated[
        Path | None, typer.Option(help="Your rows, a text and a label each [default: docstrings of the standard library].")
    ] = None,
    dtype: Annotated[str, typer.Option(help="bf16 or fp32.")] = "bf16",
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds, an epoch each; the median counts.")] = 5,
    rows: Annotated[int, typer.Option(min=2, help="Texts of a step.")] = 16,
    texts: Annotated[int, typer.Option(min=2, help="Texts of a round.")] = 512,
    length: Annotated[int, typer.Option(min=16, help="Most tokens of a text.")] = 256,
    sizes: Annotated[str, typer.Option(help="WIDTHxLAYERS, with commas; heads of 64.")] = "384x6,256x4",
    vocabulary: Annotated[int, typer.Option(min=300, help="Tokens of the vocabulary.")] = 8192,
    threads: Annotated[int, typer.Option(min=0, help="Threads; 0: as torch chooses.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Whole steps of learning to classify beside transformers' Trainer: same weights, same rows of natural length, best setting of each."""
    from rich.console import Console

    from norma.base.errors import NormaError, nearest
    from norma.bench.finetune import FAMILIES, Shape, run

    peers = [x.strip() for x in vs.split(",") if x.strip()]
    for names, known in ((families or (), FAMILIES), (peers, ("hf",))):
        if unknown := [x for x in names if x not in known]:
            raise NormaError(f"unknown: {unknown[0]}", mend=f"{nearest(unknown[0], known)} There are: {', '.join(known)}")
    shapes = []
    for family in families or FAMILIES[:1]:
        for size in sizes.split(","):
            width, mark, layers = size.strip().partition("x")
            if not (mark and width.isdecimal() and layers.isdecimal() and int(width) and int(width) % 64 == 0 and int(layers)):
                raise NormaError(f"'{size}' is no size", where="--sizes", mend="For example 384x6: the width, in 64s, and the blocks")
            shapes.append(Shape(family, int(width), int(layers), vocabulary, rows, texts, length))
    (number,) = _dtypes(dtype)[:1]
    run(shapes, number, text=text, rounds=rounds, threads=threads, peers=peers, json_path=json_file, console=Console())


def time_to_loss(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes of our training, for example batch=8 train.warmup=40.")
    ] = None,
    text: Annotated[Path, typer.Option(help="A file of documents, such as articles.jsonl.gz.")] = Path("enwiki.jsonl.gz"),
    nanogpt: Annotated[Path, typer.Option(help="Your copy of nanoGPT: the folder of its model.py.")] = Path("nanoGPT"),
    minutes: Annotated[float, typer.Option(min=0.001, help="How long nanoGPT trains.")] = 20.0,
    share: Annotated[float, typer.Option(min=0.01, max=2.0, help="Share of its time that Norma has.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and batches.")] = 1,
    width: Annotated[int, typer.Option(min=64, help="Features of a token; heads of 64.")] = 384,
    layers: Annotated[int, typer.Option(min=1, help="Blocks.")] = 6,
    vocabulary: Annotated[int, typer.Option(min=262, help="Tokens of the vocabulary, learnt from the text.")] = 8192,
    length: Annotated[int, typer.Option(min=16, help="Tokens of a sequence.")] = 256,
    rows: Annotated[int, typer.Option(min=1, help="Sequences of nanoGPT's batch.")] = 32,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Try nanoGPT compiled too, and take what is faster.")] = True,
    out: Annotated[Path, typer.Option(help="Folder of everything; a finished side is not run again.")] = Path("runs/time-to-loss"),
    json_file: JsonFile = None,
) -> None:
    """How much sooner Norma reaches the loss with which nanoGPT's training ends; exit code 1 when not within the share."""
    from rich.console import Console

    from norma.bench.time_to_loss import Race, run

    sizes = {"width": width, "layers": layers, "vocabulary": vocabulary, "length": length, "rows": rows}
    race = Race(text, nanogpt, minutes, share, seed, compile=compiled, overrides=tuple(overrides or ()), **sizes)
    if not run(race, out.resolve(), json_path=json_file, console=Console()):
        raise typer.Exit(1)


def serve(
    urls: Annotated[list[str], typer.Argument(metavar="URL...", help="OpenAI-compatible servers, such as http://127.0.0.1:8000/v1.")],
    model: Annotated[str | None, typer.Option(help="The model's name there [default: the only one].")] = None,
    clients: Annotated[int, typer.Option(min=1, help="Requests at the same time.")] = 50,
    requests: Annotated[int | None, typer.Option(min=1, help="Requests in all [default: one a client].")] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 48,
    prompts: Annotated[Path | None, typer.Option(help="Your questions, a file of prompts [default: eight short ones].")] = None,
    key_env: Annotated[str | None, typer.Option(metavar="NAME", help="Environment variable with the servers' key.")] = None,
    json_file: JsonFile = None,
) -> None:
    """How a server answers many who stream at the same time: seconds to the first token and to the last, tokens and requests a second."""
    from rich.console import Console

    from norma.base.endpoints import base_url, key_from
    from norma.bench.serving import QUESTIONS, Load, run
    from norma.evaluate.prompts import read_prompts

    questions = QUESTIONS if prompts is None else [item.user for item in read_prompts(prompts)]
    shape = Load(clients, requests or clients, tokens)
    run([base_url(url) for url in urls], model, questions, shape, key_from(key_env), json_file, Console())


def _dtypes(text: str) -> list[str]:
    from norma.base.errors import NormaError

    names = {"bf16": "bfloat16", "fp32": "float32"}
    for one in text.split(","):
        if one not in names:
            raise NormaError(f"unknown number format '{one}'", where="--dtype", mend="bf16, fp32, or bf16,fp32")
    return [names[one] for one in text.split(",")]


def parity(families: Families = None, json_file: JsonFile = None) -> None:
    """Every family against transformers: the largest differences of scores, losses and gradients."""
    from rich.console import Console

    from norma.bench.parity import run

    raise typer.Exit(run(families or None, json_file, Console()))
