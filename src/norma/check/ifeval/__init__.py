"""The 25 instruction types of IFEval (Zhou et al. 2023, arXiv 2311.07911) as program checkers, named as in its data.

    row of the data ─data─→ prompt + [(instruction id, kwargs)] ─→ one program per instruction ─→ strict
                                                                  └─ loose: any of eight trimmed forms may pass

counting.py   keywords, letters, words, sentences, capital words
layout.py     paragraphs, sections, bullets, highlights, titles, placeholders, JSON
wording.py    language and case, commas, quotation marks, first and last words, two answers, the request repeated
data.py       the reader of the published prompts and the loose forms

On English text a verdict is the reference's; for Chinese, where the reference counts 请回答问题时保持礼貌，谢谢你 as two words,
each program says what it counts. Two deviations everywhere: an answer without a letter or digit, and one that only echoes the
question, follow nothing.
"""

from __future__ import annotations

from norma.check.ifeval import counting, layout, wording
from norma.check.ifeval.data import Prompt, follows, loose_forms, read_prompts

FILES = (counting, layout, wording)

__all__ = ["FILES", "Prompt", "follows", "loose_forms", "read_prompts"]
