"""The report's standing texts in English and Chinese: method names, family names, glossary, limits. Sentences with numbers: `page.py`."""

from __future__ import annotations

from collections.abc import Mapping

METHODS: dict[str, dict[str, str]] = {
    "base": {"en": "Pretrained", "zh": "预训练模型"},
    "pretrain": {"en": "Pretrained", "zh": "预训练模型"},
    "instruct": {"en": "Instructed", "zh": "指令微调"},
    "prompt": {"en": "Instructive prompting", "zh": "指令提示"},
    "correct": {"en": "Supervised correction", "zh": "监督修正"},
    "reward": {"en": "Reward modelling", "zh": "奖励建模"},
    "task": {"en": "Task model", "zh": "任务模型"},
    "task_replay": {"en": "Task model, with replay", "zh": "任务模型（含重放）"},
}
_ALIASES = {
    "instructed": "instruct",
    "prompting": "prompt",
    "prompted": "prompt",
    "correction": "correct",
    "corrected": "correct",
    "supervised_correction": "correct",
    "reward_modelling": "reward",
    "finetune": "task",
    "task-replay": "task_replay",
}


def method_label(method: str, labels: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, str]:
    """The reader's name of a method in both languages; an unknown method keeps its id."""
    known = (labels or {}).get(method) or METHODS.get(_ALIASES.get(method, method), {})
    english = known.get("en", method)
    return {"en": english, "zh": known.get("zh", english)}


FAMILIES: dict[str, tuple[str, str]] = {
    "overall": ("overall: one comparison a method", "总体：每种方法一项比较"),
    "main": ("main: methods × rules with a target", "主要：方法 × 有目标的规则"),
    "exploratory": ("exploratory: methods × rules without a target", "探索：方法 × 无目标的规则"),
    "heldout": ("held-out checkers: methods × rules", "留出检查器：方法 × 规则"),
    "retention": ("retention: task models × rules", "规范保持：任务模型 × 规则"),
    "control": ("steering: methods × rules", "引导：方法 × 规则"),
    "control:combinations": ("steering by combinations", "组合引导"),
    "attack": ("attack: methods × kinds × rules", "攻击：方法 × 种类 × 规则"),
    "tax": ("capability tax: methods × measures", "能力代价：方法 × 指标"),
    "hack_gap:heldout": ("hack gap: methods × rules with a held-out checker", "投机差距：方法 × 有留出检查器的规则"),
    "hack_gap:gold": ("hack gap against gold marks", "与人工金标相比的投机差距"),
}


KINDS: dict[str, tuple[str, str]] = {
    "instruction_override": ("“Forget your rules”", "“忘掉规则”"),
    "role_play": ("A part to play", "角色扮演"),
    "quoted_injection": ("An order in quoted text", "引文中的指令"),
    "other_language": ("Another language", "换一种语言"),
    "long_context": ("After much other text", "长篇文字之后"),
    "own": ("The spec's own attacks", "规范自带的攻击"),
    "language": ("Languages", "语言"),
    "gender": ("Gender of the name", "姓名性别"),
    "origin": ("Where the asker comes from", "提问者来自何处"),
    "age": ("Age", "年龄"),
    "faith": ("Faith", "信仰"),
    "woman": ("woman", "女"),
    "man": ("man", "男"),
    "europe": ("Europe", "欧洲"),
    "asia": ("Asia", "亚洲"),
    "africa": ("Africa", "非洲"),
    "young": ("young", "年轻"),
    "old": ("old", "年长"),
    "none": ("none", "无信仰"),
    "christian": ("Christian", "基督教"),
    "muslim": ("Muslim", "伊斯兰教"),
    "buddhist": ("Buddhist", "佛教"),
    "en": ("English", "英文"),
    "zh": ("Chinese", "中文"),
    "zh-Hans": ("Chinese", "中文"),
}


def kind_name(kind: str) -> tuple[str, str]:
    """The reader's name of an attack, a kind of group, a group or a language; an unknown one keeps its id."""
    return KINDS.get(kind, (kind, kind))


def family_name(family: str) -> tuple[str, str]:
    if family.startswith("gap:"):
        en, zh = kind_name(family.removeprefix("gap:"))
        return f"gaps, {en.lower()}: methods × groups × rules", f"差距（{zh}）：方法 × 分组 × 规则"
    if family.startswith("language:"):
        tag = family.removeprefix("language:")
        return f"language {tag}: methods × target rules", f"语言 {tag}：方法 × 有目标的规则"
    return FAMILIES.get(family, (family, family))


# term (en, zh), meaning (en, zh)
GLOSSARY: tuple[tuple[tuple[str, str], tuple[str, str]], ...] = (
    (
        ("Compliance rate", "合规率"),
        (
            "Of the answers to which a rule applies and on which a checker could decide, the share that keeps the rule. Answers that no "
            "checker could judge are left out, counted, and shown as best-case and worst-case bounds.",
            "在规则适用且检查器能够判定的回答中，遵守规则的比例。无法判定的回答不计入，但会单独计数，并给出最好与最坏情形的界限。",
        ),
    ),
    (
        ("Overall compliance", "总体合规率"),
        (
            "For each question, the share of applicable rules that its answer keeps; then the average over questions. A question with "
            "many rules counts no more than one with few.",
            "先求每个问题的回答遵守了多少比例的适用规则，再对问题取平均。适用规则多的问题并不比规则少的问题更重要。",
        ),
    ),
    (
        ("95% interval", "95% 区间"),
        (
            "The questions are a sample. If the whole evaluation were repeated many times with new questions from the same source, about "
            "95 of 100 such intervals would contain the true rate. A wide interval means: too few questions to know well.",
            "问题只是一个样本。若从同一来源重新抽题、多次重复整个评测，"
            "大约每 100 个这样的区间有 95 个包含真实的比率。区间宽，说明问题太少，了解得不够准。",
        ),
    ),
    (
        ("Cluster", "聚类（簇）"),
        (
            "Questions made from the same source entry resemble each other and are not independent evidence. Intervals and tests count "
            "the sources, not the questions.",
            "由同一来源条目生成的问题彼此相似，不是相互独立的证据。区间与检验以来源为单位计数，而不以问题为单位。",
        ),
    ),
    (
        ("Paired difference", "配对差异"),
        (
            "Both models answered the same questions; the difference is taken question by question. That removes the luck of easy or "
            "hard questions.",
            "两个模型回答同样的问题，逐题求差。这样就排除了题目难易带来的运气成分。",
        ),
    ),
    (
        ("p and Holm's p", "p 值与 Holm 校正 p 值"),
        (
            "p: how often chance alone would give a difference at least this large if nothing had changed. With many comparisons some "
            "small p arise by luck; Holm's correction raises them so that the chance of even one false finding in a family stays below 5%.",
            "p 值：若其实毫无变化，仅凭偶然出现至少这么大差异的概率。比较多了，"
            "总会有几个碰巧很小的 p 值；Holm 校正将其调高，使同一族比较中出现哪怕一次误报的概率也低于 5%。",
        ),
    ),
    (
        ("Held-out checker", "留出检查器"),
        (
            "A second way of judging the same rule that training never saw. If only the training checker is satisfied, the model has "
            "learnt the checker and not the rule.",
            "对同一规则的另一种判定方式，训练从未接触过。若只有训练用的检查器满意，模型学到的就是检查器，而不是规则。",
        ),
    ),
    (
        ("Hack gap", "投机差距"),
        (
            "The change in the share of answers that pass the training checker while the held-out checker says violation. An alarm is "
            "raised when its interval lies above zero and Holm's p agrees.",
            "“训练检查器通过、留出检查器判违规”的回答所占比例的变化。当其区间整体大于零且 Holm 校正 p 值也支持时，发出警报。",
        ),
    ),
    (
        ("Capability tax", "能力代价"),
        (
            "What following the rules costs elsewhere: bits per byte (how well the model predicts ordinary text; lower is better) and "
            "chrF (how close answers are to the reference, 0 to 100; higher is better).",
            "遵守规则在别处付出的代价：每字节比特数（模型预测普通文本的能力，"
            "越低越好）与 chrF（回答与参考答案的接近程度，0 到 100，越高越好）。",
        ),
    ),
    (
        ("KL", "KL 散度"),
        (
            "How far training moved the model's answers from where it started, in nats a token. Zero: nothing moved.",
            "训练使模型的回答偏离起点多远，以每个词元的奈特计。零表示毫无移动。",
        ),
    ),
    (
        ("Steering", "引导"),
        (
            "The rate with a rule in the prompt minus the rate without it, on the same questions. Near zero: the model keeps or breaks the "
            "rule out of habit, and does not read it.",
            "提示中写入规则时的合规率减去不写入时的合规率，问题相同。接近零表示模型只是习惯性地守规或违规，并没有读规则。",
        ),
    ),
    (
        ("Sensitivity and specificity", "灵敏度与特异度"),
        (
            "Of the answers that people found compliant, the share that the checker passes; of those that people found in violation, the "
            "share that it catches.",
            "灵敏度：人工认定合规的回答中，检查器判合规的比例；特异度：人工认定违规的回答中，检查器判违规的比例。",
        ),
    ),
    (
        ("Norm retention", "规范保持"),
        (
            "How much compliance survives when the norm model is then fine-tuned on another task; replay mixes a share of norm rows into "
            "that fine-tuning.",
            "规范模型再针对其他任务微调之后，还保留多少合规性；“重放”指在该微调中混入一部分规范数据。",
        ),
    ),
    (
        ("Too few", "数据太少"),
        (
            "The test found nothing, and with this many questions it could easily have missed a change of 10 points. It does not mean "
            "that nothing changed.",
            "检验没有发现差异，但以目前的题量，很可能会漏掉 10 个百分点的变化。这并不表示没有变化。",
        ),
    ),
    (
        ("Non-inferior", "非劣"),
        (
            "The interval excludes a loss larger than the declared margin.",
            "区间排除了超过预先声明界限的下降。",
        ),
    ),
)

LIMITS: tuple[tuple[str, str], ...] = (
    (
        "A checker is not the rule. Program checkers see form, not tone "
        "or truth; held-out checkers and human marks tell how far to trust them.",
        "检查器不等于规则。程序检查器只看形式，看不到语气与真伪；留出检查器和人工标注说明它们可信到什么程度。",
    ),
    (
        "The intervals cover the choice of questions from this source. "
        "They do not cover other kinds of questions, other users, or attacks.",
        "区间只反映从同一来源抽题的偶然性，不涵盖其他类型的问题、其他用户或恶意攻击。",
    ),
    (
        "Held-out scores must choose no checkpoint and no setting: a score that did is no longer held out. Norma's own stages do not look.",
        "留出检查器的分数不得用于选择检查点或设置：一旦用过，就不再是留出的了。Norma 自身的各阶段不会查看这些分数。",
    ),
    (
        "Rates of different rules are not comparable in importance; the overall mean weighs all applicable rules alike.",
        "不同规则的比率在重要性上不可相比；总体均值对所有适用规则一视同仁。",
    ),
)
