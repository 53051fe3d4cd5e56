"""The HTML: one jinja template a page, in the reader's language (cookie, else the browser's), everything escaped by autoescape."""

from __future__ import annotations

import contextlib
from collections import Counter
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from norma.base.errors import NormaError
from norma.evaluate.report import figures, training
from norma.evaluate.report import page as report_page
from norma.spec.lint import lint
from norma.studio import processes
from norma.studio.accounts import ROLES, User
from norma.studio.security import Admin, Annotator, Reviewer
from norma.studio.words import language_of, said

router = APIRouter()
HERE = Path(__file__).parent
LANGUAGE: ContextVar[str] = ContextVar("norma.studio.language", default="en")
NAVIGATION = (
    ("/annotate", "Annotate", "标注", "annotator"),
    ("/prefer", "Compare", "比较", "annotator"),
    ("/review", "Review", "复核", "reviewer"),
    ("/look", "Look inside", "看模型内部", "annotator"),
    ("/chat", "Chat", "对话", "annotator"),
    ("/compliance", "Compliance", "合规", "annotator"),
    ("/runs", "Runs", "训练", "annotator"),
    ("/spec", "Spec", "规范", "annotator"),
    ("/people", "People", "人员", "admin"),
)
STATES = {
    "done": ("done", "完成"), "stale": ("stale", "过期"), "running": ("running", "进行中"), "stopped": ("stopped", "已停止"),
    "failed": ("failed", "失败"), "waiting": ("waiting", "等待"),
}  # fmt: skip
VERDICTS = {
    "compliant": ("Keeps it", "遵守"), "violation": ("Breaks it", "违反"), "not_applicable": ("Does not apply", "不适用"),
    "unsure": ("Unsure", "不确定"), "error": ("Error", "错误"),
}  # fmt: skip
LEVELS = {"root": "根本", "system": "系统", "developer": "开发者", "user": "用户", "guideline": "准则"}


def t(en: Any, zh: Any = None) -> Any:
    """The text in the language of this page."""
    return zh if LANGUAGE.get() == "zh" and zh is not None else en


def server(text: str) -> str:
    """What the server says in English, in the language of this page."""
    return said(text, LANGUAGE.get())


def statement(texts: Any) -> str:
    """A rule's wording in the language of this page, else in whichever it has."""
    if not texts:
        return ""
    return str(next((v for k, v in texts.items() if k.split("-")[0] == LANGUAGE.get()), next(iter(texts.values()))))


@cache
def environment() -> Environment:
    loader = FileSystemLoader([HERE / "templates", Path(report_page.__file__).parent])
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.globals.update(
        t=t, server=server, statement=statement,
        highlight=report_page.highlight, percent=figures.percent, points=figures.points, p_value=figures.p_value,
        number=figures.number, figure=figures.figure, signed=figures.signed, place=figures.place, axis=figures.axis, VERDICTS=VERDICTS,
        STATES=STATES, LEVELS=LEVELS, ROLES=ROLES,
    )  # fmt: skip
    return made


def render(request: Request, template: str, user: User | None = None, status: int = 200, **values: Any) -> HTMLResponse:
    language = language_of(request)
    token = LANGUAGE.set(language)
    try:
        place = request.app.state.place
        theme = request.query_params.get("theme") or request.cookies.get("norma_theme") or "auto"
        html = environment().get_template(template).render(
            user=user, language=language, theme=theme if theme in ("light", "dark") else "auto", path=request.url.path,
            csrf=place.accounts.csrf(user.session) if user else "", navigation=[n for n in NAVIGATION if user and user.may(n[3])],
            studio=place, local=place.local is not None, **values,
        )  # fmt: skip
    finally:
        LANGUAGE.reset(token)
    response = HTMLResponse(html, status)
    for key, known in (("lang", ("en", "zh")), ("theme", ("light", "dark", "auto"))):
        if request.query_params.get(key) in known:
            response.set_cookie(f"norma_{key}", request.query_params[key], max_age=31536000, samesite="lax", path="/")
    return response


def problem(request: Request, status: int, what: str) -> HTMLResponse:
    return render(request, "problem.html.jinja", None, status, what=said(what, language_of(request)), code=status)


def login(request: Request, wrong: str = "", status: int = 200, name: str = "") -> HTMLResponse:
    return render(request, "login.html.jinja", None, status, wrong=wrong, name=name[:64])


@router.get("/report.css")
def report_style() -> FileResponse:
    """The report's own style: one look for both."""
    return FileResponse(Path(report_page.__file__).parent / "style.css", media_type="text/css")


@router.get("/favicon.ico")
def icon() -> FileResponse:
    return FileResponse(HERE / "static" / "icon.svg", media_type="image/svg+xml")


@router.get("/")
def home(user: Annotator) -> Response:
    return RedirectResponse("/annotate", 303)


@router.get("/annotate")
def annotate(request: Request, user: Annotator) -> Response:
    place = request.app.state.place
    spec = place.run_spec
    return render(request, "annotate.html.jinja", user, rules=[] if spec is None else spec.rules, can_draw=place.view is not None)


@router.get("/prefer")
def prefer(request: Request, user: Annotator) -> Response:
    return render(request, "prefer.html.jinja", user)


@router.get("/review")
def review(request: Request, user: Reviewer) -> Response:
    return render(request, "review.html.jinja", user)


@router.get("/look")
def look(request: Request, user: Annotator) -> Response:
    place = request.app.state.place
    names = [n for n in place.models if (place.models[n] / "tokenizer.json").is_file() or (place.models[n] / "vocab.txt").is_file()]
    return render(request, "look.html.jinja", user, models=names, chosen=_last(place, names))


@router.get("/chat")
def chat(request: Request, user: Annotator) -> Response:
    place = request.app.state.place
    names = list(place.models)
    return render(request, "chat.html.jinja", user, models=names, chosen=_last(place, names), has_spec=place.run_spec is not None)


def _last(place: Any, names: list[str]) -> str:
    """The model a reader most likely wants: the last norm stage, not what was fine-tuned from it."""
    for name in ("reward", "correction", "prompting", "instruct"):
        if name in names:
            return name
    return names[-1] if names else ""


@router.get("/compliance")
def compliance(request: Request, user: Annotator) -> Response:
    view = request.app.state.place.view
    if view is None:
        return render(request, "empty.html.jinja", user, what="report")
    report = view.report
    names = {m["method"]: m["label"] for m in report["methods"]}
    baseline = report["settings"]["baseline"]
    others = [m for m in names if m != baseline]
    colours = {baseline: "var(--m0)"} | {m: f"var(--m{i % report_page.COLOURS + 1})" for i, m in enumerate(others)}
    return render(
        request, "compliance.html.jinja", user, report=report, names=names, colours=colours, baseline=baseline,
        headline=report_page.headline(report, names),
        findings=report_page.findings(report, names), alpha=1 - report["settings"]["confidence"] + 1e-9,
    )  # fmt: skip


@router.get("/runs")
def runs(request: Request, user: Annotator, run: str = "", beside: str = "", stage: str = "") -> Response:
    place = request.app.state.place
    if place.run is None:
        return render(request, "empty.html.jinja", user, what="run")
    from norma.pipeline.training import read_training

    try:
        folder = processes.pick(place.run, run or place.run.name)
        other = processes.pick(place.run, beside) if beside else None
    except NormaError as error:
        raise HTTPException(404, str(error)) from None
    state = processes.at_a_glance(folder)
    records: dict[str, dict[str, Any]] = {}
    for name in [s["name"] for s in state["stages"]]:
        for part in (folder / ".work" / name, folder / name):
            with contextlib.suppress(NormaError, KeyError, OSError):
                found = read_training(part)
                if found is not None:
                    records.setdefault(name, found | {"stage": name, "label": {"en": name, "zh": name}})
    panels = training.panels(list(records.values()))
    samples = {name: _samples(folder, name) for name in records}
    compared = []
    if other is not None:
        for name, record in records.items():
            if (stage and name != stage) or not (other / name / "metrics.jsonl").is_file():
                continue
            with contextlib.suppress(NormaError, KeyError, OSError):
                second = read_training(other / name)
                if second is not None:
                    compared.append({"stage": name, "charts": _beside(record, second)})
    return render(
        request, "runs.html.jinja", user, state=state, panels=panels,
        colours={p["stage"]: f"var(--m{i % 7 + 1})" for i, p in enumerate(panels)},
        samples={k: v for k, v in samples.items() if v}, neighbours=list(processes.neighbours(place.run)), run=folder.name, beside=beside,
        compared=compared, log=processes.tail(folder / "studio" / "run.log"),
    )  # fmt: skip


def _beside(one: dict[str, Any], two: dict[str, Any]) -> list[dict[str, Any]]:
    """Charts of the numbers that both runs logged, on one axis each."""
    second = {c["name"]: c for c in two["curves"]}
    charts = []
    for curve in one["curves"]:
        other = second.get(curve["name"])
        if other is None or len(curve["values"]) < 2 or len(other["values"]) < 2:
            continue
        steps = [*curve["steps"], *other["steps"]]
        x, y = [min(steps), max(steps)], figures.axis([*curve["values"], *other["values"]], zero=False)
        lines = [
            {"path": figures.polyline(c["steps"], training.calm(c["values"]), x, y), "last": training.calm(c["values"])[-1], "raw": None,
             "what": (word, word)} for c, word in ((curve, "A"), (other, "B"))
        ]  # fmt: skip
        title = curve["name"].replace("_", " ")
        charts.append({"title": (title, title), "share": False, "axis": y, "lines": lines, "x": x})
    return charts[:8]


def _samples(folder: Path, stage: str) -> list[dict[str, Any]]:
    import json

    path = next((p for p in (folder / ".work" / stage / "samples.jsonl", folder / stage / "samples.jsonl") if p.is_file()), None)
    if path is None:
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    keep = max(1, len(rows) // 12)
    return [{"step": r["step"], "text": str(r["text"])[:600]} for r in rows[::keep]][:14]


@router.get("/spec")
def spec(request: Request, user: Annotator) -> Response:
    place = request.app.state.place
    try:
        found = place.spec
    except NormaError as error:
        return render(request, "spec_broken.html.jinja", user, error=str(error), text=place.spec_path.read_text(encoding="utf-8"))
    if found is None:
        return render(request, "empty.html.jinja", user, what="spec")
    findings = place.fresh("lint", place.spec_path, lambda: lint(found, run_checkers=True, kinds={"program", "composite"}))
    return render(
        request, "spec.html.jinja", user, spec=found, findings=findings, edges=_edges(found), coverage=_coverage(found),
        text=place.spec_path.read_text(encoding="utf-8-sig"), can_save=user.may("admin"),
    )  # fmt: skip


def _edges(spec: Any) -> list[dict[str, str]]:
    """Who may set whom aside: the conflict map."""
    rows = []
    for rule in spec.rules:
        for kind in ("conflicts_with", "overrides", "unless"):
            rows += [{"from": rule.id, "to": other, "kind": kind} for other in getattr(rule, kind)]
    return rows


def _coverage(spec: Any) -> list[dict[str, Any]]:
    """Of every rule and language: good and bad examples, prompts that put it to the test, harmless look-alikes, attacks."""
    rows = []
    for rule in spec.rules:
        per: dict[str, Counter[str]] = {language: Counter() for language in spec.languages}
        for e in rule.examples:
            per.setdefault(e.lang, Counter()).update(good=len(e.good), bad=len(e.bad))
        for e in rule.elicit:
            for language in e.prompt:
                per.setdefault(language, Counter())["benign" if e.benign_pair_of else "attack" if e.split == "attack" else "elicit"] += 1
        rows.append({"rule": rule, "languages": {k: dict(v) for k, v in per.items()}})
    return rows


@router.get("/people")
def people(request: Request, user: Admin) -> Response:
    return render(request, "people.html.jinja", user)


@router.get("/account")
def account(request: Request, user: Annotator) -> Response:
    return render(request, "account.html.jinja", user)
