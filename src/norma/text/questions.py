"""Question/answer and summary rows, open book: all the model needs stands in the question.

    Source (name, signature, summary, body) ─→ question row: "What does `json.dumps` do?" + entry ─→ its summary sentence
                                            │  one in ten: another's name is asked ─→ "The entry does not say what `X` does."
                                            └→ summary row: "Summarise:" + entry ─→ its summary sentence

Every choice (phrasing, language, mismatch) is a hash of the entry's name and the seed: it depends on no order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from norma.text.languages import Language
from norma.text.shapes import Message
from norma.text.split import chance

ASK: dict[str, dict[Language, tuple[str, ...]]] = {
    "entry": {
        "en": (
            "What does `{name}` do?",
            "What is `{name}` for?",
            "Explain `{name}` in one sentence.",
            "In short, what does `{name}` do?",
            "Tell me what `{name}` does.",
            "What is the purpose of `{name}`?",
            "Describe `{name}` briefly.",
            "Can you say what `{name}` does?",
        ),
        "zh": (
            "`{name}` 是做什么的？",
            "`{name}` 有什么用？",
            "请用一句话说明 `{name}`。",
            "请简要介绍 `{name}`。",
            "`{name}` 的用途是什么？",
            "`{name}` 的作用是什么？",
            "能说说 `{name}` 做什么吗？",
            "您好，请问 `{name}` 是干什么的？",
        ),
    },
    "text": {
        "en": (
            "What does the text say about `{name}`?",
            "What is said here about `{name}`?",
            "In short, what does this passage tell of `{name}`?",
            "Tell me what the text says about `{name}`.",
            "Say in one sentence what the text tells about `{name}`.",
            "What do we learn here about `{name}`?",
        ),
        "zh": (
            "这段文字关于 `{name}` 说了什么？",
            "文中如何介绍 `{name}`？",
            "请用一句话说明文中关于 `{name}` 的内容。",
            "关于 `{name}`，这段文字讲了什么？",
            "请简要说明这段文字对 `{name}` 的叙述。",
            "从这段文字中可以了解到 `{name}` 的什么？",
        ),
    },
}
SUMMARISE: dict[Language, tuple[str, ...]] = {
    "en": (
        "Summarise:",
        "Summarise this in one sentence:",
        "Give a one-sentence summary:",
        "Sum this up in one sentence:",
        "Summary, please:",
        "Put this in one sentence:",
    ),
    "zh": ("概括：", "请用一句话概括：", "请概括以下内容：", "用一句话总结：", "请总结：", "请写一句话的摘要："),
}
LABEL: dict[str, dict[Language, str]] = {"entry": {"en": "Entry: ", "zh": "条目："}, "text": {"en": "Text: ", "zh": "文字："}}
UNSAID: dict[str, dict[Language, str]] = {
    "entry": {"en": "The entry does not say what `{name}` does.", "zh": "该条目没有说明 `{name}` 的作用。"},
    "text": {"en": "The text does not speak of `{name}`.", "zh": "这段文字没有谈到 `{name}`。"},
}


@dataclass(frozen=True)
class Source:
    """Something to ask about. ``kind`` is "entry" (of a documentation) or "text" (a passage under a title).

    ``heading`` stands first in the open book: an entry's signature, a passage's title.
    """

    id: str
    kind: str
    name: str
    module: str
    document: str
    heading: str
    summary: str
    body: str
    language: Language = "en"


def cut(text: str, characters: int) -> str:
    """At most ``characters`` of ``text``, ended at a word (Chinese has no spaces: at any character)."""
    if len(text) <= characters:
        return text
    head = text[:characters]
    space = max(head.rfind(" "), head.rfind("\n"))
    if text[characters].isspace():
        space = characters
    return head[:space].rstrip() if space > characters // 2 else head


def _pick(choices: Sequence[str], *parts: object) -> str:
    return choices[int(chance(*parts) * len(choices))]


class Questions:
    """Makes the rows of one side (training or validation); names for mismatched questions come from the same side.

    Args:
        sources: everything on this side that can be asked about.
        seed: of every choice.
        chinese_share: share of English sources asked about in Chinese; Chinese texts are always asked about in Chinese.
        mismatch_share: share of questions that ask for another source's name.
        body_characters: the most of the body shown.
    """

    def __init__(self, sources: Sequence[Source], *, seed: int, chinese_share: float, mismatch_share: float, body_characters: int) -> None:
        self.sources, self.seed, self.body_characters = sources, seed, body_characters
        self.chinese_share, self.mismatch_share = chinese_share, mismatch_share
        # A ring of names in hashed order: the partner of a source is the next one on it, whatever the order of ``sources``.
        self.ring = sorted((chance("ring", seed, name), name, module) for name, module in {(s.name, s.module) for s in sources})

    def language(self, source: Source, use: str) -> Language:
        return "zh" if source.language == "zh" or chance("language", use, self.seed, source.id) < self.chinese_share else "en"

    def question(self, source: Source) -> dict[str, Any]:
        """The open-book question about a source, as a row on disk."""
        language = self.language(source, "qa")
        asked = self.other(source) if chance("mismatch", self.seed, source.id) < self.mismatch_share else None
        name = asked or source.name
        ask = _pick(ASK[source.kind][language], "phrasing", self.seed, source.id).format(name=name)
        answer = UNSAID[source.kind][language].format(name=name) if asked else source.summary
        content = f"{ask}\n{LABEL[source.kind][language]}{self.book(source)}"
        return _row(source, f"{source.id}#{language}", language, content, answer, name, about=asked is None)

    def summary(self, source: Source) -> dict[str, Any]:
        """The row text → summary."""
        language = self.language(source, "summary")
        content = f"{_pick(SUMMARISE[language], 'summarise', self.seed, source.id)}\n{self.book(source)}"
        return _row(source, f"{source.id}#summary", language, content, source.summary, source.name, about=True)

    def book(self, source: Source) -> str:
        return f"`{source.heading}`\n{cut(source.body, self.body_characters)}"

    def other(self, source: Source) -> str | None:
        """Another source's name; half the time, where there is one, of the same module or package: the harder case."""
        near = chance("near", self.seed, source.id) < 0.5
        start = bisect_left(self.ring, (chance("partner", self.seed, source.id), "", ""))
        top = source.module.split(".")[0]
        fallback = None
        for i in range(min(len(self.ring), 2000)):
            _, name, module = self.ring[(start + i) % len(self.ring)]
            if not _confusable(name, source.name):
                if not near or module.split(".")[0] == top:
                    return name
                fallback = fallback or name
        return fallback


def _confusable(a: str, b: str) -> bool:
    """Whether two names end alike (``A.fit``, ``B.fit``): an entry of the one may well answer for the other."""
    return a.rsplit(".", 1)[-1].lower() == b.rsplit(".", 1)[-1].lower()


def _row(source: Source, row: str, language: Language, content: str, answer: str, asked: str, *, about: bool) -> dict[str, Any]:
    return {
        "id": row,
        "source": source.id,
        "document": source.document,
        "language": language,
        "messages": [Message(role="user", content=content), Message(role="assistant", content=answer)],
        "facts": {"asked": asked, "name": source.name, "module": source.module, "about": about},
    }
