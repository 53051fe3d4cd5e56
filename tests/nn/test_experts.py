"""Experts against a slow loop written from the Switch paper, against transformers' sparse blocks, and losses worked out by hand."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from norma.nn.config import Experts, ModelConfig
from norma.nn.experts import (
    ExpertFeedForward,
    Routing,
    auxiliary_loss,
    balance_step,
    model_losses,
    pooled_auxiliary_loss,
    routing_load,
    z_loss,
)
from norma.nn.layers import working_weights

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def make(width: int = 8, inner: int = 12, *, gated: bool = True, seed: int = 0, **experts: Any) -> ExpertFeedForward:
    activation = "silu" if gated else "relu"
    config = ModelConfig("any", 9, width, 1, 1, 1, 2, inner, 16, gated=gated, activation=activation, experts=Experts(**experts))
    layer, random = ExpertFeedForward(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0.0, 0.5, generator=random)
    return layer


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def slow(layer: ExpertFeedForward, x: Tensor) -> Tensor:
    """2101.03961, section 2.1 and 2.2, for one token after another: p = softmax(h x), y = sum of p_i E_i(x) over the chosen with room."""
    experts = layer.experts
    rows = []
    for row in x:
        taken = [0] * experts.count
        tokens = []
        for token in row:
            score = [(layer.router.weight[e] * token).sum() for e in range(experts.count)]
            total = sum((s.exp() for s in score), torch.zeros(()))
            p = [s.exp() / total for s in score]
            bias = [0.0] * experts.count if layer.balance is None else layer.balance.tolist()
            best = sorted(range(experts.count), key=lambda e: -(p[e].item() + bias[e]))[: experts.per_token]
            share = sum((p[e] for e in best), torch.zeros(())) if experts.normalise else torch.ones(())
            y = torch.zeros_like(token)
            for e in best:
                taken[e] += 1
                if experts.capacity is not None and taken[e] > experts.capacity:
                    continue
                inner = layer.up[e] @ token
                if layer.gate is None:
                    inner = inner * (inner > 0)
                else:
                    gate = layer.gate[e] @ token
                    inner = gate / (1 + (-gate).exp()) * inner
                y = y + p[e] / share * (layer.down[e] @ inner)
            tokens.append(y)
        rows.append(torch.stack(tokens))
    return torch.stack(rows)


def same_with_gradients(layer: nn.Module, ours: Tensor, theirs: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, **CLOSE)
    against = [*layer.parameters(), *inputs]
    cotangent = numbers(*ours.shape, seed=77)
    for mine, other in zip(
        torch.autograd.grad((ours * cotangent).sum(), against), torch.autograd.grad((theirs * cotangent).sum(), against), strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("capacity", [None, 1, 3])
@pytest.mark.parametrize(("per_token", "normalise"), [(1, False), (2, False), (2, True)])
def test_equals_the_paper_token_by_token(gated: bool, capacity: int | None, per_token: int, normalise: bool) -> None:
    layer = make(gated=gated, count=4, per_token=per_token, normalise=normalise, capacity=capacity)
    x = numbers(3, 7, 8).requires_grad_()
    same_with_gradients(layer, layer(x), slow(layer, x), x)
    if capacity == 1 and per_token == 1:
        assert (layer(x) == 0).all(dim=-1).sum() >= 3 * (7 - 4), "four experts take at most four of a row's seven tokens"


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(*[st.integers(1, n) for n in (3, 6, 9, 9)]),
    count=st.integers(1, 5),
    data=st.data(),
)
def test_equals_the_paper_for_any_sizes(sizes: tuple[int, int, int, int], count: int, data: st.DataObject) -> None:
    rows, tokens, width, inner = sizes
    layer = make(
        width,
        inner,
        gated=data.draw(st.booleans()),
        count=count,
        per_token=data.draw(st.integers(1, count)),
        capacity=data.draw(st.sampled_from([None, 1, 2])),
        balance_bias=data.draw(st.booleans()),
    )
    if layer.balance is not None:
        layer.balance.copy_(numbers(count, seed=3) / 4)
    x = numbers(rows, tokens, width, seed=5)
    torch.testing.assert_close(layer(x), slow(layer, x), **CLOSE)


def from_switch(capacity: int) -> tuple[ExpertFeedForward, nn.Module]:
    from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersConfig, SwitchTransformersSparseMLP

    theirs = SwitchTransformersSparseMLP(
        SwitchTransformersConfig(d_model=8, d_ff=12, num_experts=4, expert_capacity=capacity, dense_act_fn="relu", dropout_rate=0.0)
    ).eval()
    ours = make(gated=False, count=4, capacity=capacity)
    with torch.no_grad():
        theirs.router.classifier.weight.copy_(ours.router.weight)
        for e in range(4):
            theirs.experts[f"expert_{e}"].wi.weight.copy_(ours.up[e])
            theirs.experts[f"expert_{e}"].wo.weight.copy_(ours.down[e])
    return ours, theirs


@pytest.mark.parametrize("capacity", [2, 64])
def test_equals_transformers_switch(capacity: int) -> None:
    ours, theirs = from_switch(capacity)
    x = numbers(3, 11, 8)
    x[1, 4:8] = 0.0  # every expert scores the same: the first is chosen
    x.requires_grad_()
    mine, other = ours(x), theirs(x)
    torch.testing.assert_close(mine, other, **CLOSE)
    assert (mine[0] == 0).all(dim=-1).any() == (capacity == 2), "of eleven tokens four experts take at most eight"
    cotangent = numbers(*mine.shape, seed=7)
    (mine * cotangent).sum().backward()
    to_x, x.grad = x.grad, None
    (other * cotangent).sum().backward()
    torch.testing.assert_close(to_x, x.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.router.weight.grad, theirs.router.classifier.weight.grad, rtol=1e-4, atol=1e-5)
    for e in range(4):
        expert = theirs.experts[f"expert_{e}"]
        torch.testing.assert_close(ours.up.grad[e], expert.wi.weight.grad, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.down.grad[e], expert.wo.weight.grad, rtol=1e-4, atol=1e-5)


def test_pooled_and_z_losses_equal_transformers_switch() -> None:
    from transformers.models.switch_transformers.modeling_switch_transformers import load_balancing_loss_func, router_z_loss_func

    routings, scores = [], []
    for seed in (1, 2, 3):
        ours, theirs = from_switch(2)
        x = numbers(3, 11, 8, seed=seed)
        ours(x, torch.arange(11)[None] < torch.tensor([[11], [4], [7]]))
        assert ours.routing is not None
        routings.append(ours.routing)
        scores.append(theirs.router(x)[2])
    joined = torch.cat(scores, dim=1)
    expected = load_balancing_loss_func(joined.softmax(dim=-1), joined.argmax(dim=-1))
    torch.testing.assert_close(pooled_auxiliary_loss(routings, by_row=True), expected, **CLOSE)
    ours(x)
    torch.testing.assert_close(z_loss(ours.routing), router_z_loss_func(scores[-1]), **CLOSE)


@pytest.mark.parametrize("normalise", [True, False])
def test_equals_transformers_qwen3(normalise: bool) -> None:
    from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeConfig, Qwen3MoeSparseMoeBlock, load_balancing_loss_func

    config = Qwen3MoeConfig(
        hidden_size=8, moe_intermediate_size=12, num_experts=5, num_experts_per_tok=3, norm_topk_prob=normalise, hidden_act="silu"
    )
    config._experts_implementation = "eager"
    theirs = Qwen3MoeSparseMoeBlock(config)
    ours = make(count=5, per_token=3, normalise=normalise)
    with torch.no_grad():
        theirs.gate.weight.copy_(ours.router.weight)
        theirs.experts.gate_up_proj.copy_(torch.cat([ours.gate, ours.up], dim=1))
        theirs.experts.down_proj.copy_(ours.down)
    x = numbers(3, 7, 8).requires_grad_()
    real = torch.arange(7)[None] < torch.tensor([[7], [2], [5]])
    mine, other = ours(x, real), theirs(x)
    torch.testing.assert_close(mine, other, **CLOSE)
    cotangent = numbers(*mine.shape, seed=7)
    (mine * cotangent).sum().backward()
    to_x, x.grad = x.grad, None
    (other * cotangent).sum().backward()
    torch.testing.assert_close(to_x, x.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.router.weight.grad, theirs.gate.weight.grad, rtol=1e-4, atol=1e-5)
    both = torch.cat([ours.gate.grad, ours.up.grad], dim=1)
    torch.testing.assert_close(both, theirs.experts.gate_up_proj.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.down.grad, theirs.experts.down_proj.grad, rtol=1e-4, atol=1e-5)
    routings = [ours.routing]
    ours(numbers(3, 7, 8, seed=9), real)
    routings.append(ours.routing)
    expected = load_balancing_loss_func(tuple(r.scores_NE for r in routings), 5, 3, real)
    torch.testing.assert_close(pooled_auxiliary_loss(routings, by_row=False), expected, **CLOSE)


@pytest.mark.parametrize("capacity", [None, 2])
def test_permuting_experts_with_their_router_changes_nothing(capacity: int | None) -> None:
    layer = make(count=5, per_token=2, capacity=capacity, balance_bias=True)
    assert layer.balance is not None
    layer.balance.copy_(numbers(5, seed=4) / 10)
    x = numbers(2, 9, 8)
    before, order = layer(x), torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        for tensor in (layer.router.weight, layer.gate, layer.up, layer.down, layer.balance):
            tensor.copy_(tensor[order].clone())
    torch.testing.assert_close(layer(x), before, **CLOSE)
    with torch.no_grad():
        layer.router.weight.copy_(layer.router.weight[order].clone())
    assert not torch.allclose(layer(x), before, atol=1e-2), "the router alone does change it"


def test_rows_and_dropless_tokens_are_independent() -> None:
    x, order = numbers(4, 6, 8), torch.tensor([2, 0, 3, 1])
    for capacity in (None, 1):
        layer = make(count=3, per_token=2, capacity=capacity)
        torch.testing.assert_close(layer(x[order]), layer(x)[order], **CLOSE)
    dropless = make(count=3, per_token=2)
    tokens = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    shuffled = x.flatten(0, 1)[tokens].view(4, 6, 8)
    torch.testing.assert_close(dropless(shuffled).flatten(0, 1), dropless(x).flatten(0, 1)[tokens], **CLOSE)


def test_room_goes_to_those_who_come_first_padding_included() -> None:
    layer = make(count=2, gated=False, capacity=2)
    with torch.no_grad():
        layer.router.weight.copy_(torch.tensor([[1.0], [-1.0]]) * torch.ones(8))
    x = numbers(1, 6, 8).abs()  # all want expert 0
    empty = (layer(x)[0] == 0).all(dim=-1)
    assert empty.tolist() == [False, False, True, True, True, True]
    left = torch.tensor([[False, True, True, True, True, True]])
    assert (layer(x, left)[0] == 0).all(dim=-1).tolist() == empty.tolist(), "padding takes up room, as transformers has it"
    assert layer.routing is not None and routing_load(layer.routing).tolist() == [5, 0], "but does not count; those sent away do"


def test_no_token_depends_on_later_ones() -> None:
    layer, x = make(count=3, per_token=2, capacity=2), numbers(2, 9, 8)
    changed = x.clone()
    changed[:, 5:] = numbers(2, 4, 8, seed=8)
    torch.testing.assert_close(layer(changed)[:, :5], layer(x)[:, :5], **CLOSE)


def test_the_router_works_in_fp32() -> None:
    layer = make(count=6, per_token=2)
    x = numbers(2, 30, 8, dtype=torch.bfloat16)
    assert layer(x).dtype == torch.bfloat16
    assert layer.routing is not None
    exact = x.double().flatten(0, 1) @ layer.router.weight.double().t()
    assert layer.routing.scores_NE.dtype == layer.routing.probabilities_NE.dtype == torch.float32
    assert (layer.routing.scores_NE - exact).abs().max() < 1e-5, "rounding the weights to bf16 would give 1e-2"
    with torch.autocast("cpu", torch.bfloat16):
        layer(x)
    assert (layer.routing.scores_NE - exact).abs().max() < 1e-5
    rounded, full = layer(x).float(), layer(x.float())
    assert 0 < (rounded - full).norm() < 0.02 * full.norm()


def test_working_weights_hold_for_experts_but_not_for_the_router() -> None:
    layer, x = make(count=4, per_token=2), numbers(2, 5, 8, dtype=torch.bfloat16)
    layer.record = True
    before = layer(x)
    scores = layer.routing.scores_NE
    with working_weights(layer, torch.bfloat16):
        assert layer.working["up"].dtype == torch.bfloat16
        torch.testing.assert_close(layer(x), before, rtol=0, atol=0)
        torch.testing.assert_close(layer.routing.scores_NE, scores, rtol=0, atol=0)
        with torch.no_grad():
            layer.up.zero_()
        assert layer(x).abs().max() > 0, "the copy is what is used"
    assert layer(x).abs().max() == 0


def routed(probabilities: list[list[float]], chosen: list[list[int]], real: list[bool] | None = None) -> Routing:
    p = torch.tensor(probabilities)
    return Routing(p, p.log(), torch.tensor(chosen), torch.tensor(real or [True] * len(p)), 1)


def test_losses_by_hand() -> None:
    even = [[0.25] * 4] * 4
    assert auxiliary_loss(routed(even, [[0], [1], [2], [3]])).item() == pytest.approx(1.0)
    collapsed = [[1.0, 0.0, 0.0, 0.0]] * 4
    assert auxiliary_loss(routed(collapsed, [[0]] * 4)).item() == pytest.approx(4.0)
    # f = (2/3, 1/3), P = ((.9 + .6 + .3) / 3, (.1 + .4 + .7) / 3) = (.6, .4): 2 (2/3 .6 + 1/3 .4) = 16/15; the padding would change it
    some = routed([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.0, 1.0]], [[0], [0], [1], [1]], [True, True, True, False])
    assert auxiliary_loss(some).item() == pytest.approx(16 / 15)
    # Two choices a token: f = (2/4, 1/4, 1/4), P = (.5, .35, .15): 3 (.25 + .0875 + .0375) = 1.125
    pairs = routed([[0.6, 0.3, 0.1], [0.4, 0.4, 0.2]], [[0, 1], [0, 2]])
    assert auxiliary_loss(pairs).item() == pytest.approx(1.125)
    # Scores (0, 0) and (ln 3, 0): logsumexp ln 2 and ln 4
    two = Routing(torch.zeros(3, 2), torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [9.0, 9.0]]), torch.zeros(3, 1, dtype=torch.int64),
                  torch.tensor([True, True, False]), 1)  # fmt: skip
    assert z_loss(two).item() == pytest.approx((math.log(2) ** 2 + math.log(4) ** 2) / 2)


def test_a_models_losses_are_the_sum_over_its_layers() -> None:
    model = nn.Sequential(make(count=4, seed=1), nn.Linear(8, 8), make(count=3, per_token=2, seed=2))
    x = numbers(2, 5, 8)
    model(x)
    auxiliary, z = model_losses(model)
    first, last = model[0].routing, model[2].routing
    assert auxiliary.item() == pytest.approx(auxiliary_loss(first).item() + auxiliary_loss(last).item())
    assert z.item() == pytest.approx(z_loss(first).item() + z_loss(last).item())
    (auxiliary + z).backward()
    assert all(model[i].router.weight.grad.abs().max() > 0 for i in (0, 2))
    assert [v.item() for v in model_losses(nn.Linear(2, 2))] == [0.0, 0.0]


def test_routing_is_kept_when_asked_for_and_never_stale() -> None:
    layer, x = make(count=4), numbers(2, 5, 8)
    layer(x)
    twin = copy.deepcopy(layer)  # a graph hangs on the routing, which cannot be copied
    assert twin.routing is None and layer.routing is not None
    layer.eval()(x)
    assert layer.routing is None
    with pytest.raises(ValueError, match="record"):
        model_losses(layer)
    layer.record = True
    layer(x)
    assert model_losses(layer)[0] > 0


def test_padding_does_not_count_in_the_losses() -> None:
    layer, x = make(count=4, per_token=2), numbers(1, 5, 8)
    layer(x)
    alone = model_losses(layer)
    padded = torch.cat([numbers(1, 3, 8, seed=6), x], dim=1)
    layer(padded, torch.tensor([[False] * 3 + [True] * 5]))
    torch.testing.assert_close(model_losses(layer), alone, **CLOSE)
    layer(padded)
    assert abs(model_losses(layer)[0] - alone[0]) > 1e-3


def skewed(balance_bias: bool) -> tuple[ExpertFeedForward, Tensor]:
    """Eight experts, one of which gets nearly all tokens."""
    layer = make(16, 8, count=8, balance_bias=balance_bias)
    x = numbers(4, 64, 16) + 1.0
    with torch.no_grad():
        layer.router.weight.copy_(numbers(8, 16, seed=2) * 0.3)
        layer.router.weight[5] += 0.3
    return layer, x


def largest_share(layer: ExpertFeedForward, x: Tensor) -> float:
    layer(x)
    assert layer.routing is not None
    load = routing_load(layer.routing)
    return (load.max() / load.sum()).item()


def test_the_auxiliary_loss_alone_balances_a_skewed_router() -> None:
    layer, x = skewed(balance_bias=False)
    assert largest_share(layer, x) > 0.8
    optimiser = torch.optim.Adam(layer.router.parameters(), lr=0.02)
    for _ in range(150):
        layer(x)
        optimiser.zero_grad()
        model_losses(layer)[0].backward()
        optimiser.step()
    assert largest_share(layer, x) < 0.3


def test_balance_steps_alone_balance_a_skewed_router() -> None:
    layer, x = skewed(balance_bias=True)
    assert largest_share(layer, x) > 0.8
    weights = [p.detach().clone() for p in layer.parameters()]
    for _ in range(350):
        layer(x)
        balance_step(layer, 0.002)
    assert largest_share(layer, x) < 0.3
    assert all(torch.equal(a, b) for a, b in zip(weights, layer.parameters(), strict=True)), "only the bias of the choice has moved"


def test_a_balance_step_by_hand() -> None:
    layer = make(count=4, balance_bias=True)
    balance_step(layer, 0.5, torch.tensor([6, 2, 3, 1]))  # the mean is 3
    balance_step(layer, 0.25, torch.tensor([0, 9, 9, 0]))
    assert layer.balance is not None and layer.balance.tolist() == [-0.25, 0.25, -0.25, 0.75]
    with pytest.raises(ValueError, match="no routing"):
        balance_step(layer, 0.5)
    with pytest.raises(ValueError, match="balance_bias"):
        balance_step(make(count=4), 0.5)
    assert "balance" in layer.state_dict() and set(make(gated=False, count=4).state_dict()) == {"router.weight", "up", "down"}


def test_activation_checkpointing_gives_the_same_gradients_and_keeps_the_first_routing() -> None:
    layer, x = make(count=4, per_token=2, capacity=3), numbers(2, 6, 8)

    def gradients(call: Any) -> list[Tensor]:
        y = call()
        auxiliary, z = model_losses(layer)
        routing = layer.routing
        found = torch.autograd.grad(y.square().sum() + auxiliary + z, list(layer.parameters()))
        assert layer.routing is routing
        return list(found)

    plain = gradients(lambda: layer(x))
    torch.testing.assert_close(gradients(lambda: checkpoint(layer, x, use_reentrant=False)), plain, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_graph_for_the_compiler(dtype: torch.dtype) -> None:
    layer, x = make(count=4, per_token=2, capacity=3), numbers(2, 6, 8, dtype=dtype)
    y = layer(x)
    plain = torch.autograd.grad(y.float().square().sum() + sum(model_losses(layer)), list(layer.parameters()))
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(compiled, y)
    found = torch.autograd.grad(compiled.float().square().sum() + sum(model_losses(layer)), list(layer.parameters()))
    torch.testing.assert_close(found, plain)


def test_the_meta_device_knows_the_shapes() -> None:
    with torch.device("meta"):
        config = ModelConfig("any", 9, 8, 1, 1, 1, 2, 12, 16, experts=Experts(4, 2, capacity=3, balance_bias=True))
        out = ExpertFeedForward(config)(torch.empty(2, 5, 8, dtype=torch.bfloat16))
    assert out.is_meta and out.shape == (2, 5, 8) and out.dtype == torch.bfloat16
