"""A feed-forward layer made of experts, of which a router picks a few for every token, and the losses that keep their loads even.

    x_BTW ─→ router (fp32) ─→ probabilities ─→ choose K of E ─→ pairs (token, expert), those of one expert next to each other
                                   │                                │
                                   └── weight of each pair          └─→ expert's gate, up, down (grouped products) ─→ weighted sum

    routing of the last call ─→ row_losses: a training step adds them    tally of a step's choices ─→ balance_step: moves the bias

Sizes: B rows, T tokens of a row, N = B * T, E experts, K experts per token, W width, F inner features of an expert.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from norma.nn.config import ModelConfig
from norma.nn.grouped import grouped_matmul
from norma.nn.layers import Linear, activate


@dataclass(frozen=True)
class Routing:
    """What the router of one layer did in one call.

    Attributes:
        probabilities_NE: softmax of the scores over all experts, fp32.
        scores_NE: the router's scores, fp32.
        chosen_NK: int64, the experts of each token, also those whose capacity was used up.
        real_N: bool, False at padding.
        rows: B.
    """

    probabilities_NE: Tensor
    scores_NE: Tensor
    chosen_NK: Tensor
    real_N: Tensor
    rows: int


class Router(Linear):
    """Scores of the experts, in fp32 whatever flows in and whatever autocast says (Fedus et al., 2101.03961, 2.4)."""

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type if torch.amp.is_autocast_available(x.device.type) else "cpu"  # the meta device has no autocast
        with torch.autocast(kind, enabled=False):
            return F.linear(x.float(), self.weight.float())

    def work_in(self, dtype: torch.dtype | None) -> None:
        """Nothing: the router stays in fp32."""


class ExpertFeedForward(nn.Module):
    """The sum of a token's chosen experts, each times its weight (Shazeer et al., 1701.06538, eq. 1; one expert: 2101.03961, eq. 2).

    An expert is a feed-forward layer, plain or gated as ``config.gated`` says, without biases. Attributes of use outside:

        routing: the :class:`Routing` of the last call when it ran in training or with ``record`` set, else None. With activation
            checkpointing the losses reach the router only when it is not reentrant.
        balance: (E,) fp32, added to the probabilities for the choice alone (Wang et al., 2408.15664), or None.
        tally: (E,) int64, choices of each expert in training since it was last set to None; kept where there is a balance.
    """

    balance: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.experts is not None
        self.experts, self.activation = config.experts, config.activation
        count, width, inner = self.experts.count, config.width, self.experts.width or config.feed_forward_width
        self.router = Router(width, count, bias=False)
        self.gate = nn.Parameter(torch.empty(count, inner, width)) if config.gated else None
        self.up = nn.Parameter(torch.empty(count, inner, width))
        self.down = nn.Parameter(torch.empty(count, width, inner))
        self.register_buffer("balance", torch.zeros(count) if self.experts.balance_bias else None)
        self.record = False
        self.routing: Routing | None = None
        self.tally: Tensor | None = None
        self.working: dict[str, Tensor] = {}  # expert weights in the working type, see `norma.nn.layers.working_weights`
        for weight in (self.gate, self.up, self.down):
            if weight is not None:
                nn.init.uniform_(weight, -(weight.shape[-1] ** -0.5), weight.shape[-1] ** -0.5)  # as nn.Linear begins

    def forward(self, x_BTW: Tensor, real_BT: Tensor | None = None) -> Tensor:
        """(B, T, W) → (B, T, W) in the type of ``x``.

        Args:
            real_BT: bool, False at padding, which does not count in :attr:`routing`. It does take up capacity, as in Hugging Face's Switch.
        """
        B, T, W = x_BTW.shape
        K = self.experts.per_token
        scores_BTE = self.router(x_BTW)
        probabilities_BTE = scores_BTE.softmax(dim=-1)
        chosen_BTK = choose(probabilities_BTE if self.balance is None else probabilities_BTE + self.balance, K)
        weight_BTK = probabilities_BTE.gather(-1, chosen_BTK)
        if self.experts.normalise:
            weight_BTK = weight_BTK / weight_BTK.sum(dim=-1, keepdim=True)
        if self.experts.capacity is not None:
            # A pair that is dropped is computed and counts zero times: the shapes of all steps stay the same, nobody waits for a count.
            weight_BTK = weight_BTK * within_capacity(chosen_BTK, self.experts.count, self.experts.capacity)
        self._note(scores_BTE, probabilities_BTE, chosen_BTK, real_BT)
        x_NW, pair_expert = x_BTW.reshape(B * T, W), chosen_BTK.flatten()
        order = pair_expert.argsort(stable=True)  # pairs by expert, within an expert by token
        inner = self._experts(x_NW.index_select(0, order // K), load(pair_expert, self.experts.count))
        out_BTKW = inner.index_select(0, order.argsort()).view(B, T, K, W)
        out: Tensor = (out_BTKW * weight_BTK.to(x_BTW.dtype)[..., None]).sum(dim=2)
        return out

    def _experts(self, x_PW: Tensor, counts_E: Tensor) -> Tensor:
        """(P, W) → (P, W) for P pairs in the order of their experts."""
        dtype = x_PW.dtype
        gate, up, down = (self.working.get(n, getattr(self, n)) for n in ("gate", "up", "down"))
        up_PF = grouped_matmul(x_PW, up.to(dtype), counts_E)
        if gate is None:
            inner_PF = activate(self.activation, up_PF)
        else:
            inner_PF = activate(self.activation, grouped_matmul(x_PW, gate.to(dtype), counts_E)) * up_PF
        return grouped_matmul(inner_PF, down.to(dtype), counts_E)

    def _note(self, scores: Tensor, probabilities: Tensor, chosen: Tensor, real: Tensor | None) -> None:
        if _recomputing():
            return  # the routing of the forward pass stays; this one would hold all that checkpointing has set free
        if not (self.training or self.record):
            self.routing = None
            return
        rows = scores.shape[0]
        real_N = torch.ones(scores.shape[:2], dtype=torch.bool, device=scores.device) if real is None else real
        self.routing = Routing(probabilities.flatten(0, 1), scores.flatten(0, 1), chosen.flatten(0, 1), real_N.flatten(), rows)
        if self.balance is not None and self.training:
            counts = routing_load(self.routing)
            self.tally = counts if self.tally is None else self.tally + counts

    def work_in(self, dtype: torch.dtype | None) -> None:
        """Keep the experts' weights in ``dtype`` as well, until called with None."""
        names = [] if dtype is None else [n for n in ("gate", "up", "down") if getattr(self, n) is not None]
        self.working = {n: getattr(self, n).detach().to(dtype) for n in names}

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles leave out the last call's routing: its tensors belong to a graph that cannot be copied."""
        return {**self.__dict__, "routing": None, "tally": None}

    def extra_repr(self) -> str:
        return f"{self.experts.count} experts, {self.experts.per_token} per token, inner {self.up.shape[1]}, {self.activation}"


def _recomputing() -> bool:
    """Whether this forward pass is activation checkpointing's second, which runs inside a backward pass."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def choose(scores: Tensor, per_token: int) -> Tensor:
    """(..., E) → (..., K) int64: the experts with the highest scores, best first; of equals the first when one is chosen."""
    return scores.argmax(dim=-1, keepdim=True) if per_token == 1 else scores.topk(per_token, dim=-1).indices


def within_capacity(chosen_BTK: Tensor, experts: int, capacity: int) -> Tensor:
    """(B, T, K) bool: whether the expert had room left when the token came.

    An expert takes ``capacity`` tokens of each row, in the order of the tokens. Whether a token is taken thus never depends on later
    tokens; serving all first choices before the second ones (GShard, 2006.16668, algorithm 1) would break that in a causal model.
    """
    sent_BTE = torch.zeros(*chosen_BTK.shape[:2], experts, dtype=torch.int64, device=chosen_BTK.device).scatter(-1, chosen_BTK, 1)
    return sent_BTE.cumsum(dim=1).gather(-1, chosen_BTK) <= capacity


def load(chosen: Tensor, experts: int, real: Tensor | None = None) -> Tensor:
    """(E,) int64: how often each expert stands in ``chosen``, where ``real`` (which broadcasts against it) is True."""
    ones = torch.ones_like(chosen) if real is None else real.expand_as(chosen).to(chosen.dtype)
    return torch.zeros(experts, dtype=chosen.dtype, device=chosen.device).scatter_add(0, chosen.flatten(), ones.flatten())


def routing_load(routing: Routing) -> Tensor:
    """(E,) int64: how many real tokens chose each expert."""
    return load(routing.chosen_NK, routing.probabilities_NE.shape[1], routing.real_N[:, None])


def auxiliary_loss(routing: Routing) -> Tensor:
    """E * sum_e f_e P_e of one layer (2101.03961, eq. 4 to 6): 1 when all experts are used alike, E when one does everything.

    f_e is the share of all choices of real tokens that fell on expert e (so that K choices of a token count 1/K each), P_e the mean
    of its probability; only P has a gradient. Capacity plays no part.
    """
    P_E = _mean(routing.probabilities_NE, routing.real_N)
    count = routing_load(routing)
    return len(count) * (count / count.sum().clamp(min=1) * P_E).sum()


def z_loss(routing: Routing) -> Tensor:
    """The mean over real tokens of logsumexp(scores)^2, which keeps scores small (Zoph et al., 2202.08906, eq. 5)."""
    return _mean(routing.scores_NE.logsumexp(dim=-1).square(), routing.real_N)


def _mean(values: Tensor, real_N: Tensor) -> Tensor:
    """The mean over the first axis where ``real``; 0 where nothing is."""
    real = real_N.view(-1, *[1] * (values.dim() - 1))
    return (values * real).sum(dim=0) / real_N.sum().clamp(min=1)


def pooled_auxiliary_loss(routings: Sequence[Routing], *, by_row: bool) -> Tensor:
    """The auxiliary loss as Hugging Face has it, for parity: the layers of a stack count as one long layer, f sums to K.

    Args:
        by_row: the loss of each row, padding included, and then their mean (Switch); else of all real tokens together (Qwen3-MoE).
    """
    rows, E = routings[0].rows if by_row else 1, routings[0].probabilities_NE.shape[1]

    def joined(layers: Iterable[Tensor]) -> Tensor:
        return torch.cat([layer.view(rows, -1, layer.shape[1]) for layer in layers], dim=1)

    real = joined(torch.ones_like(r.real_N)[:, None] if by_row else r.real_N[:, None] for r in routings)
    f_BE = (joined(F.one_hot(r.chosen_NK, E).sum(dim=1) for r in routings) * real).sum(dim=1) / real.sum(dim=1)
    P_BE = (joined(r.probabilities_NE for r in routings) * real).sum(dim=1) / real.sum(dim=1)
    return E * (f_BE * P_BE).sum(dim=-1).mean()


def model_losses(model: nn.Module) -> tuple[Tensor, Tensor]:
    """The auxiliary losses of all sparse layers added up, and the z-losses, of the model's last call; zeros without sparse layers.

    Over the whole call, as the papers have them; what training adds is :func:`row_losses`.

    Raises:
        ValueError: a sparse layer has no routing: the last call was neither in training nor with ``record``.
    """
    noted = _routings(model)
    if not noted:
        return torch.zeros(()), torch.zeros(())
    return torch.stack([auxiliary_loss(r) for r in noted]).sum(), torch.stack([z_loss(r) for r in noted]).sum()


def row_losses(model: nn.Module) -> tuple[Tensor, Tensor]:
    """(B,) auxiliary loss of each row of the last call, and (B,) z-loss, the sparse layers added up.

    A row by itself: a sum over rows does not depend on how they are cut into micro-batches or spread over ranks, as a product of means
    over a whole call would. DeepSeek-V3 balances each sequence in the same way (2412.19437, eq. 17 to 20). Padding counts nothing. A
    training step adds ``experts.auxiliary_weight`` times the first and ``experts.z_weight`` times the second, after each forward pass
    and before the next.

    Raises:
        ValueError: as :func:`model_losses`, or there is no sparse layer.
    """
    noted = _routings(model)
    if not noted:
        raise ValueError("this model has no layer of experts")
    found = [_by_row(routing) for routing in noted]
    return torch.stack([a for a, _ in found]).sum(0), torch.stack([z for _, z in found]).sum(0)


def _by_row(routing: Routing) -> tuple[Tensor, Tensor]:
    B, E = routing.rows, routing.probabilities_NE.shape[1]
    real = routing.real_N.view(B, -1, 1).float()
    tokens_B = real.sum(dim=(1, 2)).clamp(min=1)
    chosen = F.one_hot(routing.chosen_NK, E).sum(dim=1).view(B, -1, E)
    f_BE = (chosen * real).sum(dim=1) / (tokens_B[:, None] * routing.chosen_NK.shape[1])
    P_BE = (routing.probabilities_NE.view(B, -1, E) * real).sum(dim=1) / tokens_B[:, None]
    squares = routing.scores_NE.logsumexp(dim=-1).square().view(B, -1, 1)
    return E * (f_BE * P_BE).sum(dim=-1), (squares * real).sum(dim=(1, 2)) / tokens_B


def _routings(model: nn.Module) -> list[Routing]:
    routings = [m.routing for m in model.modules() if isinstance(m, ExpertFeedForward)]
    noted = [r for r in routings if r is not None]
    if len(noted) < len(routings):
        raise ValueError("no routing was kept: call the model in training, or set `record` of its ExpertFeedForward modules")
    return noted


@torch.no_grad()
def balance_step(module: ExpertFeedForward, rate: float, load_E: Tensor | None = None) -> None:
    """Raise the choice's bias of experts with less than the mean load by ``rate``, lower that of the others (2408.15664, algorithm 1).

    Args:
        rate: the paper's update rate u, 0.001 there.
        load_E: choices of each expert over a whole step, all micro-batches and ranks added up; of the last call when None.

    Raises:
        ValueError: the module has no ``balance`` (``experts.balance_bias``), or neither a load nor a routing is there.
    """
    if module.balance is None:
        raise ValueError("experts.balance_bias is False: this layer has no bias to move")
    if load_E is None:
        if module.routing is None:
            raise ValueError("no routing was kept: call the layer in training or with `record`, or give the load")
        load_E = routing_load(module.routing)
    load_E = load_E.float()
    module.balance += rate * torch.sign(load_E.mean() - load_E)
