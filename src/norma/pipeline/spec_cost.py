"""What a changed spec makes stale in one run: counted in the run's own stores, never guessed.

diff(A, B), run folder ─┬─ */labels.sqlite                      marks and corrections, by rule and meaning hash
                        ├─ */pairs*.jsonl, norm_rows.jsonl      training rows, through the marks that they were made from
                        ├─ prompting stages, made again by seed  conversations whose prompt shows the rule
                        ├─ */verdicts.jsonl                     scores, by rule, checker and item
                        ├─ evaluate methods with rules          rendered prompts of the report
                        ├─ */report.json                        rows of the report
                        └─ reward stages                        questions on which the reward is another, answers trained on
─→ Cost(rule, facet, store, stale, of, why)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from norma.base.errors import NormaError
from norma.base.files import read_json, read_jsonl
from norma.base.hashing import canonical
from norma.spec.diff import Changed, RuleChange, SpecDiff, flips, newly
from norma.spec.types import Item, Message

if TYPE_CHECKING:
    from norma.labels import Label
    from norma.spec import Spec


@dataclass(frozen=True)
class Cost:
    """``stale`` of ``of`` things in ``store`` (a path in the run folder) have to be made again, and why."""

    rule: str
    facet: str
    what: str
    store: str
    stale: int
    of: int
    why: str

    def row(self) -> dict[str, Any]:
        return asdict(self)


class Stores:
    """What one run folder holds. Each store is read when it is first asked for, and never written."""

    def __init__(self, run: Path, spec: Spec) -> None:
        if not (run / "lineage.json").is_file():
            raise NormaError("this is not a run folder", where=run, mend="Give the folder that 'norma run' wrote")
        self.run, self.spec = run, spec
        self.record = read_json(run / "lineage.json")
        self.stages: dict[str, dict[str, Any]] = {
            name: read_json(run / name / "lineage.json")["identity"]
            for name in self.record.get("stages", {})
            if (run / name / "lineage.json").is_file()
        }

    @property
    def same_spec(self) -> bool:
        """True when the run was made with exactly this version."""
        return bool((self.record.get("spec") or {}).get("digest") == self.spec.digest)

    def of_kind(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        return ((name, row) for name, row in self.stages.items() if row["kind"] == kind)

    def _lines(self, pattern: str) -> dict[str, list[dict[str, Any]]]:
        return {path.relative_to(self.run).as_posix(): read_jsonl(path) for path in sorted(self.run.glob(pattern))}

    @cached_property
    def labels(self) -> dict[str, list[Label]]:
        from norma.labels import LabelStore

        found = {}
        for path in sorted(self.run.glob("*/labels.sqlite")):
            with LabelStore(path) as store:
                found[path.relative_to(self.run).as_posix()] = store.rows(current=True)
        return found

    @cached_property
    def pairs(self) -> dict[str, list[dict[str, Any]]]:
        return self._lines("*/pairs*.jsonl")

    @cached_property
    def verdicts(self) -> dict[str, list[dict[str, Any]]]:
        return self._lines("*/verdicts.jsonl")

    @cached_property
    def reports(self) -> dict[str, dict[str, Any]]:
        return {p.relative_to(self.run).as_posix(): read_json(p) for p in sorted(self.run.glob("*/report.json"))}

    @cached_property
    def items(self) -> dict[str, Item]:
        """Every question that a stage of the run asked, by id, and every answered question of a report."""
        from norma.align.rows import to_item

        found: dict[str, Item] = {}
        for source in dict.fromkeys(str(row["options"].get("questions") or "") for row in self.stages.values()):
            if source and (self.run / source).is_file():
                found |= {row["id"]: to_item(row) for row in read_jsonl(self.run / source)}
        for rows in self._lines("*/responses.jsonl").values():
            for row in rows:
                if row.get("set", "questions") != "questions":  # answers of task models are not judged by the spec
                    continue
                messages = tuple(Message(role=m["role"], content=m["content"]) for m in row["messages"])
                found.setdefault(row["item"], Item(row["item"], messages, row["language"], cluster=row["cluster"]))
        return found

    def asked(self, stage: str) -> list[Item]:
        """The questions that a stage drew, in the order in which it drew them."""
        from norma.align.rows import choose, read_items

        row = self.stages[stage]
        path = self.run / str(row["options"].get("questions") or "")
        items = read_items(path) if path.is_file() else []
        return choose(items, row["options"].get("count") or len(items), row["seed"])

    @cached_property
    def shown(self) -> dict[str, tuple[Counter[tuple[str, str]], int]]:
        """Prompts that show a rule: store -> ({(rule, language): prompts}, prompts with rules). Training's are made again by seed."""
        from norma.align.prompting import ruled_conversations

        found: dict[str, tuple[Counter[tuple[str, str]], int]] = {}
        lines = {" ".join(text.split()): (r.id, tag) for r in self.spec.rules for tag, text in r.statement.items()}
        for stage, row in self.of_kind("prompting"):
            how = {key: row["options"][key] for key in ("share", "every", "habit")}
            made = ruled_conversations(self.spec, self.asked(stage), **how, seed=row["seed"])
            prompts = [m[0]["content"] for m in made if m[0]["role"] == "system"]
            seen = Counter(lines[said] for p in prompts for line in p.splitlines() if (said := line.partition(". ")[2]) in lines)
            found[f"{stage}/ (training conversations)"] = (seen, len(prompts))
        for stage, row in self.of_kind("evaluate"):
            for path, rows in self._lines(f"{stage}/responses.jsonl").items():
                for name, method in row["options"]["methods"].items():
                    asked = [self.items[r["item"]] for r in rows if r["method"] == name and r["set"] == "questions"]
                    if method["rules"] != "none":
                        every = [r.id for r in self.spec.rules]
                        seen = Counter(
                            (rule, self._tag(rule, i.language))
                            for i in asked
                            for rule in (every if method["rules"] == "all" else self.spec.resolve(i).active)
                        )
                        found[f"{path} (method {name})"] = (seen, len(asked))
        return found

    def _tag(self, rule: str, language: str) -> str:
        from norma.spec import languages

        return languages.best(language, self.spec.rule(rule).statement) or self.spec.source_language


def costs(changes: SpecDiff, old: Spec, new: Spec, run: Path) -> list[Cost]:
    """What ``changes`` make stale in the run folder ``run``, whose spec was ``old``; lines that count nothing at all are left out."""
    return _Count(Stores(run, old), old, new).all(changes)


class _Count:
    """One method per line of the table in norma.spec.diff."""

    def __init__(self, stores: Stores, old: Spec, new: Spec) -> None:
        self.stores, self.old, self.new = stores, old, new

    @cached_property
    def flips(self) -> Any:
        return flips(self.old, self.new, self.stores.items.values())

    def all(self, changes: SpecDiff) -> list[Cost]:
        found = [cost for change in changes.rules for part in change.changes for cost in self.one(change, part)]
        if any(part.facet == "levels" for part in changes.whole):
            touched = {item for ids in self.flips.standing.values() for item in ids}
            found += self._flipped("(all)", "levels", touched, "another order of levels")
        if any(part.facet.startswith("compose.") for part in changes.whole):
            found += self._replayed("(all)", "compose", lambda rule: True)
        return [cost for cost in found if cost.of]

    def one(self, change: RuleChange, part: Changed) -> Iterator[Cost]:
        rule, before, facet = change.rule, change.old, part.facet
        head = facet.partition(".")[0]
        if facet == "id":
            yield from self._labels(rule, facet, before, "labels to relabel", f"'{before}' is now '{rule}'; nothing is judged again")
        elif facet == "rule" and change.kind == "added":
            active = newly(self.old, self.new, self.stores.items.values(), rule)
            yield Cost(rule, facet, "questions to judge", "questions of the run", len(active), len(self.stores.items), "a new rule applies")
        elif facet == "rule" or (facet == "meaning" and "spot check" not in part.stale):
            yield from self._meaning(rule, "removed" if facet == "rule" else facet, before)
        elif facet == "meaning":
            yield from self._labels(rule, facet, before, "labels that stay, to be spot-checked", part.note)
        elif head == "wording":
            yield from self._prompts(rule, facet, before, facet.partition(".")[2])
        elif facet == "scope":
            yield from self._flipped(rule, facet, self.flips.predicate.get(rule, set()), "'applies' says another thing", before)
        elif facet == "authority":
            touched = self.flips.standing.get(rule, set()) - self.flips.predicate.get(rule, set())
            yield from self._flipped(rule, facet, touched, "the status of the rule is another", before, labels=False)
        elif facet == "check":
            yield from self._scores(rule, facet, before, part)
        elif facet == "compose" and "gate" not in part.stale:
            yield from self._replayed(rule, facet, lambda name: name == before)
        elif facet == "examples":
            rows = [r for r in self._verdicts() if r["item"].startswith(f"{before}/")]
            yield Cost(rule, facet, "elicited answers", "verdicts", len({r["item"] for r in rows}), len(self.stores.items), "other prompts")

    def _verdicts(self) -> Iterable[dict[str, Any]]:
        return (row for rows in self.stores.verdicts.values() for row in rows)

    def _labels(self, rule: str, facet: str, before: str, what: str, why: str) -> Iterator[Cost]:
        for store, labels in self.stores.labels.items():
            own = [x for x in labels if x.rule == before and self.old.rule(before).means(x.rule_hash)]
            yield Cost(rule, facet, what, store, len(own), len(labels), why)

    def _meaning(self, rule: str, facet: str, before: str) -> Iterator[Cost]:
        why = "the rule is gone" if facet == "removed" else "marked under the old meaning"
        yield from self._labels(rule, facet, before, "labels", why)
        for store, labels in self.stores.labels.items():
            corrected = [x for x in labels if x.corrected is not None]
            yield Cost(rule, facet, "corrections", store, sum(x.rule == before for x in corrected), len(corrected), why)
        yield from self._pairs(rule, facet, lambda label: label.rule == before, "corrected because of this rule")
        for store, (seen, prompts) in self.stores.shown.items():
            shows = sum(count for (name, _), count in seen.items() if name == before)
            what = "prompts of the report" if "responses" in store else "training rows"
            yield Cost(rule, facet, what, store, shows, prompts, "the prompt shows this rule")
        for store, rows in self.stores.verdicts.items():
            yield Cost(rule, facet, "verdicts", store, sum(r["rule"] == before for r in rows), len(rows), why)
        for store, report in self.stores.reports.items():
            lines = [line for m in report["methods"] for line in m["rules"]] + [c for c in report["comparisons"] if c["rule"] is not None]
            yield Cost(rule, facet, "rows of the report", store, sum(x["rule"] == before for x in lines), len(lines), why)

    def _pairs(self, rule: str, facet: str, chosen: Callable[[Label], bool], why: str) -> Iterator[Cost]:
        """Pairs that were made because a mark that fits ``chosen`` said: violation."""
        labels = [x for rows in self.stores.labels.values() for x in rows if x.verdict == "violation" and chosen(x)]
        made = {(x.item, x.response) for x in labels}
        for store, pairs in self.stores.pairs.items():
            stale = sum((p["id"], p["rejected"]) in made for p in pairs)
            yield Cost(rule, facet, "training pairs", store, stale, len(pairs), why)

    def _prompts(self, rule: str, facet: str, before: str, language: str) -> Iterator[Cost]:
        why = f"shows the rule in {language}; labels stay"
        for store, (seen, prompts) in self.stores.shown.items():
            yield Cost(rule, facet, "rendered prompts", store, seen[(before, language)], prompts, why)

    def _flipped(self, rule: str, facet: str, ids: set[str], why: str, before: str = "", labels: bool = True) -> Iterator[Cost]:
        yield Cost(rule, facet, "questions", "questions of the run", len(ids), len(self.stores.items), why)
        for store, pairs in self.stores.pairs.items():
            yield Cost(rule, facet, "training pairs", store, sum(p["id"] in ids for p in pairs), len(pairs), why)
        for stage, row in self.stores.of_kind("reward"):
            asked = self.stores.asked(stage)
            drawn = row["options"]["steps"] * row["options"]["policy"]["questions"]
            of = f"{why}; the stage drew {drawn} of them, one by one"
            yield Cost(rule, facet, "questions whose reward is another", f"{stage}/", sum(i.id in ids for i in asked), len(asked), of)
        for store, rows in self.stores.verdicts.items():
            own = [r for r in rows if not before or r["rule"] == before]
            yield Cost(rule, facet, "verdicts", store, sum(r["item"] in ids for r in own), len(own), why)
        for store, marks in self.stores.labels.items() if labels else ():
            mine = [x for x in marks if not before or x.rule == before]
            yield Cost(rule, facet, "labels", store, sum(x.item in ids for x in mine), len(mine), why)

    def _scores(self, rule: str, facet: str, before: str, part: Changed) -> Iterator[Cost]:
        a, b = ({canonical(c): c for c in side} for side in (part.before, part.after))
        gone = {c["id"] for key, c in a.items() if key not in b}
        why = f"of checker {', '.join(sorted(gone))}" if gone else "a checker is new: its scores are to be made"
        for store, rows in self.stores.verdicts.items():
            own = [r for r in rows if r["rule"] == before]
            yield Cost(rule, facet, "scores", store, sum(r["checker"] in gone for r in own), len(own), why)
        for store, labels in self.stores.labels.items():
            mine = [x for x in labels if x.rule == before]
            stale = sum(x.annotator in {f"checker:{name}" for name in gone} for x in mine)
            yield Cost(rule, facet, "labels of checkers", store, stale, len(mine), f"{why}; people's labels stay")
        if "training" in part.stale:
            named = {f"checker:{name}" for name in gone}
            yield from self._pairs(rule, facet, lambda x: x.rule == before and x.annotator in named, "the mark came from this checker")
            yield from self._retrained(rule, facet, "the checker was in the reward")

    def _replayed(self, rule: str, facet: str, chosen: Callable[[str], bool]) -> Iterator[Cost]:
        for store, rows in self.stores.verdicts.items():
            scored = [r for r in rows if r["role"] == "train" and r["score"] is not None]
            stale = sum(chosen(r["rule"]) for r in scored)
            yield Cost(rule, facet, "stored scores to replay", store, stale, len(scored), "the reward is computed again; nothing is judged")
        yield from self._retrained(rule, facet, "the policy was trained on another reward")

    def _retrained(self, rule: str, facet: str, why: str) -> Iterator[Cost]:
        for stage, row in self.stores.of_kind("reward"):
            policy, steps = row["options"]["policy"], row["options"]["steps"]
            answers = steps * policy["questions"] * policy["group"]
            yield Cost(rule, facet, "rewarded answers (retrain)", f"{stage}/", answers, answers, f"{why}: {steps} steps")
