"""The table of `make demo` in both READMEs, made of its report: python docs/demo_table.py RUN

RUN/report.json ─→ the table behind the mark <!-- results --> of README.md and README.zh-CN.md

The text behind the table (date, machine, minutes) stays: it is written by who ran it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from three_ways import interval, p_value

from norma.base.files import read_json

ROOT = Path(__file__).resolve().parent.parent
HEADS = {
    "en": ("method", "compliance % [95%]", "against instructed, points", "p (Holm)", "held-out checkers %", "bits/byte", "chrF"),
    "zh": ("方法", "合规率 % [95%]", "相对指令微调（百分点）", "p（Holm）", "留出检查器 %", "比特/字节", "chrF"),
}


def table(run: Path, language: str) -> str:
    """The table in one language, as Markdown."""
    report = read_json(run / "report.json")
    lines = ["| " + " | ".join(HEADS[language]) + " |", "|---" * len(HEADS[language]) + "|"]
    lines += ["| " + " | ".join(cells(report, method, language)) + " |" for method in report["methods"]]
    return "\n".join(lines)


def cells(report: Mapping[str, Any], method: Mapping[str, Any], language: str) -> tuple[str, ...]:
    """One method."""
    name, kept = method["method"], method["overall"]
    wanted = (name, None, None, "report")
    found = (c for c in report["comparisons"] if (c["after"], c["language"], c["rule"], c["role"]) == wanted and c["family"] == "overall")
    change: Mapping[str, Any] = next(found, {})
    answers = next(q for q in report["quality"] if q["set"] == "questions")
    chrf = next(m for m in answers["methods"] if m["method"] == name)["without_opening"]["chrf"]
    return (
        method["label"][language],
        interval(kept["rate"], kept["low"], kept["high"], 100, ".1f"),
        interval(change.get("delta"), change.get("low"), change.get("high"), 100, "+.1f"),
        p_value(change.get("p_holm")),
        f"{100 * method['heldout']['overall']['rate']:.1f}",
        f"{method['bits_per_byte']:.3f}",
        f"{chrf:.1f}",
    )


def main(run: Path) -> None:
    for name, language in (("README.md", "en"), ("README.zh-CN.md", "zh")):
        page = ROOT / name
        text = page.read_text(encoding="utf-8")
        new = re.sub(r"(?<=<!-- results -->\n)(\|.*\n)+", table(run, language) + "\n", text)
        page.write_text(new, encoding="utf-8")
        print(f"{name}: {'changed' if new != text else 'as it was'}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit((__doc__ or "").partition("\n")[0])
    main(Path(sys.argv[1]))
