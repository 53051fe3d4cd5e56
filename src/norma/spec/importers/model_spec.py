"""Model Spec Markdown (OpenAI): rules are sections, with id and authority at the end of their heading; examples are marked-up dialogues.

    ## Be kind {#be_kind authority=user}        a rule: id, level, title; the text below it, to the next section, is its statement
    **Example**: a short word
    ~~~xml
    <user> ... </user>
    <comparison>
    <assistant> <!-- GOOD: why --> ... </assistant>
    <assistant> <!-- BAD[#other_rule] --> ... </assistant>      breaks that rule, not (only) the section's
    </comparison>
    ~~~

CommonMark (markdown-it) tells what is a heading and what stands inside a fence, however fences are nested. A heading without id belongs to
the rule above it; a section without authority has that of the section around it, and is no rule when there is none. Commentary
(`!!! meta`), footnote marks and example blocks are not part of a statement.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from markdown_it import MarkdownIt

from norma.base.errors import NormaError, nearest
from norma.spec.importers.dialogue import Dialogue, parse
from norma.spec.importers.draft import Draft, Rule, name, plural, unique
from norma.spec.languages import guess
from norma.spec.schema import LEVELS

HELP = "OpenAI Model Spec Markdown: headings with {#id authority=level}, examples in ~~~xml"

_ATTRIBUTES = re.compile(r"\s*\{\s*#(?P<id>[^\s}]+)(?P<rest>[^}]*)\}\s*$")
_FOOTNOTE = re.compile(r"\[\^[^\]]+\]")
_REFERENCE = re.compile(r"\[([^\]]*)\]\(#([^)\s]+)\)")
_CAPTION = re.compile(r"\s*\*\*Examples?\*\*\s*:?")
_OLDER = {"platform": "root"}  # what the first edition called it


@dataclass
class _Section:
    depth: int
    title: str
    id: str  # "" without one
    authority: str
    line: int  # of the heading, from 1
    body: list[str] = field(default_factory=list)
    dialogues: list[Dialogue] = field(default_factory=list)


def read(text: str, place: str, language: str | None) -> Draft:
    """A rule for each section with an id and an authority. Raises NormaError with the line for an unknown authority."""
    sections = _sections(text)
    draft = Draft(language or guess(text, ["en", "zh-Hans"], "en"))
    titles = {s.id: s.title for s in sections if s.id}
    owner: dict[str, Rule] = {}  # the source's id -> its rule
    chain: list[tuple[_Section, Rule | None, str]] = []  # the open sections, the rule that their text belongs to, their authority
    texts: dict[str, list[str]] = {}
    found: list[tuple[_Section, Rule]] = []
    prose = 0
    for section in sections:
        while chain and chain[-1][0].depth >= section.depth:
            chain.pop()
        above, authority = (chain[-1][1], chain[-1][2]) if chain else (None, "")
        authority = _level(section, place) or authority
        rule = above
        if section.id and authority:
            id = unique(name(section.id), [r["id"] for r in draft.rules])
            rule = {"id": id, "title": {draft.language: section.title}, "level": authority}
            draft.rules.append(rule)
            owner.setdefault(section.id, rule)
            texts[id] = []
        said = _statement(section.body, titles)
        if rule is None:
            prose += bool(said)
        else:
            head = "" if rule is not above else f"{section.title}\n\n"
            texts[rule["id"]] += [part for part in (f"{head}{said}".strip(),) if part]
            found.append((section, rule))
        chain.append((section, rule, authority))
    for rule in draft.rules:
        statement = "\n\n".join(texts[rule["id"]]) or rule["title"][draft.language]
        rule["statement"] = {draft.language: statement}
        rule["checkers"] = [{"id": "people", "kind": "human", "roles": ["gold"]}]
    _examples(found, owner, draft)
    if prose:
        draft.notes.append(f"{plural(prose, 'section')} without authority taken as prose, not as rules")
    if draft.rules:
        draft.notes.append("the source does not tell requirements from preferences: every rule has must: false until you decide")
    return draft


def _sections(text: str) -> list[_Section]:
    """The file cut at its headings; example dialogues are taken out of the text."""
    lines = text.splitlines()
    tokens = MarkdownIt("commonmark").parse(text)
    sections: list[_Section] = []
    ends: list[int] = []
    taken: set[int] = set()  # lines that are headings or dialogues
    blocks: list[tuple[int, str]] = []
    for number, token in enumerate(tokens):
        if token.level or token.map is None:
            continue
        start, end = token.map
        if token.type == "heading_open":
            title = " ".join(tokens[number + 1].content.split())
            attributes = _ATTRIBUTES.search(title)
            rest = dict(part.split("=", 1) for part in (attributes["rest"] if attributes else "").split() if "=" in part)
            shown = _FOOTNOTE.sub("", title[: attributes.start()] if attributes else title).strip()
            authority = rest.get("authority", "").strip("\"'")
            sections.append(_Section(int(token.tag[1]), shown, attributes["id"] if attributes else "", authority, start + 1))
            ends.append(end)
        elif token.type == "fence" and token.info.strip().split(" ")[0] == "xml":
            blocks.append((start, token.content))
            taken.update(range(start, end))
    for k, section in enumerate(sections):
        stop = sections[k + 1].line - 1 if k + 1 < len(sections) else len(lines)
        section.body = [line for i, line in enumerate(lines[ends[k] : stop], ends[k]) if i not in taken]
        section.dialogues = [parse(content) for start, content in blocks if ends[k] <= start < stop]
    return sections


def _level(section: _Section, place: str) -> str:
    level = _OLDER.get(section.authority, section.authority)
    if level and level not in LEVELS:
        raise NormaError(f"unknown authority '{level}'", where=f"{place}:{section.line}", mend=nearest(level, LEVELS))
    return level


def _statement(body: list[str], titles: dict[str, str]) -> str:
    """The text of a section as it counts: no captions of examples, commentary, footnotes; references by the name of their section."""
    kept: list[str] = []
    aside = False  # inside an indented commentary block
    for line in body:
        if line.startswith(("!!!", "???")):
            aside = True
        elif aside and line.strip() and not line.startswith((" ", "\t")):
            aside = False
        if not aside and not _CAPTION.match(line) and not re.match(r"\[\^[^\]]+\]:", line):
            kept.append(line)
    text = _FOOTNOTE.sub("", "\n".join(kept))
    text = _REFERENCE.sub(lambda m: titles.get(m[2], m[2]) if m[1] in ("", "?") else m[1], text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _examples(found: list[tuple[_Section, Rule]], owner: dict[str, Rule], draft: Draft) -> None:
    """Good and bad answers to the rules they speak of; conversations without an answer become prompts."""
    counts = dict.fromkeys(("tool", "label", "unknown", "long", "empty"), 0)
    for section, rule in found:
        for dialogue in section.dialogues:
            if dialogue.tools:
                counts["tool"] += 1
                continue
            counts["label"] += dialogue.other
            if not dialogue.turns:
                _prompt(rule, dialogue.messages, draft.language, counts)
            for turn in dialogue.turns:
                if not turn.messages:
                    counts["empty"] += 1
                    continue
                by_rule: dict[str, tuple[Rule, dict[str, list[str]]]] = {}
                for answer in turn.answers:
                    for id in answer.rules if answer.rules and not answer.good else (section.id,):
                        target = owner.get(id) if answer.rules and not answer.good else rule
                        if target is None:
                            counts["unknown"] += 1
                            continue
                        _, sides = by_rule.setdefault(target["id"], (target, {"good": [], "bad": []}))
                        sides["good" if answer.good else "bad"].append(answer.text)
                for target, sides in by_rule.values():
                    entry: dict[str, Any] = {"lang": draft.language, "messages": [dict(m) for m in turn.messages]}
                    target.setdefault("examples", []).append(entry | {side: texts for side, texts in sides.items() if texts})
    said = {
        "tool": "example with messages of tools left out",
        "label": "answer that is called neither GOOD nor BAD left out",
        "unknown": "bad answer of a rule that is not in this file left out",
        "long": "conversation without an answer and with several turns left out",
        "empty": "answer without a conversation before it left out",
    }
    draft.notes += [f"{count} x {said[key]}" for key, count in counts.items() if count]


def _prompt(rule: Rule, messages: list[dict[str, str]], language: str, counts: dict[str, int]) -> None:
    head, last = messages[:-1], messages[-1:]
    if not last or last[0]["role"] != "user" or any(m["role"] not in ("system", "developer") for m in head):
        counts["long"] += 1
        return
    entries = rule.setdefault("elicit", [])
    entry: dict[str, Any] = {"id": f"e{len(entries) + 1}", "prompt": {language: last[0]["content"]}}
    if head:
        entry["system"] = {language: "\n\n".join(m["content"] for m in head)}
    entries.append(entry)
