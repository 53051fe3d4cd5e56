"""``norma evaluate`` and ``norma compare`` with tiny models: likelihoods by a loop, nothing asked twice, one page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from norma.base.errors import NormaError
from norma.evaluate.benchmarks import Task, compare_results, evaluate
from norma.evaluate.benchmarks.run import How
from norma.evaluate.benchmarks.subject import Asked, LocalSubject, joined
from norma.evaluate.compare import compare
from norma.evaluate.reading import continuation_scores, rolling_windows
from norma.evaluate.sampling import LocalAnswerer, Options
from norma.lm import LanguageModel
from norma.spec import Item, Message, Spec
from norma.train.scoring import Group

Make = Callable[..., LanguageModel]
ROWS = [{"q": "What does math do", "l": "y"}, {"q": "It rounds", "l": "n"}, {"q": "time sleep", "l": "y"}]
SPEC = """
norma: 1
spec: {id: s, version: "1", source_language: en, languages: [en]}
rules:
- id: stop
  statement: {en: "<b>Stop.</b>"}
  checkers: [{id: program, kind: program, use: ends_with_stop, roles: [train, report]}]
"""


def by_hand(model: LanguageModel, context: list[int], answer: list[int]) -> float:
    log_p = model.logits(torch.tensor([context + answer]))[0].double().log_softmax(-1)
    return float(sum(log_p[len(context) - 1 + i, token] for i, token in enumerate(answer)))


@pytest.fixture
def tasks(tmp_path: Path) -> dict[str, Task]:
    for side in ("test", "train"):
        rows = ROWS if side == "test" else [{"q": f"row {i}", "l": "yn"[i % 2]} for i in range(8)]
        (tmp_path / f"{side}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    data = str(tmp_path / "test.jsonl")
    return {
        "yes": Task(kind="choice", data=data, prompt="{q}?", answer="{l}", choices={"y": " yes", "n": " no way"}, separator="|"),
        "copy": Task(kind="text", data=data, prompt="{q}", answer="{q}", new_tokens=6, scores=["bleu", "chrf"]),
        "answer": Task(kind="answer", data=data, prompt="{q}", answer="{l}", new_tokens=6),
        "lm": Task(kind="language", data=str(texts(tmp_path))),
    }


def texts(folder: Path) -> Path:
    path = folder / "texts" / "lm.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": r["q"]}) + "\n" for r in ROWS), encoding="utf-8")
    return path


def test_choices_by_a_loop(make_model: Make) -> None:
    model = make_model(3)
    encode = model.tokenizer.encode
    (found,) = LocalSubject(model, "w").choice_nats([Asked("What does", (" yes", " no way"))])
    begin = [] if model.tokenizer.bos_id is None else [model.tokenizer.bos_id]
    before = encode("What does")
    for nats, choice in zip(found, (" yes", " no way"), strict=True):
        assert nats == pytest.approx(-by_hand(model, begin + before, encode("What does" + choice)[len(before) :]), abs=1e-4)


def test_prompts_that_begin_alike_are_read_together_with_the_same_numbers(make_model: Make) -> None:
    model = make_model(3)
    shown, choices = "time sleep yes|What does math do no|It rounds yes|", (" yes", " no way")
    asked = [Asked(shown + question, choices) for question in ("It writes text", "N/A", "")]
    apart = [LocalSubject(model, "w").choice_nats([one])[0] for one in [*asked, Asked("math", choices)]]
    together = LocalSubject(model, "w").choice_nats([*asked, Asked("math", choices)])
    for one, other in zip(apart, together, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    groups = [Group([1, 2, 3, 4, 5, 6, 7, k], [[8, 9], [9]]) for k in range(3)]
    ((both, members), (last, alone)) = joined([*groups, Group([7, 7], [[1]])])
    assert (members, alone, list(last.prompt)) == ([0, 1, 2], [3], [7, 7])
    assert list(both.prompt) == [1, 2, 3, 4, 5, 6, 7] and both.answers[:3] == [[0, 8, 9], [0, 9], [1, 8, 9]]
    assert len(joined([Group([1, 2, 3, 4], [[5]] * 9), Group([1, 3, 3, 4], [[5]] * 9)])) == 2, "it would be more tokens"


def test_continuations_by_a_loop(make_model: Make) -> None:
    model = make_model(4)
    pairs = [([5, 6, 7], [8, 9]), ([5], [6]), ([9, 9, 9, 9], [1, 2, 3, 4, 5])]
    for (context, answer), got in zip(pairs, continuation_scores(model, pairs), strict=True):
        assert got.log_p == pytest.approx(by_hand(model, context, answer), abs=1e-4)
        best = model.logits(torch.tensor([context + answer]))[0].argmax(-1).tolist()
        assert got.greedy == (best[len(context) - 1 : -1] == answer)
    long = list(range(5, 95)) + list(range(5, 30))  # 115 tokens where 96 are read: the last 96 before the end
    (got,) = continuation_scores(model, [(long, [7])])
    assert got.log_p == pytest.approx(by_hand(model, long[-96:], [7]), abs=1e-4)


def test_windows_foretell_every_token_once() -> None:
    # The example in lm-evaluation-harness's documentation of loglikelihood_rolling.
    found = list(rolling_windows(list(range(10)), 99, 4))
    assert found == [([99], [0, 1, 2, 3]), ([3], [4, 5, 6, 7]), ([5, 6, 7], [8, 9])]
    assert list(rolling_windows([], 99, 4)) == []
    assert list(rolling_windows([1, 2], 99, 4)) == [([99], [1, 2])]


def test_an_evaluation_and_its_second_run(make_model: Make, tasks: dict[str, Task], tmp_path: Path, monkeypatch: Any) -> None:
    subject, folder = LocalSubject(make_model(5), "w5"), tmp_path / "out"
    how = How(shots=(0, 2), calibrate=True)
    first = evaluate(subject, tasks, folder, how)
    names = [(t["task"], t["shots"], [s["score"] for s in t["scores"]]) for t in first["tasks"]]
    assert names == [
        ("yes", 0, ["accuracy", "accuracy_per_byte", "macro_f1", "accuracy_calibrated"]),
        ("yes", 2, ["accuracy", "accuracy_per_byte", "macro_f1", "accuracy_calibrated"]),
        ("copy", 0, ["bleu", "chrf"]),
        ("copy", 2, ["bleu", "chrf"]),
        ("answer", 0, ["exact_match", "f1"]),
        ("answer", 2, ["exact_match", "f1"]),
        ("lm", 0, ["bits_per_byte", "perplexity"]),
    ]
    # A kill in the middle of a line, and everything is taken from the files: the model is not asked for a thing it has said.
    journal = folder / "answers" / "yes.2.choices.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-25])
    asked: list[int] = []
    plain = LocalSubject.choice_nats
    monkeypatch.setattr(LocalSubject, "choice_nats", lambda self, a: (asked.append(len(a)), plain(self, a))[1])
    monkeypatch.setattr(LocalSubject, "text_nats", lambda self, a: pytest.fail("asked twice"))
    monkeypatch.setattr(LocalAnswerer, "answer", lambda *a: pytest.fail("asked twice"))
    assert evaluate(subject, tasks, folder, how) == first
    assert asked == [1]
    for again, row in zip(journal.read_bytes().splitlines(), whole.splitlines(), strict=True):
        now, before = json.loads(again), json.loads(row)
        # fp32 sums depend, in their last bits and on some processors, on how many rows are multiplied together: here one was asked alone.
        assert now["key"] == before["key"] and np.ravel(now["value"]) == pytest.approx(np.ravel(before["value"]), rel=1e-6)


def test_a_context_too_short_is_said(make_model: Make, tasks: dict[str, Task], tmp_path: Path) -> None:
    subject = LocalSubject(make_model(5, max_positions=40), "w")
    found = evaluate(subject, {"yes": tasks["yes"]}, tmp_path / "o", How(shots=(8,)))
    (note,) = found["tasks"][0]["notes"]
    assert note.startswith("3 of 3 rows had fewer than 8 examples (at least ")


def test_paired_results(make_model: Make, tasks: dict[str, Task], tmp_path: Path) -> None:
    for seed in (5, 6):
        evaluate(LocalSubject(make_model(seed), f"w{seed}"), tasks, tmp_path / str(seed))
    found = compare_results(tmp_path / "5", tmp_path / "6")
    main = [row for row in found if row["main"]]
    assert [row["task"] for row in main] == ["yes", "copy", "answer", "lm"]
    assert all(row["p_holm"] >= row["p"] for row in main) and all(row["p_holm"] is None for row in found if not row["main"])
    for row in compare_results(tmp_path / "5", tmp_path / "5"):
        assert (row["delta"], row["p"]) == (0.0, 1.0)
    with pytest.raises(NormaError, match="share no row"):
        rows = (tmp_path / "6" / "rows" / "yes.0.jsonl").read_text(encoding="utf-8")
        (tmp_path / "6" / "rows" / "yes.0.jsonl").write_text(
            rows.replace('"id": "', '"id": "x').replace('"id":"', '"id":"x'), encoding="utf-8"
        )
        compare_results(tmp_path / "5", tmp_path / "6")


def test_the_page_of_two_models(make_model: Make, tasks: dict[str, Task], tmp_path: Path) -> None:
    spec_path = tmp_path / "s.yaml"
    spec_path.write_text(SPEC, encoding="utf-8")
    items = [
        Item(f"i{i}", (Message(role="user", content=f"{r['q']} <script>alert(1)</script>"),), language="en") for i, r in enumerate(ROWS)
    ]
    models = [make_model(seed) for seed in (5, 6)]
    models[1].name = "<i>other</i>"
    subjects = tuple(LocalSubject(m, f"w{i}") for i, m in enumerate(models))
    writers = tuple(LocalAnswerer(m, Options(max_new_tokens=5), f"w{i}") for i, m in enumerate(models))
    how: dict[str, Any] = {"answerers": writers, "items": items, "spec": Spec.load(spec_path), "tasks": {"lm": tasks["lm"]}}
    found = compare(subjects, tmp_path / "out", **how)  # type: ignore[arg-type]
    page = (tmp_path / "out" / "compare.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "<i>other" not in page and "<b>Stop" not in page
    assert "http://" not in page and "https://" not in page and 'src="' not in page
    assert page.count('class="pair"') == 3 and "逐条规则" in page and "Rule by rule" in page
    assert [a["sides"][0]["verdicts"][0]["rule"] for a in found["answers"]] == ["stop"] * 3
    assert found["rules"][0]["rule"] == "stop" and found["tasks"][0]["task"] == "lm"
    assert compare(subjects, tmp_path / "out", **how) == found  # type: ignore[arg-type]
    plain = compare(subjects, tmp_path / "plain", answerers=writers, items=items)  # type: ignore[arg-type]
    assert [a["sides"][0]["text"] for a in plain["answers"]] == [a["sides"][0]["text"] for a in found["answers"]]
    with pytest.raises(NormaError, match="nothing to compare"):
        compare(subjects, tmp_path / "none", answerers=writers)  # type: ignore[arg-type]


def test_the_commands(make_model: Make, tasks: dict[str, Task], tmp_path: Path, capsys: Any) -> None:
    from norma.cli.app import invoke

    for seed in (5, 6):
        make_model(seed).save(tmp_path / f"m{seed}")
    line = ["--tasks", "perplexity", "--data", f"perplexity={tasks['lm'].data}"]
    assert invoke(["evaluate", str(tmp_path / "m5"), *line, "--out", str(tmp_path / "e5")]) == 0
    assert "bits per byte" in capsys.readouterr().out
    assert invoke(["evaluate", str(tmp_path / "m6"), *line, "--out", str(tmp_path / "e6"), "--baseline", str(tmp_path / "e5")]) == 0
    assert "compared with the baseline" in capsys.readouterr().out
    assert invoke(["compare", str(tmp_path / "m5"), str(tmp_path / "m6"), *line, "--out", str(tmp_path / "c")]) == 0
    assert (tmp_path / "c" / "compare.html").is_file()
    with pytest.raises(NormaError, match="same model"):
        invoke(["compare", str(tmp_path / "m5"), str(tmp_path / "m5"), *line, "--out", str(tmp_path / "d")])
    with pytest.raises(NormaError, match="likelihoods"):
        invoke(["evaluate", "http://127.0.0.1:9/v1#x", *line, "--out", str(tmp_path / "f")])
    with pytest.raises(NormaError, match="0,1,4,16"):
        invoke(["evaluate", str(tmp_path / "m5"), *line, "--shots", "few"])
