"""Translations and summaries: published scores of sacreBLEU, ROUGE on Chinese characters by hand, prompts as trained."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sacrebleu
import torch

from norma.base.errors import NormaError
from norma.lm import LanguageModel
from norma.nn import Transformer, preset
from norma.tasks.writing import Characters, prompt, rouge, sentence_scores, text_scores, write
from norma.text.tokenizer import Tokenizer

# The example of sacreBLEU's own README, one reference.
SAID = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
GIVEN = ["The dog bit the man.", "It was not unexpected.", "The man bit him first."]


def test_bleu_and_chrf_are_sacrebleus() -> None:
    found = text_scores(SAID, GIVEN, wanted=["bleu", "chrf"], chinese=False, seed=7)
    assert found["bleu"]["score"] == pytest.approx(sacrebleu.corpus_bleu(SAID, [GIVEN]).score)
    assert found["chrf"]["score"] == pytest.approx(sacrebleu.corpus_chrf(SAID, [GIVEN]).score)
    assert found["bleu"]["low"] < found["bleu"]["score"] and "tok:13a" in found["bleu"]["signature"]
    assert found == text_scores(SAID, GIVEN, wanted=["bleu", "chrf"], chinese=False, seed=7)
    lower = text_scores([s.lower() for s in SAID], GIVEN, wanted=["bleu"], chinese=False, seed=7)
    assert lower["bleu"]["score"] < lower["bleu_lower"]["score"] == pytest.approx(found["bleu_lower"]["score"])
    assert sentence_scores(SAID, GIVEN)[0] == pytest.approx(100.0) and min(sentence_scores(SAID, GIVEN)) < 60


def test_rouge_of_chinese_counts_characters() -> None:
    """said 今天天气好, given 今天天气很好: 1-grams 5 of 5 and 5 of 6: F1 10/11; 2-grams 3 of 4 and 3 of 5: 2/3; longest common 5: 10/11."""
    pytest.importorskip("rouge_score")
    found = rouge(["今天天气好"], ["今天天气很好"], chinese=True, seed=0)
    assert found["rouge1"]["score"] == pytest.approx(100 * 10 / 11) == found["rougeL"]["score"]
    assert found["rouge2"]["score"] == pytest.approx(100 * 2 / 3)
    assert Characters().tokenize("用GPT-2写 abc，好") == ["用", "gpt", "2", "写", "abc", "好"]


def test_rouge_of_english_is_the_packages() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=True)
    found = rouge(SAID, GIVEN, chinese=False, seed=0)
    expected = [scorer.score(g, s)["rougeL"].fmeasure for g, s in zip(GIVEN, SAID, strict=True)]
    assert found["rougeL"]["score"] == pytest.approx(100 * sum(expected) / 3)


def test_what_models_read(tiny_tokenizer: Tokenizer, make_model: Callable[..., LanguageModel]) -> None:
    config = preset("transformer", vocab_size=len(tiny_tokenizer), width=24, layers=1, head_size=8, max_positions=64)
    two = LanguageModel(Transformer(config).initialise(torch.Generator().manual_seed(0)).eval(), tiny_tokenizer)
    assert prompt(two, "It writes.") == [*tiny_tokenizer.encode("It writes."), tiny_tokenizer.eos_id]
    asked = prompt(two, "It writes.", chat=True)
    assert tiny_tokenizer.decode(asked, skip_special=False) == "<|bos|><|user|>It writes.<|end|><|assistant|>"
    assert len(prompt(two, "It writes. " * 40, 60, chat=True)) <= 64, "what the decoder will write takes no room from the encoder"
    assert len(prompt(two, "It writes. " * 40, 60, chat=True)) > 60
    decoder = make_model()
    assert tiny_tokenizer.decode(prompt(decoder, "It writes."), skip_special=False) == "<|bos|><|user|>It writes.<|end|><|assistant|>"
    assert (
        len(write(two, ["It writes.", "math"], beams=2, max_new_tokens=4))
        == 2
        == len(write(decoder, ["a", "b"], beams=2, max_new_tokens=4))
    )
    encoder = preset("bert", vocab_size=len(tiny_tokenizer), width=24, layers=1, head_size=8, max_positions=64)
    with pytest.raises(NormaError, match="it writes no texts"):
        prompt(LanguageModel(Transformer(encoder), tiny_tokenizer), "a")
