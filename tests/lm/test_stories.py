"""A real checkpoint: llama2.c's stories260K, whose greedy text is published with that project's tests."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch

from norma.nn import Cache, ModelConfig, Transformer

PUBLISHED = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball."
    " She wanted to play with it, but it was too high.\nLily's mom said, \"Lily, let's go to the park.\" Lily was sad and didn't know"
    " what to do. She said, \"I want to play with your ball, but I can't find it.\"\nLily was sad and didn't know what to do. She said,"
    " \"I'm sorry, Lily. I didn't know what to do.\"\nLily didn't want to help her mom, so she"
)


def read(path: Path) -> Transformer:
    """The .bin layout: seven int32, then fp32 tensors kind by kind, all layers of a kind together."""
    data = path.read_bytes()
    width, feed_forward, layers, heads, groups, vocabulary, length = struct.unpack("7i", data[:28])
    size = width // heads
    config = ModelConfig("llama", vocabulary, width, layers, heads, groups, size, feed_forward, length)
    numbers = torch.from_numpy(np.frombuffer(data, dtype="<f4", offset=28).copy())
    at = 0

    def take(*shape: int) -> torch.Tensor:
        nonlocal at
        count = int(np.prod(shape))
        at += count
        return numbers[at - count : at].view(shape)

    def halves(weight: torch.Tensor, count: int) -> torch.Tensor:
        """Rotary pairs lie side by side in the file (0, 1), (2, 3), ...; ours are (0, D/2), (1, D/2 + 1), ..."""
        return weight.view(layers, count, size // 2, 2, width).transpose(2, 3).reshape(layers, count * size, width)

    state = {"embedding.weight": take(vocabulary, width)}
    kinds = {
        "attention_norm": take(layers, width),
        "attention.query": halves(take(layers, heads * size, width), heads),
        "attention.key": halves(take(layers, groups * size, width), groups),
        "attention.value": take(layers, groups * size, width),
        "attention.output": take(layers, width, heads * size),
        "feed_forward_norm": take(layers, width),
        "feed_forward.gate": take(layers, feed_forward, width),
        "feed_forward.down": take(layers, width, feed_forward),
        "feed_forward.up": take(layers, feed_forward, width),
    }
    state |= {f"decoder.blocks.{i}.{kind}.weight": tensors[i] for kind, tensors in kinds.items() for i in range(layers)}
    state["decoder.norm.weight"] = take(width)
    model = Transformer(config)
    model.load_state_dict(state)
    assert config.parameters() == at == 260_032
    return model.eval().requires_grad_(False)


def vocabulary(path: Path, count: int) -> list[bytes]:
    data, at, pieces = path.read_bytes(), 4, []
    for _ in range(count):
        _, length = struct.unpack_from("fi", data, at)
        piece = data[at + 8 : at + 8 + length]
        pieces.append(bytes([int(piece[3:5], 16)]) if piece.startswith(b"<0x") and len(piece) == 6 else piece)
        at += 8 + length
    return pieces


def test_greedy_text_is_the_published_one(stories: Path) -> None:
    model = read(stories / "stories260K.bin")
    pieces = vocabulary(stories / "tok512.bin", model.config.vocab_size)
    cache = Cache(model.config, 1, 200, torch.float32, torch.device("cpu"))
    cache.visible[:] = True
    ids = [1]
    for _ in range(200):
        ids.append(int(model.logits(model.hidden(torch.tensor([ids[-1:]]), cache=cache))[0, -1].argmax()))
    text = b"".join(pieces[i] for i in ids[1:]).decode().lstrip()
    assert text.startswith(PUBLISHED)
    # And all at once, without the cache.
    assert model(torch.tensor([ids[:-1]])).argmax(-1)[0].tolist() == ids[1:]
