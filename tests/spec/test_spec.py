"""The spec as a whole: safe verdicts, rewards, prompts, elicitation, hashes, schema, and no torch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.spec import Item, Spec, Status, Verdict, json_schema, spec_markdown

BILINGUAL = """
norma: 1
spec: {id: demo, version: "1", source_language: en, languages: [en, zh-Hans]}
rules:
- id: polite
  level: user
  must: true
  statement: {en: "Stay  polite.\\n", zh-Hans: 保持礼貌。}
  applies: facts.about == true
  conflicts_with: [brief]
  checkers:
  - {id: c, kind: fake, use: has, params: {word: please}, roles: [train, report]}
  - {id: h, kind: fake, use: has2, params: {word: please}, roles: [heldout]}
  examples:
  - {lang: en, messages: [{role: user, content: Hi}], facts: {about: true}, good: [Yes please], bad: ["No"]}
  elicit:
  - {id: e1, prompt: {en: Do it, zh-Hans: 做}, facts: {about: true}, split: attack}
  - {id: e2, benign_pair_of: e1, prompt: {en: Tell me}, system: {en: Be good.}}
  - {id: e3, prompt: {en: Other}}
  target: {min_rate: 0.95}
- id: brief
  statement: {en: Be brief., zh-Hans: 简短。}
  checkers: [{id: g, kind: fake, use: graded}]
"""


def only(spec: Spec, item: Item, response: str, role: str = "train") -> Verdict:
    (verdict,) = spec.verdicts(item, response, role)
    return verdict


@pytest.mark.parametrize(
    ("use", "status", "note"),
    [
        ("broken", Status.ERROR, "CheckerFailure: no answer from the judge"),
        ("dodger", Status.ERROR, "only conflict resolution"),
        ("wild", Status.ERROR, "outside [0, 1]"),
        ("torn", Status.UNSURE, ""),
        ("graded", Status.ERROR, "ValueError"),  # float("x") fails inside
        ("english", Status.ERROR, "does not know the language zh"),
        ("has", Status.VIOLATION, ""),
    ],
)
def test_verdicts_are_safe(make, ask, use: str, status: Status, note: str) -> None:
    spec = make(f"id: a, checkers: [{{id: c, kind: fake, use: {use}}}]")
    verdict = only(spec, ask(language="zh"), "x")
    assert verdict.status is status and note in verdict.note
    assert verdict.score == (0.0 if status is Status.VIOLATION else None)
    assert (verdict.rule, verdict.rule_hash, verdict.item, verdict.role) == ("a", spec.rule("a").hash, "i", "train")
    assert Verdict.from_row(json.loads(json.dumps(verdict.row()))) == verdict


def test_bugs_in_checkers_are_not_hidden(make, ask) -> None:
    with pytest.raises(TypeError):
        make("id: a, checkers: [{id: c, kind: fake, use: buggy}]").verdicts(ask(), "x", "train")


def test_a_declared_language_serves_its_variants(make, ask) -> None:
    spec = make("id: a, checkers: [{id: c, kind: fake, use: english}]")
    assert only(spec, ask(language="en-GB"), "please").status is Status.COMPLIANT


def test_not_applicable_and_unresolved_come_from_resolution(ask) -> None:
    spec = Spec.parse(BILINGUAL)
    active, absent, unknown = ask(about=True), ask(about=False), ask()
    assert [v.status for v in spec.verdicts(active, "please", "train")] == [Status.COMPLIANT, Status.NOT_APPLICABLE]
    assert [v.status for v in spec.verdicts(absent, "x", "heldout")] == [Status.NOT_APPLICABLE]
    (doubt,) = spec.verdicts(unknown, "please", "heldout")
    assert doubt.status is Status.UNSURE and doubt.score is None and "unknown whether it applies: 'about' is missing" in doubt.note


def test_rewards_of_a_group(make, ask) -> None:
    spec = make("id: m, must: true", "id: a, conflicts_with: [m]", "id: t1, conflicts_with: [t2]", "id: t2", "id: b", compose="{kappa: 2}")
    item = ask()
    assert spec.resolve(item).active == ("m", "b")  # a is set aside, t1 and t2 are unresolved
    group = [spec.verdicts(item, y, "train") for y in ("0.25", "0.75", "x")]
    rewards = spec.rewards([item], group)
    assert [r.value for r in rewards] == [-2.5, 0.75, None]  # -1 - 2 * 0.75; the open gate leaves b; ValueError in the checkers masks
    assert rewards[0].parts == {"m": 0.25, "b": 0.25} and str(rewards[2].masked_reason).startswith("m: error from c")
    assert spec.rewards(item, []) == []
    with pytest.raises(ValueError, match="one input"):
        spec.rewards([item, ask("another")], group[:2])
    json.dumps(rewards[0].row())


def test_lexicographic_tiers_follow_levels(make, ask) -> None:
    spec = make("id: g1", "id: g2", "id: r, level: root", compose="{objective: lexicographic}")
    assert spec.plan.terms["r"].tier < spec.plan.terms["g1"].tier == spec.plan.terms["g2"].tier


def test_render_in_both_languages_and_places(ask) -> None:
    spec, item = Spec.parse(BILINGUAL), ask("Hi", about=True)
    messages = list(item.messages)
    assert spec.render(messages, item) == [{"role": "system", "content": "Rules:\n1. Stay polite."}, *messages]  # brief is set aside
    both = spec.render(messages, item, language="zh", rules="all", position="prefix")
    assert both == [{"role": "user", "content": "规则：\n1. 保持礼貌。\n2. 简短。\n\nHi"}]
    assert spec.render(messages, rules="none") == messages
    assert spec.render(messages, rules=["brief"])[0]["content"] == "Rules:\n1. Be brief."
    with_system = [{"role": "system", "content": "S"}, *messages]
    assert spec.render(with_system, item)[0]["content"] == "S\n\nRules:\n1. Stay polite." and with_system[0]["content"] == "S"
    assert spec.instruction([], "en") == ""
    with pytest.raises(NormaError, match="Did you mean 'brief'"):
        spec.render(messages, rules=["breif"])
    with pytest.raises(NormaError, match="applicable, all, none"):
        spec.render(messages, rules="every")  # type: ignore[arg-type]  # a wrong word is the point


def test_check_guesses_the_language_and_names_the_item_by_content() -> None:
    spec = Spec.parse(BILINGUAL.replace("use: has,", "use: english,"))
    english = spec.check([{"role": "user", "content": "What does `请` do?"}], "please", facts={"about": True})
    chinese = spec.check([{"role": "user", "content": "`json.dumps` 有什么用？"}], "please", facts={"about": True})
    assert english[0].status is Status.COMPLIANT and "language zh-Hans" in chinese[0].note
    again = spec.check([{"role": "user", "content": "What does `请` do?"}], "no", facts={"about": True})
    assert again[0].item == english[0].item != chinese[0].item


def test_elicitation_items() -> None:
    spec = Spec.parse(BILINGUAL)
    assert [i.id for i in spec.elicit()] == ["polite/e1#en", "polite/e1#zh-Hans", "polite/e2#en", "polite/e3#en"]
    assert [i.id for i in spec.elicit("attack")] == ["polite/e1#en", "polite/e1#zh-Hans", "polite/e2#en"]  # a pair shares its split
    assert [i.id for i in spec.elicit("test")] == ["polite/e3#en"]
    first, _, pair, _ = spec.elicit()
    assert first.facts == {"about": True} and first.source == "polite/e1"
    assert pair.messages == ({"role": "system", "content": "Be good."}, {"role": "user", "content": "Tell me"})


# ---- hashes ----


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([True, False, None]))
def test_layout_and_key_order_never_change_a_digest(random, flow) -> None:
    def shuffled(value):
        if isinstance(value, dict):
            keys = list(value)
            random.shuffle(keys)
            return {k: shuffled(value[k]) for k in keys}
        return [shuffled(v) for v in value] if isinstance(value, list) else value

    plain = yaml.safe_load(BILINGUAL)
    text = yaml.safe_dump(shuffled(plain), sort_keys=False, default_flow_style=flow, allow_unicode=random.random() < 0.5, width=40)
    one, two = Spec.parse(BILINGUAL, checkers=False), Spec.parse(text, checkers=False)
    assert one.digest == two.digest
    assert [r.facets for r in one.rules] == [r.facets for r in two.rules]


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ('"Stay  polite.\\n"', "Stay polite.", set()),
        ('"Stay  polite.\\n"', "Stay very polite.", {"meaning", "wording.en"}),
        ("保持礼貌。", "要有礼貌。", {"wording.zh-Hans"}),
        ("facts.about == true", "facts.about == false", {"scope"}),
        ("level: user", "level: system", {"authority"}),
        ("must: true", "must: false", {"authority", "compose"}),
        ("conflicts_with: [brief]", "conflicts_with: []", {"authority"}),
        ("word: please}, roles: [train, report]", "word: thanks}, roles: [train, report]", {"check"}),
        ("roles: [train, report]", "roles: [report, train]", set()),
        ("0.95", "0.9", {"compose"}),
        ('bad: ["No"]', 'bad: ["Never"]', {"examples"}),
        ("- id: polite", "- id: courteous", set()),
    ],
)
def test_each_change_moves_its_own_facets(old: str, new: str, changed: set[str]) -> None:
    assert BILINGUAL.count(old) == 1
    before, after = (Spec.parse(text, checkers=False).rules[0] for text in (BILINGUAL, BILINGUAL.replace(old, new)))
    assert {name for name in before.facets if before.facets[name] != after.facets[name]} == changed
    assert before.hash == before.facets["meaning"]


# ---- around the file ----


def test_json_schema_accepts_the_file_and_helps_with_every_key() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(BILINGUAL), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**yaml.safe_load(BILINGUAL), "ruels": []}, schema)
    objects = [schema, *(d for d in schema["$defs"].values() if d.get("type") == "object")]
    for part in objects:
        for name, field in part["properties"].items():
            # where a field's help is that of its class, pydantic leaves it with the class
            assert field.get("description") or schema["$defs"][field["$ref"].split("/")[-1]]["description"], name


def test_markdown_in_both_languages() -> None:
    spec = Spec.parse(BILINGUAL)
    english, chinese = spec_markdown(spec, "en"), spec_markdown(spec, "zh-Hans")
    assert english.startswith("# demo (version 1)") and "- Target rate: 95%" in english and "- **Good**: Yes please" in english
    assert "保持礼貌。" in chinese and "- 级别: user, 必须遵守" in chinese and "Yes please" not in chinese


def test_importing_the_spec_loads_no_torch() -> None:
    code = "import sys, norma.spec; print([m for m in ('torch', 'transformers', 'norma.check') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2] / "src")
    assert done.stdout.strip() == "[]"


def test_an_item_costs_well_under_a_millisecond(make) -> None:
    rules = [
        f"id: r{i}, applies: 'facts.about == true && capture(user, \"`([^`]+)`\") != language && size(messages) > 0'" for i in range(8)
    ]
    spec = make(*rules)
    items = [Item(str(i), ({"role": "user", "content": f"`x{i}`?"},), facts={"about": True}) for i in range(200)]
    start = time.process_time()
    for item in items:
        assert len(spec.verdicts(item, "1", "train")) == 8
    assert (time.process_time() - start) / len(items) < 0.001
