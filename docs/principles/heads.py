"""Each head catches different patterns: how unlike the heads of a trained model are, and what is lost without each.

Two heads are compared by the Jensen-Shannon divergence (Lin 1991) of their attention rows, in bits: 0 for equal rows, 1 for rows that share
no key. A head is ablated by zeroing its columns of the output projection (Michel et al., 1905.10650): its sum of values never arrives.
"""

from __future__ import annotations

from typing import Any

import torch
from common import BLACK, BLUE, GREEN, LENGTH, ORANGE, RED, SKY, Text, figure, fit, read_text, run, text_loss, transformer
from torch import Tensor

from norma.nn import Transformer, Watch

PATTERNS = ("itself", "the token before", "the first token", "2 to 8 tokens before", "farther, same token", "farther, other token")


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence in bits of distributions along the last axis: H((p + q) / 2) - (H(p) + H(q)) / 2."""

    def entropy(x: Tensor) -> Tensor:
        return -torch.special.xlogy(x, x).sum(dim=-1)

    return (entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2) / torch.log(torch.tensor(2.0))


@torch.no_grad()
def look(model: Transformer, text: Text, texts: int) -> tuple[Tensor, Tensor]:
    """(N, N) mean divergence between the N heads of all layers, and (N, patterns) where each head's weight goes on average.

    Rows before the 9th token are left out: they have few keys to choose from.
    """
    heads = model.config.layers * model.config.attention_heads
    apart, where, rows = torch.zeros(heads, heads), torch.zeros(heads, len(PATTERNS)), 0
    for document in text.held_out[:texts]:
        assert text.tokenizer.bos_id is not None
        ids = torch.tensor([[text.tokenizer.bos_id, *text.tokenizer.encode(document)][:LENGTH]])
        if ids.shape[1] < 16:
            continue
        watch = Watch()
        model(ids, watch=watch)
        weights = torch.cat([watch.weights["decoder", i][0] for i in range(model.config.layers)])[:, 8:]  # (N, T - 8, T)
        T = ids.shape[1]
        for a in range(heads):
            apart[a] += divergence(weights[a], weights).sum(dim=-1)
        back = torch.arange(8, T)[:, None] - torch.arange(T)[None, :]
        first, same = torch.arange(T)[None, :] == 0, ids[0, 8:, None] == ids[0, None, :]
        far = (back > 8) & ~first
        for i, mask in enumerate((back == 0, back == 1, first, (back >= 2) & (back <= 8) & ~first, far & same, far & ~same)):
            where[:, i] += (weights * mask).sum(dim=(1, 2))
        rows += T - 8
    return apart / rows, where / rows


@torch.no_grad()
def ablate(model: Transformer, text: Text) -> tuple[float, list[list[float]]]:
    """Bits per byte of the whole model, and by how much they rise without head h of layer l, [l][h]."""
    whole, size, rise = text.bits_per_byte(model), model.config.head_size, []
    assert model.decoder is not None
    for block in model.decoder.blocks:
        weight = block.attention.output.weight
        kept = weight.clone()
        rise.append([])
        for head in range(model.config.attention_heads):
            weight[:, head * size : (head + 1) * size] = 0.0
            rise[-1].append(text.bits_per_byte(model) - whole)
            weight.copy_(kept)
    return whole, rise


def measure(
    text: Text | None = None, width: int = 128, layers: int = 4, head_size: int = 32, steps: int = 1000, texts: int = 100
) -> dict[str, Any]:
    text = text or read_text(held_out=60_000)
    model = transformer(text.tokenizer.backend.get_vocab_size(), width, layers, head_size)
    other = ~torch.eye(layers * width // head_size, dtype=torch.bool)
    untrained = look(model, text, texts)[0]
    losses = fit(model, text_loss(model, text.batches()), steps, learning_rate=3e-3)
    apart, where = look(model, text, texts)
    whole, rise = ablate(model, text)
    return {
        "steps": steps,
        "last loss": sum(losses[-20:]) / len(losses[-20:]),
        "bits per byte": whole,
        "divergence": {"untrained mean": float(untrained[other].mean()), "mean": float(apart[other].mean()),
                       "least": float(apart[other].min()), "most": float(apart[other].max())},
        "divergences": apart.tolist(),
        "patterns": dict(zip(PATTERNS, where.T.tolist(), strict=True)),
        "ablation": rise,
    }


def draw(result: dict[str, Any]) -> Any:
    drawn, axes = figure("Each head catches different patterns", "不同的头捕捉不同的模式", 3, 3.6)
    depth, heads = len(result["ablation"]), len(result["ablation"][0])
    names = [f"{layer + 1}.{head + 1}" for layer in range(depth) for head in range(heads)]
    image = axes[0].imshow(result["divergences"], cmap="cividis", vmin=0)
    drawn.colorbar(image, ax=axes[0], label="divergence of two heads (bits)", shrink=0.8)
    axes[0].set(xlabel="layer.head", ylabel="layer.head")
    axes[0].grid(False)
    for set_ticks in (axes[0].set_xticks, axes[0].set_yticks):
        set_ticks(range(0, len(names), heads), names[::heads])
    left = torch.zeros(len(names))
    for (name, shares), colour in zip(result["patterns"].items(), (BLACK, BLUE, SKY, GREEN, RED, ORANGE), strict=True):
        axes[1].barh(names, shares, left=left.tolist(), color=colour, label=name)
        left += torch.tensor(shares)
    axes[1].invert_yaxis()
    axes[1].set(xlabel="share of the attention weight", ylabel="layer.head", xlim=(0, 1))
    axes[1].legend(fontsize=6.5, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    axes[2].barh(names, [rise for layer in result["ablation"] for rise in layer], color=BLUE)
    axes[2].invert_yaxis()
    axes[2].set(xlabel="rise without this head (bits per byte)", ylabel="layer.head")
    return drawn


if __name__ == "__main__":
    run("heads", measure, draw)
