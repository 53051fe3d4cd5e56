from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from norma.base.errors import NormaError
from norma.base.strict_yaml import load_yaml, parse_yaml, validate


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    steps: int
    rate: float = Field(0.5, ge=0)


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    parts: list[Part] = []
    named: dict[str, Part] = {}
    source: str = Field("", alias="from")


def test_plain_scalars_stay_text() -> None:
    data = parse_yaml("no: no\nversion: 1.10\nwhen: 2026-01-01\noctal: 010\nnothing: \ntilde: ~\nquoted: ''\nnull_text: 'null'\n").data
    assert data == {
        "no": "no",
        "version": "1.10",
        "when": "2026-01-01",
        "octal": "010",
        "nothing": None,
        "tilde": None,
        "quoted": "",
        "null_text": "null",
    }


def test_sixty_four_deep_is_still_read() -> None:
    assert str(parse_yaml("[" * 64 + "]" * 64).data) == "[" * 64 + "]" * 64


def test_text_is_nfc_normalised() -> None:
    assert parse_yaml("e\u0301: e\u0301").data == {"\u00e9": "\u00e9"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "f.yaml:4:3: the key 'c' stands twice"),
        ("\u00e9: 1\ne\u0301: 2\n", "f.yaml:2:1: the key '\u00e9' stands twice"),
        ("a: &x 1\n", "f.yaml:1:4: anchors and aliases"),
        ("a: *x\n", "f.yaml:1:4: anchors and aliases"),
        ("a: !!python/object:os.system 1\n", "f.yaml:1:4: the YAML tag"),
        ("<<: {a: 1}\n", "f.yaml:1:1: merge keys"),
        ("? [a]\n: 1\n", "f.yaml:1:3: a key must be plain text"),
        ("a: [1\n", "f.yaml:2:1: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1: not valid YAML"),
        ("a: \x07\n", "f.yaml: not valid YAML"),
        ("[" * 65 + "]" * 65, "f.yaml:1:65: lists or mappings are nested more than 64 deep"),
    ],
)
def test_what_is_refused_and_where(text: str, message: str) -> None:
    with pytest.raises(NormaError) as caught:
        parse_yaml(text, "f.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nparts:\n- step: 1\n", "f.yaml:3:3: the key 'steps' is missing. Add 'steps:'."),
        ("name: x\nparts:\n- steps: 1\n  stepz: 1\n", "f.yaml:4:3: unknown key 'stepz'. Did you mean 'steps'."),
        ("name: x\nnamed:\n  a: {steps: 1, rat: 2}\n", "f.yaml:3:17: unknown key 'rat'. Did you mean 'rate'."),
        ("name: x\nform: y\n", "f.yaml:2:1: unknown key 'form'. Did you mean 'from'."),
        ("name: x\nparts:\n- {steps: many}\n", "f.yaml:3:4: 'steps': input should be a valid integer"),
        ("name: x\nparts:\n- {steps: 1, rate: -1}\n", "f.yaml:3:14: 'rate': input should be greater than or equal to 0"),
        ("parts: []\n", "f.yaml:1:1: the key 'name' is missing"),
        ("", "f.yaml:1:1: the file holds nothing"),
    ],
)
def test_schema_errors_name_the_place_and_the_nearest_key(text: str, message: str) -> None:
    with pytest.raises(NormaError) as caught:
        validate(parse_yaml(text, "f.yaml"), Whole)
    assert str(caught.value).startswith(message), str(caught.value)


def test_declared_types_are_read_from_text() -> None:
    whole = validate(parse_yaml('name: no\nparts: [{steps: 3, rate: "0.25"}]\nfrom: here\n'), Whole)
    assert (whole.name, whole.parts[0].steps, whole.parts[0].rate, whole.source) == ("no", 3, 0.25, "here")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NormaError, match="file not found"):
        load_yaml(tmp_path / "absent.yaml")
    with pytest.raises(NormaError, match="folder, not a YAML file"):
        load_yaml(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(NormaError, match=r"not UTF-8 text \(byte 9\)"):
        load_yaml(tmp_path / "latin.yaml")
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfname: x")
    assert load_yaml(tmp_path / "bom.yaml").data == {"name": "x"}


keys = st.text(alphabet="abcXYZ_", min_size=1, max_size=4)
texts = st.text(alphabet=st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), max_size=12)
trees = st.recursive(texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=8)


@given(trees)
def test_what_yaml_writes_is_read_back_as_text(tree: object) -> None:
    """Oracle: PyYAML's own writer with every scalar quoted."""
    import unicodedata

    def nfc(value: object) -> object:
        if isinstance(value, str):
            return unicodedata.normalize("NFC", value)
        if isinstance(value, list):
            return [nfc(v) for v in value]
        assert isinstance(value, dict)
        return {k: nfc(v) for k, v in value.items()}

    class NoAliases(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    text = yaml.dump(tree, Dumper=NoAliases, default_style='"', allow_unicode=True)
    assert parse_yaml(text).data == nfc(tree)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        parse_yaml(text)
    except NormaError as error:
        assert "\n" not in str(error)
