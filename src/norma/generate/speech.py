"""Tokens to text as they come: half a character, and what may turn out to be a stop string, are held back.

Token ─→ text so far (a window is decoded, not the whole) ─→ cut at a stop string ─→ Said: text, its tokens, and how it ended
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from norma.generate.running import Token
from norma.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Said:
    """A piece of an answer. ``finish``: "" while it goes on, then "stop" or "length"; ``count``: tokens written so far, all told."""

    text: str
    tokens: tuple[Token, ...] = ()
    finish: str = ""
    count: int = 0


class Speech:
    """One answer in the making; its pieces together are what :func:`norma.generate.engine.finish` makes of all tokens."""

    def __init__(self, tokenizer: Tokenizer, ends: Collection[int], limit: int, stop: tuple[str, ...] = ()) -> None:
        self.tokenizer, self.ends, self.limit, self.stop = tokenizer, ends, limit, stop
        self.ids: list[int] = []
        self.text = ""  # of all tokens but those that could still change it
        self.sent = 0  # characters of it that were handed out
        self._from = self._to = 0  # the window: ids before _to are in the text, decoded together with those from _from on
        self._waiting: deque[tuple[int, Token]] = deque()  # tokens that were not handed out, and where their text begins

    def hear(self, token: Token) -> Said | None:
        """The next piece; None where nothing can be said yet. The last one has a ``finish``."""
        if token.id in self.ends:
            return self._end("stop", written=len(self.ids) + 1)
        self.ids.append(token.id)
        self._waiting.append((len(self.text), token))
        before = self.tokenizer.decode(self.ids[self._from : self._to])
        after = self.tokenizer.decode(self.ids[self._from :])
        if len(after) > len(before) and not after.endswith("\ufffd"):
            self.text += after[len(before) :]
            self._from, self._to = self._to, len(self.ids)
        if (cut := self._cut()) >= 0:
            return self._hand_out(cut, "stop")
        if len(self.ids) >= self.limit:
            return self._end("length", written=len(self.ids))
        ready = len(self.text) - max((n for s in self.stop for n in range(1, len(s)) if self.text.endswith(s[:n])), default=0)
        return self._hand_out(ready, "") if ready > self.sent else None

    def _cut(self) -> int:
        """Where the first stop string begins; -1: nowhere."""
        around = max(0, self.sent - 1)
        return min((at for s in self.stop if (at := self.text.find(s, around)) >= 0), default=-1)

    def _end(self, finish: str, written: int) -> Said:
        whole = self.tokenizer.decode(self.ids)  # with what is left of a broken character
        if whole.startswith(self.text):
            self.text = whole
        cut = self._cut()
        return self._hand_out(cut if cut >= 0 else len(self.text), "stop" if cut >= 0 else finish, written)

    def _hand_out(self, upto: int, finish: str, written: int | None = None) -> Said:
        text, self.sent = self.text[self.sent : upto], upto
        tokens = []
        while self._waiting and self._waiting[0][0] < upto:
            tokens.append(self._waiting.popleft()[1])
        return Said(text, tuple(tokens), finish, len(self.ids) if written is None else written)
