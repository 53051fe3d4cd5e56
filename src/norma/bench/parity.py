"""How far Norma's numbers are from Hugging Face's, family by family: ``norma bench parity``.

    Case ─→ HF model, all weights random ─→ save_pretrained ─→ config_from_hf, from_hf ─→ our Transformer
                     │ outputs, loss, gradients, attention, padding ─→ compared ←─ outputs, loss, ... │
                     └───── from_pretrained, save_pretrained ←── config_to_hf, to_hf ←────────────────┘ ─→ Row

Cases are data: a module in ``norma.bench.cases`` for each file of ``norma.nn.families``.
"""

from __future__ import annotations

import json as json_format
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from safetensors.torch import save_file
from torch import Tensor

from norma.base.errors import NormaError, nearest
from norma.base.files import read_json, write_json, write_text
from norma.bench import peer
from norma.nn import ModelConfig, Transformer
from norma.nn.attention import Watch
from norma.nn.families import FAMILIES
from norma.nn.layout import config_from_hf, config_to_hf, from_hf, to_hf, with_head

Side = Literal["left", "right"]


@dataclass(frozen=True)
class Case:
    """One HF model to agree with. Everything is fp32; ``eager`` attention on their side.

    The loss is their own (``labels=``): next token for decoders, masked tokens for encoders, the target for encoder-decoders, labels
    for the task heads; for a model without a head it is the mean of its states times fixed random numbers.

    Attributes:
        family: ours, as in ``norma.nn.families.FAMILIES``.
        name: what is special about it, such as "tied, grouped queries".
        model: their class, such as "LlamaForCausalLM".
        config: keyword arguments of that class's config. Small odd sizes. ``pad_token_id`` decides whether the pad token is read as an
            ordinary token too (its embedding row has no gradient in layouts that pad); the token that pads is it, or 0.
        preset: keyword arguments of our preset, for the way back: a model of ours is written, their class loads it, both score alike.
            None: a model with the config that was read, and new random weights, goes that way.
        length, source: tokens of a row; of a source text where there is an encoder in front.
        sides: where padding is tested: our padded rows against their unpadded rows.
        masked: sides on which their own masked result is compared too; None: right, and left where they take ``position_ids`` or
            where positions are relative.
        reads_pad: False where the pad token cannot be an ordinary token (RoBERTa counts positions by it).
        attention: whether attention weights are compared.
        spread: standard deviation of what is added to every weight.
        own_head: their ``lm_head`` gets a weight of its own before anything is saved: transformers 5 ties every T5 that it makes, whatever
            the config says, but keeps a head apart that a file holds.
    """

    family: str
    name: str
    model: str
    config: Mapping[str, Any]
    preset: Mapping[str, Any] | None = None
    length: int = 13
    source: int = 11
    sides: tuple[Side, ...] = ("left", "right")
    masked: tuple[Side, ...] | None = None
    reads_pad: bool = True
    attention: bool = True
    spread: float = 0.15
    own_head: bool = False

    @property
    def id(self) -> str:
        return f"{self.family}: {self.name}"


@dataclass(frozen=True)
class Row:
    """What a case gave: the largest differences, each relative to the largest number compared (attention: absolute).

    Attributes:
        logits: of all outputs: scores, or states where there is no head.
        loss: of the two losses, relative to theirs.
        gradients: the largest over parameters of |ours - theirs| / |theirs| (Euclidean; of gradients near zero relative to the largest).
        gradient: the parameter where that is.
        attention: of attention weights; None: not compared.
        padding: our real tokens in padded rows against their rows alone.
        masked: the same against their own masked rows; None: they cannot.
        written: their outputs after reading what we wrote against what they should be: their own model again, and a model of ours.
        problems: keys that are missing or surplus in either direction, tensors that are not bit-equal after a round trip.
    """

    family: str
    case: str
    logits: float
    loss: float
    gradients: float
    gradient: str
    attention: float | None
    padding: float | None
    masked: float | None
    written: float
    problems: tuple[str, ...]

    def beyond(self) -> list[str]:
        """What is wrong, in words; empty when the case holds."""
        values = ((name, getattr(self, name), limit) for name, limit in LIMITS.items())
        over = [f"{name} {value:.1e} > {limit:.0e}" for name, value, limit in values if value is not None and not value <= limit]
        return over + list(self.problems)


LIMITS: Mapping[str, float] = {
    "logits": 1e-5,
    "loss": 1e-4,
    "gradients": 1e-4,
    "attention": 1e-5,
    "padding": 1e-5,
    "masked": 1e-5,
    "written": 1e-5,
}


ROWS = 3  # of a batch
EAGER: Mapping[str, Any] = {"attn_implementation": "eager", "experts_implementation": "eager"}  # their code as it is written, no kernels


def check(case: Case) -> Row:
    """Build their model, bring it here and back, and measure. Raises NormaError without transformers."""
    library = peer.transformers()
    seed = zlib.crc32(case.id.encode())
    random = torch.Generator().manual_seed(seed)
    with tempfile.TemporaryDirectory() as name, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _Check(case, getattr(library, case.model), random, Path(name)).row()


class _Check:
    """One case on its way there and back; ``folder`` holds what both sides write."""

    def __init__(self, case: Case, kind: Any, random: torch.Generator, folder: Path) -> None:
        self.case, self.kind, self.random, self.folder = case, kind, random, folder
        values = kind.config_class(**{"use_cache": False, **case.config})
        values._attn_implementation = values._experts_implementation = "eager"
        self.theirs = kind(values).eval()
        if case.own_head:
            self.theirs.lm_head.weight = torch.nn.Parameter(self.theirs.lm_head.weight.detach().clone())
        peer.randomise(self.theirs, case.spread, random)
        self.file = peer.saved(self.theirs, folder / "theirs")
        self.values = read_json(folder / "theirs" / "config.json")
        self.config = config_from_hf(self.values, folder / "theirs")
        self.pad = self.values.get("pad_token_id")
        self.ours = Transformer(self.config).eval()
        self.ours.load_state_dict(from_hf(self.config, self.file, folder / "theirs"))
        self.batch = self._draw(self.config, self.pad)

    def _draw(self, config: ModelConfig, pad: int | None) -> peer.Batch:
        case = self.case
        return peer.draw(config, pad, ROWS, case.length, case.source, self.random, with_pad=case.reads_pad)

    def row(self) -> Row:
        with torch.no_grad():
            padding, masked = self._padding()
            attention = self._attention() if self.case.attention else None
            again, problems = self._there_and_back()
            own, more = self._own()
        logits, loss, gradients, gradient = self._learning()
        found = (*problems, *more)
        return Row(
            self.case.family, self.case.name, logits, loss, gradients, gradient, attention, padding, masked, max(again, own), found
        )

    def _their_outputs(self, model: Any, config: ModelConfig, batch: peer.Batch) -> peer.Outputs:
        return peer.named(model(**peer.arguments(model, config, batch)), config)

    def _learning(self) -> tuple[float, float, float, str]:
        """Differences of outputs, loss and gradients, and the parameter whose gradient differs most. Uses up their model."""
        wanted = peer.labels(self.config, self.batch, self.random)
        result = self.theirs(**peer.arguments(self.theirs, self.config, self.batch), **wanted)
        theirs, ours = peer.named(result, self.config), peer.ours(self.ours, self.batch)
        their_loss = result["loss"] if wanted else peer.stateless_loss(theirs)
        our_loss = peer.our_loss(self.config, ours, wanted)
        torch.autograd.backward([their_loss])
        torch.autograd.backward([our_loss])
        right = from_hf(self.config, peer.gradients(self.theirs, self.folder / "gradients"), "their gradients")
        errors: dict[str, float] = {}
        largest = max(right[name].norm().item() for name, _ in self.ours.named_parameters())
        for name, parameter in self.ours.named_parameters():
            mine = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            errors[name] = _number((mine - right[name]).norm() / max(right[name].norm().item(), NEAR_ZERO * largest))
        worst = max(errors, key=errors.__getitem__)
        return _apart(ours, theirs), abs(our_loss.item() / their_loss.item() - 1), errors[worst], worst

    def _attention(self) -> float:
        watch = Watch()
        peer.ours(self.ours, self.batch, watch)
        result = self.theirs(**peer.arguments(self.theirs, self.config, self.batch), output_attentions=True)
        theirs = peer.attention(result, self.config)
        assert set(theirs) == set(watch.weights), (set(theirs), set(watch.weights))
        return max(_number((theirs[place] - weights).abs().max()) for place, weights in watch.weights.items())

    def _padding(self) -> tuple[float | None, float | None]:
        """Padded rows against rows alone: ours, and theirs with a mask where that is to be."""
        case, config, alone_errors, masked_errors = self.case, self.config, [], []
        follows = peer.takes_positions(self.theirs) or config.positions == "relative"
        masked: tuple[Side, ...] = ("left", "right") if follows else ("right",)
        for side in case.sides:
            batch = peer.padded(self.batch, side, self.pad or 0)
            ours = peer.ours(self.ours, batch)
            if side == "left" and config.kind == "encoder":  # the first token, which stands for the text, is padding then
                ours = {name: x for name, x in ours.items() if name not in peer.WHOLE_TEXT}
            if not ours:
                continue
            theirs = None
            if side in (masked if case.masked is None else case.masked):
                theirs = self._their_outputs(self.theirs, config, batch)
            for row in range(ROWS):
                mine = {name: _real(name, x, batch, row) for name, x in ours.items()}
                right = self._their_outputs(self.theirs, config, batch.alone(row))
                alone_errors.append(_apart(mine, {name: right[name] for name in mine}))
                if theirs is not None:
                    masked_errors.append(_apart(mine, {name: _real(name, theirs[name], batch, row) for name in mine}))
        return max(alone_errors, default=None), max(masked_errors, default=None)

    def _there_and_back(self) -> tuple[float, list[str]]:
        """What we write for the model that was read: their class must open it, and be the model that it was."""
        state = to_hf(self.config, self.ours.state_dict())
        problems = _differences("written by us", state, self.file)
        ends = {name: self.values.get(f"{name}_token_id") for name in ("bos", "eos", "pad")}
        opened, found = self._open(self.config, state, self.folder / "ours", ends)
        problems += found
        problems += _differences("saved again", peer.saved(opened, self.folder / "again"), self.file)
        before = self._their_outputs(self.theirs, self.config, self.batch)
        return _apart(self._their_outputs(opened, self.config, self.batch), before), problems

    def _own(self) -> tuple[float, list[str]]:
        """A model of ours with random weights, opened by their class."""
        config, family = self.config, FAMILIES[self.case.family]
        if self.case.preset is not None:
            head = next(head for head, name in family.architectures.items() if name == self.case.model)
            config = with_head(family.preset(**self.case.preset), head, self.config.labels)
        model = Transformer(config).eval()
        model.initialise(self.random)
        peer.randomise(model, self.case.spread, self.random)
        pad = config.pad_id if config.pad_id is not None else self.pad
        state = to_hf(config, model.state_dict())
        opened, problems = self._open(config, state, self.folder / "own", {"bos": 1, "eos": 2, "pad": pad})
        saved = peer.saved(opened, self.folder / "own again")
        problems += _differences("our own, saved again", saved, state)
        problems += _differences("our own, read again", from_hf(config, saved, self.folder / "own again"), model.state_dict())
        # What a stranger reads may be another config than what was written: GPTNeo has no attention_scale.
        again = config_from_hf(read_json(self.folder / "own again" / "config.json"), self.folder)
        back = Transformer(again).eval()
        back.load_state_dict(from_hf(again, saved, self.folder / "own again"))
        batch = self._draw(config, pad)
        right = peer.ours(model, batch)
        return max(_apart(self._their_outputs(opened, config, batch), right), _apart(peer.ours(back, batch), right)), problems

    def _open(self, config: ModelConfig, state: Mapping[str, Tensor], folder: Path, ends: Mapping[str, Any]) -> tuple[Any, list[str]]:
        """Their class on a folder of ours, and the keys it misses or does not know."""
        folder.mkdir()
        write_json(folder / "config.json", config_to_hf(config, **ends))
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors", metadata={"format": "pt"})
        model, told = self.kind.from_pretrained(folder, **EAGER, dtype=torch.float32, output_loading_info=True)
        kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
        return model.eval(), [f"{folder.name}: {kind.replace('_', ' ')}: {key}" for kind in kinds for key in sorted(told[kind])]


NEAR_ZERO = 0.01  # a gradient smaller than this share of the largest is compared with that share of the largest


def _apart(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> float:
    """The largest difference of any output, relative to that output's largest number."""
    assert set(ours) == set(theirs), (set(ours), set(theirs))
    return max(_number((ours[name] - x).abs().max() / x.abs().max()) for name, x in theirs.items())


def _number(x: Tensor) -> float:
    """Infinite where it is not a number, so that ``max`` cannot lose it."""
    return x.nan_to_num(nan=torch.inf).item()


def _real(name: str, x: Tensor, batch: peer.Batch, row: int) -> Tensor:
    """A row's output at its real tokens, (1, n, ...)."""
    assert batch.written is not None
    return x[row : row + 1] if name in peer.WHOLE_TEXT else x[row, batch.written[row]][None]


def _differences(what: str, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[str]:
    """Names that only one side has, and tensors that are not bit-equal."""
    lines = [f"{what}: {name} is missing" for name in sorted(set(theirs) - set(ours))]
    lines += [f"{what}: {name} is surplus" for name in sorted(set(ours) - set(theirs))]
    return lines + [f"{what}: {name} differs" for name in sorted(set(ours) & set(theirs)) if not torch.equal(ours[name], theirs[name])]


# ── the command ──
def run(families: Sequence[str] | None, json: Path | None, console: Console) -> int:
    """Check every case of these families (all when None), print the table, write the rows; 1 when a case is beyond its limits."""
    from norma.bench.cases import all_cases

    unknown = sorted(set(families or ()) - set(FAMILIES))
    if unknown:
        raise NormaError(f"unknown family '{unknown[0]}'", mend=nearest(unknown[0], FAMILIES))
    rows = [check(case) for case in all_cases() if families is None or case.family in families]
    console.print(table(rows))
    if json is not None:
        write_text(json, json_format.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False) + "\n")
    failed = [(row, line) for row in rows for line in row.beyond()]
    for row, line in failed:
        console.print(Text(f"{row.family}: {row.case}: {line}"))
    return 1 if failed else 0


def table(rows: Sequence[Row]) -> Table:
    """Family x what x the largest difference over its cases; fits a screen of 80 columns."""
    title = "The largest differences from transformers, fp32; below each name its limit"
    out = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    out.add_column("family", no_wrap=True)
    out.add_column("cases", justify="right", no_wrap=True)
    for name, limit in LIMITS.items():
        short = name if len(name) <= len("1.0e-05") else f"{name[:5]}-\n{name[5:]}"
        out.add_column(f"{short}\n{limit:.0e}", justify="right", no_wrap=True)
    out.add_column("keys,\nbits", justify="right", no_wrap=True)
    for family in sorted({row.family for row in rows}, key=list(FAMILIES).index):
        mine = [row for row in rows if row.family == family]
        cells = []
        for name, limit in LIMITS.items():
            values = [value for row in mine if (value := getattr(row, name)) is not None]
            cells.append(Text(f"{max(values):.1e}", "red" if max(values) > limit else "") if values else Text("-"))
        same = not any(row.problems for row in mine)
        out.add_row(Text(family), str(len(mine)), *cells, Text("same" if same else "differ", "" if same else "red"))
    return out
