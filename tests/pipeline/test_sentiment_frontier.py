"""recipes/sentiment-frontier.yaml at its smallest scale, on made-up reviews: the whole graph runs and every method has its place."""

from __future__ import annotations

import json
import random
from pathlib import Path
from xml.etree import ElementTree

import pytest

import norma

RECIPE = Path(__file__).parents[2] / "recipes" / "sentiment-frontier.yaml"
KIND, HARSH = ["warm", "moving", "great", "clever", "lovely"], ["dull", "slow", "awful", "cheap", "boring"]
PLAIN = ["the", "film", "plot", "actor", "scene", "story", "music", "is", "and", "a", "this", "with", "was", "end", "of", "watch"]


@pytest.mark.slow
def test_the_recipe_places_every_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(2)
    rows = []
    for _ in range(600):
        label = draw.choice(["pos", "neg"])
        words = [draw.choice((KIND if label == "pos" else HARSH) if draw.random() < 0.25 else PLAIN) for _ in range(60)]
        rows.append({"label": label, "text": " ".join(words)})
    (tmp_path / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    run = norma.run(RECIPE, [f"openings.path={tmp_path / 'reviews.jsonl'}", f"output={tmp_path / 'run'}"], scale="ci")
    points = json.loads((run.folder / "frontier.json").read_text(encoding="utf-8"))["points"]
    methods = [point["method"] for point in points]
    assert {name: methods.count(name) for name in methods} == {"reference": 1, "DPO": 3, "KTO": 3, "GRPO": 3, "PPO": 3, "best of n": 2}
    assert points[0]["kl"]["value"] == 0.0
    for point in points[1:]:
        assert point["kl"]["high"] > 0 and point["reward"]["low"] < point["reward"]["value"] < point["reward"]["high"]
        assert point["trained"] is not None
    ElementTree.parse(run.folder / "frontier.svg")
