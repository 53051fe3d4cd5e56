"""Token shards: what was written is read, in views, and what is damaged is named."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.text.shards import MANIFEST, Made, Shards, ShardWriter

MADE = Made(tokenizer="ab" * 32, vocab_size=50_000, pad=3, marks=True, segmenter="characters")


def write(folder: Path, documents: list[list[int]], *, together: int = 3, shard_tokens: int = 20, made: Made = MADE) -> Shards:
    """Documents with flags token % 16, ``together`` of them at a time."""
    with ShardWriter(folder, made, shard_tokens=shard_tokens) as writer:
        for at in range(0, len(documents), together):
            part = documents[at : at + together]
            tokens = np.array([t for d in part for t in d], dtype=np.int64)
            writer.add(tokens, (tokens % 16).astype(np.uint8), np.array([len(d) for d in part]), 2 * len(tokens))
    return Shards(folder)


def numbered(lengths: list[int]) -> list[list[int]]:
    """Document i holds i * 100, i * 100 + 1, ..."""
    return [[i * 100 + j for j in range(n)] for i, n in enumerate(lengths)]


def test_files_by_hand(tmp_path: Path) -> None:
    shards = write(tmp_path / "s", [[7, 258], [9], [], [1, 2, 3, 4, 5]], shard_tokens=4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s"]
    raw = {p.name: p.read_bytes() for p in (tmp_path / "s").iterdir() if p.name != MANIFEST}
    assert raw == {
        "tokens-00000.bin": bytes([7, 0, 2, 1, 9, 0]),
        "flags-00000.bin": bytes([7, 2, 9]),
        "offsets-00000.bin": np.array([0, 2, 3, 3], "<i8").tobytes(),
        "tokens-00001.bin": bytes([1, 0, 2, 0, 3, 0, 4, 0, 5, 0]),  # longer than a shard: one of its own
        "flags-00001.bin": bytes([1, 2, 3, 4, 5]),
        "offsets-00001.bin": np.array([0, 5], "<i8").tobytes(),
    }
    manifest = json.loads((tmp_path / "s" / MANIFEST).read_text())
    assert {k: manifest[k] for k in ("format", "dtype", "vocab_size", "documents", "tokens", "bytes")} == {
        "format": 1,
        "dtype": "uint16",
        "vocab_size": 50_000,
        "documents": 4,
        "tokens": 8,
        "bytes": 16,
    }
    assert manifest["shards"][0]["files"]["tokens"] == {"size": 6, "sha256": hashlib.sha256(bytes([7, 0, 2, 1, 9, 0])).hexdigest()}
    assert (shards.made, shards.documents, shards.tokens, shards.bytes, len(shards)) == (MADE, 4, 8, 16, 4)


@given(st.lists(st.integers(0, 30), max_size=25), st.integers(1, 7), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, lengths: list[int], together: int, limit: int) -> None:
    documents = numbered(lengths)
    folder = tmp_path_factory.mktemp("shards") / "s"
    shards = write(folder, documents, together=together, shard_tokens=limit)
    shards.verify()
    for number, document in enumerate(documents):
        tokens, flags = shards.document(number)
        assert tokens.tolist() == document and flags.tolist() == [t % 16 for t in document]
    stream = [t for d in documents for t in d]
    first = np.concatenate([[0], np.cumsum(lengths)])[:-1].astype(int).tolist()
    assert shards.tokens == len(stream) and shards.digest == write(folder, documents, together=7 - together + 1, shard_tokens=limit).digest
    for start, end in [(0, len(stream)), (len(stream) // 3, 2 * len(stream) // 3), (len(stream), len(stream))]:
        spans = list(shards.spans(start, end))
        assert [t for s in spans for t in s.tokens.tolist()] == stream[start:end]
        assert [f for s in spans for f in s.flags.tolist()] == [t % 16 for t in stream[start:end]]
        places = np.cumsum([0, *(len(s.tokens) for s in spans)])
        begins = {start + int(at) + b for at, s in zip(places, spans, strict=False) for b in s.begins.tolist()}
        assert begins == {f for f in first if start <= f < end}


def test_documents_are_views_that_cannot_be_written(tmp_path: Path) -> None:
    shards = write(tmp_path / "s", numbered([5, 6]), shard_tokens=100)
    (one, _), (other, flags) = shards.document(0), shards.document(1)
    assert not one.flags.owndata and one.base is not None and other.base is one.base, "two views of one mapped file"
    with pytest.raises(ValueError, match="read-only"):
        flags[0] = 1
    for number in (-1, 2):
        with pytest.raises(IndexError):
            shards.document(number)
    with pytest.raises(IndexError):
        list(shards.spans(3, 12))


def test_the_width_follows_the_vocabulary(tmp_path: Path) -> None:
    for size, kind in ((65_536, np.uint16), (65_537, np.uint32)):
        shards = write(tmp_path / str(size), [[size - 1, 0]], made=Made("", size, 0, False, ""))
        tokens, _ = shards.document(0)
        assert tokens.dtype == kind and tokens.tolist() == [size - 1, 0]
    with pytest.raises(ValueError, match="outside the vocabulary"):
        write(tmp_path / "over", [[10]], made=Made("", 10, 0, False, ""))
    with ShardWriter(tmp_path / "uneven", MADE) as writer, pytest.raises(ValueError, match="2 tokens, 1 flags, lengths of 2"):
        writer.add(np.array([1, 2]), np.array([0], np.uint8), np.array([2]), 0)


@pytest.mark.parametrize("kind", ["tokens", "flags", "offsets"])
def test_damage_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s" / f"{kind}-00001.bin"
    write(tmp_path / "s", numbered([9, 9, 9, 9]))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(NormaError, match=rf"{kind}-00001.bin: damaged: it has \d+ bytes, not {len(whole)}"):
        Shards(tmp_path / "s")
    path.write_bytes(whole[:10] + bytes([whole[10] ^ 1]) + whole[11:])
    with pytest.raises(NormaError, match=f"{kind}-00001.bin: damaged: its checksum"):
        Shards(tmp_path / "s").verify()
    path.unlink()
    with pytest.raises(NormaError, match=rf"{kind}-00001.bin: .* is missing\. Make the shards again"):
        Shards(tmp_path / "s")


def test_a_bad_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(NormaError, match=r"not a folder of token shards \(it has no manifest.json\)"):
        Shards(tmp_path)
    write(tmp_path / "s", numbered([9, 9, 9]))
    path = tmp_path / "s" / MANIFEST
    good = json.loads(path.read_text())
    for change, what in [
        ({"format": 2}, "shards of format 2, not 1"),
        ({"tokens": 5}, "its counts do not add up"),
        ({"dtype": "float32"}, "KeyError: 'float32'"),
        ({"shards": None}, "damaged"),
        ({"documents": "many"}, "damaged"),
    ]:
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(NormaError, match=what):
            Shards(tmp_path / "s")
    del good["pad"]
    path.write_text(json.dumps(good))
    with pytest.raises(NormaError, match=r"manifest.json: damaged \(KeyError: 'pad'\)"):
        Shards(tmp_path / "s")
    path.write_text("{")
    with pytest.raises(NormaError, match="not readable as JSON"):
        Shards(tmp_path / "s")
    offsets = tmp_path / "s" / "offsets-00000.bin"
    path.write_text(json.dumps({**good, "pad": 0}))
    offsets.write_bytes(np.array([0, 9, 17], "<i8").tobytes())
    with pytest.raises(NormaError, match="its documents do not fill the shard"):
        Shards(tmp_path / "s")


def test_a_full_disk_is_one_line_and_leaves_the_old_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "s"
    before = write(folder, numbered([3])).digest
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(NormaError) as caught, ShardWriter(folder, MADE) as writer:
        # Every byte written to /dev/full fails as on a full disk.
        writer._files["tokens"].handle.close()
        writer._files["tokens"].handle = open("/dev/full", "wb", buffering=0)  # noqa: SIM115, PTH123
        writer.add(np.arange(9), np.zeros(9, np.uint8), np.array([9]), 9)
    assert "tokens-00000.bin: no space left on the disk. Free some space" in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None and getattr(caught.value.__cause__, "errno", 0) == errno.ENOSPC
    assert [p.name for p in tmp_path.iterdir()] == ["s"] and Shards(folder).digest == before


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.txt").write_text("years of work")
    with pytest.raises(NormaError, match="this folder holds other files"):
        write(tmp_path / "s", numbered([3]))
    assert (tmp_path / "s" / "thesis.txt").read_text() == "years of work"


def test_a_kill_leaves_nothing_half_written(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import os, signal, sys, pathlib, numpy as np
        from norma.text.shards import Made, ShardWriter
        with ShardWriter(pathlib.Path(sys.argv[1]), Made("", 100, 0, False, ""), shard_tokens=50) as writer:
            for _ in range(9):
                writer.add(np.arange(20), np.zeros(20, np.uint8), np.array([20]), 20)
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "s")], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == -9 and not (tmp_path / "s").exists() and [p.name for p in tmp_path.iterdir()] == [".s.partial"]
    assert write(tmp_path / "s", numbered([4])).document(0)[0].tolist() == [0, 1, 2, 3]
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
