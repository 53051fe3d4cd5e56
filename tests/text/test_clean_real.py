"""Cleaning real Wikipedia: how much each step sets aside, and that planted rubbish and copies are what goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from norma.text.clean import CleanOptions, Document, QualityOptions, Step, build_steps, documents_of
from norma.text.clean.quality import broken
from norma.text.quarantine import Quarantine
from norma.text.readers import read

pytest.importorskip("rensa")
pytest.importorskip("py3langid")

ALL = CleanOptions.model_validate({"language": {}, "length": {"least_characters": 50}, "quality": {}, "near": {}})


@pytest.fixture(scope="module")
def articles(real_data: Path) -> Callable[[str, int], list[Document]]:
    def first(name: str, count: int) -> list[Document]:
        path = real_data / "text" / f"{name}.jsonl.gz"
        if not path.is_file():
            pytest.skip(f"no {name}.jsonl.gz here: set NORMA_TEST_DATA to a folder that holds text/{name}.jsonl.gz")
        quarantine = Quarantine()
        return list(islice(documents_of(read(path, quarantine), quarantine), count))

    return first


def clean(documents: list[Document]) -> tuple[list[Document], dict[str, Step]]:
    stream, steps = documents, build_steps(ALL)
    for step in steps:
        stream = list(step(stream))
    return stream, {step.name: step for step in steps}


def gone(step: Step) -> float:
    return 1 - step.counts.documents_after / step.counts.documents_before


@pytest.mark.parametrize(("name", "language", "count"), [("enwiki", "en", 60), ("zhwiki", "zh", 500)])
def test_an_encyclopaedia_passes_and_planted_rubbish_does_not(
    articles: Callable[[str, int], list[Document]], name: str, language: str, count: int
) -> None:
    real = articles(name, count)
    whole, base = clean(real)
    # Each article begins with its title, and titles differ: no two are equal. Articles are in the encyclopaedia's language.
    assert gone(base["exact"]) == 0
    assert sum(d.language == language for d in whole) / len(whole) > 0.99
    # Gopher's rules are there to leave edited prose and to take lists and word salad; an encyclopaedia holds some lists.
    assert gone(base["quality"]) < 0.08
    # Articles on different subjects share no more than templates.
    assert gone(base["near"]) < 0.01

    good = [d for d in whole if len(d.text) > 400][:20]
    copies = [replace(d, file="copy", text=f"\n{d.text.replace(' ', '  ')} ", language="") for d in good]
    nearly = [replace(d, file="nearly", text=d.text + "\n(2024)", language="") for d in good]
    menus = [Document("menu", i, "\n".join(f"• {d.text.split()[0][:20]} beside the harbour 的是" for d in good)) for i in range(5)]
    echoes = [Document("echo", i, (d.text[:60] + "\n") * 20) for i, d in enumerate(good[:5])]
    kept, steps = clean([*real, *copies, *nearly, *menus, *echoes])
    assert kept == whole  # nothing that was planted stays, nothing else goes
    assert steps["exact"].counts.reasons["the same text came before"].documents == len(copies) + len(menus) - 1
    assert steps["near"].counts.documents_before - steps["near"].counts.documents_after == len(nearly) + (
        base["near"].counts.documents_before - base["near"].counts.documents_after
    )
    for planted, reason in ((menus[0], "too high: lines beginning with a bullet"), (echoes[0], "too high: repeated lines")):
        assert reason in [why.reason for why in broken(planted.text, language, QualityOptions())]
