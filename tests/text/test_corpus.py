"""The corpus: what is held out is nowhere in training, whatever the order; a folder of anything becomes the same files."""

from __future__ import annotations

import email
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from norma.base.errors import NormaError
from norma.base.hashing import folder_digest
from norma.base.progress import Silent
from norma.text.corpus import CorpusOptions, build_corpus
from norma.text.gather import pieces
from norma.text.prose import sources_of
from norma.text.questions import ASK, SUMMARISE, Questions, Source, cut
from norma.text.split import Novelty, key, leaks, split

FILES = [f"{what}.{side}.jsonl" for what in ("text", "qa", "summaries") for side in ("train", "validation")]


def options(*sources: dict[str, Any], **more: Any) -> CorpusOptions:
    return CorpusOptions.model_validate({"sources": list(sources), **more})


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def stdlib(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    build_corpus(options({"docstrings": ["stdlib"]}, validation_share="0.2"), folder, Silent(), 3)
    return folder


def test_nothing_held_out_is_seen_in_training(stdlib: Path) -> None:
    train = [json.dumps(r, ensure_ascii=False) for name in ("text.train", "qa.train", "summaries.train") for r in rows(stdlib, name)]
    seen = "\n".join(train)
    words = " " + key(seen) + " "
    held = rows(stdlib, "qa.validation")
    assert len(held) > 100
    for row in held:
        facts, answer = row["facts"], row["messages"][-1]["content"]
        for name in (facts["name"], facts["asked"]):
            assert f"`{name}`" not in seen and f"`{name}(" not in seen and f'"{name}"' not in seen
        assert f" {key(answer)} " not in words
    documents = {name: {r["document"] for r in rows(stdlib, name)} for name in (f.removesuffix(".jsonl") for f in FILES)}
    for what in ("text", "qa", "summaries"):
        assert not documents[f"{what}.validation"] & documents["text.train"]


def test_question_rows_are_as_the_format_says(stdlib: Path) -> None:
    train = rows(stdlib, "qa.train")
    assert len({r["id"] for r in train}) == len(train)
    for row in train:
        user, assistant = row["messages"]
        asked, name = row["facts"]["asked"], row["facts"]["name"]
        question, entry, body = user["content"].split("\n", 2)
        assert f"`{asked}`" in question and entry.startswith("Entry: `" if row["language"] == "en" else "条目：`")
        assert entry.split("`")[1].split("(")[0] == name and len(body) <= 400 and row["id"] == f"{name}#{row['language']}"
        assert ("\n" not in assistant["content"]) and assistant["content"][-1] in ".。"
        if row["facts"]["about"]:
            assert asked == name and assistant["content"] not in user["content"]
        else:
            assert asked != name and f"`{asked}`" in assistant["content"]
    shares = Counter(r["language"] for r in train), sum(not r["facts"]["about"] for r in train)
    assert 0.25 < shares[0]["zh"] / len(train) < 0.35 and 0.07 < shares[1] / len(train) < 0.13
    for row in rows(stdlib, "summaries.train"):
        assert row["messages"][0]["content"].split("\n")[0] in SUMMARISE[row["language"]]
        assert row["facts"]["name"] in row["messages"][0]["content"]


def test_answers_are_given_once(stdlib: Path) -> None:
    answers = Counter(key(r["messages"][-1]["content"]) for r in rows(stdlib, "qa.train") if r["facts"]["about"])
    assert answers.most_common(1)[0][1] == 1


def test_the_report(stdlib: Path) -> None:
    report = json.loads((stdlib / "corpus.json").read_text("utf-8"))
    assert report["counts"]["qa.train"] == len(rows(stdlib, "qa.train")) and list(report["packages"]) == ["stdlib"]
    assert report["licences"] == {"stdlib": "PSF-2.0"} and report["removed"]["exact copies"] > 0


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    chosen = options({"path": str(Path(email.__file__).parent)}, max_entries="100", validation_share="0.3")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build_corpus(chosen, tmp_path / name, Silent(), seed)
    assert folder_digest(tmp_path / "a") == folder_digest(tmp_path / "b") != folder_digest(tmp_path / "c")


PARAGRAPH = "The {w} is a thing of {w} kind. It grows in {w} places near water. People have known {w} for long. It is used in {w} work."


def test_a_folder_of_prose(tmp_path: Path) -> None:
    for i, word in enumerate(["apple", "birch", "cedar", "daisy", "elder", "fern", "grass", "hazel", "iris", "juniper"]):
        (tmp_path / f"{word}.{'md' if i % 2 else 'txt'}").write_text(("# " if i % 2 else "") + f"On {word}\n\n" + PARAGRAPH.format(w=word))
    (tmp_path / "zh.txt").write_text("苹果是一种常见的水果。它生长在北方的果园里。人们很早就开始种植它。")
    out = tmp_path / "out"
    report = build_corpus(options({"path": str(tmp_path)}, validation_share="0.3", mismatch_share="0.3"), out, Silent(), 1)
    assert report["counts"]["qa.train"] and report["counts"]["qa.validation"] and report["counts"]["text.validation"]
    every = rows(out, "qa.train") + rows(out, "qa.validation")
    cedar = next(r for r in every if r["facts"]["name"] in ("cedar", "On cedar") and r["facts"]["about"])
    assert cedar["messages"][1]["content"].startswith("The cedar is a thing") and "It grows in cedar" in cedar["messages"][0]["content"]
    zh = next(r for r in every if "果园" in r["messages"][0]["content"])
    assert zh["language"] == "zh" and (zh["messages"][1]["content"] == "苹果是一种常见的水果。" or not zh["facts"]["about"])


def test_a_folder_of_python_asks_about_its_docstrings(tmp_path: Path) -> None:
    told = {
        "open": "Begin to use the file at a path. Whoever begins must also end, and nobody else may begin before that.",
        "close": "End all use of a file. Buffers go to the disk first, so this may take a while on slow machines.",
        "read": "Give back the next bytes of it. Fewer come when the end is near, none when it was reached already.",
        "write": "Append some bytes to the file. They may wait in memory until there are enough for one block.",
        "seek": "Move to another position quickly. Positions count from zero; negative ones are refused with an error.",
        "tell": "Say where reading goes on next. On a pipe there is no such place and the question is an error.",
    }
    for i, (word, text) in enumerate(told.items()):
        summary, body = text.split(". ", 1)
        (tmp_path / f"m{i}.py").write_text(f'def {word}(path):\n    """{summary}.\n\n    {body}\n    """\n')
    (tmp_path / "bad.py").write_text("def (")
    build_corpus(options({"path": str(tmp_path)}, validation_share="0.3"), tmp_path / "out", Silent(), 1)
    names = {r["facts"]["name"] for side in ("train", "validation") for r in rows(tmp_path / "out", f"qa.{side}")}
    assert names == {f"m{i}.{word}" for i, word in enumerate(told)}
    assert rows(tmp_path / "out", "quarantine")[0]["file"] == "bad.py"
    build_corpus(options({"path": str(tmp_path), "python": "source"}, validation_share="0.3"), tmp_path / "src", Silent(), 1)
    assert any(r["text"].startswith("def open") for s in ("train", "validation") for r in rows(tmp_path / "src", f"text.{s}"))


def test_a_file_of_chats_gives_its_own_questions(tmp_path: Path) -> None:
    lines = [{"instruction": f"Name number {i}", "input": "", "output": f"It is called {i * 7919}."} for i in range(60)]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, [*lines, *lines, {"odd": 1}])))
    report = build_corpus(options({"path": str(tmp_path / "x.jsonl")}, validation_share="0.2"), tmp_path / "out", Silent(), 1)
    train, held = rows(tmp_path / "out", "qa.train"), rows(tmp_path / "out", "qa.validation")
    assert len(train) + len(held) == 60 and held and report["removed"]["exact copies"] == 60
    assert train[0]["messages"][0] == {"role": "user", "content": "Name number 0"} or held
    assert report["quarantined"]


@pytest.mark.parametrize(("content", "said"), [("too little", "too small to hold anything out"), (b"\xff\xfe\x00", "empty")])
def test_too_little_is_one_clear_error(tmp_path: Path, content: str | bytes, said: str) -> None:
    (tmp_path / "x.txt").write_bytes(content.encode() + b" text of some length here" if isinstance(content, str) else content)
    with pytest.raises(NormaError, match=said):
        build_corpus(options({"path": str(tmp_path / "x.txt")}), tmp_path / "out", Silent(), 1)


@pytest.mark.parametrize("source", [{}, {"path": "a", "hub": "b"}, {"folder": "a"}])
def test_a_source_is_exactly_one_thing(source: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        options(source)


def test_every_option_has_a_description() -> None:
    for schema in (CorpusOptions.model_json_schema(), CorpusOptions.model_json_schema()["$defs"]["CorpusSource"]):
        assert all("description" in field for field in schema["properties"].values())


# -- the parts


def source(name: str, language: str = "en") -> Source:
    return Source(name, "entry", name, name.rsplit(".", 1)[0], name, f"{name}(x)", f"Summary of {name} here.", "Body. " * 200, language)  # type: ignore[arg-type]


@given(st.randoms(use_true_random=False), st.integers(0, 5))
def test_rows_do_not_depend_on_the_order(shuffler: random.Random, seed: int) -> None:
    sources = [source(f"a{i % 5}.b{i}") for i in range(40)]
    shuffled = list(sources)
    shuffler.shuffle(shuffled)
    made = [Questions(s, seed=seed, chinese_share=0.3, mismatch_share=0.5, body_characters=50) for s in (sources, shuffled)]
    assert [made[0].question(s) for s in sources] == [made[1].question(s) for s in sources]


def test_a_lone_source_cannot_be_mismatched() -> None:
    only = [source("a.b"), source("c.B")]  # names that end alike are no honest mismatch
    questions = Questions(only, seed=0, chinese_share=0, mismatch_share=1, body_characters=50)
    assert all(questions.question(s)["facts"]["about"] for s in only)


def test_phrasings() -> None:
    for kind in ASK.values():
        for phrasings in kind.values():
            assert len(set(phrasings)) == len(phrasings) >= 6 and all("`{name}`" in p for p in phrasings)
    assert all(len(set(p)) >= 6 for p in SUMMARISE.values())


@given(st.text(max_size=60), st.integers(1, 40))
def test_cut_is_a_prefix(text: str, n: int) -> None:
    assert text.startswith(cut(text, n)) and len(cut(text, n)) <= n


def test_cut_ends_at_a_word() -> None:
    assert cut("one two three", 9) == "one two" and cut("one two three", 7) == "one two" and cut("没有空格的文字", 3) == "没有空"


@given(st.text(st.characters(codec="utf-8"), max_size=400), st.integers(20, 80))
def test_pieces_keep_the_text(text: str, n: int) -> None:
    found = pieces(text, n)
    assert all(0 < len(p) <= n for p in found)
    assert "".join("".join(found).split()) == "".join(text.split())


@given(st.text(max_size=10), st.integers(0, 9), st.floats(0.05, 0.5), st.floats(0.5, 0.95))
def test_a_larger_share_only_adds_to_validation(document: str, seed: int, small: float, large: float) -> None:
    if split(document, seed, small) == "validation":
        assert split(document, seed, large) == "validation"


def test_the_share_is_met() -> None:
    held = sum(split(f"d{i}", 1, 0.1) == "validation" for i in range(5000))
    assert 430 < held < 570  # 500 plus or minus three standard deviations


def test_leaks() -> None:
    candidates = [
        ("a.b", "The first of the sentences."),
        ("x.y", "Another sentence of these here."),
        ("q.r", "Too short."),
        ("m.n", "Quite unseen it is indeed."),
    ]
    training = ["Use pkg.a.b.c now.", "He said: another SENTENCE, of these here!", "too short.", "x.yy m.n2"]
    assert leaks(candidates, training) == {0, 1}


def test_novelty() -> None:
    novelty = Novelty()
    text = "the quick brown fox jumps over the lazy dog"
    assert novelty.share(novelty.runs(text)) == 1.0 == novelty.share(novelty.runs("too short"))
    novelty.learn(novelty.runs(text))
    assert novelty.share(novelty.runs(text.upper())) == 0.0
    assert novelty.share(novelty.runs("the quick brown fox sleeps")) == 0.5  # two runs of four words, one of them seen


def test_prose_needs_three_sentences() -> None:
    assert [s.summary for s in sources_of("One is here now. Two.\n\n" + PARAGRAPH.format(w="oak"), "T", "id", "d")] == [
        "The oak is a thing of oak kind."
    ]
