"""Do sentences that a model writes by itself keep the norms? For models that have no chat yet.

beginnings of held-out texts ─→ sampled continuations ─→ whole sentences ─→ checkers of a role ─→ rate, clustered by text
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from norma.evaluate.statistics import clustered_rate
from norma.generate import Sampling, generate
from norma.lm import LanguageModel
from norma.spec import Item, Role, Spec, Status
from norma.spec.languages import guess
from norma.text.words import starts


@dataclass(frozen=True)
class Written:
    """Sentences of one continuation; ``source`` is the number of the text it continues."""

    source: str
    sentences: tuple[str, ...]


def continuations(
    model: LanguageModel, texts: Sequence[str], *, read: int, tokens: int, temperature: float, seed: int, control: bool = False
) -> list[Written]:
    """Continue the first ``read`` tokens of each text by up to ``tokens`` sampled ones.

    The sentence that the limit cuts off is dropped, and so is what finishes the sentence that was begun by the text.

    Args:
        control: begin with <|good|> (2302.08582, section 2.2); <|bad|> is forbidden, so that each sentence follows a <|good|>.
    """
    tokenizer, marks = model.tokenizer, model.tokenizer.control_tokens
    head = ([] if tokenizer.bos_id is None else [tokenizer.bos_id]) + ([marks[0]] if control else [])
    prompts = [head + ids[:read] for ids in tokenizer.encode_batch(list(texts))]
    how = Sampling(tokens, temperature=temperature, seed=seed, banned=marks[1:] if control else marks)
    found = []
    for number, (prompt, answer) in enumerate(zip(prompts, generate(model, prompts, how), strict=True)):
        before = tokenizer.decode(prompt)
        whole = before + answer.text
        places = [int(p) for p in starts(whole)[1]]  # control tokens are no text
        begun = [p for p in places if p >= len(before)]
        ends = [*begun[1:], len(whole)] if answer.finish_reason == "stop" else begun[1:]
        sentences = tuple(whole[a:b].strip() for a, b in zip(begun, ends, strict=False))
        found.append(Written(str(number), tuple(s for s in sentences if s)))
    return found


def kept(spec: Spec, written: Sequence[Written], role: Role) -> dict[str, Any]:
    """The rate of sentences that break no rule by the checkers of ``role``, with its interval; ``unknown`` ones could not be judged."""
    values: list[float] = []
    sources: list[str] = []
    unknown = 0
    for one in written:
        for number, sentence in enumerate(one.sentences):
            item = Item(f"{one.source}:{number}", (), guess(sentence, spec.languages, spec.source_language))
            statuses = {verdict.status for verdict in spec.verdicts(item, sentence, role)}
            if Status.VIOLATION in statuses or Status.COMPLIANT in statuses:
                values.append(float(Status.VIOLATION not in statuses))
                sources.append(one.source)
            else:
                unknown += bool(statuses)
    rate = clustered_rate(values, sources)
    return {**asdict(rate), "unknown": unknown}
