"""Which checkpoints stay, that a full disk leaves the last good one, and that nothing altered is believed."""

from __future__ import annotations

import errno
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from tiny_run import STEPS, Said, model, run, weights
from tiny_run import options_of as plain_options
from torch import nn

from norma.base.errors import NormaError
from norma.train import checkpoint
from norma.train.checkpoint import best, kept, load_weights
from norma.train.options import TrainOptions


def options_of(**changes: Any) -> TrainOptions:
    """A checkpoint after every step."""
    return plain_options(**{"checkpoint_seconds": 1e-9, **changes})


def steps_in(folder: Path) -> list[int]:
    return [int(p.name.removeprefix("checkpoint-")) for p in sorted(folder.glob("checkpoint-*"))]


def test_rules_by_hand() -> None:
    values: dict[int, float | None] = {0: None, 3: 2.0, 5: 1.5, 8: 1.0, 10: 1.2, 12: 1.1, 13: 1.3}
    assert kept(values, 13, options_of()) == {12, 13}
    assert kept(values, 13, options_of(keep_last=1, keep_every=5)) == {5, 10, 13}
    assert kept(values, 13, options_of(keep_last=1, keep_best="loss")) == {8, 13}
    assert kept(values, 13, options_of(keep_last=1, keep_best="loss", best_is="highest")) == {3, 13}
    # Step 13 may be the next to offend; five steps are passed over: 9 to 13. Eight is early enough, ten will be in a while.
    assert kept(values, 13, options_of(keep_last=1, on_spike="rollback", pass_over=5)) == {8, 10, 13}


@given(
    st.sets(st.integers(0, 200), min_size=1),
    st.integers(1, 4),
    st.integers(1, 40),
    st.lists(st.integers(1, 30), max_size=40),
)
def test_there_is_always_somewhere_to_go_back_to(steps: set[int], last: int, pass_over: int, gaps: list[int]) -> None:
    options = options_of(keep_last=last, on_spike="rollback", pass_over=pass_over)
    now, disk = 0, {0}
    for gap in gaps:
        before = now
        now += gap
        for offender in range(before, now):  # any step up to the next checkpoint
            assert min(disk) <= max(0, offender - pass_over + 1)
        disk = kept(dict.fromkeys(disk | {now}), now, options)
        assert now in disk and len(disk) <= last + 2
    plain = kept(dict.fromkeys(steps), max(steps), options_of(keep_last=last))
    assert plain == set(sorted(steps)[-last:])


def test_a_run_keeps_what_the_options_say(tmp_path: Path) -> None:
    options = options_of(keep_last=1, keep_every=10, keep_best="loss", checkpoint_seconds=1e9)
    run(model(), tmp_path, options)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = {step: rows[step - 1]["loss"] for step in (10, 20)}
    assert steps_in(tmp_path) == [10, 20]  # the end of a run is the model itself
    made = model()
    found = best(tmp_path, options)
    assert found is not None and found.name.endswith(f"{min(losses, key=lambda s: losses[s]):08d}")
    load_weights(found, made)
    alone = model()
    run(alone, tmp_path / "alone", options_of(checkpoint_seconds=1e9), steps=int(found.name[-8:]))
    assert torch.equal(weights(made), weights(alone))
    (found / "model.safetensors").write_bytes(b"damaged")
    other = best(tmp_path, options)
    assert other is not None and other != found
    assert best(tmp_path / "alone", options) is None


def stop_at(step: int) -> Any:
    def call(now: int) -> None:
        if now == step:
            raise InterruptedError

    return call


def test_what_is_altered_is_not_believed_and_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(InterruptedError):
        run(model(), tmp_path, options_of(keep_last=3), call=stop_at(9))
    assert steps_in(tmp_path) == [7, 8, 9]
    manifest = tmp_path / "checkpoint-00000009" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"step": 9', '"step": 8'))  # still JSON, still the right files
    (tmp_path / "checkpoint-00000008" / "manifest.json").write_text("[]")
    said, made, whole = Said(), model(), model()
    run(made, tmp_path, options_of(keep_last=3), said=said)
    assert said.lines[:3] == [
        "checkpoint-00000009 is damaged (its checksums do not match); the one before it is used",
        "checkpoint-00000008 is damaged (its checksums do not match); the one before it is used",
        "going on at step 7 of 30",
    ]
    run(whole, tmp_path / "whole", options_of())
    assert torch.equal(weights(made), weights(whole))


def test_buffers_and_tied_weights_come_back(tmp_path: Path) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(3, 3, bias=False)
            self.second = nn.Linear(3, 3, bias=False)
            self.second.weight = self.first.weight
            self.register_buffer("balance", torch.zeros(2))
            self.register_buffer("scratch", torch.zeros(2), persistent=False)
            nn.init.eye_(self.first.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.balance += 1
            self.scratch += 1
            out: torch.Tensor = self.second(self.first(x)) + self.balance[0]
            return out

    whole, broken, again = Counting(), Counting(), Counting()
    run(whole, tmp_path / "whole", options_of())
    with pytest.raises(InterruptedError):
        run(broken, tmp_path / "broken", options_of(), call=stop_at(9))
    run(again, tmp_path / "broken", options_of())
    assert torch.equal(again.balance, whole.balance) and torch.equal(weights(again), weights(whole))


class Full:
    """A writer that leaves half a file and fails as a full disk does, from the ``after``-th file on."""

    def __init__(self, after: int, rust: bool) -> None:
        self.left, self.rust, self.write = after, rust, checkpoint.save_file

    def __call__(self, tensors: dict[str, torch.Tensor], path: Path) -> None:
        self.left -= 1
        if self.left >= 0:
            self.write(tensors, path)
            return
        path.write_bytes(b"half")
        if self.rust:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("rust", [True, False])
def test_a_full_disk_leaves_the_last_good_checkpoint(rust: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole, broken, again = model(), model(), model()
    run(whole, tmp_path / "whole", options_of(ema=0.9))
    folder = tmp_path / "broken"
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", Full(3 * 7 + 1, rust))
        with pytest.raises(NormaError, match=r"no space left on the disk\. Free some space and run the same command again: it goes on"):
            run(broken, folder, options_of(ema=0.9))
    assert steps_in(folder) == [6, 7] and not list(folder.glob(".*"))  # what was half written gives its room back
    said = Said()
    run(again, folder, options_of(ema=0.9), said=said)
    assert said.lines == ["going on at step 7 of 30"] and torch.equal(weights(again), weights(whole))


def test_another_failure_of_the_writer_is_not_taken_for_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(tensors: object, path: Path) -> None:
        raise SafetensorError("Some tensors share memory")

    monkeypatch.setattr(checkpoint, "save_file", refuse)
    with pytest.raises(SafetensorError, match="share memory"):
        run(model(), tmp_path, options_of())


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        made = nn.Sequential(nn.Linear(3, 3000, bias=False), nn.Linear(3000, 3, bias=False))  # 216 kB with its moments
        with pytest.raises(NormaError, match="no space left on the disk"):
            run(made, small, options_of(checkpoint_seconds=1e-9), steps=3)
        assert steps_in(small) == [1]
        assert subprocess.run(["mount", "-o", "remount,size=4m", str(small)], capture_output=True).returncode == 0
        said = Said()
        run(made, small, options_of(), steps=3, said=said)
        assert said.lines == ["going on at step 1 of 3"]
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_finished_run_does_nothing_more(tmp_path: Path) -> None:
    made = model()
    first = run(made, tmp_path, options_of(keep_every=STEPS - 1))
    assert first["loss"] > 0
    done = weights(made)
    second = run(made, tmp_path, TrainOptions.model_validate({**options_of().model_dump(), "keep_every": STEPS - 1}))
    assert second == first and torch.equal(weights(made), done)
