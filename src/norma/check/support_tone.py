"""Customer service, seen by phrases: blaming the customer, naming the next step. `support_second` judges the same by other methods."""

from __future__ import annotations

import re

from norma.check.persons import NoParams
from norma.check.program import Outcome, program
from norma.check.segment import family
from norma.spec.types import Item

# Saying that the customer is NOT to blame; taken out before blame is looked for.
_ACQUITS = re.compile(
    r"(?i)\b(?:not|n['’]t|never|no)\s+(?:\w+\s+)?(?:your\s+(?:own\s+)?(?:fault|mistake|error)|fault\s+of\s+yours)"
    r"|(?:不是|并非|绝不是|不怪|不能怪|不会怪)(?:您|你)(?:的(?:错|问题|责任|失误))?"
)
_BLAME = {
    "en": re.compile(
        r"(?i)\byour\s+(?:own\s+)?(?:fault|mistake|carelessness|negligence|misuse)\b"
        r"|\byou\s+(?:should|could|must)(?:\s+not)?\s+have\b|\byou\s+shouldn['’]t\s+have\b"
        r"|\byou\s+(?:\w+ly\s+)?(?:failed|forgot|neglected)\s+to\b"
        r"|\byou\s+(?:did\s+not|didn['’]t|never)\s+(?:even\s+)?(?:read|check|follow|listen|pay|bother)\b"
        r"|\byou\s+(?:broke|damaged|misused|ignored|messed)\b"
        r"|\bas\s+(?:I|we)\s+(?:\w+\s+)?(?:told|said)\b|\bwhy\s+did(?:n['’]t|\s+not)?\s+you\b"
        r"|\b(?:not\s+our|isn['’]t\s+our)\s+(?:fault|problem)\b"
    ),
    "zh": re.compile(
        r"(?:您|你)(?:自己)?的(?:错|责任|失误|疏忽|过失)|是(?:您|你)(?:自己)?的问题|(?:您|你)自己(?:没|不|弄|搞|操作|选|填)"
        r"|(?:您|你)(?:根本|当时|又)?(?:没有|没|不)(?:看清|仔细|认真|按说明|按照说明|注意看)"
        r"|(?:您|你)(?:早就|当初|本来|早)?(?:就)?(?:应该|该)早|(?:您|你)(?:本应|本该|早该)"
        r"|(?:您|你)(?:的)?(?:操作|使用|填写|输入|保管)(?:不当|错误|有误|失误)"
        r"|谁[让叫](?:您|你)|(?:只能|都|就)怪(?:您|你)|不是我们的(?:错|问题|责任)|早就?(?:说|告诉)过|(?:您|你)怎么(?:不|没)"
    ),
}


@program("no_blame", NoParams, languages=("en", "zh"))
def no_blame(item: Item, text: str, params: NoParams) -> Outcome:
    """No phrase puts the blame on the customer; score: .5 for one, 0 for two or more. "Not your fault" blames nobody."""
    plain = _ACQUITS.sub(lambda m: " " * len(m.group()), text)
    spans = tuple(sorted(m.span() for pattern in _BLAME.values() for m in pattern.finditer(plain)))
    return Outcome(max(0.0, 1 - 0.5 * len(spans)), spans, ", ".join(text[a:b] for a, b in spans[:2]))


_STEP = {
    "en": re.compile(
        r"(?i)\bplease\s+(?!note|understand|be\s+patient|bear|forgive|accept|excuse|wait\b)[a-z]+"
        r"|\b(?:I|we)(?:['’]ll|\s+will)\s+(?!not\b|never\b)|\b(?:I['’]m|I\s+am|we['’]re|we\s+are)\s+(?:going\s+to|now)\b"
        r"|\byou\s+can\b(?!\s*not)|\bcould\s+you\b|\blet\s+(?:me|us)\b|\bnext\s+step\b"
        r"|\b(?:I|we)(?:['’]ve|\s+have)\s+(?:\w+\s+)?(?:opened|asked|sent|arranged|forwarded|refunded|booked|issued|contacted|started)\b"
        r"|(?:^|[.:;!?,]\s+)(?:send|reply|call|click|tap|open|restart|enter|choose|select|check|go\s+to|upload|install|return|print)\b"
    ),
    "zh": re.compile(
        r"请(?:您|你)?(?!谅解|见谅|理解|原谅|放心|包涵|耐心|稍|问|注意)[\u4e00-\u9fff]"
        r"|我们?(?:这边|这里)?(?:会|将|马上|立即|立刻|这就|现在就|今天|明天|稍后|尽快|已|来[为帮给])(?!不)"
        r"|给(?:您|你)(?:回|发|补|寄|退|换|办|安排)|(?:您|你)可以|麻烦(?:您|你)|建议(?:您|你)|[为帮](?:您|你)(?!解答|服务|解惑|解忧"
        r"|着想)[\u4e00-\u9fff]{2}"
    ),
}


@program("next_step", NoParams, languages=("en", "zh"), catches=("boilerplate", "other_language"))
def next_step(item: Item, text: str, params: NoParams) -> Outcome:
    """A phrase says what happens next or what to do: please send, we will, you can; 请提供、我们会、您可以."""
    found = _STEP[family(item.language)].search(text)
    return Outcome(1.0, (found.span(),)) if found else Outcome(0.0, (), "no next step")
