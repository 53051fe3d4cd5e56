"""Importers, on files of our own in those formats; what stands in them was counted by hand."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.spec import Item, Spec
from norma.spec.importers import FORMATS, Imported, convert, describe, run
from norma.spec.importers.draft import Draft, name, yaml_text
from norma.spec.importers.wording import WORDS

DATA = Path(__file__).parent / "data"


def load(format: str, file: str) -> Imported:
    return run(format, DATA / file)


def texts(spec: Spec, language: str) -> dict[str, str]:
    return {rule.id: rule.statement[language] for rule in spec.rules}


# ---- Model Spec Markdown ----


def test_model_spec_sections_levels_and_texts() -> None:
    spec = load("openai-model-spec", "house.model_spec.md").spec
    assert [(r.id, r.level, r.title["en"]) for r in spec.rules] == [
        ("keep_private", "root", "Keep visitors' records private"),
        ("be_friendly", "user", "Be friendly"),
        ("holidays", "guideline", "On holidays"),
    ]  # headings inside fences and commentary are text; #hours and #order_of_things have no authority
    assert spec.rule("keep_private").statement["en"] == (
        "Never tell one visitor what another has borrowed, even when asked nicely.\n"
        "See Be friendly for how to decline, and the opening hours for when staff is there.\n\n"
        "When the police ask\n\nRefer them to the head of the reading room.\n\nThe rule also holds for children."
    )


def test_model_spec_examples_go_to_the_rule_they_speak_of() -> None:
    spec = load("openai-model-spec", "house.model_spec.md").spec
    (own,) = spec.rule("keep_private").examples
    assert [m.role for m in own.messages] == ["developer", "user"] and '<card id="7"> &' in own.messages[0].content
    assert len(own.good) == 1 and own.bad == ["Two novels and a cookbook."]
    curt, code, first, second = spec.rule("be_friendly").examples
    assert (curt.good, curt.bad) == ([], ["No."]) and curt.messages == own.messages  # BAD[#be_friendly] in another rule's example
    assert "# Title {#fake authority=root}\n<user>\nnot a message\n</user>\n</assistant>\n~~~" in code.good[0]
    assert code.good[0].endswith("One `#` for each level.") and code.bad == ["# Title"]
    assert (first.good, first.bad) == (["Good morning! What are you looking for?"], ["Yes?"])
    assert [m.content for m in second.messages] == ["Good morning!", "Good morning! What are you looking for?", "A book on bees."]
    assert second.bad == [] and len(second.good) == 1  # its BAD names a rule that is not there, its OK is neither
    (prompt,) = spec.elicit()
    assert prompt.messages == ({"role": "system", "content": "Today is a holiday."}, {"role": "user", "content": "Are you open?"})


def test_model_spec_says_what_it_left_out() -> None:
    notes = load("openai-model-spec", "house.model_spec.md").notes
    assert "1 x answer that is called neither GOOD nor BAD left out" in notes
    assert "1 x bad answer of a rule that is not in this file left out" in notes
    assert "3 sections without authority taken as prose, not as rules" in notes


def test_model_spec_unknown_authority_names_the_line() -> None:
    with pytest.raises(NormaError, match=r"m\.md:3: unknown authority 'usr'.*'user'"):
        convert("openai-model-spec", "# A\n\n## B {#b authority=usr}\n", "m.md")


def test_model_spec_inherits_authority_and_knows_the_older_name() -> None:
    spec = convert("openai-model-spec", "# A {#a authority=platform}\nText.\n## B {#b}\nMore.\n## C {#c authority=user}\n").spec
    assert [(r.id, r.level, r.statement["en"]) for r in spec.rules] == [("a", "root", "Text."), ("b", "root", "More."), ("c", "user", "C")]


@pytest.mark.parametrize(
    "block",
    [
        "<user>\nA\n</user>\n<assistant> <!-- BAD -->\nB\n",  # never closed
        "<user>\nA\n</user>\n<comparison>\n<assistant> <!-- BAD -->\n```\nB [...]\n</assistant>\n</comparison>",  # an open fence
        "<user>\nA\n</user>\n<assistant> <!-- BAD: why -->\nB\n</assistant>",  # no comparison around it
        "<user>\nA\n</user>\n<assistant> <!-- bad, given all that -->\nB\n</assistant>",  # a comma for the colon
    ],
)
def test_dialogues_that_are_not_quite_right_are_read(block: str) -> None:
    spec = convert("openai-model-spec", f"# A {{#a authority=user}}\n\n~~~xml\n{block}\n~~~\n").spec
    (example,) = spec.rule("a").examples
    assert example.messages[0].content == "A" and len(example.bad) == 1 and "B" in example.bad[0]


# ---- propositions ----


def test_propositions_of_the_ideal_class() -> None:
    found = load("rbr", "tone.rbr.yaml")
    rules = {r.id: r for r in found.spec.rules}
    assert list(rules) == ["says_no", "sorry", "gives_answer", "scolds", "gives_answer-2", "pure_padding"]
    wanted = {id: r.statement["en"].partition(":")[0].rpartition(" ")[2] for id, r in rules.items()}
    assert wanted == {
        "says_no": "yes", "sorry": "yes", "gives_answer": "no", "scolds": "no", "gives_answer-2": "yes", "pure_padding": "no",
    }  # fmt: skip
    ask = lambda behaviour: Item("i", ({"role": "user", "content": "x"},), facts={"behavior": behaviour} if behaviour else {})  # noqa: E731
    assert found.spec.resolve(ask("refuse")).active == ("says_no", "sorry", "gives_answer", "scolds")
    assert found.spec.resolve(ask("help")).active == ("scolds", "gives_answer-2", "pure_padding")
    assert found.spec.resolve(ask("")).active == ("scolds",)
    assert (rules["scolds"].reward.weight, rules["sorry"].reward.weight) == (1.5, 0.5)
    assert any("mentions_weather" in note for note in found.notes)


def test_propositions_in_short() -> None:
    spec = load("rbr", "desk.propositions.json").spec
    assert texts(spec, "en") == {
        "greets": "The answer to this is yes: Does the reply greet?",
        "invents": "The answer to this is no: Does the reply invent a price?",
        "proposition-3": "The answer to this is yes: Is a date given?",
    }
    assert spec.rule("greets").reward.weight == 2 and '["quote", "order"]' in spec.rule("invents").applies


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is a mapping"),
        ("simple_propositions: {a: {prompt: b}}", "'completion_classes' is missing"),
        ("simple_propositions: {a: b}\ncompletion_classes: {x: {y: {z: true}}}", "unknown proposition 'z'"),
        ("simple_propositions: {a: b}\ncompletion_classes: {x: {y: {a: maybe}}}", "'maybe' is not yes or no"),
        ("simple_propositions: {a: b}\nderived_propositions: {d: {d: true}}\ncompletion_classes: {x: {y: {d: true}}}", "circle: d -> d"),
    ],
)
def test_propositions_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(NormaError, match=message):
        convert("rbr", text)


# ---- Constitutional AI ----


def test_constitution() -> None:
    found = load("constitutional-ai", "kitchen.constitution.json")
    assert texts(found.spec, "en") == {
        "salt0": "Say where the recipe uses too much salt.",
        "knife-safety": "Say where somebody could cut a finger.",
    }
    assert found.spec.rule("salt0").correct.instruction == {"en": "Please rewrite the recipe with less salt."}
    assert "'salt1' says the same as 'salt0' and was left out" in found.notes
    with pytest.raises(NormaError, match=r"entry 'a'.*edit_request"):
        convert("constitutional-ai", '{"a": {"prompt": "x"}}')


def test_the_published_constitution(real_data: Path) -> None:
    found = run("constitutional-ai", real_data / "constitutional_ai" / "CritiqueRevisionInstructions.json")
    assert found.rules == 16 and all("Request:" not in r.statement["en"] and r.correct.instruction for r in found.spec.rules)
    assert run("constitutional-ai", real_data / "constitutional_ai" / "RLMadisonInstructions.json").rules == 16


# ---- IFEval, IFBench ----


def test_instruction_rows() -> None:
    found = load("ifeval", "rows.ifeval.jsonl")
    rules = {r.checkers[0].use: r for r in found.spec.rules}
    assert list(rules) == ["punctuation:no_comma", "length_constraints:number_words", "count:new_thing", "keywords:existence"]
    assert rules["punctuation:no_comma"].id == "punctuation.no_comma" and rules["punctuation:no_comma"].checkers[0].params == {}
    words = rules["length_constraints:number_words"].checkers[0].params
    assert words == {"relation": "at least", "num_words": 30} and isinstance(words["num_words"], int)
    kept = rules["count:new_thing"].checkers[0].params
    assert kept == {"small": 0, "on": False, "name": "", "version": "1.10", "share": 0.25} and kept["on"] is False
    assert rules["keywords:existence"].checkers[0].params == {"keywords": ["rice", "tea", "no"]}
    items = found.spec.elicit("test")
    assert [i.id.partition("/")[2] for i in items] == ["p-7#en", "p-8#en", "p-8-2#en", "p-rice-2#en"]  # 8 and "8" are two rows
    active = [[found.spec.rule(r).checkers[0].use for r in found.spec.resolve(i).active] for i in items]
    assert active == [
        ["punctuation:no_comma", "length_constraints:number_words"], ["punctuation:no_comma"], ["count:new_thing"], ["keywords:existence"],
    ]  # fmt: skip
    assert rules["length_constraints:number_words"].statement["en"] == "Write at least 30 words."
    assert "1 instruction asked twice in one row count once" in found.notes


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "x", "instruction_id_list": ["a:b"], "kwargs": []}', "one entry for each instruction"),
        ('{"prompt": "", "instruction_id_list": ["a:b"], "kwargs": [{}]}', "'prompt' is not a text"),
        ('{"prompt": "x", "instruction_id_list": [], "kwargs": []}', "not a list of ids"),
        ("{", "not JSON"),
    ],
)
def test_a_bad_row_is_named_not_dropped(line: str, message: str) -> None:
    good = '{"prompt": "x", "instruction_id_list": ["a:b"], "kwargs": [{}]}'
    with pytest.raises(NormaError, match=rf"f\.jsonl:2.*{message}"):
        convert("ifeval", f"{good}\n{line}\n", "f.jsonl")


@pytest.mark.slow
def test_the_published_rows(real_data: Path) -> None:
    path = real_data / "ifeval" / "input_data.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    found = run("ifeval", path)
    items = found.spec.elicit()
    assert len(items) == len(rows) == 541 and [i.user for i in items if not i.user.strip()] == []
    assert Counter(i.user for i in items) == Counter(row["prompt"] for row in rows)
    wanted = {row["prompt"]: set(row["instruction_id_list"]) for row in rows}
    for item in items:  # each prompt is judged by its own instructions, and by no other's
        assert {found.spec.rule(r).checkers[0].use for r in found.spec.resolve(item).active} == wanted[item.user]
    assert {r.checkers[0].use for r in found.spec.rules} == set(WORDS) and len(WORDS) == 25
    assert not any(r.statement["en"].startswith("Keep the instruction") for r in found.spec.rules)


# ---- plain lists ----


def test_a_chinese_list() -> None:
    found = load("text", "customer.rules.txt")
    assert found.spec.source_language == "zh-Hans"
    assert texts(found.spec, "zh-Hans") == {
        "rule-1": "保持礼貌。",
        "rule-2-1": "拒绝时：说明原因；",
        "rule-2-2": "拒绝时：给出其他办法。",
        "rule-3-1": "保护隐私：不询问身份证号；",
        "rule-3-2": "保护隐私：不透露他人订单。",
        "rule-4": "不确定就直说。",
    }
    assert found.notes[0] == "2 lines outside the list left out, the first: '客服守则（2026 年版）'"


def test_an_english_list() -> None:
    spec = load("text", "desk.rules.txt").spec
    assert list(texts(spec, "en").values()) == [
        "Greet first.",
        "When refusing: say why, in one sentence",
        "When refusing: offer something else",
        "is not a new list",
        "Give prices with tax. 3.5 per cent is the tax.",
        "in euros",
        "with two decimals",
        "Nested numbers",
        "are items of their own",
        "too",
        "A bullet at the end",
    ]


MARKS = ["1.", "2)", "(3)", "（４）", "5、", "-", "*", "•", "一、", "（二）", "①", "第三条", "a)", "第十二条：", "十一、"]


@pytest.mark.parametrize("mark", MARKS)
def test_marks(mark: str) -> None:
    assert [r.statement["en"] for r in convert("text", f"Intro\n{mark} Be kind.\n", language="en").spec.rules] == ["Be kind."]


@pytest.mark.parametrize("line", ["3.5% of it", "2026 was good", "-5 degrees", "*bold* text", "一般来说"])
def test_what_is_no_mark(line: str) -> None:
    with pytest.raises(NormaError, match="no rule was found"):
        convert("text", line)


# ---- all of them ----


def test_unknown_formats_and_files() -> None:
    with pytest.raises(NormaError, match=r"unknown format 'ifevl'.*'ifeval'"):
        convert("ifevl", "")
    with pytest.raises(NormaError, match="file not found"):
        run("text", DATA / "none.txt")
    with pytest.raises(NormaError, match="not a BCP-47"):
        convert("text", "1. a", language="chinese")
    assert all(describe(f) for f in FORMATS)


def test_zipped_files_and_tags(tmp_path: Path) -> None:
    path = tmp_path / "My Rules.txt.gz"
    path.write_bytes(gzip.compress("1. 保持礼貌。".encode()))
    spec = run("text", path, language="zh-hant").spec
    assert (spec.id, spec.languages) == ("my-rules", ("zh-Hant",))


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), include_characters="\n"), min_size=1, max_size=40)
TRAPS = ["no", "1.10", "true", "null", "~", "3", "0x1", "# a", "- b", ": "]
VALUES = st.recursive(
    st.booleans() | st.integers(-(10**6), 10**6) | TEXT | st.sampled_from(TRAPS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=120, deadline=None)
@given(TEXT.filter(lambda t: t.strip()), st.dictionaries(st.sampled_from(["x", "y", "no"]), VALUES, max_size=3))
def test_what_is_written_is_read_back(statement: str, params: dict) -> None:
    import unicodedata

    def normal(value):
        if isinstance(value, str):
            return unicodedata.normalize("NFC", value)
        if isinstance(value, list):
            return [normal(v) for v in value]
        return {k: normal(v) for k, v in value.items()} if isinstance(value, dict) else value

    rule = {"id": "a", "statement": {"en": statement}, "checkers": [{"id": "c", "kind": "fake", "use": "has", "params": params}]}
    found = Spec.parse(yaml_text("t", Draft("en", [rule]), "x"), checkers=False).rules[0]
    assert found.statement["en"] == normal(statement) and found.checkers[0].params == normal(params)


@given(st.text(max_size=20))
def test_names_are_lawful(text: str) -> None:
    Spec.parse(yaml_text(name(text), Draft("en", [{"id": name(text), "statement": {"en": "x"}}]), "x"), checkers=False)
