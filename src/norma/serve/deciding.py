"""From answers to what is given out: judge, try again where a rule asks for it, refuse where one is enforced.

answers ─judge─→ a best-of rule broken? ─→ n - 1 more answers ─→ the best by R ─→ an enforced rule broken? ─→ refusal
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from norma.serve.answering import Answer, Backend, Job, whole
from norma.serve.ruling import MAX_BEST_OF, WARMTH, Outcome, Ruling, refusal

REFUSED = "content_filter"  # OpenAI's finish reason of an answer that was held back


async def decide(backend: Backend, job: Job, answers: Sequence[Answer], ruling: Ruling) -> tuple[list[Answer], list[Outcome], list[Answer]]:
    """(what is given out, what was done, what the model wrote), each one a choice. Tokens count all that was tried."""
    found = await asyncio.gather(*(_one(backend, job, i, answer, ruling) for i, answer in enumerate(answers)))
    return [f[0] for f in found], [f[1] for f in found], [f[2] for f in found]


async def _one(backend: Backend, job: Job, index: int, answer: Answer, ruling: Ruling) -> tuple[Answer, Outcome, Answer]:
    [judgement] = await asyncio.to_thread(ruling.judge, job.item, [answer.text])
    more, tokens = ruling.more(judgement), answer.tokens
    tried = [answer]
    if more:
        tried += await whole(backend, job.again(more, job.choices + index * MAX_BEST_OF, WARMTH))
        tokens = sum(t.tokens for t in tried)
        judged = await asyncio.to_thread(ruling.judge, job.item, [t.text for t in tried])
        chosen = ruling.best(judged)
        answer, judgement = tried[chosen], judged[chosen]
        answer.read = max(t.read for t in tried)
    outcome = Outcome(judgement, "best-of" if more else "served", len(tried))
    answer.tokens = tokens
    outcome.reasons = ruling.forbidden(judgement)
    if not outcome.reasons:
        return answer, outcome, answer
    outcome.action = "refused"
    return Answer(refusal(job.item.language), REFUSED, tokens, read=answer.read), outcome, answer
