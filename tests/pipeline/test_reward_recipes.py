"""recipes/polite-zh.yaml and recipes/instructgpt.yaml from files to the last stage, at their smallest scale, on text made here."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import norma
from norma.base.files import read_jsonl

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
pytestmark = pytest.mark.slow
THINGS = {"zh": ("红色", "蓝色", "黄色", "三角形", "圆形", "正方形"), "en": ("red", "blue", "yellow", "a circle", "a square", "a line")}
SAYS = {
    "zh": "请说说{a}和{b}有什么不同。{a}常见，{b}少见，第{i}本书里写过。",
    "en": "{a} and {b} are not alike, says book {i}. The first is common.",
}


def articles(path: Path, language: str) -> None:
    things, say = THINGS[language], SAYS[language]
    with path.open("w", encoding="utf-8") as handle:
        for i in range(80):
            text = "\n".join(say.format(a=things[(i + k) % 6], b=things[(i * k + 1) % 6], i=i * k) for k in range(1, 12))
            handle.write(json.dumps({"id": str(i), "title": f"{i}", "text": text}, ensure_ascii=False) + "\n")


def instructions(path: Path, language: str) -> None:
    asked, answer = {
        "zh": ("什么是{a}？编号{i}", "{a}是常见的，见第{i}本。"),
        "en": ("What is {a}? Number {i}", "{a} is common, see book {i}."),
    }[language]
    with path.open("w", encoding="utf-8") as handle:
        for i in range(120):
            a = THINGS[language][i % 6]
            row = {"instruction": asked.format(a=a, i=i), "input": "", "output": answer.format(a=a, i=i)}
            handle.write(json.dumps(row, ensure_ascii=False) + "\n")


def utterances(path: Path, shift: int) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(["Utterance", "labels"])
        for i in range(60):
            polite = i % 2
            rows.writerow([("请问您可以看看" if polite else "你自己去看") + THINGS["zh"][i % 6] + f"吗{i + shift}", 1.0 + 2 * polite])


def dialogues(path: Path) -> None:
    rows = []
    for i in range(60):
        asked = f"\n\nHuman: What is {THINGS['en'][i % 6]}, number {i}?\n\nAssistant:"
        rows.append({"text": [f"{asked} It is common, I think.", f"{asked} Find out."], "score": [1.0, 0.0]})
    path.write_text(json.dumps(rows), encoding="utf-8")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("norma.base.platform.cores", lambda: 1)


def run(name: str, folder: Path, paths: dict[str, Callable[[Path], None]]) -> Path:
    overrides = {"output": str(folder / "run")}
    for stage, write in paths.items():
        suffix = {"marks": "csv", "held-out": "csv", "comparisons": "json"}.get(stage, "jsonl")
        write(folder / f"{stage}.{suffix}")
        overrides[f"{stage}.sources.0.path"] = str(folder / f"{stage}.{suffix}")
    norma.run(str(RECIPES / f"{name}.yaml"), scale="ci", overrides=overrides)
    return folder / "run"


def test_polite_zh(tmp_path: Path) -> None:
    out = run(
        "polite-zh",
        tmp_path,
        {
            "clean": lambda path: articles(path, "zh"),
            "marks": lambda path: utterances(path, 0),
            "held-out": lambda path: utterances(path, 1000),
            "questions": lambda path: instructions(path, "zh"),
        },
    )
    quality = json.loads((out / "politeness" / "quality.json").read_text())
    assert quality["n"] == 60 and quality["desirable"] == 0.5
    assert all("model/reward" in row for row in read_jsonl(out / "polite" / "metrics.jsonl"))
    assert (out / "report.html").is_file()


def test_instructgpt(tmp_path: Path) -> None:
    out = run(
        "instructgpt",
        tmp_path,
        {
            "clean": lambda path: articles(path, "en"),
            "demonstrations": lambda path: instructions(path, "en"),
            "comparisons": dialogues,
        },
    )
    assert json.loads((out / "reward-model" / "quality.json").read_text())["n"] >= 1
    rows = read_jsonl(out / "ppo" / "metrics.jsonl")
    assert all({"reward", "kl", "value_loss", "pretraining_loss"} <= row.keys() for row in rows)
