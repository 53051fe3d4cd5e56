"""Rate stage: token shards, graded by the spec. What breaks a norm is marked, left out, or told by a control token.

shards ─→ documents ─→ sentences (or whole documents) ─→ text ─→ the spec's checkers ─→ R in [0, 1] ─→ grades in the flags
                                                                                             ├→ filter: bad ones are left out
                                                                                             └→ control: <|good|>, <|bad|> in front
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from norma.base.files import read_json, write_json
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from norma.spec import Spec
    from norma.text.shards import Shards, ShardWriter
    from norma.text.tokenizer import Tokenizer


class RateOptions(StageOptions):
    """Options of a ``rate`` stage."""

    tokens: InputRef = Field("tokens", description="The tokens stage; its shards are graded (marks: true, to know sentences).")
    tokenizer: InputRef = Field("tokenizer", description="The tokenizer stage; control tokens need objectives: [norms].")
    unit: Literal["sentence", "document"] = Field("sentence", description="What is graded.")
    threshold: float = Field(0.5, ge=0, le=1, description="A reward below it is bad.")
    filter: bool = Field(False, description="Leave out what is bad, and what could not be graded.")
    control: bool = Field(False, description="Put <|good|> or <|bad|> in front of each unit.")
    dropped: float = Field(0.01, ge=0, le=1, description="Share of the control tokens that are left out, so that text without is known.")


class Rate(Stage[RateOptions]):
    """Judges text as if it were an answer, by the checkers with the role train. Counts per rule are in train.json."""

    kind, version, Options = "rate", 1, RateOptions
    uses_spec = True

    def run(self, ctx: Context[RateOptions]) -> dict[str, Any]:
        from norma.text.shards import MANIFEST, Shards, ShardWriter
        from norma.text.tokenizer import Tokenizer

        options, spec = ctx.options, ctx.need_spec()
        tokenizer = Tokenizer.load(ctx.path(options.tokenizer))
        # What held-out text is left out would flatter whoever is measured on the rest.
        for side in ("train",) if options.filter else ("validation", "train"):
            shards, folder = Shards(ctx.path(options.tokens) / side), ctx.folder / side
            if not (folder / MANIFEST).exists():
                with ShardWriter(folder, shards.made) as writer:
                    write_json(ctx.folder / f"{side}.json", _grade(ctx, spec, tokenizer, shards, writer))
        report = read_json(ctx.folder / "train.json")
        units, bad = max(1, report["units"]), report["bad"]
        ctx.progress.say(f"{units:,} {options.unit}s, {100 * bad / units:.1f}% bad, {report['ungraded']:,} not graded")
        return {key: report[key] for key in ("units", "bad", "ungraded", "tokens")}


def _grade(ctx: Context[RateOptions], spec: Spec, tokenizer: Tokenizer, shards: Shards, writer: ShardWriter) -> dict[str, Any]:
    import numpy as np

    from norma.base.random import keyed
    from norma.objectives.conditional import controlled
    from norma.text.grades import with_grade
    from norma.text.words import SPECIAL, WORD

    options = ctx.options
    good, bad = tokenizer.objective_tokens("norms") if options.control else (-1, -1)
    counts: dict[str, Any] = {"units": 0, "bad": 0, "ungraded": 0, "left_out": 0, "rules": {}}
    for number in range(len(shards)):
        tokens, flags = shards.document(number)
        ids: list[npt.NDArray[np.int64]] = []
        marks: list[npt.NDArray[np.uint8]] = []
        size = 0
        for start, end in _units(flags, options.unit):
            own, own_flags = tokens[start:end].astype(np.int64), flags[start:end]
            if (own_flags & SPECIAL).all():  # BOS, the end token
                ids.append(own)
                marks.append(own_flags)
                continue
            text = tokenizer.decode(own[(own_flags & SPECIAL) == 0].tolist())
            reward = _reward(spec, f"{number}:{start}", text, counts)
            counts["units"] += 1
            counts["ungraded"] += reward is None
            counts["bad"] += reward is not None and reward < options.threshold
            if options.filter and (reward is None or reward < options.threshold):
                counts["left_out"] += 1
                continue
            size += len(text.encode())
            if options.control:
                random = keyed(ctx.seed, number, start, use="control")
                (led,) = controlled([(own, reward)], random, good=good, bad=bad, threshold=options.threshold, dropped=options.dropped)
                own_flags = np.concatenate([np.full(len(led) - len(own), SPECIAL | WORD, dtype=np.uint8), own_flags])
                own = led
            ids.append(own)
            marks.append(with_grade(own_flags, reward))
        if any((m & SPECIAL == 0).any() for m in marks):  # something is left of it
            joined = np.concatenate(ids)
            writer.add(joined, np.concatenate(marks), np.array([len(joined)]), size)
        ctx.progress.update(number + 1, len(shards))
    return {**counts, "documents": writer.documents, "tokens": writer.tokens, "bytes": writer.bytes}


def _units(flags: npt.NDArray[np.uint8], unit: str) -> list[tuple[int, int]]:
    """(start, end) of the units of a document; special tokens at its ends stand by themselves."""
    import numpy as np

    from norma.text.words import SENTENCE, SPECIAL

    special = (flags & SPECIAL) > 0
    begins = special.copy()
    begins[1:] |= special[:-1]
    if unit == "sentence":
        begins |= (flags & SENTENCE) > 0
    begins[:1] = True
    starts = np.flatnonzero(begins)
    return list(zip(starts.tolist(), [*starts[1:].tolist(), len(flags)], strict=True))


def _reward(spec: Spec, name: str, text: str, counts: dict[str, Any]) -> float | None:
    """R of a text, None where a checker could not say."""
    from norma.spec import Item
    from norma.spec.languages import guess

    item = Item(name, (), guess(text, spec.languages, spec.source_language))
    verdicts = spec.verdicts(item, text, "train")
    for verdict in verdicts:
        rule = counts["rules"].setdefault(verdict.rule, {})
        rule[verdict.status.value] = rule.get(verdict.status.value, 0) + 1
    found = spec.rewards(item, [verdicts])
    value = found[0].value if found else None
    return None if value is None else min(1.0, max(0.0, value))
