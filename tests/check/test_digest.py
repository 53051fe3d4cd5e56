"""A checker's digest covers its kind, name, parameters and code, and nothing else."""

from __future__ import annotations

import subprocess
import sys

from pydantic import ValidationError

from norma.check import build, known_programs, lexicon, openings, segment
from norma.check.program import Params
from norma.check.source_digest import code_digest


def needed(params: type[Params]) -> bool:
    """Whether a program has parameters without a default, or refuses to do without any."""
    try:
        params()
    except ValidationError:
        return True
    return False


def test_equal_checkers_have_equal_digests_and_others_differ() -> None:
    assert build("sentences", {"max": "1"}, "a").digest == build("sentences", {"max": 1, "min": 1}, "b").digest
    assert build("sentences", {"max": 1}, "").digest != build("sentences", {"max": 2}, "").digest
    digests = [build(name, {}, "").digest for name, entry in known_programs().items() if not needed(entry.params)]
    assert len(digests) > 15 and len(set(digests)) == len(digests) and all(len(d) == 64 for d in digests)


def test_digests_are_the_same_in_another_process() -> None:
    code = "from norma.check import known_programs\nfrom norma.check.source_digest import code_digest\n"
    code += "print(code_digest(*[p.run for p in known_programs().values()]))"
    other = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7"},
    )
    assert other.stdout.strip() == code_digest(*[entry.run for entry in known_programs().values()])


def test_a_changed_word_list_changes_only_those_who_read_it(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    before = {name: code_digest(known_programs()[name].run) for name in ("polite_opening", "sentences", "courtesy_marks")}
    monkeypatch.setattr(openings, "OPENINGS", {**lexicon.OPENINGS, "en": ("aye",)})
    after = {name: code_digest(known_programs()[name].run) for name in before}
    assert [name for name in before if before[name] != after[name]] == ["polite_opening"]
    monkeypatch.setattr(segment, "ABBREVIATIONS", frozenset({"e.g"}))
    assert code_digest(known_programs()["sentences"].run) != before["sentences"]  # reached through two helpers
