"""`include`, language tags, former ids, translations and signed changes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from norma.base.errors import NormaError
from norma.spec import Item, Spec, json_schema, lint, spec_markdown
from norma.spec.languages import best, canonical, covers

MAIN = """\
norma: 1
spec: {id: t, version: "1", languages: [en]}
include: [parts/style.yaml, safety.yaml]
rules:
- id: own
  statement: {en: Own.}
  conflicts_with: [polite]
"""
STYLE = """\
rules:
- id: polite
  statement: {en: Polite.}
  checkers: [{id: c, kind: fake, use: has, params: {word: "3", count: 3}}]
"""
SAFETY = """\
norma: 1
include: [deep.yaml]
rules:
- {id: safe, statement: {en: Safe.}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    for name, text in {"s.yaml": MAIN, "parts/style.yaml": STYLE, "safety.yaml": SAFETY}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "deep.yaml").write_text("rules: [{id: deep, statement: {en: Deep.}}]\n", encoding="utf-8")
    return tmp_path


def test_rules_of_included_files_come_first(folder: Path) -> None:
    spec = Spec.load(folder / "s.yaml")
    assert [r.id for r in spec.rules] == ["polite", "deep", "safe", "own"]
    assert spec.rule("polite").checkers[0].params == {"word": "3", "count": 3}  # quoted or not counts in every file


def test_one_file_or_several_is_layout(folder: Path) -> None:
    several = Spec.load(folder / "s.yaml")
    parts = (STYLE, "rules: [{id: deep, statement: {en: Deep.}}]", SAFETY, MAIN)
    whole = yaml.safe_load(MAIN) | {"rules": [yaml.safe_load(part)["rules"][0] for part in parts]}
    del whole["include"]
    one = Spec.parse(yaml.safe_dump(whole))
    assert one.digest == several.digest and [r.facets for r in one.rules] == [r.facets for r in several.rules]


def test_written_out_as_one_file_it_is_the_same_spec(folder: Path) -> None:
    spec = Spec.load(folder / "s.yaml")
    again = Spec.parse(spec.one_file())
    assert again.digest == spec.digest and "include" not in spec.one_file()
    deep = folder / "only.yaml"
    deep.write_text('norma: 1\nspec: {id: t, version: "1"}  # a remark\nrules: [{id: a, statement: {en: x}}]\n', encoding="utf-8")
    assert Spec.load(deep).one_file() == deep.read_text(encoding="utf-8")
    deep.write_text('norma: 1\nspec: {id: t, version: 1.10}\ninclude: [deep.yaml]\n', encoding="utf-8")
    assert Spec.parse(Spec.load(deep).one_file()).version == "1.10"


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("parts/style.yaml", "use: has,", "use: hass,", r"style\.yaml:4:34: unknown checker 'hass'"),
        ("parts/style.yaml", "- id: polite", "- id: own", r"s\.yaml:5:3: .*'own' is used twice \(first at .*style\.yaml:2:3\)"),
        ("parts/style.yaml", "  checkers:", "  chekers:", r"style\.yaml:4:3: unknown key 'chekers'.*'checkers'"),
        ("parts/style.yaml", "rules:", "rulez:", r"style\.yaml:1:1: unknown key 'rulez'.*rules"),
        ("parts/style.yaml", "rules:", "compose: {}\nrules:", r"style\.yaml:1:1: 'compose' belongs into the main file"),
        ("safety.yaml", "deep.yaml", "deeper.yaml", r"safety\.yaml:2:11: the included file 'deeper\.yaml' is not there"),
        ("safety.yaml", "deep.yaml", "s.yaml", r"safety\.yaml:2:11: 'include' goes round in a circle: s\.yaml -> safety\.yaml -> s\.yaml"),
        ("safety.yaml", "deep.yaml", "parts/style.yaml", r"safety\.yaml:2:11: 'parts/style\.yaml' is included twice"),
        ("safety.yaml", "norma: 1", "norma: 2", r"safety\.yaml:1:1: .*format 1, not 2"),
        ("s.yaml", "[parts/style.yaml, safety.yaml]", "safety.yaml", r"s\.yaml:3:1: 'include'"),
        ("s.yaml", "conflicts_with: [polite]", "conflicts_with: [pollite]", r"s\.yaml:7:20: .*unknown rule 'pollite'.*'polite'"),
    ],
)
def test_mistakes_are_placed_in_the_right_file(folder: Path, file: str, old: str, new: str, message: str) -> None:
    path = folder / file
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(NormaError, match=message):
        Spec.load(folder / "s.yaml")


def test_text_alone_includes_nothing_and_a_spec_has_rules() -> None:
    with pytest.raises(NormaError, match="read from a file"):
        Spec.parse(MAIN)
    with pytest.raises(NormaError, match="at least one rule"):
        Spec.parse('norma: 1\nspec: {id: t, version: "1"}\nrules: []\n')
    assert set(json_schema(fragment=True)["properties"]) == {"norma", "include", "rules"}


# ---- languages ----


def test_tags_have_one_spelling() -> None:
    # registry facts: iw is the old code of Hebrew, cmn with a region keeps its script; x- is private use
    cases = {"zh-hans": "zh-Hans", "ZH-cn": "zh-CN", "iw": "he", "sr-latn": "sr-Latn", "en-x-simple": "en-x-simple", "de-1996": "de-1996"}
    assert {tag: canonical(tag) for tag in cases} == cases
    for wrong in ("chinese", "xx", "en_US", "e", "", "en-US-US", "zh-Hanz"):
        with pytest.raises(ValueError, match="BCP-47"):
            canonical(wrong)


@pytest.mark.parametrize(
    ("offered", "wanted", "served"),
    [
        ("zh", "zh-Hans", True), ("zh-Hans", "zh", True), ("zh-Hans", "zh-Hant", False), ("zh-Hans", "zh-CN", True),
        ("zh-Hant", "zh-TW", True), ("zh-Hans", "zh-TW", False), ("zh-Hant", "zh-HK", True), ("en", "zh", False), ("en-US", "en-GB", True),
        ("sr-Latn", "sr", True), ("sr-Latn", "sr-Cyrl", False), ("pt-BR", "es", False),
    ],
)  # fmt: skip
def test_which_tag_serves_which(offered: str, wanted: str, served: bool) -> None:
    assert covers(offered, wanted) is served


def test_the_nearest_comes_first() -> None:
    assert best("zh-TW", ["en", "zh-Hans", "zh-Hant"]) == "zh-Hant" and best("en-GB", ["en-US", "en-GB"]) == "en-GB"


def test_a_spec_in_many_languages() -> None:
    spec = Spec.parse(
        'norma: 1\nspec: {id: t, version: "1", source_language: pt-br, languages: [pt-br, ZH-hant, iw]}\n'
        "rules: [{id: a, statement: {pt-BR: Seja gentil., zh-hant: 保持禮貌。, he: x}, elicit: [{id: e, prompt: {IW: x}}]}]\n"
    )
    assert spec.languages == ("pt-BR", "zh-Hant", "he") and spec.source_language == "pt-BR"
    assert spec.rules[0].text("zh-TW") == "保持禮貌。" and spec.elicit()[0].language == "he"
    with pytest.raises(NormaError, match="'zh-Hans' and 'zh-hans' are the same language"):
        Spec.parse('norma: 1\nspec: {id: t, version: "1"}\nrules: [{id: a, statement: {en: x, zh-Hans: a, zh-hans: b}}]\n')
    with pytest.raises(NormaError, match="stands twice"):
        Spec.parse('norma: 1\nspec: {id: t, version: "1", languages: [en, EN]}\nrules: [{id: a, statement: {en: x}}]\n')


# ---- former ids, translations, signed changes ----

TWO = """
norma: 1
spec: {id: t, version: "1", languages: [en, zh-Hans]}
rules:
- id: new
  aliases: [old, older]
  title: {en: A title, zh-Hans: 标题}
  statement: {en: Be kind., zh-Hans: 友善。}
  MORE
- {id: other, statement: {en: Other., zh-Hans: 别的。}, translations: {zh-Hans: {of: "OTHER"}}}
"""


def two(more: str = "must: false", other: str = "0" * 12) -> Spec:
    return Spec.parse(TWO.replace("MORE", more).replace("OTHER", other))


def test_former_ids_lead_to_the_rule() -> None:
    spec = two()
    assert spec.rule("old") is spec.rule("older") is spec.rule("new")
    for bad, message in (("aliases: [other]", "is the id of a rule"), ("aliases: [new]", "is the id of a rule")):
        with pytest.raises(NormaError, match=message):
            Spec.parse(TWO.replace("aliases: [old, older]", bad).replace("MORE", "must: false").replace("OTHER", "0" * 12))
    with pytest.raises(NormaError, match="also stands in 'new'"):
        Spec.parse(TWO.replace("{id: other,", "{id: other, aliases: [old],").replace("MORE", "must: false").replace("OTHER", "0" * 12))


def test_where_a_translation_stands() -> None:
    spec = two()
    kind, other = spec.rule("new").hash, spec.rule("other").hash
    assert [spec.rule("new").translation(t) for t in ("en", "zh-Hans", "fr")] == ["source", "unrecorded", "missing"]
    assert spec.rule("other").translation("zh-Hans") == "stale"
    assert two(other=other[:12]).rule("other").translation("zh-Hans") == "current"
    codes = [(f.code, f.rule) for f in lint(spec) if "translation" in f.code]
    assert codes == [("unrecorded-translation", "new"), ("stale-translation", "other")]
    (told,) = [f for f in lint(spec) if f.code == "stale-translation"]
    assert f'of: "{other[:12]}"' in told.text and told.where.endswith(":10:69")
    fresh = two(f'translations: {{zh-Hans: {{of: "{kind[:8]}"}}}}', other[:40])
    assert not [f for f in lint(fresh) if "translation" in f.code]
    chinese = spec_markdown(spec, "zh-Hans")
    assert "## 标题 (`new`)" in chinese and chinese.count("*原文在本译文之后已有改动。*") == 1 and "- 曾用名: `old`, `older`" in chinese
    assert "changed since" not in spec_markdown(spec, "en")


def test_translations_and_titles_change_no_facet_and_old_files_keep_their_digest() -> None:
    plain, noted = two(), two('translations: {zh-Hans: {of: "12345678"}}')
    assert plain.rule("new").facets == noted.rule("new").facets and plain.digest != noted.digest
    empty = two("translations: {}\n  editorial: []")
    assert empty.digest == plain.digest


def test_a_signed_change_keeps_labels_and_translations() -> None:
    before = two().rule("new")
    text = TWO.replace("Be kind.", "Be  very kind.").replace("OTHER", "0" * 12)
    was = before.hash[:12]
    signed = f'editorial: [{{was: "{was}", by: Ann, reason: style, spot_check: 2}}]\n  translations: {{zh-Hans: {{of: "{was}"}}}}'
    after, unsigned = Spec.parse(text.replace("MORE", signed)).rule("new"), Spec.parse(text.replace("MORE", "must: false")).rule("new")
    assert after.hash == unsigned.hash != before.hash
    assert after.means(before.hash) and after.means(after.hash) and not unsigned.means(before.hash) and not after.means("0" * 64)
    assert after.translation("zh-Hans") == "current"
    with pytest.raises(NormaError, match="'spot_check'"):
        Spec.parse(text.replace("MORE", signed.replace("spot_check: 2", "spot_check: 0")))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('user.contains("a b")', 'user . contains( "a b" ) // why', True),
        ("facts.n > 1 && facts.m", "facts.n>1&&facts.m", True),
        ('"a" in facts.tags', '"a"   in\n facts.tags', True),
        ('user == "a  b"', 'user == "a b"', False),
        ('user == "a // b"', 'user == "a', False),
        ("facts.n in [1, 2]", "facts.n in [12]", False),
        ('user == """a" b"""', 'user == """a"b"""', False),
    ],
)
def test_white_space_in_an_expression_is_layout(make, one: str, other: str, same: bool) -> None:
    from norma.spec.rule import _expression

    assert (_expression(one) == _expression(other)) is same


def test_the_budget_of_a_constraint_is_part_of_composition(make) -> None:
    granted = ("{constraints: {a: {budget: 0.1}}}", "{constraints: {a: {budget: 0.2}}}", "")
    hashes = [make("id: a", compose=c).rules[0].facets for c in granted]
    assert len({h["compose"] for h in hashes}) == 3 and len({h["authority"] for h in hashes}) == 1


def test_attacks_are_named(make) -> None:
    spec = make("id: a, elicit: [{id: e, prompt: {en: x}, split: attack, attack: role_play}]")
    assert spec.rules[0].elicit[0].attack == "role_play" and spec.elicit("attack")[0].id == "a/e#en"
    with pytest.raises(NormaError, match="split: attack"):
        make("id: a, elicit: [{id: e, prompt: {en: x}, attack: role_play}]")
    with pytest.raises(NormaError, match="attack"):
        make("id: a, elicit: [{id: e, prompt: {en: x}, split: attack, attack: bribe}]")


def test_applies_alone(make) -> None:
    spec = make("id: a, applies: 'facts.n > 1'")
    ask = lambda **facts: Item("i", ({"role": "user", "content": "x"},), facts=facts)  # noqa: E731
    assert [spec.applies("a", ask(n=2)), spec.applies("a", ask(n=1)), spec.applies("a", ask())] == [True, False, None]


def test_a_spec_that_comes_with_norma_is_included_by_name(folder: Path) -> None:
    text = 'norma: 1\nspec: {id: t, version: "1", languages: [en, zh-Hans]}\ninclude: [polite-support, deep.yaml]\n'
    (folder / "s.yaml").write_text(text + "compose: {gates: [tone.no-blame]}\n", encoding="utf-8")
    (folder / "deep.yaml").write_text("rules: [{id: deep, statement: {en: Deep., zh-Hans: 深}}]\n", encoding="utf-8")
    spec, whole = Spec.load(folder / "s.yaml"), Spec.load("polite-support")
    assert [r.id for r in spec.rules] == [*(r.id for r in whole.rules), "deep"]
    assert spec.rule("tone.greets").hash == whole.rule("tone.greets").hash and spec.id == "t"
    own = "rules: [{id: tone.no-blame, statement: {en: Own., zh-Hans: 自己的}}]\n"
    (folder / "polite-support").write_text(own, encoding="utf-8")  # a file of one's own with that name wins
    assert [r.id for r in Spec.load(folder / "s.yaml").rules] == ["tone.no-blame", "deep"]
