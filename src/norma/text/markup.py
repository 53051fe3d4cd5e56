"""Docstring markup (reST, numpydoc, Google, Sphinx fields, Markdown) to plain prose.

    raw docstring ─→ lines ─→ blocks: paragraph | item | heading ─→ inline markup removed ─→ blocks of one line each

What teaches a small model nothing is left out: doctests, code, tables, formulas, references, version notes. A sentence
that only announced what was left out ("For example:") goes with it.
"""

from __future__ import annotations

import inspect
import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "item", "head"]


@dataclass(frozen=True)
class Block:
    """One paragraph, list item or section heading, on one line."""

    kind: Kind
    text: str


def _titles(words: str, phrases: str) -> frozenset[str]:
    return frozenset([*words.split(), *phrases.split(", ")])


DROPPED = _titles(
    "example examples reference references usage links author authors methods method doctest tests test shape shapes citation todo "
    "bibliography license copyright changelog acknowledgements contents summary",
    "see also, quick examples, attributes and methods, example usage, usage example, usage examples, release notes",
)
FIELDS = _titles(
    "args arguments parameters params returns return yields yield raises raise notes note attributes warns warnings warning keyword "
    "kwargs receives inputs outputs input output",
    "keyword args, keyword arguments, other parameters, keyword parameters",
)
KEPT_DIRECTIVES = frozenset({"note", "warning", "tip", "important", "caution", "attention", "hint"})

_UNDERLINE = re.compile(r"^([=\-~^*#\"'`+])\1{2,}\s*$")
_MARKS = frozenset("=-~^*#\"'`+")
_SECTION = re.compile(r"^(\s*)([A-Z][A-Za-z]+(?: [A-Za-z]+)?)\s*:{1,2}\s*$")
_DIRECTIVE = re.compile(r"^(\s*)\.\.\s*([\w:-]+?)::\s*(.*)$")
_COMMENT = re.compile(r"^(\s*)\.\.(\s|$)")
_FIELD = re.compile(
    r"^\s*[:@](param|parameter|arg|argument|key|keyword|kwarg|returns?|raises?|except|yields?|ivar|cvar|var)\b([^:]*):\s*(.*)$"
)
_SILENT_FIELD = re.compile(r"^\s*[:@](type|rtype|vartype|meta|nodoc|private|Example|example|since|see|author|note)\b[^:]*:")
_BULLET = re.compile(r"^(\s*)(?:[-*+•]|\d{1,2}[.)]|\([a-z0-9]\))\s+(?=\S)")
_NUMPY_ITEM = re.compile(r"^(\*{0,2}\w[\w*, .\[\]]*?)\s+:(?:\s+(.*))?$")
_TYPE = r"\((?:[^()]|\([^()]*\))*\)"
_GOOGLE_ITEM = re.compile(rf"^\s*(`{{0,2}}\*{{0,2}}[\w.]+`{{0,2}})\s*(?:(?:{_TYPE})?\s*:\s+(\S.*)|{_TYPE}\s*:)$")
_LONE_NAME = re.compile(r"^\*{0,2}\w[\w*, .\[\]]{0,40}$")
_TABLE = re.compile(r"^\s*(?:[+|][-=+| ]{3,}|={2,}(?:\s+={2,})+|-{2,}(?:\s+-{2,})+)\s*$")
_FENCE = re.compile(r"^\s*(```|~~~)")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`\"'(])")


def blocks(raw: str) -> list[Block]:
    """The prose of a docstring, in order."""
    text = inspect.cleandoc(unicodedata.normalize("NFC", raw).replace("\x0c", "\n"))
    return _Reader(text.translate(_PLAIN_MARKS).split("\n")).run()


_PLAIN_MARKS = str.maketrans(
    {
        "‘": "'",
        "’": "'",
        "“": '"',
        "”": '"',
        "–": "-",
        "—": "-",
        "…": "...",
        "\u00a0": " ",
        "′": "'",
        "\u2011": "-",
        "\u200b": None,
        "\ufeff": None,
    }
)


class _Reader:
    """One pass over the lines; ``at`` is the next line."""

    def __init__(self, lines: list[str]) -> None:
        self.lines, self.at = lines, 0
        self.done: list[Block] = []
        self.words: list[str] = []
        self.kind: Kind = "text"
        self.indent = 0
        self.section = ""

    def run(self) -> list[Block]:
        while self.at < len(self.lines):
            if not self.special(self.lines[self.at]):
                self.prose(self.lines[self.at])
                self.at += 1
        self.flush()
        return [b for b in self.done if b.text]

    # -- blocks that are more than a line of prose
    def special(self, line: str) -> bool:
        stripped = line.strip()
        if not stripped:
            self.flush()
            self.at += 1
            return True
        indent = len(line) - len(line.lstrip())
        following = self.lines[self.at + 1].strip() if self.at + 1 < len(self.lines) else ""
        if following[:1] in _MARKS and _UNDERLINE.match(following) and abs(len(following) - len(stripped)) <= max(3, len(stripped) // 3):
            self.heading(stripped)
            return True
        if stripped[0] in _MARKS and _UNDERLINE.match(stripped):
            self.flush()
            self.at += 1
            return True
        if stripped[-1] == ":" and (found := _SECTION.match(line)) and found[2].lower() in DROPPED | FIELDS:
            self.flush()
            self.at += 1
            if found[2].lower() in DROPPED:
                self.announce_nothing()
                self.skip_deeper(indent)
            else:
                self.section = found[2].lower()
                self.done.append(Block("head", found[2] + ":"))
            return True
        if stripped[0].isalpha():  # most lines: none of what follows begins with a letter, save two prompts
            if not stripped.startswith("In ["):
                return False
        elif found := _DIRECTIVE.match(line):
            self.flush()
            self.at += 1
            if found[2] in KEPT_DIRECTIVES:
                if found[3]:
                    self.words, self.kind, self.indent = [found[3]], "text", indent + 3
            else:
                self.announce_nothing()
                self.skip_deeper(indent)
            return True
        if _COMMENT.match(line):
            self.flush()
            self.at += 1
            self.skip_deeper(indent)
            return True
        if stripped.startswith((">>>", "In [", "$ ", "%timeit")):
            self.flush()
            self.announce_nothing()
            while self.at < len(self.lines) and self.lines[self.at].strip():
                self.at += 1
            return True
        if _FENCE.match(line):
            self.flush()
            self.announce_nothing()
            self.at += 1
            while self.at < len(self.lines) and not _FENCE.match(self.lines[self.at]):
                self.at += 1
            self.at += 1
            return True
        if _TABLE.match(line) or (stripped.startswith("|") and stripped.count("|") > 1):
            self.flush()
            self.announce_nothing()
            while self.at < len(self.lines) and self.lines[self.at].strip():
                self.at += 1
            return True
        if _SILENT_FIELD.match(line):
            self.flush()
            self.at += 1
            self.skip_deeper(indent)
            return True
        return False

    def heading(self, title: str) -> None:
        self.flush()
        self.at += 2
        self.section = title.lower().rstrip(":")
        if self.section in DROPPED:
            self.announce_nothing()
            while self.at < len(self.lines) and not (
                self.at + 1 < len(self.lines) and self.lines[self.at].strip() and _UNDERLINE.match(self.lines[self.at + 1].strip())
            ):
                self.at += 1
        else:
            self.done.append(Block("head", title.rstrip(":") + ":"))

    def skip_deeper(self, indent: int) -> None:
        """Pass over blank lines and lines set in deeper than ``indent``."""
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if line.strip() and len(line) - len(line.lstrip()) <= indent:
                return
            self.at += 1

    def announce_nothing(self) -> None:
        """Something was left out here: the sentence that announced it ("as follows:") goes too."""
        if self.done and self.done[-1].kind != "head" and self.done[-1].text.endswith(":"):
            kept = _SENTENCE_END.split(self.done[-1].text)[:-1]
            self.done[-1] = Block(self.done[-1].kind, " ".join(kept))
            if not kept:
                self.done.pop()

    # -- prose
    def prose(self, line: str) -> None:
        indent = len(line) - len(line.lstrip())
        stripped = line.strip()
        may_begin = not self.words or self.kind != "item" or (indent == 0 and indent <= self.indent)
        if found := _FIELD.match(line):
            self.start("item", indent, _field(found[1], found[2].strip(), found[3]))
        elif found := _BULLET.match(line):
            self.start("item", indent, stripped[len(found[0].strip()) :].strip())
        elif self.section in FIELDS and (found := _NUMPY_ITEM.match(line)) and indent == 0:
            self.start("item", indent, f"{found[1].strip()}:")
        elif self.section in FIELDS and indent == 0 and may_begin and _LONE_NAME.match(stripped) and self.deeper_follows():
            self.start("item", 0, f"{stripped}:")
        elif self.section in FIELDS and indent and (may_begin or indent <= self.indent) and (found := _GOOGLE_ITEM.match(line)):
            self.start("item", indent, f"{found[1].strip('`')}: {found[2] or ''}".strip())
        elif self.words and self.kind == "item" and indent < self.indent:
            self.start("text", indent, stripped)
        elif self.words:
            self.words.append(stripped)
        else:
            self.start("text", indent, stripped)

    def deeper_follows(self) -> bool:
        return self.at + 1 < len(self.lines) and self.lines[self.at + 1].startswith((" ", "\t")) and bool(self.lines[self.at + 1].strip())

    def start(self, kind: Kind, indent: int, text: str) -> None:
        self.flush()
        self.words, self.kind, self.indent = [text], kind, indent

    def flush(self) -> None:
        if not self.words:
            return
        text, self.words = " ".join(self.words), []
        kind, indent, self.kind = self.kind, self.indent, "text"
        literal = text.endswith("::")
        if literal:
            text = text[:-2].rstrip() + ":"
        if text := inline(text):
            self.done.append(Block(kind, text))
        if literal:
            self.announce_nothing()
            self.skip_deeper(indent)


def _field(role: str, name: str, text: str) -> str:
    if role.startswith(("return", "yield")):
        return f"{'Returns' if role.startswith('return') else 'Yields'}: {text}"
    name = name.split()[-1] if name else ""
    if role in ("raise", "raises", "except"):
        return f"Raises {name}: {text}" if name else text
    return f"{name}: {text}"


# -- inline markup
_PLAIN_LINE = re.compile(r"[\w \-'\"(),./:;=?!]*$")  # nothing that any pattern below looks for ...
_LOOSE_STOP = re.compile(r"\s+([,.;:])(?=\s|$)")
_ROLE = re.compile(r":(?:[a-z][\w+-]*:)?[a-z][\w+-]*:`([^`]*)`")
_LINK = re.compile(r"`([^`<>]+?)\s*<[^`<>]*>`_{0,2}")
_NAMED_LINK = re.compile(r"`([^`<>]+?)`_{1,2}")
_MARKDOWN_LINK = re.compile(r"!?\[([^\]\[]+)\]\([^()\s]*\)")
_FOOTNOTE = re.compile(r"\s*(?:\[(?:#?\d+|[#*]\w*|[A-Z][A-Za-z]+\d{2,4}[a-z]?|CR\d+)\])_?")
_STRONG = re.compile(r"(?<![\w*\\])\*\*([^\s*](?:[^*]*[^\s*])?)\*\*(?![\w*])")
_EMPHASIS = re.compile(r"(?<![\w*\\`(,])\*([A-Za-z](?:[^*`]*[\w.)])?)\*(?![\w*])")
_SUBSTITUTION = re.compile(r"\|(\w[^|`]{0,40})\|_?")


def inline(text: str) -> str:
    """One line without inline markup; code stands in single backticks."""
    if _PLAIN_LINE.match(text) and not _LOOSE_STOP.search(text):
        return " ".join(text.split())
    text = re.sub(r"</?(?:[Tt]ip|br|p)\b[^>]*>|\{@\w+[^}]*\}", " ", text)
    text = _ROLE.sub(_role, text)
    text = _LINK.sub(r"\1", text)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    text = _NAMED_LINK.sub(r"\1", text)
    text = _MARKDOWN_LINK.sub(r"\1", text)
    text = re.sub(r"\[`([^`\]]+)`\]", r"`\1`", text)
    text = _FOOTNOTE.sub("", text)
    text = _STRONG.sub(r"\1", text)
    text = _EMPHASIS.sub(r"\1", text)
    text = _SUBSTITUTION.sub(r"\1", text)
    text = re.sub(r"\\([`*_|<>:])", r"\1", text).replace("\\ ", "")
    text = re.sub(r"`(?:_[a-z]+)?\.(?=\w)", "`", text)  # names as seen from inside the package
    text = re.sub(r"`~([\w.]+)`", lambda m: f"`{m[1].rsplit('.', 1)[-1]}`", text)
    text = _LOOSE_STOP.sub(r"\1", text)
    return " ".join(text.split())


def _role(found: re.Match[str]) -> str:
    content = found[1].strip()
    if title := re.match(r"(.+?)\s*<[^<>]*>$", content, re.DOTALL):
        content = title[1]
    role = found[0].split("`")[0]
    if role.endswith((":term:", ":ref:", ":doc:", ":abbr:", ":sup:", ":sub:", ":index:")):
        return content.replace("_", " ") if role.endswith(":ref:") and " " not in content else content
    content = content.removeprefix("!")
    if content.startswith("~"):
        content = content[1:].rsplit(".", 1)[-1]
    return f"`{content}`" if content else ""
