"""Errors that a user can mend: one line that names the thing, the place and the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NormaError(Exception):
    """Bad input or a missing resource.

    Args:
        what: what is wrong, in one sentence without a final full stop.
        where: the place, for example ``recipe.yaml:12:3`` or a path.
        mend: how to put it right, in one sentence without a final full stop.

    The command line prints ``str(error)`` and exits with ``exit_code``; ``--debug`` shows the traceback.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: object = None, mend: str | None = None) -> None:
        self.what, self.where, self.mend = what, None if where is None else str(where), mend
        super().__init__(what)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        mend = f". {self.mend}." if self.mend else ""
        return " ".join(f"{place}{self.what}{mend}".split())


def nearest(name: str, known: Iterable[str]) -> str:
    """A mend: "Did you mean 'x'" when one of ``known`` is close to ``name``, else the list of what is known."""
    names = sorted(known)
    if not names:
        return "Nothing is known here"
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"Did you mean '{close[0]}'" if close else f"Known: {', '.join(names)}"
