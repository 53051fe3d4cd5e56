from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.base.hashing import canonical, digest, file_digest, folder_digest


def test_canonical_text_by_hand() -> None:
    assert canonical({"b": [1, 0.5, None, True], "a": "é"}) == '{"a":"é","b":[1,"0.5",null,true]}'
    # sha256 of {"a":1}, as `printf '{"a":1}' | sha256sum` gives it
    assert digest({"a": 1}) == "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"


def test_decomposed_letters_equal_composed_ones_in_values_and_keys() -> None:
    assert digest({"e\u0301": "e\u0301"}) == digest({"\u00e9": "\u00e9"})


@given(st.dictionaries(st.text(alphabet="abcd", min_size=1), st.integers() | st.text(alphabet="xyz"), max_size=6))
def test_order_of_keys_never_matters(value: dict[str, object]) -> None:
    assert digest(dict(reversed(list(value.items())))) == digest(value)
    assert json.loads(canonical(value)) == value


def test_kinds_that_are_alike_hash_alike() -> None:
    assert digest((1, 2)) == digest([1, 2])
    assert digest({3, 1, 2}) == digest([1, 2, 3])
    assert digest(np.float64(0.5)) == digest(0.5)
    assert digest(Path("a/b")) == digest("a/b")
    assert digest(1) != digest(True)
    assert digest({"\ud800"}) == digest(["\ud800"])  # text that UTF-8 cannot hold still has a digest


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="cannot hash"):
        digest({"x": bad})


def test_unknown_kinds_and_ambiguous_keys_are_refused() -> None:
    with pytest.raises(TypeError, match="cannot hash a object"):
        digest(object())
    with pytest.raises(ValueError, match="equal as text"):
        digest({1: "a", "1": "b"})


def test_folder_digest_sees_names_and_bytes_but_no_clocks(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w").write_bytes(b"123")
    before = folder_digest(tmp_path)
    assert file_digest(tmp_path / "sub" / "w") == hashlib.sha256(b"123").hexdigest()
    (tmp_path / "metrics.jsonl").write_text("{}")
    (tmp_path / ".w.123.tmp").write_text("left by a kill")
    assert folder_digest(tmp_path) == before
    (tmp_path / "sub" / "w").rename(tmp_path / "sub" / "v")
    assert folder_digest(tmp_path) != before
    with pytest.raises(NormaError, match="no such folder"):
        folder_digest(tmp_path / "absent")
