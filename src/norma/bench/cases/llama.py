"""Llama, Mistral, Qwen2, Qwen3."""

from __future__ import annotations

from norma.bench.parity import Case

CASES: list[Case] = []
