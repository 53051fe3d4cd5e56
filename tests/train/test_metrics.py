"""Rows by hand, files without a gap or a double row, and every sink called as its documentation says."""

from __future__ import annotations

import builtins
import importlib
import inspect
import json
import math
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_run import STEPS, Said, model, options_of, run

from norma.base.errors import NormaError
from norma.train import sinks
from norma.train.metrics import JsonLines, bits_per_byte, make_row
from norma.train.peak import matmul_peak


def test_a_row_by_hand() -> None:
    numbers = {"loss": 2.0, "nats": 100 * math.log(2), "bytes": 50.0, "tokens": 600.0, "gradient_norm": 1.5}
    row = make_row(7, numbers, seconds=0.5, eta=12.34, flops_per_step=6e8, peak_flops=2.4e9)
    assert row == {
        "step": 7,
        "loss": 2.0,
        "bytes": 50.0,
        "bits_per_byte": pytest.approx(2.0),  # 100 bits for 50 bytes
        "tokens": 600.0,
        "gradient_norm": 1.5,
        "tokens_per_s": 1200.0,
        "peak_share": 0.5,  # 600 million operations in half a second, of 2.4 billion in one
        "seconds": 0.5,
        "eta": 12.3,
    }
    bare = make_row(0, {"loss": 1.0, "nats": 5.0}, seconds=0.25, eta=0.0, flops_per_step=6e8, peak_flops=None)
    assert bare == {"step": 0, "loss": 1.0, "seconds": 0.25, "eta": 0.0}
    assert bits_per_byte(8 * math.log(2), 1) == pytest.approx(8)


def test_rows_of_a_run(tmp_path: Path) -> None:
    said = Said()
    last = run(model(), tmp_path, options_of(), said=said, flops_per_step=5400.0, peak_flops=1e9)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert all(
        set(r) == {"step", "loss", "tokens", "gradient_norm", "learning_rate", "tokens_per_s", "peak_share", "seconds", "eta"} for r in rows
    )
    assert [r["learning_rate"] for r in rows[:3]] == [0.005, 0.01, 0.01] and rows[-1]["eta"] == 0
    assert last == {k: rows[-1][k] for k in ("loss", "tokens", "gradient_norm", "learning_rate")}
    assert len(said.shown) == STEPS and set(said.shown[0]) == {"loss", "gradient_norm", "tokens_per_s", "peak_share"}


def test_half_a_line_and_lines_within_texts(tmp_path: Path) -> None:
    log = JsonLines(tmp_path / "samples.jsonl")
    texts = ["您好", "one\u2028two\x85three\nfour", 'a "quote"']
    for step, text in enumerate(texts):
        log.write({"step": step, "text": text, "odd": float("inf")})
    log.close()
    with log.path.open("ab") as handle:
        handle.write('{"step": 3, "text": "好'.encode()[:-1])  # cut within a character
    assert log.begin(2) == {"step": 1, "text": texts[1], "odd": None}
    log.write({"step": 2, "text": texts[2], "skipped": True})
    assert log.begin(9) == {"step": 1, "text": texts[1], "odd": None}  # the last that counted
    assert [json.loads(line)["text"] for line in log.path.read_text(encoding="utf-8").split("\n")[:-1]] == texts
    assert log.begin(0) is None and log.path.read_text() == ""


def test_samples_without_a_double_row(tmp_path: Path) -> None:
    made = model()
    modes: list[tuple[bool, bool]] = []

    def sample(step: int) -> str:
        modes.append((made.training, torch.is_grad_enabled()))
        return f"{step}: {float(made.weight.sum()):.9f}"

    def stop(step: int) -> None:
        if step == 18:
            assert made.training
            raise InterruptedError

    options = options_of(sample_every=5, keep_every=12, checkpoint_seconds=1e9)
    whole = model()
    run(whole, tmp_path / "whole", options, sample=lambda step: f"{step}: {float(whole.weight.detach().sum()):.9f}")
    with pytest.raises(InterruptedError):
        run(made, tmp_path / "cut", options, sample=sample, call=stop)
    made = model()
    run(made, tmp_path / "cut", options, sample=sample)
    rows = [json.loads(line) for line in (tmp_path / "cut" / "samples.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [4, 9, 14, 19, 24, 29] and set(modes) == {(False, False)}
    assert (tmp_path / "cut" / "samples.jsonl").read_text() == (tmp_path / "whole" / "samples.jsonl").read_text()


def test_the_peak_is_one_that_products_reach() -> None:
    peak = matmul_peak(torch.float32, size=256)
    a = torch.ones(256, 256)
    seconds = []
    for _ in range(20):
        began = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - began)
    assert 0.1 < (2 * 256**3 / min(seconds)) / peak < 10


class Recorder:
    """Takes every call whose arguments fit the documented signature, and remembers it."""

    def __init__(self, **documented: Any) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        for name, like in documented.items():
            setattr(self, name, self._taking(name, like))

    def _taking(self, name: str, like: Any) -> Any:
        def call(*arguments: Any, **how: Any) -> Any:
            bound = inspect.signature(like).bind(*arguments, **how)  # raises TypeError where they do not fit
            self.calls.append((name, dict(bound.arguments)))
            return like(*arguments, **how)

        return call

    def of(self, name: str) -> list[dict[str, Any]]:
        return [arguments for called, arguments in self.calls if called == name]


def fake(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = ModuleType(name)
    for key, value in members.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)


def interrupted(tmp_path: Path, sink: str, **changes: Any) -> None:
    """A run that is cut at step 18, after the checkpoint of step 12, and goes on."""

    def stop(step: int) -> None:
        if step == 18:
            raise InterruptedError

    options = options_of(sinks=[sink], keep_every=12, checkpoint_seconds=1e9, **changes)
    with pytest.raises(InterruptedError):
        run(model(), tmp_path, options, call=stop, name="toy")
    run(model(), tmp_path, options, name="toy")


def test_weights_and_biases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """wandb 0.31: init(project, id, name, resume, dir, config), run.log(data, step), run.finish(exit_code)."""
    seen = Recorder(log=lambda data, step=None, commit=None: None, finish=lambda exit_code=None: None)

    def init(entity=None, project=None, dir=None, id=None, name=None, notes=None, tags=None, config=None, resume=None, mode=None):  # type: ignore[no-untyped-def]
        seen.calls.append(("init", {"project": project, "dir": dir, "id": id, "name": name, "resume": resume, "config": config}))
        return seen

    fake(monkeypatch, "wandb", init=init)
    interrupted(tmp_path, "wandb")
    first, second = seen.of("init")
    assert first == second and first["project"] == "norma" and first["name"] == "toy" and first["resume"] == "allow"
    assert not set("/\\#?%:") & set(first["id"]) and first["config"]["steps"] == STEPS and first["config"]["clip"] == 1.0
    assert [c["step"] for c in seen.of("log")] == [*range(18), *range(12, STEPS)]
    assert set(seen.of("log")[0]["data"]) == {"loss", "tokens", "gradient_norm", "learning_rate", "tokens_per_s", "seconds", "eta"}
    assert seen.of("finish") == [{"exit_code": 1}, {"exit_code": 0}]


def test_mlflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """mlflow 3: MlflowClient's create_run, log_batch, get_metric_history, update_run and set_terminated; no step twice."""
    history: list[Any] = []

    def log_batch(run_id, metrics=(), params=(), tags=(), synchronous=None):  # type: ignore[no-untyped-def]
        history.extend(metrics)

    seen = Recorder(
        get_experiment_by_name=lambda name: None,
        create_experiment=lambda name, artifact_location=None, tags=None: "7",
        create_run=lambda experiment_id, start_time=None, tags=None, run_name=None: SimpleNamespace(info=SimpleNamespace(run_id="abc")),
        log_batch=log_batch,
        get_metric_history=lambda run_id, key: [m for m in history if m.key == key],
        update_run=lambda run_id, status=None, name=None: None,
        set_terminated=lambda run_id, status=None, end_time=None: None,
    )
    fake(monkeypatch, "mlflow", MlflowClient=lambda: seen)

    def metric(key, value, timestamp, step):  # type: ignore[no-untyped-def]
        return SimpleNamespace(key=key, value=value, timestamp=timestamp, step=step)

    fake(monkeypatch, "mlflow.entities", Metric=metric, Param=lambda key, value: SimpleNamespace(key=key, value=value))
    interrupted(tmp_path, "mlflow")
    assert seen.of("create_run") == [{"experiment_id": "7", "run_name": "toy"}]
    assert [m.step for m in history if m.key == "loss"] == list(range(STEPS))
    assert abs(history[0].timestamp / 1000 - time.time()) < 60  # milliseconds
    assert {p.key: p.value for p in seen.of("log_batch")[0]["params"]}["clip"] == "1.0"
    assert seen.of("update_run") == [{"run_id": "abc", "status": "RUNNING"}]
    assert seen.of("set_terminated") == [{"run_id": "abc", "status": "KILLED"}, {"run_id": "abc", "status": "FINISHED"}]


def test_trackio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """trackio: init(project, name, resume, config, embed), run.log(metrics, step), run.finish()."""
    seen = Recorder(log=lambda metrics, step=None: None, finish=lambda: None)

    def init(project, name=None, group=None, space_id=None, config=None, resume="never", embed=True):  # type: ignore[no-untyped-def]
        seen.calls.append(("init", {"project": project, "name": name, "resume": resume, "embed": embed}))
        return seen

    fake(monkeypatch, "trackio", init=init)
    interrupted(tmp_path, "trackio")
    first, second = seen.of("init")
    assert first == second and first["name"].startswith("toy-") and first["resume"] == "allow" and first["embed"] is False
    assert {c["step"] for c in seen.of("log")} == set(range(STEPS)) and len(seen.of("finish")) == 2


def test_going_back_sends_no_step_twice_and_nothing_that_is_not_finite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = Recorder(log=lambda metrics, step=None: None, finish=lambda: None)
    fake(monkeypatch, "trackio", init=lambda project, name=None, config=None, resume="never", embed=True: seen)
    options = options_of(sinks=["trackio"], on_spike="rollback", pass_over=4)
    run(model(), tmp_path, options, bad={12: float("nan")})
    sent = seen.of("log")
    assert [c["step"] for c in sent] == list(range(STEPS))
    assert sent[12]["metrics"] == {"tokens": 12.0, "skipped": 1.0}
    assert all(isinstance(v, float) and math.isfinite(v) for c in sent for v in c["metrics"].values())


def test_tensorboard_reads_back_what_was_sent(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is an extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    interrupted(tmp_path, "tensorboard")
    read = EventAccumulator(str(tmp_path / "sinks" / "tensorboard"))
    read.Reload()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    found = read.Scalars("loss")
    assert [e.step for e in found] == list(range(STEPS))
    assert [e.value for e in found] == pytest.approx([r["loss"] for r in rows])


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_missing_package_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(module: str) -> Any:
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(sinks, "import_module", absent)
    with pytest.raises(NormaError) as caught:
        run(model(), tmp_path, options_of(sinks=[name]))
    assert str(caught.value) == f"metrics for {name} need the package {name}. pip install 'norma-lm[{name}]'."
    assert not (tmp_path / "metrics.jsonl").exists()


def test_nothing_is_imported_unless_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded: list[str] = []
    real = builtins.__import__

    def watching(name: str, *arguments: Any, **how: Any) -> Any:
        loaded.append(name)
        return real(name, *arguments, **how)

    monkeypatch.setattr(builtins, "__import__", watching)
    monkeypatch.setattr(sinks, "import_module", lambda name: loaded.append(name) or importlib.import_module(name))
    run(model(), tmp_path, options_of())
    assert not {n.split(".")[0] for n in loaded} & {"tensorboard", "wandb", "mlflow", "trackio"}
    assert not (tmp_path / "sinks").exists()


def test_when_the_second_sink_is_missing_the_first_is_closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = Recorder(log=lambda metrics, step=None: None, finish=lambda: None)
    fake(monkeypatch, "trackio", init=lambda project, name=None, config=None, resume="never", embed=True: seen)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(NormaError, match="wandb"):
        run(model(), tmp_path, options_of(sinks=["trackio", "wandb"]))
    assert seen.of("finish") == [{}]


def test_what_a_killed_writer_left_is_gone_when_a_run_goes_on(tmp_path: Path) -> None:
    torn, other = tmp_path / ".samples.jsonl.5714.tmp", tmp_path / ".samples.jsonl.tmp"  # the second is nobody's of ours
    torn.write_text('{"step": 3, "te')
    other.write_text("x")
    run(model(), tmp_path, options_of())
    assert not torn.exists() and other.exists()
