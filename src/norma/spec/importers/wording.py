"""What an instruction that a program verifies says in words, for prompts and people. Own wording; ids as in IFEval (Zhou et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Any

WORDS = {
    "change_case:capital_word_frequency": "Use words in all capitals {capital_relation} {capital_frequency} times.",
    "change_case:english_capital": "Answer in English, in capital letters only.",
    "change_case:english_lowercase": "Answer in English, in lower-case letters only.",
    "combination:repeat_prompt": "First repeat this request word for word, then answer it: {prompt_to_repeat}",
    "combination:two_responses": "Give two different answers, with a line of six asterisks (******) between them.",
    "detectable_content:number_placeholders": "Leave at least {num_placeholders} placeholders in square brackets, such as [name].",
    "detectable_content:postscript": "End with a postscript that starts with {postscript_marker}.",
    "detectable_format:constrained_response": "Answer with one of the permitted sentences and nothing else.",
    "detectable_format:json_format": "Give the whole answer as JSON.",
    "detectable_format:multiple_sections": "Divide the answer into {num_sections} sections, each headed {section_spliter} and its number.",
    "detectable_format:number_bullet_lists": "Use exactly {num_bullets} bullet points in Markdown.",
    "detectable_format:number_highlighted_sections": "Highlight at least {num_highlights} passages with *asterisks*.",
    "detectable_format:title": "Give the answer a title in double angle brackets, such as <<title>>.",
    "keywords:existence": "Use these words: {keywords}.",
    "keywords:forbidden_words": "Do not use these words: {forbidden_words}.",
    "keywords:frequency": "Use the word {keyword} {relation} {frequency} times.",
    "keywords:letter_frequency": "Use the letter {letter} {let_relation} {let_frequency} times.",
    "language:response_language": "Answer in the language {language} only.",
    "length_constraints:nth_paragraph_first_word": "Write {num_paragraphs} paragraphs; number {nth_paragraph} begins with {first_word}.",
    "length_constraints:number_paragraphs": "Write {num_paragraphs} paragraphs, divided by ***.",
    "length_constraints:number_sentences": "Write {relation} {num_sentences} sentences.",
    "length_constraints:number_words": "Write {relation} {num_words} words.",
    "punctuation:no_comma": "Do not use any comma.",
    "startend:end_checker": "End with exactly these words: {end_phrase}",
    "startend:quotation": "Put the whole answer into double quotation marks.",
}


def statement(instruction: str, params: Mapping[str, Any]) -> str:
    """The instruction in words; for an id that is not known, or lacks a parameter, its id and parameters."""
    words = WORDS.get(instruction)
    needed = {field for _, field, _, _ in Formatter().parse(words) if field} if words else set()
    if words is None or not needed <= params.keys():
        listed = ", ".join(f"{key}: {_shown(value)}" for key, value in params.items())
        return f"Keep the instruction {instruction}" + (f" ({listed})." if listed else ".")
    return words.format(**{key: _shown(value) for key, value in params.items()})


def _shown(value: Any) -> str:
    return ", ".join(map(_shown, value)) if isinstance(value, list) else str(value)
