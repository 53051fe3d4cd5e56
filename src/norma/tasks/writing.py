"""Texts from texts: a model's translations and summaries by beam search, and how near they come to what people wrote.

source ─→ ids (+ end) of an encoder, a question of a chat of a decoder ─→ beam search ─→ hypothesis
hypotheses, references ─→ sacreBLEU, chrF (Post, 1804.08771; Popović 2015) and ROUGE (Lin 2004, by rouge-score), with intervals
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import environ
from typing import Any, Literal

import numpy as np
import torch

from norma.base.errors import NormaError
from norma.generate.beam import beam_search
from norma.lm import LanguageModel
from norma.text.chat import prompt_ids

Metric = Literal["bleu", "chrf", "rouge"]
Tokenize = Literal["13a", "zh", "char", "none"]


@torch.no_grad()
def write(
    model: LanguageModel,
    sources: Sequence[str],
    *,
    beams: int = 5,
    max_new_tokens: int = 128,
    length_penalty: float = 1.0,
    batch: int = 32,
    chat: bool = False,
) -> list[str]:
    """The best text that beam search finds for each source; ``chat`` as in :func:`prompt`."""
    prompts = [prompt(model, source, max_new_tokens, chat=chat) for source in sources]
    how: dict[str, Any] = {"beams": beams, "max_new_tokens": max_new_tokens, "length_penalty": length_penalty, "batch": batch}
    return [found[0].text.strip() for found in beam_search(model, prompts, **how)]


def prompt(model: LanguageModel, source: str, new: int = 1, *, chat: bool = False) -> list[int]:
    """What the model reads: the bare source and its end (two stacks, as ``given`` trains them), or the question of a chat (a decoder).

    A source that leaves no room for ``new`` tokens is cut at its end. Raises NormaError for an encoder.

    Args:
        chat: two stacks read the question of a chat as well, as an sft stage trains them.
    """
    tokenizer, most = model.tokenizer, model.config.max_positions
    two_stacks = model.config.kind == "encoder-decoder"
    if two_stacks and not chat:
        tail = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
        return tokenizer.encode(source)[: most - len(tail)] + tail
    if model.config.kind == "encoder":
        raise NormaError(f"{model.config.family} is an encoder: it writes no texts", mend="Choose a decoder or an encoder-decoder")
    made = prompt_ids(tokenizer, [{"role": "user", "content": source}])
    ids, room = tokenizer.encode(source), most if two_stacks else max(most // 2, most - new)
    while len(made) > room and ids:
        ids = ids[: -(len(made) - room)]
        made = prompt_ids(tokenizer, [{"role": "user", "content": tokenizer.decode(ids)}])
    return made


def text_scores(
    hypotheses: Sequence[str], references: Sequence[str], *, wanted: Sequence[Metric], chinese: bool, seed: int
) -> dict[str, Any]:
    """{name: {score, low, high}} in points of 100, with sacreBLEU's bootstrap intervals and signature.

    ``bleu`` is cased and detokenised; ``bleu_lower`` the same on lower case, as papers on Multi30k mostly report it.
    """
    out: dict[str, Any] = {}
    tokenize: Tokenize = "zh" if chinese else "13a"
    if "bleu" in wanted:
        out["bleu"] = _sacre("BLEU", hypotheses, references, seed, tokenize=tokenize)
        out["bleu_lower"] = _sacre("BLEU", hypotheses, references, seed, tokenize=tokenize, lowercase=True)
    if "chrf" in wanted:
        out["chrf"] = _sacre("CHRF", hypotheses, references, seed)
    if "rouge" in wanted:
        out |= rouge(hypotheses, references, chinese=chinese, seed=seed)
    return out


def sentence_scores(hypotheses: Sequence[str], references: Sequence[str]) -> list[float]:
    """chrF of each text, 0 to 100: what puts the worst first."""
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF()
    return [float(metric.sentence_score(h, [r]).score) for h, r in zip(hypotheses, references, strict=True)]


def _sacre(name: str, hypotheses: Sequence[str], references: Sequence[str], seed: int, **options: Any) -> dict[str, Any]:
    from sacrebleu import metrics

    metric = getattr(metrics, name)(**options)
    many = len(hypotheses) > 1
    with _seeded(seed):
        found = metric.corpus_score(list(hypotheses), [list(references)], n_bootstrap=1000 if many else 1)
    made = {"score": float(found.score), "signature": str(metric.get_signature())}
    if many:
        made |= {"low": float(found._mean - found._ci), "high": float(found._mean + found._ci)}
    return made


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """sacreBLEU takes the seed of its bootstrap from the environment."""
    before = environ.get("SACREBLEU_SEED")
    environ["SACREBLEU_SEED"] = str(seed)
    try:
        yield
    finally:
        if before is None:
            del environ["SACREBLEU_SEED"]
        else:
            environ["SACREBLEU_SEED"] = before


class Characters:
    """For rouge-score, whose own tokenizer throws Chinese away: a token for each Chinese character, words of other scripts."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"[\u2e80-\u9fff\uf900-\ufaff]|[^\W\u2e80-\u9fff\uf900-\ufaff]+", text.lower())


def rouge(hypotheses: Sequence[str], references: Sequence[str], *, chinese: bool, seed: int) -> dict[str, Any]:
    """ROUGE-1, ROUGE-2 and ROUGE-L as F1, the mean over texts in points of 100, with a bootstrap interval (95%)."""
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise NormaError("ROUGE needs rouge-score", mend="pip install 'norma-lm[tasks]'") from None
    names = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(list(names), use_stemmer=not chinese, tokenizer=Characters() if chinese else None)
    each = [scorer.score(r, h) for h, r in zip(hypotheses, references, strict=True)]
    drawn = np.random.default_rng(seed).integers(0, len(each), (1000, len(each)))
    out = {}
    for name in names:
        values = np.array([100 * found[name].fmeasure for found in each])
        low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
        out[name] = {"score": float(values.mean()), "low": float(low), "high": float(high)}
    return out
