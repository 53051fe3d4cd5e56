"""Where words, sentences and paragraphs begin in a text, and so which of its tokens begin one.

    text ─→ line breaks ──────────────→ paragraphs ─┐
         ─→ full stops ───────────────→ sentences ──┤ first character of each ─┐
         ─→ letters, numbers, signs ──→ words ──────┘                          ├─→ one byte of flags for each token
               └→ Chinese ─→ jieba      tokens ─→ last character of each ──────┘

What whole-word masking, span corruption and sentence shuffling need to know. A token begins a word if a word begins
after the last character of the tokens before it and not after its own: this holds also for tokens that are one byte of
a character, that carry the space before them, or whose tokenizer drops spaces.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from itertools import chain

import numpy as np
import numpy.typing as npt

WORD, SENTENCE, PARAGRAPH, SPECIAL = 1, 2, 4, 8
CHARACTERS = "characters"  # the segmenter that makes each Chinese character a word

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.uint8]

_HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_MARKS = "".join(c for c in map(chr, range(0x300, 0x10000)) if unicodedata.category(c)[0] == "M")  # accents, vowel signs
_LETTERS = rf"[^\W\d_{_HAN}](?:[^\W\d_{_HAN}]|[{_MARKS}])*"
_CHINESE = re.compile(f"[{_HAN}]")
# In every text, each character falls into one unit. One space goes with what follows it, as in most vocabularies.
# Chinese without a sign in between goes to jieba 256 characters at a time: its search takes time with the square.
_UNIT = re.compile(rf"\s+(?= \S)| ?(?:[{_HAN}]{{1,256}}|{_LETTERS}(?:['’]{_LETTERS})*|\d+(?:[.,]\d+)*|\S)|\s+")
_WRAP = 100  # a text whose lines are all shorter, and that has blank lines, is one whose lines were broken for the screen
_BREAK = re.compile(r"\n\s*")
# Patterns that eat all they look at: one that looked ahead would take a million dots a million times.
_CHINESE_STOP = re.compile(r"[。！？｡][。！？｡!?]*[”’」』）》】\"']*\s*")
_STOP = re.compile(r"([.!?]+)[”’\"')\]]*(\s*)")
_OPENING = "\"'“‘(["
_TITLE = re.compile("mr|mrs|ms|dr|prof|st|mt|gen|col|capt|lt|sgt|maj|rev|hon|gov|sen|rep|messrs|vs|cf", re.IGNORECASE)
_COUNTED = re.compile("nos?|vol|figs?|eqs?|pp?|ch|sec|art|ca|approx|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec", re.IGNORECASE)
_BEFORE = re.compile(r"[^\s(\[\"'“‘]*$")


def flags_of(text: str, ends: Ints) -> Flags:
    """Flags (WORD, SENTENCE, PARAGRAPH) of the tokens of ``text``, (N,) uint8.

    Args:
        ends: for each token the place after its last character, (N,), as the ``offsets`` of the ``tokenizers`` library say.

    The first token has all three; each PARAGRAPH is a SENTENCE, and each SENTENCE a WORD.
    """
    out = np.zeros(len(ends), dtype=np.uint8)
    last = np.maximum(ends, 1)  # a token of no characters counts as the text's first
    for bit, places in zip((WORD, SENTENCE, PARAGRAPH), starts(text), strict=True):
        begun = np.maximum.accumulate(np.searchsorted(places, last))
        out[np.diff(begun, prepend=0) > 0] |= bit
    return out


def starts(text: str) -> tuple[Ints, Ints, Ints]:
    """The places (characters from 0, ascending) at which words, sentences and paragraphs of ``text`` begin.

    Words are runs of letters (with accents, and apostrophes inside), numbers, Chinese words, runs of white space, and any
    other character by itself; each begins with the one space before it. The other two are among them.
    """
    units = _UNIT.findall(text)
    if has_chinese(text):
        units = list(chain.from_iterable(map(_divide, units)))
    lengths = np.fromiter(map(len, units), np.int64, len(units))
    words = np.cumsum(lengths) - lengths
    paragraphs = _paragraphs(text)
    return words, _within(words, [*paragraphs, *_sentences(text)]), _within(words, paragraphs)


def _divide(unit: str) -> list[str]:
    """The words of a unit, in Chinese there may be several; the space before it stays with the first."""
    if not has_chinese(unit):
        return [unit]
    first, *others = segmenter()(unit.lstrip(" "))
    return [" " + first if unit[0] == " " else first, *others]


def _within(words: Ints, begin: Iterable[int]) -> Ints:
    """The places of the words that hold the characters at ``begin``; a text's first word is always one."""
    return words[np.unique(np.searchsorted(words, np.array([0, *begin], dtype=np.int64), side="right") - 1)] if len(words) else words


def _paragraphs(text: str) -> list[int]:
    lead = len(text) - len(text.lstrip())
    breaks = [m for m in _BREAK.finditer(text) if lead < m.end() < len(text)]
    blank = [m.group().count("\n") > 1 for m in breaks]
    if any(blank) and max(map(len, text.splitlines())) <= _WRAP:
        # A line that begins in Chinese is a paragraph all the same: no space was there to break it at.
        return [m.end() for m, empty in zip(breaks, blank, strict=True) if empty or _CHINESE.match(text, m.end())]
    return [m.end() for m in breaks]


def _sentences(text: str) -> list[int]:
    """Places after full stops, and after the quotation marks and white space that follow them."""
    found = [m.end() for m in _CHINESE_STOP.finditer(text) if m.end() < len(text)]
    for m in _STOP.finditer(text):
        if m.end() < len(text) and (_ends(text, m) if m.group(2) else _before_chinese(text, m)):
            found.append(m.end())
    return found


def _before_chinese(text: str, stop: re.Match[str]) -> bool:
    return "." not in stop.group(1) and _CHINESE.match(text, stop.end()) is not None


def _ends(text: str, stop: re.Match[str]) -> bool:
    """Whether a stop with white space after it ends a sentence: what follows is no small letter, what precedes no abbreviation."""
    following = text[stop.end() : stop.end() + 4].lstrip(_OPENING)[:1]
    if not following.isalnum() or following.islower():
        return False
    if stop.group(1) != ".":
        return True
    match = _BEFORE.search(text[max(0, stop.start() - 24) : stop.start()])
    word = match.group() if match else ""
    initial = len(word) == 1 and word.isupper() and word != "I"
    dotted = "." in word and word.replace(".", "").isalpha()
    return not (initial or dotted or _TITLE.fullmatch(word) or (following.isdigit() and _COUNTED.fullmatch(word)))


@cache
def segmenter() -> Callable[[str], Iterable[str]]:
    """What divides Chinese into words: jieba (dictionary and hidden Markov model) where it is installed, else ``list``."""
    if segmenter_name() == CHARACTERS:
        return list
    jieba = importlib.import_module("jieba")
    jieba.setLogLevel("WARNING")
    tokenizer = jieba.Tokenizer()
    # jieba keeps its dictionary in the machine's common temporary folder and would believe whatever file lies there.
    with tempfile.TemporaryDirectory() as own:
        tokenizer.tmp_dir = own
        tokenizer.initialize()
    cut: Callable[[str], Iterable[str]] = tokenizer.cut
    return cut


@cache
def segmenter_name() -> str:
    """``jieba`` with its version, or ``characters``: belongs into what says how data were made."""
    try:
        return f"jieba {importlib.metadata.version('jieba')}"
    except importlib.metadata.PackageNotFoundError:
        return CHARACTERS


def has_chinese(text: str) -> bool:
    """Whether ``text`` holds a Chinese character, so that the segmenter matters."""
    return _CHINESE.search(text) is not None
