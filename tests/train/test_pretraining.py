"""Pretraining steps: streams against slow loops, the loss against plain cross-entropy, one step for any number of ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from norma.base.errors import NormaError
from norma.base.progress import Silent
from norma.base.ranks import Ranks
from norma.nn import Mask, Transformer, preset, with_head
from norma.objectives.infilling import ADDED, Sentinels
from norma.objectives.masking import Masking, MaskTokens
from norma.objectives.sentences import PairTokens
from norma.text.packing import IGNORE
from norma.text.sequences import Sequences
from norma.text.shards import Shards
from norma.text.tokenise import tokenise
from norma.text.tokenizer import Tokenizer, train_tokenizer
from norma.train.examples import Examples, Scoring, examples_loss
from norma.train.pretraining import Pretraining
from norma.train.streams import Infilling, Masked, NextToken, Pairs, Stream

LENGTH = 32
TEXTS = [
    f"The {colour} {animal} sat by the river. It was looking at {n} stones.\n\nLater it went home. 它很高兴。"
    for colour in ("red", "grey", "black")
    for animal in ("fox", "heron", "otter")
    for n in (2, 7)
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 320, ("masked", "pairs", "infilling"))


@pytest.fixture(scope="module")
def shards(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("shards") / "train"
    tokenise(TEXTS, tokenizer, folder, workers=1, progress=Silent())
    return Shards(folder)


Make = Callable[..., Stream]


@pytest.fixture(scope="module")
def make(tokenizer: Tokenizer, shards: Shards) -> Make:
    def build(kind: str, **more: Any) -> Stream:
        sequences = Sequences(shards, length=LENGTH, seed=3)
        tokens = MaskTokens(tokenizer.objective_tokens("masked")[0], tokenizer.special_ids, len(tokenizer))
        chosen: dict[str, Any] = {"tokens": tokens, "masking": Masking(), "steps": 10, "seed": 5, **more}
        if kind == "generative":
            return NextToken(sequences)
        if kind == "masked":
            return Masked(sequences, **chosen)
        if kind == "infilling":
            short = Sequences(shards, length=LENGTH - ADDED, seed=3)
            return Infilling(short, Sentinels(*tokenizer.objective_tokens("infilling")), seed=5, rate=1.0)
        return Pairs(shards, LENGTH, PairTokens(*tokenizer.objective_tokens("pairs")), **chosen)

    return build


def model(family: str, tokenizer: Tokenizer, **more: Any) -> Transformer:
    config = preset(family, vocab_size=len(tokenizer), width=32, layers=2, head_size=16, max_positions=64)
    config = with_head(config, more["head"]) if "head" in more else config
    random = torch.Generator().manual_seed(0)
    made = Transformer(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.2, generator=random)
    return made


# ── streams ──
def test_next_tokens_by_a_slow_loop(make: Make) -> None:
    examples = make("generative").rows(np.arange(5, 9), 0)
    for ids, targets, documents in zip(examples.ids, examples.targets, examples.documents, strict=True):
        for t in range(LENGTH):
            follows = t + 1 < LENGTH and documents[t] and documents[t] == documents[t + 1]
            assert targets[t] == (ids[t + 1] if follows else IGNORE)


@pytest.mark.parametrize("shifted", [False, True])
def test_masked_rows_give_the_text_back(make: Make, shifted: bool) -> None:
    numbers = np.arange(6)
    plain, masked = make("generative").rows(numbers, 0), make("masked", shifted=shifted).rows(numbers, 0)
    places = masked.targets != IGNORE
    assert 0.08 < places.sum() / (plain.documents > 0).sum() < 0.25
    right = np.roll(plain.ids, -1, axis=1) if shifted else plain.ids
    assert (masked.targets[places] == right[places]).all()
    hidden = np.roll(places, 1, axis=1) if shifted else places
    assert (masked.ids[~hidden] == plain.ids[~hidden]).all()
    assert not masked.causal


def test_a_row_is_masked_anew_in_each_epoch(make: Make) -> None:
    stream = make("masked")
    assert isinstance(stream, Masked)
    epoch = len(stream.sequences)
    assert (stream.rows(np.arange(4), 0).targets != stream.rows(np.arange(4) + epoch, 0).targets).any()


def test_infilling_moves_and_loses_nothing(make: Make, tokenizer: Tokenizer) -> None:
    stream = make("infilling")
    assert isinstance(stream, Infilling)
    added = set(tokenizer.objective_tokens("infilling"))
    examples, before = stream.rows(np.arange(8), 0), stream.sequences.rows(np.arange(8))
    changed = 0
    for b in range(8):
        now = examples.ids[b][examples.documents[b] > 0].tolist()
        changed += bool(added & set(now))
        assert sorted(i for i in now if i not in added) == sorted(before.ids[b][before.documents[b] > 0].tolist())
        for document in range(1, int(examples.documents[b].max()) + 1):
            own = examples.documents[b] == document
            assert examples.positions[b][own].tolist() == list(range(own.sum()))
    assert changed >= 6


def test_pairs_are_framed_and_labelled(make: Make, tokenizer: Tokenizer) -> None:
    cls, sep = tokenizer.objective_tokens("pairs")
    examples = make("pairs").rows(np.arange(200), 0)
    assert examples.segments is not None and examples.labels is not None
    assert 70 < examples.labels.sum() < 130  # a fair coin leaves this once in 20,000 runs
    for ids, documents, segments in zip(examples.ids, examples.documents, examples.segments, strict=True):
        n = int(documents.sum())
        assert (ids[0], (ids[:n] == sep).sum(), ids[n - 1]) == (cls, 2, sep)
        assert (np.diff(segments[:n]) >= 0).all()


def test_pairs_need_sentences(tokenizer: Tokenizer, make: Make, tmp_path: Path) -> None:
    tokenise(["one line", "another line"], tokenizer, tmp_path / "s", workers=1, progress=Silent())
    stream = make("pairs")
    assert isinstance(stream, Pairs)
    with pytest.raises(NormaError, match="two sentences"):
        Pairs(Shards(tmp_path / "s"), 32, stream.pair, stream.tokens, stream.masking, 1, 0).rows(np.arange(1), 0)


# ── the loss ──
def test_the_loss_is_plain_cross_entropy(make: Make, tokenizer: Tokenizer) -> None:
    gpt = model("llama", tokenizer)
    for kind in ("generative", "infilling"):
        examples = make(kind).rows(np.arange(3), 0)
        found = examples_loss(gpt, examples, torch.float32, Scoring(byte_lengths=tokenizer.byte_lengths()))
        mask = Mask(causal=True, documents=torch.from_numpy(examples.documents))
        scores = gpt(torch.from_numpy(examples.ids), mask, torch.from_numpy(examples.positions))
        right = F.cross_entropy(scores.flatten(0, 1), torch.from_numpy(examples.targets).flatten(), ignore_index=IGNORE, reduction="sum")
        assert found.pairs is None
        torch.testing.assert_close(found.minimised, right, rtol=1e-5, atol=0)
        assert found.nats == pytest.approx(right.item(), rel=1e-5)
        # Bits per byte: what stands for no text (BOS, END, sentinels) counts neither way.
        said = examples.targets[examples.targets != IGNORE]
        text = [i for i in said.tolist() if i not in tokenizer.special_ids]
        assert len(text) < len(said) and found.text_bytes == sum(len(tokenizer.backend.id_to_token(i)) for i in text)
        kept = torch.from_numpy(np.where(np.isin(examples.targets, tokenizer.special_ids), IGNORE, examples.targets)).flatten()
        right = F.cross_entropy(scores.flatten(0, 1), kept, ignore_index=IGNORE, reduction="sum")
        assert found.text_nats == pytest.approx(right.item(), rel=1e-5)


def test_the_loss_of_pairs_has_two_parts(make: Make, tokenizer: Tokenizer) -> None:
    bert, examples = model("bert", tokenizer, head="pretraining"), make("pairs").rows(np.arange(3), 0)
    found = examples_loss(bert, examples, torch.float32, Scoring(byte_lengths=tokenizer.byte_lengths()))
    assert found.text_bytes == 0, "what is seen from both sides costs no bits"
    assert examples.segments is not None and examples.labels is not None and found.pairs is not None
    total_tokens = total_pairs = 0.0
    for b in range(3):  # each row alone, without its padding
        n = int(examples.documents[b].sum())
        ids, segments = torch.from_numpy(examples.ids[b : b + 1, :n]), torch.from_numpy(examples.segments[b : b + 1, :n])
        hidden = bert.hidden(ids, segments_BT=segments)
        targets = torch.from_numpy(examples.targets[b, :n])
        total_tokens += F.cross_entropy(bert.logits(hidden)[0], targets, ignore_index=IGNORE, reduction="sum").item()
        total_pairs += F.cross_entropy(bert.next_sentence_scores(hidden), torch.from_numpy(examples.labels[b : b + 1])).item()
    assert found.nats == pytest.approx(total_tokens, rel=1e-5)
    assert found.pairs.item() == pytest.approx(total_pairs, rel=1e-5)


# ── steps ──
def steps(make: Make, **more: Any) -> Pretraining:
    return Pretraining([make("masked", shifted=True), make("generative")], [1, 3], size=8, length=LENGTH, seed=1, **more)


def test_micro_batches_change_nothing(make: Make, tokenizer: Tokenizer) -> None:
    gpt = model("llama", tokenizer)
    found = []
    for micro in (8, 3, 1):
        gpt.zero_grad()
        total = {}
        for loss, numbers in steps(make).losses(gpt, 4, micro=micro, dtype=torch.float32):
            loss.backward()
            total |= {name: total.get(name, 0.0) + value for name, value in numbers.items()}
        found.append((total, torch.cat([p.grad.flatten() for p in gpt.parameters() if p.grad is not None])))
    for total, gradient in found[1:]:
        assert total == pytest.approx(found[0][0], rel=1e-5)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-4, atol=1e-6)


def test_streams_count_by_their_rows(make: Make, tokenizer: Tokenizer) -> None:
    gpt, pretraining = model("llama", tokenizer), steps(make)
    rows = {stream.name: count for stream, count, _, _ in pretraining.parts(2)}
    numbers: dict[str, float] = {}
    for _, part in pretraining.losses(gpt, 2, micro=2, dtype=torch.float32):
        numbers = {name: numbers.get(name, 0.0) + part.get(name, 0.0) for name in {*numbers, *part}}
    assert sum(rows.values()) == 8
    assert numbers["loss"] == pytest.approx(sum(numbers[f"loss.{name}"] * count / 8 for name, count in rows.items()))


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_a_step(make: Make, ranks: int) -> None:
    pretraining = steps(make)
    whole = {stream.name: examples.ids for stream, _, examples, _ in pretraining.parts(5)}
    shared: dict[str, list[np.ndarray[Any, Any]]] = {}
    for rank in range(ranks):
        for stream, _, examples, most in pretraining.parts(5, Ranks(rank, ranks)):
            assert most >= len(examples)
            if examples.documents.any():  # else it has none, and goes through the motions
                shared.setdefault(stream.name, []).append(examples.ids)
    assert whole.keys() == shared.keys()
    assert all((np.concatenate(shared[name]) == ids).all() for name, ids in whole.items())


def test_turns_by_step_have_one_stream_each(make: Make) -> None:
    pretraining = steps(make, turns="step")
    names = [[stream.name for stream, _, _, _ in pretraining.parts(step)] for step in range(40)]
    assert all(len(found) == 1 for found in names)
    assert {"masked", "generative"} == {found[0] for found in names}


def test_a_part_of_examples_is_rows_of_every_array() -> None:
    grid = np.arange(12).reshape(4, 3)
    part = Examples(grid, grid + 1, grid, grid, segments=grid, labels=np.arange(4)).part(1, 3)
    assert part.ids.tolist() == grid[1:3].tolist() and part.labels is not None and part.labels.tolist() == [1, 2] and part.source is None
