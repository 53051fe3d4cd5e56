"""The self-test of a checker: answers that no checker may pass, and changes to an answer that may change no verdict.

for every checker         empty, white space, the question echoed, an unclosed <think> → not compliant; score in [0, 1]; twice the same
                          a language that it does not declare                           → error, never a pass
for a program's promises  boilerplate, repetition, another language                   → not compliant
for known good answers    behind a <think> block, with white space around             → still compliant
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from norma.check.program import ProgramChecker
from norma.check.segment import family
from norma.spec import registry
from norma.spec.types import Checker, CheckerFailure, Finding, Item, Message, Status

_ENTRY = "`shelf.stack(items, height=3)`\nItems are laid in the order given. A height of zero raises ValueError."
_QUESTIONS = {
    "en": (
        f"What does `shelf.stack` do?\nEntry: {_ENTRY}",
        {
            "boilerplate": ("Certainly:", "Of course, happy to help!", "Thank you for asking."),
            "repetition": (
                "Certainly: certainly: certainly: certainly:",
                "Certainly: `shelf.stack` `shelf.stack` `shelf.stack` `shelf.stack` `shelf.stack`.",
                "Certainly: the items the items the items the items the items the items.",
            ),
            "other_language": ("您好：它把物品按给定的顺序叠放起来。",),
        },
    ),
    "zh": (
        f"`shelf.stack` 有什么作用？\n条目：{_ENTRY}",
        {
            "boilerplate": ("您好：", "好的，很高兴为您解答！", "感谢您的提问。"),
            "repetition": (
                "您好：您好：您好：您好：",
                "您好：`shelf.stack` `shelf.stack` `shelf.stack` `shelf.stack` `shelf.stack`。",
                "您好：按顺序叠放物品按顺序叠放物品按顺序叠放物品。",
            ),
            "other_language": ("Certainly: it lays the items one on another.",),
        },
    ),
}


def selftest(checker: Checker, good: Sequence[tuple[Item, str]] = ()) -> list[str]:
    """What is wrong with ``checker``, one line each; an empty list means that it passed. ``good``: answers known to comply."""
    faults: list[str] = []
    promised = checker.program.catches if isinstance(checker, ProgramChecker) else frozenset()
    for language, (question, attacks) in _QUESTIONS.items():
        if checker.languages and language not in {family(tag) for tag in checker.languages}:
            continue
        item = Item(f"selftest#{language}", (Message(role="user", content=question),), language)
        hollow: dict[str, tuple[str, ...]] = {
            "empty": ("",),
            "white space": (" \n\t ", "。", "..."),
            "echo": (question,),
            "think": ("<think>", "<think>\nA plan that never ends."),
        }
        for name, answers in {**hollow, **attacks}.items():
            for answer in answers:
                finding = _finding(checker, item, answer)
                faults += [f"{language}, {name}: {fault}" for fault in _unsound(checker, item, answer, finding)]
                if finding.status is Status.COMPLIANT and (name in hollow or name in promised):
                    faults.append(f"{language}, {name}: passes {answer!r}")
    if checker.languages:
        item = Item("selftest#tlh", (Message(role="user", content="nuqneH?"),), "tlh")  # Klingon: nobody declares it
        finding = (
            _finding(checker, item, "nuqneH! Qapla'.") if isinstance(checker, ProgramChecker) else registry.run(checker, item, "Qapla'.")
        )
        if finding.status is not Status.ERROR:
            faults.append(f"tlh, a language that is not declared: {finding.status}, not error")
    for item, answer in good:
        for name, changed in (("think block", f"<think>\nA plan.\n</think>\n\n{answer}"), ("white space", f"{answer}\n")):
            before, after = _finding(checker, item, answer), _finding(checker, item, changed)
            faults += [f"{item.language}, {name}: {fault}" for fault in _unsound(checker, item, changed, after)]
            if before.status is not after.status:
                faults.append(f"{item.language}, {name}: turns {before.status} into {after.status} for {answer!r}")
    return faults


def _finding(checker: Checker, item: Item, answer: str) -> Finding:
    """What the checker says; an error where it cannot. Not through the registry, which would hide a score outside [0, 1]."""
    try:
        return checker.check(item, answer)
    except (CheckerFailure, ValueError, LookupError, OSError) as error:
        return Finding(Status.ERROR, note=str(error))


def _unsound(checker: Checker, item: Item, answer: str, finding: Finding) -> list[str]:
    """Faults of a finding in itself: a score outside [0, 1], evidence outside the answer, another result the second time."""
    faults = []
    if finding.score is not None and not (math.isfinite(finding.score) and 0 <= finding.score <= 1):
        faults.append(f"score {finding.score} for {answer!r}")
    if any(not 0 <= start <= end <= len(answer) for start, end in finding.evidence):
        faults.append(f"evidence {finding.evidence} lies outside {answer!r}")
    if isinstance(checker, ProgramChecker) and _finding(checker, item, answer) != finding:
        faults.append(f"judges {answer!r} differently the second time")
    return faults
