"""Ctrl-C and SIGTERM: the step is finished and saved, the handlers are as they were, and the run goes on bit-equal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from tiny_run import STEPS, Said, model, options_of, run, weights


class Terminated(KeyboardInterrupt):
    pass


def raise_terminated(number: int, frame: FrameType | None) -> None:
    raise Terminated


@pytest.fixture
def handler(request: pytest.FixtureRequest) -> Any:
    before = signal.signal(signal.SIGTERM, request.param)
    yield request.param
    signal.signal(signal.SIGTERM, before)


def send(number: signal.Signals, at: int) -> Any:
    return lambda step: os.kill(os.getpid(), number) if step == at else None


@pytest.mark.parametrize(
    ("handler", "number", "raised"),
    [
        (raise_terminated, signal.SIGTERM, Terminated),
        (lambda number, frame: None, signal.SIGTERM, SystemExit),
        (signal.SIG_DFL, signal.SIGTERM, SystemExit),
        (signal.SIG_DFL, signal.SIGINT, KeyboardInterrupt),
    ],
    indirect=["handler"],
)
@pytest.mark.parametrize("at", [0, 9, STEPS - 1])
def test_a_signal_waits_for_the_step(handler: Any, number: signal.Signals, raised: type[BaseException], at: int, tmp_path: Path) -> None:
    whole, made, said = model(), model(), Said()
    run(whole, tmp_path / "whole", options_of())
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(raised) as caught:
        run(made, tmp_path / "cut", options_of(checkpoint_seconds=1e9, ema=0.9), call=send(number, at), said=said)
    assert not isinstance(caught.value, SystemExit) or caught.value.code == 143
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert said.lines == [f"stopped after step {at + 1} of 30, which is saved: the same command goes on from here"]
    assert [p.name for p in (tmp_path / "cut").glob("checkpoint-*")] == [f"checkpoint-{at + 1:08d}"]
    again = model()
    last = run(again, tmp_path / "cut", options_of(checkpoint_seconds=1e9, ema=0.9))
    assert torch.equal(weights(again), weights(whole)) and last["loss"] > 0
    assert (tmp_path / "cut" / "metrics.jsonl").read_text().count("\n") == STEPS


@pytest.mark.parametrize("handler", [raise_terminated], indirect=True)
def test_a_second_signal_does_not_wait(handler: Any, tmp_path: Path) -> None:
    def twice(step: int) -> None:
        if step == 9:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the step went on")

    with pytest.raises(Terminated):
        run(model(), tmp_path, options_of(checkpoint_seconds=1e9), call=twice)
    assert signal.getsignal(signal.SIGTERM) is raise_terminated and not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize("handler", [signal.SIG_IGN], indirect=True)
def test_who_ignores_a_signal_goes_on_ignoring_it(handler: Any, tmp_path: Path) -> None:
    run(model(), tmp_path, options_of(), call=send(signal.SIGTERM, 9))
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == STEPS


def test_another_thread_leaves_signals_alone(tmp_path: Path) -> None:
    seen: list[Any] = []
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def work() -> None:
        run(model(), tmp_path, options_of(), call=lambda step: seen.append([signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before] * STEPS


def test_a_process_that_gets_sigterm_ends_with_143(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    code = f"""
import os, signal, sys, pathlib
sys.path.insert(0, {here!r})
from tiny_run import Said, model, options_of, run
class Loud(Said):
    def say(self, text): print(text) if "tensors, " not in text else None
run(model(), pathlib.Path({str(tmp_path)!r}), options_of(), said=Loud(), call=lambda s: s == 5 and os.kill(os.getpid(), signal.SIGTERM))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (143, "")
    assert done.stdout == "stopped after step 6 of 30, which is saved: the same command goes on from here\n"
