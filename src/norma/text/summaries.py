"""From a docstring's blocks to what can be taught: a summary sentence, and the body that does not repeat it.

blocks ─→ first sentence ─→ normalised (one line, capital first, full stop) ─→ fault? ("" means it can be an answer)
       └→ rest ─→ noise filter (formulas, code, links) ─→ body
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from norma.text.markup import FIELDS, Block, blocks

MIN_WORDS, MAX_WORDS = 4, 30


@dataclass(frozen=True)
class Explained:
    """``summary``: the first sentence; ``fault``: why it cannot be taught, or ""; ``body``: the rest as plain paragraphs."""

    summary: str
    fault: str
    body: str


_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|resp|approx|incl|excl|fig|eq|eqs|no|vol|dr|mr|st|al|ca|a\.k\.a|w\.r\.t|sec|max|min|ex)|\b[A-Z])\.$",
    re.IGNORECASE,
)
_STOP = re.compile(r"[.!?][\"')`\]]*(?=\s+[A-Z`\"'(\[<:]|\s*$)")
_SIGNATURE = re.compile(r"^`?[\w.]+\((?:[^()]|\([^()]*\))*\)`?\s*(?:->\s*[\w.\[\], |`()]+)?$")
_LEADING_SIGNATURE = re.compile(r"^`?[\w.]+\((?:[^()]|\([^()]*\))*\)`?\s*(?:->\s*[\w.\[\]|]+(?:,\s*[\w.\[\]|]+)*|\s-{1,2}\s|:|\s=\s)\s*")


def first_sentence(text: str) -> tuple[str, str]:
    """Split ``text`` after its first sentence; abbreviations and dots inside names do not end one."""
    for stop in _STOP.finditer(text):
        head = text[: stop.end()]
        if head.count("`") % 2 == 0 and head.count("(") <= head.count(")") and not (_ABBREVIATION.search(head) and stop.end() < len(text)):
            return head.strip(), text[stop.end() :].strip()
    return text.strip(), ""


def sentences(text: str) -> list[str]:
    """All sentences of a paragraph."""
    found = []
    while text:
        head, text = first_sentence(text)
        found.append(head)
    return found


def explain(raw: str, signature_names: tuple[str, ...] = ()) -> Explained:
    """The summary and body of a docstring."""
    parts = blocks(raw)
    if any("copyright" in b.text.lower() or "licensed under" in b.text.lower() for b in parts[:3]):
        return Explained("", "a licence text", "")
    while parts and (parts[0].kind == "head" or _SIGNATURE.match(parts[0].text)):
        if parts[0].kind == "head" and parts[0].text.rstrip(":").lower() in FIELDS:
            return Explained("", "begins with its parameters", body_text(parts, ""))
        parts = parts[1:]
    if not parts or parts[0].kind != "text":
        return Explained("", "no opening sentence", body_text(parts, ""))
    opening = _LEADING_SIGNATURE.sub("", parts[0].text, count=1)
    if opening.startswith("->"):
        opening = opening.split(" ", 2)[-1]
    head, rest = first_sentence(opening)
    summary = normalise(head)
    return Explained(summary, fault(summary, head), body_text([Block("text", rest), *parts[1:]] if rest else parts[1:], summary))


def normalise(sentence: str) -> str:
    """One line, capital first (names in code keep theirs), ends with a full stop."""
    text = " ".join(sentence.split()).strip("-*• \t")
    text = re.sub(r"^(?:Summary|Description|Note|NOTE|Brief)\s*:\s*", "", text)
    text = re.sub(r"^\[[^\]]{1,30}\]\s*", "", text)  # "[deprecated] ...", "[Experimental] ..."
    text = re.sub(r"\s+\([Ee]xperimental\)", "", text)
    text = re.sub(r"\s*\.{2,}$|\s+\.$", ".", text)
    text = re.sub(r"\s+([,.;])", r"\1", text)
    if text.endswith("!"):
        text = text[:-1].rstrip() + "."
    if text and text[-1] not in ".?!:;,-=":
        text += "."
    first = text.split(" ", 1)[0]
    if first.isalpha() and first.islower():
        text = text[0].upper() + text[1:]
    return text


_USELESS = re.compile(
    r"^(?:see\b|deprecated|todo|fixme|xxx|alias|same as|like\s+`|inherit|overrid|not implemented|internal|private|"
    r"initiali[sz]e(?:s)?\s+(?:self|the\s+\w+(?:\s+\w+)?\.$)|constructor|usage|needed|used to support|test\b|tests\b|unit tests?|dummy|"
    r"placeholder|stub|do not use|don't use|this (?:function|method|class|module) is (?:deprecated|a stub|experimental)|"
    r"wrapper (?:for|around) `|wraps? `|copied|adapted|taken from|based on|created on|author|version|please|"
    r"default implementation|returns? self\b|for internal|backward|backport|import |example|equivalent (?:to|of)\s*`|as `|"
    r"(?:the )?(?:main|base) (?:entry point|class)\.|\w+ docstring|documentation for|helper\b|visit(?:or)?\b|hook\b|"
    r"(?:is|are|does|do|can|should|has|how|what|which|use with) |"
    r"if |when |where |because |note\b|warning\b|call(?:s)? `?super|:|@|\(|\.|\d|-|<|>|%|\{|\[|/)",
    re.IGNORECASE,
)
_NOISE = re.compile(
    r"https?:|www\.|\\|\$|\{\{|\}\}|%\(|%s|%d|->|=>|==|!=|<=|>=|:=|\|\||&&|"
    r"\bTODO\b|\bFIXME\b|\bXXX\b|>>>|::|__[a-z]\w+__\b.*__|\.py\b|#\d|@\w|\bdocstring\b|\bdeprecated\b|\bgh-\d|\bPEP\b|\bbpo\b|\bCVE\b|_\{|\^\{|~",
    re.IGNORECASE,
)
_FIRST_PERSON = re.compile(r"\b(?:I|I'm|I'll|we|we're|we'll|our|ours|us|my|me|let's)\b", re.IGNORECASE)
_DANGLING = re.compile(
    r"\b(?:as follows|following|below|above|the|an?|of|to|and|or|for|with|in|by|is|are|that|e\.g|i\.e|see)\.$",
    re.IGNORECASE,
)
_POINTING = re.compile(r"^(?:This|These|That|Those|It|They|He|She|However|Also|But|And|Or|So|Then|Thus|Otherwise|Here|There|Such)\b")
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")


def fault(summary: str, original: str = "") -> str:
    """Why ``summary`` cannot be taught as an answer; "" when it can."""
    words = summary.split()
    if not summary or not summary.endswith("."):
        return "does not end like a sentence"
    if not MIN_WORDS <= len(words) <= MAX_WORDS:
        return f"{len(words)} words"
    if not summary.isascii():
        return "not ASCII"
    if _USELESS.match(summary):
        return "says nothing of its own"
    if _NOISE.search(summary):
        return "markup, code or links"
    if _FIRST_PERSON.search(re.sub(r"`[^`]*`", "", summary)):
        return "first person"
    if _DANGLING.search(summary):
        return "points to what is not there"
    if _POINTING.match(summary) and not re.match(r"This (?:class|function|method|module|package|object)\b", summary):
        return "points back"
    if any(summary.count(mark) % 2 for mark in '`"') or any(summary.count(a) != summary.count(b) for a, b in ("()", "[]")):
        return "unbalanced"
    if ":" in re.sub(r"`[^`]*`", "", summary) or ";" in summary or "|" in summary or "*" in re.sub(r"`[^`]*`", "", summary):
        return "list or code"
    outside = re.sub(r"`[^`]*`", "", summary)
    plain = _WORD.findall(outside)
    if len(plain) < 3 or len(plain) < 0.6 * len(words):
        return "more code than words"
    if sum(1 for w in words if re.search(r"[_=<>/^]|\w\(|\w\.\w", w.strip("`,.;()"))) > max(2, len(words) // 5):
        return "more code than words"
    letters = [c for c in summary if c.isalpha()]
    if sum(c.isupper() for c in letters) > 0.3 * len(letters):
        return "capitals"
    if not (summary[0].isupper() or summary[0] in "`\"'"):
        return "begins with a code name"
    if re.search(r"\b(\w{3,}) \1\b", summary, re.IGNORECASE):
        return "a doubled word"
    return ""


# -- body
_FORMULA = re.compile(r"\\[a-zA-Z]+|\$[^$]+\$|\\\\|\^\{|_\{|[=<>≤≥∑∫∈]\s*\S+\s*[=<>+*/^]")
_PLAIN_BODY = dict.fromkeys(map(ord, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ,.'`()-"))


def body_text(parts: list[Block], summary: str) -> str:
    """Paragraphs a line each, noise left out, the summary not repeated."""
    lines: list[str] = []
    for block in parts:
        text = block.text
        if block.kind == "head":
            if lines and lines[-1].startswith("\0"):
                lines.pop()
            lines.append("\0" + text)
            continue
        text = " ".join(s for s in sentences(text) if _readable(s) and not (s[1:9] == summary[1:9] and normalise(s) == summary))
        if text and not (block.kind == "item" and text.endswith(":") and " " not in text):
            lines.append("- " + text if block.kind == "item" else text)
    if lines and lines[-1].startswith("\0"):
        lines.pop()
    return "\n".join(line.lstrip("\0") for line in _without_announcements(lines))


def _without_announcements(lines: list[str]) -> list[str]:
    """A sentence that ends in a colon announces a list; where the list was left out, the sentence goes too."""
    kept: list[str] = []
    for i, line in enumerate(lines):
        announced = i + 1 < len(lines) and lines[i + 1].startswith("- ")
        if line.endswith(":") and not line.startswith("\0") and not announced:
            line = " ".join(sentences(line)[:-1])
        if line and line != "-":
            kept.append(line)
    return kept


def _readable(sentence: str) -> bool:
    if not sentence or any(noise in sentence for noise in ("http", "www.", "</", " # ")):
        return False
    if sentence.count("`") % 2 or _FORMULA.search(sentence):
        return False
    if len(sentence) < 60 and sentence.startswith(("Example", "e.g.", "TODO", "FIXME", "See ")):
        return False
    if len(sentence.translate(_PLAIN_BODY)) > 0.15 * len(sentence):
        return False
    return sentence.isascii() or sum(c > "\x7f" for c in sentence) <= 0.02 * len(sentence)
