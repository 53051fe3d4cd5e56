"""Data sets of a hub by name, through the optional ``datasets`` library: ``NAME`` or ``NAME:SPLIT``, streamed."""

from __future__ import annotations

from collections.abc import Iterator

from norma.base.errors import NormaError
from norma.text.formats import Record
from norma.text.quarantine import Quarantine


def read_hub(name: str, quarantine: Quarantine) -> Iterator[Record]:
    """Stream the rows of the data set ``name`` (split ``train`` unless ``NAME:SPLIT``)."""
    try:
        import datasets
    except ImportError:
        mend = "pip install 'norma-lm[data]'"
        raise NormaError("reading a data set of a hub needs the library 'datasets'", where=name, mend=mend) from None
    repository, _, split = name.partition(":")
    try:
        rows = datasets.load_dataset(repository, split=split or "train", streaming=True)
        for number, row in enumerate(rows, 1):
            if any(value not in (None, "", [], {}) for value in row.values()):
                yield Record(name, number, dict(row))
            else:
                quarantine.add(name, number, "empty row")
    except (OSError, ValueError, RuntimeError) as error:
        # Not found, not public, no network, no such split: the library has no common error class.
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise NormaError(f"the data set cannot be read ({why})", where=name, mend="Check the name, the split and the network") from error
