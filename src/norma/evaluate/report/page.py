"""report.json ─→ report.html: one file, no network, both languages inside, readable without JavaScript (English then).

    report dict ─→ headline and findings (sentences with numbers, here) ─┐
    page.html.jinja + style.css + view.js + script.js (beside) ──────────┴─→ HTML text

Everything from data is escaped by autoescape. A content security policy lets only the page's own script (by its hash) run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from norma.evaluate.junit import outcome
from norma.evaluate.report import figures, training
from norma.evaluate.report.wording import GLOSSARY, LIMITS, family_name, kind_name

FOLDER = Path(__file__).parent
COLOURS = 7  # --m1 .. --m7 in style.css; --m0 is the baseline's

Text = tuple[str, str]  # English, Chinese


def two(en: object, zh: object) -> Markup:
    """Both languages; style.css shows the one that the reader chose."""
    return Markup('<span class="en" lang="en">{}</span><span class="zh" lang="zh-Hans">{}</span>').format(en, zh)


def highlight(text: str, spans: list[list[int]]) -> Markup:
    """``text`` with its evidence spans (sorted, not overlapping) marked; everything escaped."""
    parts, at = [], 0
    for start, end in spans:
        parts += [escape(text[at:start]), Markup("<mark>"), escape(text[start:end]), Markup("</mark>")]
        at = end
    return Markup("").join([*parts, escape(text[at:])])


def headline(report: Mapping[str, Any], name: Mapping[str, Mapping[str, str]]) -> Text:
    """The answer in one sentence: the best supported change of overall compliance, or that there is none."""
    rows = [c for c in report["comparisons"] if c["family"] == "overall" and c["delta"] is not None]
    if not rows:
        best = max((m for m in report["methods"] if m["overall"]["rate"] is not None), key=lambda m: m["overall"]["rate"], default=None)
        if best is None:
            return "No answer could be judged.", "没有任何回答可以判定。"
        label, rate = name[best["method"]], figures.percent(best["overall"]["rate"])
        return f"{label['en']} keeps {rate} of the rules that apply.", f"“{label['zh']}”遵守了 {rate} 的适用规则。"
    raised = [c for c in rows if _shown(report, c) and c["delta"] > 0]
    lowered = [c for c in rows if _shown(report, c) and c["delta"] < 0]
    if not raised and not lowered:
        return "No method changed compliance beyond what chance explains.", "没有任何方法对合规率的改变超出偶然所能解释的范围。"
    top = max(raised, key=lambda c: c["after_rate"]) if raised else min(lowered, key=lambda c: c["after_rate"])
    rates = {m["method"]: figures.percent(m["overall"]["rate"]) for m in report["methods"]}  # as the first chart shows them
    label, before, after = name[top["after"]], rates[top["before"]], rates[top["after"]]
    if raised:
        return f"{label['en']} raised compliance from {before} to {after}.", f"“{label['zh']}”使合规率从 {before} 升至 {after}。"
    base = name[top["before"]]
    return (
        f"{label['en']} keeps fewer rules than {base['en'].lower()}: {after} against {before}.",
        f"“{label['zh']}”的合规率低于“{base['zh']}”：{after} 对 {before}。",
    )


def _shown(report: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether a change is shown: its interval leaves zero out AND Holm's p agrees; one of the two alone is not enough to say it."""
    alpha = 1 - report["settings"]["confidence"] + 1e-9
    return (row["low"] > 0 or row["high"] < 0) and row["p_holm"] is not None and bool(row["p_holm"] <= alpha)


def shown_first(report: Mapping[str, Any]) -> str:
    """The method whose examples are shown before the reader chooses: the one with the highest overall rate under test."""
    rates = {m["method"]: m["overall"]["rate"] for m in report["methods"] if m["overall"]["rate"] is not None}
    tested = [m for m in report["settings"]["under_test"] if m in rates]
    return max(tested, key=lambda m: rates[m], default="")


def findings(report: Mapping[str, Any], name: Mapping[str, Mapping[str, str]]) -> list[Text]:
    """What a hurried reader should take away, each with its interval."""
    level = f"{report['settings']['confidence']:.0%}"
    out: list[Text] = []
    rows = [c for c in report["comparisons"] if c["family"] == "overall" and c["delta"] is not None]
    for c in rows:
        en, zh, delta = name[c["after"]]["en"], name[c["after"]]["zh"], figures.points(c["delta"])
        span, p = f"{figures.points(c['low'])} … {figures.points(c['high'])}", figures.p_value(c["p_holm"])
        base = name[c["before"]]
        undecided_en, undecided_zh = "", ""
        if c["low"] <= 0 <= c["high"]:
            undecided_en, undecided_zh = " The interval includes zero: no change is shown.", "区间包含零：未显示出变化。"
        elif not _shown(report, c):
            undecided_en, undecided_zh = " Holm's p does not agree: no change is shown.", "Holm 校正后不显著：未显示出变化。"
        out.append(
            (
                f"{en}: {delta} points over {base['en'].lower()} ({level} interval {span}; Holm's p {p}).{undecided_en}",
                f"{zh}：相对“{base['zh']}”变化 {delta} 个百分点（{level} 区间 {span}；Holm 校正 p = {p}）。{undecided_zh}",
            )
        )
    out += _targets(report, name)
    gaps = report["hack_gap"]
    if gaps:
        loud = [g for g in gaps if g["verdict"] == report["hack_verdict"]]
        named_en = ", ".join(sorted({f"{g['rule']} ({name[g['after']]['en'].lower()})" for g in loud}))
        named_zh = "、".join(sorted({f"{g['rule']}（{name[g['after']]['zh']}）" for g in loud}))
        out.append(
            {
                "alarm": (
                    f"Hack gap ALARM: {named_en}. The training checker is satisfied where a held-out checker objects.",
                    f"投机差距警报：{named_zh}。训练检查器满意之处，留出检查器却判为违规。",
                ),
                "watch": (
                    f"Hack gap to watch: {named_en}. The interval lies above zero, the correction for many tests does not agree.",
                    f"投机差距需留意：{named_zh}。区间大于零，但多重检验校正尚不支持。",
                ),
                "quiet": (
                    "Held-out checkers raise no alarm: no sign that a method learnt its checker and not the rule.",
                    "留出检查器未发出警报：没有迹象表明某种方法学到的是检查器而非规则。",
                ),
                "no_data": (
                    "The hack gap could not be measured: no answer was judged by both kinds of checkers.",
                    "无法测量投机差距：没有回答同时被两类检查器判定。",
                ),
            }[report["hack_verdict"]]
        )
    elif not any(m["heldout"] for m in report["methods"]):
        out.append(("No held-out checker: reward hacking would not be seen here.", "没有留出检查器：奖励投机在此无从发现。"))
    if report["claim"]["about"] == "checkpoint":
        seeds = report["claim"]["seeds"]
        out.append(
            (
                f"{'One training seed' if seeds == 1 else f'{seeds} training seeds'}: these figures are about these checkpoints, "
                "not about the methods in general (that takes three seeds or more).",
                f"训练种子数为 {seeds}：这些数字只说明这些检查点，并不说明方法本身（那至少需要三个种子）。",
            )
        )
    return out


def _targets(report: Mapping[str, Any], name: Mapping[str, Mapping[str, str]]) -> list[Text]:
    """How the method shown first stands against the spec's targets; nothing when the spec has none."""
    method = next((m for m in report["methods"] if m["method"] == shown_first(report)), None)
    targets = {c["rule"]: c["target"] for c in report["spec"]["rules"] if c["target"] is not None}
    if method is None or not targets:
        return []
    judged = {
        row["rule"]: outcome(row, targets[row["rule"]], report["settings"]["gate"]) for row in method["rules"] if row["rule"] in targets
    }
    reached = sum(found == "passed" for found in judged.values())
    below = [rule for rule, found in judged.items() if found == "failed"]
    open_ = [rule for rule in targets if judged.get(rule, "undecided") == "undecided"]
    label = name[method["method"]]
    en, zh = f"{label['en']} reaches {reached} of {len(targets)} targets", f"“{label['zh']}”达到 {len(targets)} 个目标中的 {reached} 个"
    if below:
        en, zh = f"{en}; below: {', '.join(below)}", f"{zh}；未达到：{'、'.join(below)}"
    if open_:
        en, zh = f"{en}; undecided: {', '.join(open_)}", f"{zh}；未定：{'、'.join(open_)}"
    return [(f"{en}.", f"{zh}。")]


def statement(card: Mapping[str, Any]) -> Markup:
    """A rule's wording in both languages; a language without a statement falls back to whatever the spec has."""
    texts = card["statement"]
    if not texts:
        return Markup("")
    first = next(iter(texts.values()))
    english = next((v for k, v in texts.items() if k.split("-")[0] == "en"), first)
    return two(english, next((v for k, v in texts.items() if k.split("-")[0] == "zh"), english))


def _data_block(value: Any) -> Markup:
    """JSON that can stand inside a script element: no character of it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(
        t=two,
        highlight=highlight,
        statement=statement,
        percent=figures.percent,
        points=figures.points,
        p_value=figures.p_value,
        number=figures.number,
        figure=figures.figure,
        signed=figures.signed,
        place=figures.place,
        axis=figures.axis,
    )
    return environment


def _dressed(*scripts: str) -> dict[str, Any]:
    """What every page carries: the style, and its scripts as one, the only one that may run."""
    script = "".join((FOLDER / name).read_text(encoding="utf-8") for name in scripts)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    return {"style": Markup(style), "script": Markup(script), "script_hash": allowed}


def render_training(records: Sequence[Mapping[str, Any]], title: str) -> str:
    """A page of its own for how stages were trained, of a run that was not evaluated, or not yet."""
    made = training.panels(records)
    colours = {panel["stage"]: f"var(--m{i % COLOURS + 1})" for i, panel in enumerate(made)}
    return _environment().get_template("training_page.html.jinja").render(panels=made, colours=colours, title=title, **_dressed("view.js"))


def render_html(report: Mapping[str, Any]) -> str:
    """The whole page as text."""
    names = {m["method"]: m["label"] for m in report["methods"]}
    for name in {row["method"] for q in report["quality"] for row in q["methods"]}:
        names.setdefault(name, {"en": name, "zh": name})
    baseline = report["settings"]["baseline"]
    others = [m for m in names if m != baseline]
    colours = {baseline: "var(--m0)"} | {m: f"var(--m{i % COLOURS + 1})" for i, m in enumerate(others)}
    stages = {record["stage"]: colours.get(record.get("method", ""), "var(--m1)") for record in report["training"]}
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            report=report,
            names=names,
            colours=colours | stages,
            headline=headline(report, names),
            shown_first=shown_first(report),
            findings=findings(report, names),
            panels=training.panels(report["training"]),
            cards={c["rule"]: c for c in report["spec"]["rules"]},
            glossary=GLOSSARY,
            limits=[*LIMITS, *((row.get("en", ""), row.get("zh", row.get("en", ""))) for row in report["limits"])],
            family_name=family_name,
            kind_name=kind_name,
            items_json=_data_block(
                {**report["items"], "names": names, "statements": {c["rule"]: c["statement"] for c in report["spec"]["rules"]}}
            ),
            run=[(k, v if isinstance(v, (str, int, float)) else json.dumps(v, ensure_ascii=False)) for k, v in report["run"].items()],
            **_dressed("view.js", "script.js"),
        )
    )
