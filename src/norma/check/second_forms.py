"""Second opinions on form, by other methods than `lengths` and `repetition`: made to be held out, so they share no code with them.

Sentences are counted from the shapes of tokens, and a clause that starts afresh after a comma or semicolon counts too; repetition
is looked for in characters and clauses instead of runs of words.
"""

from __future__ import annotations

import re
from collections import Counter

from pydantic import Field

from norma.check.lexicon import STOP_WORDS, word_set
from norma.check.program import Outcome, Params, program
from norma.spec.types import Item

_TRIM = "\"'`)]}>*_”’」』）】》"
_SHORT = word_set("e.g. i.e. etc. vs. cf. approx. resp. incl. no. fig. eq. sec. al. dr. mr. mrs. ms. prof. st. inc. viz. ca.")
_LETTER_STOPS = re.compile(r"(?:[A-Za-z]\.)+|\d+\.|[A-Z]\.")
_STARTERS = word_set(
    """
    The This That These Those It They There Returns Return Gets Get Sets Set Creates Create If When For In You We I He She Note
    Also Then Otherwise However Use Used Computes Compute Converts Convert Raises Raise Each All A An
    """
)
_GLUED = re.compile(rf"[a-z]{{3,}}[.!?](?:{'|'.join(sorted(_STARTERS))})\b")
_FIRST_TOKENS = 5  # within these, a colon or comma belongs to the opening


class ClauseParams(Params):
    """How many sentences an answer may have."""

    max: int = Field(default=1, ge=1, description="Most sentences.")


@program("sentences_by_tokens", ClauseParams, languages=("en", "zh"))
def sentences_by_tokens(item: Item, text: str, params: ClauseParams) -> Outcome:
    """Not more sentences than max, counted from token shapes, lines and fresh starts; score: the share of them that is allowed."""
    count = sum(_line_sentences(line, item.user) for line in text.splitlines())
    return Outcome(min(1.0, params.max / max(1, count)), (), f"{count} sentences by token shapes", float(params.max - count))


def _line_sentences(line: str, question: str) -> int:
    tokens = re.sub(r"([。！？])(?=[^。！？”’」』）】])", r"\1 ", line).split()
    count, open_words = 0, 0
    for i, token in enumerate(tokens):
        core = token.rstrip(_TRIM)
        if any(c.isalnum() for c in token):
            open_words += 1
        following = tokens[i + 1] if i + 1 < len(tokens) else ""
        ended = core.endswith(("!", "?", "。", "！", "？")) or (
            core.endswith(".") and not core.endswith("..") and core.lower() not in _SHORT and not _LETTER_STOPS.fullmatch(core.lstrip("(["))
        )
        ended = ended and (any(c.isalnum() for c in token) or token in (".", "!", "?"))  # a quoted "?" is meant as it stands
        fresh = core[-1:] in ",;:—-" and i >= _FIRST_TOKENS and following in _STARTERS
        # Glued on without a space (x.Returns y): a name such as json.JSONDecoder stands in the question, a glued sentence does not.
        count += len([m for m in _GLUED.finditer(token) if m.group() not in question])
        if (ended or fresh) and open_words:
            count, open_words = count + 1, 0
    return count + (1 if open_words else 0)


class DegenerateParams(Params):
    """How much of the same is too much."""

    longest: int = Field(
        default=18, ge=4, description="Length in characters (a Chinese one counts three) of a passage that may not come twice."
    )
    mentions: int = Field(default=3, ge=2, description="So many mentions of one name are too many.")


_NAME = re.compile(r"`[^`\n]*`|[A-Za-z0-9_]*(?:[._][A-Za-z0-9_]+)+")


@program("degenerate_text", DegenerateParams, catches=("repetition",))
def degenerate_text(item: Item, text: str, params: DegenerateParams) -> Outcome:
    """No clause, passage, name or content word again and again, and no drawn-out characters; score: at most .5 with a fault."""
    lower = text.lower()
    faults: list[str] = []
    if re.search(r"([^\s\d])\1{4,}", lower):
        faults.append("one character in a long row")
    clauses = [c.strip(" \t`*\"'") for c in re.split(r"[:,;.!?：，；。！？\n]+(?:\s|$)|[：，；。！？]", lower)]
    again = [c for c, n in Counter(c for c in clauses if len(c) > 1).items() if n > 1]
    if again:
        faults.append(f"the clause '{again[0]}' comes twice")
    names = Counter(m.group().strip("`") for m in _NAME.finditer(lower))
    faults += [f"'{name}' is named {n} times" for name, n in names.items() if n >= params.mentions]
    plain = re.sub(r"\s+", " ", _NAME.sub(" ", lower))
    words = re.findall(r"[a-z]{4,}", plain)
    counted = Counter(w for w in words if w not in STOP_WORDS)
    faults += [f"'{word}' comes {n} times" for word, n in counted.items() if n >= 4 or (n == 3 and n / len(words) > 0.25)]
    passage = longest_repeat(plain.strip())
    if sum(3 if ord(c) > 0x2E80 else 1 for c in passage) >= params.longest:
        faults.append(f"the passage '{passage.strip()}' comes twice")
    return Outcome(max(0.0, 0.6 - 0.1 * len(faults)) if faults else 1.0, (), "; ".join(faults[:3]))


def longest_repeat(text: str) -> str:
    """The longest piece that occurs twice in ``text`` without overlap (by bisection over its length)."""
    low, high, best = 0, len(text) // 2, ""
    while low < high:
        size = (low + high + 1) // 2
        seen: dict[str, int] = {}
        found = ""
        for start in range(len(text) - size + 1):
            piece = text[start : start + size]
            if start >= seen.setdefault(piece, start) + size:
                found = piece
                break
        if found:
            low, best = size, found
        else:
            high = size - 1
    return best
