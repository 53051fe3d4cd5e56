"""Both languages say everything: no message of the server without its Chinese, no words of a page in one language only."""

from __future__ import annotations

import ast
import re
import string
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import norma.studio
from norma.labels.bootstrap import Interval
from norma.labels.summary import in_words, ratings
from norma.studio.words import CHINESE, said

STUDIO = Path(norma.studio.__file__).parent
HAN = re.compile(r"[\u4e00-\u9fff]")
IN_THE_SHELL = {"serving.py"}  # what is said before a page is open, or in a terminal


def texts(node: ast.expr) -> list[str]:
    """What an expression may say, with {} for what is only known when it runs."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return ["".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)]
    return [*texts(node.body), *texts(node.orelse)] if isinstance(node, ast.IfExp) else []


def messages() -> Iterator[tuple[str, str]]:
    for path in sorted(STUDIO.rglob("*.py")):
        if path.name in IN_THE_SHELL:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name == "NormaError":
                told = [node.args[0], *(k.value for k in node.keywords if k.arg == "mend")]
            elif name in ("HTTPException", "note", "audit"):
                told = node.args[1:3]
            else:
                continue
            for found in (text for part in told for text in texts(part) if text):
                yield path.name, found
    for status in ast.walk(ast.parse((STUDIO / "security.py").read_text(encoding="utf-8"))):
        if isinstance(status, ast.Tuple) and len(status.elts) == 2 and isinstance(status.elts[0], ast.Constant):
            yield from (("security.py", text) for text in texts(status.elts[1]) if isinstance(status.elts[0].value, int))


def test_every_message_of_the_server_has_its_chinese() -> None:
    found = set(messages())
    assert len(found) > 60  # the walk does find them
    assert {text for _, text in found} - set(CHINESE) == set()


def test_the_chinese_says_each_name_and_number_of_the_english() -> None:
    for english, chinese in CHINESE.items():
        places = [name for _, name, _, _ in string.Formatter().parse(chinese) if name is not None]
        numbers = [int(name) if name else at for at, name in enumerate(places)]
        assert HAN.search(chinese) and sorted(numbers) == list(range(english.count("{}"))), english


def test_names_are_put_where_the_chinese_has_them() -> None:
    assert said("revision 3 of a mark that has 1", "zh") == "标注只有 1 个修订，不能提交修订 3"
    assert said("ann has already marked 'form.brief' of item q1 as violation", "zh") == "ann 已将条目 q1 的“form.brief”标为违反"
    assert said("this is for a reviewer", "zh") == "此操作需要复核员权限"
    assert said("this is for a reviewer", "en") == "this is for a reviewer" and said("of no table", "zh") == "of no table"


def test_what_agreement_means_is_said_in_both() -> None:
    nothing = Interval(float("nan"), float("nan"), float("nan"), 0)
    shown = {in_words(nothing, nothing, 1.0, ratings([], "kept")[0].counts)}
    source = ast.parse((STUDIO.parent / "labels" / "summary.py").read_text(encoding="utf-8"))
    (function,) = [n for n in ast.walk(source) if isinstance(n, ast.FunctionDef) and n.name == "in_words"]
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value is not None:
            shown |= {text.replace("{}", "12").replace("item12 ", "items ") for text in texts(node.value)}
    assert len(shown) >= 10
    for text in shown:
        assert HAN.search(said(text, "zh")), text


# ── pages and scripts: both languages stand side by side ──
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`')


def pairs(path: Path) -> tuple[list[tuple[str, str]], str]:
    """The two languages of every call, and the file without them."""
    call = r"\bT\(" if path.suffix == ".js" else r"\bt\("
    text, found, left, end = path.read_text(encoding="utf-8"), [], "", 0
    for at in re.finditer(call, text):
        first = QUOTED.match(text, at.end())
        if first is None:
            continue
        second = QUOTED.match(text, first.end() + 2) if text.startswith(", ", first.end()) else None
        assert second is not None, f"{path.name}: {first[0]} in one language only"
        found.append((first[0][1:-1], second[0][1:-1]))
        left, end = left + text[end : at.end()], second.end()
    return found, left + text[end:]


FILES = [*sorted((STUDIO / "static").glob("*.js")), *sorted((STUDIO / "templates").glob("*.jinja"))]


def test_every_word_of_a_page_has_both_languages_and_always_the_same() -> None:
    table: dict[str, set[str]] = defaultdict(set)
    for path in FILES:
        for one, other in pairs(path)[0]:
            assert HAN.search(one + other), f"{path.name}: {one!r} has no Chinese"
            table[one].add(other)
    assert len(table) > 150
    assert {one: words for one, words in table.items() if len(words) > 1 and " " in one} == {}  # a sentence is translated in one way


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix == ".jinja"], ids=lambda p: p.name)
def test_no_words_of_a_template_stand_alone(path: Path) -> None:
    jinja = r"\{% block body %\}\w*\{% endblock %\}|\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}"
    text = re.sub(jinja, "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for attribute in re.findall(r'(?:aria-label|title|placeholder|alt)="([^"]*)"', text):
        assert not re.search(r"[A-Za-z]{2,}", attribute), attribute
    bare = re.sub(r"<(kbd|code|math|title)\b.*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL)
    assert set(re.findall(r"[A-Za-z]{2,}", bare)) <= {"Norma", "doctype", "html", "Enter", "Shift"}, path.name


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix == ".js"], ids=lambda p: p.name)
def test_no_words_of_a_script_stand_alone(path: Path) -> None:
    """Texts of two words or more outside T(...) are names for the machine: classes, selectors, paths, fonts."""
    text = re.sub(r"(?m)^ *//.*$|; // .*$", "", pairs(path)[1])
    classes = "shown bad|(chip|panel|turn|answer|fine|clip|bars?|label|token|arc)\\b"
    machine = re.compile(rf"^[\s.#\[,/:]|^(M|0 0) |px |form|nav|use strict|norma_|{classes}|prefers-")
    prose = [q[1:-1] for q in QUOTED.findall(text) if re.search(r"[A-Za-z]{2,} [A-Za-z]{2,}", q) and not machine.search(q[1:-1])]
    assert prose == []
