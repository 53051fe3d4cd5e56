"""The loop: a killed run ends bit-equal to an unbroken one, micro-batches change nothing, and a tiny model learns."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from norma.base.errors import NormaError
from norma.base.progress import Silent
from norma.lm import LanguageModel
from norma.nn import Transformer
from norma.text.packing import Batches, Rows
from norma.train import Losses, TrainOptions, checkpoint, train
from norma.train.metrics import CLOCKS
from norma.train.step import language_losses

Make = Callable[..., LanguageModel]
STEPS = 9


class Killed(Exception):
    """Stands for a SIGKILL."""


def batches_of(pad: int = 0, length: int = 24, size: int = 4) -> Batches:
    random = torch.Generator().manual_seed(0)
    rows = [torch.randint(6, 300, (n,), generator=random).tolist() for n in torch.randint(3, 20, (40,), generator=random).tolist()]
    return Batches(Rows.build(((r, [i % 5 != 2 for i in range(len(r))]) for r in rows), length), length=length, size=size, seed=1, pad=pad)


def losses_of(model: Transformer, *, micro: int = 2, die_at: int | None = None) -> Losses:
    """Language modelling in micro-batches; at step ``die_at`` the run dies between two of them."""
    batches = batches_of()

    def losses(step: int) -> Iterator[tuple[torch.Tensor, dict[str, float]]]:
        for number, part in enumerate(language_losses(model, batches, step, micro=micro, dtype=torch.float32)):
            if step == die_at and number == 1:
                raise Killed
            yield part

    return losses


def options_of(kind: str, seconds: float = 1e-9) -> TrainOptions:
    return TrainOptions(optimiser=kind, warmup=3, learning_rate=1e-2, matrix_learning_rate=2e-2, checkpoint_seconds=seconds)


def run(model: Transformer, folder: Path, kind: str, **how: int | None) -> dict[str, float]:
    return train(model, losses_of(model, **how), steps=STEPS, options=options_of(kind), folder=folder, progress=Silent())  # type: ignore[arg-type]


def rows_in(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in CLOCKS} for row in rows]


@pytest.fixture(params=["muon", "adamw"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def unbroken(kind: str, make_model: Make, tmp_path: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    model = make_model(5).transformer
    run(model, tmp_path / "whole", kind)
    return model.state_dict(), rows_in(tmp_path / "whole")


def assert_same(model: Transformer, folder: Path, unbroken: tuple[dict[str, torch.Tensor], list[dict[str, float]]]) -> None:
    weights, metrics = unbroken
    assert all(torch.equal(t, weights[n]) for n, t in model.state_dict().items())
    assert rows_in(folder) == metrics and [r["step"] for r in metrics] == list(range(STEPS))


@pytest.mark.parametrize("deaths", [[5], [1, 2, 8], [6, 6], [0]])
def test_a_killed_run_ends_bit_equal(deaths: list[int], kind: str, unbroken: object, make_model: Make, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    for death in deaths:
        with pytest.raises(Killed):
            run(make_model(5).transformer, folder, kind, die_at=death)
    model = make_model(5).transformer
    run(model, folder, kind)
    assert_same(model, folder, unbroken)  # type: ignore[arg-type]


def test_going_on_in_the_same_process_forgets_the_broken_step(kind: str, unbroken: object, make_model: Make, tmp_path: Path) -> None:
    model = make_model(5).transformer
    with pytest.raises(Killed):
        run(model, tmp_path / "b", kind, die_at=4)
    run(model, tmp_path / "b", kind)
    assert_same(model, tmp_path / "b", unbroken)  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["flip", "cut", "manifest", "missing", "half-written"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    damage: str, kind: str, unbroken: object, make_model: Make, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    with pytest.raises(Killed):
        run(make_model(5).transformer, folder, kind, die_at=6)
    names = sorted(p.name for p in folder.glob("checkpoint-*"))
    assert names == ["checkpoint-00000005", "checkpoint-00000006"]
    newest = folder / names[-1]
    weights = newest / "model.safetensors"
    if damage == "flip":
        data = bytearray(weights.read_bytes())
        data[-5] ^= 1
        weights.write_bytes(data)
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:100])
    elif damage == "manifest":
        (newest / "manifest.json").write_text('{"step": 6, "fi')
    elif damage == "missing":
        (newest / "optimiser.safetensors").unlink()
    else:
        newest.rename(folder / ".checkpoint-00000006.tmp")
        with (folder / "metrics.jsonl").open("a") as log:
            log.write('{"step": 6, "lo')
    model = make_model(5).transformer
    started: list[int] = []
    inner = losses_of(model)
    train(model, lambda s: (started.append(s), inner(s))[1], steps=STEPS, options=options_of(kind), folder=folder, progress=Silent())
    assert started[0] == 5
    assert_same(model, folder, unbroken)  # type: ignore[arg-type]
    checkpoint.remove(folder, options_of(kind))
    assert [p.name for p in folder.iterdir()] == ["metrics.jsonl"]


def test_numbers_of_the_run_are_kept_with_the_weights(make_model: Make, tmp_path: Path) -> None:
    state: dict[str, object] = {"multipliers": {"a": 0.5}}
    model = make_model(5).transformer
    inner = losses_of(model, die_at=3)

    def losses(step: int) -> Iterator[tuple[torch.Tensor, dict[str, float]]]:
        state["multipliers"] = {"a": step}
        return inner(step)

    with pytest.raises(Killed):
        train(model, losses, steps=STEPS, options=options_of("muon"), folder=tmp_path, progress=Silent(), state=state)
    found: dict[str, object] = {}
    model = make_model(5).transformer
    train(model, losses_of(model), steps=STEPS, options=options_of("muon"), folder=tmp_path, progress=Silent(), state=found)
    assert found["multipliers"] == {"a": 2}


def gradient(model: Transformer, micro: int) -> list[torch.Tensor]:
    model.zero_grad()
    for loss, _ in language_losses(model, batches_of(), 3, micro=micro, dtype=torch.float32):
        loss.backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_micro_batches_and_padding_do_not_change_the_gradient(make_model: Make) -> None:
    model = make_model(5).transformer
    whole = gradient(model, 4)
    for micro in (1, 3):
        for a, b in zip(gradient(model, micro), whole, strict=True):
            assert float((a - b).abs().max()) <= 1e-6 * max(1.0, float(b.abs().max()))
    # The loss is the mean over the trained targets of the whole batch, by a loop over rows of their own.
    batch, nats, count = batches_of()[3], 0.0, 0
    for b in range(4):
        for d in range(1, int(batch.documents[b].max()) + 1):
            at = batch.documents[b] == d
            log_p = model(torch.from_numpy(batch.ids[b, at])[None])[0].detach().double().log_softmax(-1)
            for i, t in enumerate(batch.targets[b, at].tolist()):
                if t >= 0:
                    nats, count = nats - float(log_p[i, t]), count + 1
    parts = list(language_losses(model, batches_of(), 3, micro=3, dtype=torch.float32))
    assert sum(float(loss.detach()) for loss, _ in parts) == pytest.approx(nats / count, rel=1e-5)
    assert sum(n["loss"] for _, n in parts) == pytest.approx(nats / count, rel=1e-5)
    assert sum(n["tokens"] for _, n in parts) == pytest.approx(int((batch.documents > 0).sum()))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_names_its_step(bad: float, make_model: Make, tmp_path: Path) -> None:
    model = make_model(5).transformer
    inner = losses_of(model)

    def losses(step: int) -> Iterator[tuple[torch.Tensor, dict[str, float]]]:
        return ((loss * (bad if step == 4 else 1.0), n) for loss, n in inner(step))

    with pytest.raises(NormaError, match="at step 4 the gradient is not finite"):
        train(model, losses, steps=STEPS, options=options_of("muon"), folder=tmp_path, progress=Silent())
    assert all(p.isfinite().all() for p in model.parameters())
    rows = rows_in(tmp_path)
    assert [r["step"] for r in rows] == [0, 1, 2, 3, 4] and rows[4]["skipped"] is True and rows[4]["gradient_norm"] is None


@pytest.mark.parametrize("kind", ["muon", "adamw"], indirect=True)
def test_a_tiny_model_learns_twenty_rows_by_heart(kind: str, make_model: Make, tmp_path: Path) -> None:
    model = make_model(0).transformer.initialise(torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(3)
    rows = [[2, 10 + i, *torch.randint(40, 300, (6,), generator=random).tolist()] for i in range(20)]
    batches = Batches(Rows.build(((r, [False, False] + [True] * 6) for r in rows), 32), length=32, size=5, seed=0, pad=0)
    options = TrainOptions(
        optimiser=kind, warmup=5, learning_rate=2e-2, matrix_learning_rate=3e-2, weight_decay=0.0, checkpoint_seconds=1e9
    )
    last = train(
        model,
        lambda s: language_losses(model, batches, s, micro=5, dtype=torch.float32),
        steps=120,
        options=options,
        folder=tmp_path,
        progress=Silent(),
    )
    assert last["loss"] < 0.05 and not list(tmp_path.glob("checkpoint-*"))
    for row in rows:
        assert model(torch.tensor([row[:-1]])).argmax(-1)[0, 1:].tolist() == row[2:]


def test_dropout_depends_on_seed_and_step_alone(make_model: Make, tmp_path: Path) -> None:
    def trained(folder: str, seed: int, before: int) -> torch.Tensor:
        model = make_model(5).transformer
        model.train()
        weights = next(iter(model.parameters()))

        def losses(step: int) -> Iterator[tuple[torch.Tensor, dict[str, float]]]:
            yield torch.nn.functional.dropout(weights, 0.5).square().sum(), {}

        torch.manual_seed(before)
        noise = torch.rand(3)
        torch.manual_seed(before)
        train(model, losses, steps=3, options=options_of("adamw"), folder=tmp_path / folder, progress=Silent(), seed=seed)
        assert torch.equal(torch.rand(3), noise)  # the caller's random numbers are as they were
        return weights.detach().clone()

    first = trained("a", 1, 10)
    assert torch.equal(first, trained("b", 1, 11)) and not torch.equal(first, trained("c", 2, 10))


def test_a_finished_stage_keeps_what_its_rules_ask_for(make_model: Make, tmp_path: Path) -> None:
    model = make_model(5).transformer
    options = options_of("adamw").model_copy(update={"keep_every": 3, "keep_best": "loss", "best_is": "highest"})
    train(model, losses_of(model), steps=STEPS, options=options, folder=tmp_path, progress=Silent())
    before = checkpoint.best(tmp_path, options)
    assert before is not None
    checkpoint.remove(tmp_path, options)
    every = {f"checkpoint-{step:08d}" for step in range(3, STEPS + 1, 3)}
    assert {p.name for p in tmp_path.glob("*checkpoint-*")} == {p for p in {before.name, *every} if (tmp_path / p).is_dir()}
    assert (tmp_path / before.name).is_dir() and (tmp_path / "checkpoint-00000003").is_dir()


def test_epsilon_bounds_what_a_small_gradient_moves(make_model: Make, tmp_path: Path) -> None:
    """AdamW's first step is rate x g / (|g| + epsilon): all of the rate where epsilon is small, next to nothing where it is large."""
    moved = {}
    for epsilon in (1e-8, 1e3):
        model = make_model(5).transformer
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        options = TrainOptions(optimiser="adamw", warmup=0, learning_rate=1e-2, weight_decay=0.0, epsilon=epsilon, schedule="constant")
        train(model, losses_of(model), steps=1, options=options, folder=tmp_path / str(epsilon), progress=Silent())
        moved[epsilon] = max(float((tensor - before[name]).abs().max()) for name, tensor in model.state_dict().items())
    assert moved[1e-8] == pytest.approx(1e-2, rel=1e-3) and 0 < moved[1e3] < 1e-5
