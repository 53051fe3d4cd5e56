"""Rows of tasks from people's files: tables without heads, SQuAD with wrong places, CoNLL, parallel files, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from norma.base.errors import NormaError
from norma.tasks.rows import key, read_rows
from norma.text.quarantine import Quarantine


def rows(path: Path, shape: str, columns: dict[str, str] | None = None, second: Path | None = None) -> list[dict[str, object]]:
    with Quarantine() as quarantine:
        return read_rows(path, shape, columns or {}, quarantine, second=second)  # type: ignore[arg-type]


def test_a_table_without_a_head_and_one_with(tmp_path: Path) -> None:
    plain = tmp_path / "a.tsv.gz"
    plain.write_bytes(gzip.compress(b"good film\t1\nbad film\t0\n"))
    found = rows(plain, "labels")
    assert [(r["text"], r["label"]) for r in found] == [("good film", "1"), ("bad film", "0")] and found[0]["id"] == "a:1"
    headed = tmp_path / "b.tsv"
    headed.write_text("label\ttext_a\ttext_b\n1\tone\ttwo\n", encoding="utf-8")
    assert rows(headed, "labels")[0] | {"id": ""} == {"id": "", "text": "one", "label": "1", "pair": "two"}


def test_columns_of_another_name(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("verdict,remark\nyes,fine\n", encoding="utf-8")
    with pytest.raises(NormaError, match=r"no column 'text'.*verdict, remark"):
        rows(file, "labels")
    assert rows(file, "labels", {"text": "remark", "label": "verdict"})[0]["label"] == "yes"


def test_squad_with_a_wrong_place_and_without_an_answer(tmp_path: Path) -> None:
    context = "Ada wrote it. Ada was born in London."
    qas = [
        {"id": "1", "question": "Where?", "answers": [{"text": "London", "answer_start": 3}]},
        {"id": "2", "question": "Who, in the second sentence?", "answers": [{"text": "Ada", "answer_start": 15}]},
        {"id": "3", "question": "When?", "answers": [], "is_impossible": True},
        {"id": "4", "question": "What?", "answers": [{"text": "a poem", "answer_start": 4}]},
    ]
    file = tmp_path / "s.json"
    file.write_text(json.dumps({"data": [{"paragraphs": [{"context": context, "qas": qas}]}]}), encoding="utf-8")
    found = rows(file, "questions")
    assert [[a["start"] for a in r["answers"]] for r in found] == [[30], [14], [], [-1]]  # type: ignore[attr-defined]
    assert context[30:36] == "London" and key(found[0]) == key(found[1]), "questions of one text are one source"
    file.write_text('{"data": [{"paragraphs": 3}]}', encoding="utf-8")
    with pytest.raises(NormaError, match="no SQuAD file"):
        rows(file, "questions")


def test_conll(tmp_path: Path) -> None:
    file = tmp_path / "a.conll"
    file.write_text("-DOCSTART- -X- O\n\nAda NNP B-PER\nsings VBZ O\n\nRome NNP B-LOC\n", encoding="utf-8")
    assert [(r["tokens"], r["labels"]) for r in rows(file, "tokens")] == [(["Ada", "sings"], ["B-PER", "O"]), (["Rome"], ["B-LOC"])]


def test_parallel_files(tmp_path: Path) -> None:
    one, two = tmp_path / "t.en", tmp_path / "t.de"
    one.write_text("A man.\n\nA dog.\n", encoding="utf-8")
    two.write_text("Ein Mann.\nNichts.\nEin Hund.\n", encoding="utf-8")
    assert [(r["source"], r["target"]) for r in rows(one, "texts", second=two)] == [("A man.", "Ein Mann."), ("A dog.", "Ein Hund.")]
    two.write_text("Ein Mann.\n", encoding="utf-8")
    with pytest.raises(NormaError, match=r"3 lines here, 1 in t.de"):
        rows(one, "texts", second=two)
    with pytest.raises(NormaError, match="file not found"):
        rows(tmp_path / "none.tsv", "labels")


def test_rows_that_cannot_be_used_are_set_aside(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "x", "label": null}\n{"text": " ", "label": 1}\n{"text": "y", "label": 2}\n', encoding="utf-8")
    with Quarantine() as quarantine:
        assert [r["label"] for r in read_rows(file, "labels", {}, quarantine)] == ["2"]
        assert len(quarantine) == 2
    file.write_text('{"tokens": ["a", "b"], "labels": ["O"]}\n', encoding="utf-8")
    with pytest.raises(NormaError, match="no row can be used"):
        rows(file, "tokens")
