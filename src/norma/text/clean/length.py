"""Documents that are too short or too long, by language.

    document ─→ the bounds of its language, else the general ones ─→ characters, words ─→ kept or set aside
"""

from __future__ import annotations

from norma.text.clean.options import Bounds, LengthOptions
from norma.text.clean.steps import Aside, Document, Step
from norma.text.clean.units import language, words
from norma.text.quarantine import Quarantine


def outside(text: str, tag: str, bounds: Bounds) -> Aside | None:
    """Why ``text`` is outside ``bounds``, or None. Words are pieces between spaces; in a language without spaces, its characters."""
    count = len(text)
    if bounds.least_characters is not None and count < bounds.least_characters:
        return Aside("too few characters", f"{count:,}, least {bounds.least_characters:,}")
    if bounds.most_characters is not None and count > bounds.most_characters:
        return Aside("too many characters", f"{count:,}, most {bounds.most_characters:,}")
    if bounds.least_words is None and bounds.most_words is None:
        return None
    count = len(words(text, tag))
    if bounds.least_words is not None and count < bounds.least_words:
        return Aside("too few words", f"{count:,}, least {bounds.least_words:,}")
    if bounds.most_words is not None and count > bounds.most_words:
        return Aside("too many words", f"{count:,}, most {bounds.most_words:,}")
    return None


class Length(Step):
    """Sets aside what is outside the bounds of its language."""

    name = "length"

    def __init__(self, options: LengthOptions, quarantine: Quarantine | None = None) -> None:
        super().__init__(quarantine)
        self.options = options

    def judge(self, document: Document) -> Document | Aside:
        tag, own = language(document), self.options.by_language
        # `unknown` may have bounds of its own; the words of such a document are still counted as its script suggests.
        bounds = own.get(document.language) or own.get(tag, self.options)
        return outside(document.text, tag, bounds) or document
