"""Ray Data gives what the local engine gives, row for row. Skipped without ray (pip install 'norma-lm[ray]')."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import norma
from norma.text.cluster import stretches
from norma.text.shards import Shards


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("ab", max_size=30), max_size=20), st.integers(1, 40), st.booleans())
def test_stretches_are_whole_lines(tmp_path_factory: pytest.TempPathFactory, lines: list[str], size: int, ended: bool) -> None:
    path = tmp_path_factory.mktemp("stretches") / "x"
    data = "\n".join(lines).encode() + (b"\n" if ended else b"")
    path.write_bytes(data)
    found = stretches(path, size)
    assert [a for a, _ in found] == [0, *(b for _, b in found)][: len(found)]
    assert b"".join(data[a:b] for a, b in found) == data
    assert all(data[a:b].endswith(b"\n") for a, b in found[:-1])


@pytest.mark.slow
def test_both_engines_make_the_same_artefacts(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'norma-lm[ray]'")
    texts = tmp_path / "texts"
    texts.mkdir()
    for i in range(5):
        rows = [{"text": f"File {i}, row {j}. 你好，世界。 " + "Some words follow here. " * (j % 7 + 3)} for j in range(300)]
        (texts / f"{i}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + ("{broken\n" if i == 2 else ""))
    (texts / "more.txt.gz").write_bytes(gzip.compress(b"A text of its own.\n\nAnd another one, which is longer.\n"))
    recipe = {
        "norma": 1,
        "name": "engines",
        "stages": {
            "clean": {"kind": "clean", "sources": [{"path": str(texts)}], "validation_share": 0.1},
            "tokenizer": {"kind": "tokenizer", "corpus": "clean", "vocab_size": 400},
            "tokens": {"kind": "tokens", "text": "clean"},
        },
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    for engine in ("local", "ray"):
        norma.run(str(tmp_path / "recipe.yaml"), overrides={"output": str(tmp_path / engine)}, engine=engine)
    for name in ("clean/text.train.jsonl", "clean/text.validation.jsonl", "clean/quarantine.jsonl", "clean/report.json"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes(), name
    for side in ("train", "validation"):
        assert Shards(tmp_path / "ray/tokens" / side).digest == Shards(tmp_path / "local/tokens" / side).digest
    assert "broken" not in (tmp_path / "ray" / "clean/text.train.jsonl").read_text()
    assert (tmp_path / "ray" / "clean/quarantine.jsonl").read_text().count("\n") == 1
