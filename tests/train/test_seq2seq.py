"""Streams of two stacks: rows against slow loops, packed documents against separate ones, and each is learnt."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from norma.base.errors import NormaError
from norma.base.progress import Silent
from norma.base.ranks import Ranks
from norma.nn import Transformer, preset
from norma.objectives.denoising import Noise
from norma.objectives.spans import fitting
from norma.text.chat import prompt_ids, training_row
from norma.text.packing import IGNORE, Batches, Rows
from norma.text.sequences import Sequences
from norma.text.shards import Shards
from norma.text.tokenise import tokenise
from norma.text.tokenizer import Tokenizer, train_tokenizer
from norma.train.examples import Examples, examples_loss
from norma.train.scoring import Group, answer_logprobs
from norma.train.seq2seq import Denoising, GivenPairs, Spans, answering, padded, shifted
from norma.train.step import Leash, language_losses

TEXTS = [
    f"The {colour} {animal} sat by the river. It saw {n} stones. It went home."
    for colour in ("red", "grey")
    for animal in ("fox", "otter")
    for n in (2, 7)
]
LENGTH = 40


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 420, ("masked", "spans"))


@pytest.fixture(scope="module")
def shards(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("shards") / "train"
    tokenise(TEXTS, tokenizer, folder, workers=1, progress=Silent())
    return Shards(folder)


def spans(tokenizer: Tokenizer, shards: Shards) -> Spans:
    lengths = fitting(LENGTH)
    assert tokenizer.eos_id is not None
    sequences = Sequences(shards, length=lengths.raw, seed=3)
    return Spans(sequences, lengths, tokenizer.objective_tokens("spans"), tokenizer.pad_id, tokenizer.eos_id, seed=5)


def denoising(tokenizer: Tokenizer, shards: Shards) -> Denoising:
    assert tokenizer.eos_id is not None
    mask = tokenizer.objective_tokens("masked")[0]
    return Denoising(Sequences(shards, length=LENGTH, seed=3), Noise(), mask, tokenizer.eos_id, seed=5)


def model(family: str, tokenizer: Tokenizer) -> Transformer:
    made = Transformer(preset(family, vocab_size=len(tokenizer), width=32, layers=2, head_size=16, max_positions=96)).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.2, generator=random)
    return made


def test_span_rows_fill_their_shapes_and_hold_the_text(tokenizer: Tokenizer, shards: Shards) -> None:
    stream = spans(tokenizer, shards)
    numbers = np.arange(len(stream) + 3)
    examples, packed = stream.rows(numbers, 0), stream.sequences.rows(numbers)
    assert examples.source is not None and examples.source_documents is not None
    assert examples.source.shape == (len(numbers), LENGTH) and examples.targets.shape[1] == stream.lengths.target
    assert (examples.documents == 1).all() and (examples.source_documents == 1).all() and (examples.targets != IGNORE).all()
    assert (examples.ids[:, 0] == tokenizer.pad_id).all() and (examples.ids[:, 1:] == examples.targets[:, :-1]).all()
    marks = set(stream.sentinels)
    for source, target, ids, documents in zip(examples.source, examples.targets, packed.ids, packed.documents, strict=True):
        hidden: dict[int, list[int]] = {}
        for token in target[:-1].tolist():
            if token in marks:
                hidden[token] = []
                last = token
            else:
                hidden[last].append(token)
        back = [t for token in source[:-1].tolist() for t in (hidden[token] if token in marks else [token])]
        assert back == np.resize(ids[documents > 0], stream.lengths.raw).tolist()


def test_denoised_documents_keep_their_numbers(tokenizer: Tokenizer, shards: Shards) -> None:
    stream = denoising(tokenizer, shards)
    numbers = np.arange(len(stream))
    examples, packed = stream.rows(numbers, 0), stream.sequences.rows(numbers)
    assert examples.source is not None and examples.source_documents is not None
    assert (examples.source_documents.max(axis=1) == packed.documents.max(axis=1)).all()
    for b in range(len(numbers)):
        for document in range(1, int(packed.documents[b].max()) + 1):
            here, read = packed.documents[b] == document, examples.source_documents[b] == document
            stays = [t for t in examples.source[b, read].tolist() if t != stream.mask]
            assert not set(stays) - set(packed.ids[b, here].tolist()) and read.sum() <= here.sum()
            assert examples.targets[b, here].tolist() == packed.ids[b, here].tolist()
            assert examples.ids[b, here].tolist() == [stream.start, *packed.ids[b, here][:-1].tolist()]
    assert (examples.source == stream.mask).any()


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_packed_documents_equal_separate_ones(family: str, tokenizer: Tokenizer, shards: Shards) -> None:
    network, examples = model(family, tokenizer), denoising(tokenizer, shards).rows(np.arange(4), 0)
    assert examples.source is not None and examples.source_documents is not None
    total = 0.0
    for b in range(4):
        for document in range(1, int(examples.documents[b].max()) + 1):
            here, read = examples.documents[b] == document, examples.source_documents[b] == document
            memory = network.encode(torch.from_numpy(examples.source[b : b + 1, read]))
            scores = network.logits(network.hidden(torch.from_numpy(examples.ids[b : b + 1, here]), memory=memory))
            total += F.cross_entropy(scores[0], torch.from_numpy(examples.targets[b, here]), reduction="sum").item()
    with torch.no_grad():
        assert examples_loss(network, examples, torch.float32).nats == pytest.approx(total, rel=1e-5)


def pairs_file(folder: Path, rows: list[dict[str, object]]) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_given_pairs(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows: list[dict[str, object]] = [{"source": "red fox", "target": "grey"}, {"source": "", "target": "nothing"}]
    rows.append({"source": "x" * 90, "target": "y"})
    rows.append({"messages": [{"role": "user", "content": "stones?"}, {"role": "assistant", "content": "7"}]})
    stream = GivenPairs.read(pairs_file(tmp_path, rows), tokenizer, length=30, start=0, seed=1)
    assert len(stream) == 2 and stream.left_out == 2
    examples = stream.rows(np.arange(6), 0)
    assert examples.source is not None and examples.source_documents is not None
    said = []
    for b in range(6):
        read, here = examples.source_documents[b] > 0, examples.documents[b] > 0
        said.append((tokenizer.decode(examples.source[b, read].tolist()), tokenizer.decode(examples.targets[b, here].tolist())))
        assert examples.ids[b, here].tolist() == [0, *examples.targets[b, here][:-1].tolist()]
        assert (examples.targets[b, ~here] == IGNORE).all() and examples.targets[b, here][-1] == tokenizer.eos_id
    for epoch in range(3):
        assert sorted(said[2 * epoch : 2 * epoch + 2]) == [("red fox", "grey"), ("stones?", "7")]
    with pytest.raises(NormaError, match="no pair of texts fits into 2 tokens"):
        GivenPairs.read(pairs_file(tmp_path, rows), tokenizer, length=2, start=0, seed=1)
    with pytest.raises(NormaError, match="row 2"):
        GivenPairs.read(pairs_file(tmp_path, [rows[0], {"text": "alone"}]), tokenizer, length=30, start=0, seed=1)


def test_padding_of_either_side_costs_nothing(tokenizer: Tokenizer) -> None:
    network = model("t5", tokenizer)
    sources, targets = [np.arange(20, 25), np.arange(30, 42)], [np.arange(40, 49), np.arange(50, 53)]

    def examples(which: list[int]) -> Examples:
        source, read = padded([sources[i] for i in which], 0)
        target, documents = padded([targets[i] for i in which], IGNORE)
        ids = shifted(np.where(documents > 0, target, 0), documents, 0)
        positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape).copy()
        return Examples(ids, target, documents, positions, source=source, source_documents=read)

    with torch.no_grad():
        together = examples_loss(network, examples([0, 1]), torch.float32).nats
        alone = sum(examples_loss(network, examples([i]), torch.float32).nats for i in (0, 1))
    assert together == pytest.approx(alone, rel=1e-5)
    assert examples([0, 1]).tokens == 5 + 12 + 9 + 3


@pytest.mark.parametrize(("family", "kind"), [("t5", "spans"), ("bart", "denoising")])
def test_a_small_model_learns_it(family: str, kind: str, tokenizer: Tokenizer, shards: Shards) -> None:
    """What a text of the corpus hides is soon known: nats a target fall to a third of what a fresh model has."""
    stream = spans(tokenizer, shards) if kind == "spans" else denoising(tokenizer, shards)
    config = preset(family, vocab_size=len(tokenizer), width=64, layers=2, head_size=32, max_positions=96)
    network = Transformer(config).initialise(torch.Generator().manual_seed(0)).eval()
    optimiser, losses = torch.optim.AdamW(network.parameters(), lr=3e-3), []
    for step in range(120):
        examples = stream.rows(np.arange(8 * step, 8 * step + 8), step)
        loss = examples_loss(network, examples, torch.float32).minimised / examples.predicted
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < losses[0] / 3, losses[::10]


def test_pairs_of_like_length_stand_together(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """Every epoch has each pair once, in groups that need less padding; the loss of a part is that of its rows with their padding."""
    rows = [{"source": f"{i} " + "word " * (i % 23), "target": "word " * (i % 23) + str(i)} for i in range(300)]
    file = pairs_file(tmp_path, rows)
    plain, grouped = (GivenPairs.read(file, tokenizer, length=200, start=0, seed=1, by_length=flag) for flag in (False, True))
    waste = {}
    for stream in (plain, grouped):
        for epoch in (0, 1):
            numbers = np.arange(epoch * len(stream), (epoch + 1) * len(stream))
            seen = [stream._pair(*divmod(int(n), len(stream))) for n in numbers]
            assert sorted(seen) == list(range(len(stream)))
        parts = [stream.rows(np.arange(i, i + 64), 0) for i in range(0, 256, 64)]
        waste[stream.by_length] = sum(p.source.size + p.ids.size for p in parts if p.source is not None) / sum(p.tokens for p in parts)
    assert waste[True] < 0.8 * waste[False]
    again = GivenPairs.read(file, tokenizer, length=200, start=0, seed=1, by_length=True)
    assert (grouped.rows(np.arange(5), 0).ids == again.rows(np.arange(5), 9).ids).all()


def test_a_part_leaves_padding_out(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [{"source": "word " * n, "target": "word " * n} for n in (2, 3, 40)]
    whole = GivenPairs.read(pairs_file(tmp_path, rows), tokenizer, length=200, start=0, seed=1).rows(np.arange(3), 0)
    longest = int((whole.documents > 0).sum(axis=1).argmax())
    short = [i for i in range(3) if i != longest]
    part = whole.part(short[0], short[0] + 1)
    assert part.source is not None and part.ids.shape[1] <= 16 and part.source.shape[1] <= 16
    assert part.predicted == int((whole.targets[short[0]] != IGNORE).sum())


# ── conversations ──
TALKS = [
    [{"role": "user", "content": "stones?"}, {"role": "assistant", "content": "7"}],
    [{"role": "user", "content": "fox?"}, {"role": "assistant", "content": "red"}, {"role": "user", "content": "and?"},
     {"role": "assistant", "content": "the river"}],
    [{"role": "user", "content": "The grey otter, where did it go?"}, {"role": "assistant", "content": "home"}],
]  # fmt: skip


def talked(tokenizer: Tokenizer) -> tuple[Batches, list[Group]]:
    """The conversations packed, and the same as prompts and answers: of two answers the second is behind the first."""
    batches = Batches(Rows.build((training_row(tokenizer, talk) for talk in TALKS), 48), length=48, size=2, seed=0, pad=tokenizer.pad_id)
    groups = []
    for talk in TALKS:
        for turn in range(1, len(talk), 2):
            assert tokenizer.eos_id is not None
            groups.append(Group(prompt_ids(tokenizer, talk[:turn]), [[*tokenizer.encode(talk[turn]["content"]), tokenizer.eos_id]]))
    return batches, groups


def test_the_encoder_reads_what_stands_before_each_answer(tokenizer: Tokenizer) -> None:
    batches, groups = talked(tokenizer)
    found = []
    for step in range(batches.steps_per_epoch):
        made = answering(batches[step], 3)
        assert made.source is not None and made.source_documents is not None
        for b in range(len(made)):
            for document in range(1, int(made.documents[b].max()) + 1):
                here, read = made.documents[b] == document, made.source_documents[b] == document
                found.append((made.source[b, read].tolist(), made.targets[b, here].tolist()))
                assert made.ids[b, here].tolist() == [3, *made.targets[b, here][:-1].tolist()]
                assert made.positions[b, here].tolist() == list(range(int(here.sum())))
        assert made.predicted == int((batches[step].targets != IGNORE).sum()) and (made.targets[made.documents == 0] == IGNORE).all()
    assert sorted(found) == sorted((list(g.prompt), list(g.answers[0])) for g in groups)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_two_stacks_learn_conversations(family: str, tokenizer: Tokenizer) -> None:
    """The loss of a packed batch is the mean of -log p of the answers behind their prompts, however it is cut."""
    network, (batches, groups) = model(family, tokenizer), talked(tokenizer)
    network.start_id = tokenizer.pad_id
    assert batches.steps_per_epoch == 1 and len(batches[0].ids) == 2
    wanted = -float(answer_logprobs(network, groups, dtype=torch.float32)[0].detach().mean())

    def gradient(micro: int, ranks: Ranks) -> tuple[float, dict[str, torch.Tensor]]:
        network.zero_grad()
        numbers = 0.0
        for loss, part in language_losses(network, batches, 0, micro=micro, dtype=torch.float32, ranks=ranks):
            loss.backward()  # type: ignore[no-untyped-call]
            numbers += part["loss"]
        return numbers, {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}

    loss, whole = gradient(16, Ranks())
    assert loss == pytest.approx(wanted, rel=1e-5) and any(n.startswith("encoder.") and g.any() for n, g in whole.items())
    for micro, count in ((1, 1), (16, 2), (1, 3)):
        found = [gradient(micro, Ranks(rank, count)) for rank in range(count)]
        assert sum(f[0] for f in found) == pytest.approx(loss, rel=1e-5)
        for name, g in whole.items():
            torch.testing.assert_close(torch.stack([f[1][name] for f in found]).mean(dim=0), g, rtol=1e-4, atol=1e-5)
    leash = Leash(model(family, tokenizer), 2.0)
    (part, said), *_ = language_losses(network, batches, 0, micro=16, dtype=torch.float32, leash=leash)
    assert said["kl"] == pytest.approx(0.0, abs=1e-6) and float(part.detach()) == pytest.approx(loss, rel=1e-5)
