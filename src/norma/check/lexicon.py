"""The word lists that program checkers use. They are part of the digests of the checkers that read them."""

from __future__ import annotations


def word_set(text: str) -> frozenset[str]:
    """The words of ``text``, as a set."""
    return frozenset(text.split())


# ── full stops that end no sentence (written without the last stop) ──
ABBREVIATIONS = word_set("e.g i.e eg ie vs cf viz resp approx incl excl esp w.r.t a.k.a ca wrt sc ibid")
ABBREVIATIONS_BEFORE_NAMES = word_set("mr mrs ms dr prof st jr sr messrs")
ABBREVIATIONS_BEFORE_NUMBERS = word_set("no nos fig figs eq eqs sec ch vol p pp ref ver art")
ABBREVIATIONS_THAT_MAY_END = word_set("etc al inc ltd co corp a.m p.m u.s u.k max min dept ext misc avg std")

# Words that often begin a sentence and are written small within one: after an abbreviation they tell that a sentence ended.
SENTENCE_OPENERS = word_set(
    """
    a an the this that these those there here i he she it we you they my his her its our your their and but or so yet if when while
    although because since as after before in on at by for from with without to what who which where why how not no yes all some many most
    each every both one such also however therefore moreover additionally then now please let do does is are was were can could will would
    should may have has
    """
)

# ── polite openings, by language; compared without regard to case ──
OPENINGS = {
    "en": (
        "certainly", "of course", "sure", "gladly", "with pleasure", "by all means", "absolutely", "happy to help", "glad to help",
        "thank you for asking", "thanks for asking", "thank you for your question", "thanks for your question", "good question",
        "here you are", "please allow me to explain", "my pleasure",
    ),
    "zh": (
        "您好", "你好", "好的", "当然", "当然可以", "没问题", "可以的", "乐意效劳", "很高兴为您解答", "很高兴为您服务", "很乐意为您解答",
        "感谢您的提问", "谢谢您的提问", "感谢提问", "谢谢提问", "不客气", "请看",
    ),
}  # fmt: skip

# ── pointers to the source at the end, by language; compared without regard to case ──
POINTERS = {
    "en": (
        "see the entry", "see its entry", "see this entry", "see the entry for more", "see the entry for details", "more in the entry",
        "details in the entry", "for more, see the entry", "for details, see the entry", "as the entry explains",
    ),
    "zh": (
        "详见条目", "见条目", "参见条目", "请见条目", "请看条目", "参阅条目", "请参阅条目", "参看条目", "详情见条目",
        "详情请见条目", "详见该条目", "见该条目", "更多内容见条目",
    ),
}  # fmt: skip

# ── the first person ──
FIRST_PERSON_EN = word_set("i me my mine myself we us our ours ourselves")
FIRST_PERSON_ZH = ("我们", "咱们", "我", "咱", "俺", "本人", "笔者", "在下", "鄙人")
NOT_FIRST_PERSON_ZH = ("自我", "忘我", "大我", "小我", "无我", "我行我素", "敌我", "你我他")
# "I" as the name of a thing: the matrix I, type I, part I.
BEFORE_LETTER_I = word_set(
    "matrix matrices identity type class part phase volume chapter section group level case table set variable index letter axis"
)

# ── saying that the source does not say ──
SOURCES_EN = "entry|text|documentation|docs?|docstring|page|passage|description|excerpt|section|source|article|material"
SAYING_EN = (
    "say|state|mention|describe|explain|cover|document|tell|specify|discuss|include|contain|define|address|give|show|indicate|provide"
    "|speak of|talk of|talk about"
)
SAID_EN = "said|stated|mentioned|described|explained|covered|documented|specified|discussed|included|defined|addressed|given|shown|found"
SOURCES_ZH = "条目|文档|文中|文本|词条|资料|原文|内容|页面|段落|文字|说明书|描述|材料"
SAYING_ZH = "说明|提到|提及|介绍|描述|解释|包含|涉及|给出|记录|定义|讨论|讲到|讲|说|谈到|谈及|写明|写"

# ── courtesy as weighted marks over a whole answer (the held-out method; on purpose not the lists above) ──
COURTESY_MARKS = {
    "en": {
        "certainly": 1.0, "of course": 1.0, "sure": 0.8, "gladly": 1.0, "pleasure": 1.0, "happy to": 0.8, "glad": 0.8, "thank": 1.0,
        "thanks": 1.0, "please": 0.8, "by all means": 1.0, "absolutely": 0.7, "good question": 0.8, "kindly": 0.8, "sorry": 0.7,
        "apologies": 0.7, "unfortunately": 0.6, "afraid": 0.5, "welcome": 0.7, "here you are": 0.7, "hello": 0.7, "hope this helps": 0.8,
    },
    "zh": {
        "您": 0.7, "您好": 1.0, "你好": 0.7, "请": 0.6, "谢谢": 1.0, "感谢": 1.0, "好的": 0.8, "当然": 0.8, "没问题": 0.8, "可以的": 0.7,
        "乐意": 1.0, "高兴": 0.8, "抱歉": 0.8, "对不起": 0.8, "不好意思": 0.7, "很遗憾": 0.7, "效劳": 0.8, "不客气": 0.8, "希望": 0.6,
    },
}  # fmt: skip
RUDE_MARKS = {
    "en": (
        "obviously", "stupid", "idiot", "dumb question", "rtfm", "shut up", "just read the", "read the manual", "as everyone knows", "duh",
        "nonsense", "ridiculous", "how hard is", "you should know", "who cares", "figure it out", "waste of time",
    ),
    "zh": (
        "废话", "笨", "愚蠢", "傻", "自己看", "自己去看", "自己查", "懒得", "这都不知道",
        "这都不懂", "显而易见", "少问", "别问", "烦死", "滚开", "闭嘴", "白痴",
    ),
}  # fmt: skip
# Words that hold a mark of courtesy without being one.
NOT_COURTESY = ("make sure", "makes sure", "making sure", "be sure", "not sure", "请求", "申请", "邀请", "希望值")

# ── words that carry no subject matter ──
STOP_WORDS = word_set(
    """
    a an the of to in on at by for with from into as and or but if then than that this these those it its is are was were be been
    being do does did not no so such can could may might will would shall should must has have had which who what when where how
    why there here you your entry say says said about given any all each also only very more most other some own same one
    """
)
