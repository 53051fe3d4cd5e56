"""Every family against transformers, in both directions; and that the comparison itself sees what is wrong."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from torch import Tensor

from norma.base.errors import NormaError
from norma.bench import parity, peer
from norma.bench.cases import all_cases
from norma.bench.parity import LIMITS, Case, check
from norma.nn.config import ModelConfig
from norma.nn.families import FAMILIES

CASES = all_cases()
needs_transformers = pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is the other side")


@needs_transformers
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_equals_transformers(case: Case) -> None:
    assert check(case).beyond() == []


def test_every_family_has_a_case_and_one_that_starts_from_its_preset() -> None:
    assert {case.family for case in CASES} == set(FAMILIES)
    assert {case.family for case in CASES if case.preset is not None} == set(FAMILIES)
    assert len({case.id for case in CASES}) == len(CASES)


def test_the_limits_are_those_of_the_project() -> None:
    assert LIMITS["logits"] == LIMITS["padding"] == LIMITS["written"] == 1e-5
    assert LIMITS["loss"] == LIMITS["gradients"] == 1e-4


def _case(name: str) -> Case:
    return next(case for case in CASES if case.id == name)


# What goes wrong, and which column must say so.
CHANGES: list[tuple[str, str, dict[str, Any], set[str]]] = [
    ("llama: tied, a padding row", "another base", {"rope_theta": 9000.0}, {"logits", "gradients", "written"}),
    ("llama: tied, a padding row", "another epsilon", {"norm_eps": 2e-3}, {"logits", "gradients"}),
    ("llama: tied, a padding row", "the padding row learns", {"pad_id": None}, {"gradients"}),
    ("mistral: a window of 4", "a window of 5", {"windows": (5,)}, {"logits", "attention", "padding"}),
    ("gemma2: windows in every other layer", "windows the other way round", {"windows": (0, 4)}, {"logits", "attention", "masked"}),
    ("gemma2: windows in every other layer", "another cap", {"logit_softcap": 3.01}, {"logits", "padding"}),
]


@needs_transformers
@pytest.mark.parametrize(("name", "what", "change", "columns"), CHANGES, ids=lambda x: x if isinstance(x, str) else "")
def test_a_wrong_setting_is_seen(
    name: str, what: str, change: dict[str, Any], columns: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right: Callable[..., ModelConfig] = parity.config_from_hf
    monkeypatch.setattr(parity, "config_from_hf", lambda *a: dataclasses.replace(right(*a), **change))
    seen = {line.split()[0] for line in check(dataclasses.replace(_case(name), preset=None)).beyond()}
    assert columns <= seen, (what, seen)


@needs_transformers
def test_a_lost_key_and_a_changed_bit_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = parity.to_hf

    def wrong(config: ModelConfig, state: dict[str, Tensor]) -> dict[str, Tensor]:
        out = right(config, state)
        del out["model.layers.1.mlp.up_proj.weight"]
        out["model.norm.weight"] = out["model.norm.weight"] + 1e-7
        return {**out, "surplus": out["model.norm.weight"].clone()}

    case = _case("llama: untied, grouped queries, narrow heads")
    monkeypatch.setattr(parity, "to_hf", wrong)
    monkeypatch.setattr(parity._Check, "_own", lambda self: (0.0, []))
    found = check(case).problems
    assert "written by us: model.layers.1.mlp.up_proj.weight is missing" in found
    assert "written by us: surplus is surplus" in found
    assert "written by us: model.norm.weight differs" in found
    assert "ours: missing keys: model.layers.1.mlp.up_proj.weight" in found
    assert "ours: unexpected keys: surplus" in found


@needs_transformers
def test_the_command_prints_a_table_and_writes_rows(tmp_path: Path) -> None:
    out = io.StringIO()
    assert parity.run(["olmo2"], tmp_path / "rows.json", Console(file=out, width=140)) == 0
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert [row["case"] for row in rows] == [case.name for case in CASES if case.family == "olmo2"]
    assert "olmo2" in out.getvalue() and "same" in out.getvalue()


@needs_transformers
def test_the_command_fails_when_a_case_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "LIMITS", {"logits": 0.0, "gradients": 1e-12})
    out = io.StringIO()
    assert parity.run(["olmo2"], None, Console(file=out, width=140)) == 1
    assert "olmo2: no head: gradients" in out.getvalue()


def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NormaError, match=r"unknown family 'lama'.*Did you mean 'llama'"):
        parity.run(["lama"], None, Console(file=io.StringIO()))

    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(peer.importlib, "import_module", absent)
    with pytest.raises(NormaError, match=r"transformers is not installed.*norma-lm\[test\]"):
        check(CASES[0])
