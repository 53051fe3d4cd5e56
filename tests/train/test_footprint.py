"""Memory foreseen and memory measured: live tensors as torch's allocator counts them, of whole policy steps of small models."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

from norma.generate import Sampling, generate
from norma.lm import LanguageModel
from norma.nn import ModelConfig, Transformer, preset
from norma.nn.lora import LoraOptions, add_lora
from norma.nn.presets import published
from norma.objectives.policy_gradient import clipped_policy_loss, kl_penalty
from norma.text.tokenizer import train_tokenizer
from norma.train.footprint import BOUND, Machine, Shape, block_activations, lora_parameters, memory, peak, seconds
from norma.train.scoring import Group, answer_logprobs
from norma.train.spread import recompute

TYPES = {2: torch.bfloat16, 4: torch.float32}
PROMPT, NEW, QUESTIONS, GROUP = 32, 24, 4, 4
ROW = PROMPT + GROUP * NEW


def live(work: Callable[[], None]) -> int:
    """The largest sum of bytes that torch held at one time of what it allocated while ``work`` ran.

    What was allocated before does not count, and neither does its end: the garbage collector may come at any time, and one that freed
    an earlier test's tensors in the middle of a rollout once made it look 15 MB smaller.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        work()
    held: dict[int, int] = {}
    now = most = 0
    for event in sorted(allocations(found.profiler.kineto_results.experimental_event_tree()), key=lambda e: e.start_time_ns):
        address, size = event.extra_fields.ptr, event.extra_fields.alloc_size
        if size > 0:
            held[address] = size
            now += size
            most = max(most, now)
        else:
            now -= held.pop(address, 0)
    return most


def allocations(events: list[Any]) -> Iterator[Any]:
    """Every allocation (bytes above 0) and release (below) in a tree of events."""
    for event in events:
        if event.tag == _EventType.Allocation:
            yield event
        yield from allocations(event.children)


def test_what_was_there_before_does_not_count() -> None:
    before = [torch.zeros(1_000_000)]

    def work() -> None:
        first = torch.zeros(2_000_000)
        before.clear()
        second = torch.zeros(500_000)
        del first, second

    assert live(work) == 4 * 2_500_000


def policy_steps(config: ModelConfig, shape: Shape) -> Callable[[], None]:
    """Two steps of GRPO as the trainer does them: two micro-batches under policy and reference, backward each, AdamW."""
    draw = torch.Generator().manual_seed(1)

    def ids(count: int) -> list[int]:
        return torch.randint(0, config.vocab_size, (count,), generator=draw).tolist()

    groups = [Group(ids(PROMPT), [ids(NEW) for _ in range(GROUP)]) for _ in range(shape.tokens // ROW)]

    def work() -> None:
        model = Transformer(config).initialise(torch.Generator().manual_seed(0))
        if shape.lora is not None:
            add_lora(model, shape.lora, torch.Generator().manual_seed(0))
        reference = copy.deepcopy(model) if shape.reference == "copy" else model
        if shape.recompute:
            recompute(model)
        optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        for micro in range(4):
            new, _ = answer_logprobs(model, groups, dtype=TYPES[shape.activations])
            with torch.no_grad():
                before, _ = answer_logprobs(reference, groups, dtype=TYPES[shape.activations])
            loss = clipped_policy_loss(new, new.detach(), torch.ones_like(new)) + 0.1 * kl_penalty(new, before)
            loss.backward()  # type: ignore[no-untyped-call]
            if micro % 2:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            del new, before, loss

    return work


ALL = LoraOptions(8, targets="all")
CASES = {
    "all weights": (128, 4, Shape(reference="copy")),
    "all weights, recompute": (128, 6, Shape(reference="copy", recompute=True)),
    "all weights, bf16 activations": (128, 4, Shape(reference="copy", activations=2)),
    "lora everywhere": (128, 4, Shape(lora=ALL, reference="shared")),
    "lora everywhere, recompute": (128, 6, Shape(lora=ALL, reference="shared", recompute=True)),
    "lora on query and value": (128, 4, Shape(lora=LoraOptions(8), reference="shared")),
    "lora, bf16 activations": (128, 4, Shape(lora=ALL, reference="shared", activations=2)),
    "lora, wider": (320, 3, Shape(lora=ALL, reference="shared", recompute=True)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_policy_step_takes_what_was_foreseen(name: str) -> None:
    width, layers, shape = CASES[name]
    config = preset("llama", vocab_size=1000, width=width, layers=layers, max_positions=256)
    shape = dataclasses.replace(shape, tokens=QUESTIONS * ROW, length=ROW, scored=QUESTIONS * GROUP * NEW)
    foreseen, measured = peak(memory(config, shape)), live(policy_steps(config, shape))
    assert foreseen == pytest.approx(measured, rel=BOUND), f"{name}: {foreseen / 1e6:.1f} MB foreseen, {measured / 1e6:.1f} MB measured"


def test_a_rollout_takes_what_was_foreseen() -> None:
    tokenizer = train_tokenizer([], 262)
    config = preset("llama", vocab_size=len(tokenizer), width=128, layers=6, max_positions=256)
    model = LanguageModel(Transformer(config).initialise(torch.Generator().manual_seed(0)).eval(), tokenizer)
    prompts = [[1 + (i // GROUP + j) % 200 for j in range(160)] for i in range(64)]
    measured = live(lambda: void(generate(model, prompts, Sampling(32, stop=(), seed=1), dtype=torch.float32)))
    shape = Shape(questions=16, group=4, prompt=160, new=32, lora=ALL, reference="shared")
    foreseen = sum(part.bytes for part in memory(config, shape) if part.phase == "rollout")
    assert foreseen == pytest.approx(measured, rel=BOUND), f"{foreseen / 1e6:.1f} MB foreseen, {measured / 1e6:.1f} MB measured"


def void(value: object) -> None:
    pass


def test_what_is_always_there_is_exact() -> None:
    config = preset("llama", vocab_size=500, width=64, layers=3, kv_heads=1, head_size=32)
    for lora in (LoraOptions(4, targets="all"), LoraOptions(8), LoraOptions(2, targets=("up", "attention.output"))):
        model = Transformer(config)
        add_lora(model, lora, torch.Generator())
        assert lora_parameters(config, lora) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    parts = {p.name: p.bytes for p in memory(config, Shape(lora=LoraOptions(4, targets="all"), weights=2))}
    learnt = lora_parameters(config, LoraOptions(4, targets="all"))
    assert (
        parts["weights"] == 2 * config.parameters()
        and parts["moments"] == 8 * learnt
        and parts["gradients"] == parts["adapters"] == 4 * learnt
    )


def test_a_7b_step_by_hand() -> None:
    """Llama 2 7B: 6,738,415,616 weights; bf16 takes 13.48 GB. Rank 16 everywhere: 32 x 16 x (4 x 8,192 + 3 x 15,104) = 39,976,960."""
    config = published("llama-2-7b")
    shape = Shape(weights=2, activations=2, tokens=4096, length=1024, lora=LoraOptions(16, targets="all"), recompute=True)
    shape = dataclasses.replace(shape, reference="shared", questions=8, group=8, prompt=256, new=96)
    parts = {p.name: p for p in memory(config, shape)}
    assert parts["weights"].bytes == 2 * 6_738_415_616 and parts["moments"].bytes == 8 * 39_976_960 and parts["reference"].bytes == 0
    # Keys and values: 2 x 32 layers x 4,096 features x 2 bytes = 524,288 bytes a token; 64 answers of 352 tokens.
    assert parts["key/value cache"].bytes == 64 * 352 * 524_288
    assert parts["inputs of blocks"].bytes == 32 * 4096 * 4096 * 2
    assert "working weights" not in parts and peak(list(parts.values())) < 40e9
    timed = seconds(config, shape, Machine(flops=1e15, bandwidth=2e12))
    # 8 rows of 256 + 8 x 96 = 1,024 tokens, 6.6e9 weights in matrices: forward 2 x each, four times (policy, again, back, reference).
    assert timed["training"] == pytest.approx(8 * 1024 * 2 * 6.607e9 * 4 / 1e15, rel=0.1)
    # 96 times all weights and the cache of 64 answers, at 2 TB a second.
    assert timed["rollout"] == pytest.approx(96 * (13.48e9 + 64 * 304 * 524_288) / 2e12, rel=0.2)
    ppo = seconds(config, dataclasses.replace(shape, epochs=4, minibatches=2), Machine(flops=1e15, bandwidth=2e12))
    assert ppo["rollout"] == pytest.approx(timed["rollout"] / 8), "eight steps share a rollout"


def test_more_of_anything_takes_more() -> None:
    config = preset("llama", vocab_size=500, width=64, layers=3)
    base = Shape(tokens=512, length=128, lora=LoraOptions(4), reference="shared", questions=4, group=4)
    least = peak(memory(config, base))
    for change in ({"tokens": 1024}, {"lora": None}, {"reference": "copy"}, {"critic": True}, {"judge": 1000}, {"lora": LoraOptions(8)}):
        assert peak(memory(config, dataclasses.replace(base, **change))) > least, change
    assert peak(memory(config, dataclasses.replace(base, recompute=True, tokens=4096))) < peak(
        memory(config, dataclasses.replace(base, tokens=4096))
    )
    assert block_activations(config, base) < block_activations(config, dataclasses.replace(base, lora=None))
