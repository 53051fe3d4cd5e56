"""The plane of reward and KL: estimates against exact enumeration, intervals against many repetitions, best-of-n against brute force."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from statistics import mean
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import norma
from norma.evaluate.frontier import Answer, Mean, Point, best_of, best_of_kl, efficient, mean_score, sample_answers, sequence_kl
from norma.evaluate.report.plane import plane_svg, plane_table
from norma.lm import LanguageModel
from norma.nn import Transformer, preset
from norma.pipeline.observe import Quiet
from norma.spec import Item, Message
from norma.text.chat import prompt_ids
from norma.text.tokenizer import train_tokenizer


def model(seed: int, tokenizer: Any) -> LanguageModel:
    config = preset("llama", vocab_size=len(tokenizer), width=32, layers=1, head_size=16, max_positions=128)
    transformer = Transformer(config).initialise(torch.Generator().manual_seed(seed))
    with torch.no_grad():
        transformer.embedding.weight *= 8  # far from uniform, so that two models differ by whole nats
    return LanguageModel(transformer.eval(), tokenizer)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(["a kind film and a dull film"] * 20, 262)


ITEMS = [Item(str(i), (Message(role="user", content=text),), cluster=str(i)) for i, text in enumerate(["a film", "dull", "kind of"])]


def exact_kl(policy: LanguageModel, reference: LanguageModel, ids: list[int], left: int) -> float:
    """KL of answers of at most ``left`` tokens, by the chain rule over every first token: slow, and without any sampling."""
    with torch.no_grad():
        p, q = (m.transformer(torch.tensor([ids]))[0, -1].double().log_softmax(0) for m in (policy, reference))
    here = float((p.exp() * (p - q)).sum())
    if left == 1:
        return here
    return here + sum(
        math.exp(float(p[t])) * exact_kl(policy, reference, [*ids, t], left - 1)
        for t in range(len(p))
        if t != policy.tokenizer.eos_id and float(p[t]) > -20  # rarer first tokens add less than 1e-8
    )


def test_the_kl_is_that_of_all_answers_enumerated(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, reference = model(1, tokenizer), model(2, tokenizer)
    true = mean(exact_kl(policy, reference, list(prompt_ids(tokenizer, i.messages)), 2) for i in ITEMS)
    items = [Item(f"{i.id}/{n}", i.messages) for n in range(150) for i in ITEMS]
    drawn = sample_answers(policy, reference, items, each=2, max_new_tokens=2, seed=5, dtype=torch.float32)
    assert len(drawn) == 900 and {a.tokens for a in drawn} <= {1, 2}
    found = sequence_kl(drawn)
    error = (found.high - found.low) / 2 / 1.96
    assert true > 0.5 and abs(found.value - true) < 3.5 * error, f"{found} against {true}"
    # k1 alone is as right, and wider: the control variate earns its keep.
    plain = mean_score(drawn, [a.logp - a.reference for a in drawn])
    assert abs(plain.value - true) < 3.5 * (plain.high - plain.low) / 2 / 1.96 and found.high - found.low <= plain.high - plain.low


def test_a_model_is_at_no_distance_from_itself(tokenizer: Any) -> None:
    same = model(1, tokenizer)
    drawn = sample_answers(same, same, ITEMS, each=4, max_new_tokens=6, seed=1, dtype=torch.float32)
    assert sequence_kl(drawn) == Mean(0.0, 0.0, 0.0)
    assert [a.item for a in drawn] == [i.id for i in ITEMS for _ in range(4)]
    again = sample_answers(same, same, ITEMS, each=4, max_new_tokens=6, seed=1, dtype=torch.float32)
    assert again == drawn


def answers(values: list[list[float]]) -> list[Answer]:
    """Answers with these differences of log-probabilities, one list a prompt."""
    return [Answer(str(i), "x", 3, True, v, 0.0, 0.0) for i, group in enumerate(values) for v in group]


def test_intervals_cover_as_often_as_they_say() -> None:
    """Prompts differ (deviation 1) and answers within them too (0.5): 400 repetitions with 12 prompts of two answers."""
    draw, inside, repetitions = np.random.default_rng(7), 0, 400
    for _ in range(repetitions):
        groups = [[2.0 + base + draw.normal(0, 0.5), 2.0 + base + draw.normal(0, 0.5)] for base in draw.normal(0, 1.0, 12)]
        found = sequence_kl(answers(groups))
        inside += found.low <= 2.0 <= found.high
    assert abs(inside / repetitions - 0.95) < 3.5 * math.sqrt(0.95 * 0.05 / repetitions)


def test_means_by_hand() -> None:
    # Means of prompts 1, 2, 3 -> 2; deviation 1, standard error 1/sqrt(3), t(2, 97.5%) = 4.30265
    found = mean_score(answers([[0, 0], [0], [0, 0, 0]]), [0.0, 2.0, 2.0, 3.0, None, 3.0])
    assert found.value == 2.0 and found.high == pytest.approx(2 + 4.302652729911275 / math.sqrt(3))
    alone = mean_score(answers([[0.0]]), [1.0])
    assert alone.value == 1.0 and alone.high == math.inf


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_best_of_n_is_the_mean_over_all_subsets(n: int) -> None:
    draw = random.Random(n)
    by, held = [[draw.random() for _ in range(5)] for _ in range(3)], [[draw.random() for _ in range(5)] for _ in range(3)]
    means = []
    for chosen_by, scored in zip(by, held, strict=True):
        subsets = list(itertools.combinations(range(5), n))
        means.append(mean(scored[max(subset, key=lambda i: chosen_by[i])] for subset in subsets))
    found = best_of(answers([[0.0] * 5] * 3), [v for g in by for v in g], [v for g in held for v in g], n)
    assert found.value == pytest.approx(mean(means))


def test_best_of_two_by_hand() -> None:
    """Of two answers worth 0 and 1 with equal odds the better is 1 in three of four cases; its KL is log 2 - 1/2."""
    assert best_of_kl(1) == 0.0 and best_of_kl(2) == pytest.approx(0.1931471805599453)
    # The policy "best of two" over two answers of odds 1/2: 1/4 and 3/4. Its KL to 1/2, 1/2 is 0.1308: log 2 - 1/2 is at least that.
    assert 0.25 * math.log(0.5) + 0.75 * math.log(1.5) <= best_of_kl(2)


def placed(method: str, strength: str, kl: float, reward: float) -> Point:
    return Point(method, strength, Mean(kl, kl - 0.1, kl + 0.1), Mean(reward, reward - 0.02, reward + 0.02), None, 100, 20.0)


def test_what_no_other_point_beats() -> None:
    points = [
        placed("a", "", 1.0, 0.5),
        placed("a", "", 2.0, 0.7),
        placed("b", "", 2.0, 0.6),
        placed("b", "", 3.0, 0.7),
        placed("c", "", 1.0, 0.5),
    ]
    assert efficient(points) == [True, True, False, False, True]


def test_the_picture_and_the_table_say_the_same() -> None:
    evil = "<b>&\"'"
    points = [
        placed("reference", "", 0.0, 0.5),
        placed("DPO", "0.1", 1.0, 0.62),
        placed("DPO", "0.5", 0.4, 0.55),
        placed(evil, "x", 3.0, 0.8),
    ]
    picture = ElementTree.fromstring(plane_svg(points, title=evil, judge="held-out reward"))
    circles = [e for e in picture.iter() if e.tag.endswith("circle")]
    assert len(circles) == 4 and evil in {e.text for e in picture.iter()}
    by_title = {str(c[0].text): float(str(c.get("cx"))) for c in circles}
    assert (
        by_title["DPO 0.5: KL 0.40 [0.30, 0.50] nats, reward 0.550 [0.530, 0.570]"]
        < by_title["DPO 0.1: KL 1.00 [0.90, 1.10] nats, reward 0.620 [0.600, 0.640]"]
    )
    names = sorted(float(str(e.get("y"))) for e in picture.iter() if e.get("class") == "name")
    assert all(b - a >= 15.9 for a, b in itertools.pairwise(names)), "names cover each other"
    table = plane_table(points, efficient(points))
    assert table["rows"][1] == ["DPO", "0.1", "1.00 [0.90, 1.10]", "0.620 [0.600, 0.640] *", "20.0"]
    nothing = Point("one", "", Mean(0.5, -math.inf, math.inf), Mean(0.5, -math.inf, math.inf), None, 1, 3.0)
    ElementTree.fromstring(plane_svg([nothing], title="t", judge="j"))


@pytest.mark.slow
def test_a_run_from_marked_texts_to_the_plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """openings, tokenizer, pretrain, sampled and frontier with a spec as reward and judge: what stands without the reward models."""
    import json

    monkeypatch.chdir(tmp_path)
    draw = random.Random(1)
    words = ["film", "plot", "actor", "scene", "story", "kind", "warm", "dull", "slow", "great", "bad", "good", "long", "end", "start"]
    rows = [{"label": draw.choice(["pos", "neg"]), "text": " ".join(draw.choice(words) for _ in range(24))} for _ in range(300)]
    (tmp_path / "reviews.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    (tmp_path / "spec.yaml").write_text(
        """norma: 1
spec: {id: kind, version: "1.0.0", source_language: en, languages: [en], license: CC0-1.0}
rules:
- id: style.kind
  statement: {en: Use no harsh words.}
  checkers:
  - {id: program, kind: program, use: regex, roles: [train, report], params: {pattern: "dull|bad|slow", expect: absent}}
  - {id: second, kind: program, use: regex, roles: [heldout], params: {pattern: "dull|bad", expect: absent}}
""", encoding="utf-8")  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(
        """norma: 1
name: toy
spec: spec.yaml
stages:
  openings: {kind: openings, path: reviews.jsonl, desirable: [pos], first: 4, next: 8, validation_share: 0.2}
  tokenizer: {kind: tokenizer, corpus: openings, vocab_size: 300}
  pretrain:
    kind: pretrain
    data: [{rows: openings/conversations.train.jsonl, trained: everything}]
    model: {preset: llama, width: 32, layers: 1, head_size: 16}
    sequence: 64
    batch: 8
    steps: 40
    train: {optimiser: adamw, learning_rate: 0.02}
    validation: openings/text.validation.jsonl
    validation_bytes: 2000
  samples: {kind: sampled, from: pretrain, questions: openings/conversations.train.jsonl, count: 30, answers: 4, max_new_tokens: 24}
  more: {kind: sft, from: pretrain, data: [{rows: openings/conversations.train.jsonl}], sequence: 64, batch: 8, steps: 20}
  frontier:
    kind: frontier
    reference: pretrain
    questions: openings/conversations.validation.jsonl
    count: 20
    max_new_tokens: 24
    best_of: [2, 4]
    best_of_answers: 4
    models: [{model: more, method: SFT, strength: 20 steps}]
""", encoding="utf-8")  # fmt: skip
    run = norma.run("recipe.yaml")
    folder = run.folder
    found = json.loads((folder / "frontier.json").read_text(encoding="utf-8"))["points"]
    assert [p["method"] for p in found] == ["reference", "SFT", "best of n", "best of n"]
    assert found[0]["kl"] == {"value": 0.0, "low": 0.0, "high": 0.0} and found[1]["kl"]["value"] > 0
    assert found[3]["trained"]["value"] >= found[2]["trained"]["value"] >= found[0]["trained"]["value"] - 0.15
    pairs = [json.loads(line) for line in (folder / "samples" / "pairs.train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert pairs and all(p["margin"] > 0 and p["chosen"] != p["rejected"] for p in pairs)
    halves = [{json.loads(line)["source"] for line in (folder / "openings" / f"marks.{h}.jsonl").read_text().splitlines()} for h in "ab"]
    held = {json.loads(line)["source"] for line in (folder / "openings" / "conversations.validation.jsonl").read_text().splitlines()}
    assert halves[0] and halves[1] and not (halves[0] & halves[1]) and not ((halves[0] | halves[1]) & held)
    ElementTree.parse(folder / "frontier.svg")
    before = run.stages["frontier"].content
    stopped = Stops()
    with pytest.raises(KeyboardInterrupt):
        norma.run("recipe.yaml", from_stage="frontier", observer=stopped)
    kept = folder / ".work" / "frontier" / "models" / "00.json"
    assert kept.is_file() and not (folder / ".work" / "frontier" / "frontier.json").exists()
    stamp = kept.stat().st_mtime_ns
    again = norma.run("recipe.yaml", from_stage="frontier")
    assert again.stages["frontier"].content == before, "a stopped frontier ends with the same bytes"
    assert (folder / "frontier" / "models" / "00.json").stat().st_mtime_ns == stamp, "and no model is asked twice"


class Stops(Quiet):
    """Ctrl-C after the first model."""

    def update(self, step: int, total: int, **numbers: float) -> None:
        raise KeyboardInterrupt
