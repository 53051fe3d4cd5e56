"""Compiled blocks: the same losses and gradients, the same names, nothing left behind; chosen only where it pays."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from norma.base import platform
from norma.nn import Transformer, preset
from norma.train import compiling
from norma.train.calibrate import examples_of
from norma.train.compiling import cannot_compile, compiled_blocks, compiling_pays
from norma.train.examples import examples_loss

needs_compiler = pytest.mark.skipif(platform.compiler() is None, reason="no C++ compiler here")


def a_model(family: str = "llama") -> Transformer:
    config = replace(preset(family, vocab_size=64, width=32, layers=3, head_size=16), dropout=0.0)
    return Transformer(config).initialise(torch.Generator().manual_seed(0)).train()


def gradients(model: Transformer) -> list[Tensor]:
    model.zero_grad(set_to_none=True)
    examples_loss(model, examples_of(model.config, 2, 32), torch.float32).minimised.backward()  # type: ignore[no-untyped-call]
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_same_gradients_names_and_nothing_left(family: str) -> None:
    model = a_model(family)
    names, plain = list(model.state_dict()), gradients(model)
    with compiled_blocks(model):
        quick = gradients(model)
        assert list(model.state_dict()) == names
        with torch.no_grad():  # lengths of all kinds come here: they must not be compiled each
            before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
            for length in (3, 5, 7):
                model(torch.ones(1, length, dtype=torch.int64))
            assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before
    assert all("forward" not in vars(block) for block in model.modules())
    for a, b in zip(quick, plain, strict=True):
        assert float((a - b).abs().max()) <= 2e-6 * max(1.0, float(b.abs().max()))


@needs_compiler
@pytest.mark.slow
def test_equal_blocks_are_compiled_once() -> None:
    torch._dynamo.reset()
    model = a_model()
    torch._dynamo.utils.counters.clear()
    with compiled_blocks(model):
        gradients(model)
        once = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        gradients(model)
    assert once == torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize(
    ("plain", "quick", "spent", "steps", "pays"),
    [(1.0, 0.9, 30.0, 1000, True), (1.0, 0.9, 30.0, 200, False), (1.0, 1.0, 30.0, 10_000, False), (1.0, 0.99, 30.0, 2000, False)],
    ids=["100 s saved for 30", "less than ten minutes", "no faster", "20 s saved for 30"],
)
def test_only_where_it_pays(
    plain: float, quick: float, spent: float, steps: int, pays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def measured(model: Transformer, losses: Any, steps: int = 4) -> float:
        compiled = "forward" in vars(model.stack.blocks[0])
        clock[0] += spent if compiled else 0.0
        return quick if compiled else plain

    monkeypatch.setattr(compiling, "seconds_per_step", measured)
    monkeypatch.setattr(compiling.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(platform, "compiler", lambda: "g++")
    said: list[str] = []
    assert compiling_pays(a_model(), lambda model, step: iter(()), steps, said.append) is pays
    assert len(said) == (steps * plain >= 600)


def test_a_compiler_that_fails_is_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Callable[..., Any]:
        def fail(*_: Any, **__: Any) -> None:
            raise RuntimeError("no such header\nmore")

        return fail

    def losses(model: Transformer, step: int) -> Iterator[tuple[Tensor, dict[str, float]]]:
        yield examples_loss(model, examples_of(model.config, 2, 16), torch.float32).minimised, {}

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(platform, "compiler", lambda: "g++")
    model, said = a_model(), []
    before = copy.deepcopy(model.state_dict())
    assert compiling_pays(model, losses, 10**9, said.append) is False
    assert said == ["not compiled: no such header"]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_what_is_never_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "lengths" in str(cannot_compile(a_model("t5")))
    assert "expert" in str(cannot_compile(Transformer(preset("qwen3-moe", vocab_size=64, width=32, layers=1, head_size=16, experts=4))))
    monkeypatch.setattr(platform, "compiler", lambda: None)
    assert "compiler" in str(cannot_compile(a_model()))
