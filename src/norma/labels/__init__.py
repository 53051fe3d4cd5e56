"""Floor 2: the label store. Marks of people and of checkers, per rule, in one append-only table.

verdicts ─marks─→ Label rows ─LabelStore.add─→ SQLite (or PostgreSQL by URL) ─export─→ frozen JSON lines with a digest ─→ training rows
"""

from __future__ import annotations

from norma.labels.rows import Label, marks, response_hash
from norma.labels.store import FrozenExport, LabelStore

__all__ = ["FrozenExport", "Label", "LabelStore", "marks", "response_hash"]
