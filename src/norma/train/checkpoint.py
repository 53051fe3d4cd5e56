"""Checkpoints of a running stage: safetensors and a manifest with checksums. No pickle; whole or ignored.

    checkpoint-00000120/  model.safetensors  optimiser.safetensors  [average.safetensors]  manifest.json
                          of several ranks: shards/*.safetensors (PyTorch's distributed checkpoint), written while training goes on
    manifest.json         {step, files: {name: sha256}, numbers, guard, metrics, updates, digest of all these}

    save:     write beside ─→ fsync ─→ rename ─→ drop what no rule keeps      (rename before each deletion too: half a
    restore:  newest first ─→ checksums ─→ weights, moments, averages, state   checkpoint never bears a checkpoint's name)
"""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from norma.base.errors import NormaError
from norma.base.files import commit_folder, disk_errors, fsync_folder, read_json, write_json
from norma.base.hashing import digest, file_digest
from norma.base.ranks import ALONE, Ranks
from norma.train import sharded
from norma.train.averaging import WeightAverage
from norma.train.guard import Guard
from norma.train.optimiser import optimiser_tensors, restore_optimisers
from norma.train.options import TrainOptions

SHARDS = "shards"


@dataclass
class _Pending:
    """A checkpoint that is being written beside the training."""

    folder: Path
    manifest: dict[str, Any]
    future: Future[Any]


class Checkpoints:
    """Saves and restores all that a run is made of, and keeps what the options say.

    Args:
        state: JSON values of the caller; the same object is filled again by :meth:`restore`.
        say: told of checkpoints that are damaged.
    """

    def __init__(
        self,
        folder: Path,
        options: TrainOptions,
        model: nn.Module,
        optimisers: list[torch.optim.Optimizer],
        average: WeightAverage | None,
        guard: Guard,
        state: dict[str, Any],
        say: Callable[[str], None],
        ranks: Ranks = ALONE,
    ) -> None:
        self.folder, self.options, self.model, self.optimisers = folder, options, model, optimisers
        self.average, self.guard, self.state, self.say, self.ranks = average, guard, state, say, ranks
        self._pending: _Pending | None = None
        self.latest: dict[str, float] = {}  # the last value of each number: what "best" is judged by
        self.at: int | None = None  # the step whose checkpoint was last written or read

    def save(self, step: int) -> None:
        """Write ``checkpoint-<step>`` (``step`` steps are done) whole, then drop what no rule keeps.

        With several ranks this returns as soon as the values are copied; :meth:`settle` waits for the rest.
        """
        self.settle()
        if step == self.at:
            return
        temporary = self.folder / f".checkpoint-{step:08d}.tmp"
        if self.ranks.count > 1:
            if self.ranks.first:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
            self.ranks.wait()
            self._pending = _Pending(temporary, self._manifest(step), sharded.write(temporary / SHARDS, self._tensors()))
            self.at = step
            return
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            with disk_errors(self.folder):
                temporary.mkdir(parents=True)
                _write(temporary / "model.safetensors", _weights(self.model))
                _write(temporary / "optimiser.safetensors", optimiser_tensors(self.model, self.optimisers))
                if self.average is not None:
                    _write(temporary / "average.safetensors", self.average.tensors)
            self._commit(temporary, self._manifest(step))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)  # room on a full disk, for the next try
        self.at = step

    @property
    def written(self) -> bool:
        """Whether nothing of this rank is being written any more."""
        return self._pending is None or self._pending.future.done()

    def settle(self) -> None:
        """Wait for what is being written and let it count. Every rank must call this at the same step."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        with disk_errors(self.folder):
            pending.future.result()
        self.ranks.wait()
        if self.ranks.first:
            self._commit(pending.folder, pending.manifest)
        self.ranks.wait()

    def _commit(self, temporary: Path, manifest: dict[str, Any]) -> None:
        """Let a folder whose tensors are written be a checkpoint."""
        step = int(manifest["step"])
        with disk_errors(self.folder):
            found = sorted(temporary.rglob("*.safetensors"))
            manifest["files"] = {p.relative_to(temporary).as_posix(): file_digest(p) for p in found}
        _write_manifest(temporary, manifest)
        fsync_folder(temporary)
        commit_folder(temporary, self.folder / f"checkpoint-{step:08d}")
        whole = {path: m for path in _found(self.folder) if (m := read_manifest(path)) is not None}
        values = {int(m["step"]): m["metrics"].get(self.options.keep_best) for m in whole.values()}
        for step_kept in set(values) - kept(values, step, self.options):
            _drop(self.folder / f"checkpoint-{step_kept:08d}")

    def restore(self, at_most: int | None = None) -> int:
        """Load the newest whole checkpoint; returns the steps done, 0 when there is none.

        One whose checksums do not match (a disk that filled up, a bit that flipped) is passed over for the one before it.

        Args:
            at_most: go back to a checkpoint of no more than so many steps, and drop the later ones. What the guard has found since
                goes into that checkpoint, so that a kill does not undo the decision. Raises NormaError when there is none.
        """
        self.settle()
        path = self.ranks.tell(self._newest(at_most) if self.ranks.first else None)
        if path is None:
            if at_most is not None:
                mend = "Start again, with another on_spike"
                raise NormaError(f"there is no whole checkpoint of step {at_most} or before to go back to", where=self.folder, mend=mend)
            self.at = None
            return 0
        manifest = read_manifest(path)
        assert manifest is not None  # just read
        self._load(path, manifest)
        self.ranks.wait()
        if at_most is not None and self.ranks.first:
            _write_manifest(path, {**manifest, "guard": self.guard.saved()})
        self.ranks.wait()
        assert self.at is not None
        return self.at

    def _newest(self, at_most: int | None) -> Path | None:
        """The newest whole checkpoint of at most so many steps; damaged ones and later ones are dropped."""
        for path in self.folder.glob(".checkpoint-*"):  # what a kill left behind
            shutil.rmtree(path, ignore_errors=True)
        chosen: Path | None = None
        later: list[Path] = []
        for path in reversed(_found(self.folder)):
            manifest = read_manifest(path)
            if at_most is not None and _step(path) > at_most:
                later.append(path)
            elif manifest is None or not _whole(path, manifest):
                self.say(f"{path.name} is damaged (its checksums do not match); the one before it is used")
                later.append(path)
            else:
                chosen = path
                break
        if chosen is not None or at_most is None:
            for path in later:
                _drop(path)
        return chosen

    def _load(self, path: Path, manifest: dict[str, Any]) -> None:
        saved = _read(path, self.model, self.ranks)
        _fill(self.model, saved["model"])
        restore_optimisers(self.model, self.optimisers, saved["optimiser"])
        if self.average is not None:
            self.average.restore(saved["average"], int(manifest["updates"]))
        self.guard.restore(manifest["guard"])
        self.latest = dict(manifest["metrics"])
        self.state.clear()
        self.state.update(manifest["numbers"])
        self.at = int(manifest["step"])

    def _tensors(self) -> dict[str, Tensor]:
        """All of them under one roof: ``model/...``, ``optimiser/...``, ``average/...``."""
        kinds = {"model": _weights(self.model), "optimiser": optimiser_tensors(self.model, self.optimisers)}
        if self.average is not None:
            kinds["average"] = self.average.tensors
        return {f"{kind}/{name}": tensor for kind, tensors in kinds.items() for name, tensor in tensors.items()}

    def _manifest(self, step: int) -> dict[str, Any]:
        updates = None if self.average is None else self.average.updates
        numbers, metrics = copy.deepcopy(self.state), dict(self.latest)
        return {"step": step, "numbers": numbers, "guard": self.guard.saved(), "metrics": metrics, "updates": updates}


def kept(values: Mapping[int, float | None], now: int, options: TrainOptions) -> set[int]:
    """Which checkpoints stay. ``values``: step -> its value of ``keep_best``; ``now``: steps that are done."""
    steps = sorted(values)
    stay = set(steps[-options.keep_last :])
    if options.keep_every is not None:
        stay |= {s for s in steps if s > 0 and s % options.keep_every == 0}
    judged = {s: v for s, v in values.items() if v is not None}
    if options.keep_best is not None and judged:
        sign = 1.0 if options.best_is == "lowest" else -1.0
        stay.add(min(judged, key=lambda s: (sign * judged[s], s)))
    if options.on_spike == "rollback":  # step `now` may be the next to offend
        latest = max(0, now - options.pass_over + 1)
        stay |= set([s for s in steps if s <= latest][-1:])
        stay |= set([s for s in steps if s > latest][:1])  # it will be the one before long; else the same old one stayed for ever
    return stay


def best(folder: Path, options: TrainOptions) -> Path | None:
    """The whole checkpoint with the best value of ``options.keep_best``, or None."""
    sign = 1.0 if options.best_is == "lowest" else -1.0
    judged: list[tuple[float, Path]] = []
    for path in _found(folder):
        manifest = read_manifest(path)
        if manifest is not None and options.keep_best in manifest["metrics"] and _whole(path, manifest):
            judged.append((sign * manifest["metrics"][options.keep_best], path))
    return min(judged)[1] if judged else None


def load_weights(checkpoint: Path, model: nn.Module) -> None:
    """Put the weights of one checkpoint into ``model``."""
    _fill(model, _read(checkpoint, model, Ranks())["model"])


def remove(folder: Path, options: TrainOptions) -> None:
    """Drop the checkpoints of a finished stage, but for those that ``keep_every`` and ``keep_best`` ask for."""
    stay = best(folder, options) if options.keep_best is not None else None
    for path in _found(folder):
        every = options.keep_every is not None and _step(path) % options.keep_every == 0 and _step(path) > 0
        if path != stay and not every:
            _drop(path)
    for path in folder.glob(".checkpoint-*"):
        shutil.rmtree(path, ignore_errors=True)


def read_manifest(checkpoint: Path) -> dict[str, Any] | None:
    """A checkpoint's manifest, or None when it is missing, cut short or altered."""
    try:
        manifest = read_json(checkpoint / "manifest.json")
    except NormaError:
        return None
    if not isinstance(manifest, dict):
        return None
    said = manifest.pop("digest", None)
    return manifest if said == digest(manifest) else None


def _whole(checkpoint: Path, manifest: dict[str, Any]) -> bool:
    return all((checkpoint / n).is_file() and file_digest(checkpoint / n) == d for n, d in manifest["files"].items())


def _found(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _drop(checkpoint: Path) -> None:
    hidden = checkpoint.with_name(f".{checkpoint.name}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    checkpoint.replace(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    write_json(folder / "manifest.json", {**manifest, "digest": digest(dict(manifest))})


def _read(checkpoint: Path, model: nn.Module, ranks: Ranks) -> dict[str, dict[str, Tensor]]:
    """{kind: {name: tensor}}, each tensor whole or divided as the model's own weights are."""
    found: dict[str, dict[str, Tensor]] = {"model": {}, "optimiser": {}, "average": {}}
    if (checkpoint / SHARDS).is_dir():
        for name, tensor in sharded.read(checkpoint / SHARDS, like=_likeness(model), alone=ranks.count == 1).items():
            kind, _, rest = name.partition("/")
            found[kind][rest] = tensor
        return found
    for kind, tensors in found.items():
        if (path := checkpoint / f"{kind}.safetensors").is_file():
            tensors.update(load_file(path))
    like = _likeness(model)
    return {kind: {n: sharded.divide(t, like(f"{kind}/{n}", t.shape)) for n, t in tensors.items()} for kind, tensors in found.items()}


def _likeness(model: nn.Module) -> Callable[[str, torch.Size], Tensor | None]:
    """(a tensor's name in a checkpoint, its shape) -> the weight that it belongs to, when it has its shape."""
    weights = _weights(model)

    def like(name: str, shape: torch.Size) -> Tensor | None:
        kind, _, rest = name.partition("/")
        weight = weights.get(rest.rpartition("/")[0] if kind == "optimiser" else rest)
        return weight if weight is not None and weight.shape == shape else None

    return like


@torch.no_grad()
def _fill(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    for name, tensor in _weights(model).items():
        tensor.copy_(saved[name])


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters that are trained, tied ones once, and buffers that are saved (an expert's balance moves while training).

    What is frozen (the base under LoRA) is as it was when the stage began, and is not written again.
    """
    saved = model.state_dict().keys()
    buffers = {n: b for n, b in model.named_buffers() if n in saved}
    return {**{n: p.detach() for n, p in model.named_parameters() if p.requires_grad}, **buffers}


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    try:
        save_file({n: t.contiguous() for n, t in tensors.items()}, path)
    except SafetensorError as error:
        # The Rust side tells of a full disk in words only.
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), str(error)) from error
