"""Instructive prompting: the norm stands in the input (the founding text's 请回答问题时保持礼貌). Short, because small models read it.

    Rules:                      规则：
    1. Stay polite.             1. 保持礼貌。
    2. Answer in one sentence.  2. 用一句话回答。

Also the spec as Markdown, for people.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from norma.spec import languages
from norma.spec.types import Message

if TYPE_CHECKING:
    from norma.spec.rule import Rule
    from norma.spec.spec import Spec

_HEADS = {"en": "Rules:", "zh": "规则："}
_WORDS = {
    "en": {
        "level": "Level",
        "must": "requirement",
        "weigh": "to weigh",
        "applies": "Applies when",
        "always": "always",
        "good": "Good",
        "bad": "Bad",
        "checkers": "Checked by",
        "target": "Target rate",
        "unless": "Unless",
        "overrides": "Overrides",
        "conflicts_with": "Conflicts with",
        "version": "version",
        "levels": "Levels of authority",
        "licence": "Licence",
        "aliases": "Formerly",
        "stale": "The source wording has changed since this was translated.",
    },
    "zh": {
        "level": "级别",
        "must": "必须遵守",
        "weigh": "权衡考虑",
        "applies": "适用条件",
        "always": "总是",
        "good": "正例",
        "bad": "反例",
        "checkers": "检查器",
        "target": "目标达标率",
        "unless": "让位于",
        "overrides": "优先于",
        "conflicts_with": "冲突于",
        "version": "版本",
        "levels": "权限级别",
        "licence": "许可",
        "aliases": "曾用名",
        "stale": "原文在本译文之后已有改动。",
    },
}


def _table(language: str) -> str:
    return languages.best(language, _HEADS) or "en"


def instruction(rules: Sequence[Rule], language: str) -> str:
    """One head line and one numbered line a rule; "" without rules."""
    if not rules:
        return ""
    lines = [_HEADS[_table(language)], *(f"{i}. {' '.join(rule.text(language).split())}" for i, rule in enumerate(rules, 1))]
    return "\n".join(lines)


def insert(messages: Sequence[Message], text: str, position: str) -> list[Message]:
    """``text`` before the conversation: as (the end of) the system message, or at the head of the last user message (``prefix``)."""
    result = [Message(role=m["role"], content=m["content"]) for m in messages]
    if not text:
        return result
    if position == "system":
        if result and result[0]["role"] == "system":
            result[0] = Message(role="system", content=f"{result[0]['content']}\n\n{text}")
            return result
        return [Message(role="system", content=text), *result]
    if position != "prefix":
        raise ValueError(f"position is 'system' or 'prefix', not {position!r}")
    for i in range(len(result) - 1, -1, -1):
        if result[i]["role"] == "user":
            result[i] = Message(role="user", content=f"{text}\n\n{result[i]['content']}")
            return result
    raise ValueError("there is no user message to put the rules before")


def spec_markdown(spec: Spec, language: str, only: str | None = None) -> str:
    """The spec for public reading, in one language; ``only``: of one rule. A translation that is out of date says so."""
    w = _WORDS[_table(language)]
    if only is not None:
        return "\n".join(_rule(spec.rule(only), language, w)).rstrip() + "\n"
    head = f"# {spec.id} ({w['version']} {spec.version})"
    facts = [f"- {w['levels']}: " + " > ".join(spec.levels)]
    facts += [f"- {w['licence']}: {spec.file.spec.license}"] if spec.file.spec.license else []
    lines = [head, "", *facts, ""]
    for rule in spec.rules:
        lines += _rule(rule, language, w)
    return "\n".join(lines).rstrip() + "\n"


def _rule(rule: Rule, language: str, w: dict[str, str]) -> list[str]:
    title = rule.title.get(languages.best(language, rule.title) or "")
    lines = [f"## {title} (`{rule.id}`)" if title else f"## {rule.id}", "", rule.text(language).strip(), ""]
    served = languages.best(language, rule.statement) or rule.source_language
    if rule.translation(served) == "stale":
        lines += [f"*{w['stale']}*", ""]
    lines.append(f"- {w['level']}: {rule.level}, {w['must'] if rule.must else w['weigh']}")
    condition = w["always"] if rule.applies.strip() == "true" else f"`{' '.join(rule.applies.split())}`"
    lines.append(f"- {w['applies']}: {condition}")
    for key in ("unless", "overrides", "conflicts_with"):
        if names := getattr(rule, key):
            lines.append(f"- {w[key]}: " + ", ".join(f"`{n}`" for n in names))
    if rule.checkers:
        lines.append(f"- {w['checkers']}: " + ", ".join(f"`{c.use or c.kind}` ({', '.join(c.roles)})" for c in rule.checkers))
    if rule.target:
        lines.append(f"- {w['target']}: {rule.target.min_rate:.0%}")
    if rule.aliases:
        lines.append(f"- {w['aliases']}: " + ", ".join(f"`{n}`" for n in rule.aliases))
    lines.append("")
    for example in rule.examples:
        if languages.covers(example.lang, language):
            lines += [_quote(f"**{m.role}**: {m.content}") + "\n" for m in example.messages]
            lines += [_bullet(f"**{w['good']}**: {text}") for text in example.good]
            lines += [_bullet(f"**{w['bad']}**: {text}") for text in example.bad]
            lines.append("")
    return lines


def _quote(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def _bullet(text: str) -> str:
    return "- " + "\n  ".join(text.splitlines())
