"""Every block is a unit: activation checkpointing, fully_shard and torch.compile wrap it, and nothing changes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from norma.nn import Experts, Mask, ModelConfig, Transformer

SHAPES: dict[str, dict[str, Any]] = {
    "decoder": {"windows": (0, 4)},
    "encoder": {"causal": False, "positions": "learned", "norm": "layer", "norm_bias": True, "norm_placement": "post", "gated": False},
    "encoder-decoder": {"encoder_layers": 2, "positions": "relative"},
    "experts": {"experts": Experts(4, 2)},
    "parallel": {"parallel": True, "shared_norm": True},
}


def make(shape: str) -> Transformer:
    model = Transformer(ModelConfig("llama", 61, 16, 2, 4, 2, 4, 24, 48, **SHAPES[shape]))
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(1.0 if p.dim() == 1 else 0.0, 0.3, generator=random)
    return model


def gradients(model: Transformer) -> dict[str, torch.Tensor]:
    ids = torch.randint(0, 61, (2, 12), generator=torch.Generator().manual_seed(1))
    mask = Mask(documents=torch.tensor([[1] * 5 + [2] * 7] * 2))
    positions = torch.tensor([[*range(5), *range(7)]])
    source = model.encode(ids, mask, positions) if model.config.encoder_layers else None
    model.logits(model.hidden(ids, mask, positions, memory=source)).logsumexp(-1).sum().backward()
    return {name.replace("_orig_mod.", ""): p.grad for name, p in model.named_parameters() if p.grad is not None}


def checkpointed(block: nn.Module) -> None:
    block.forward = partial(torch.utils.checkpoint.checkpoint, block.forward, use_reentrant=False)


@pytest.mark.parametrize("shape", SHAPES)
def test_checkpointed_blocks_give_the_same_gradients(shape: str) -> None:
    plain, wrapped = make(shape), make(shape)
    for module in (wrapped.encoder, wrapped.decoder):
        for block in module.blocks if module is not None else ():
            checkpointed(block)
    ours, theirs = gradients(plain), gradients(wrapped)
    assert set(ours) == set(theirs)
    for name in ours:
        torch.testing.assert_close(theirs[name], ours[name], rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_compiled_blocks_give_the_same_gradients(shape: str, compile_backend: str) -> None:
    plain, wrapped = make(shape), make(shape)
    for module in (wrapped.encoder, wrapped.decoder):
        for i, block in enumerate(module.blocks if module is not None else ()):
            module.blocks[i] = torch.compile(block, fullgraph=True, backend=compile_backend)
    ours, theirs = gradients(plain), gradients(wrapped)
    assert set(ours) == set(theirs)
    for name in ours:
        torch.testing.assert_close(theirs[name], ours[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.fixture
def compile_backend() -> str:
    """The compiler, or its tracer alone where no C++ compiler is."""
    from norma.base.platform import compiler

    return "inductor" if compiler() else "aot_eager"


SHARDED = """
import os, sys, torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
sys.path.insert(0, {here!r})
from importlib import import_module
test = import_module("test_wrapping")
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT={port!r}, RANK=sys.argv[1], WORLD_SIZE="2")
dist.init_process_group("gloo")
plain, sharded = test.make({shape!r}), test.make({shape!r})
for stack in (sharded.encoder, sharded.decoder):
    for block in stack.blocks if stack is not None else ():
        fully_shard(block)
fully_shard(sharded)
for name in ("hidden", "encode", "logits"):
    if hasattr(torch.distributed.fsdp, "register_fsdp_forward_method"):
        torch.distributed.fsdp.register_fsdp_forward_method(sharded, name)
ours, theirs = test.gradients(plain), test.gradients(sharded)
assert set(ours) == set(theirs)
for name in ours:
    torch.testing.assert_close(theirs[name].full_tensor(), ours[name], rtol=1e-4, atol=1e-5, msg=name)
print("same", len(ours), flush=True)
os._exit(0)  # gloo's threads abort now and then at a normal exit
"""


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["decoder", "encoder-decoder"])
def test_sharded_over_two_ranks_gives_the_same_gradients(shape: str, free_port: Callable[[], int]) -> None:
    script = SHARDED.format(here=str(Path(__file__).parent), port=str(free_port()), shape=shape)
    ranks = [
        subprocess.Popen([sys.executable, "-c", script, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for rank in ranks:
        out, err = rank.communicate(timeout=120)
        assert rank.returncode == 0 and out.startswith("same"), err[-2000:]


@pytest.fixture
def free_port() -> Callable[[], int]:
    import socket

    def port() -> int:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            return int(s.getsockname()[1])

    return port
