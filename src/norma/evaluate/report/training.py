"""How each stage was trained: records (``norma.pipeline.training``) ─→ panels with their charts, for the report and for a page of its own.

record.curves ─→ charts (lines that belong together share an axis) ─→ paths
              └→ sparks, one a rule: the training checker's curve, and the held-out one's dashed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from norma.evaluate.report import figures

Text = tuple[str, str]  # English, Chinese

LOSS: Text = ("Loss", "损失")
# title, [(number, what its line is)], share: an axis from 0 to 100%. The first line is drawn in the stage's colour, the second dashed.
CHARTS: tuple[tuple[Text, tuple[tuple[str, Text], ...], bool], ...] = (
    (("Reward", "奖励"), (("reward", ("what is trained", "训练所用")), ("reward_held_out", ("held-out checkers", "留出检查器"))), False),
    (("KL to the model before, nats a token", "与之前模型的 KL（奈特/词元）"), (("kl", ("KL", "KL")),), False),
    (("Entropy, nats a token", "熵（奈特/词元）"), (("entropy", ("entropy", "熵")),), False),
    (("Length of answers, tokens", "回答长度（词元）"), (("answer_tokens", ("tokens", "词元")),), False),
    (
        ("Groups without a signal, answers cut off", "无信号的组与被截断的回答"),
        (("flat_groups", ("groups without a signal", "无信号的组")), ("unfinished", ("answers cut off", "被截断的回答"))),
        True,
    ),
    (
        ("Implicit reward", "隐式奖励"),
        (("chosen_reward", ("chosen", "被选")), ("rejected_reward", ("rejected", "被拒"))),
        False,
    ),
    (
        ("Nats a token", "每词元奈特数"),
        (("chosen_nats_per_token", ("chosen", "被选")), ("rejected_nats_per_token", ("rejected", "被拒"))),
        False,
    ),
    (("Pairs in the right order", "排序正确的比例"), (("pairs_correct", ("pairs", "成对")), ("accuracy", ("pairs", "成对"))), True),
    (("Margin", "间隔"), (("margin", ("margin", "间隔")),), False),
    (LOSS, (("loss", LOSS),), False),
    (("Bits per byte", "每字节比特数"), (("bits_per_byte", ("bits", "比特")),), False),
)
# Shown on demand: what one looks at when something is wrong.
MORE: tuple[tuple[str, Text, bool], ...] = (
    ("gradient_norm", ("Gradient norm", "梯度范数"), False),
    ("kl_coefficient", ("KL coefficient", "KL 系数"), False),
    ("clip_share", ("Clipped tokens", "被截断的词元比例"), True),
    ("mismatch", ("Rollout and trainer, nats a token", "采样与训练之差（奈特/词元）"), False),
    ("masked", ("Answers without a reward", "没有奖励的回答"), True),
    ("value_loss", ("Value loss", "价值损失"), False),
    ("explained_variance", ("Explained variance of the values", "价值的解释方差"), False),
)
BATCH: tuple[tuple[str, Text], ...] = (
    ("sequences", ("sequences a step", "每步序列数")),
    ("tokens", ("tokens a step", "每步词元数")),
    ("micro_batch", ("in memory at one time", "同时在内存中的序列")),
    ("micro_tokens", ("tokens in memory at one time", "同时在内存中的词元")),
    ("processes", ("processes", "进程数")),
    ("steps", ("steps", "步数")),
    ("epochs", ("epochs", "轮数")),
)
KINDS: Mapping[str, Text] = {
    "pretrain": ("pretraining", "预训练"),
    "sft": ("supervised fine-tuning", "监督微调"),
    "prompting": ("instructive prompting", "规范性提示"),
    "correction": ("supervised correction", "有监督纠正"),
    "preference": ("preference training", "偏好训练"),
    "reward-model": ("reward model", "奖励模型"),
    "reward": ("reward training", "奖励训练"),
    "distil": ("distillation", "蒸馏"),
    "best-of": ("best of n", "n 选一"),
    "task": ("task learning", "任务学习"),
    "contrastive": ("contrastive learning", "对比学习"),
    "constitution": ("constitution", "宪章"),
}
SMOOTH = 24  # points from which a calmer curve is drawn over the measured one


def panels(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the template draws, a panel a stage."""
    return [_panel(record) for record in records]


def _panel(record: Mapping[str, Any]) -> dict[str, Any]:
    curves = {curve["name"]: curve for curve in map(_finite, record["curves"]) if len(curve["values"]) > 1}
    steps = [step for curve in curves.values() for step in (curve["steps"][0], curve["steps"][-1])]
    x_axis = [min(steps), max(steps)] if steps else [0.0, 1.0]
    policy = "reward" in curves  # its loss is a device for the gradient: whether it falls says nothing
    shown = [line for line in CHARTS if not (policy and line[0] == LOSS)]
    charts = [chart for title, lines, share in shown if (chart := _chart(title, lines, share, curves, x_axis))]
    known = {name for _, lines, _ in CHARTS for name, _ in lines} | {name for name, _, _ in MORE}
    others = [(name, (name, name), False) for name in curves if name not in known and not name.startswith(("rule/", "held_out/"))]
    more = [
        chart
        for name, title, share in (*([("loss", LOSS, False)] if policy else []), *MORE, *others)
        if (chart := _chart(title, ((name, title),), share, curves, x_axis))
    ]
    rules = list(dict.fromkeys(name.partition("/")[2] for name in curves if name.startswith(("rule/", "held_out/"))))
    return {
        "stage": record["stage"],
        "label": record["label"],
        "kind": KINDS.get(record["kind"], (record["kind"], record["kind"])),
        "alarms": record["alarms"],
        "said": record["said"],
        "batch": [(title, record["batch"][key]) for key, title in BATCH if key in record["batch"]],
        "row": record["row"],
        "charts": charts,
        "only": [] if charts else [(c["name"].replace("_", " "), c["values"][0]) for c in map(_finite, record["curves"]) if c["values"]],
        "more": more,
        "sparks": [_spark(rule, curves, x_axis) for rule in rules],
        "x": x_axis,
        "wide": len(charts) > 2 or bool(rules),
    }


def _finite(curve: Mapping[str, Any]) -> dict[str, Any]:
    """Without the points that are no numbers."""
    known = [(s, v) for s, v in zip(curve["steps"], curve["values"], strict=True) if v is not None]
    return {"name": curve["name"], "steps": [s for s, _ in known], "values": [v for _, v in known]}


def _chart(
    title: Text, lines: Sequence[tuple[str, Text]], share: bool, curves: Mapping[str, Mapping[str, Any]], x_axis: Sequence[float]
) -> dict[str, Any] | None:
    present = [(name, what, curves[name]) for name, what in lines if name in curves]
    if not present:
        return None
    values = [v for _, _, curve in present for v in curve["values"]]
    y_axis = [0.0, 0.25, 0.5, 0.75, 1.0] if share else figures.axis(values, zero=_near_zero(values))
    return {
        "title": title,
        "share": share,
        "axis": y_axis,
        "lines": [{"what": what, "last": calm(curve["values"])[-1], **_paths(curve, x_axis, y_axis)} for _, what, curve in present],
    }


def _near_zero(values: Sequence[float]) -> bool:
    """Whether an axis from zero wastes less than half of its height."""
    return min(values) <= 0 <= max(values) or min(map(abs, values)) < 0.5 * max(map(abs, values))


def _paths(curve: Mapping[str, Any], x_axis: Sequence[float], y_axis: Sequence[float]) -> dict[str, str | None]:
    """The measured curve; with many points a calm one too, over which the eye can run."""
    steps, values = curve["steps"], curve["values"]
    raw = figures.polyline(steps, values, x_axis, y_axis)
    if len(values) < SMOOTH:
        return {"path": raw, "raw": None}
    return {"path": figures.polyline(steps, calm(values), x_axis, y_axis), "raw": raw}


def calm(values: Sequence[float]) -> list[float]:
    """Means over a twelfth of the curve, centred, shorter towards its ends; short curves as they are."""
    if len(values) < SMOOTH:
        return list(values)
    reach = max(1, len(values) // 24)
    around = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in around]


def _spark(rule: str, curves: Mapping[str, Mapping[str, Any]], x_axis: Sequence[float]) -> dict[str, Any]:
    found: dict[str, Any] = {"rule": rule}
    for key, name in (("trained", f"rule/{rule}"), ("held", f"held_out/{rule}")):
        curve = curves.get(name)
        calmed = None if curve is None else calm(curve["values"])
        found[key] = None if curve is None or calmed is None else figures.polyline(curve["steps"], calmed, x_axis, [0.0, 1.0])
        found[f"{key}_last"] = None if calmed is None else calmed[-1]
    return found
