"""Second opinions on customer service, by other methods than `support_tone`, `openings` and `words`: made to be held out.

greeting_clause   features of the first clause, and whether the greeting comes again
apology_act       where the apology stands, whether it is taken back, how often it comes
fault_frames      somebody who buys (you, customers, people) as the doer of something faulty, clause by clause
concrete_step     an action and the thing it is done to, in one sentence
"""

from __future__ import annotations

import re

from norma.check.persons import NoParams
from norma.check.program import Outcome, program
from norma.check.segment import family, sentences, units
from norma.spec.types import Item

_CLAUSES = re.compile(r"[,;:.!?，；：。！？、\n]+(?:\s+|$)|[，；：。！？\n]|\s[—–-]\s|\b(?:because|since|and|but|so)\b")
_GREETS = {
    "en": re.compile(r"(?i)\b(?:hello|hi|dear|welcome|thanks?|good\s+(?:morning|afternoon|evening|day)|greetings|glad|pleasure)\b"),
    "zh": re.compile(r"您好|你好|尊敬的|亲爱的|早上好|上午好|下午好|晚上好|感谢|谢谢|欢迎|很高兴"),
}
_REST = 4  # words (two Chinese characters count as one) that must follow the greeting


@program("greeting_clause", NoParams, languages=("en", "zh"), catches=("boilerplate", "other_language"))
def greeting_clause(item: Item, text: str, params: NoParams) -> Outcome:
    """The first clause greets, in the language of the question, greets once, and a real answer follows."""
    greets = _GREETS[family(item.language)]
    parts = [part for part in _CLAUSES.split(text.strip(' *_"“「')) if part.strip()]
    if not parts or not greets.search(parts[0]):
        return Outcome(0.0, (), "the first clause does not greet")
    said = [m.group().lower() for m in greets.finditer(text)]
    # Thanks may close what a greeting opened; the same word twice is a formula.
    if len(set(said)) < len(said) or len(said) > 3:
        return Outcome(0.3, (), "greets again and again")
    rest = [u for part in parts[1:] for u in units(greets.sub(" ", part))]
    weight = sum(0.5 if u.han else 1.0 for u in rest)
    return Outcome(min(1.0, weight / _REST), (), "" if weight >= _REST else "little follows the greeting")


_SORRY = {
    "en": re.compile(r"(?i)\b(?:sorry|apolog(?:y|ies|i[sz]e[ds]?|i[sz]ing)|regret)\b"),
    "zh": re.compile(r"抱歉|对不起|不好意思|[致道]歉|歉意"),
}
_TAKEN_BACK = {
    "en": re.compile(
        r"(?i)\b(?:not|never|no\s+need\s+to|n['’]t|no\s+reason\s+to|nothing\s+to|without)\s+(?:\w+\s+){0,3}?(?:sorry|apolog\w+|regret)"
        r"|\b(?:sorry|apologi[sz]e)\s*,?\s+(?:but\b|if\b|that\s+you\s+(?:feel|think|believe))"
    ),
    "zh": re.compile(
        r"(?:不会|不必|不用|无需|没必要|没什么|拒绝|不)(?:向您|好|再|感到)?(?:抱歉|对不起|道歉|致歉)|(?:抱歉|对不起"
        r"|不好意思)[，,]?\s*(?:但|可是|不过|如果)"
    ),
}
_EARLY = 25  # words or Chinese characters before which the apology begins
_MOST = 2


@program("apology_act", NoParams, languages=("en", "zh"), catches=("boilerplate", "repetition", "other_language"))
def apology_act(item: Item, text: str, params: NoParams) -> Outcome:
    """An apology near the beginning, in the language of the question, neither denied nor taken back, at most twice, and not alone."""
    language = family(item.language)
    places = list(_SORRY[language].finditer(text))
    if not places:
        return Outcome(0.0, (), "no apology")
    if _TAKEN_BACK[language].search(text):
        return Outcome(0.2, (places[0].span(),), "the apology is taken back")
    if len(units(text[: places[0].start()])) > _EARLY:
        return Outcome(0.4, (places[0].span(),), "the apology comes late")
    if len(places) > _MOST:
        return Outcome(0.3, tuple(p.span() for p in places), "apologies are piled up")
    others = sum(0.5 if u.han else 1.0 for u in units(text)) - len(places)
    return Outcome(1.0 if others >= 8 else 0.3, (), "" if others >= 8 else "an apology alone")


# Who buys, as the doer: "you ... broke", not "your kettle broke"; 您...填错, not 您的水壶摔坏了.
_DOER_EN = r"(?:you|customers?|people|users?|buyers?|everyone|anyone|someone|whoever|who)\b(?:['’](?:ve|d|re))?"
_FAULTY_EN = (
    "wrongly|incorrectly|improperly|carelessly|careless|mistaken|misus(?:e|ed|ing)|mishandled?|ignor(?:e|ed|ing)|forgot|forget|failed|neglected"
    "|overlooked|broke|dropped|spoiled|ruined|caused|blame|messed|clumsy|impatient|lazy|mistyped"
)
_FAULTS_EN = re.compile(
    rf"(?i)\b{_DOER_EN}\s+(?:\S+\s+){{0,4}}?(?:{_FAULTY_EN})\b"
    r"|\byour\s+(?:own\s+)?(?:\w+\s+)?(?:mistakes?|fault|error|carelessness|misuse|negligence|impatience)\b"
    r"|\b(?:caused|broken|damaged|done)\s+by\s+(?:you|the\s+customer|customers)\b|\bon\s+your\s+(?:own\s+)?(?:side|end|part)\b"
)
_OMITS_EN = re.compile(
    rf"(?i)\b{_DOER_EN}\s+(?:\w+\s+)?(?:(?:did|do|does|had|would|should)\s*(?:not|n['’]t)|(?:did|do|does|had|would|should)n['’]t"
    rf"|never)\s+"
    r"(?:\w+\s+)?(?:read|check|follow|look|listen|bother|care)s?\b"
    r"|\byou\s+(?:really\s+)?(?:should|could|ought\s+to|must)\s+(?:not\s+)?have\b|\b(?:already|clearly|often)\s+(?:told|said"
    r"|explained|informed|warned)\b"
)
_FAULTS_ZH = re.compile(
    r"(?:您|你|客户|顾客|用户|买家|有些人|有的人|大家)(?!的(?!操作|使用|填写|保管|疏忽|粗心))[^，。；]{0,8}?"
    r"(?:误[操填选]|弄坏|摔|忽略|粗心|大意|马虎|造成|导致|不当|[搞填选弄看]错|疏忽|自找|不看|没看(?![到见])|不读|没读)"
    r"|(?:没有|没|不)(?:好好|仔细|认真|及时)+(?:看|读|注意|按|检查|核对|保存|听)|自己的问题|早就|本[该应]|告诉过|提醒过|说过|怪(?:您|你)"
)
_EXCUSED_EN = re.compile(r"(?i)\b(?:not|n['’]t|nothing|no|if|whether|in\s+case|received|got|sent|charged)\b|n['’]t\b")
_EXCUSED_ZH = re.compile(r"不是|并非|不怪|如果|若|是否|万一|收到|遇到|误会|不便")


@program("fault_frames", NoParams, languages=("en", "zh"))
def fault_frames(item: Item, text: str, params: NoParams) -> Outcome:
    """In no clause does the customer (or do people who buy) do something faulty; conditions and denials are no charge."""
    language = family(item.language)
    faults = []
    for clause in _CLAUSES.split(text):
        if language == "zh":
            faulty = _FAULTS_ZH.search(clause) is not None and not _EXCUSED_ZH.search(clause)
        else:
            faulty = _FAULTS_EN.search(clause) is not None and not _EXCUSED_EN.search(clause)
            faulty = faulty or _OMITS_EN.search(clause) is not None
        if faulty:
            faults.append(clause.strip())
    return Outcome(max(0.0, 1 - 0.5 * len(faults)), (), faults[0] if faults else "")


_ACTION_EN = re.compile(
    r"(?i)\b(?:send|sent|reply|check|checked|refund\w*|replac\w+|call|ring|click|tap|open|restart\w*|enter|type|ship\w*|track\w*|reset\w*"
    r"|forward\w*|arrang\w+|cancel\w*|updat\w+|shar\w+|confirm\w*|provid\w+|return\w*|choose|select|attach\w*|upload\w*|install\w*"
    r"|transfer\w*|email\w*|e-mail\w*|write|visit|place|order|book\w*|tell|hold|press|unplug|charge|pay|find|print\w*|reserv\w+"
    r"|collect\w*|schedul\w+|switch)\b"
)
_THING_EN = re.compile(
    r"(?i)\b(?:number|photos?|pictures?|orders?|invoices?|receipts?|address|account|links?|page|buttons?|menu|settings?|tracking|password"
    r"|cable|apps?|parcels?|packages?|refund|replacement|label|courier|form|colleague|technician|team|e-?mail|phone|store|shop|item"
    r"|serial"
    r"|plug|power|payment|card|subscription|delivery|date|bill|size|website|today|tomorrow|tonight|hours?|minutes?|days?|monday|tuesday"
    r"|wednesday|thursday|friday|saturday|sunday)\b"
)
_ACTION_ZH = re.compile(
    r"发送|打印|下载|退货|发[给来到您]|[发把].{1,8}发|提供|告知|告诉|回复|核实|核对|核查|退款|退回|换货|更换|补发|寄|拨打|致电|点击"
    r"|点开|打开|重启|登录|输入|填写|查询|查看|查到|安排|取消|更新|上传|联系"
    r"|确认|重置|选择|下单|安装|跟进|催促|登记|办理|扫码|处理|转接|按住|修改|申请|支付"
)
_THING_ZH = re.compile(
    r"订单|照片|单号|截图|地址|账号|账户|小时|今天|明天|当天|工作日|链接|页面|按钮|发票|快递|物流|包裹|密码|手机|专员|同事|邮箱|邮件"
    r"|应用|设置|菜单|电源|门店|商品|客服|电话"
    r"|银行卡|会员|维修|编号|序列号|尺码|官网|账单|分钟|优惠券|新的"
)


@program("concrete_step", NoParams, languages=("en", "zh"), catches=("boilerplate", "repetition", "other_language"))
def concrete_step(item: Item, text: str, params: NoParams) -> Outcome:
    """One sentence holds an action and the thing it is done to (send the photo, 提供订单号); score .5: an action on nothing."""
    action, thing = (_ACTION_EN, _THING_EN) if family(item.language) == "en" else (_ACTION_ZH, _THING_ZH)
    best = 0.0
    for start, end in sentences(text):
        sentence = text[start:end]
        acts = action.search(sentence)
        if acts is None:
            continue
        # The thing may not be the action's own word (to refund is not yet a refund of something).
        rest = sentence[: acts.start()] + " " + sentence[acts.end() :]
        if thing.search(rest):
            return Outcome(1.0, ((start, end),))
        best = 0.5
    return Outcome(best, (), "no concrete step")
