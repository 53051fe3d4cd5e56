"""The marked-up dialogues of Model Spec examples. Not XML: texts hold <, & and code as they are; only tags that begin a line count.

    messages before a comparison ─→ the conversation;   answers inside ─→ GOOD or BAD;   what follows goes on from the first good answer

Inside a code fence of an answer nothing is a tag; an answer that quotes its own tag on a line of its own nests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_ROLES = ("system", "developer", "user", "assistant", "tool")
_OPEN = re.compile(
    rf"\s*<(?P<tag>{'|'.join(_ROLES)}|comparison)(?P<attributes>\s[^>]*)?>\s*(?:<!--\s*(?P<label>.*?)\s*-->)?(?P<rest>.*)", re.DOTALL
)
_LABEL = re.compile(r"(?P<word>[A-Za-z]+)\b\s*(?:\[(?P<rules>[^\]]*)\])?.*", re.DOTALL)
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")


@dataclass(frozen=True)
class Answer:
    """One answer: kept or broken, the rules that its label names (without #), its text."""

    good: bool
    rules: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Turn:
    """The conversation up to a comparison, and the answers compared."""

    messages: tuple[dict[str, str], ...]
    answers: tuple[Answer, ...]


@dataclass
class Dialogue:
    """``messages``: the whole conversation; ``other``: answers with a label that is neither GOOD nor BAD; ``tools``: tools speak in it."""

    messages: list[dict[str, str]] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    other: int = 0
    tools: bool = False


def parse(text: str) -> Dialogue:
    """The dialogue of one example block."""
    found = Dialogue()
    lines = text.split("\n")
    at, inside = 0, False
    answers: list[Answer] = []
    while at < len(lines):
        line = lines[at]
        if line.strip() == "</comparison>":
            _close(found, answers)
            answers, inside = [], False
            at += 1
            continue
        match = _OPEN.fullmatch(line)
        if match is None:
            at += 1  # white space, or text that no tag holds
            continue
        if match["tag"] == "comparison":
            inside = True
            at += 1
            continue
        label = match["label"]
        if label is None and not match["rest"].strip() and at + 1 < len(lines):  # the label may stand on the next line
            following = re.fullmatch(r"\s*<!--\s*((?:GOOD|BAD)\b.*?)\s*-->\s*", lines[at + 1])
            if following is not None:
                label, at = following[1], at + 1
        content, at = _content(lines, at, match["tag"], match["rest"])
        if match["tag"] == "assistant" and (inside or label is not None):
            answer = _answer(label or "", content)
            if answer is None:
                found.other += 1
            else:
                answers.append(answer)
            if not inside:
                _close(found, answers)
                answers = []
        else:
            found.tools |= match["tag"] == "tool" or (match["tag"] == "assistant" and "recipient" in (match["attributes"] or ""))
            found.messages.append({"role": match["tag"], "content": content})
    _close(found, answers)  # a comparison that nobody closed
    return found


def _close(found: Dialogue, answers: list[Answer]) -> None:
    if answers:
        found.turns.append(Turn(tuple(found.messages), tuple(answers)))
        best = next((a for a in answers if a.good), answers[0])
        found.messages.append({"role": "assistant", "content": best.text})


def _answer(label: str, content: str) -> Answer | None:
    match = _LABEL.fullmatch(label)
    if match is None or match["word"].upper() not in ("GOOD", "BAD"):
        return None
    rules = tuple(part.strip().lstrip("#") for part in (match["rules"] or "").split(",") if part.strip())
    return Answer(match["word"].upper() == "GOOD", rules, content)


def _content(lines: list[str], at: int, tag: str, rest: str) -> tuple[str, int]:
    """The text of a message that opens on line ``at``, and the line after its closing tag."""
    close = f"</{tag}>"
    if rest.rstrip().endswith(close):
        return rest.rstrip().removesuffix(close).strip(), at + 1
    for heed_fences in (True, False):  # a fence that was never closed would swallow the rest
        held, depth, fence = [rest] if rest.strip() else [], 1, ""
        for number in range(at + 1, len(lines)):
            line = lines[number]
            mark = _FENCE.match(line) if heed_fences else None
            if mark is not None:
                if not fence:
                    fence = mark[1]
                elif mark[1][0] == fence[0] and len(mark[1]) >= len(fence) and not line.strip().strip(fence[0]):
                    fence = ""
            elif not fence:
                if re.fullmatch(rf"\s*<{tag}(\s[^>]*)?>\s*", line):
                    depth += 1
                elif line.rstrip().endswith(close) and (line.strip() == close or depth == 1):
                    depth -= 1
                    if depth == 0:
                        held.append(line.rstrip().removesuffix(close))
                        return "\n".join(held).strip(), number + 1
            held.append(line)
    return "\n".join(held).strip(), len(lines)
