"""Scores beside sacrebleu, rouge_score and scikit-learn; SQuAD's published rules; intervals and tests by hand and by coverage."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.evaluate.benchmarks import scores
from norma.evaluate.benchmarks.intervals import change, estimate
from norma.evaluate.benchmarks.rows import Example, examples, filled
from norma.evaluate.benchmarks.run import _marks
from norma.evaluate.benchmarks.shots import calibrated, draw, prompt_of, usable
from norma.evaluate.benchmarks.task import TASKS, Task, read_tasks, tasks_of

SAID = ["the cat sat on the mat", "a dog barked at night", "it rains", "he went home early today"]
RIGHT = ["the cat sat on a mat", "the dog barked all night long", "it is raining", "he went home early"]


def total(rows: list[list[float]]) -> Any:
    return np.array(rows).sum(axis=0)


def test_bleu_and_chrf_of_summed_counts_are_sacrebleus() -> None:
    from sacrebleu.metrics import BLEU, CHRF

    ours = scores.bleu(total([scores.bleu_counts(a, [b]) for a, b in zip(SAID, RIGHT, strict=True)]))
    assert ours == pytest.approx(BLEU().corpus_score(SAID, [RIGHT]).score, abs=1e-9)
    ours = scores.chrf(total([scores.chrf_counts(a, [b]) for a, b in zip(SAID, RIGHT, strict=True)]))
    assert ours == pytest.approx(CHRF().corpus_score(SAID, [RIGHT]).score, abs=1e-9)


def test_two_references_and_chinese() -> None:
    from sacrebleu.metrics import BLEU

    zh, ref = "今天天气很好。", "今天天气真好。"
    ours = scores.bleu(np.array(scores.bleu_counts(zh, [ref], "zh-Hans")))
    assert ours == pytest.approx(BLEU(tokenize="zh").corpus_score([zh], [[ref]]).score, abs=1e-9)
    both = scores.bleu(np.array(scores.bleu_counts(SAID[0], [RIGHT[1], RIGHT[0]])))
    assert both == pytest.approx(BLEU().corpus_score([SAID[0]], [[RIGHT[1]], [RIGHT[0]]]).score, abs=1e-9)


def test_rouge_by_hand() -> None:
    pytest.importorskip("rouge_score")
    # the cat sat | the cat ran: 2 of 3 words on both sides; bigrams 1 of 2; longest common subsequence 2 of 3.
    found = scores.rouge_values("the cat sat", ["the cat ran"])
    assert found == pytest.approx({"rouge_1": 2 / 3, "rouge_2": 1 / 2, "rouge_l": 2 / 3})
    # 高效 | 高速 share one of two characters; English rules would see no word at all.
    assert scores.rouge_values("高效", ["高速"], "zh")["rouge_1"] == pytest.approx(0.5)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_macro_f1_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    right, said = zip(*pairs, strict=True)
    ours = scores.macro_f1(total([scores.label_counts(r, s, 4) for r, s in pairs]))
    theirs = metrics.f1_score(right, said, labels=sorted(set(right)), average="macro", zero_division=0.0)
    assert ours == pytest.approx(theirs)


@pytest.mark.parametrize(
    ("said", "right", "language", "exact", "f1"),
    [
        ("The Denver Broncos!", ["Denver Broncos"], "en", 1, 1),  # article, case, punctuation
        ("Denver", ["Denver Broncos"], "en", 0, 2 / 3),  # precision 1, recall 1/2
        ("a Denver team", ["x", "Denver Broncos"], "en", 0, 1 / 2),  # one of two words each way
        ("", [], "en", 1, 1),  # there is no answer, and none was given
        ("Denver", [], "en", 0, 0),
        ("日本香川", ["日本香川县"], "zh", 0, 8 / 9),  # 4 of 4 characters, 4 of 5
        ("《论语》", ["论语"], "zh", 1, 1),
        ("香川日本", ["日本香川"], "zh", 0, 1 / 2),  # CMRC counts the longest common run, two of four, and not the bag of characters
    ],
)
def test_answers_as_squad_marks_them(said: str, right: list[str], language: str, exact: float, f1: float) -> None:
    example = Example(id="1", cluster="1", prompt="", answers=tuple(right))
    task = Task(kind="answer", data="x", prompt="{question}", answer="{answers}", language=language)
    marks = _marks(task, said, example)
    assert marks == {"exact_match": scores.mean(exact), "f1": pytest.approx(scores.mean(f1))}


def test_a_ratio_by_hand() -> None:
    stats = np.array([[8.0, 4.0], [6.0, 2.0]])  # 14 bits of 6 bytes
    found = estimate(scores.SCORES["bits_per_byte"], stats, ["a", "b"])
    assert found.value == pytest.approx(14 / 6)
    assert (found.low, found.high) == (2.0, 3.0)  # every draw of two clusters lies between both alone
    assert scores.SCORES["perplexity"].of(np.array([math.log(8), 3.0])) == pytest.approx(2.0)


def test_accuracy_is_wilsons() -> None:
    stats = np.array([scores.mean(v) for v in [1] * 7 + [0] * 3])
    found = estimate(scores.SCORES["accuracy"], stats, [str(i) for i in range(10)])
    assert (found.low, found.high) == pytest.approx((0.3968, 0.8922), abs=1e-4)  # 7 of 10, Wilson 1927


def test_randomisation_by_hand() -> None:
    """Three clusters, B better in each by the same: of the 8 exchanges two are as extreme."""
    before, after = np.array([[4.0, 1.0]] * 3), np.array([[3.0, 1.0]] * 3)
    found = change(scores.SCORES["bits_per_byte"], before, after, ["a", "b", "c"])
    assert found.p == pytest.approx(2 / 8)
    assert found.delta == -1.0
    same = change(scores.SCORES["bits_per_byte"], before, before, ["a", "b", "c"])
    assert (same.delta, same.p) == (0.0, 1.0)


def test_rows_of_one_source_count_as_one() -> None:
    before, after = np.array([[4.0, 1.0]] * 4), np.array([[3.0, 1.0]] * 4)
    assert change(scores.SCORES["bits_per_byte"], before, after, ["a", "a", "b", "b"]).p == pytest.approx(2 / 4)
    one = change(scores.SCORES["accuracy"], np.array([[0.0, 1.0]] * 4), np.array([[1.0, 1.0]] * 4), list("abcd"))
    assert one.p == pytest.approx(2 / 16) and one.test == "tango+mcnemar"


@pytest.mark.slow
def test_randomisation_holds_its_level() -> None:
    random, hits = np.random.default_rng(3), 0
    for _ in range(200):
        base = random.normal(10, 1, (30, 1))
        made = [np.concatenate([base + random.normal(0, 0.3, (30, 1)), np.ones((30, 1))], axis=1) for _ in range(2)]
        hits += change(scores.SCORES["bits_per_byte"], *made, [str(i) for i in range(30)]).p <= 0.05
    assert hits <= 20  # 10 are expected; more than 20 have a chance of 0.2%


def test_calibration_by_hand() -> None:
    # The model says 0.8 to 0.2 here, but 0.9 to 0.1 of nothing at all: 0.8/0.9 : 0.2/0.1 = 0.889 : 2.
    nats, free = [-math.log(0.8), -math.log(0.2)], [[-math.log(0.9), -math.log(0.1)]]
    assert calibrated(nats, free) == pytest.approx([0.8 / 0.9 / (0.8 / 0.9 + 2), 2 / (0.8 / 0.9 + 2)])
    assert calibrated(nats, [[1.0, 1.0]]) == pytest.approx([0.8, 0.2])  # nothing to divide out


def shot(i: int) -> Example:
    return Example(str(i), str(i), f"q{i}:", (f"a{i}",))


def test_examples_come_from_training_rows_and_are_never_asked() -> None:
    train, test = [shot(i) for i in range(10)], [shot(3), shot(20)]
    left = usable(train, test)
    assert [e.id for e in left] == [str(i) for i in range(10) if i != 3]
    first = draw(left, test[0], 4, seed=1)
    assert first == draw(left, test[0], 4, seed=1) != draw(left, test[1], 4, seed=1)
    assert len({e.id for e in first}) == 4
    with pytest.raises(NormaError, match="16 examples are asked for, and there are 9"):
        draw(left, test[0], 16, seed=1)


def test_a_short_context_holds_fewer_examples() -> None:
    chosen = [shot(1), shot(2), shot(3)]
    assert prompt_of(shot(9), chosen, "|", lambda text: True).text == "q1: a1|q2: a2|q3: a3|q9:"
    made = prompt_of(shot(9), chosen, "|", lambda text: len(text) <= 11)
    assert (made.text, made.shots, made.cut) == ("q3: a3|q9:", 1, False)
    assert prompt_of(shot(9), chosen, "|", lambda text: False).cut


def test_a_column_is_never_read_as_a_template() -> None:
    assert filled("{a} {b}", {"a": "{b}", "b": "x"}, "") == "{b} x"
    with pytest.raises(NormaError, match="no column 'c'"):
        filled("{c}", {"a": 1}, "f:1")


def test_rows_of_tables_lines_and_squad(tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text("good film\t1\nbad film\t0\n", encoding="utf-8")
    task = tasks_of(["sst2"], data=[f"sst2={tmp_path}"])["sst2"]
    found = examples(task, "sst2", "test")
    assert [e.shown for e in found] == ["Review: good film\nSentiment: positive", "Review: bad film\nSentiment: negative"]
    with pytest.raises(NormaError, match="no training rows"):
        examples(task, "sst2", "train")
    paragraphs = [{"context": "C", "qas": [{"id": "1", "question": "Q?", "answers": [{"text": "A"}]}, {"id": "2", "question": "R?"}]}]
    (tmp_path / "s.json").write_text(json.dumps({"data": [{"title": "T", "paragraphs": paragraphs}]}), encoding="utf-8")
    found = examples(tasks_of(["squad"], data=[f"squad={tmp_path}/s.json"])["squad"], "squad", "test")
    assert [(e.prompt, e.answers, e.cluster) for e in found] == [
        ("C\nQuestion: Q?\nAnswer:", ("A",), "0.0"),
        ("C\nQuestion: R?\nAnswer:", (), "0.0"),
    ]


def test_multiple_choice_by_columns(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"question": "2+2?", "a": "3", "b": "4", "label": 1}\n', encoding="utf-8")
    task = Task(kind="choice", data=str(tmp_path / "m.jsonl"), prompt="{question}", choices=["a", "b"])
    (found,) = examples(task, "m", "test")
    assert (found.choices, found.right) == ((" 3", " 4"), 1)


def test_a_file_of_tasks(tmp_path: Path) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text(
        'tasks:\n  mine: {kind: choice, data: rows.jsonl, prompt: "{q}", choices: {"y": " yes", "n": " no"}}\n', encoding="utf-8"
    )
    mine = read_tasks(path)["mine"]
    assert mine.data == str(tmp_path / "rows.jsonl")
    path.write_text("tasks: {mine: {kind: choice, promt: x}}\n", encoding="utf-8")
    with pytest.raises(NormaError, match="prompt"):
        read_tasks(path)


def test_wrong_names_say_what_to_do() -> None:
    with pytest.raises(NormaError, match="Did you mean 'sst2'"):
        tasks_of(["sst"])
    with pytest.raises(NormaError, match="--data blimp=PATH"):
        tasks_of(["blimp"])
    with pytest.raises(NormaError, match="is not NAME=PATH"):
        tasks_of(["blimp"], data=["blimp"])
    assert set(TASKS) >= {"perplexity", "blimp", "sst2", "ag_news", "xquad"}
