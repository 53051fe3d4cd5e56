"""Readers: every format, every kind of broken file; a bad row costs itself and no other."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.text.formats import is_header, suffix
from norma.text.quarantine import Quarantine
from norma.text.readers import files_of, read

# Anything a JSON string may hold, save what is set aside: NUL and halves of surrogate pairs.
words = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=30)


def rows_of(path: Path | str) -> tuple[list[dict[str, object]], list[tuple[int, str]]]:
    quarantine = Quarantine()
    rows = [record.fields for record in read(path, quarantine)]
    return rows, [(line, reason) for _, line, reason in quarantine.first]


def put(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = data.encode() if isinstance(data, str) else data
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_every_format_plain_and_zipped(tmp_path: Path, ending: str) -> None:
    rows = [{"a": "one two", "b": "3"}, {"a": "四五", "b": "6"}]
    lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    assert rows_of(put(tmp_path, "x.jsonl" + ending, lines)) == (rows, [])
    assert rows_of(put(tmp_path, "x.json" + ending, json.dumps(rows, indent=1))) == (rows, [])
    assert rows_of(put(tmp_path, "x.csv" + ending, "a,b\r\none two,3\r\n四五,6\r\n")) == (rows, [])
    assert rows_of(put(tmp_path, "x.tsv" + ending, "a\tb\none two\t3\n四五\t6")) == (rows, [])
    assert rows_of(put(tmp_path, "x.txt" + ending, "hello\nworld\n"))[0] == [{"title": "x", "text": "hello\nworld"}]
    assert rows_of(put(tmp_path, "x.py" + ending, "a = 1\n"))[0] == [{"title": "x", "text": "a = 1\n"}]


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"text": "one", "n": 1}, {"text": "two", "n": 2}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    assert rows_of(tmp_path / "x.parquet") == (rows, [])
    put(tmp_path, "y.parquet.gz", (tmp_path / "x.parquet").read_bytes())
    assert rows_of(tmp_path / "y.parquet.gz") == (rows, [])
    with pytest.raises(NormaError, match="not Parquet"):
        rows_of(put(tmp_path, "broken.parquet", b"PAR1 nothing"))


@pytest.mark.parametrize(("module", "source"), [("pyarrow", "x.parquet"), ("datasets", "hub:owner/name")])
def test_missing_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, source: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(NormaError, match=r"pip install 'norma-lm\[data\]'"):
        rows_of(source if source.startswith("hub:") else tmp_path / source)


def test_bad_rows_are_set_aside_with_line_and_reason(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        "x.jsonl",
        b'\xef\xbb\xbf{"a": "ok"}\r\n{"a": "caf\xe9"}\n\n{broken\n[1]\n{"a": " "}\n{"a": NaN}\n'
        b'{"a": "n\\u0000ul"}\n{"a": "\\ud800"}\n{"a": 2}',
    )
    rows, bad = rows_of(path)
    assert rows == [{"a": "ok"}, {"a": 2}]
    assert [line for line, _ in bad] == [2, 4, 5, 6, 7, 8, 9]
    for (_, reason), said in zip(bad, ["not UTF-8", "not JSON", "named columns", "empty", "NaN", "NUL", "surrogate"], strict=True):
        assert said in reason


def test_a_truncated_archive_gives_the_rows_before_the_break(tmp_path: Path) -> None:
    whole = gzip.compress("".join(json.dumps({"a": str(hash(str(i)))}) + "\n" for i in range(5000)).encode())
    (tmp_path / "x.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    rows, bad = rows_of(tmp_path / "x.jsonl.gz")
    assert 100 < len(rows) < 5000 and "broken" in bad[-1][1]
    (tmp_path / "y.txt.gz").write_bytes(b"not gzip at all")
    with pytest.raises(NormaError, match="no usable row"):
        rows_of(tmp_path / "y.txt.gz")


def test_a_list_that_breaks_off_gives_the_elements_before(tmp_path: Path) -> None:
    rows, bad = rows_of(put(tmp_path, "x.json", '[{"a": "1"},\n {"a": "2"},\n {"a": '))
    assert rows == [{"a": "1"}, {"a": "2"}] and bad[0][0] == 3


def test_json_that_wraps_its_rows(tmp_path: Path) -> None:
    assert rows_of(put(tmp_path, "a.json", '{"version": 1, "data": [{"a": "1"}]}'))[0] == [{"a": "1"}]
    assert rows_of(put(tmp_path, "b.json", '{"x": {"a": "1"}, "y": {"a": "2"}}'))[0] == [{"key": "x", "a": "1"}, {"key": "y", "a": "2"}]
    assert rows_of(put(tmp_path, "c.json", '{"a": "1"}\n{"a": "2"}\n'))[0] == [{"a": "1"}, {"a": "2"}]  # JSON lines by another name
    assert rows_of(put(tmp_path, "d.json", '["some text", "more text"]'))[0] == [{"text": "some text"}, {"text": "more text"}]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("x.txt", b"", "empty file"),
        ("x.txt", b" \n\n ", "empty file"),
        ("x.txt", "hello".encode("utf-16"), "UTF-16"),
        ("x.txt", bytes(range(256)) * 20, "binary"),
        ("x.jsonl", b"\n\n", "empty file"),
        ("x.csv", b"a,b\n", "empty file"),
        ("x.txt", b"caf\xe9", "not UTF-8"),
    ],
)
def test_nothing_usable_is_one_clear_error(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    with pytest.raises(NormaError) as caught:
        rows_of(put(tmp_path, name, data))
    assert said in str(caught.value) and name in str(caught.value) and "\n" not in str(caught.value)


def test_missing_path_and_folder_without_text(tmp_path: Path) -> None:
    with pytest.raises(NormaError, match="file not found"):
        rows_of(tmp_path / "nowhere.txt")
    put(tmp_path, "picture.png", b"\x89PNG")
    with pytest.raises(NormaError, match="no readable file"):
        rows_of(tmp_path)


def test_a_folder_is_read_in_order_and_links_cannot_catch_it(tmp_path: Path) -> None:
    put(tmp_path, "b/two.txt", "two")
    put(tmp_path, "a/deep/er/one.md", "one")
    put(tmp_path, ".hidden/no.txt", "no")
    put(tmp_path, "c.bin", b"no")
    (tmp_path / "b" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "z.txt").symlink_to(tmp_path / "b" / "two.txt")
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "gone")
    assert next(name for _, name in files_of(tmp_path)) == "a/deep/er/one.md"
    assert sorted(str(r["text"]) for r in rows_of(tmp_path)[0]) == ["one", "two"]


def test_text_blocks_keep_every_line_and_bad_lines_end_a_block(tmp_path: Path) -> None:
    lines = [f"line {i} " + "x" * 50 if i % 7 else "" for i in range(400)]
    rows, _ = rows_of(put(tmp_path, "x.txt", "\n".join(lines)))
    assert len(rows) > 5 and max(len(str(r["text"])) for r in rows) <= 4_100
    assert [line for r in rows for line in str(r["text"]).split("\n") if line] == [line for line in lines if line]
    rows, bad = rows_of(put(tmp_path, "y.txt", b"one\ntw\xff\nthr\0ee\nfour\r\nfive\rsix"))
    assert [r["text"] for r in rows] == ["one", "four\nfive\nsix"] and [line for line, _ in bad] == [2, 3]


def test_markdown_headings_are_titles(tmp_path: Path) -> None:
    text = "---\ntitle: no\n---\n# First\nalpha\n```\n# not a heading\n```\n## Second ##\nbeta\n"
    rows, _ = rows_of(put(tmp_path, "x.md", text))
    assert [(r["title"], str(r["text"]).splitlines()[-1]) for r in rows] == [("First", "```"), ("Second", "beta")]


def test_tables(tmp_path: Path) -> None:
    assert is_header(["label", "text_a"]) and is_header(["", "split", "TEXT"]) and is_header(["Normalized Score", "Id"])
    assert not is_header(["a fine film .", "1"]) and not is_header(["Hi.", "嗨。"]) and not is_header(["a", "a"])
    rows, bad = rows_of(put(tmp_path, "x.csv", b'name,said\nA,"two\nlines, ""quoted"""\nB\nC,"caf' + b'\xe9"\nD,ok\n'))
    assert rows == [{"name": "A", "said": 'two\nlines, "quoted"'}, {"name": "D", "said": "ok"}]
    assert [reason.split(" (")[0] for _, reason in bad] == ["wrong number of columns", "not UTF-8 text"]
    rows, _ = rows_of(put(tmp_path, "y.tsv", 'a 5" screen\t1\n"quoted ""cell"""\t0\n'))
    assert rows == [{"column1": 'a 5" screen', "column2": "1"}, {"column1": 'quoted "cell"', "column2": "0"}]


@given(st.lists(st.fixed_dictionaries({"a": words.map(lambda t: t + "."), "b": words}), min_size=1, max_size=8))
def test_what_json_wrote_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("json")
    assert rows_of(put(folder, "x.jsonl.gz", "\n".join(json.dumps(r) for r in rows))) == (rows, [])
    assert rows_of(put(folder, "x.json", json.dumps(rows)))[0] == rows


# Python's own writer is the oracle; line ends inside cells are kept as they are only when they are \n or \r\n.
cells = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20).filter(lambda t: t.strip())


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=8))
def test_what_csv_wrote_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    held = io.StringIO()
    csv.writer(held).writerows([("first", "second"), *rows])
    read_back, bad = rows_of(put(tmp_path_factory.mktemp("csv"), "x.csv", held.getvalue()))
    assert [tuple(r.values()) for r in read_back] == rows and not bad


@given(st.binary(max_size=300), st.sampled_from([".txt", ".md", ".json", ".jsonl", ".csv", ".tsv", ".py", ".txt.gz", ".jsonl.gz"]))
def test_no_bytes_cause_anything_but_a_clear_error(tmp_path_factory: pytest.TempPathFactory, data: bytes, ending: str) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"x{ending}"
    path.write_bytes(data)
    quarantine = Quarantine()
    try:
        for row in read(path, quarantine):
            json.dumps(row.fields, ensure_ascii=False).encode()  # usable rows can be written as UTF-8
    except NormaError:
        assert len(quarantine)


def test_quarantine_file_is_json_lines(tmp_path: Path) -> None:
    with Quarantine(tmp_path / "q.jsonl") as quarantine:
        quarantine.add("bad\udcff.txt", 3, "two\nlines (detail)")
    assert json.loads((tmp_path / "q.jsonl").read_text("utf-8")) == {"file": "bad?.txt", "line": 3, "reason": "two lines (detail)"}
    assert quarantine.reasons == {"two lines": 1} and suffix(Path("a.b.JSONL.gz")) == ".jsonl"
