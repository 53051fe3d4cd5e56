"""Real checkpoints on real text: ``norma evaluate``'s bits per byte beside a loop over transformers on the folder that Norma wrote."""

from __future__ import annotations

import gzip
import importlib.util
import json
import math
import os
from pathlib import Path

import pytest
import torch

import norma
from norma.base.hashing import folder_digest
from norma.evaluate.benchmarks import Task, evaluate
from norma.evaluate.benchmarks.subject import LENGTH, LocalSubject

transformers = pytest.importorskip("transformers")
ARTICLES, CHARACTERS = 4, 3000


def stories_folder(stories: Path, folder: Path) -> Path:
    where = Path(__file__).parents[1] / "lm" / "test_gguf_export.py"
    found = importlib.util.spec_from_file_location("stories_export", where)
    assert found is not None and found.loader is not None
    there = importlib.util.module_from_spec(found)
    found.loader.exec_module(there)
    there.stories_model(stories).save(folder)
    return folder


@torch.no_grad()
def by_transformers(folder: Path, texts: list[str]) -> float:
    """Begin and end tokens around a text, windows that share one token, every token but the first foretold once."""
    model, tokenizer = (getattr(transformers, name).from_pretrained(folder) for name in ("AutoModelForCausalLM", "AutoTokenizer"))
    nats, most = 0.0, min(LENGTH, model.config.max_position_embeddings)
    for text in texts:
        ids = [tokenizer.bos_token_id, *tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
        for start in range(0, len(ids) - 1, most - 1):
            window = torch.tensor([ids[start : start + most]])
            log_p = model(window).logits[0, :-1].double().log_softmax(dim=-1)
            nats -= float(log_p.gather(1, window[0, 1:, None]).sum())
    return nats / math.log(2) / sum(len(text.encode()) for text in texts)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stories260K", "SmolLM2-135M-Instruct"])
def test_bits_per_byte_are_those_of_transformers(name: str, stories: Path, tmp_path: Path) -> None:
    wiki = stories.parents[1] / "text" / "enwiki.jsonl.gz"
    if not wiki.is_file():
        pytest.skip("no text/enwiki.jsonl.gz beside the models: set NORMA_TEST_DATA")
    if name == "stories260K":
        folder = stories_folder(stories, tmp_path / name)
    elif given := os.environ.get("NORMA_TEST_SMOLLM2"):
        folder = Path(given)
    else:
        pytest.skip("set NORMA_TEST_SMOLLM2 to the folder that `norma import` makes of SmolLM2's GGUF")
    with gzip.open(wiki, "rt", encoding="utf-8") as lines:
        texts = [json.loads(next(lines))["text"][:CHARACTERS].strip() for _ in range(ARTICLES)]
    data = tmp_path / "articles.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    subject = LocalSubject(norma.load(folder), folder_digest(folder))
    (result,) = evaluate(subject, {"perplexity": Task(kind="language", data=str(data))}, tmp_path / "out")["tasks"]
    ours = next(score["value"] for score in result["scores"] if score["score"] == "bits_per_byte")
    theirs = by_transformers(folder, texts)
    print(f"{name}: {ours:.6f} bits per byte, transformers {theirs:.6f}")
    assert ours == pytest.approx(theirs, abs=1e-4)
