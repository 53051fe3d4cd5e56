"""Other places for metrics, by name: TensorBoard, Weights & Biases, MLflow, trackio. Each is imported only when asked for.

    open_sinks(["wandb"], folder, done, ...) ─→ [Sink] ─→ write(step, numbers) a step ─→ close(finished)
    folder/sinks/ids.json: the name of the run there, so that a run that goes on is one run there too

metrics.jsonl is the truth, a sink is a view: after a kill, steps since the last checkpoint are done again. TensorBoard hides the
old rows (purge_step), Weights & Biases drops rows of steps it has, MLflow is asked which it has; in trackio such a step stands
twice, with equal numbers.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from norma.base.errors import NormaError
from norma.base.files import read_json, write_json

PROJECT = "norma"  # the project, or experiment, that runs stand in


class Sink(Protocol):
    """Receives every step's numbers. A new one: a class here and a line in ``SINKS``."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Finite numbers of one step; steps come in ascending order."""

    def close(self, *, finished: bool) -> None:
        """The run ends here, or stops to go on later."""


class TensorBoard:
    """Event files below ``sinks/tensorboard``: ``tensorboard --logdir FOLDER``."""

    def __init__(self, folder: Path, name: str, run_id: str, done: int, config: Mapping[str, Any]) -> None:
        module = _load("tensorboard", "torch.utils.tensorboard")
        self.writer = module.SummaryWriter(log_dir=str(folder / "tensorboard"), purge_step=done if done else None)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for key, value in numbers.items():
            self.writer.add_scalar(key, value, global_step=step)

    def close(self, *, finished: bool) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases; WANDB_MODE=offline keeps it on this machine."""

    def __init__(self, folder: Path, name: str, run_id: str, done: int, config: Mapping[str, Any]) -> None:
        module = _load("wandb")
        self.run = module.init(project=PROJECT, id=run_id, name=name, resume="allow", dir=str(folder), config=dict(config))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log(dict(numbers), step=step)

    def close(self, *, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)


class MLflow:
    """A run of MLflow, where MLFLOW_TRACKING_URI says."""

    def __init__(self, folder: Path, name: str, run_id: str, done: int, config: Mapping[str, Any]) -> None:
        module = _load("mlflow")
        self.entities, self.client = _load("mlflow", "mlflow.entities"), module.MlflowClient()
        ids = folder / "mlflow.json"  # MLflow chooses its run's name itself
        self.last = -1
        if ids.exists():
            self.run_id = str(read_json(ids)["run"])
            self.client.update_run(self.run_id, status="RUNNING")
            self.last = max((m.step for m in self.client.get_metric_history(self.run_id, "seconds")), default=-1)
        else:
            found = self.client.get_experiment_by_name(PROJECT)
            experiment = self.client.create_experiment(PROJECT) if found is None else found.experiment_id
            self.run_id = self.client.create_run(experiment, run_name=name).info.run_id
            self.client.log_batch(self.run_id, params=[self.entities.Param(k, str(v)) for k, v in config.items()])
            write_json(ids, {"run": self.run_id})

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        if step > self.last:
            now = int(time.time() * 1000)
            self.client.log_batch(self.run_id, metrics=[self.entities.Metric(k, v, now, step) for k, v in numbers.items()])

    def close(self, *, finished: bool) -> None:
        self.client.set_terminated(self.run_id, status="FINISHED" if finished else "KILLED")


class Trackio:
    """A run of trackio, on this machine: ``trackio show``."""

    def __init__(self, folder: Path, name: str, run_id: str, done: int, config: Mapping[str, Any]) -> None:
        module = _load("trackio")
        self.run = module.init(project=PROJECT, name=f"{name}-{run_id}", resume="allow", config=dict(config), embed=False)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log(dict(numbers), step=step)

    def close(self, *, finished: bool) -> None:
        self.run.finish()


Maker = Callable[[Path, str, str, int, Mapping[str, Any]], Sink]
SINKS: dict[str, Maker] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow, "trackio": Trackio}


def open_sinks(names: Sequence[str], folder: Path, done: int, *, name: str, config: Mapping[str, Any]) -> list[Sink]:
    """The sinks of these names for the run in ``folder``, which has done ``done`` steps.

    Args:
        name: what the run is called there.
        config: flat settings that are shown beside the run.

    Raises NormaError when a package is missing.
    """
    if not names:
        return []
    home = folder / "sinks"
    home.mkdir(parents=True, exist_ok=True)
    ids = home / "ids.json"
    if not ids.exists():
        write_json(ids, {"run": uuid.uuid4().hex[:12]})
    run_id = str(read_json(ids)["run"])
    opened: list[Sink] = []
    try:
        for sink in names:
            opened.append(SINKS[sink](home, name, run_id, done, config))
    except NormaError:
        for other in opened:
            other.close(finished=False)
        raise
    return opened


def _load(extra: str, module: str | None = None) -> Any:
    try:
        return import_module(module or extra)
    except ImportError:
        raise NormaError(f"metrics for {extra} need the package {extra}", mend=f"pip install 'norma-lm[{extra}]'") from None
