"""Floor 4: the checkers, one file per kind; `norma.spec` finds each kind through the entry-point group ``norma.checkers``.

    programs.build(use, params, where) ─→ ProgramChecker.check(item, response) ─→ Finding
    metamorphic.selftest(checker)      ─→ what a checker lets through that it must not

Programs are small pure functions, grouped by idea: lengths, openings, mentions, persons, statements, repetition, patterns; the
``second_*`` files judge the same rules by another method and serve as held-out checkers.
"""

from __future__ import annotations

from norma.check.metamorphic import selftest
from norma.check.program import ProgramChecker
from norma.check.programs import build, known_programs

__all__ = ["ProgramChecker", "build", "known_programs", "selftest"]
