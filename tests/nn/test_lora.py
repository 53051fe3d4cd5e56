"""LoRA: what an adapted layer computes, what is frozen, and that taking the update out leaves no trace."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from norma.base.errors import NormaError
from norma.nn import Experts, ModelConfig, Transformer
from norma.nn.experts import Router
from norma.nn.layers import JOIN, Linear, working_weights
from norma.nn.lora import (
    LoraLinear,
    LoraOptions,
    add_lora,
    lora_layers,
    lora_parameters,
    merge,
    narrow,
    plain_state,
    remove_lora,
    switched_off,
    unmerge,
)

CONFIG = ModelConfig("llama", 31, 12, 2, 4, 2, 4, 20, 16, tie_embeddings=False)
LINEAR = [f"attention.{part}" for part in ("query", "key", "value", "output")] + [f"feed_forward.{part}" for part in ("gate", "up", "down")]
IDS = torch.randint(0, 31, (2, 9), generator=torch.Generator().manual_seed(1))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(config: ModelConfig = CONFIG) -> Transformer:
    return Transformer(config).initialise(generator(5)).eval()


def adapted(options: LoraOptions | None = None) -> Transformer:
    """A model whose updates are not zero."""
    made = model()
    add_lora(made, options or LoraOptions(rank=3, alpha=5.0), generator(1))
    with torch.no_grad():
        for layer in lora_layers(made).values():
            layer.B.normal_(0.0, 0.3, generator=generator(layer.B.numel()))
    return made


def test_a_layer_by_hand() -> None:
    base = Linear(2, 2)
    layer = LoraLinear(base, LoraOptions(rank=1, alpha=6.0))
    with torch.no_grad():
        base.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        base.bias.copy_(torch.tensor([0.5, -0.5]))
        layer.A.copy_(torch.tensor([[1.0, 1.0]]))
        layer.B.copy_(torch.tensor([[2.0], [-1.0]]))
    # W x + b = (3.5, 7.5); B A x = 7 * (2, -1); scale 6 / 1
    out = layer(torch.tensor([3.0, 4.0]))
    assert out.tolist() == [3.5 + 6 * 14, 7.5 - 6 * 7]
    assert layer.weight.tolist() == [[13.0, 12.0], [-6.0, -4.0]]


def test_scale() -> None:
    assert LoraLinear(Linear(4, 4), LoraOptions(rank=4, alpha=6.0)).scale == 1.5
    assert LoraLinear(Linear(4, 4), LoraOptions(rank=4, alpha=6.0, rank_stabilised=True)).scale == 3.0


def test_a_new_update_changes_nothing_and_all_else_is_frozen() -> None:
    plain, made = model(), model()
    names = add_lora(made, LoraOptions(rank=3), generator())
    assert names == [f"decoder.blocks.{i}.attention.{part}" for i in (0, 1) for part in ("query", "value")]
    assert torch.equal(made(IDS), plain(IDS))
    learning = {name for name, p in made.named_parameters() if p.requires_grad}
    assert learning == {f"{name}.{half}" for name in names for half in "AB"}
    assert sum(p.numel() for p in lora_parameters(made)) == 2 * 3 * ((12 + 16) + (12 + 8))
    made(IDS).sum().backward()
    assert all(p.grad is None for name, p in made.named_parameters() if name not in learning)
    bound = 12**-0.5
    values = torch.cat([layer.A.flatten() for layer in lora_layers(made).values()]).detach()
    assert values.abs().max() <= bound and values.abs().max() > 0.9 * bound and abs(float(values.mean())) < 0.2 * bound


def test_the_generator_decides() -> None:
    first, same, other = model(), model(), model()
    for made, seed in ((first, 3), (same, 3), (other, 4)):
        add_lora(made, LoraOptions(rank=2), generator(seed))
    a, b, c = (torch.cat([layer.A.flatten() for layer in lora_layers(m).values()]) for m in (first, same, other))
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize(
    ("targets", "chosen"),
    [
        ("all", {f"{i}.{name}" for i in (0, 1) for name in LINEAR}),
        ("down", {"0.feed_forward.down", "1.feed_forward.down"}),
        (("blocks.1.attention.key",), {"1.attention.key"}),
    ],
)
def test_targets(targets: tuple[str, ...] | str, chosen: set[str]) -> None:
    names = add_lora(model(), LoraOptions(targets=targets), generator())
    assert {name.removeprefix("decoder.blocks.") for name in names} == chosen


def test_the_head_can_carry_an_update_too() -> None:
    made = adapted(LoraOptions(rank=2, targets=("head",)))
    hidden = made.hidden(IDS)
    layer = lora_layers(made)["head"]
    wanted = F.linear(hidden, layer.base.weight + layer.scale * layer.B @ layer.A)
    assert torch.allclose(made(IDS), wanted, atol=1e-6)


def test_experts_and_routers_stay_as_they_are() -> None:
    sparse = replace(CONFIG, experts=Experts(4, per_token=2))
    made = model(sparse)
    names = add_lora(made, LoraOptions(targets="all"), generator())
    assert {name.rpartition(".")[2] for name in names} == {"query", "key", "value", "output"}
    with pytest.raises(NormaError, match="'router' names no linear layer"):
        add_lora(model(sparse), LoraOptions(targets=("query", "router")), generator())


def test_refusals() -> None:
    with pytest.raises(NormaError, match="'querry' names no linear layer") as caught:
        add_lora(model(), LoraOptions(targets=("querry",)), generator())
    assert "Did you mean 'query'" in str(caught.value)
    made = adapted()
    with pytest.raises(NormaError, match="carries LoRA already"):
        add_lora(made, LoraOptions(), generator())
    with pytest.raises(NormaError, match="rank of 0"):
        LoraOptions(rank=0)
    with pytest.raises(NormaError, match=r"dropout of 1\.0"):
        LoraOptions(dropout=1.0)


@pytest.mark.parametrize("stabilised", [False, True])
def test_merge_is_the_same_function_and_unmerge_leaves_no_trace(stabilised: bool) -> None:
    made = adapted(LoraOptions(rank=3, alpha=5.0, targets="all", rank_stabilised=stabilised))
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    beside, plain = made(IDS), model()(IDS)
    assert (beside - plain).abs().max() > 0.1
    merge(made)
    merge(made)  # again: nothing more
    merged = made(IDS)
    assert (merged - beside).abs().max() < 2e-5 and not torch.equal(merged, beside)
    unmerge(made)
    unmerge(made)
    after = made.state_dict()
    assert set(after) == set(before) and all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert torch.equal(made(IDS), beside)


def test_plain_state_is_the_merged_model_under_its_usual_names() -> None:
    made = adapted(LoraOptions(rank=2, targets="all"))
    for state in (plain_state(made), (merge(made), plain_state(made))[1]):
        other = model()
        other.load_state_dict(state)
        unmerge(made)
        assert (other(IDS) - made(IDS)).abs().max() < 2e-5


@pytest.mark.parametrize("merged", [False, True])
def test_remove_gives_the_base_back(merged: bool) -> None:
    made, plain = adapted(LoraOptions(targets="all")), model()
    if merged:
        merge(made)
    remove_lora(made)
    assert not lora_layers(made) and all(p.requires_grad for p in made.parameters())
    state = made.state_dict()
    assert list(state) == list(plain.state_dict()) and all(torch.equal(state[n], t) for n, t in plain.state_dict().items())


@pytest.mark.parametrize("merged", [False, True])
def test_it_works_in_the_type_of_what_flows_through(merged: bool) -> None:
    made = adapted(LoraOptions(rank=3, targets="all"))
    wide = made.hidden(IDS)
    if merged:
        merge(made)
    narrow = made.hidden(IDS, dtype=torch.bfloat16)
    assert narrow.dtype == torch.bfloat16 and (narrow.float() - wide).norm() < 0.05 * wide.norm()
    with working_weights(made, torch.bfloat16), torch.no_grad():
        assert torch.equal(made.hidden(IDS, dtype=torch.bfloat16), narrow)
    assert all(p.dtype == torch.float32 for p in made.parameters())


def test_dropout_acts_in_training_and_on_the_update_only() -> None:
    layer = LoraLinear(Linear(64, 5, bias=False), LoraOptions(rank=2, dropout=0.5), generator())
    nn.init.ones_(layer.B)
    x = torch.ones(1, 64)
    base, update = layer.base(x), layer.eval()(x) - layer.base(x)
    torch.manual_seed(0)
    layer.train()
    drawn = torch.stack([layer(x) - base for _ in range(2000)])
    assert drawn.std() > 0 and torch.allclose(drawn.mean(dim=0), update, atol=4 * drawn.std().item() / 2000**0.5)


def test_training_learns_through_the_update_alone() -> None:
    made = model(replace(CONFIG, initialisation="normal", initializer_range=0.3))
    base = {n: t.clone() for n, t in made.state_dict().items()}
    add_lora(made, LoraOptions(rank=4, alpha=8.0, targets="all"), generator())
    optimiser = torch.optim.AdamW(lora_parameters(made), lr=0.02)
    losses = []
    for _ in range(40):
        loss = F.cross_entropy(made(IDS)[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    remove_lora(made)
    assert all(torch.equal(made.state_dict()[n], t) for n, t in base.items())


# ── the base as a frozen reference ──
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ids", [IDS, torch.randint(0, 31, (16, JOIN // 16 + 8), generator=generator(3))], ids=["few", "joined"])
def test_switched_off_it_is_the_base_to_the_bit(ids: torch.Tensor, dtype: torch.dtype) -> None:
    """Also where a plain model multiplies several layers at once, and in the working type of generation."""
    plain, made = model(), adapted(LoraOptions(rank=3, targets="all", dropout=0.5)).train()
    wanted = plain.hidden(ids, dtype=dtype)
    assert not torch.equal(made.eval().hidden(ids, dtype=dtype), wanted)
    made.train()
    with switched_off(made):
        assert torch.equal(made.hidden(ids, dtype=dtype), wanted) and not made.training
        with working_weights(made, dtype), working_weights(plain, dtype), torch.no_grad():
            assert torch.equal(made.hidden(ids, dtype=dtype), plain.hidden(ids, dtype=dtype))
    assert made.training and not torch.equal(made.hidden(ids, dtype=dtype), wanted)


def test_switched_on_again_after_an_error_and_with_gradients_as_before() -> None:
    made = adapted()
    beside = made(IDS)
    with pytest.raises(ZeroDivisionError), switched_off(made):
        raise ZeroDivisionError
    assert torch.equal(made(IDS), beside)
    made(IDS).sum().backward()
    assert all(p.grad is not None for p in lora_parameters(made))


def test_a_model_that_is_no_reference_of_its_own_says_so() -> None:
    with pytest.raises(NormaError, match="carries no LoRA"), switched_off(model()):
        pass
    made = adapted()
    made.decoder.norm.weight.requires_grad_(True)  # type: ignore[union-attr]
    with pytest.raises(NormaError, match=r"decoder\.norm\.weight is trained beside the LoRA"), switched_off(made):
        pass


def test_a_new_head_learns_beside_the_update() -> None:
    made = Transformer(replace(CONFIG, head="classify", labels=2)).initialise(generator())
    names = add_lora(made, LoraOptions(rank=2), generator(), also=("classifier",))
    learning = {n for n, p in made.named_parameters() if p.requires_grad}
    assert learning == {f"{n}.{half}" for n in names for half in "AB"} | {n for n in learning if n.startswith("classifier.")}
    assert any(n.startswith("classifier.") for n in learning)


# ── a base in bf16 ──
def test_an_update_smaller_than_bf16_can_add_is_seen_in_bf16() -> None:
    """Weights of 1 and an update of 2^-10: as one bf16 weight it is lost, beside it it counts (1024 of them make 1)."""
    layer = LoraLinear(Linear(1024, 1, bias=False), LoraOptions(rank=1, alpha=1.0))
    signs = torch.where(torch.rand(1024, generator=generator()) < 0.5, -1.0, 1.0)
    with torch.no_grad():
        layer.base.weight.copy_(torch.where(torch.rand(1024, generator=generator(1)) < 0.5, -1.0, 1.0)[None])
        layer.A.copy_(signs[None])
        layer.B.fill_(2.0**-10)
    assert torch.equal(layer.weight.bfloat16(), layer.base.weight.bfloat16())  # rounded away
    x = signs[None].bfloat16()
    base = layer.base(x).item()
    for working in (False, True):
        layer.work_in(torch.bfloat16 if working else None)
        assert layer(x).item() - base == pytest.approx(1.0, abs=0.13)  # the steps between bf16 numbers of this size


def test_a_narrow_base_keeps_what_learns_wide() -> None:
    sparse = replace(CONFIG, experts=Experts(4, per_token=2, every=2, first=1))
    made = model(sparse)
    add_lora(made, LoraOptions(rank=2, targets="all"), generator())
    narrow(made, torch.bfloat16)
    routers = {id(m.weight) for m in made.modules() if isinstance(m, Router)}
    assert routers
    for name, parameter in made.named_parameters():
        wide = parameter.requires_grad or parameter.dim() == 1 or id(parameter) in routers
        assert parameter.dtype == (torch.float32 if wide else torch.bfloat16), name
    made(IDS).sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in lora_parameters(made))
    with torch.no_grad():
        for layer in lora_layers(made).values():
            layer.B.fill_(1e-4)
    name, layer = next(iter(lora_layers(made).items()))
    merged = plain_state(made)[f"{name}.weight"]
    assert merged.dtype == torch.float32 and torch.equal(merged, layer.base.weight.float() + layer.update)
    twin = model(sparse)
    add_lora(twin, LoraOptions(rank=2, targets="all"), generator())
    narrow(twin, torch.bfloat16)
    assert sum(p.nbytes for p in twin.parameters()) < 0.75 * sum(p.nbytes for p in model(sparse).parameters())


def test_lora_added_to_a_base_that_was_opened_narrow_learns_in_fp32() -> None:
    made = model()
    for parameter in made.parameters():
        parameter.data = parameter.data.bfloat16()
    add_lora(made, LoraOptions(rank=2), generator())
    assert {p.dtype for p in lora_parameters(made)} == {torch.float32}
