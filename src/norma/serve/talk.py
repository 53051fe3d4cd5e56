"""A conversation in the terminal: questions in, answers piece by piece, and what each rule says of them.

lines ─→ questions() ─→ Talk.turn ─→ model.stream (rules in the prompt, if asked) ─→ screen
                                       └─→ spec.verdicts ─→ one line a rule
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from norma.base.errors import NormaError
from norma.evaluate.prompts import language_of, wording_for
from norma.evaluate.sampling import Options
from norma.serve.protocol import for_model
from norma.spec import Item, Message, Status, Verdict

if TYPE_CHECKING:
    from norma.generate.retrieval import Documents
    from norma.spec import Spec

HELP = "/new begins a new conversation, /quit or Ctrl-D ends. A line that ends with \\ goes on in the next."
MARKS = {Status.COMPLIANT: "✓", Status.VIOLATION: "✗", Status.UNSURE: "?", Status.ERROR: "!"}
COLOURS = {Status.COMPLIANT: "32", Status.VIOLATION: "31", Status.UNSURE: "33", Status.ERROR: "33"}


def questions(person: bool, read: Callable[[str], str] | None = None) -> Iterator[str]:
    """Non-empty questions until the input ends; lines that end with a backslash are joined."""
    read = read or (input if person else _next_line)
    lines: list[str] = []
    while True:
        try:
            line = read(("...> " if lines else "you> ") if person else "")
        except (EOFError, KeyboardInterrupt):
            if person:
                print()
            break
        except UnicodeDecodeError as error:
            raise NormaError(f"the input is not UTF-8 text (byte {error.start})") from None
        lines.append(line.removesuffix("\\"))
        if not line.endswith("\\"):
            question, lines = "\n".join(lines).strip(), []
            if question:
                yield question
    if question := "\n".join(lines).strip():
        yield question


def _next_line(_: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


class Streams(Protocol):
    """The part of a language model that a conversation needs."""

    name: str

    def stream(self, messages: Any, **sampling: Any) -> Iterator[str]: ...


@dataclass
class Talk:
    """A conversation: what was said, and how the next answer is made, shown and judged."""

    model: Streams
    options: Options
    spec: Spec | None = None
    render: Literal["none", "applicable", "all"] = "none"
    system: str | None = None
    colour: bool = False
    history: list[Message] = field(default_factory=list)
    documents: Documents | None = None

    def turn(self, question: str) -> None:
        """Answer one question on the screen; Ctrl-C stops the answer, not the conversation."""
        self.history.append(Message(role="user", content=question))
        while True:
            before = [Message(role="system", content=self.system)] if self.system else []
            messages, language = [*before, *self.history], language_of(question)
            if self.documents is not None:  # what is judged is what was read: a citation must be of a passage that was shown
                messages = self.documents.before(messages, language)
            item = Item("chat", tuple(messages), language=language)
            try:
                answer = self._show(item)
                break
            except NormaError as error:
                if len(self.history) < 3:
                    print(f"error: {error}", file=sys.stderr)
                    self.history.pop()
                    return
                # What was said first is forgotten first, as the model can read only so much.
                print("(the conversation is too long for this model: its oldest turn is left out)")
                del self.history[:2]
        self.history.append(Message(role="assistant", content=answer))
        for line in self.documents.sources() if self.documents is not None else ():
            print(harmless(f"  {line}"))
        if self.spec is not None:
            for line in verdict_lines(self.spec.verdicts(item, answer, "report"), self.colour):
                print(line)
        sys.stdout.flush()

    def _show(self, item: Item) -> str:
        messages = list(item.messages)
        if self.spec is not None and self.render != "none":
            wording = wording_for(self.spec.languages, item.language)
            messages = self.spec.render(messages, item, language=wording, rules=self.render)
        parts: list[str] = []
        try:
            for piece in self.model.stream(for_model(messages), **asdict(self.options)):
                parts.append(piece)
                print(harmless(piece), end="", flush=True)
        except KeyboardInterrupt:
            print(" (stopped)", end="")
        print()
        return "".join(parts)


def verdict_lines(verdicts: Sequence[Verdict], colour: bool = False) -> list[str]:
    """One line per verdict of an active rule: mark, rule, and the checker's note. Rules that do not apply are one line together."""
    lines = []
    for v in verdicts:
        if v.status is Status.NOT_APPLICABLE:
            continue
        text = f"  {MARKS[v.status]} {v.rule}"
        text += f" ({v.status})" if v.status in (Status.UNSURE, Status.ERROR) else ""
        text += f": {v.note}" if v.note and v.status is not Status.COMPLIANT else ""
        lines.append(f"\x1b[{COLOURS[v.status]}m{harmless(text)}\x1b[0m" if colour else harmless(text))
    off = list(dict.fromkeys(v.rule for v in verdicts if v.status is Status.NOT_APPLICABLE))
    return [*lines, f"  - does not apply: {', '.join(off)}"] if off else lines


def harmless(text: str) -> str:
    """Text that cannot steer a terminal: control characters other than line break and tab become visible."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") else "\ufffd" for c in text)
