"""What a studio is opened on: a run folder, or a spec file alone. Everything is read when it is asked for, and again when it changed.

RUN   spec.yaml, recipe of the run, report and answers of its last evaluate stage, models of its stages, RUN/studio/labels.sqlite
SPEC  the file, SPEC.studio/labels.sqlite beside it; models only where --model names some
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from norma.base.errors import NormaError, nearest
from norma.base.files import read_json
from norma.base.hashing import digest
from norma.evaluate.prompts import wording_for
from norma.pipeline.view import RunView
from norma.spec import Item, Message, Spec
from norma.spec.rule import Rule
from norma.studio.accounts import Accounts
from norma.studio.database import Database
from norma.studio.work import Work, candidates

if TYPE_CHECKING:
    from norma.lm import LanguageModel

OPEN_MODELS = 4  # kept in memory at one time


class Place:
    """One studio's data. ``secret`` signs cookies and CSRF tokens; ``local``: the only user, where there are no accounts."""

    def __init__(
        self, target: Path, *, secret: bytes, labels: str | Path | None = None, models: Sequence[Path] = (), local: str | None = None
    ) -> None:
        target = target.expanduser().absolute()
        self.run = target if target.is_dir() else None
        if not target.exists():
            raise NormaError("file or folder not found", where=target, mend="Give a run folder (such as runs/NAME) or a spec file")
        if self.run is not None and not (self.run / "lineage.json").is_file() and not (self.run / "report.json").is_file():
            raise NormaError("no Norma run in this folder", where=target, mend="Give the folder that 'norma run' names, or a spec file")
        self.spec_path = self._find_spec(target)
        self.folder = target / "studio" if self.run else target.with_suffix(".studio")
        self.database = Database(labels or self.folder / "labels.sqlite")
        self.work = Work(self.database)
        self.accounts = Accounts(self.database, secret)
        self.local = local
        self.models: dict[str, Path] = {}
        if self.run is not None:
            for config in sorted(self.run.glob("[!.]*/config.json"), key=lambda p: p.stat().st_mtime):
                self.models[config.parent.name] = config.parent
        for path in models:
            self.models[path.resolve().name] = path
        self._opened: dict[str, LanguageModel] = {}
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}
        self._cache: dict[str, tuple[Any, Any]] = {}
        self._cards: tuple[Spec | None, dict[str, dict[str, Any]]] = (None, {})  # of the spec as it was last read

    def _find_spec(self, target: Path) -> Path | None:
        if self.run is None:
            return target
        record = read_json(target / "lineage.json") if (target / "lineage.json").is_file() else {}
        recipe = Path(str(record.get("recipe", "")))
        if recipe.is_file():
            from norma.base.strict_yaml import load_yaml

            named = load_yaml(recipe).data.get("spec")
            if named and (recipe.parent / str(named)).is_file():
                return recipe.parent / str(named)
        return target / "spec.yaml" if (target / "spec.yaml").is_file() else None

    @property
    def name(self) -> str:
        return self.run.name if self.run else (self.spec_path.stem if self.spec_path else "norma")

    def fresh(self, key: str, path: Path, make: Any) -> Any:
        """``make()``, again when the file at ``path`` is another."""
        stamp = path.stat() if path.is_file() else None
        mark = stamp and (stamp.st_mtime_ns, stamp.st_size, stamp.st_ino)
        with self._lock:
            if key in self._cache and self._cache[key][0] == mark:
                return self._cache[key][1]
        value = make()
        with self._lock:
            self._cache[key] = (mark, value)
        return value

    # ── the spec ──
    @property
    def spec(self) -> Spec | None:
        """The spec as it is now; None where a run has none."""
        path = self.spec_path
        found: Spec | None = None if path is None else self.fresh("spec", path, lambda: Spec.load(path))
        return found

    @property
    def run_spec(self) -> Spec | None:
        """The spec that the run was made with: the report's rules are its rules."""
        if self.run is None or not (self.run / "spec.yaml").is_file():
            return self.spec
        path = self.run / "spec.yaml"
        found: Spec = self.fresh("run spec", path, lambda: Spec.load(path))
        return found

    def guideline(self, rule: str) -> dict[str, Any] | None:
        """What an annotator reads beside an item: statement, examples, and the digest that the label keeps."""
        spec = self.run_spec
        if spec is None:
            return None
        with self._lock:
            if self._cards[0] is not spec:
                self._cards = (spec, {r.id: _card(r) for r in spec.rules})
            cards = self._cards[1]
        with contextlib.suppress(NormaError):
            return cards[spec.rule(rule).id]
        return None

    # ── the run ──
    @property
    def view(self) -> RunView | None:
        """The run's answers and report; None before there is a report."""
        if self.run is None:
            return None
        run = self.run
        with contextlib.suppress(NormaError):
            path = next((p for p in (run / "report.json", *run.glob("[!.]*/report.json")) if p.is_file()), run / "report.json")
            found: RunView = self.fresh("view", path, lambda: RunView(run))
            return found if (found.evaluation / "report.json").is_file() else None
        return None

    def item(self, row: Mapping[str, Any]) -> Item:
        messages = tuple(Message(role=m["role"], content=m["content"]) for m in row["messages"])
        return Item(str(row["item"]), messages, row.get("language", "en"), cluster=row.get("cluster") or "")

    def draw(self, count: int, seed: int = 0) -> int:
        """Draw answers of the run's evaluation into the queue, as ``norma label queue`` does; returns how many are new."""
        from norma.labels.queues import draw

        view = self.view
        if view is None or not (view.evaluation / "verdicts.jsonl").is_file():
            raise NormaError("this run has no answers to annotate yet", mend="Let its evaluate stage end, or import items")
        found, machine = candidates(view.responses, view.verdicts)
        known = {d.answer for d in self.database.labels.draws()}
        drawn = draw([c for c in found if c.key not in known], count, seed=seed, audited=())
        wanted = {d.item for d in drawn}
        rows = {r["item"]: r for r in view.responses if r["item"] in wanted and r.get("arm") is None}
        self.database.labels.add_items(self.item(row) for row in rows.values())
        self.database.labels.add_draws(drawn)
        return self.work.fill(drawn, machine)

    # ── models ──
    @contextlib.contextmanager
    def model(self, name: str) -> Iterator[LanguageModel]:
        """The model of that name, for one user at a time. Names come from this studio's own list: no path of a client's is opened."""
        if name not in self.models:
            raise NormaError(f"there is no model '{name[:80]}' here", mend=nearest(name[:80], self.models))
        with self._lock:
            busy = self._busy.setdefault(name, threading.Lock())
        with busy:
            if name not in self._opened:
                import norma

                self._opened[name] = norma.load(self.models[name])
                with self._lock:
                    for old in [n for n in self._opened if n != name and not self._busy[n].locked()][
                        : max(0, len(self._opened) - OPEN_MODELS)
                    ]:
                        del self._opened[old]
            yield self._opened[name]

    def wording(self, language: str) -> str:
        """The spec's wording for a language of the page or of an item."""
        spec = self.run_spec
        return language if spec is None else wording_for(spec.languages, language)

    def close(self) -> None:
        self.database.close()


def _card(rule: Rule) -> dict[str, Any]:
    examples = [{"lang": e.lang, "question": e.messages[-1].content, "good": list(e.good), "bad": list(e.bad)} for e in rule.examples[:4]]
    card = {"rule": rule.id, "level": str(rule.level), "must": rule.must, "statement": dict(rule.statement), "examples": examples}
    return {**card, "digest": digest(card), "hash": rule.hash}
