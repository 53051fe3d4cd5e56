"""Floor 2: LanguageModel, a tokenizer and a Transformer as one thing, in and out of Hugging Face folders."""

from norma.lm.model import LanguageModel

__all__ = ["LanguageModel"]
