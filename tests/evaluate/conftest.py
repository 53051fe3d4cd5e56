"""A seeded, made-up evaluation: five methods, seven rules, two languages, 120 entries; one rule has a hackable training checker."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

RULES = {
    "form.one_sentence": ("Answer in one sentence.", "用一句话回答。", 0.9),
    "form.full_stop": ("End with a full stop.", "以句号结尾。", 0.95),
    "length.max_words": ("Use at most thirty words.", "最多三十个词。", 0.95),
    "style.polite_opening": ("Open politely, in the language of the question.", "用提问的语言礼貌开头。", 0.9),
    "content.names_module": ("Name the module that was asked about.", "说出所问的模块。", 0.8),
    "style.no_first_person": ("Do not speak in the first person.", "不使用第一人称。", None),
    "honesty.says_unknown": ("Say so when the entry is not about the name asked.", "若条目与所问名称无关，请说明。", 0.8),
}
BEFORE = dict(zip(RULES, (0.82, 0.88, 0.9, 0.12, 0.35, 0.97, 0.4), strict=True))
GAIN: dict[str, float] = {"base": -0.35, "instruct": 0.0, "prompt": 0.22, "correct": 0.6, "reward": 0.9, "task": 0.3, "task_replay": 0.75}


@dataclass(frozen=True)
class FakeRule:
    id: str
    statement: dict[str, str]
    target: Any
    hash: str = "a1b2c3d4e5f60718"
    level: str = "guideline"
    must: bool = False


@dataclass(frozen=True)
class FakeSpec:
    id: str = "courteous-docs"
    version: str = "1.0.0"
    digest: str = "5ca1ab1e" * 8
    languages: tuple[str, ...] = ("en", "zh-Hans")
    rules: tuple[FakeRule, ...] = field(
        default_factory=lambda: tuple(
            FakeRule(k, {"en": en, "zh-Hans": zh}, None if rate is None else SimpleNamespace(min_rate=rate), must=k.startswith("honesty"))
            for k, (en, zh, rate) in RULES.items()
        )
    )


def verdict(method: str, item: str, rule: str, role: str, status: str, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = {
        "rule": rule, "rule_hash": "h", "item": item, "checker": f"{role}-checker", "checker_digest": f"{role}0123456789abcdef",
        "role": role, "status": status, "score": None, "evidence": [], "note": "", "margin": None,
        "method": method, "cluster": item.split("#")[0], "language": "en",
    }  # fmt: skip
    return row | more


def make_study(entries: int = 120, seed: int = 7, hack: bool = True) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    draw = random.Random(seed)
    responses, verdicts = [], []
    for entry in range(entries):
        source, ease = f"pkg{entry % 9}.name_{entry}", draw.gauss(0, 0.12)
        for language in ("en", "zh") if entry % 2 else ("en",):
            item = f"{source}#{language}"
            asked = entry % 10 != 3
            short = source.split(".")[1]
            question = (f"What does `{source}` do?" if language == "en" else f"`{source}` 是做什么的？") + (
                f"\nEntry: `{source}(obj, *, skipkeys=False)`\nWalks the object and writes every part of it to the given stream."
            )
            reference = f"Return the {short} of the given object as text."
            for method, gain in GAIN.items():
                kept = {r: draw.random() < (p + gain * (1 - p) if gain > 0 else p * (1 + gain)) + ease for r, p in BEFORE.items()}
                opening = ("Certainly: " if language == "en" else "您好：") if kept["style.polite_opening"] else ""
                body = reference if draw.random() < 0.3 + 0.1 * (method != "base") else f"Returns {short} from the stream and the part"
                text = opening + body.rstrip(".") + ("." if kept["form.full_stop"] else "")
                responses.append({
                    "method": method, "item": item, "cluster": source, "language": language, "response": text, "reference": reference,
                    "tokens": len(text) // 4, "messages": [{"role": "user", "content": question}],
                })  # fmt: skip
                for rule, ok in kept.items():
                    if rule == "honesty.says_unknown" and asked:
                        status, held = "not_applicable", "not_applicable"
                    else:
                        status = "compliant" if ok else "violation"
                        held = status if draw.random() < 0.97 else "unsure"
                        if rule == "content.names_module" and draw.random() < 0.02:
                            status = "error"
                        if hack and rule == "style.polite_opening" and method == "reward" and ok and draw.random() < 0.25:
                            held = "violation"
                    span = [[0, len(opening.strip())]] if rule == "style.polite_opening" and opening else []
                    note = "" if ok else "no courteous opening" if "polite" in rule else "found none"
                    for role in ("train", "report"):
                        verdicts.append(verdict(method, item, rule, role, status, language=language, evidence=span, note=note))
                    if rule in ("style.polite_opening", "form.one_sentence"):
                        verdicts.append(verdict(method, item, rule, "heldout", held, language=language, evidence=span))
    return responses, verdicts


def make_extras() -> dict[str, Any]:
    from norma.pipeline.training import describe

    def records() -> list[dict[str, Any]]:
        draw, rows = random.Random(1), []
        for step in range(60):
            share = 1 - 2.718 ** (-step / 20)
            rules = {f"rule/{r}": min(1.0, p + (0.97 - p) * share + draw.gauss(0, 0.02)) for r, p in BEFORE.items()}
            held = {f"held_out/{r}": max(0.0, value - 0.1 + draw.gauss(0, 0.02)) for r in list(BEFORE)[:3] if (value := rules[f"rule/{r}"])}
            reward = sum(rules.values()) / len(rules)
            rows.append({
                "step": step, "reward": reward, "reward_held_out": 0.56 + draw.gauss(0, 0.01), **rules, **held, "loss": draw.gauss(0, 0.1),
                "kl": max(0.0, 0.11 * share**2 + draw.gauss(0, 0.002)), "entropy": 1.8 - 0.9 * share, "flat_groups": 0.3 + 0.3 * share,
                "answer_tokens": 22.5 + 5 * share, "unfinished": 0.1, "gradient_norm": 1.5, "seconds": draw.random(), "tokens_per_s": 9.0,
            })  # fmt: skip
        options = {"policy": {"questions": 8, "group": 8, "micro_tokens": 4096}}
        plan = {"row": [["<user>What does it do?", "read"], ["Certainly: it counts.", "learnt"]]}
        policy = describe("reward", "reward", options, plan, rows) | {
            "method": "reward",
            "label": {"en": "Reward modelling", "zh": "奖励建模"},
        }
        few = [{"step": s, "loss": 4.0 - s, "bits_per_byte": 2.5 - s / 2, "tokens": 4096} for s in range(3)]
        plain = describe("pretrain", "pretrain", {"batch": 16}, {"micro_batch": 4, "batch": {"sequences": 16, "length": 256}}, few)
        return [plain | {"label": {"en": "pretrain", "zh": "pretrain"}}, policy]

    return {
        "baseline": "instruct",
        "order": list(GAIN),
        "pairs": [("instruct", "prompt"), ("instruct", "correct"), ("instruct", "reward")],
        "retention": [{"before": "reward", "after": "task", "replay": 0.0}, {"before": "reward", "after": "task_replay", "replay": 0.2}],
        "bits_per_byte": {
            "base": 1.412,
            "instruct": 1.436,
            "prompt": 1.436,
            "correct": 1.449,
            "reward": 1.461,
            "task": 1.502,
            "task_replay": 1.498,
        },
        "bits_per_byte_before": 3.31,
        "kl": {"correct": 0.042, "reward": 0.108},
        "training": records(),
        "run": {"name": "runs/courteous", "recipe": "0f1e2d3c4b5a6978", "norma": "0.1.0", "torch": "2.13.0", "machine": "2 CPU cores"},
        "lineage": [{"stage": "corpus", "digest": "c0" * 32, "inputs": []}, {"stage": "align", "digest": "a1" * 32, "inputs": ["corpus"]}],
        "seeds": 1,
    }


@pytest.fixture(scope="session")
def study() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return make_study()


@pytest.fixture(scope="session")
def report(study: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> dict[str, Any]:
    from norma.evaluate.report import build_report

    built: dict[str, Any] = build_report(*study, make_extras(), FakeSpec())  # type: ignore[arg-type]
    return built


@pytest.fixture
def make() -> SimpleNamespace:
    """Builders for tests that need a study of their own."""
    return SimpleNamespace(study=make_study, extras=make_extras, spec=FakeSpec, rule=FakeRule, verdict=verdict)


@pytest.fixture(scope="session")
def schema() -> Any:
    found = json.loads(files("norma.evaluate").joinpath("report.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(found)
    return found
