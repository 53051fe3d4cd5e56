"""``norma evaluate``: tasks in, results.json and a table out.

OUT/results.json            every score with its interval, what was left out, settings
OUT/rows/TASK.SHOTS.jsonl   each row's statistics, for paired tests with another model
OUT/answers/...             what the model said: nothing is asked twice, and a killed evaluation goes on
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from norma.base.errors import NormaError
from norma.base.files import write_json, write_jsonl
from norma.base.hashing import digest
from norma.evaluate.benchmarks import scores
from norma.evaluate.benchmarks.intervals import estimate
from norma.evaluate.benchmarks.kept import Kept
from norma.evaluate.benchmarks.rows import Example, examples
from norma.evaluate.benchmarks.shots import CONTENT_FREE, Prompt, calibrated, draw, prompt_of, usable
from norma.evaluate.benchmarks.subject import Asked, Subject
from norma.evaluate.benchmarks.task import KIND_SCORES, Task
from norma.text import squad

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class How:
    """How tasks are asked.

    Attributes:
        count: rows of each task, drawn by ``seed``; None: all.
        shots: numbers of examples in the prompt, each a result of its own.
        calibrate: also score choices with contextual calibration.
        chat: ask as in a chat, by the model's template, instead of continuing a text.
    """

    count: int | None = None
    shots: tuple[int, ...] = (0,)
    seed: int = 0
    calibrate: bool = False
    chat: bool = False


@dataclass(frozen=True)
class Row:
    """One row's statistics by score, and what was said and right."""

    id: str
    cluster: str
    stats: Mapping[str, Sequence[float]]
    said: str = ""
    right: str = ""
    prompt: str = ""


def evaluate(
    subject: Subject,
    tasks: Mapping[str, Task],
    folder: Path,
    how: How | None = None,
    *,
    progress: Progress = lambda name, done, total: None,
) -> dict[str, Any]:
    """Examine ``subject``; results.json as a dict. What stands in ``folder`` is not asked again."""
    how = how or How()
    results = []
    for name, task in tasks.items():
        for shots in how.shots if task.kind in ("choice", "answer", "text") else (0,):

            def told(done: int, total: int, name: str = name) -> None:
                progress(name, done, total)

            rows, notes = _task(subject, name, task, folder, how, shots, told)
            write_jsonl(folder / "rows" / f"{name}.{shots}.jsonl", (asdict(r) for r in rows))
            results.append(_result(name, task, shots, rows, notes, how))
    out = {
        "model": subject.name,
        "identity": subject.identity,
        "settings": {**asdict(how), "shots": list(how.shots), "confidence": 0.95},
        "tasks": results,
    }
    write_json(folder / "results.json", out)
    return out


def _result(name: str, task: Task, shots: int, rows: Sequence[Row], notes: Sequence[str], how: How) -> dict[str, Any]:
    names = [n for n in task.scores or KIND_SCORES[task.kind] if rows and n in rows[0].stats]
    names += ["accuracy_calibrated"] if rows and "accuracy_calibrated" in rows[0].stats else []
    found = []
    for score in names:
        stats = np.array([r.stats[score] for r in rows])
        made = estimate(scores.SCORES[score], stats, [r.cluster for r in rows], seed=how.seed)
        unit = scores.SCORES[score].unit
        found.append({"score": score, "unit": unit, "lower_is_better": scores.SCORES[score].lower_is_better, **asdict(made)})
    return {"task": name, "kind": task.kind, "shots": shots, "n": len(rows), "scores": found, "notes": list(notes)}


def _task(
    subject: Subject, name: str, task: Task, folder: Path, how: How, shots: int, progress: Callable[[int, int], None]
) -> tuple[list[Row], list[str]]:
    if task.kind == "pairs":
        return _pairs(subject, name, task, folder, how, progress), []
    asked = examples(task, name, "test", count=how.count, seed=how.seed)
    if not asked:
        raise NormaError(f"'{name}' has no rows", where=task.data)
    if task.kind == "language":
        return _language(subject, name, asked, folder, progress), []
    prompts, notes = _prompts(subject, name, task, asked, how, shots)
    if task.kind == "choice":
        return _choice(subject, name, task, asked, prompts, folder, how, shots, progress), notes
    return _written(subject, name, task, asked, prompts, folder, how, shots, progress), notes


def _prompts(subject: Subject, name: str, task: Task, asked: Sequence[Example], how: How, shots: int) -> tuple[list[Prompt], list[str]]:
    train = usable(examples(task, name, "train"), examples(task, name, "test")) if shots else []
    made = []
    for example in asked:

        def fits(text: str, example: Example = example) -> bool:
            return subject.fits(Asked(text, example.choices, _system(task, how)), 0 if example.choices else task.new_tokens)

        made.append(prompt_of(example, draw(train, example, shots, how.seed), task.separator, fits))
    fewer, cut = sum(p.shots < shots and not p.cut for p in made), sum(p.cut for p in made)
    notes = []
    if fewer:
        least = min(p.shots for p in made if not p.cut)
        notes.append(f"{fewer} of {len(made)} rows had fewer than {shots} examples (at least {least}): the context holds no more")
    if cut:
        notes.append(f"{cut} of {len(made)} rows do not fit into the context by themselves")
    return made, notes


def _system(task: Task, how: How) -> str | None:
    return task.chat if how.chat else None


def _choice(
    subject: Subject,
    name: str,
    task: Task,
    asked: Sequence[Example],
    prompts: Sequence[Prompt],
    folder: Path,
    how: How,
    shots: int,
    progress: Callable[[int, int], None],
) -> list[Row]:
    system = _system(task, how)
    items = [Asked(p.text, e.choices, system) for e, p in zip(asked, prompts, strict=True)]
    each = 1
    if how.calibrate:  # the same examples before a question without content
        free = [_without_content(task, text) for text in CONTENT_FREE]
        each += len(free)
        items = [
            one
            for item, p, e in zip(items, prompts, asked, strict=True)
            for one in (item, *(Asked(p.before + f, e.choices, system) for f in free))
        ]
    keys = [digest([subject.identity, asdict(item)]) for item in items]
    with Kept(folder / "answers" / f"{name}.{shots}.choices.jsonl") as kept:
        nats = kept.measured(keys, items, subject.choice_nats, progress=progress)
    rows = []
    for i, (example, prompt) in enumerate(zip(asked, prompts, strict=True)):
        here, right = nats[i * each : (i + 1) * each], example.right
        own = np.array(here[0])
        best = int(own.argmin())
        sizes = np.array([len(c.strip().encode()) for c in example.choices])
        stats = {"accuracy": scores.mean(best == right), "accuracy_per_byte": scores.mean(int((own / sizes).argmin()) == right)}
        if not isinstance(task.choices, list):
            stats["macro_f1"] = scores.label_counts(right, best, len(example.choices))
        if how.calibrate:
            stats["accuracy_calibrated"] = scores.mean(int(calibrated(here[0], here[1:]).argmax()) == right)
        said, truth = example.choices[best].strip(), example.choices[right].strip()
        rows.append(Row(example.id, example.cluster, stats, said, truth, prompt.text))
    return rows


def _without_content(task: Task, text: str) -> str:
    import re

    return re.sub(r"\{\w+\}", lambda _: text, task.prompt)


def _written(
    subject: Subject,
    name: str,
    task: Task,
    asked: Sequence[Example],
    prompts: Sequence[Prompt],
    folder: Path,
    how: How,
    shots: int,
    progress: Callable[[int, int], None],
) -> list[Row]:
    from norma.evaluate.sampling import Journal, Options, journaled
    from norma.spec import Item, Message

    system = _system(task, how)
    items = []
    for number, (example, prompt) in enumerate(zip(asked, prompts, strict=True)):
        text = f"{system}\n\n{prompt.text}" if system else prompt.text
        items.append(Item(f"{number}:{example.id}", (Message(role="user", content=text),)))
    answerer = subject.answerer(Options(max_new_tokens=task.new_tokens), task.stop, not how.chat)
    with Journal(folder / "answers" / f"{name}.{shots}.jsonl") as journal:
        answers = journaled(items, answerer, journal, progress)
    failed = [a for a in answers if a.error is not None]
    if failed:
        raise NormaError(
            f"{len(failed)} of {len(answers)} rows of '{name}' got no answer ({failed[0].error})",
            mend="The same command asks for them again",
        )
    rows = []
    for example, prompt, answer in zip(asked, prompts, answers, strict=True):
        said = (answer.text or "").split(task.stop)[0].strip() if task.stop and not how.chat else (answer.text or "").strip()
        rows.append(
            Row(example.id, example.cluster, _marks(task, said, example), said, example.answers[0] if example.answers else "", prompt.text)
        )
    return rows


def _marks(task: Task, said: str, example: Example) -> dict[str, list[float]]:
    if task.kind == "answer":
        rules: squad.Rules = "cmrc" if task.language.split("-")[0] == "zh" else "squad"
        return {
            "exact_match": scores.mean(squad.exact(said, example.answers, rules)),
            "f1": scores.mean(squad.f1(said, example.answers, rules)),
        }
    wanted, out = task.scores or KIND_SCORES["text"], {}
    if "bleu" in wanted:
        out["bleu"] = scores.bleu_counts(said, example.answers, task.language)
    if "chrf" in wanted:
        out["chrf"] = scores.chrf_counts(said, example.answers)
    if set(wanted) & set(scores.ROUGE):
        out |= {k: scores.mean(v) for k, v in scores.rouge_values(said, example.answers, task.language).items()}
    return out


def _language(subject: Subject, name: str, asked: Sequence[Example], folder: Path, progress: Callable[[int, int], None]) -> list[Row]:
    texts = [e.prompt for e in asked if e.prompt.strip()]
    kept_examples = [e for e in asked if e.prompt.strip()]
    keys = [digest([subject.identity, text]) for text in texts]
    with Kept(folder / "answers" / f"{name}.texts.jsonl") as kept:
        found = kept.measured(keys, texts, subject.text_nats, batch=8, progress=progress)
    return [
        Row(
            e.id,
            e.cluster,
            {
                "bits_per_byte": [nats / float(np.log(2)), size],
                "perplexity": [nats, tokens],
                "word_perplexity": [nats, words],
            },
        )
        for e, (nats, tokens, size, words) in zip(kept_examples, found, strict=True)
    ]


def _pairs(subject: Subject, name: str, task: Task, folder: Path, how: How, progress: Callable[[int, int], None]) -> list[Row]:
    from norma.evaluate.minimal_pairs import read_pairs

    assert task.data is not None
    pairs = read_pairs(Path(task.data).expanduser())
    if how.count is not None and how.count < len(pairs):  # every phenomenon alike
        phenomena = len({p.phenomenon for p in pairs})
        pairs = read_pairs(Path(task.data).expanduser(), count=max(1, how.count // phenomena), seed=how.seed)
    keys = [digest([subject.identity, p.good, p.bad]) for p in pairs]
    with Kept(folder / "answers" / f"{name}.pairs.jsonl") as kept:
        found = kept.measured(keys, pairs, subject.pair_right, batch=128, progress=progress)
    return [Row(k[:12], k[:12], {"accuracy": scores.mean(v)}, right=p.good) for k, p, v in zip(keys, pairs, found, strict=True)]
