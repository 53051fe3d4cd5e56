"""Second opinions on the form asked for, by other methods than `format_asked`: made to be held out.

json_shape        brackets and quotes counted by hand, the keys asked for, values that are not empty
items_distinct    what stands in the list's lines: enough of it, and nothing twice
asked_letters     letters instead of words: joined or mixed-in words gain nothing
headline_shapes   lines that look like titles, whatever marks them
"""

from __future__ import annotations

import re

from norma.check.format_asked import asked_bound, asked_count
from norma.check.format_width import columns
from norma.check.lexicon import STOP_WORDS
from norma.check.persons import NoParams
from norma.check.program import Outcome, program
from norma.check.segment import family
from norma.spec.types import Item

_STRING = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_KEYS = re.compile(
    r"(?i)\b(?:keys?|fields?)\b\s*:?((?:\s*(?:and|,|、)?\s*[\"'`“]?[A-Za-z_][A-Za-z0-9_]*[\"'`”]?){1,6})|(?:键|字段)(?:为|是|有|名为"
    r"|包括|包含)?\s*[:：]?((?:\s*(?:和|与|,|，|、)?\s*[\"'`“]?[A-Za-z_][A-Za-z0-9_]*[\"'`”]?){1,6})"
)
_NOT_KEYS = frozenset({"and", "only", "the", "in", "as", "of", "for", "with", "json", "no", "other", "nothing", "else"})


@program("json_shape", NoParams, catches=("boilerplate", "repetition", "other_language"))
def json_shape(item: Item, text: str, params: NoParams) -> Outcome:
    """From the first bracket to the last everything closes, nothing stands outside, the keys asked for are there,
    values are not empty."""
    plain = re.sub(r"\A```\w*\s*|\s*```\Z", "", text.strip())
    if plain[:1] not in ("{", "[") or plain[-1:] not in ("}", "]"):
        return Outcome(0.0, (), "text stands outside the brackets")
    bare = _STRING.sub("s", plain)
    while bare != (fewer := re.sub(r"\{[^{}\[\]]*\}|\[[^{}\[\]]*\]", "v", bare)):
        bare = fewer
    if bare.strip() != "v":
        return Outcome(0.2, (), "brackets or quotes do not close")
    keys = {m.group(1).lower() for m in re.finditer(r'"((?:[^"\\\n]|\\.)*)"\s*:', plain)}
    asked = _asked_keys(item.user)
    if missing := asked - keys:
        return Outcome(0.3, (), f"the key '{sorted(missing)[0]}' is missing")
    values = re.findall(r"(?:[:\[,])\s*(\"(?:[^\"\\\n]|\\.)*\"(?!\s*:)|-?\d[\d.eE+-]*|true|false)", plain)
    told = [v for v in values if v.strip('" ')]
    return Outcome(1.0) if told else Outcome(0.1, (), "no value says anything")


def _asked_keys(question: str) -> set[str]:
    found = _KEYS.search(question)
    if found is None:
        return set()
    words = re.findall(r"[A-Za-z_][A-Za-z0-9_]*", found.group(1) or found.group(2) or "")
    return {w.lower() for w in words} - _NOT_KEYS


_MARKER = re.compile(r"^[ \t]*(?:[-*](?=\s)|[•·]|\d{1,2}[.)、．](?!\d)|[(（]\d{1,2}[)）]|[①-⑩])[ \t]*")


@program("items_distinct", NoParams, languages=("en", "zh"), catches=("boilerplate", "repetition", "other_language"))
def items_distinct(item: Item, text: str, params: NoParams) -> Outcome:
    """The lines behind the markers say something each, no two the same, and together are as many as asked for."""
    wanted = asked_count(item.user)
    contents = [_MARKER.sub("", line).strip() for line in text.splitlines() if _MARKER.match(line)]
    words = [_words(content) for content in contents]
    good: list[frozenset[str]] = []
    for one in words:
        if one and not any(len(one & other) * 5 >= len(one | other) * 4 for other in good):
            good.append(one)
    if wanted is None:
        return Outcome(1.0 if good else 0.0)
    share = min(len(good), wanted) / max(wanted, len(contents), 1)
    return Outcome(share, (), f"{len(good)} different items, {wanted} asked for")


def _words(text: str) -> frozenset[str]:
    """Content words; a run of Chinese gives its pairs of characters, a single character counts too."""
    latin = {w for w in re.findall(r"[a-z0-9]{2,}", text.lower()) if w not in STOP_WORDS}
    runs = re.findall(r"[\u4e00-\u9fff]+", text)
    return frozenset(latin | {run[i : i + 2] for run in runs if len(run) > 1 for i in range(len(run) - 1)})


_LETTERS_A_WORD = 7  # English prose has under five; room for technical words


@program("asked_letters", NoParams, languages=("en", "zh"))
def asked_letters(item: Item, text: str, params: NoParams) -> Outcome:
    """Not wider than the words or 字 that the question allows can be (7 columns a word, 2 a character, a sixth more for marks)."""
    bound = asked_bound(item.user)
    if bound is None:
        return Outcome(1.0, (), "the question sets no bound")
    most, unit = bound
    room = most if unit == "character" else most * (2 if family(item.language) == "zh" or unit == "字" else _LETTERS_A_WORD) * 7 / 6
    found = columns(text)
    return Outcome(min(1.0, max(0.0, 2 - found / room)), (), f"{found} columns, room for {room:.0f}", room - found)


_ENDS = re.compile(r"[.!?。！？;；,，、]\W*$")
_LONG = 600  # columns from which an answer is not short


@program("headline_shapes", NoParams)
def headline_shapes(item: Item, text: str, params: NoParams) -> Outcome:
    """In a short answer no line stands alone like a title: short, without an end mark, text below it, no item of a list, no code."""
    if columns(text) >= _LONG:
        return Outcome(1.0, (), "a long answer")
    prose = re.sub(r"```.*?```", "```", text, flags=re.DOTALL)
    lines = [line.strip() for line in prose.splitlines() if not re.fullmatch(r"\s*[=*_-]{3,}\s*", line)]
    titles = []
    for i, line in enumerate(lines):
        below = next((other for other in lines[i + 1 :] if other), "")
        above = next((other for other in reversed(lines[:i]) if other), "")
        if not line or not below or line.startswith(("```", "|")) or _MARKER.match(line):
            continue
        core = line.strip("#*_=【】[]<> ")
        # "Here are three reasons:" introduces a list; a title with a colon stands over prose.
        introduces = line.endswith((":", "：")) and (_MARKER.match(below) is not None or below.startswith("```"))
        short = 0 < columns(core) <= 36 and not _ENDS.search(core) and not introduces
        coded = re.search(r"[{}();=<>$\\]|[:：].", line) is not None or not re.search(r"[A-Za-z\u4e00-\u9fff]", core)
        boxed = re.fullmatch(r"[【\[(<].{1,30}[】\])>]", line) is not None
        # Prose below: a line that is longer and ends like a sentence. Verses and addresses have none.
        over_prose = _ENDS.search(below) is not None and columns(below) > columns(core)
        goes_on = bool(above) and i > 0 and bool(lines[i - 1])
        if boxed or (short and over_prose and not goes_on and not coded):
            titles.append(line)
    return Outcome(max(0.0, 0.6 - 0.2 * len(titles)) if titles else 1.0, (), "; ".join(titles[:3]))
