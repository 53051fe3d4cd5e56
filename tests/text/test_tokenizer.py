"""The tokenizer: round trips, special tokens that a user types, the same ids as transformers."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.text.sampling import read_texts
from norma.text.tokenizer import BOS, END, PAD, SPECIAL_TOKENS, UNKNOWN, Tokenizer, character_tokenizer, train_tokenizer

LINES = ["What does `json.dumps` do? 12", "您好：`time.sleep` waits.", "Certainly: it returns 2024 values."] * 4
TOKENIZER = train_tokenizer(LINES, 340)


@given(st.text())
@example("  two  blanks\n\ttab é e\u0301 您好 🙂 \x00 <|end|><|pad|>")
@example("\ue000" + "0" + "\ue001")
@settings(max_examples=150, deadline=None)
def test_every_text_comes_back_and_never_as_a_special_token(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.decode(ids, skip_special=False) == unicodedata.normalize("NFC", text)
    assert not set(ids) & {TOKENIZER.backend.token_to_id(t) for t in SPECIAL_TOKENS}
    assert TOKENIZER.token_bytes(ids) == len(unicodedata.normalize("NFC", text).encode()) == TOKENIZER.byte_lengths()[ids].sum()


@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_special_tokens_are_text_unless_asked_for(token: str) -> None:
    special = TOKENIZER.backend.token_to_id(token)
    assert TOKENIZER.encode(f"a{token}b", special=True).count(special) == 1
    assert special not in TOKENIZER.encode(f"a{token}b"), "and the choice before is not inherited"
    assert TOKENIZER.decode(TOKENIZER.encode(f"a{token}b")) == f"a{token}b"
    assert TOKENIZER.decode([special]) == "" and TOKENIZER.decode([special], skip_special=False) == token


def test_digits_stand_alone_and_sizes_are_kept() -> None:
    assert len(train_tokenizer(LINES, 280)) == 280 and len(TOKENIZER) <= 340
    assert len(TOKENIZER.encode("2024")) == 4
    assert TOKENIZER.encode("What does") != TOKENIZER.encode("What  does") and len(TOKENIZER.encode("What does")) < 9
    assert [TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.pad_id] == [TOKENIZER.backend.token_to_id(t) for t in (BOS, END, PAD)]
    with pytest.raises(NormaError, match="too small"):
        train_tokenizer(LINES, 200)


CHARACTERS = character_tokenizer(["Ah!\n", "to be, 您"])


def test_characters_are_tokens_in_the_order_of_their_code_points(tmp_path: Path) -> None:
    first = len(SPECIAL_TOKENS) + 1
    assert CHARACTERS.encode("\n !,Abehot您") == list(range(first, first + 11)) and len(CHARACTERS) == first + 11
    assert CHARACTERS.byte_lengths()[CHARACTERS.encode("a 您" + "A!")].tolist() == [0, 1, 3, 1, 1], "what is unknown stands for no byte"
    assert CHARACTERS.encode("<|end|>").count(CHARACTERS.eos_id or 0) == 0, "what a user types stays text"
    CHARACTERS.save(tmp_path)
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("Ah! to be,\n\n  您", "", "b"):
        assert peer(text, add_special_tokens=False)["input_ids"] == CHARACTERS.encode(text) == Tokenizer.load(tmp_path).encode(text)
        assert peer.decode(CHARACTERS.encode(text)) == text == CHARACTERS.decode(CHARACTERS.encode(text))


@given(st.text())
def test_a_character_is_a_token_whatever_it_is(text: str) -> None:
    ids, unknown = CHARACTERS.encode(text), CHARACTERS.backend.token_to_id(UNKNOWN)
    assert [CHARACTERS.decode([i]) if i != unknown else None for i in ids] == [c if c in "\n !,Abehot您" else None for c in text]


def test_transformers_opens_it_and_gives_the_same_ids(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in (*LINES, "  odd   blanks \n\n 3.14 🙂 é", ""):
        assert peer(text, add_special_tokens=False)["input_ids"] == TOKENIZER.encode(text)
    assert (peer.bos_token_id, peer.eos_token_id, peer.pad_token_id) == (TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.pad_id)
    again = Tokenizer.load(tmp_path)
    assert again.config == TOKENIZER.config and again.encode(LINES[0]) == TOKENIZER.encode(LINES[0])


def test_a_template_beside_the_tokenizer_wins(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert Tokenizer.load(tmp_path).chat_template == "{{ messages[0].content }}"


def test_unreadable_folders_say_so(tmp_path: Path) -> None:
    with pytest.raises(NormaError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(NormaError, match="not a readable tokenizer"):
        Tokenizer.load(tmp_path)


def test_texts_are_read_from_text_and_question_rows(tmp_path: Path) -> None:
    rows = [{"text": "one"}, {"messages": [{"content": "two"}, {"content": "三"}]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert list(read_texts([tmp_path / "a.jsonl"])) == ["one", "two\n三"]
