"""What a changed spec costs: two versions of a long spec with known answers, and a run folder small enough to count by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from norma.base.errors import NormaError
from norma.base.files import write_json, write_jsonl
from norma.labels import Label, LabelStore
from norma.pipeline.spec_cost import Stores, costs
from norma.spec import Item, Spec
from norma.spec.diff import STALE, SpecDiff, diff, flips

DATA = Path(__file__).parent / "data"
# rule -> facet -> what is stale; written down before the second version was
KNOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "safety.privacy": {"meaning": STALE["meaning"], "wording.en": STALE["wording"], "compose": STALE["target"]},
    "safety.emergency": {"meaning": STALE["editorial"], "wording.en": STALE["wording"]},  # signed; the translation entry is no facet
    "desk.hours": {"wording.zh-Hans": STALE["wording"]},  # `applies` on other lines is the same
    "desk.catalogue": {"check": STALE["check, in the reward"]},
    "desk.fines": {"scope": STALE["scope"]},
    "style.polite": {"compose": STALE["compose"]},
    "style.brief": {"authority": STALE["authority"]},
    "style.no-emoji": {"compose": STALE["compose"]},  # its budget
    "style.plain-words": {"id": STALE["renamed"]},
    "content.sources": {"examples": STALE["examples"]},
    "content.e-books": {"rule": STALE["added"]},
    "content.old-stock": {"rule": STALE["removed"]},
}


@pytest.fixture
def versions() -> tuple[Spec, Spec]:
    return Spec.load(DATA / "library.v1.spec.yaml"), Spec.load(DATA / "library.v2.spec.yaml")


def shown(found: SpecDiff) -> dict[str, dict[str, tuple[str, ...]]]:
    return {r.rule: {c.facet: c.stale for c in r.changes} for r in found.rules}


def test_a_long_spec_against_the_known_answers(versions: tuple[Spec, Spec]) -> None:
    found = diff(*versions)
    assert shown(found) == KNOWN and found.whole == ()
    kinds = {r.rule: r.kind for r in found.rules if r.kind != "changed"}
    assert kinds == {"style.plain-words": "renamed", "content.e-books": "added", "content.old-stock": "removed"}
    assert not diff(versions[0], versions[0])
    assert diff(*reversed(versions)).rules  # the way back renames without an alias: a rule goes, a rule comes
    assert {r.rule: r.kind for r in diff(*reversed(versions)).rules}["style.plain"] == "added"


def test_where_the_predicate_flips(versions: tuple[Spec, Spec]) -> None:
    topics = ["fines", "fees", "hours", "fees", None]
    items = [
        Item(str(i), ({"role": "user", "content": "How much?"},), facts={"topic": t, "emergency": False} if t else {"emergency": False})
        for i, t in enumerate(topics)
    ]
    found = flips(*versions, items)
    assert found.predicate == {"desk.fines": {"1", "3"}}  # unknown stays unknown
    # brief and thorough were undecided on every item; now one stands and one is set aside
    everywhere = {"0", "1", "2", "3", "4"}
    assert found.standing == {"desk.fines": {"1", "3"}, "style.brief": everywhere, "style.thorough": everywhere}


def test_overrides_in_trusted_facts_follow_a_rename(versions: tuple[Spec, Spec]) -> None:
    item = Item("i", ({"role": "user", "content": "x"},), facts={"overrides": {"style.plain": "user"}, "topic": "fines"})
    assert "style.plain-words" not in flips(*versions, [item]).standing


@pytest.mark.parametrize(
    ("old", "new", "facets"),
    [
        ("levels: [root, developer, user, guideline]", "levels: [root, user, developer, guideline]", {"levels"}),
        ("kappa: 1.0", "kappa: 2.0", {"compose.kappa"}),
        ("objective: weighted_mean, kappa: 1.0", "kappa: 1", set()),  # the default, written out or not
        ("source_language: en", "source_language: zh-Hans", {"source_language"}),
    ],
)
def test_changes_of_the_whole(old: str, new: str, facets: set[str]) -> None:
    text = (DATA / "library.v1.spec.yaml").read_text(encoding="utf-8")
    assert text.count(old) == 1
    found = diff(Spec.parse(text), Spec.parse(text.replace(old, new)))
    assert {c.facet for c in found.whole} == facets


@pytest.mark.parametrize(
    ("new", "stale"),
    [
        ("use: has2, params: {word: Shelf}, roles: [heldout]", STALE["check"]),  # the held-out checker alone: scores, no training
        ("use: has2, params: {word: shelf}, roles: [train]", STALE["check, in the reward"]),
    ],
)
def test_a_checker_outside_the_reward_needs_no_training(new: str, stale: tuple[str, ...]) -> None:
    text = (DATA / "library.v1.spec.yaml").read_text(encoding="utf-8")
    old = 'use: has2, params: {word: "shelf"}, roles: [heldout]'
    assert text.count(old) == 1
    assert shown(diff(Spec.parse(text), Spec.parse(text.replace(old, new)))) == {"desk.catalogue": {"check": stale}}


# ---- a run, counted by hand ----

A = """
norma: 1
spec: {id: t, version: "1", source_language: en, languages: [en, zh-Hans]}
rules:
- id: kind
  statement: {en: Be kind., zh-Hans: 友善。}
  checkers:
  - {id: c, kind: fake, use: has, params: {word: "please"}}
  - {id: h, kind: fake, use: has2, params: {word: please}, roles: [heldout]}
- id: brief
  statement: {en: Be brief., zh-Hans: 简短。}
  applies: facts.n > 1
  checkers: [{id: c, kind: fake, use: has, params: {word: please}}]
"""


def question(n: int, language: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Question {n}"}, {"role": "assistant", "content": "Yes please."}]
    return {"id": f"q{n}#{language}", "source": f"q{n}", "language": language, "messages": messages, "facts": {"n": n}}


@pytest.fixture
def run(tmp_path: Path) -> tuple[Spec, Path]:
    """Three English questions and one Chinese; q1 is outside the scope of `brief`. Two answers corrected, both for `kind`, one for both."""
    spec = Spec.parse(A)
    rows = [question(1, "en"), question(2, "en"), question(3, "en"), question(4, "zh-Hans")]
    write_jsonl(tmp_path / "corpus" / "qa.jsonl", rows)
    asked = {"questions": "corpus/qa.jsonl"}
    policy = {"questions": 2, "group": 4}
    methods = {"plain": {"rules": "none"}, "told": {"rules": "applicable"}, "all": {"rules": "all"}}
    stages = {
        "told": ("prompting", {**asked, "count": 9, "share": 1.0, "every": 1.0, "habit": 0.0}),
        "correct": ("correction", {**asked, "count": 9}),
        "reward": ("reward", {**asked, "steps": 5, "policy": policy}),
        "check": ("evaluate", {**asked, "methods": methods}),
    }
    for name, (kind, options) in stages.items():
        write_json(tmp_path / name / "lineage.json", {"identity": {"kind": kind, "seed": 1, "options": options}})
    write_json(tmp_path / "lineage.json", {"stages": {name: {} for name in stages}, "spec": {"digest": spec.digest}})
    kind, brief = spec.rule("kind"), spec.rule("brief")
    base = Label("q2#en", "No.", "kind", kind.hash, "checker:c", "violation", source="checker", corrected="No, please.")
    labels = [
        base,
        replace(base, item="q3#en"),
        replace(base, item="q3#en", rule="brief", rule_hash=brief.hash),
        replace(base, item="q1#en", response="Yes please.", verdict="compliant", corrected=None),
        replace(base, item="q1#en", annotator="Ann", source="human", verdict="violation", corrected=None),
        replace(base, item="q4#zh-Hans", rule_hash="0" * 64, corrected=None),  # marked under an older meaning
    ]
    with LabelStore(tmp_path / "correct" / "labels.sqlite") as store:
        store.add(labels)
    pairs = [{**rows[1], "chosen": "No, please.", "rejected": "No."}, {**rows[2], "chosen": "No, please.", "rejected": "No."}]
    write_jsonl(tmp_path / "correct" / "pairs.jsonl", [*pairs, {**rows[0], "chosen": "Please.", "rejected": "Hm."}])
    responses, verdicts = [], []
    for method in methods:
        for row in (rows[0], rows[3]):
            item = Item(row["id"], tuple(row["messages"][:1]), row["language"], row["facts"], row["source"])
            head = {"method": method, "item": item.id, "cluster": item.source, "language": item.language}
            responses.append({**head, "messages": row["messages"][:1], "response": "please", "set": "questions"})
            verdicts += [{**v.row(), **head} for role in ("train", "heldout") for v in spec.verdicts(item, "please", role)]
    write_jsonl(tmp_path / "check" / "responses.jsonl", responses)
    write_jsonl(tmp_path / "check" / "verdicts.jsonl", verdicts)  # per method and item: kind c, brief c, kind h
    lines = [{"method": m, "rules": [{"rule": "kind"}, {"rule": "brief"}]} for m in methods]
    write_json(tmp_path / "check" / "report.json", {"methods": lines, "comparisons": [{"rule": "kind"}, {"rule": None}]})
    return spec, tmp_path


def counted(run: tuple[Spec, Path], old: str, new: str) -> dict[tuple[str, str, str], tuple[int, int]]:
    spec, folder = run
    assert A.count(old) == 1
    after = Spec.parse(A.replace(old, new))
    found = costs(diff(spec, after), spec, after, folder)
    assert all(c.why for c in found) and Stores(folder, spec).same_spec
    return {(c.facet, c.what, c.store): (c.stale, c.of) for c in found}


def test_meaning(run: tuple[Spec, Path]) -> None:
    found = counted(run, "Be kind.", "Be gentle.")
    assert found.pop(("wording.en", "rendered prompts", "told/ (training conversations)")) == (3, 4)
    assert found == {
        ("meaning", "labels", "correct/labels.sqlite"): (4, 6),  # two corrected, two of q1; not brief's, not the older one's
        ("meaning", "corrections", "correct/labels.sqlite"): (2, 3),
        ("meaning", "training pairs", "correct/pairs.jsonl"): (2, 3),
        ("meaning", "training rows", "told/ (training conversations)"): (4, 4),  # kind is always shown, in either language
        ("meaning", "prompts of the report", "check/responses.jsonl (method told)"): (2, 2),
        ("meaning", "prompts of the report", "check/responses.jsonl (method all)"): (2, 2),
        ("meaning", "verdicts", "check/verdicts.jsonl"): (12, 18),
        ("meaning", "rows of the report", "check/report.json"): (4, 7),
        ("wording.en", "rendered prompts", "check/responses.jsonl (method told)"): (1, 2),
        ("wording.en", "rendered prompts", "check/responses.jsonl (method all)"): (1, 2),
    }


def test_editorial_change_only_asks_for_a_spot_check(run: tuple[Spec, Path]) -> None:
    was = run[0].rule("kind").hash[:16]
    signed = f"{{en: Be  gentle., zh-Hans: 友善。}}\n  editorial: [{{was: '{was}', by: Ann, reason: style, spot_check: 3}}]"
    found = counted(run, "{en: Be kind., zh-Hans: 友善。}", signed)
    assert {key[:2]: n for key, n in found.items() if key[0] == "meaning"} == {("meaning", "labels that stay, to be spot-checked"): (4, 6)}


def test_wording_of_one_language(run: tuple[Spec, Path]) -> None:
    assert counted(run, "zh-Hans: 友善。", "zh-Hans: 要友善。") == {
        ("wording.zh-Hans", "rendered prompts", "told/ (training conversations)"): (1, 4),
        ("wording.zh-Hans", "rendered prompts", "check/responses.jsonl (method told)"): (1, 2),
        ("wording.zh-Hans", "rendered prompts", "check/responses.jsonl (method all)"): (1, 2),
    }


def test_scope_counts_only_what_flips(run: tuple[Spec, Path]) -> None:
    assert counted(run, "facts.n > 1", "facts.n > 3") == {  # q2 and q3 fall out
        ("scope", "questions", "questions of the run"): (2, 4),
        ("scope", "training pairs", "correct/pairs.jsonl"): (2, 3),
        ("scope", "questions whose reward is another", "reward/"): (2, 4),
        ("scope", "verdicts", "check/verdicts.jsonl"): (0, 6),  # the report asked q1 and q4
        ("scope", "labels", "correct/labels.sqlite"): (1, 1),
    }


def test_authority(run: tuple[Spec, Path]) -> None:
    found = counted(run, "  applies: facts.n > 1", "  applies: facts.n > 1\n  unless: [kind]")
    assert found[("authority", "questions", "questions of the run")] == (3, 4)  # brief is set aside wherever it applied
    assert found[("authority", "training pairs", "correct/pairs.jsonl")] == (2, 3)
    assert found[("authority", "verdicts", "check/verdicts.jsonl")] == (3, 6)


def test_checkers(run: tuple[Spec, Path]) -> None:
    old = "{id: h, kind: fake, use: has2, params: {word: please}, roles: [heldout]}"
    heldout = counted(run, old, old.replace("please", "thanks"))
    assert heldout == {
        ("check", "scores", "check/verdicts.jsonl"): (6, 12),
        ("check", "labels of checkers", "correct/labels.sqlite"): (0, 5),
    }
    train = counted(run, '{word: "please"}', "{word: x}")
    assert train[("check", "scores", "check/verdicts.jsonl")] == (6, 12)
    assert train[("check", "labels of checkers", "correct/labels.sqlite")] == (4, 5)  # Ann's stays
    assert train[("check", "training pairs", "correct/pairs.jsonl")] == (2, 3)
    assert train[("check", "rewarded answers (retrain)", "reward/")] == (40, 40)  # 5 steps x 2 questions x 4 answers


def test_weights_are_replayed(run: tuple[Spec, Path]) -> None:
    found = counted(run, "  applies: facts.n > 1", "  applies: facts.n > 1\n  reward: {weight: 2.0}")
    assert found == {
        ("compose", "stored scores to replay", "check/verdicts.jsonl"): (3, 9),  # brief scored q4 only
        ("compose", "rewarded answers (retrain)", "reward/"): (40, 40),
    }


def test_a_rename_with_an_alias_relabels(run: tuple[Spec, Path]) -> None:
    assert counted(run, "- id: kind", "- id: gentle\n  aliases: [kind]") == {("id", "labels to relabel", "correct/labels.sqlite"): (4, 6)}
    without = counted(run, "- id: kind", "- id: gentle")
    assert without[("removed", "labels", "correct/labels.sqlite")] == (4, 6)
    assert without[("rule", "questions to judge", "questions of the run")] == (4, 4)


def test_not_a_run(tmp_path: Path) -> None:
    spec = Spec.parse(A)
    with pytest.raises(NormaError, match="not a run folder"):
        costs(diff(spec, spec), spec, spec, tmp_path)
