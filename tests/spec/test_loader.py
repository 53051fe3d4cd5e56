"""Every mistake in a spec gives one line with file:line:column and the mend. Places are counted by hand in the texts below."""

from __future__ import annotations

from pathlib import Path

import pytest

from norma.base.errors import NormaError
from norma.spec import Spec

GOOD = """\
norma: 1
spec:
  id: courteous
  version: 1.10
  source_language: en
  languages: [en, zh-Hans]
levels: [root, user]
rules:
- id: polite
  level: user
  must: no
  statement:
    en: Stay polite.
    zh-Hans: 保持礼貌。
  applies: language == "en"
  unless: [terse]
  overrides: [terse]
  conflicts_with: [terse]
  checkers:
  - {id: a, kind: fake, use: has, params: {word: no, count: 3, version: 1.10, quoted: "3", share: 0.5, deep: {on: true, list: [1, yes]}}}
  - {id: people, kind: human, roles: [gold]}
  elicit:
  - {id: e1, prompt: {en: Hello}, facts: {about: false}}
  - {id: e2, benign_pair_of: e1, prompt: {zh-Hans: 你好}}
- id: terse
  level: user
  statement: {en: Be brief., zh-Hans: 简短。}
compose:
  gates: []
  constraints: {terse: {budget: 0.01}}
"""


def test_a_good_file_loads_and_nothing_is_guessed() -> None:
    spec = Spec.parse(GOOD)
    assert (spec.id, spec.version, spec.languages) == ("courteous", "1.10", ("en", "zh-Hans"))
    rule = spec.rule("polite")
    assert rule.must is False and rule.text("zh") == "保持礼貌。" and rule.text("fr") == "Stay polite."
    assert rule.checkers[0].params == {
        "word": "no", "count": 3, "version": "1.10", "quoted": "3", "share": 0.5, "deep": {"on": True, "list": [1, "yes"]},
    }  # fmt: skip
    assert rule.elicit[0].facts == {"about": False}
    assert [c.kind for c in rule.checkers] == ["fake", "human"]


# (what to replace, by what, place, part of the message, part of the mend)
CASES = [
    ("  must: no", "  level: user", "11:3", "'level' stands twice", "Keep one"),
    ("  must: no", "  mustt: no", "11:3", "unknown key 'mustt'", "'must'"),
    ("  must: no", "  must: perhaps", "11:3", "'must'", ""),
    ("- id: terse", "- id: polite", "25:3", "'polite' is used twice (first at s.yaml:9:3)", "Rename"),
    ("  unless: [terse]", "  unless: [tersee]", "16:12", "unknown rule 'tersee'", "'terse'"),
    ("  overrides: [terse]", "  overrides: [polite]", "17:15", "names itself", "Remove"),
    ("  conflicts_with: [terse]", "  conflicts_with: [terse, terze]", "18:27", "unknown rule 'terze'", "'terse'"),
    ("  conflicts_with: [terse]", "  conflicts_with: [terse, terse]", "18:3", "'terse' stands twice", ""),
    ("- id: terse\n  level: user", "- id: terse\n  level: usr", "26:3", "unknown level 'usr'", "'user'"),
    ("- id: terse\n  level: user", "- id: terse\n  unless: [polite]\n  level: user", "16:3", "circle: polite -> terse -> polite", "Remove"),
    ("    zh-Hans: 保持礼貌。\n", "", "12:3", "no statement in 'zh-Hans'", "Add 'zh-Hans:'"),
    ("    zh-Hans: 保持礼貌。", "    zh-Hans: 保持礼貌。\n    fr: Poli.", "15:5", "'fr' is not a language", ""),
    ("[en, zh-Hans]", "[en, chinese]", "6:19", "'chinese' is not a BCP-47", ""),
    ("use: has,", "use: hass,", "20:25", "unknown checker 'hass'", "'has'"),
    ("{id: a, kind: fake, use: has,", "{id: a, kind: fakes, use: has,", "20:13", "unknown kind of checker 'fakes'", "'fake'"),
    ("{id: people,", "{id: a,", "21:6", "checker id 'a' is used twice", "Rename"),
    ("benign_pair_of: e1", "benign_pair_of: e7", "24:14", "unknown prompt 'e7'", "e1"),
    ('applies: language == "en"', "applies: langage == 1", "15:3", "unknown variable 'langage'", "'language'"),
    ('applies: language == "en"', "applies: language ==", "15:3", "not a CEL expression", ""),
    ("gates: []", "gates: [polit]", "29:11", "unknown rule 'polit'", "'polite'"),
    ("{terse: {budget: 0.01}}", "{terse: {budget: 0.01, budgett: 1}}", "30:39", "unknown key 'budgett'", "'budget'"),
    ("gates: []", "objective: lexicographic", "29:3", "constraints cannot", "weighted_mean"),
    ("  version: 1.10\n", "", "2:1", "'version' is missing", "version"),
    ("norma: 1\n", "norma: 2\n", "1:1", "format 1, not 2", ""),
    ("levels: [root, user]", "levels: &x [root, user]", "7:9", "anchors", ""),
    ("id: courteous", "id: Courteous Docs", "3:3", "not a name", ""),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "place", "what", "mend"), CASES)
def test_mistakes_name_the_place_and_the_mend(tmp_path: Path, old: str, new: str, place: str, what: str, mend: str) -> None:
    assert GOOD.count(old) == 1
    path = tmp_path / "s.yaml"
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(NormaError) as caught:
        Spec.load(path)
    line = str(caught.value).replace(f"{tmp_path}/", "")
    assert line.startswith(f"s.yaml:{place}: "), line
    assert what in line and mend in line and "\n" not in line


def test_circles_of_overrides_are_found_wherever_they_start(make) -> None:
    with pytest.raises(NormaError, match="circle: b -> c -> b"):
        make("id: a, overrides: [b]", "id: b, overrides: [c]", "id: c, overrides: [b]")
    make("id: a, overrides: [b, c]", "id: b, overrides: [c]", "id: c")  # a diamond is not a circle


@pytest.mark.parametrize("text", ["", "- 1\n", "just text\n"])
def test_not_a_spec_at_all(text: str) -> None:
    with pytest.raises(NormaError):
        Spec.parse(text)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(NormaError, match=r"not found|folder"):
            Spec.load(path)


def test_no_installed_kind_is_needed_to_read_a_spec() -> None:
    spec = Spec.parse(GOOD.replace("kind: fake", "kind: elsewhere"), checkers=False)
    assert spec.checkers("train") == {}
