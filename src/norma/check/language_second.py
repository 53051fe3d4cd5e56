"""Second opinions on the language of an answer, by other methods than `language_match`: made to be held out.

function_words    the little words that only one language has (the, of, is; 的、是、了), quotations included
script_switches   how often the script changes within a sentence, brackets and borrowed words included
code_in_place     a name stands in a sentence of its own, and no altered copy of it stands anywhere
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from norma.check.language_match import ScriptParams, asked_language
from norma.check.lexicon import word_set
from norma.check.persons import NoParams
from norma.check.program import Outcome, program
from norma.check.segment import family, sentences
from norma.spec.types import Item

_EN = word_set(
    """
    the a an of to in on at by for with from into as and or but if then than that this these those it its is are was were be been do does
    did not no so can will would has have had which who what when where how there you your they he she we i our their my all each one
    """
)
_ZH = re.compile("[的是了在不有和这我你您他她它们就也都与或及而为以之被把对从到请会能可要]|因为|所以")
_CODE = re.compile(r"```.*?```|`[^`\n]*`|https?://\S+", re.DOTALL)


@program("function_words", ScriptParams, languages=("en", "zh"), catches=("other_language",), threshold=0.7)
def function_words(item: Item, text: str, params: ScriptParams) -> Outcome:
    """Most function words are of the language expected; where there are none, most letters are; score: the share, from .7 on."""
    language = asked_language(item) if params.of == "asked" else family(item.language)
    plain = _CODE.sub(" ", text)
    english = sum(w.lower() in _EN for w in re.findall(r"\b[A-Z]?[a-z]+\b", plain))  # the A of A[1] is none
    chinese = len(_ZH.findall(plain))
    if english + chinese < 2:
        if language == "zh":
            plain = re.sub(r"[A-Z0-9][\w.+-]*|\b[a-z]\b", " ", plain)  # names and letters belong to every language
        english, chinese = len(re.findall(r"[A-Za-z]", plain)), 3 * len(re.findall(r"[\u4e00-\u9fff]", plain))
    total = english + chinese
    share = (english if language == "en" else chinese) / total if total else 1.0
    return Outcome(share, (), f"{english} English, {chinese} Chinese")


_PIECE = re.compile(r"[\u4e00-\u9fff]+|[a-z][a-z'-]+(?:[ ,]+[a-z][a-z'-]+)*")
_QUOTED = re.compile(r"[“\"「『《][^”\"」』》\n]*[”\"」』》]")
_MOST = 1  # quoted or given pieces of the other script that one sentence may hold


@program("script_switches", NoParams, languages=("en", "zh"))
def script_switches(item: Item, text: str, params: NoParams) -> Outcome:
    """No piece of the other script but quoted or given ones, and of these at most one a sentence and two in all, brackets or not."""
    plain = _CODE.sub(" ", text)
    worst, total, alone = 0, 0, 0
    given = item.user.lower()
    for start, end in sentences(plain):
        pieces = _PIECE.findall(re.sub(r"\b\w*[A-Z0-9]\w*\b", " ", plain[start:end]))
        chinese = [p for p in pieces if "\u4e00" <= p[0] <= "\u9fff"]
        latin = [p for p in pieces if p[0].isascii()]
        # The script with more letters is the sentence's own.
        strange = latin if 3 * sum(map(len, chinese)) >= sum(map(len, latin)) else chinese
        bare = _QUOTED.sub(" ", plain[start:end])
        alone += sum(piece.lower() not in given and piece in bare for piece in strange)
        worst, total = max(worst, len(strange)), total + len(strange)
    over = alone + max(0, worst - _MOST) + max(0, total - 2 * _MOST)
    return Outcome(max(0.0, 1 - over / 4) if over else 1.0, (), f"{total} pieces of the other script")


_NAMED = re.compile(r"`([^`\n]+)`")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*[A-Za-z0-9_]")


@program("code_in_place", NoParams, catches=("boilerplate",))
def code_in_place(item: Item, text: str, params: NoParams) -> Outcome:
    """No altered copy of a name of the question (other case, a letter changed), and the name stands beside at least three other words."""
    names = {m.group(1).strip().removesuffix("()") for m in _NAMED.finditer(item.user.split("\n", 1)[0])}
    names = {name for name in names if len(name) >= 3}
    if not names:
        return Outcome(1.0, (), "the question names no code")
    for word in _WORD.findall(text):
        for name in names:
            close = word.lower() == name.lower() or (
                min(len(word), len(name)) >= 6 and SequenceMatcher(None, word.lower(), name.lower(), autojunk=False).ratio() > 0.85
            )
            if close and word != name and not name.startswith(word) and not name.endswith(word) and not word.startswith(name):
                return Outcome(0.2, (), f"'{word}' for '{name}'")
    placed = 0
    for start, end in sentences(text):
        sentence = text[start:end]
        here = [name for name in names if name in sentence]
        rest = _NAMED.sub(" ", sentence)
        amount = len(re.findall(r"[A-Za-z]{2,}", rest)) + len(re.findall(r"[\u4e00-\u9fff]", rest)) / 2
        placed += len(here) if amount >= 3 else 0
    return Outcome(min(1.0, placed / len(names)), (), "" if placed else "no name stands in a sentence")
