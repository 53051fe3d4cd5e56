"""What the server says, in the reader's language. Messages are raised in English, here and in the rooms below; this table has the Chinese.

    NormaError, refusal, finding ─→ English text ─said(text, language)─→ the text, or its Chinese by exact words, else by pattern

``{}`` stands for a name or number; what it stands for is looked up too, and goes to the same place, or to ``{0}``, ``{1}`` of the Chinese.
A text that is not in the table stays English. What pages and scripts say stands there, both languages side by side: t(...), T(...).
"""

from __future__ import annotations

import re
from functools import cache

from starlette.requests import Request

CHINESE = {
    # who may do what
    "please log in": "请登录",
    "the page is too old: load it again": "页面已过期，请重新加载",
    "this is for a {}": "此操作需要{}权限",
    "annotator": "标注员",
    "reviewer": "复核员",
    "admin": "管理员",
    "this studio is not called by that name": "本工作室不接受该主机名",
    "requests from other sites are refused": "拒绝来自其他网站的请求",
    "the request is too large": "请求过大",
    "unknown role '{}'": "未知角色“{}”",
    "a password has {} to {} characters": "密码须为 {} 至 {} 个字符",
    "a name has 1 to 64 letters, digits, '.', '-', '_' or '@'": "用户名为 1 至 64 个字母、数字或 . - _ @",
    "the name '{}' is taken": "用户名“{}”已被占用",
    "Choose another": "请另选一个",
    "there is no user '{}'": "没有用户“{}”",
    "'{}' is the last admin": "“{}”是最后一位管理员",
    "Make somebody else an admin first": "请先将他人设为管理员",
    "this studio has no accounts": "本工作室没有账户",
    "the old password is not right": "旧密码不正确",
    # the audit log
    "login": "登录",
    "login by the printed address": "通过终端网址登录",
    "login refused": "拒绝登录",
    "undo": "撤销标注",
    "fill": "抽取回答",
    "import items": "导入条目",
    "annotate answer": "送入对话回答",
    "add user": "新增用户",
    "change user": "更改用户",
    "change own password": "修改自己的密码",
    "start run": "开始训练",
    "stop run": "停止训练",
    "save spec": "保存规范",
    # pages and databases
    "Not Found": "没有此页面",
    "Method Not Allowed": "不支持该操作",
    "the studio failed: {}": "工作室出错：{}",
    "the studio's database cannot be used ({})": "工作室数据库无法使用（{}）",
    "Is another program holding it? Try again": "可能被其他程序占用，请重试",
    "this database has studio revision {}, which this Norma does not know": "本 Norma 不认识该数据库的工作室版本 {}",
    "Use the newer Norma": "请使用更新的 Norma",
    "file or folder not found": "找不到文件或文件夹",
    "Give a run folder (such as runs/NAME) or a spec file": "请给出训练目录（如 runs/NAME）或规范文件",
    "no Norma run in this folder": "该文件夹中没有 Norma 训练",
    "Give the folder that 'norma run' names, or a spec file": "请给出 norma run 显示的目录，或规范文件",
    # annotating
    "there is no such item in the queue": "队列中没有该条目",
    "revision {} of a mark that has {}": "标注只有 {1} 个修订，不能提交修订 {0}",
    "Load the item again": "请重新加载该条目",
    "a highlighted span lies outside the answer": "标记超出了回答范围",
    "Highlight it again": "请重新标记",
    "{} has already marked '{}' of item {} as {}": "{0} 已将条目 {2} 的“{1}”标为{3}",
    "Add the changed mark as revision {} that supersedes {}": "请作为修订 {} 提交，以取代 {}",
    "{} has already marked this pair as {}": "{} 已将这一对标为{}",
    "there is no such pair": "没有这一对回答",
    "Load the page again": "请重新加载页面",
    "first": "前者更好",
    "second": "后者更好",
    "tie": "不分上下",
    "compliant": "遵守",
    "violation": "违反",
    "not_applicable": "不适用",
    "unsure": "不确定",
    "this run has no answers to annotate yet": "本次训练还没有可标注的回答",
    "Let its evaluate stage end, or import items": "请等待 evaluate 阶段结束，或导入条目",
    "there is no spec here: nothing to mark answers by": "此处没有规范，无从标注",
    "Open a run with a spec, or a spec file": "请打开带规范的训练或规范文件",
    "the file is not UTF-8 text (byte {})": "文件不是 UTF-8 文本（第 {} 字节）",
    "a message has a role and a content": "每条消息须有 role 与 content",
    "not a row with messages and response": "该行没有 messages 与 response",
    "unknown rule '{}'": "未知规则“{}”",
    "Did you mean '{}'": "您是否指“{}”",
    "Known: {}": "已有：{}",
    "Nothing is known here": "此处没有可选项",
    # models
    "there is no model '{}' here": "此处没有模型“{}”",
    "too many conversations at once": "同时进行的对话过多",
    "there is nothing to look at": "没有可看的内容",
    "Type a text": "请输入文本",
    "this model reads both ways and foretells no next token": "该模型双向阅读，不预测下一个词元",
    "Mask a word instead: type {}": "请改为遮住一个词：输入 {}",
    "this model has one stack: it goes on with the text itself": "该模型只有一个部分，直接续写文本",
    "Choose the next token": "请选择下一个词元",
    "this model was not trained to fill masked words": "该模型未经填词训练",
    "Choose an encoder such as BERT": "请选择 BERT 之类的编码器",
    "no word is masked": "没有被遮住的词",
    "Type {} in place of a word": "用 {} 代替一个词",
    "this model has no layer {} of '{}' attention": "该模型没有第 {} 层“{}”注意力",
    "It has: {}": "可选：{}",
    "this model has no experts": "该模型没有专家",
    "Choose a mixture of experts such as Switch": "请选择 Switch 之类的混合专家模型",
    "the lens looks through models that score tokens": "逐层预测只适用于能给词元打分的模型",
    "this model has no rotary positions but '{}'": "该模型的位置编码不是旋转式，而是“{}”",
    # runs and report
    "this run has no report yet": "本次训练还没有报告",
    "this studio was opened on a spec: there is no run": "本工作室打开的是规范，没有训练",
    "there is no run '{}' here": "此处没有训练“{}”",
    "this run is under way already": "该训练已在进行",
    "the recipe of this run is gone": "该训练的配方已不存在",
    "the run did not start": "训练未能开始",
    "The last lines of the log say why": "原因见日志末尾",
    "nothing is at work in this run": "该训练没有进程在运行",
    "goes on where it stopped": "将从停止处继续",
    "input '{}' is to be made again": "输入“{}”需要重做",
    "asked for with --from": "由 --from 指定重做",
    "the recipe {} is gone; compared with the copy in the run folder": "配方 {} 已不存在；与训练目录中的副本比较",
    # the spec
    "this run has no spec": "本次训练没有规范",
    "'{}' is not included yet": "尚未包含“{}”",
    "Add an include in an editor; here its rules can be composed": "请在编辑器中添加 include；此处可编排其规则",
    "this copy is the run's record and stays as it is: open the studio on the spec file itself": (
        "此副本是训练记录，不可更改：请直接打开规范文件"
    ),
    "somebody else has saved the spec meanwhile: copy your text, load the page again": "他人已保存了规范：请复制您的文本并重新加载页面",
    # what an edit of the spec makes stale
    "meaning": "含义",
    "wording.{}": "措辞.{}",
    "examples": "示例",
    "checkers": "检查器",
    "level": "级别",
    "weight": "权重",
    "rule": "规则",
    "id": "名称",
    "composition": "编排",
    "languages": "语言",
    "source wording": "源语言措辞",
    "labels": "标注",
    "corrections": "修正",
    "classifier": "分类器",
    "training rows": "训练数据",
    "report": "报告",
    "spot check": "抽查",
    "rendered prompts": "提示文本",
    "items that flip": "适用性改变的条目",
    "pairs and rewards that flip": "状态改变的偏好对与奖励",
    "scores": "分数",
    "training": "训练",
    "gate": "合规门槛",
    "elicited answers": "试题回答",
    "rewards, replayed from stored scores": "奖励（由已存分数重算）",
    "everything is to be made": "全部需要制作",
    "training pairs": "偏好对",
    "labels, to be relabelled": "标注（需改名）",
    "verdicts": "判定",
    "rows of the report": "报告行",
    "prompts of the report": "报告的提示",
    "questions": "问题",
    "questions to judge": "待判定的问题",
    "questions of the run": "本次训练的问题",
    "labels of checkers": "检查器的标注",
    "questions whose reward is another": "奖励改变的问题",
    "stored scores to replay": "待重算的已存分数",
    "rewarded answers (retrain)": "受奖励的回答（需重训）",
    "a new rule applies": "新规则适用",
    "other prompts": "试题已变",
    "the rule is gone": "规则已删除",
    "marked under the old meaning": "按旧含义标注",
    "the prompt shows this rule": "提示中含有该规则",
    "corrected because of this rule": "因该规则而修正",
    "of checker {}": "由检查器 {} 给出",
    "a checker is new: its scores are to be made": "新检查器：分数待算",
    "the reward is computed again; nothing is judged": "只重算奖励，不再判定",
    "shows the rule in {}; labels stay": "以 {} 显示该规则；标注保留",
    "{}; people's labels stay": "{}；人工标注保留",
    # agreement
    "no item has two marks: have some marked twice": "没有回答有两个标注：请安排部分重复标注",
    "too few: {} items with two marks, and {} are the least": "太少：{} 个回答有两个标注，至少需要 {} 个",
    "too few: {} item with two marks, and {} are the least": "太少：{} 个回答有两个标注，至少需要 {} 个",
    "every mark is the same in {} items: nothing to tell agreement from habit": "{} 个回答的标注全部相同：无法区分一致与习惯",
    "too few: the rarer answer is in too few of {} items for an interval": "太少：{} 个回答中较少的一类不足以估计区间",
    "skewed ({} of marks alike): alpha says little, AC1 holds; mark more of the rare kind": (
        "偏斜（{} 的标注相同）：α 说明不了什么，AC1 可信；请多标少见的一类"
    ),
    "reliable": "可靠",
    "too few: about {} items with two marks would give ±{}": "太少：约 {} 个双标回答可达 ±{}",
    "good enough for tentative conclusions": "可作初步结论",
    "not reliable: mend the guideline, or use several marks an item": "不可靠：请修改指南，或每个回答用多个标注",
    "undecided between tentative and not reliable": "介于初步可用与不可靠之间",
}


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    longest = sorted((k for k in CHINESE if "{}" in k), key=len, reverse=True)  # the most definite first
    return [(re.compile(re.escape(k).replace(r"\{\}", "(.+?)"), re.DOTALL), CHINESE[k]) for k in longest]


def said(text: str, language: str) -> str:
    """``text`` in a page's language (en, zh)."""
    if language != "zh" or not text:
        return text
    if text in CHINESE:
        return CHINESE[text]
    for pattern, chinese in _patterns():
        if found := pattern.fullmatch(text):
            return chinese.format(*(said(value, language) for value in found.groups()))
    return text


def language_of(request: Request) -> str:
    """The reader's language: as asked for, as kept in the cookie, else the browser's."""
    chosen = request.query_params.get("lang") or request.cookies.get("norma_lang")
    if chosen in ("en", "zh"):
        return str(chosen)
    return "zh" if request.headers.get("accept-language", "").lower().startswith("zh") else "en"
