"""Preference training by every method: equal to a loop, whatever the micro-batches, rows and ranks; what is read and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.align.compared import Row, answer_ids, mismatched, read_rows, refuse_overlap
from norma.align.comparison import Settings
from norma.align.preference import PreferenceTraining, in_order
from norma.align.preference_options import METHODS, Method, OnlineOptions, PairOptions
from norma.base.errors import NormaError
from norma.base.files import write_jsonl
from norma.base.progress import Silent
from norma.base.ranks import Ranks
from norma.lm import LanguageModel
from norma.spec import Item
from norma.text.chat import prompt_ids, render, training_row
from norma.text.tokenizer import CHAT_TEMPLATE, Tokenizer
from norma.train import TrainOptions, train
from norma.train.scoring import Group

Make = Callable[..., LanguageModel]
PAIRED = [m for m, facts in METHODS.items() if facts.paired]
SINGLE = [m for m, facts in METHODS.items() if not facts.paired]
FAST = TrainOptions(optimiser="adamw", learning_rate=3e-3, warmup=0, schedule="constant", checkpoint_seconds=1e9)


def pair(name: str, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    prompt = [{"role": "user", "content": f"What does `{name}` do?"}]
    return {"id": name, "source": name, "language": "en", "messages": prompt, "chosen": chosen, "rejected": rejected, **more}


def mark(name: str, answer: str, desirable: bool, **more: Any) -> dict[str, Any]:
    row = pair(name, answer, "")
    return {k: row[k] for k in ("id", "source", "language", "messages")} | {"answer": answer, "desirable": desirable, **more}


PAIRS = [pair(f"m.{c}{i}", "Certainly: it does." + c * i, "No!" + c * (7 - i)) for i, c in enumerate("abcdef")]
MARKS = [mark(f"m.{c}{i}", ("Certainly: it." if i % 2 else "No. ") + c * i, bool(i % 2), score=i / 7) for i, c in enumerate("abcdefg")]


def rows_of(model: LanguageModel, rows: list[dict[str, Any]], folder: Path, **how: Any) -> list[Row]:
    write_jsonl(folder / "rows.jsonl", rows)
    return read_rows(folder / "rows.jsonl", model.tokenizer, model.config, **how).rows


def made(make_model: Make, rows: list[dict[str, Any]], method: Method, folder: Path, seed: int = 0, **options: Any) -> PreferenceTraining:
    """Training of a model that has left its reference: the reference is model 1, the policy model 2."""
    policy = make_model(2, max_positions=160)
    how = PairOptions.model_validate({"pairs": len(rows), "micro_tokens": 8192, **options})
    said: dict[str, Any] = {"seed": seed, "dtype": torch.float32, "reference": make_model(1, max_positions=160)}
    return PreferenceTraining(policy, rows_of(policy, rows, folder), Settings.of(method, how), how, **said)


def logp(model: LanguageModel, prompt: list[int], answer: list[int]) -> list[float]:
    """log p of each token, one row by itself, in double precision from the logits."""
    log_p = model.logits(torch.tensor([[*prompt, *answer]]))[0].double().log_softmax(-1)
    return [float(log_p[len(prompt) + i - 1, token]) for i, token in enumerate(answer)]


def gradient(training: PreferenceTraining, step: int = 0, ranks: Ranks | None = None) -> tuple[torch.Tensor, dict[str, float]]:
    network = training.model.transformer
    network.zero_grad()
    sums: dict[str, float] = {}
    for loss, numbers in training.losses(step) if ranks is None else training.losses(step, network, ranks):
        loss.backward()  # type: ignore[no-untyped-call]
        for name, value in numbers.items():
            sums[name] = sums.get(name, 0.0) + value
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]), sums


# ── the losses ──
@pytest.mark.parametrize("method", PAIRED)
def test_pairs_by_a_loop(make_model: Make, tmp_path: Path, method: Method) -> None:
    training = made(make_model, PAIRS, method, tmp_path, likelihood=0.7, beta=0.2)
    policy, reference = training.model, make_model(1, max_positions=160)
    total = nats = tokens = wins = 0.0
    for row in PAIRS:
        prompt = prompt_ids(policy.tokenizer, row["messages"])
        sides = [answer_ids(policy.tokenizer, row[side]) for side in ("chosen", "rejected")]
        (w, v), (ref_w, ref_v) = ([sum(logp(who, prompt, a)) for a in sides] for who in (policy, reference))
        n, m = map(len, sides)
        if method in ("dpo", "cdpo"):
            p = 1 / (1 + math.exp(-0.2 * (w - ref_w - v + ref_v)))
            total += -math.log(p) if method == "dpo" else -0.9 * math.log(p) - 0.1 * math.log(1 - p)
            wins += w - ref_w > v - ref_v
        elif method == "ipo":
            total += ((w - ref_w) / n - (v - ref_v) / m - 1 / 0.4) ** 2
            wins += (w - ref_w) / n > (v - ref_v) / m
        elif method == "orpo":
            odds = [math.exp(x) / (1 - math.exp(x)) for x in (w / n, v / m)]
            total += 0.2 * math.log(1 + odds[1] / odds[0])
            wins += w / n > v / m
        else:
            total += math.log(1 + math.exp(-(0.2 * w / n - 0.2 * v / m - 1.0)))
            wins += w / n > v / m
        nats, tokens = nats - w, tokens + n
    _, numbers = gradient(training)
    assert numbers["loss"] == pytest.approx(total / len(PAIRS) + 0.7 * nats / tokens, rel=1e-4)
    assert numbers["pairs_correct"] == pytest.approx(wins / len(PAIRS))
    assert numbers["chosen_nats_per_token"] == pytest.approx(nats / tokens, rel=1e-4) and numbers["rejected_nats_per_token"] > 0


def test_marks_by_a_loop(make_model: Make, tmp_path: Path) -> None:
    """KTO with z0 of the whole batch, unlikelihood of tokens, weights by score."""
    policy, reference = make_model(2, max_positions=160), make_model(1, max_positions=160)
    rows = rows_of(policy, MARKS, tmp_path)
    both = [(r.group, r.desirable[0]) for r in rows]
    ratio = [sum(logp(policy, g.prompt, g.answers[0])) - sum(logp(reference, g.prompt, g.answers[0])) for g, _ in both]  # type: ignore[arg-type]
    apart = [
        sum(logp(policy, g.prompt, a)) - sum(logp(reference, g.prompt, a))  # type: ignore[arg-type]
        for g in mismatched(rows, 160)
        for a in g.answers
    ]
    z0 = max(0.0, sum(apart) / len(apart))
    good = sum(d for _, d in both)
    weight = {True: (len(both) - good) / good, False: 1.0}  # both kinds weigh the same
    wanted = sum(weight[d] * (1 - 1 / (1 + math.exp(-0.1 * (1 if d else -1) * (r - z0)))) for r, (_, d) in zip(ratio, both, strict=True))
    _, numbers = gradient(made(make_model, MARKS, "kto", tmp_path))
    assert numbers["loss"] == pytest.approx(wanted / len(both), rel=1e-4) and numbers["kl"] == pytest.approx(z0, rel=1e-4, abs=1e-4)

    nats, bad = ([-x for g, d in both if d is side for x in logp(policy, g.prompt, g.answers[0])] for side in (True, False))  # type: ignore[arg-type]
    away = sum(-math.log(1 - math.exp(-x)) for x in bad)
    _, numbers = gradient(made(make_model, MARKS, "unlikelihood", tmp_path, beta=0.5, likelihood=2.0))
    assert numbers["loss"] == pytest.approx(0.5 * away / len(bad) + 2 * sum(nats) / len(nats), rel=1e-4)
    _, numbers = gradient(made(make_model, MARKS, "sft", tmp_path))
    assert numbers["loss"] == pytest.approx(sum(nats) / len(nats), rel=1e-4)

    weights = [math.exp((i / 7 - 6 / 7) / 0.5) for i in range(7)]
    total = sum(-w * sum(logp(policy, g.prompt, g.answers[0])) for w, (g, _) in zip(weights, both, strict=True))  # type: ignore[arg-type]
    _, numbers = gradient(made(make_model, MARKS, "weighted", tmp_path))
    assert numbers["loss"] == pytest.approx(total / sum(w * len(g.answers[0]) for w, (g, _) in zip(weights, both, strict=True)), rel=1e-4)


@pytest.mark.parametrize("method", [*PAIRED, *SINGLE])
def test_micro_batches_and_order_change_nothing(make_model: Make, tmp_path: Path, method: Method) -> None:
    rows = PAIRS if METHODS[method].paired else MARKS
    one, whole = gradient(made(make_model, rows, method, tmp_path))
    small, parts = gradient(made(make_model, rows, method, tmp_path, micro_tokens=256))
    other, _ = gradient(made(make_model, rows, method, tmp_path, seed=9))
    scale = float(one.abs().max())
    torch.testing.assert_close(small / scale, one / scale, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other / scale, one / scale, rtol=1e-4, atol=1e-5)
    assert parts == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("method", ["dpo", "orpo", "unlikelihood"])
@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_ranks_parts_add_up(make_model: Make, tmp_path: Path, method: Method, count: int) -> None:
    """Every rank makes as many passes as any other, and the mean of their gradients is that of one process (z0 has a test of its own)."""
    training = made(make_model, PAIRS, method, tmp_path, micro_tokens=256)
    one, whole = gradient(training)
    shares = [gradient(training, ranks=Ranks(r, count)) for r in range(count)]
    scale = float(one.abs().max())
    torch.testing.assert_close(sum(g for g, _ in shares) / count / scale, one / scale, rtol=1e-4, atol=1e-5)
    assert {name: sum(n.get(name, 0.0) for _, n in shares) for name in whole} == pytest.approx(whole, rel=1e-4)
    dealt = [training.comparison.dealt(range(6), 256, Ranks(r, count)) for r in range(count)]
    assert len({len(parts) for parts in dealt}) == 1
    assert sorted(i for parts in dealt for part, counts in parts if counts for i in part) == list(range(6))


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].reference])
def test_the_policy_begins_as_its_reference_with_dropout_too(make_model: Make, tmp_path: Path, method: Method) -> None:
    model = make_model(1, max_positions=160)
    for module in model.transformer.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.5  # type: ignore[assignment]
    how = PairOptions(pairs=6)
    training = PreferenceTraining(model, rows_of(model, PAIRS, tmp_path), Settings.of(method, how), how, seed=0, dtype=torch.float32)
    model.transformer.train()
    _, numbers = gradient(training)
    wanted = {"dpo": math.log(2), "cdpo": math.log(2), "ipo": (1 / 0.2) ** 2, "kto": 0.5}
    assert numbers["loss"] == pytest.approx(wanted[method], rel=1e-4)
    assert numbers["chosen_reward"] == pytest.approx(0, abs=1e-4) and numbers["rejected_reward"] == pytest.approx(0, abs=1e-4)
    assert numbers.get("kl", 0.0) == pytest.approx(0, abs=1e-4), "KL(policy, itself)"


@pytest.mark.parametrize("method", [*PAIRED, *SINGLE])
def test_every_method_learns_the_preference(make_model: Make, tmp_path: Path, method: Method) -> None:
    model = make_model(1, max_positions=160)
    how = PairOptions(pairs=6)
    training = PreferenceTraining(model, rows_of(model, PAIRS, tmp_path), Settings.of(method, how), how, seed=0, dtype=torch.float32)
    before = training.evaluate()
    train(model.transformer, training.losses, steps=20, options=FAST, folder=tmp_path / "run", progress=Silent())
    after = training.evaluate()

    def margin(found: dict[str, Any]) -> float:
        return float(found["rejected_nats_per_token"] - found["chosen_nats_per_token"])

    assert margin(after) > margin(before) + 0.3, (before, after)
    assert after["pairs_correct"] == 1.0 and after["likelier"] == 1.0
    if METHODS[method].reference:
        assert before["pairs_correct"] == 0.5, "no reward yet: every pair is a tie"


def test_an_epoch_shows_every_row_once(make_model: Make, tmp_path: Path) -> None:
    training = made(make_model, PAIRS, "dpo", tmp_path, pairs=2)
    assert sorted(i for step in range(3) for i in training.order(step)) == list(range(6))
    assert training.order(1) != training.order(4) or training.order(0) != training.order(3), "each epoch has an order of its own"
    assert training.steps(2.0) == 6


def test_the_reference_is_made_once(make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on opens the file: trained weights never become the reference; other rows make it anew."""
    model, how = make_model(1, max_positions=160), PairOptions(pairs=6)
    said: dict[str, Any] = {"seed": 0, "dtype": torch.float32, "folder": tmp_path}
    rows, settings = rows_of(model, PAIRS, tmp_path), Settings.of("dpo", how)
    first = PreferenceTraining(model, rows, settings, how, **said)
    again = PreferenceTraining(make_model(2, max_positions=160), rows, settings, how, **said)
    assert again.comparison.before == first.comparison.before and (tmp_path / "reference.json").is_file()
    fewer = PreferenceTraining(make_model(2, max_positions=160), rows[:3], settings, how, **said)
    assert fewer.comparison.before != first.comparison.before[:3]


# ── mismatched answers ──
@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=24))
def test_mismatched_answers_belong_to_other_prompts(prompts: list[int]) -> None:
    """On odd and even counts and whatever the prompts: never one's own answer where another prompt is there (TRL issue 1911)."""
    rows = [Row(str(i), Group([p], [[100 + i]]), (True,), (None,)) for i, p in enumerate(prompts)]
    found = mismatched(rows, 96)
    assert [g.prompt for g in found] == [[p] for p in prompts]
    partners = [g.answers[0][0] - 100 for g in found]
    if len(set(prompts)) > 1:
        assert all(prompts[i] != prompts[j] for i, j in enumerate(partners))
    elif len(prompts) > 1:
        assert all(i != j for i, j in enumerate(partners))
    if len(set(prompts)) == len(prompts):
        assert sorted(partners) == list(range(len(prompts))), "unlike prompts: each answer once"


def test_one_prompt_for_all_is_no_nan(make_model: Make, tmp_path: Path) -> None:
    rows = [{**row, "messages": MARKS[0]["messages"]} for row in MARKS]
    grad, numbers = gradient(made(make_model, rows, "kto", tmp_path))
    assert math.isfinite(numbers["loss"]) and bool(grad.isfinite().all()) and numbers["kl"] >= 0


# ── what is read ──
@settings(deadline=None)
@given(st.text(min_size=1, max_size=40).filter(str.strip), st.text(min_size=1, max_size=40).filter(str.strip))
def test_the_boundary_is_that_of_the_whole_conversation(tiny_tokenizer: Tokenizer, asked: str, answer: str) -> None:
    """Prompt and answer are the ids of the conversation as it is trained, and of the rendered text as one, cut where the answer begins."""
    messages = [{"role": "user", "content": asked}]
    prompt, ids = prompt_ids(tiny_tokenizer, messages), answer_ids(tiny_tokenizer, answer)
    whole, trained = training_row(tiny_tokenizer, [*messages, {"role": "assistant", "content": answer}])
    assert [*prompt, *ids] == whole and trained == [False] * len(prompt) + [True] * len(ids)
    if "<|" in asked + answer:
        return  # read as one text these would become special tokens: that is why pieces are encoded apart
    text = "".join(piece for piece, _ in render(tiny_tokenizer, messages, generation=True))
    tiny_tokenizer.backend.encode_special_tokens = False
    joint = tiny_tokenizer.backend.encode(text + answer + "<|end|>", add_special_tokens=False)
    normal = tiny_tokenizer.backend.normalizer.normalize_str
    if normal(asked) == asked and normal(answer) == answer:
        assert joint.ids == whole
        starts = [start for start, _ in joint.offsets]
        assert starts[len(prompt)] == len(text), "from offsets"


def test_a_template_whose_marker_is_text(make_model: Make, tmp_path: Path) -> None:
    """'Assistant:' is no special token: the prompt is what the model will have read when it begins, not a joint encoding's."""
    model = make_model(0)
    tokenizer = Tokenizer(model.tokenizer.backend, {**model.tokenizer.config, "chat_template": "{{ messages[0]['content'] }}\nAssistant:"})
    assert tokenizer.chat_template != CHAT_TEMPLATE
    write_jsonl(tmp_path / "rows.jsonl", [PAIRS[0]])
    (row,) = read_rows(tmp_path / "rows.jsonl", tokenizer, replace(model.config, max_positions=400)).rows
    assert row.group.prompt == prompt_ids(tokenizer, PAIRS[0]["messages"]) and tokenizer.decode(row.group.prompt).endswith("Assistant:")


def refused(make_model: Make, folder: Path, rows: list[dict[str, Any]], **how: Any) -> str:
    with pytest.raises(NormaError) as caught:
        rows_of(make_model(0, max_positions=160), rows, folder, **how)
    return str(caught.value)


def test_rows_that_cannot_be_used_are_named(make_model: Make, tmp_path: Path) -> None:
    assert "rows.jsonl:2: an answer is empty" in refused(make_model, tmp_path, [PAIRS[0], pair("x", "  ", "No.")])
    assert "rows.jsonl:1: an answer is empty" in refused(make_model, tmp_path, [mark("x", "", True)])
    assert "rows.jsonl:3: neither a pair nor a mark" in refused(make_model, tmp_path, [*PAIRS[:2], {"messages": PAIRS[0]["messages"]}])
    assert "rows.jsonl:1: a score or margin is no number" in refused(make_model, tmp_path, [mark("x", "Yes.", True, score="high")])
    assert "rows.jsonl:1: no prompt" in refused(make_model, tmp_path, [{**PAIRS[0], "messages": []}])
    assert "no pair or mark can be used" in refused(make_model, tmp_path, [pair("x", "a b c d " * 99, "b")])
    assert len(rows_of(make_model(0, max_positions=160), [pair("x", "Yes.", "")], tmp_path)) == 1, "a worse answer may stop at once"
    training = PairOptions(pairs=2)
    model = make_model(0, max_positions=160)
    with pytest.raises(NormaError, match="dpo compares pairs"):
        marks = rows_of(model, MARKS, tmp_path)
        PreferenceTraining(model, marks, Settings.of("dpo", training), training, seed=0, dtype=torch.float32)
    with pytest.raises(NormaError, match="learns nothing"):
        Settings.of("sft", PairOptions(likelihood=0.0))


def test_cutting_a_prompt_never_empties_an_answer(make_model: Make, tmp_path: Path) -> None:
    model, long = make_model(0, max_positions=160), pair("x" * 80, "Certainly: it does.", "No!")
    tokenizer = model.tokenizer
    assert rows_of(model, [PAIRS[0], long], tmp_path, longest=60) != []
    write_jsonl(tmp_path / "rows.jsonl", [PAIRS[0], long])
    left = read_rows(tmp_path / "rows.jsonl", tokenizer, model.config, longest=60)
    cut = read_rows(tmp_path / "rows.jsonl", tokenizer, model.config, longest=60, cut=True)
    assert (left.too_long, len(left.rows), cut.cut, len(cut.rows)) == (1, 1, 1, 2)
    group, whole = cut.rows[1].group, prompt_ids(tokenizer, long["messages"])
    assert len(group.prompt) + max(map(len, group.answers)) == 60 and group.prompt[0] == tokenizer.bos_id
    assert list(group.prompt[1:]) == whole[len(whole) - len(group.prompt) + 1 :]
    assert list(group.answers[0]) == answer_ids(tokenizer, long["chosen"])
    said = refused(make_model, tmp_path, [PAIRS[0], pair("y", "word " * 40, "No!")], longest=60, cut=True)
    assert "rows.jsonl:2: the answer alone has" in said and "does not help" in said


def test_validation_rows_are_other_rows(make_model: Make, tmp_path: Path) -> None:
    model = make_model(0, max_positions=160)
    paths = tmp_path / "train.jsonl", tmp_path / "held.jsonl", tmp_path / "link.jsonl"
    write_jsonl(paths[0], PAIRS[:4])
    write_jsonl(paths[1], [PAIRS[5], PAIRS[2]])
    paths[2].symlink_to(paths[0])
    train_rows, held, same = (read_rows(p, model.tokenizer, model.config) for p in paths)
    with pytest.raises(NormaError, match=r"held\.jsonl:2: 1 validation rows are training rows too"):
        refuse_overlap(train_rows, held, paths[0], paths[1])
    with pytest.raises(NormaError, match="validation rows are the training rows"):
        refuse_overlap(train_rows, same, paths[0], paths[2])
    write_jsonl(paths[1], PAIRS[4:])
    refuse_overlap(train_rows, read_rows(paths[1], model.tokenizer, model.config), paths[0], paths[1])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=20))
def test_couples_in_order_by_counting(drawn: list[tuple[int, bool]]) -> None:
    good, bad = ([v for v, g in drawn if g is side] for side in (True, False))
    found = in_order(np.array([float(v) for v, _ in drawn]), np.array([g for _, g in drawn]))
    if not good or not bad:
        assert found is None
        return
    assert found == pytest.approx(sum((a > b) + 0.5 * (a == b) for a in good for b in bad) / (len(good) * len(bad)))


# ── online ──
def test_online_training_raises_what_the_judge_likes(make_model: Make, questions: list[Item], tmp_path: Path) -> None:
    """A judge who likes one letter: the share of it in what is sampled rises, the sampled ids are what is trained, ties are no pairs."""
    from norma.align.online import OnlinePreference

    model = make_model(3, spread=0.02, max_positions=96)
    liked = model.tokenizer.encode("e")[0]

    def judge(item: Item, answers: Any) -> list[float | None]:
        return [sum(t == liked for t in a.ids) / max(1, len(a.ids)) for a in answers]

    options = OnlineOptions(questions=3, answers=8, max_new_tokens=6, unfinished=0.0)
    settings = Settings.of("dpo", PairOptions())
    training = OnlinePreference(
        model, model.copy(), judge, questions, settings, options, micro_tokens=512, seed=0, dtype=torch.float32
    )
    rows, first = training.rollout(0)
    assert [r.group for r in rows] == [r.group for r in training.rollout(0)[0]], "a pure function of weights, seed and step"
    assert first["flat_groups"] == pytest.approx(1 - len(rows) / 3)
    faster = FAST.model_copy(update={"learning_rate": 1e-2})
    last = train(model.transformer, training.losses, steps=40, options=faster, folder=tmp_path, progress=Silent())
    assert training.rollout(99)[1]["reward"] > first["reward"] + 0.3, last
    assert last["kl"] != 0
    training.judge = lambda item, answers: [1.0, *[None] * 7]
    none, numbers = training.rollout(0)
    assert none == [] and numbers["flat_groups"] == 1 and numbers["masked"] == pytest.approx(7 / 8)
    ((loss, numbers),) = training.losses(0)
    assert loss.item() == 0 and numbers["loss"] == 0


def test_the_log_of_a_run_has_the_names_that_people_draw(make_model: Make, tmp_path: Path) -> None:
    training = made(make_model, PAIRS, "kto", tmp_path)
    train(training.model.transformer, training.losses, steps=2, options=FAST, folder=tmp_path / "run", progress=Silent())
    row = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()][-1]
    wanted = {"loss", "pairs_correct", "chosen_reward", "rejected_reward", "chosen_nats_per_token", "rejected_nats_per_token", "kl"}
    assert wanted <= set(row)


class Stopped(Exception):
    pass


def test_online_training_goes_on_where_it_stopped(make_model: Make, questions: list[Item], tmp_path: Path) -> None:
    """Sampling, ranking and the reference of step N are those of an unbroken run: equal weights to the bit."""
    from norma.align.online import OnlinePreference

    def run(folder: Path, until: int | None) -> torch.Tensor:
        model = make_model(3, spread=0.02, max_positions=96)

        def judge(item: Item, answers: Any) -> list[float | None]:
            return [sum(t % 3 for t in a.ids) / 9 for a in answers]

        options = OnlineOptions(questions=2, answers=2, max_new_tokens=4)
        said: dict[str, Any] = {"micro_tokens": 512, "seed": 0, "dtype": torch.float32}
        training = OnlinePreference(model, model.copy(), judge, questions, Settings.of("ipo", PairOptions()), options, **said)

        def losses(step: int) -> Any:
            if step == until:
                raise Stopped
            yield from training.losses(step)

        often = FAST.model_copy(update={"checkpoint_seconds": 1e-6})
        train(model.transformer, losses, steps=6, options=often, folder=folder, progress=Silent())
        return torch.cat([p.detach().flatten() for p in model.transformer.parameters()])

    whole = run(tmp_path / "whole", None)
    with pytest.raises(Stopped):
        run(tmp_path / "broken", 4)
    assert torch.equal(run(tmp_path / "broken", None), whole)
