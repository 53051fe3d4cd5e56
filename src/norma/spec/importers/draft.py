"""A spec in the making: what an importer has understood, its names made lawful, and the YAML that the strict loader reads back as it was.

Draft(rules, notes) ─yaml_text─→ text ─strict loader─→ Spec     texts that YAML could take for something else are quoted; no anchors
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from norma.spec import writing

Rule = dict[str, Any]  # one rule as the file writes it


@dataclass
class Draft:
    """What was found in a source. ``notes``: one line for each thing that the source lacks or that could not be taken over."""

    language: str
    rules: list[Rule] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    levels: list[str] | None = None


def name(text: str, default: str = "rule") -> str:
    """A lawful name from any text: lower case, letters and digits joined by '.', '_' or '-'."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    joined = re.sub(r"[^a-z0-9._-]+", "-", plain.replace(":", "."))
    return re.sub(r"([._-])[._-]+", r"\1", joined).strip("._-") or default


def unique(wanted: str, taken: Iterable[str]) -> str:
    """``wanted``, or with the first free number behind it."""
    used, number, found = set(taken), 1, wanted
    while found in used:
        number += 1
        found = f"{wanted}-{number}"
    return found


def plural(count: int, what: str) -> str:
    """``1 rule``, ``3 rules``."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def yaml_text(id: str, draft: Draft, comment: str) -> str:
    """The spec file of a draft. ``comment``: its first line."""
    header: dict[str, Any] = {"id": id, "version": "1", "source_language": draft.language, "languages": [draft.language]}
    data: dict[str, Any] = {"norma": 1, "spec": header}
    if draft.levels is not None:
        data["levels"] = draft.levels
    data["rules"] = draft.rules
    return f"# {comment}\n{writing.yaml_text(data)}"
