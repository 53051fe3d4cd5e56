"""Prompts read in slices, and from known beginnings: what is written is what one reading gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from norma.generate.engine import generate
from norma.generate.prefixes import BLOCK, Prefixes, block_names
from norma.generate.running import Ask, RunningBatch
from norma.generate.sampling import Sampling
from norma.lm import LanguageModel
from norma.nn import Cache, Transformer
from norma.nn.layers import working_weights

FP32 = torch.float32
RULES = "Certainly: the entry does not say what `os.path.join` does. " * 4


def write(batch: RunningBatch, prompt: tuple[int, ...], slice: int, tokens: int = 20) -> tuple[list[int], int]:
    """(ids, how many slices the prompt took)"""
    ask, reading, slices = Ask(prompt, Sampling(tokens, temperature=1.0, seed=3)), batch.reading(prompt), 0
    while reading.done is None:
        reading.read(slice)
        slices += 1
    ids = [token.id for _, token in batch.join([ask], reading)]
    while len(ids) < tokens:
        ids += [token.id for _, token in batch.step()]
    batch.leave([ask])
    return ids, slices


def alone(model: LanguageModel, prompt: tuple[int, ...]) -> list[int]:
    """The oracle is the trainers' engine, which reads a prompt at once."""
    return list(generate(model, [prompt], Sampling(20, temperature=1.0, seed=3), dtype=FP32)[0].ids)


KINDS: dict[str, dict[str, Any]] = {
    "rotary": {},
    "learned": {"positions": "learned"},
    "relative": {"positions": "relative"},
    "windows": {"windows": (24, 0)},
    "normed heads": {"qk_norm": "head"},
}


def made(make_model: Callable[..., LanguageModel], kind: str) -> LanguageModel:
    """A tiny random model of 400 positions with this kind of positions or attention."""
    plain = make_model(3, 0.2, max_positions=400)
    network, generator = Transformer(replace(plain.config, **KINDS[kind])), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.2, generator=generator)
    return LanguageModel(network.eval(), plain.tokenizer)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slice", [8, 40, 1000])
def test_slices_change_no_token(make_model: Callable[..., LanguageModel], kind: str, slice: int) -> None:
    model = made(make_model, kind)
    for text in (RULES, RULES + "wh", "What does"):
        prompt = tuple(model.tokenizer.encode(text))
        with working_weights(model.transformer, FP32):
            ids, slices = write(RunningBatch(model, FP32), prompt, slice)
        wanted = alone(model, prompt)
        assert ids[: len(wanted)] == wanted
        assert slices == -(-len(prompt) // slice)


@pytest.mark.parametrize("kind", KINDS)
def test_a_known_beginning_changes_no_token(make_model: Callable[..., LanguageModel], kind: str) -> None:
    model = made(make_model, kind)
    prefixes = Prefixes(2**24)
    rules = model.tokenizer.encode(RULES)
    prompts = [tuple(rules + model.tokenizer.encode(end)) for end in ("What does", "您好，`time.sleep` 有什么作用？", "", "What does")]
    whole = tuple(rules[: 3 * BLOCK])  # a prompt that is known to its last token
    with working_weights(model.transformer, FP32):
        batch = RunningBatch(model, FP32, prefixes)
        for prompt in (*prompts, whole):
            ids, _ = write(batch, prompt, 64)
            wanted = alone(model, prompt)
            assert ids[: len(wanted)] == wanted
    shared = len(rules) // BLOCK * BLOCK
    assert prefixes.asked == sum(map(len, prompts)) + len(whole)
    assert shared * 2 <= prefixes.found < prefixes.asked - len(prompts[0])


def test_only_equal_beginnings_are_found(make_model: Callable[..., LanguageModel]) -> None:
    """The same block behind other tokens has other keys: it is another block."""
    model = make_model()
    ids = list(range(70, 70 + 3 * BLOCK))
    cache = Cache(model.config, 1, len(ids), FP32, torch.device("cpu"))
    cache.keys.normal_()
    prefixes = Prefixes(2**24)
    prefixes.keep(ids, cache, 0)
    for other, known in ((ids[:-1], 2), (ids, 3), ([*ids, 1], 3), ([1, *ids[1:]], 0), (ids[BLOCK:], 0), (ids[: BLOCK - 1], 0)):
        into = Cache(model.config, 1, len(other) + 5, FP32, torch.device("cpu"))
        assert prefixes.load(other, into, 5) == known * BLOCK
        assert torch.equal(into.keys[..., 5 : 5 + known * BLOCK, :], cache.keys[..., : known * BLOCK, :])
    assert len(set(block_names(ids))) == 3 and block_names(ids[:40]) == block_names(ids)[:1]


def test_the_least_recently_used_go_first_and_ends_before_beginnings(make_model: Callable[..., LanguageModel]) -> None:
    model = make_model()
    one, two = list(range(70, 70 + 3 * BLOCK)), list(range(170, 170 + 2 * BLOCK))
    cache = Cache(model.config, 1, 4 * BLOCK, FP32, torch.device("cpu"))
    block = 2 * cache.keys[..., :BLOCK, :].nbytes
    prefixes = Prefixes(4 * block)

    def known(ids: list[int]) -> int:
        return prefixes.load(ids, cache, 0) // BLOCK

    prefixes.keep(one, cache, 0)
    prefixes.keep(two, cache, 0)
    assert prefixes.bytes == 4 * block and (known(one), known(two)) == (2, 2)
    known(one)
    prefixes.keep([*range(300, 300 + BLOCK)], cache, 0)
    assert (known(one), known(two)) == (2, 1) and prefixes.bytes == 4 * block
    Prefixes(block - 1).keep(one, cache, 0)  # holds nothing, and says so by being slow, not by failing
