"""``norma spec fit``: weights of a spec's rules from preference pairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from norma.base.errors import NormaError

if TYPE_CHECKING:
    from norma.spec import Spec
    from norma.text.shapes import Preference


def fit(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A spec file, or the name of a shipped one (norma spec list).")],
    pairs: Annotated[Path, typer.Argument(metavar="FILE", help="Preference rows: prompt, chosen, rejected (also .gz).")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the spec with the fitted weights.")] = None,
    language: Annotated[str | None, typer.Option("--language", "--lang", metavar="TAG", help="Of the prompts [default: a guess].")] = None,
    margin: Annotated[float, typer.Option(min=0.01, help="How much more the better answer should get.")] = 0.5,
    ridge: Annotated[float, typer.Option(min=0.0001, help="Pull towards the weights that the spec has now.")] = 0.1,
    held_out: Annotated[float, typer.Option(min=0.05, max=0.9, help="Share of the prompts that are not learnt from.")] = 0.3,
    seed: Annotated[int, typer.Option(help="Which prompts these are.")] = 0,
) -> None:
    """Fit the weights of rules to answers that people put in order, and say how often each order is right."""
    from norma.evaluate.orderings import score_differences
    from norma.evaluate.statistics import clustered_rate, paired_difference
    from norma.spec import Spec
    from norma.spec.fitting import fit as fitted
    from norma.spec.schema import Mode

    loaded = Spec.load(spec)
    rules = [rule for rule, term in loaded.plan.terms.items() if term.mode is Mode.WEIGHTED and rule in loaded.checkers("train")]
    if not rules:
        raise NormaError("no rule of this spec has a weight and a train checker", where=spec, mend="Weights are of mode: weighted")
    differences, prompts, masked = score_differences(loaded, _read(pairs), rules, language)
    if len(set(prompts)) < 4:
        mend = "Bring more pairs" + (f"; {masked} have a verdict that is no score" if masked else "")
        raise NormaError(f"{len(set(prompts))} different prompts are too few to learn from and to look at", where=pairs, mend=mend)
    declared = [loaded.plan.terms[rule].weight for rule in rules]
    found = fitted(differences, prompts, declared, margin=margin, ridge=ridge, share=held_out, seed=seed)
    width = max(map(len, rules))
    for rule, before, after in zip(rules, declared, found.weights, strict=True):
        print(f"{rule:{width}}  weight {before:.2f} → {after:.2f}")
    clusters = [prompts[i] for i in found.held]
    rates = [clustered_rate(list(right), clusters) for right in (found.right_before, found.right)]
    change = paired_difference(list(found.right_before), list(found.right), clusters, seed=seed)
    print(f"\n{found.learnt} pairs learnt from, {len(found.held)} held out ({len(set(clusters))} prompts)" + _left_out(masked))
    for name, rate in zip(("the spec's weights", "fitted weights"), rates, strict=True):
        print(f"{name:18}  held-out pairs in order: {_interval(rate.rate, rate.low, rate.high, '.1%')}")
    print(
        f"difference {_interval(change.delta, change.low, change.high, '+.1%')}" + (f", p {change.p:.2g}" if change.p is not None else "")
    )
    if out is not None:
        _write(loaded, dict(zip(rules, found.weights, strict=True)), out)
        print(f"{out}: the spec with the fitted weights")


def _read(path: Path) -> Iterator[Preference]:
    from norma.text.quarantine import Quarantine
    from norma.text.readers import read
    from norma.text.shapes import Preference, shaped

    quarantine = Quarantine()
    for _, row in shaped(read(path, quarantine), quarantine):
        if not isinstance(row, Preference):
            raise NormaError("these are no preference pairs", where=path, mend="Rows need prompt, chosen and rejected")
        yield row


def _interval(value: float | None, low: float | None, high: float | None, form: str) -> str:
    return "none" if value is None or low is None or high is None else f"{value:{form}} ({low:{form}} to {high:{form}})"


def _left_out(masked: int) -> str:
    return f"; {masked} left out, where no rule applies or a checker gave no score" if masked else ""


def _write(loaded: Spec, weights: dict[str, float], out: Path) -> None:
    from norma.base.files import write_text
    from norma.base.strict_yaml import parse_yaml
    from norma.spec.writing import yaml_text

    data = parse_yaml(loaded.one_file(), str(out)).data
    for rule in data["rules"]:
        if rule["id"] in weights:
            rule["reward"] = {**(rule.get("reward") or {}), "weight": f"{weights[rule['id']]:.4f}"}
    write_text(out, yaml_text(data))
