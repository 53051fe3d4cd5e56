"""Everything in fp32: on processors with bf16 products the engine would round, and peers would not."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("engine", "beam"):
        monkeypatch.setattr(f"norma.generate.{module}.working_dtype", lambda: torch.float32)
