"""``norma bench time-to-loss``: how much sooner Norma is where nanoGPT ends.

    text ─→ clean, tokenizer, tokens (a recipe's stages) ─→ shards that both read
         ─→ nanoGPT for the given minutes, its whole schedule (norma.bench.nanogpt, a process)      ─→ nanogpt.json
         ─→ Norma for a share of that time, its whole schedule (a pretrain stage, `norma run`)      ─→ norma.json
    both ─→ bits per byte of the same held-out text at points of the way ─→ table, curves.csv, rows

Seconds are those of training steps: data, forward, backward, clipping, optimiser. Evaluation, compilation and checkpoints are left out
on both sides. Norma has passed when its schedule, complete, ends at or below nanoGPT's last loss within the share of nanoGPT's time.
A side that is finished is not run again with the same arguments; half-finished training of ours goes on.
"""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from norma.base.errors import NormaError
from norma.base.files import read_json, write_json, write_text
from norma.base.hashing import digest, file_digest
from norma.bench.nanogpt import POINTS, steps_that_fit

MARGIN = 0.02  # of our time is left free: steps are counted before the machine is known to keep its speed
WARM, TIMED = 4, 12  # steps of our trial

OURS: Mapping[str, Any] = {
    "preset": "qwen3",
    "batch_tokens": 4096,
    "train": {
        "optimiser": "muon",
        "learning_rate": 3e-3,
        "matrix_learning_rate": 1e-2,
        "weight_decay": 0.05,
        "warmup": 20,
        "schedule": "wsd",
        "decay_share": 0.4,
        "checkpoint_seconds": 300.0,
    },
}
"""What was found to learn fastest at this size: docs/log.md has the trials."""


@dataclass(frozen=True)
class Race:
    """What is asked: text, sizes, time. ``rows`` is nanoGPT's batch, in sequences of ``length`` tokens."""

    text: Path
    nanogpt: Path
    minutes: float = 20.0
    share: float = 0.5
    seed: int = 1
    width: int = 384
    layers: int = 6
    vocabulary: int = 8192
    length: int = 256
    rows: int = 32
    compile: bool = True
    overrides: tuple[str, ...] = ()

    @property
    def heads(self) -> int:
        return max(1, self.width // 64)

    def __str__(self) -> str:
        return f"{self.text.name}, d={self.width} x {self.layers}, T={self.length}, vocabulary {self.vocabulary:,}, {self.minutes:g} min"


@dataclass(frozen=True)
class Result:
    """One side. ``curve`` rows are {step, tokens, seconds, bits_per_byte}; ``seconds`` are of all steps."""

    system: str
    setting: str
    parameters: int
    steps: int
    tokens: int
    seconds: float
    seconds_per_step: float
    bits_per_byte: float
    curve: list[dict[str, float]]


def reached(curve: Sequence[Mapping[str, float]], bits: float) -> float | None:
    """Seconds at the first point of a curve at or below ``bits``; None when there is none."""
    return next((point["seconds"] for point in curve if point["bits_per_byte"] <= bits), None)


def rows_of(race: Race, results: Sequence[Result]) -> list[dict[str, Any]]:
    """JSON rows; the first result is the peer. ``ratio``: our seconds to the peer's last loss over the peer's seconds, None if not reached.

    ``ratio_of_schedules``: of the whole trainings. ``tokens_per_s`` and the rest as all of Norma's benchmarks have it.
    """
    peer = results[0]
    rows = []
    for result in results:
        there = reached(result.curve, peer.bits_per_byte)
        rows.append(
            {
                "work": str(race),
                **asdict(result),
                "tokens_per_s": result.tokens / result.seconds,
                "seconds_to_peer": there,
                "ratio": None if there is None else there / peer.seconds,
                "ratio_of_schedules": result.seconds / peer.seconds,
            }
        )
    return rows


def passed(race: Race, peer: Result, ours: Result) -> bool:
    """Whether the peer's last loss was reached in ``share`` of its time, by a model of at most 1.02 times its weights."""
    there = reached(ours.curve, peer.bits_per_byte)
    return there is not None and there <= race.share * peer.seconds and ours.parameters <= 1.02 * peer.parameters


def curves_csv(results: Sequence[Result]) -> str:
    """system,step,tokens,seconds,bits_per_byte: a line a point."""
    told = StringIO()
    writer = csv.writer(told, lineterminator="\n")
    names = ("step", "tokens", "seconds", "bits_per_byte")
    writer.writerow(("system", *names))
    writer.writerows([result.system, *(point[name] for name in names)] for result in results for point in result.curve)
    return told.getvalue()


def recipe(race: Race) -> dict[str, Any]:
    """Ours as a recipe. ``trial`` tells the seconds of a step; ``pretrain`` is the training, whose ``steps`` come later."""
    learn = {
        "kind": "pretrain",
        "mix": [{"objective": "generative"}],
        "model": {
            "preset": OURS["preset"],
            "width": race.width,
            "layers": race.layers,
            "head_size": race.width // race.heads,
            "max_positions": race.length,
        },
        "validation": "clean/text.validation.jsonl",
        "validation_bytes": 1000,  # both sides are measured afterwards, alike
        "sequence": race.length,
        "batch": max(1, OURS["batch_tokens"] // race.length),
    }
    return {
        "norma": 1,
        "name": "time-to-loss",
        "seed": race.seed,
        "stages": {
            "clean": {"kind": "clean", "sources": [{"path": str(race.text.resolve())}], "validation_share": 0.01},
            "tokenizer": {"kind": "tokenizer", "corpus": "clean", "vocab_size": race.vocabulary},
            "tokens": {"kind": "tokens", "text": "clean", "marks": False},
            "trial": {**learn, "steps": WARM + TIMED, "train": {**OURS["train"], "warmup": 2}},
            "pretrain": {**learn, "steps": 1, "train": dict(OURS["train"])},
        },
    }


def run(race: Race, out: Path, *, json_path: Path | None, console: Console) -> bool:
    """Both sides, table, files. Returns whether Norma has passed."""
    if not (race.nanogpt / "model.py").is_file():
        mend = "git clone https://github.com/karpathy/nanoGPT, then --nanogpt FOLDER"
        raise NormaError("nanoGPT is compared from your own copy, and there is none", where=race.nanogpt, mend=mend)
    if not race.text.is_file():
        raise NormaError("file not found", where=race.text, mend="Give --text a file of documents, such as articles.jsonl.gz")
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "recipe.yaml", recipe(race))  # JSON is YAML
    console.print(str(race), highlight=False)
    _norma(race, out, "tokens")
    peer = _once(race, out / "nanogpt.json", lambda: _peer(race, out, console))
    ours = _once(race, out / "norma.json", lambda: _ours(race, out, peer, console), asdict(peer))
    results = [peer, ours]
    write_text(out / "curves.csv", curves_csv(results))
    rows = rows_of(race, results)
    if json_path is not None:
        write_text(json_path, json.dumps(rows, indent=2) + "\n")
    console.print(table(race, rows))
    good = passed(race, peer, ours)
    first = rows[1]["ratio"]
    said = "not reached" if first is None else f"reached in {first:.3f} of nanoGPT's time"
    verdict = "Passed" if good else "Missed"
    console.print(f"nanoGPT's last loss, {peer.bits_per_byte:.4f} bits per byte: {said}; asked: {race.share:g}. {verdict}")
    return good


def table(race: Race, rows: Sequence[Mapping[str, Any]]) -> Table:
    shown = Table(title=str(race), title_justify="left", caption_justify="left")
    shown.add_column("system")
    for column in ("weights", "steps", "tokens", "seconds", "bits/byte", "there at", "ratio"):
        shown.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        there = row["seconds_to_peer"]
        told = ("–", "–") if there is None else (f"{there:,.0f} s", f"{row['ratio']:.3f}")
        numbers = (f"{row['parameters'] / 1e6:.2f} M", f"{row['steps']:,}", f"{row['tokens'] / 1e6:.2f} M", f"{row['seconds']:,.0f}")
        shown.add_row(row["system"], *numbers, f"{row['bits_per_byte']:.4f}", *told)
    shown.caption = "\n".join(f"{row['system']}: {row['setting']}" for row in rows)
    return shown


def _once(race: Race, path: Path, make: Any, more: Any = None) -> Result:
    """What was measured with the same arguments, or else now."""
    asked = {**asdict(race), "text": file_digest(race.text), "nanogpt": file_digest(race.nanogpt / "model.py")}
    if path.name == "nanogpt.json":
        asked = {name: value for name, value in asked.items() if name not in ("share", "overrides")}
    key = digest([asked, more, None if more is None else {**OURS}])
    if path.is_file() and (old := read_json(path)).get("key") == key:
        return Result(**old["result"])
    result: Result = make()
    write_json(path, {"key": key, "result": asdict(result)})
    return result


# ── the two sides ──
def _peer(race: Race, out: Path, console: Console) -> Result:
    from norma.base.platform import working_dtype

    manifest = read_json(out / "run" / "tokens" / "train" / "manifest.json")
    result = out / "nanogpt.result.json"
    job = {
        **{name: getattr(race, name) for name in ("minutes", "seed", "width", "layers", "heads", "length", "rows", "compile")},
        "source": str(race.nanogpt.resolve()),
        "train": str(out / "run" / "tokens" / "train"),
        "validation": str(out / "run" / "tokens" / "validation"),
        "tokenizer": str(out / "run" / "tokenizer"),
        "tokens": manifest["dtype"],
        "dtype": str(working_dtype()).removeprefix("torch."),
        "result": str(result),
    }
    command = [sys.executable, "-m", "norma.bench.nanogpt"]
    with (out / "nanogpt.log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.close()
        for line in process.stdout:
            console.print(f"  {line.rstrip()}", style="dim", highlight=False, markup=False)
        if process.wait():
            raise NormaError(f"nanoGPT's process ended with {process.returncode}", where=out / "nanogpt.log", mend="Look into that log")
    return Result(**read_json(result))


def _ours(race: Race, out: Path, peer: Result, console: Console) -> Result:
    _norma(race, out, "trial")
    each = statistics.median(_seconds(out / "run" / "trial")[WARM:])
    steps = steps_that_fit((1 - MARGIN) * race.share * peer.seconds, each)
    every = max(1, steps // POINTS)
    console.print(f"  Norma: {each:.3f} s a step, {steps:,} steps", style="dim", highlight=False)
    _norma(race, out, "pretrain", f"pretrain.steps={steps}", f"pretrain.train.keep_every={every}")
    return _measured(race, out, steps, console)


def _measured(race: Race, out: Path, steps: int, console: Console) -> Result:
    """The finished training's seconds, and bits per byte of its checkpoints and of the model."""
    from norma.bench.held_out import bits_per_byte, held_out
    from norma.lm import LanguageModel
    from norma.pipeline import load_recipe
    from norma.text.shards import Shards
    from norma.train import checkpoint

    folder = out / "run"
    model = LanguageModel.load(folder / "pretrain")
    text = held_out(Shards(folder / "tokens" / "validation"), race.length, model.tokenizer.byte_lengths())
    seconds = _seconds(folder / "pretrain")
    final = bits_per_byte(model.transformer, text)
    options = load_recipe(out / "recipe.yaml", _overrides(race)).nodes["pretrain"].options.resolved()
    tokens = options["batch"] * options["sequence"]
    curve = []
    for path in sorted((folder / "pretrain").glob("checkpoint-*")):
        done = int(path.name.removeprefix("checkpoint-"))
        if done < steps:
            checkpoint.load_weights(path, model.transformer)
            bits = bits_per_byte(model.transformer, text)
            curve.append({"step": done, "tokens": done * tokens, "seconds": sum(seconds[:done]), "bits_per_byte": bits})
            console.print(f"  Norma: step {done:,}, {curve[-1]['seconds']:,.0f} s, {bits:.4f} bits per byte", style="dim", highlight=False)
    curve.append({"step": steps, "tokens": steps * tokens, "seconds": sum(seconds), "bits_per_byte": final})
    setting = f"{model.config.family}, {options['train']['optimiser']}, {options['batch']} x {options['sequence']} tokens a step"
    spent = (sum(seconds), statistics.median(seconds))
    return Result("Norma", setting, model.config.parameters(), steps, steps * tokens, *spent, final, curve)


def _seconds(stage: Path) -> list[float]:
    """Of each step, in order."""
    lines = (stage / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [float(row["seconds"]) for row in map(json.loads, lines) if not row.get("skipped")]


def _overrides(race: Race) -> list[str]:
    """The user's changes, of the trial as of the training."""
    return [f"{stage}.{one}" for one in race.overrides for stage in ("trial", "pretrain")]


def _norma(race: Race, out: Path, until: str, *more: str) -> None:
    """``norma run`` of our recipe in a process of its own. What is finished stays."""
    changed = [f"output={out / 'run'}", *_overrides(race), *more]
    command = [sys.executable, "-m", "norma", "run", str(out / "recipe.yaml"), *changed, "--until", until]
    found = subprocess.run(command, stderr=subprocess.PIPE, text=True)  # what it says goes to the terminal as always
    if found.returncode:
        last = (found.stderr.strip().splitlines() or ["no message"])[-1]
        raise NormaError(f"our side ended: {escape(last)}", where=out / "recipe.yaml", mend="The stages' log.txt say more")
