"""``norma doctor``: the machine, and ``--model``: what a published model is and whether it fits."""

from __future__ import annotations

import json

import pytest

from norma.cli import main
from norma.cli.doctor import many
from norma.nn import published
from norma.nn.facts import facts, fits, paper
from norma.nn.families import FAMILIES


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "220")


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["doctor", *arguments]) == 0
    return capsys.readouterr().out


def test_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert "allocator" in told(capsys)
    assert {"cores", "memory"} <= {fact["name"] for fact in json.loads(told(capsys, "--json"))}


def test_one_model(capsys: pytest.CaptureFixture[str]) -> None:
    shown = told(capsys, "--model", "gpt2-medium")
    for part in (
        "Radford et al., 2019",
        "GPT2LMHeadModel",
        "decoder",
        "layers 24; attention_heads 16",
        "positions learned",
        "354,823,168",  # the released model's
        "1.3 GiB fp32, 676.8 MiB bf16",  # x 4, x 2
        "96.0 MiB",  # 2 x 24 layers x 1,024 features x 1,024 tokens x 2 bytes
        "5.3 GiB",  # x 16
    ):
        assert part in shown, part


def test_facts_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    known = json.loads(told(capsys, "--model", "gpt2-medium", "--json"))
    assert (known["parameters"], known["weights_fp32"], known["training"]) == (354_823_168, 4 * 354_823_168, 16 * 354_823_168)
    assert known["kv_cache"] == 2 * 24 * 1024 * 1024 * 2 and known["length"] == 1024
    # 12 x 1024^2 weights a layer and 50,257 x 1,024 of the head, 6 each; 12 x 1,024 features x 512.5 keys a layer
    assert known["flops_per_token"] == 6 * (24 * 12 * 1024**2 + 50257 * 1024) + 24 * 12 * 1024 * 1025 // 2
    assert known["structure"]["width"] == 1024 and "qk_norm" not in known["structure"], "defaults are not told"


def test_a_familys_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    shown = told(capsys, "--model", "gpt2")
    assert [size for size in ("gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl") if size in shown] == [
        "gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl",
    ]  # fmt: skip
    assert "124.4 M" in shown and "1.6 B" in shown
    rows = json.loads(told(capsys, "--model", "gpt2", "--json"))
    assert [row["model"] for row in rows] == [f"gpt2-{size}" for size in FAMILIES["gpt2"].sizes]


@pytest.mark.parametrize(("wrong", "right"), [("gpt2-mediun", "gpt2-medium"), ("gtp2", "gpt2"), ("palm-540", "palm-540b")])
def test_unknown_models_are_one_line_with_the_nearest(wrong: str, right: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", wrong]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.strip().count("\n") == 0
    assert wrong in captured.err and f"Did you mean '{right}'" in captured.err


def test_nothing_near_lists_the_families(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", "zzzzzz"]) == 2
    said = capsys.readouterr().err
    assert "Known: " in said and all(name in said for name in FAMILIES)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_size_can_be_told(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    family = FAMILIES[name]
    rows = [facts(f"{name}-{size}") for size in family.sizes]
    assert [row["parameters"] for row in rows] == [published(f"{name}-{size}").parameters() for size in family.sizes]
    json.dumps(rows)
    shown = told(capsys, "--model", f"{name}-{next(iter(family.sizes))}")
    assert paper(family)[:20] in " ".join(shown.split()) and any(c.isdigit() for c in paper(family)), "its source has a year or a number"


def test_what_fits() -> None:
    known = facts("gpt2-medium")
    reading = 2 * 354_823_168 + 96 * 2**20
    assert fits(known, 16 * 354_823_168) == "training" and fits(known, 16 * 354_823_168 - 1) == "reading"
    assert fits(known, reading) == "reading" and fits(known, reading - 1) == "neither"
    assert fits(known, None) == "unknown"


def test_large_numbers_in_words() -> None:
    assert [many(n) for n in (7, 999, 1000, 124_439_808, 999_950_000, 540_350_000_000, 5 * 10**15)] == [
        "7", "999", "1.0 k", "124.4 M", "1.0 B", "540.4 B", "5000.0 T",
    ]  # fmt: skip
