"""What the experiments of this folder share: text, models, a training loop, one look for all plots.

    recipes/courteous-docs.yaml ─→ corpus (docstrings of this machine, built once into runs/principles/) ─→ read_text ─→ Text
    Text.batches or a task's own batches ─→ fit ─→ loss of every step
    measure() ─→ dict ─→ NAME.json, printed ─→ draw(dict) ─→ NAME.svg          (run; with --draw the plot alone is made anew)

Everything is fp32 on the CPU and seeded. matplotlib (pip install 'norma-lm[docs]') is loaded only to draw.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from norma.base.files import write_json
from norma.base.progress import Silent
from norma.evaluate.likelihood import bits_per_byte
from norma.nn import ModelConfig, Transformer
from norma.pipeline.recipe import load_recipe
from norma.text.corpus import CorpusOptions, build_corpus
from norma.text.packing import Batches, Rows
from norma.text.split import chance
from norma.text.tokenizer import Tokenizer, train_tokenizer
from norma.train.examples import Examples, examples_loss
from norma.train.optimiser import make_optimisers, schedule_factor, set_learning_rate

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VOCABULARY, LENGTH, BATCH = 2048, 128, 16  # tokens known, tokens of a packed sequence, sequences of a step
# Okabe and Ito (2008): told apart with every kind of colour blindness.
BLACK, ORANGE, SKY, GREEN, BLUE, RED = "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00"


def transformer(vocab_size: int, width: int, layers: int, head_size: int = 32, *, seed: int = 0, **changes: Any) -> Transformer:
    """A decoder as Llama has it: pre-norm RMS, rotary positions, SwiGLU, tied embeddings. Matrices begin as Glorot has them."""
    heads = width // head_size
    shape = {"attention_heads": heads, "kv_heads": heads, "head_size": head_size, "feed_forward_width": round(width * 8 / 3 / 16) * 16}
    fields = {"max_positions": 512, "initialisation": "glorot", "embedding_scale": width**0.5, **shape, **changes}
    config = ModelConfig(family="llama", vocab_size=vocab_size, width=width, layers=layers, **fields)
    return Transformer(config).initialise(torch.Generator().manual_seed(seed))


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def fit(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    steps: int,
    *,
    learning_rate: float,
    after: Callable[[int], None] = lambda step: None,
    warmup: int = 20,
    schedule: Any = "wsd",
) -> list[float]:
    """``steps`` of AdamW, gradients clipped at norm 1; returns the loss of every step. ``after`` is called with the steps done."""
    optimisers = make_optimisers(model, kind="adamw", learning_rate=learning_rate, matrix_learning_rate=0.0, weight_decay=0.05)
    losses = []
    for step in range(steps):
        set_learning_rate(optimisers, schedule_factor(step, steps=steps, warmup=warmup, kind=schedule))
        value = loss(step)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        losses.append(value.item())
        after(step + 1)
    return losses


@dataclass(frozen=True)
class Text:
    """Texts to learn from and held-out ones of other modules, with a tokenizer trained on the former."""

    tokenizer: Tokenizer
    train: list[list[int]]  # token ids of each text, between BOS and the end token
    held_out: list[str]

    @property
    def tokens(self) -> int:
        """How many tokens there are to predict in one pass."""
        return sum(len(ids) - 1 for ids in self.train)

    def batches(self, size: int = BATCH, length: int = LENGTH, seed: int = 0) -> Batches:
        rows = Rows.build(((ids, [True] * len(ids)) for ids in self.train), length)
        return Batches(rows, length=length, size=size, seed=seed, pad=self.tokenizer.pad_id)

    def bits_per_byte(self, model: Any) -> float:
        """Of the held-out texts; ``model`` is a Transformer or has its methods."""
        return bits_per_byte(SimpleNamespace(transformer=model, tokenizer=self.tokenizer), self.held_out, length=LENGTH)  # type: ignore[arg-type]


def read_text(train: int = 4_000_000, held_out: int = 100_000, vocab_size: int = VOCABULARY) -> Text:
    """About so many bytes of the demo's corpus: docstrings of the standard library and of what Norma itself needs."""
    folder = ROOT / "runs" / "principles" / "corpus"
    if not (folder / "corpus.json").exists():
        print("reading the docstrings of this machine (once)", flush=True)
        options = load_recipe(ROOT / "recipes" / "courteous-docs.yaml").nodes["corpus"].options.model_dump(exclude={"kind"})
        build_corpus(CorpusOptions.model_validate(options), folder, Silent(), 1)
    return encode(_some(folder / "text.train.jsonl", train), _some(folder / "text.validation.jsonl", held_out), vocab_size)


def encode(train: Sequence[str], held_out: Sequence[str], vocab_size: int) -> Text:
    tokenizer = train_tokenizer(train, vocab_size)
    assert tokenizer.bos_id is not None and tokenizer.eos_id is not None
    ids = [[tokenizer.bos_id, *ids, tokenizer.eos_id] for ids in tokenizer.encode_batch(train)]
    return Text(tokenizer, ids, list(held_out))


def _some(path: Path, size: int) -> list[str]:
    """Texts of about ``size`` bytes in all, chosen by a hash of what they are about."""
    with path.open(encoding="utf-8") as lines:
        rows = sorted((json.loads(line) for line in lines), key=lambda row: chance("principles", row["id"]))
    chosen: list[str] = []
    for row in rows:
        if size <= 0:
            break
        chosen.append(row["text"])
        size -= len(row["text"].encode())
    return chosen


def text_loss(model: Any, batches: Batches) -> Callable[[int], Tensor]:
    """Step number → nats a token of that step's batch."""

    def loss(step: int) -> Tensor:
        batch = batches[step]
        examples = Examples(batch.ids, batch.targets, batch.documents, batch.positions)
        return examples_loss(model, examples, torch.float32).minimised / examples.predicted

    return loss


def figure(title: str, chinese: str, panels: int = 1, width: float = 4.2, height: float = 3.4) -> tuple[Any, list[Any]]:
    """An empty plot with English title and, where a font has the characters, a Chinese one below it."""
    import matplotlib
    from matplotlib import font_manager

    matplotlib.use("svg")
    from matplotlib import pyplot

    cjk = next((f.name for f in font_manager.fontManager.ttflist if f.name.startswith(("Noto Sans CJK", "Source Han Sans"))), None)
    look = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.alpha": 0.25}
    fonts = {"font.size": 9, "font.family": ["DejaVu Sans", *([cjk] if cjk else [])], "svg.hashsalt": "norma"}
    pyplot.rcParams.update({**look, **fonts, "legend.frameon": False, "lines.markersize": 4, "lines.linewidth": 1.5})
    drawn, axes = pyplot.subplots(1, panels, figsize=(width * panels, height), layout="constrained", squeeze=False)
    drawn.suptitle(f"{title}\n{chinese}" if cjk else title, fontsize=10)
    return drawn, list(axes[0])


def run(name: str, measure: Callable[[], dict[str, Any]], draw: Callable[[dict[str, Any]], Any]) -> None:
    """Measure, write NAME.json, draw NAME.svg. ``--draw``: only draw what NAME.json holds."""
    if "--draw" not in sys.argv:
        began = time.perf_counter()
        result = measure()
        machine = {"torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads()}
        write_json(HERE / f"{name}.json", {**result, "seconds": round(time.perf_counter() - began), "machine": machine})
    result = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    print(json.dumps(result, indent=1, ensure_ascii=False))
    draw(result).savefig(HERE / f"{name}.svg", metadata={"Date": None})
