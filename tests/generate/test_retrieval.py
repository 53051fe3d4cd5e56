"""An index of documents: BM25 by the formula, vectors, numbered passages before the question, citations of what was shown."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from norma.base.errors import NormaError
from norma.generate.retrieval import Documents, Index, build, grounded, pieces, words
from norma.lm import LanguageModel
from norma.spec import Item, Message, Spec

pytest.importorskip("bm25s")
Make = Callable[..., LanguageModel]
TEXTS = {
    "bread.txt": "Bread rises because yeast makes gas. Salt slows yeast down.",
    "tea.txt": "Tea is picked by hand. Green tea is not fermented.",
    "茶.txt": "绿茶不发酵。红茶是全发酵茶。",
}


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, text in TEXTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_pieces_are_whole_sentences_and_lose_nothing() -> None:
    text = "One two three. Four five! 六七八。九十。" + "x" * 30
    found = list(pieces(text, 16))
    assert found == ["One two three.", "Four five! 六七八。", "九十。", "x" * 16, "x" * 14]
    assert list(pieces("  \n ", 16)) == []


def test_bm25_by_the_formula(documents: Path, tmp_path: Path) -> None:
    index = build(documents, tmp_path / "i")
    texts = [words(f"{p.title}\n{p.text}") for p in index.passages]
    mean = sum(map(len, texts)) / len(texts)

    def score(question: list[str], text: list[str]) -> float:
        total = 0.0
        for word in question:
            n, f = sum(word in t for t in texts), text.count(word)
            idf = math.log(1 + (len(texts) - n + 0.5) / (n + 0.5))
            total += idf * f / (f + 1.5 * (1 - 0.75 + 0.75 * len(text) / mean))
        return total

    question = "what makes tea fermented"
    known = [w for w in words(question) if any(w in t for t in texts)]
    expected = [score(known, text) for text in texts]
    assert index.scores(question, "bm25").tolist() == pytest.approx(expected, abs=1e-5)
    assert index.search(question)[0].passage.file == "tea.txt"
    assert index.search("红茶发酵吗")[0].passage.file == "茶.txt"
    assert index.search("zeppelin") == []


def test_vectors_are_those_of_embed(documents: Path, tmp_path: Path, make_model: Make) -> None:
    from norma.lm.embedding import embed

    model = make_model(1)
    model.save(tmp_path / "model")
    index = build(documents, tmp_path / "i", model=tmp_path / "model")
    opened = LanguageModel.load(tmp_path / "model")
    vectors = embed(opened, [f"{p.title}\n{p.text}" for p in index.passages])
    asked = embed(opened, ["green tea"])[0]
    assert index.scores("green tea", "vectors").tolist() == pytest.approx((vectors @ asked).tolist(), abs=1e-5)
    assert len(index.search("green tea", 3)) == 3
    (tmp_path / "model" / "norma.json").write_text("{}", encoding="utf-8")
    with pytest.raises(NormaError, match="has changed"):
        Index(tmp_path / "i").search("green tea")


def test_wrong_folders_say_what_to_do(documents: Path, tmp_path: Path) -> None:
    with pytest.raises(NormaError, match="norma retrieve index"):
        Index(documents)
    index = build(documents, tmp_path / "i")
    with pytest.raises(NormaError, match="--model"):
        index.search("tea", how="vectors")
    (tmp_path / "i" / "passages.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(NormaError, match="changed"):
        Index(tmp_path / "i")


def test_passages_are_left_out_until_it_fits(documents: Path, tmp_path: Path) -> None:
    hits = build(documents, tmp_path / "i").search("tea yeast salt green", 4)
    asked = [Message(role="system", content="S"), Message(role="user", content="Tea?")]
    whole, kept = grounded(asked, hits)
    assert kept == len(hits) == 2 and whole[0] == asked[0]
    assert whole[1]["content"].index("[1] ") < whole[1]["content"].index("[2] ") < whole[1]["content"].index("Question: Tea?")
    fewer, kept = grounded(asked, hits, fits=lambda made: "[2] " not in made[1]["content"])
    assert kept == 1 and "[2] " not in fewer[1]["content"]
    assert grounded(asked, hits, fits=lambda made: False) == (asked, 0)
    assert grounded(asked, [])[0] == asked


def test_the_spec_of_cited_answers(documents: Path, tmp_path: Path, make_model: Make) -> None:
    spec = Spec.load(Path(__file__).parents[2] / "recipes" / "cited-answers.spec.yaml")
    found = Documents(build(documents, tmp_path / "i"), make_model(1, max_positions=700), room=8)
    made = found.before([Message(role="user", content="Why does bread rise?")], "en")
    assert found.sources()[0].startswith("[1] bread.txt:1")
    item = Item("q", tuple(made), language="en")

    def status(text: str) -> str:
        return next(str(v.status) for v in spec.verdicts(item, text, "report") if v.rule == "sources.cited")

    assert status("Yeast makes gas [1].") == "compliant"
    assert status("Yeast makes gas.") == "violation"
    assert status("Yeast makes gas [7].") == "violation"  # no such passage was shown
    plain = Item("q", (Message(role="user", content="Why?"),), language="en")
    assert all(str(v.status) == "not_applicable" for v in spec.verdicts(plain, "So.", "report") if v.rule == "sources.cited")
