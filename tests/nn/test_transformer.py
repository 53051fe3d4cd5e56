"""The Transformer's properties: what a query sees, caches, counting, and the kernels against each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from norma.base.errors import NormaError
from norma.lm import LanguageModel
from norma.nn import Cache, Mask, ModelConfig, Transformer, preset
from norma.nn import attention as attention_module
from norma.nn.attention import attend
from norma.nn.layers import activate, working_weights
from norma.nn.mask import Seen, additive

Make = Callable[..., LanguageModel]
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture(params=["llama", "qwen3"])
def model(request: pytest.FixtureRequest, make_model: Make) -> Transformer:
    return make_model(1, family=request.param).transformer.requires_grad_(False)


def ids_of(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 300, shape, generator=torch.Generator().manual_seed(seed))


def test_a_query_sees_no_later_token(model: Transformer) -> None:
    ids = ids_of(1, 12)
    changed = ids.clone()
    changed[0, 7] += 1
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7], rtol=0, atol=0)
    assert (before[:, 7:] - after[:, 7:]).abs().amax(dim=-1).min() > 1e-4, "and every later one is seen"


def test_left_padding_changes_nothing(make_model: Make) -> None:
    model = make_model(2)
    ids = ids_of(1, 9)
    alone = model.logits(ids)
    padded = torch.cat([ids_of(1, 4, seed=5), ids], dim=1)
    mask = torch.tensor([[False] * 4 + [True] * 9])
    torch.testing.assert_close(model.logits(padded, mask)[:, 4:], alone, **CLOSE)
    assert not torch.allclose(model.logits(padded)[:, 4:], alone, atol=1e-3), "without the mask the padding is read"
    right = torch.cat([ids, ids_of(1, 4, seed=5)], dim=1)
    torch.testing.assert_close(model.logits(right, mask.flip(1))[:, :9], alone, **CLOSE)


def test_packed_documents_equal_separate_ones(model: Transformer) -> None:
    parts = [ids_of(1, n, seed=n) for n in (5, 1, 8)]
    documents = torch.tensor([[1] * 5 + [2] + [3] * 8 + [0] * 3])
    positions = torch.tensor([[*range(5), 0, *range(8), 0, 0, 0]])
    packed = model(torch.cat([*parts, ids_of(1, 3)], dim=1), Mask(documents=documents), positions)
    assert packed.isfinite().all()
    torch.testing.assert_close(packed[:, :14], torch.cat([model(p) for p in parts], dim=1), **CLOSE)


def test_branches_on_a_trunk_equal_separate_rows(model: Transformer) -> None:
    prompt, answers = ids_of(1, 6), [ids_of(1, n, seed=n) for n in (4, 2, 7)]
    documents = torch.tensor([[1] * 6 + [2] * 4 + [3] * 2 + [4] * 7])
    positions = torch.tensor([[*range(6), *range(6, 10), *range(6, 8), *range(6, 13)]])
    row = model(torch.cat([prompt, *answers], dim=1), Mask(documents=documents, trunk=documents == 1), positions)
    at = 6
    for answer in answers:
        alone = model(torch.cat([prompt, answer], dim=1))
        n = answer.shape[1]
        torch.testing.assert_close(row[:, at : at + n], alone[:, 6:], **CLOSE)
        at += n
    torch.testing.assert_close(row[:, :6], model(prompt), **CLOSE)


@pytest.mark.parametrize("chunks", [[1] * 10, [4, 6], [9, 1], [3, 1, 1, 5]])
def test_reading_with_a_cache_equals_reading_at_once(model: Transformer, chunks: list[int]) -> None:
    ids = ids_of(3, 10)
    cache = Cache(model.config, 3, 10, torch.float32, ids.device)
    cache.visible[:] = True
    pieces = [model.logits(model.hidden(part, cache=cache)) for part in ids.split(chunks, dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(ids), **CLOSE)


def test_rows_that_leave_the_cache_do_not_disturb_the_others(model: Transformer) -> None:
    ids = ids_of(4, 8)
    cache = Cache(model.config, 4, 8, torch.float32, ids.device)
    cache.visible[:] = True
    model.hidden(ids[:, :5], cache=cache)
    kept = torch.tensor([2, 0])
    cache.keep(kept)
    rest = model.logits(model.hidden(ids[kept, 5:], cache=cache))
    torch.testing.assert_close(rest, model(ids[kept])[:, 5:], **CLOSE)


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2), (3, 1)])
def test_written_out_attention_equals_pytorchs(heads: int, groups: int) -> None:
    random = torch.Generator().manual_seed(0)
    q = torch.randn(2, heads, 7, 10, generator=random, requires_grad=True)
    k, v = (torch.randn(2, groups, 7, 10, generator=random, requires_grad=True) for _ in range(2))
    allowed = (torch.rand(2, 1, 7, 7, generator=random) > 0.4) | torch.eye(7, dtype=torch.bool)
    ours = attend(q, k, v, Seen(additive(allowed, torch.float32)))
    theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, enable_gqa=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    weight = torch.randn(ours.shape, generator=random)
    for mine, other in zip(
        torch.autograd.grad((ours * weight).sum(), (q, k, v)), torch.autograd.grad((theirs * weight).sum(), (q, k, v)), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_long_sequences_take_the_other_kernel_and_give_the_same(model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, mask = ids_of(2, 11), Mask(documents=torch.tensor([[1] * 6 + [2] * 5] * 2))
    short = model(ids, mask)
    monkeypatch.setattr(attention_module, "WRITTEN_OUT", 0)
    torch.testing.assert_close(model(ids, mask), short, **CLOSE)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
@pytest.mark.parametrize("bias", [False, True])
def test_parameters_are_counted_right(name: str, tied: bool, bias: bool) -> None:
    config = preset(name, vocab_size=77, width=48, layers=3, head_size=16, kv_heads=1)
    config = dataclasses.replace(config, tie_embeddings=tied, attention_bias=bias)
    with torch.device("meta"):
        assert config.parameters() == sum(p.numel() for p in Transformer(config).parameters())


def test_flops_by_hand() -> None:
    # One layer, width 4, one head of 2 and its key/value head: 4*2*4 = 32 weights of attention; 3*4*8 = 96; vocabulary 5*4 = 20.
    config = ModelConfig("llama", 5, 4, 1, 1, 1, 2, 8, 16)
    assert config.flops_per_token(10) == 6 * (32 + 96 + 20) + 6 * 1 * 1 * 2 * (10 + 1)  # a query sees (10 + 1) / 2 keys
    assert config.kv_cache_bytes(10, 2) == 2 * 10 * 2 * 2


def test_a_new_model_begins_as_the_identity_and_from_its_seed() -> None:
    config = preset("qwen3", vocab_size=50, width=32, layers=2, head_size=16)
    made = [Transformer(config).initialise(torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    first, again, other = (m.state_dict() for m in made)
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])
    ids = torch.arange(6)[None]
    embedded = made[0].embedding.weight[ids]
    torch.testing.assert_close(made[0].hidden(ids), made[0].stack.norm(embedded))


def test_working_weights_are_a_view_for_a_while(model: Transformer) -> None:
    ids = ids_of(1, 5)
    before = model(ids)
    with working_weights(model, torch.bfloat16):
        rounded = model.logits(model.hidden(ids, dtype=torch.bfloat16))
    assert 0 < (rounded - before).abs().max() < 0.2 * before.abs().max()
    torch.testing.assert_close(model(ids), before, rtol=0, atol=0)


@pytest.mark.parametrize("wrong", [{"attention_heads": 3}, {"head_size": 7}])
def test_configs_that_cannot_be(wrong: dict[str, int]) -> None:
    config = ModelConfig("llama", 5, 16, 1, 4, 2, 8, 8, 16)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        dataclasses.replace(config, **wrong)


def test_unknown_presets_and_widths_say_so() -> None:
    with pytest.raises(NormaError, match="lama"):
        preset("lama", vocab_size=10, width=64, layers=1)
    with pytest.raises(NormaError, match="not a multiple"):
        preset("llama", vocab_size=10, width=100, layers=1)


def test_the_compiled_form_of_gelu_is_the_same_function(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.linspace(-12, 12, 4001, dtype=torch.float64, requires_grad=True)
    right = F.gelu(x, approximate="tanh")
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    found = activate("gelu_tanh", x)
    torch.testing.assert_close(found, right, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad(y.sum(), x)[0] for y in (found, right)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)
