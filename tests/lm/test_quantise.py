"""Weights of 8 and 4 bits: what the kernels multiply is what the numbers say, and a model says nearly the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from norma.base.errors import NormaError
from norma.generate.engine import generate
from norma.generate.sampling import Sampling
from norma.lm import LanguageModel
from norma.lm.quantise import Int4Linear, Int8Linear, int4, int8, quantise, weight_bytes
from norma.nn import Transformer
from norma.nn.presets import preset


def test_eight_bits_by_hand() -> None:
    q, scale = int8(torch.tensor([[1.27, -0.635, 0.0], [0.0, 0.0, 0.0]]))
    assert q.tolist() == [[127, -64, 0], [0, 0, 0]] and scale[0].item() == pytest.approx(0.01)


def test_four_bits_by_hand() -> None:
    weight = torch.arange(32.0)[None] / 31 * 15  # from 0 to 15: a step of one each
    q, scale, zero = int4(weight)
    assert scale.item() == pytest.approx(1.0) and zero.item() == pytest.approx(8.0)
    assert q[0].tolist() == [round(i / 31 * 15) for i in range(32)]


@pytest.mark.parametrize(("made", "most"), [(Int8Linear, 0.012), (Int4Linear, 0.11)])
def test_the_product_is_near_the_plain_one(made: type[nn.Module], most: float) -> None:
    torch.manual_seed(0)
    weight, bias, x = torch.randn(48, 64) * 0.05, torch.randn(48), torch.randn(2, 5, 64)
    wanted = nn.functional.linear(x, weight, bias)
    found = made(weight, bias)(x)
    assert found.dtype == x.dtype and found.shape == wanted.shape
    assert ((found - wanted).norm() / wanted.norm()).item() < most


@pytest.mark.parametrize(("kind", "share"), [("int8", 0.27), ("int4", 0.2)])
def test_a_model_shrinks_and_still_writes(kind: str, share: float) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "width": 128, "layers": 4, "head_size": 32, "max_positions": 64}
    model = LanguageModel(Transformer(preset("llama", **sizes)).eval(), None, kept={"eos_token_id": 0})
    ids = torch.randint(1, 64, (2, 16))
    before = model.logits(ids)
    done = quantise(model, kind)  # type: ignore[arg-type]
    embedding = 64 * 128 * 4 * (1 if model.config.tie_embeddings else 2)
    assert (
        done.layers == 4 * 7
        and (done.after - embedding) / (done.before - embedding) < share
        and done.after == weight_bytes(model.transformer)
    )
    assert (model.logits(ids) - before).norm() / before.norm() < (0.03 if kind == "int8" else 0.3)
    assert len(generate(model, [[1, 2, 3]], Sampling(8), dtype=torch.bfloat16)[0].ids) >= 1


@pytest.mark.parametrize(("made", "shapes"), [(Int8Linear, [(16, 16), (172, 48), (17, 80)]), (Int4Linear, [(16, 32), (48, 96), (80, 160)])])
def test_odd_shapes_and_any_number_of_rows(made: type[nn.Module], shapes: list[tuple[int, int]]) -> None:
    for out, wide in shapes:
        weight = torch.randn(out, wide) * 0.05
        layer = made(weight, None)
        for rows in (1, 2, 5, 16, 33, 100):
            x = torch.randn(rows, wide)
            wanted = x @ weight.T
            assert ((layer(x) - wanted).norm() / wanted.norm()).item() < 0.12


def test_layers_that_the_kernels_cannot_hold_stay_as_they_are() -> None:
    sizes = {"vocab_size": 64, "width": 64, "layers": 1, "head_size": 32, "max_positions": 32, "feed_forward_width": 172}
    model = LanguageModel(Transformer(preset("llama", **sizes)).eval(), None)
    ids = torch.randint(1, 64, (2, 16))
    before = model.logits(ids)
    assert quantise(model, "int8").layers == 6  # not the one that reads 172 features
    assert (model.logits(ids) - before).norm() / before.norm() < 0.03


def test_where_nothing_fits() -> None:
    model = LanguageModel(Transformer(preset("llama", vocab_size=64, width=24, layers=1, head_size=24, max_positions=32)).eval(), None)
    with pytest.raises(NormaError, match="no layer of this model fits int4"):
        quantise(model, "int4")
