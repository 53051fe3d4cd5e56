"""compare.json ─→ compare.html: two models side by side, both languages, one file. See :mod:`norma.evaluate.report.page`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from norma.evaluate.report.figures import MINUS, figure, p_value, percent, points
from norma.evaluate.report.page import Text, _dressed, _environment

ALPHA = 0.05
SHOWN = 200  # answers on the page; all of them stand in compare.json
FOUND: dict[str, Text] = {
    "better": ("B is better", "B 更好"),
    "worse": ("B is worse", "B 更差"),
    "held": ("held", "持平"),
    "undecided": ("not decided", "尚无定论"),
}
STATUS: dict[str, Text] = {
    "compliant": ("kept", "遵守"),
    "violation": ("broken", "违反"),
    "unsure": ("unsure", "不确定"),
    "error": ("no verdict", "无法判定"),
}
SCORE_NAMES: dict[str, Text] = {
    "accuracy": ("accuracy", "准确率"),
    "accuracy_per_byte": ("accuracy, per byte", "准确率（按字节）"),
    "accuracy_calibrated": ("accuracy, calibrated", "准确率（校准后）"),
    "macro_f1": ("macro F1", "宏平均 F1"),
    "exact_match": ("exact match", "完全匹配"),
    "f1": ("F1", "F1"),
    "bleu": ("BLEU", "BLEU"),
    "chrf": ("chrF", "chrF"),
    "rouge_1": ("ROUGE-1", "ROUGE-1"),
    "rouge_2": ("ROUGE-2", "ROUGE-2"),
    "rouge_l": ("ROUGE-L", "ROUGE-L"),
    "bits_per_byte": ("bits per byte", "每字节比特"),
    "perplexity": ("perplexity, per token", "困惑度（每词元）"),
    "word_perplexity": ("perplexity, per word", "困惑度（每词）"),
}


def task_finding(row: Mapping[str, Any]) -> str:
    """better or worse where the interval leaves zero out and p (Holm's, of a main score) agrees; else undecided."""
    p = row["p"] if row["p_holm"] is None else row["p_holm"]
    if p > ALPHA or row["low"] <= 0 <= row["high"]:
        return "undecided"
    return "better" if (row["delta"] > 0) != row["lower_is_better"] else "worse"


def value(number: float, unit: str) -> str:
    """A score as the page shows it."""
    if unit == "share":
        return percent(number)
    return f"{number:.3f}" if unit == "bits" else figure(number) if abs(number) >= 1e5 else f"{number:.1f}"


def difference(number: float, unit: str) -> str:
    """A difference of two scores: of shares in points."""
    if unit == "share":
        return points(number)
    text = value(abs(number), unit)
    return text if not text.strip("0.") else ("+" if number > 0 else MINUS) + text


def headline(data: Mapping[str, Any]) -> Text:
    """The answer in a sentence, with no more than the intervals allow."""
    a, b = (m["name"] for m in data["models"])
    rules, tasks = [r["found"] for r in data["rules"]], [task_finding(t) for t in data["tasks"] if t["main"]]
    up, down = rules.count("better") + tasks.count("better"), rules.count("worse") + tasks.count("worse")
    if not rules and not tasks:
        same = sum(x["same"] for x in data["answers"])
        return (
            f"{a} and {b} give {len(data['answers']) - same} of {len(data['answers'])} prompts different answers.",
            f"{a} 与 {b} 对 {len(data['answers'])} 条提示中的 {len(data['answers']) - same} 条给出不同回答。",
        )
    of_en = " and ".join(([f"{len(rules)} rules"] if rules else []) + ([f"{len(tasks)} tasks"] if tasks else []))
    of_zh = "、".join(([f"{len(rules)} 条规则"] if rules else []) + ([f"{len(tasks)} 项任务"] if tasks else []))
    if not up and not down:
        return f"No difference between {a} and {b} is shown on {of_en}.", f"在 {of_zh}上，未显示出 {a} 与 {b} 的差异。"
    parts_en = ([f"better on {up}"] if up else []) + ([f"worse on {down}"] if down else [])
    parts_zh = ([f"{up} 处更好"] if up else []) + ([f"{down} 处更差"] if down else [])
    return f"Of {of_en}, {b} is {' and '.join(parts_en)} than {a}.".replace(f" than {a}", f", compared with {a}"), (
        f"在 {of_zh}中，{b} 相比 {a}：{'，'.join(parts_zh)}。"
    )


def tone(found: str) -> str:
    """The colour of a finding's chip."""
    return {"better": "good", "held": "good", "worse": "bad"}.get(found, "plain")


def ordered(answers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Where a rule judges otherwise first, then other words, then equal ones."""
    return sorted(answers, key=lambda x: (not x["differs"], x["same"]))[:SHOWN]


def render_compare(data: Mapping[str, Any]) -> str:
    """The whole page as text."""
    environment = _environment()
    page = environment.get_template("compare.html.jinja")
    return page.render(
        data=data,
        names=[m["name"] for m in data["models"]],
        headline=headline(data),
        answers=ordered(data["answers"]),
        found=FOUND,
        status=STATUS,
        scores=SCORE_NAMES,
        finding=task_finding,
        tone=tone,
        value=value,
        difference=difference,
        p_value=p_value,
        alpha=ALPHA,
        **_dressed("view.js", "compare.js"),
    )
