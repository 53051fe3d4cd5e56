"""Questions from running text: a paragraph without its first sentence is the book, that sentence the answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

from norma.text.languages import language_of
from norma.text.questions import Source
from norma.text.summaries import sentences

SENTENCES = 3  # a shorter paragraph does not tell enough without its first sentence
_CHINESE = re.compile(r"[^。！？]*[。！？][”」』）]?")


def sentences_of(paragraph: str) -> list[str]:
    """Sentences in either script."""
    if language_of(paragraph) == "zh":
        found = _CHINESE.findall(paragraph)
        rest = paragraph[sum(map(len, found)) :]
        return [s.strip() for s in [*found, rest] if s.strip()]
    return sentences(paragraph)


def sources_of(text: str, title: str, identity: str, document: str) -> Iterator[Source]:
    """One source for each paragraph of at least three sentences whose first can be an answer."""
    name = " ".join(title.replace("`", "").split())[:60].strip() or document
    for number, paragraph in enumerate(re.split(r"\n\s*\n|\n(?=[\u3000\u4e00-\u9fff])", text)):
        line = " ".join(part.strip() for part in paragraph.splitlines() if not part.lstrip().startswith(("#", "|", "```", ">")))
        parts = sentences_of(line)
        if len(parts) < SENTENCES:
            continue
        language, first = language_of(line), parts[0]
        long_enough = 8 <= len(first) <= 120 if language == "zh" else 4 <= len(first.split()) <= 40
        if long_enough and first[-1] in ".。！？!?" and "http" not in first:
            joint = "" if language == "zh" else " "
            yield Source(f"{identity}.{number}", "text", name, document, document, name, first, joint.join(parts[1:]), language)
