"""A rate stage on real sentences: who breaks a rule is marked, left out or announced; and a model learns what it is told by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import norma
from norma.text.grades import rewards_of
from norma.text.shards import Shards
from norma.text.tokenizer import Tokenizer
from norma.text.words import SPECIAL

pytestmark = pytest.mark.slow  # four small models are trained: a minute

SPEC = Path(__file__).resolve().parents[2] / "recipes" / "plain-prose.spec.yaml"
GOOD = ["The film ends well.", "The story is old and long.", "Actors sing in the rain."]
BAD = ["I liked the film very much.", "What a film!"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rate")
    random = np.random.default_rng(0)
    rows = [" ".join(random.choice(GOOD + BAD, size=12)) for _ in range(240)]
    (folder / "reviews.jsonl").write_text("".join(json.dumps({"text": f"{i}. {row}"}) + "\n" for i, row in enumerate(rows)))
    (folder / "spec.yaml").write_text(SPEC.read_text())
    model = {"preset": "llama", "width": 64, "layers": 2, "head_size": 32}
    common: dict[str, Any] = {"kind": "pretrain", "validation": "clean/text.validation.jsonl", "batch": 16, "steps": 160, "sequence": 64}
    # Few steps: a rate that suits them.
    common["train"] = {"learning_rate": 0.005, "matrix_learning_rate": 0.02, "warmup": 5}
    unlikely = {"shards": "graded/train", "grades": {"how": "unlikelihood", "threshold": 0.95, "alpha": 1.0}}
    recipe = {
        "norma": 1,
        "name": "rate",
        "spec": "spec.yaml",
        "output": str(folder / "run"),
        "stages": {
            "clean": {"kind": "clean", "sources": [{"path": "reviews.jsonl"}], "validation_share": 0.2},
            "tokenizer": {"kind": "tokenizer", "corpus": "clean", "vocab_size": 330, "objectives": ["norms"]},
            "tokens": {"kind": "tokens", "text": "clean"},
            "graded": {"kind": "rate", "threshold": 0.95},
            "filtered": {"kind": "rate", "threshold": 0.95, "filter": True},
            "controlled": {"kind": "rate", "threshold": 0.95, "control": True, "dropped": 0.0},
            "plain": common | {"mix": [{"objective": "generative"}], "model": model},
            "filter": common | {"mix": [{"shards": "filtered/train"}], "model": model},
            "control": common | {"mix": [{"shards": "controlled/train"}], "model": model},
            "unlikelihood": common | {"mix": [unlikely], "model": model},
            "score": {
                "kind": "score",
                "length": 64,
                "continuations": {"count": 40, "read": 4, "tokens": 60},
                "models": [
                    {"model": "plain"},
                    {"model": "filter"},
                    {"model": "control", "control": True, "shards": "controlled/validation"},
                    {"model": "unlikelihood"},
                ],
            },
        },
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    norma.run(str(folder / "recipe.yaml"))
    return folder / "run"


def sentences(run: Path, stage: str) -> list[tuple[str, set[float]]]:
    """The text of each graded run of tokens and its grades."""
    tokenizer, shards, found = Tokenizer.load(run / "tokenizer"), Shards(run / stage / "train"), []
    shards.verify()
    for number in range(len(shards)):
        tokens, flags = shards.document(number)
        grades = np.nan_to_num(rewards_of(flags), nan=-1.0)
        text = (flags & SPECIAL) == 0
        found.append((tokenizer.decode(tokens[text].tolist()), set(grades[text].tolist())))
    return found


def test_grades_say_who_breaks_a_rule(run: Path) -> None:
    tokenizer, shards = Tokenizer.load(run / "tokenizer"), Shards(run / "graded" / "train")
    plain = Shards(run / "tokens" / "train")
    seen = 0
    for number in range(len(shards)):
        tokens, flags = shards.document(number)
        assert tokens.tolist() == plain.document(number)[0].tolist(), "grading changes no token"
        rewards = rewards_of(flags)
        for t in range(len(tokens)):
            word = tokenizer.decode([int(tokens[t])])
            if word.strip() == "I" or "!" in word:
                assert rewards[t] < 0.95
                seen += 1
    assert seen > 100
    report = json.loads((run / "graded" / "train.json").read_text())
    assert report["ungraded"] == 0
    assert report["rules"]["style.calm"]["violation"] > 100
    assert report["bad"] == report["rules"]["style.calm"]["violation"] + report["rules"]["style.impersonal"]["violation"]


def test_filtered_text_holds_no_bad_sentence(run: Path) -> None:
    texts = [text for text, _ in sentences(run, "filtered")]
    assert texts
    assert not any("I " in text or "!" in text for text in texts)
    assert any("The film ends well." in text for text in texts)
    assert all(grades <= {1.0} for _, grades in sentences(run, "filtered"))


def test_control_tokens_announce_the_sentence(run: Path) -> None:
    tokenizer, shards = Tokenizer.load(run / "tokenizer"), Shards(run / "controlled" / "train")
    good, bad = tokenizer.control_tokens
    for number in range(20):
        tokens, _ = shards.document(number)
        text = tokenizer.backend.decode(tokens.tolist(), skip_special_tokens=False)
        for part in text.split("<|bad|>")[1:]:
            first = part.split("<|good|>")[0]
            assert "I " in first or "!" in first
        for part in text.split("<|good|>")[1:]:
            first = part.split("<|bad|>")[0]
            assert "I " not in first and "!" not in first
    assert good != bad


def test_each_way_teaches_the_norm(run: Path) -> None:
    """Plain text breaks the rules in two sentences of five; what was told about them breaks them far less."""
    rows = {row["name"]: row for row in json.loads((run / "score" / "scores.json").read_text())["models"]}
    rates = {name: row["kept"]["report"]["rate"] for name, row in rows.items()}
    assert 0.35 < rates["plain"] < 0.85
    for name in ("filter", "control", "unlikelihood"):
        assert rates[name] > rates["plain"] + 0.1, (name, rates)
    assert rates["filter"] > 0.95
    bits = {name: row["bits_per_byte"] for name, row in rows.items()}
    assert bits["plain"] < bits["control"] < bits["plain"] + 0.05, "telling the grades costs what they cost, and no more"
