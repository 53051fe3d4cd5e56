"""Every tensor is where the model is: shown on the meta device, whose tensors have shapes and no memory, in place of a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from norma.base.errors import NormaError
from norma.base.platform import working_device
from norma.nn import Transformer, preset
from norma.train.calibrate import examples_of
from norma.train.examples import Examples, examples_loss


class OneDevice(TorchDispatchMode):
    """Fails where an operation is given tensors of two devices; a single number may come from the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        devices = {x.device.type for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.dim()}
        assert len(devices) < 2, f"{func} on {sorted(devices)}"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", ["gpt", "llama", "bert", "palm", "t5", "bart"])
def test_a_step_stays_on_one_device(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("__float__", 1.0), ("__bool__", True)):  # there are no values to read
        monkeypatch.setattr(torch.Tensor, name, lambda self, value=value: value)
    model = Transformer(preset(family, vocab_size=64, width=32, layers=2, head_size=16)).to("meta").train()
    with OneDevice():
        examples_loss(model, examples_of(model.config, 2, 16), torch.bfloat16).minimised.backward()  # type: ignore[no-untyped-call]
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(grad is None or grad.device.type == "meta" for grad in found.values())
    assert sum(grad is not None for grad in found.values()) > 0.9 * len(found)  # BERT's pooler has nothing to do here


def test_what_is_on_two_devices_is_noticed() -> None:
    """The method can fail: a tensor that was left on the CPU raises."""
    with OneDevice(), pytest.raises(AssertionError, match="mm"):
        torch.ones(2, 2, device="meta") @ torch.ones(2, 2)


def test_the_device_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NORMA_DEVICE", raising=False)
    assert working_device() == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setenv("NORMA_DEVICE", "CPU")
    assert working_device() == "cpu"
    for wrong in ("cuda:99", "cuda:x", "gpu"):
        monkeypatch.setenv("NORMA_DEVICE", wrong)
        with pytest.raises(NormaError, match=f"no device '{wrong}' here"):
            working_device()


def test_no_targets_at_all_cost_nothing() -> None:
    model = Transformer(preset("llama", vocab_size=64, width=32, layers=1, head_size=16)).initialise(torch.Generator().manual_seed(0))
    zeros = np.zeros((1, 8), dtype=np.int64)
    loss = examples_loss(model, Examples(zeros, zeros - 100, zeros + 1, zeros), torch.float32)
    assert float(loss.minimised.detach()) == 0.0 and loss.nats == 0.0
