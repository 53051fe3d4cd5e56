"""A plain list of rules: numbered, lettered, bulleted, or with Chinese enumerations (一、（一）1. ① 第一条).

回答时：            a line above the list, or without a mark: left out, and said so
一、保持礼貌。      an item; lines below it that are indented, or carry no mark, belong to it
（1）拒绝时也是。   a mark of another kind opens a list inside the item; under a line that ends with a colon, the colon's
                    line is part of each rule below it ("When refusing: stay polite")
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from norma.spec.importers.draft import Draft, Rule, plural
from norma.spec.languages import guess

HELP = "a plain-text list of rules: numbered, bulleted, or 一、（1）① 第一条"

_HAN = "[一二三四五六七八九十百零〇]+"
# kind of mark -> pattern; a list goes on with marks of its own kind
_MARKS = {
    "article": rf"第(?:{_HAN}|[0-9０-９]+)[条條款项項][、:：.\s]?",
    "han": rf"{_HAN}[、.．]",
    "han in brackets": rf"[（(]{_HAN}[)）]",
    "circle": r"[①-⑳㉑-㉟㊱-㊿❶-❿]",
    "number in brackets": r"[（(][0-9０-９]+[)）]",
    "nested number": r"[0-9]+(?:\.[0-9]+)+[.)、）]?(?=\s)",
    "number": r"[0-9０-９]+(?:[)）、．]|\.(?=\D|$))",
    "letter in brackets": r"[（(][a-zA-Z][)）]",
    "letter": r"[a-zA-Z][)）.](?=\s)",
    "dash": r"[-–—](?=\s)",
    "star": r"\*(?=\s)",
    "plus": r"\+(?=\s)",
    "bullet": r"[•·‣◦▪●○■□◆※](?=\s|\w)",
}
# Of marks that nest by convention (第一条 一、（一）1.（1）①), the lower stands outside; all others nest by what came first.
_RANKS = dict.fromkeys(_MARKS, 9) | {"article": 0, "han": 1, "han in brackets": 2, "number": 3, "number in brackets": 4, "circle": 5}
_ITEM = re.compile(r"(?P<indent>\s*)(?:" + "|".join(f"(?P<k{i}>{p})" for i, p in enumerate(_MARKS.values())) + r")\s*(?P<text>.*)")


@dataclass
class _Item:
    indent: int
    kind: str
    text: str
    line: int
    under: list[_Item] = field(default_factory=list)


def read(text: str, place: str, language: str | None) -> Draft:
    """One rule for each item."""
    roots, skipped = _items(text)
    draft = Draft(language or guess(text, ["en", "zh-Hans"], "en"))
    for number, item in enumerate(roots, 1):
        draft.rules += list(_rules(item, str(number), "", draft.language))
    if skipped:
        draft.notes.append(f"{plural(len(skipped), 'line')} outside the list left out, the first: '{skipped[0]}'")
    return draft


def _rules(item: _Item, number: str, above: str, language: str) -> list[Rule]:
    said = f"{above}{'' if above.endswith('：') else ' '}{item.text}" if above else item.text
    colon = item.text.endswith((":", "："))
    own = [] if colon and item.under else [_rule(number, said, language)]
    for k, child in enumerate(item.under, 1):
        own += _rules(child, f"{number}-{k}", said if colon else "", language)
    return own


def _rule(number: str, text: str, language: str) -> Rule:
    return {"id": f"rule-{number}", "statement": {language: text}, "checkers": [{"id": "people", "kind": "human", "roles": ["gold"]}]}


def _items(text: str) -> tuple[list[_Item], list[str]]:
    roots: list[_Item] = []
    chain: list[_Item] = []  # the open items, outermost first
    skipped: list[str] = []
    blank = True
    for line_number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            blank = True
            continue
        match = _ITEM.fullmatch(line.rstrip())
        if match is None or not (match["text"] or "").strip():
            indented = len(line) - len(line.lstrip()) > (chain[-1].indent if chain else 0)
            if chain and (not blank or indented):  # goes on with the item above
                glue = "" if guess(chain[-1].text + line, ["en", "zh-Hans"], "en") == "zh-Hans" else " "
                chain[-1].text += glue + line.strip()
            else:
                skipped.append(line.strip())
            blank = False
            continue
        blank = False
        kind = next(name for i, name in enumerate(_MARKS) if match[f"k{i}"] is not None)
        item = _Item(len(match["indent"].expandtabs(4)), kind, match["text"].strip(), line_number)
        if kind == "nested number":  # 2.1 belongs under 2, whatever the indent
            depth = match[f"k{list(_MARKS).index(kind)}"].rstrip(".)、）").count(".")
            chain = chain[:depth]
        else:
            peer = next((k for k, open_ in enumerate(chain) if (open_.kind, open_.indent) == (kind, item.indent)), None)
            if peer is None:
                while chain and (item.indent < chain[-1].indent or _RANKS[chain[-1].kind] > _RANKS[kind]):
                    chain.pop()
            else:
                chain = chain[:peer]
        (chain[-1].under if chain else roots).append(item)
        chain.append(item)
    return roots, skipped
