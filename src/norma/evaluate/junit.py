"""junit.xml: one test case per rule with a target and method under test, so that any CI shows a broken norm as a failed test."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

# Characters that XML 1.0 cannot hold at all, escaped or not.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _text(value: object) -> str:
    return _FORBIDDEN.sub("\ufffd", str(value))


def outcome(row: Mapping[str, Any], target: float, gate: str = "point") -> str:
    """passed, failed or undecided. ``point`` compares the rate; ``lower`` asks the whole interval to lie on one side of the target."""
    if row["rate"] is None:
        return "undecided"
    if gate == "lower":
        return "passed" if row["low"] >= target else "failed" if row["high"] < target else "undecided"
    return "passed" if row["rate"] >= target else "failed"


def junit_xml(report: Mapping[str, Any], methods: Sequence[str] | None = None, gate: str | None = None) -> str:
    """The report's targets as JUnit XML (UTF-8 text). Undecided cases are errors: they are neither a pass nor a broken rule."""
    gate = gate or report["settings"]["gate"]
    under_test = list(methods if methods is not None else report["settings"]["under_test"])
    targets = {card["rule"]: card["target"] for card in report["spec"]["rules"] if card["target"] is not None}
    root = ElementTree.Element("testsuites", name=_text(f"norma {report['spec']['id']} {report['spec']['version']}"))
    totals = {"passed": 0, "failed": 0, "undecided": 0}
    for method in report["methods"]:
        if method["method"] not in under_test:
            continue
        suite = ElementTree.SubElement(root, "testsuite", name=_text(method["method"]))
        counts = {"passed": 0, "failed": 0, "undecided": 0}
        rows = {row["rule"]: row for row in method["rules"]}
        for rule, target in targets.items():
            row = rows.get(rule)
            case = ElementTree.SubElement(
                suite, "testcase", classname=_text(f"norma.{report['spec']['id']}.{method['method']}"), name=_text(rule)
            )
            found = "undecided" if row is None else outcome(row, target, gate)
            counts[found] += 1
            if row is None or row["rate"] is None:
                ElementTree.SubElement(case, "error", type="undecided", message="no answer could be judged under this rule")
                continue
            said = (
                f"rate {row['rate']:.4f} [{row['low']:.4f}, {row['high']:.4f}], target {target:g} ({gate}); "
                f"{row['compliant']} compliant of {row['applicable']} applicable, {row['unsure']} unsure, {row['error']} errors, "
                f"{row['clusters']} clusters"
            )
            if found == "failed":
                ElementTree.SubElement(case, "failure", type="below-target", message=said)
            elif found == "undecided":
                ElementTree.SubElement(case, "error", type="undecided", message=said)
            else:
                ElementTree.SubElement(case, "system-out").text = said
        suite.attrib |= {"tests": str(len(targets)), "failures": str(counts["failed"]), "errors": str(counts["undecided"])}
        totals = {k: totals[k] + counts[k] for k in totals}
    root.attrib |= {"tests": str(sum(totals.values())), "failures": str(totals["failed"]), "errors": str(totals["undecided"])}
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False).join(['<?xml version="1.0" encoding="UTF-8"?>\n', "\n"])
