"""From a number of a report to what it was made of, and from a row to every number it counts in.

    METHOD/RULE/rate ─→ items and verdicts ─→ checkers, rule facets
                     └→ the model's stages, one before another ─→ labels and training rows under that rule
    item id, label key, FILE:LINE ─→ rows in every artefact ─→ stages that read them ─→ models ─→ the report's numbers
    rule id, stage name ─→ what the run holds of it

Everything is read from the run folder's own files; nothing is recomputed but the number itself, which must come out the same.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from norma.base.errors import NormaError, nearest
from norma.base.files import read_json, read_jsonl
from norma.evaluate import compliance
from norma.evaluate.trials import is_main

ROLES = ("report", "heldout", "train", "gold")
SHOWN = 5  # rows of a list, unless all are asked for


@dataclass
class Trace:
    """One node of the walk: a line, and what lies behind it."""

    line: str
    parts: list[Trace] = field(default_factory=list)

    def add(self, line: str) -> Trace:
        self.parts.append(Trace(line))
        return self.parts[-1]

    def row(self) -> dict[str, Any]:
        return {"line": self.line, "parts": [p.row() for p in self.parts]}


class RunView:
    """What a run folder (or the folder of a check) holds, read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lineages: dict[str, dict[str, Any]] = {path.parent.name: read_json(path) for path in sorted(folder.glob("[!.]*/lineage.json"))}
        if not self.lineages and not (folder / "report.json").is_file():
            raise NormaError(
                "no run and no check in this folder", where=folder, mend="Give the folder that 'norma run' or 'norma check' names"
            )

    @cached_property
    def evaluation(self) -> Path:
        """The folder of the last evaluate stage; a check's own folder."""
        stages = [n for n, row in self.lineages.items() if row.get("identity", {}).get("kind") == "evaluate"]
        return self.folder / stages[-1] if stages else self.folder

    @cached_property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = read_json(self.evaluation / "report.json")
        return found

    @cached_property
    def verdicts(self) -> list[dict[str, Any]]:
        return read_jsonl(self.evaluation / "verdicts.jsonl")

    @cached_property
    def responses(self) -> list[dict[str, Any]]:
        return read_jsonl(self.evaluation / "responses.jsonl")

    def stage_of(self, method: str) -> str | None:
        """The stage whose model a method is."""
        options = self.lineages.get(self.evaluation.name, {}).get("identity", {}).get("options", {})
        model = options.get("methods", {}).get(method, {}).get("model")
        return None if model is None else str(model).partition("/")[0]

    def before(self, stage: str) -> list[str]:
        """A stage and all that it was made from, the nearest first."""
        order = [stage]
        for name in order:
            order += [i for i in self.lineages.get(name, {}).get("identity", {}).get("inputs", {}) if i not in order]
        return order

    def after(self, stage: str) -> list[str]:
        """All stages that were made from a stage, directly or not."""
        return [n for n in self.lineages if n != stage and stage in self.before(n)]

    def files(self, stage: str | None = None) -> Iterator[Path]:
        """The row files of all artefacts, or of one."""
        folders = [self.folder / n for n in ([stage] if stage else self.lineages)] or [self.folder]
        for folder in folders:
            yield from sorted(p for p in folder.rglob("*.jsonl") if p.name not in ("metrics.jsonl", "samples.jsonl"))

    def name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def trace(folder: Path, reference: str, *, everything: bool = False) -> Trace:
    """Walk from ``reference``. Raises NormaError, with the nearest thing there is, when it names nothing."""
    view = RunView(folder)
    limit = 10**9 if everything else SHOWN
    number = _number(view, reference)
    if number is not None:
        return _trace_number(view, reference, *number, limit)
    if reference in view.lineages:
        return _trace_stage(view, reference)
    rules = [card["rule"] for card in view.report["spec"]["rules"]] if (view.evaluation / "report.json").is_file() else []
    if reference in rules:
        return _trace_rule(view, reference)
    found = _trace_row(view, reference, limit)
    if found is None:
        methods = [m["method"] for m in view.report["methods"]] if rules else []
        known = [*rules, *view.lineages, *(f"{m}/{r}/rate" for m in methods for r in rules), *{v["item"] for v in view.verdicts}]
        what = f"'{reference}' is no number, item, label, file row, rule or stage of this run"
        raise NormaError(what, where=folder, mend=nearest(reference, known))
    return found


# ---- numbers ----


def _number(view: RunView, reference: str) -> tuple[str, str, str, str] | None:
    """(method, rule or overall, role, figure), or None. A method's name may hold slashes: an endpoint's often does."""
    if not (view.evaluation / "report.json").is_file():
        return None
    for method in (m["method"] for m in view.report["methods"]):
        if reference.startswith(f"{method}/"):
            rule, _, figure = reference[len(method) + 1 :].partition("/")
            rule, _, role = rule.partition("@")
            known = {"overall", *(card["rule"] for card in view.report["spec"]["rules"])}
            if rule not in known:
                raise NormaError(f"'{method}' has no number of '{rule}'", mend=nearest(rule, known))
            if role not in ("", "report", "heldout"):
                raise NormaError(f"numbers are of the role report or heldout, not '{role}'")
            return method, rule, role or "report", figure or "rate"
    return None


def _trace_number(view: RunView, reference: str, method: str, rule: str, role: str, figure: str, limit: int) -> Trace:
    entry = next(m for m in view.report["methods"] if m["method"] == method)
    group = entry if role == "report" else entry["heldout"] or {"overall": None, "rules": []}
    row = group["overall"] if rule == "overall" else next((r for r in group["rules"] if r["rule"] == rule), None)
    if row is None or figure not in row:
        raise NormaError(f"the report holds no '{reference}'", mend=nearest(figure, [k for k in row or {} if k != "rule"]))
    root = Trace(f"{reference} = {_shown(row[figure])}" + (f" [{_shown(row['low'])}, {_shown(row['high'])}]" if figure == "rate" else ""))
    own = [v for v in view.verdicts if is_main(v) and v["method"] == method and v["role"] == role]
    wanted = [v for v in own if rule in ("overall", v["rule"])]
    root.parts += [
        _recomputed(view, own, method, rule, role, figure, row[figure]),
        _items(view, wanted, method, limit),
        _checkers(wanted),
    ]
    rules = list(dict.fromkeys(v["rule"] for v in wanted))
    root.parts += [_facets(view, r) for r in rules]
    stage = view.stage_of(method)
    if stage is not None:
        root.parts.append(_model(view, stage, rules, limit))
    return root


def _recomputed(view: RunView, own: Sequence[Mapping[str, Any]], method: str, rule: str, role: str, figure: str, value: Any) -> Trace:
    """The number again, from the verdict rows: the report is a replay or it is wrong."""
    table = compliance.Judgements(own).table(method, role)
    confidence = view.report["settings"]["confidence"]
    rules = list(dict.fromkeys(v["rule"] for v in own))
    again: Any = compliance.overall_rate(table, rules, confidence) if rule == "overall" else compliance.rule_rate(table, rule, confidence)
    same = again[figure] == value or (isinstance(value, float) and abs(again[figure] - value) < 1e-12)
    said = "the same" if same else f"DIFFERS: {_shown(again[figure])}"
    return Trace(f"computed again from {view.name(view.evaluation / 'verdicts.jsonl')}: {said}")


def _items(view: RunView, verdicts: Sequence[Mapping[str, Any]], method: str, limit: int) -> Trace:
    counted = Counter(v["status"] for v in verdicts)
    node = Trace(f"{len(verdicts)} verdicts on {len({v['item'] for v in verdicts})} items: " + _counts(counted))
    answers = {r["item"]: r["response"] for r in view.responses if r["method"] == method}
    order = sorted(verdicts, key=lambda v: ("violation", "error", "unsure", "compliant", "not_applicable").index(v["status"]))
    for v in order[:limit]:
        note = f" ({v['note']})" if v.get("note") else ""
        node.add(f"{v['status']}: {v['item']} [{v['rule']}]{note}: {_cut(answers.get(v['item']) or '')}")
    if len(order) > limit:
        node.add(f"... and {len(order) - limit} more (--all)")
    return node


def _checkers(verdicts: Sequence[Mapping[str, Any]]) -> Trace:
    used = Counter((v["rule"], v["checker"], v["checker_digest"]) for v in verdicts)
    node = Trace("checkers")
    for (rule, checker, sha), count in sorted(used.items()):
        node.add(f"{rule}/{checker} {sha[:16]}: {count} verdicts")
    return node


def _facets(view: RunView, rule: str) -> Trace:
    card = next((c for c in view.report["spec"]["rules"] if c["rule"] == rule), None)
    spec = view.report["spec"]
    node = Trace(f"rule {rule} of {spec['id']} {spec['version']} ({spec['digest'][:16]})")
    for tag, text in (card or {}).get("statement", {}).items():
        node.add(f"{tag}: {_cut(text, 160)}")
    facets = view.lineages.get(view.evaluation.name, {}).get("identity", {}).get("spec", {}).get("rules", {}).get(rule, {})
    if facets:
        node.add("facets: " + ", ".join(f"{name} {sha[:12]}" for name, sha in facets.items()))
    elif card:
        node.add(f"meaning {card['hash'][:12]}")
    return node


def _model(view: RunView, stage: str, rules: Sequence[str], limit: int) -> Trace:
    node = Trace(f"model: stage {stage}")
    for name in view.before(stage):
        row = view.lineages.get(name, {})
        made = node.add(f"{name} ({row.get('identity', {}).get('kind', '?')}) {str(row.get('content', ''))[:16]}")
        for path in view.files(name):
            _labels_or_rows(view, path, set(rules), made, limit)
    return node


def _labels_or_rows(view: RunView, path: Path, rules: set[str], node: Trace, limit: int) -> None:
    """What a row file holds of some rules: labels by verdict; of training rows their number."""
    rows = _rows(path)
    if path.name == "labels.jsonl":
        own = [row for _, row in rows if row.get("rule") in rules]
        under = "this rule" if len(rules) == 1 else "these rules"
        part = node.add(f"{view.name(path)}: {len(own)} labels under {under}: " + _counts(Counter(row["verdict"] for row in own)))
        for row in [r for r in own if r.get("corrected")][: min(limit, 2)]:
            part.add(f"{row['key'][:12]} {row['item']}: {_cut(row['response'])} → {_cut(row['corrected'])}")
    elif path.suffix == ".jsonl":
        node.add(f"{view.name(path)}: {sum(1 for _ in rows):,} rows")


# ---- rows ----


def _trace_row(view: RunView, reference: str, limit: int) -> Trace | None:
    name, _, line = reference.rpartition(":")
    if line.isdigit() and name and (view.folder / name).is_file():
        found = next((row for number, row in _rows(view.folder / name) if number == int(line)), None)
        if found is None:
            raise NormaError(f"{name} has no line {line}", where=view.folder)
        item = found.get("item") or found.get("id")
        if item is None:
            root = Trace(reference)
            root.add(_cut(json.dumps(found, ensure_ascii=False), 300))
            _readers(view, view.folder / name, root)
            return root
        return _trace_item(view, str(item), limit, reference)
    if len(reference) >= 8 and all(c in "0123456789abcdef" for c in reference):
        for path in view.files():
            if path.name == "labels.jsonl":
                for number, row in _rows(path):
                    if str(row.get("key", "")).startswith(reference):
                        root = Trace(f"label {row['key'][:16]} ({view.name(path)}:{number})")
                        root.add(f"{row['annotator']}: {row['verdict']} under {row['rule']} (meaning {row['rule_hash'][:12]})")
                        corrected = f" → {_cut(row['corrected'], 200)}" if row.get("corrected") else ""
                        root.add(f"answer: {_cut(row['response'], 200)}{corrected}")
                        root.parts.append(_trace_item(view, row["item"], limit) or Trace(f"item {row['item']}"))
                        return root
    return _trace_item(view, reference, limit)


def _trace_item(view: RunView, item: str, limit: int, title: str | None = None) -> Trace | None:
    """Everything that the run holds of one item: rows, verdicts, numbers, and the models that were trained on it."""
    root = Trace(f"{title}: item {item}" if title else f"item {item}")
    bases = {item}
    for path in view.files():
        hits = [(number, row) for number, row in _rows(path) if row.get("id", row.get("item")) in bases]
        if not hits:
            continue
        node = root.add(f"{view.name(path)}: {len(hits)} rows")
        for number, row in hits[:limit]:
            node.add(f"line {number}: {_row_line(row)}")
        if len(hits) > limit:
            node.add(f"... and {len(hits) - limit} more (--all)")
        if path.parent != view.evaluation:
            _readers(view, path, node)
    if not root.parts:
        return None
    numbers = [
        f"{v['method']}/{v['rule']}{'' if v['role'] == 'report' else '@heldout'}/rate ({v['status']})"
        for v in (view.verdicts if (view.evaluation / "verdicts.jsonl").is_file() else [])
        if v["item"] == item and is_main(v) and v["role"] in ("report", "heldout")
    ]
    if numbers:
        node = root.add(f"counts in {len(numbers)} numbers of the report")
        for text in numbers[: 2 * limit]:
            node.add(text)
        if len(numbers) > 2 * limit:
            node.add(f"... and {len(numbers) - 2 * limit} more (--all)")
    return root


def _readers(view: RunView, path: Path, node: Trace) -> None:
    """Stages that read a file, the models made from them, and the methods of the report that they are."""
    stage = path.relative_to(view.folder).parts[0]
    if stage not in view.lineages:
        return
    name = view.name(path)
    readers = [
        n
        for n, row in view.lineages.items()
        if stage in row["identity"].get("inputs", {})
        and any(text == name or name.startswith(f"{text}/") for text in _texts(row["identity"]["options"]))
    ]
    own = [stage] if view.lineages[stage].get("summary", {}).get("model") else []
    for reader in dict.fromkeys([*own, *readers]):
        later = [reader, *view.after(reader)]
        known = view.report["methods"] if (view.evaluation / "report.json").is_file() else []
        methods = [m["method"] for m in known if view.stage_of(m["method"]) in later]
        node.add(f"read by {reader}" + (f" → methods {', '.join(methods)}" if methods else ""))


_MODELS = ("from", "model", "leash")  # options that name a stage for its model, not for its rows


def _texts(value: Any) -> Iterator[str]:
    """Every text of a stage's options that may name rows of another stage."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            if key not in _MODELS:
                yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _row_line(row: Mapping[str, Any]) -> str:
    if "status" in row:
        return f"{row['method']} {row['role']} {row['rule']}: {row['status']} by {row['checker']} {row['checker_digest'][:12]}"
    if "response" in row and "method" in row:
        return f"{row['method']} answered: {_cut(row['response'])}"
    if "verdict" in row and "annotator" in row:
        return f"{row['annotator']} on {row['rule']}: {row['verdict']} ({row['key'][:12]})"
    if "chosen" in row:
        return f"{_cut(row['rejected'])} → {_cut(row['chosen'])}"
    return _cut(str((row.get("messages") or [{}])[-1].get("content", row.get("text", ""))))


# ---- rules and stages ----


def _trace_rule(view: RunView, rule: str) -> Trace:
    root = _facets(view, rule)
    numbers = root.add("numbers")
    for entry in view.report["methods"]:
        for row in entry["rules"]:
            if row["rule"] == rule:
                numbers.add(f"{entry['method']}/{rule}/rate = {_shown(row['rate'])}")
    for path in view.files():
        if path.name == "labels.jsonl":
            own = [row for _, row in _rows(path) if row.get("rule") == rule]
            hashes = Counter(row["rule_hash"][:12] for row in own)
            root.add(f"{view.name(path)}: {len(own)} labels, by meaning {_counts(hashes)}")
    return root


def _trace_stage(view: RunView, stage: str) -> Trace:
    row = view.lineages[stage]
    root = Trace(f"stage {stage} ({row['identity']['kind']}) {row['content'][:16]}, made {row['finished']}")
    made = root.add("made from")
    for name in view.before(stage)[1:]:
        made.add(f"{name} {str(view.lineages.get(name, {}).get('content', 'not here'))[:16]}")
    used = root.add("read by")
    for name in view.after(stage):
        used.add(name)
    files = root.add(f"{len(row['files'])} files")
    for name, entry in row["files"].items():
        files.add(f"{name} {entry[0][:16]} {entry[1]:,} bytes")
    return root


# ---- small things ----


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as handle:
        for number, line in enumerate(handle, 1):
            try:
                row = json.loads(line)
            except ValueError:
                raise NormaError("not JSON", where=f"{path}:{number}", mend="norma trace RUN --rehash says what was hurt") from None
            if isinstance(row, dict):
                yield number, row


def _counts(counted: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counted.most_common()) or "none"


def _shown(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _cut(text: str, limit: int = 80) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
