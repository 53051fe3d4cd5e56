"""Stages that make a model of a few seconds, which has seen sums: what stages that learn from answers are tested on."""

from __future__ import annotations

from typing import Any

TINY: dict[str, Any] = {
    "problems": {"kind": "problems", "arithmetic": {"largest": 9}, "examples": 10},
    "tokenizer": {"kind": "tokenizer", "corpus": "problems", "unit": "characters"},
    "worked": {
        "kind": "pretrain",
        "data": [{"rows": "problems/examples.train.jsonl"}],
        "model": {"preset": "llama", "width": 32, "layers": 1, "head_size": 16},
        "validation": "problems/text.validation.jsonl",
        "sequence": 64,
        "batch": 4,
        "steps": 3,
    },
}
