from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.base.files import atomic_writer, commit_folder, disk_errors, read_json, read_jsonl, to_json, write_json, write_jsonl, write_text


def _names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_writer(path) as handle:
        handle.write("new, but not whole")
        raise RuntimeError
    assert path.read_text() == "old"
    assert _names(tmp_path) == ["a.txt"]


def test_a_writer_killed_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    code = (
        "import os, signal, sys; from pathlib import Path; from norma.base.files import atomic_writer\n"
        "with atomic_writer(Path(sys.argv[1])) as h:\n    h.write('new'); h.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], env={**os.environ, "PYTHONPATH": "src"}).returncode == -9
    assert path.read_text() == "old"


def test_folders_are_made_and_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "b.bin"
    with atomic_writer(path, "wb") as handle:
        handle.write(b"\r\n\xff")
    assert path.read_bytes() == b"\r\n\xff"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EEXIST])
def test_a_disk_that_refuses_is_one_clear_line(code: int) -> None:
    with pytest.raises(NormaError) as caught, disk_errors(Path("out/model")):
        raise OSError(code, "x")
    assert str(caught.value).startswith("out/model: ") and "\n" not in str(caught.value)


def test_other_system_errors_pass_through() -> None:
    with pytest.raises(FileNotFoundError), disk_errors(Path("x")):
        raise FileNotFoundError(errno.ENOENT, "x")


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NormaError, match="a file stands where a folder should be"):
        write_text(tmp_path / "file" / "below.txt", "x")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_json_goes_there_and_back_even_with_lone_surrogates(value: object) -> None:
    text = to_json(value)
    assert json.loads(text.encode().decode()) == value
    assert "\n" not in text


def test_a_lone_surrogate_is_escaped_and_chinese_stays_readable() -> None:
    assert to_json(["\ud800"]) == '["\\ud800"]'
    assert to_json(["您好"]) == '["您好"]'


def test_rows_and_their_count(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert write_jsonl(path, [{"a": 1}, "\u2028", {"b": "\ud83d"}]) == 3
    assert len(path.read_bytes().split(b"\n")) == 4  # three lines and the end
    assert read_jsonl(path) == [{"a": 1}, "\u2028", {"b": "\ud83d"}]


def test_not_a_number_is_refused_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert _names(tmp_path) == []


def test_bad_files_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(NormaError, match=r"rows\.jsonl:3: not JSON"):
        read_jsonl(path)
    path.write_bytes(b'"\xff"\n')
    with pytest.raises(NormaError, match="not UTF-8"):
        read_jsonl(path)
    with pytest.raises(NormaError, match="not readable as JSON"):
        read_json(path)
    for read in (read_json, read_jsonl):
        with pytest.raises(NormaError, match="file not found"):
            read(tmp_path / "absent")
        with pytest.raises(NormaError, match="this is a folder"):
            read(tmp_path)


def test_a_committed_folder_replaces_the_older_artefact(tmp_path: Path) -> None:
    final = tmp_path / "model"
    for text in ("first", "second"):
        work = tmp_path / "work"
        work.mkdir()
        (work / "weights").write_text(text)
        commit_folder(work, final)
        assert (final / "weights").read_text() == text
    assert _names(tmp_path) == ["model"]
