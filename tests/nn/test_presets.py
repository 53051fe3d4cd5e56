"""Families and published sizes by name, and what is said of names and sizes that do not exist."""

from __future__ import annotations

import pytest

from norma.base.errors import NormaError
from norma.nn import preset, published
from norma.nn.families import FAMILIES
from norma.nn.presets import names


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_familys_name_is_its_first_size(name: str) -> None:
    first = next(iter(FAMILIES[name].sizes))
    assert published(name) == published(f"{name}-{first}") and published(name).family == name


def test_sizes_are_found_where_family_names_begin_alike() -> None:
    assert published("gpt2-medium").width == 1024 and published("gpt-neox-20b").width == 6144
    assert published("t5-base").family == "t5" and published("t5-v1.1-base").family == "t5-v1.1"
    assert len(names()) == len(FAMILIES) + sum(len(f.sizes) for f in FAMILIES.values()), "no name stands for two models"


@pytest.mark.parametrize(("wrong", "right"), [("gpt2-mediun", "gpt2-medium"), ("llama-7", "llama-7b"), ("t5-v1.1-bse", "t5-v1.1-base")])
def test_the_nearest_published_name(wrong: str, right: str) -> None:
    with pytest.raises(NormaError, match=f"unknown model '{wrong}'. Did you mean '{right}'"):
        published(wrong)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_takes_the_common_sizes(name: str) -> None:
    more = {"experts": 4} if name == "switch" else {}  # without them there is no Switch
    config = preset(name, vocab_size=50, width=64, layers=3, max_positions=40, head_size=16, **more)
    assert (config.vocab_size, config.width, config.layers, config.head_size, config.attention_heads) == (50, 64, 3, 16, 4)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"vocab_size": 50, "width": 100, "layers": 1, "head_size": 64}, "width 100 is not a multiple of head_size 64"),
        ({"vocab_size": 50, "width": 64}, "missing a required argument: 'layers'"),
        ({"vocab_size": 50, "width": 64, "layers": 1, "wheels": 4}, "unexpected keyword argument 'wheels'"),
        ({"vocab_size": 50, "width": 64, "layers": 1, "head_size": 16, "kv_heads": 3}, "attention_heads"),
    ],
)
def test_sizes_that_cannot_be(sizes: dict[str, int], said: str) -> None:
    with pytest.raises(NormaError) as refused:
        preset("llama", **sizes)
    assert said in str(refused.value) and "\n" not in str(refused.value)
