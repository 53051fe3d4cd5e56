"""Kernels for vectors of 256 bits and of 512: which are built, where they are used, and that both give the same numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from norma.nn import attention, kernels
from norma.nn.kernels import build
from norma.nn.layers import LayerNorm, RMSNorm
from norma.nn.mask import Seen

HERE = Path(__file__).parent


def on(monkeypatch: pytest.MonkeyPatch, capability: str) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)


@pytest.mark.parametrize(("capability", "bits"), [("AVX512", 512), ("AVX2", 256)])
def test_the_library_is_as_wide_as_torchs_own_operators(capability: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.library(kernels.FOLDER) if build.refused() is None else None
    here = torch.backends.cpu.get_cpu_capability()
    on(monkeypatch, capability)
    assert {f"-mprefer-vector-width={bits}", f"-DCPU_CAPABILITY={capability}", f"-DCPU_CAPABILITY_{capability}"} <= set(build.flags())
    assert before is None or (build.library(kernels.FOLDER) == before) is (here == capability)


def test_other_cpus_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, "DEFAULT")
    monkeypatch.delenv(build.SWITCH, raising=False)
    assert build.refused() == "written for Linux and AVX2 or AVX-512"


@pytest.mark.parametrize(
    ("queries", "keys", "worth"),
    [(64, 64, True), (48, 64, True), (48, 48, False), (96, 96, False), (128, 128, True), (160, 160, True), (65, 999, False)],
)
def test_narrow_tiles_must_not_be_padding(queries: int, keys: int, worth: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: 48 x 48 is computed as 64 x 64, which is 1.78 times as much; 160 x 160 as 192 x 192, 1.44 times."""
    on(monkeypatch, "AVX2")
    assert kernels.pays(queries, keys) is worth
    on(monkeypatch, "AVX512")
    assert kernels.pays(queries, keys)


@pytest.mark.parametrize(("capability", "used"), [("AVX512", ["attention", "layer norm", "RMS norm"]), ("AVX2", ["RMS norm"])])
def test_what_does_not_pay_is_left_to_torch(capability: str, used: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, capability)
    monkeypatch.setattr(kernels, "ready", lambda _: True)
    seen: list[str] = []

    def instead(name: str, answer: torch.Tensor) -> object:
        return lambda *_: (seen.append(name), answer)[1]

    x, q = torch.randn(128, 32), torch.randn(1, 2, 40, 32)
    monkeypatch.setattr(kernels, "attention", instead("attention", q))
    monkeypatch.setattr(kernels, "layer_norm", instead("layer norm", x))
    monkeypatch.setattr(kernels, "rms_norm", instead("RMS norm", x))
    attention.attend(q, q, q, Seen(None, causal=True), 0.3)
    LayerNorm(32, 1e-5)(x)
    RMSNorm(32, 1e-5)(x)
    assert seen == used


@pytest.mark.slow
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512" or build.refused() is not None,
    reason="the tests beside this one run the narrow kernels here, or there are none",
)
def test_narrow_kernels_on_a_wide_cpu() -> None:
    """The same tests of the same operators, with the library that a CPU without AVX-512 builds."""
    tests = [str(HERE / name) for name in ("test_kernels.py", "test_kernel_activation.py", "test_softmax_loss.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", "-n", "0", *tests]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"ATEN_CPU_CAPABILITY": "avx2"}, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:]
