"""The spec file as pydantic models: one class per mapping of the YAML, one line of help per key.

The same help texts reach the JSON Schema (editors), docs/spec-format.md and `norma spec schema`; ids are checked against each other
in `norma.spec.loader`, which alone knows places in the file.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from norma.spec.languages import canonical

Role = Literal["train", "report", "heldout", "gold"]
Split = Literal["train", "validation", "test", "attack"]
Attack = Literal["instruction_override", "role_play", "quoted_injection", "other_language", "long_context"]
Json = Any  # what JSON can hold; values of `facts` and `params`

LEVELS = ("root", "system", "developer", "user", "guideline")
_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
_HASH = re.compile(r"[0-9a-f]{8,64}")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(f"'{text}' is not a name (lower-case letters and digits, joined by '.', '_' or '-')")
    return text


def _format(version: int) -> int:
    if version != 1:
        raise ValueError(f"this Norma reads spec format 1, not {version}")
    return version


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("the text is empty")
    return text


def _unique(names: list[str]) -> list[str]:
    twice = next((n for i, n in enumerate(names) if n in names[:i]), None)
    if twice is not None:
        raise ValueError(f"'{twice}' stands twice")
    return names


def _one_text_a_language(value: Any) -> Any:
    """zh-hans and zh-Hans are one language: the second would silently take the place of the first."""
    tags: dict[str, str] = {}
    for tag in value if isinstance(value, dict) else ():
        first = tags.setdefault(canonical(str(tag)), str(tag))
        if first != tag:
            raise ValueError(f"'{first}' and '{tag}' are the same language")
    return value


def _hash(text: str) -> str:
    if not _HASH.fullmatch(text):
        raise ValueError(f"'{text}' is not a hash (8 to 64 hexadecimal digits, as `norma spec lint` and `norma spec diff` print them)")
    return text


Language = Annotated[str, AfterValidator(canonical)]
Name = Annotated[str, AfterValidator(_name)]
Text = Annotated[str, AfterValidator(_text)]
Names = Annotated[list[Name], AfterValidator(_unique)]
Hash = Annotated[str, AfterValidator(_hash)]
Texts = Annotated[dict[Language, Text], BeforeValidator(_one_text_a_language)]  # language -> text


class Strict(BaseModel):
    """Unknown keys are errors; nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Header(Strict):
    """Who this spec is."""

    id: Name = Field(description="Name of the spec, for example courteous-docs.")
    version: Text = Field(description="Version of the text, kept as written (1.10 stays 1.10).")
    source_language: Language = Field(default="en", description="Language in which the rules are authored; its wording is the meaning.")
    languages: Annotated[list[Language], AfterValidator(_unique)] = Field(
        default_factory=lambda: ["en"], min_length=1, description="Languages (BCP-47) in which every rule must have a statement."
    )
    license: str = Field(default="", description="Licence of the text (SPDX name).")


class MessageEntry(Strict):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"] = Field(description="Who speaks.")
    content: str = Field(description="What is said.")


class CheckerEntry(Strict):
    """One way of deciding whether an answer keeps the rule."""

    id: Name = Field(description="Name of the checker within its rule.")
    kind: Name = Field(description="Kind of checker: program, classifier, reward, judge or human.")
    use: str = Field(default="", description="Which checker of that kind, for example words.")
    roles: Annotated[list[Role], AfterValidator(_unique)] = Field(
        default=["train", "report"],
        min_length=1,
        description="train: in the reward; report: in the tables; heldout: never seen by training; gold: people.",
    )
    params: dict[str, Json] = Field(default_factory=dict, description="Parameters of the checker, JSON values.")
    votes: int | None = Field(default=None, ge=1, description="Number of votes of a judge; the majority decides.")


class ExampleEntry(Strict):
    """Good and bad answers to one conversation; cross-checked against the checkers by lint."""

    lang: Language = Field(description="Language of the conversation (BCP-47).")
    messages: list[MessageEntry] = Field(min_length=1, description="The conversation, ending with the user's turn.")
    facts: dict[str, Json] = Field(default_factory=dict, description="Trusted facts about the input.")
    good: list[str] = Field(default_factory=list, description="Answers that keep the rule.")
    bad: list[str] = Field(default_factory=list, description="Answers that break the rule.")
    split: Split = Field(default="train", description="Where the example may be used: train, validation, test or attack.")


class ElicitEntry(Strict):
    """A prompt that puts the rule to the test."""

    id: Name = Field(description="Name of the prompt within its rule.")
    prompt: Texts = Field(min_length=1, description="What the user says, by language.")
    system: Texts = Field(default_factory=dict, description="What the system message says, by language.")
    facts: dict[str, Json] = Field(default_factory=dict, description="Trusted facts about the input.")
    benign_pair_of: Name | None = Field(default=None, description="Id of the prompt whose harmless look-alike this is (over-refusal).")
    split: Split | None = Field(default=None, description="Where the prompt may be used; default: its pair's split, else test.")
    attack: Attack | None = Field(default=None, description="What kind of attack it is: for prompts of split attack.")


class CorrectEntry(Strict):
    """How an answer that breaks the rule is corrected."""

    instruction: Texts = Field(default_factory=dict, description="What the corrector is told, by language.")
    max_edit_ratio: float = Field(default=0.5, gt=0, le=1, description="Largest share of the answer that a correction may change.")


class TranslationEntry(Strict):
    """Where a translation stands."""

    of: Hash = Field(description="Hash of the source wording that was translated; another wording makes the translation stale.")
    status: Literal["machine", "draft", "reviewed"] = Field(default="reviewed", description="Who has seen it: machine, draft, or reviewed.")
    by: str = Field(default="", description="Who translated or reviewed it.")


class EditorialEntry(Strict):
    """A signed statement that a wording was changed without its meaning: labels of the old wording stay good."""

    was: Hash = Field(description="Meaning hash before the change (`norma spec diff` prints it).")
    by: Text = Field(description="Who signs.")
    reason: Text = Field(description="What was changed and why the meaning is the same.")
    spot_check: int = Field(ge=1, description="How many old labels were looked at again under the new wording, all unchanged.")


class Mode(StrEnum):
    """What a rule is in R(x, y)."""

    WEIGHTED = "weighted"
    GATE = "gate"
    CONSTRAINT = "constraint"
    NONE = "none"


class RewardEntry(Strict):
    """The rule's part in the reward R(x, y)."""

    mode: Mode | None = Field(
        default=None, description="weighted, gate (must rules), constraint, or none; default: gate if must, else weighted."
    )
    weight: float = Field(default=1.0, ge=0, description="Weight in the mean over active rules.")


class TargetEntry(Strict):
    """What `norma check` demands."""

    min_rate: float = Field(ge=0, le=1, description="Lowest acceptable share of compliant answers among applicable ones.")


class RuleEntry(Strict):
    """One rule (规范)."""

    id: Name = Field(description="Name of the rule; dots group rules (style.polite).")
    aliases: Names = Field(default_factory=list, description="Former ids: labels and results under them belong to this rule.")
    title: Texts = Field(default_factory=dict, description="A short heading for readers, by language; never shown to a model.")
    level: str = Field(default="guideline", description="Authority, one of `levels`.")
    must: bool = Field(default=False, description="true: a requirement (gate); false: something to weigh.")
    statement: Texts = Field(min_length=1, description="The rule in words, by language.")
    translations: Annotated[dict[Language, TranslationEntry], BeforeValidator(_one_text_a_language)] = Field(
        default_factory=dict, description="Where each translation of the statement stands, by language."
    )
    editorial: list[EditorialEntry] = Field(default_factory=list, description="Signed changes of wording that left the meaning as it was.")
    applies: str = Field(default="true", description="When the rule applies: a CEL expression over the input only.")
    unless: Names = Field(default_factory=list, description="Rules before which this one yields whenever they are active.")
    overrides: Names = Field(default_factory=list, description="Rules of the same level that this one sets aside while it is active.")
    conflicts_with: Names = Field(default_factory=list, description="Rules that cannot be kept together with this one.")
    priority: int = Field(default=0, description="Decides between conflicting rules of one level; the higher stands.")
    checkers: list[CheckerEntry] = Field(default_factory=list, description="How answers are checked.")
    examples: list[ExampleEntry] = Field(default_factory=list, description="Good and bad answers.")
    elicit: list[ElicitEntry] = Field(default_factory=list, description="Prompts that put the rule to the test.")
    correct: CorrectEntry | None = Field(default=None, description="How broken answers are corrected.")
    reward: RewardEntry = Field(default_factory=RewardEntry, description="The rule's part in the reward.")
    target: TargetEntry | None = Field(default=None, description="The rate demanded by `norma check`.")


class ConstraintEntry(Strict):
    """A bound on how often a rule may be broken."""

    budget: float = Field(ge=0, lt=1, description="Largest mean cost (1 - score) over the items to which the rule applies.")


class Objective(StrEnum):
    """How the parts become one number."""

    WEIGHTED_MEAN = "weighted_mean"
    LEXICOGRAPHIC = "lexicographic"


class ComposeEntry(Strict):
    """How R(x, y) is composed from the rules' scores."""

    gates: Names | None = Field(default=None, description="The must rules, written out for the reader; lint compares.")
    constraints: dict[Name, ConstraintEntry] = Field(default_factory=dict, description="Rules held by a Lagrange multiplier, with budgets.")
    objective: Objective = Field(default=Objective.WEIGHTED_MEAN, description="weighted_mean, or lexicographic (ranks within a group).")
    kappa: float = Field(default=1.0, ge=0, description="A violated gate gives -1 - kappa x the worst violation.")
    grid: float = Field(default=0.05, gt=0, le=1, description="Step to which lexicographic tier scores are rounded.")


class SpecFile(Strict):
    """A spec: rules, their authority, how they are checked and what they are worth."""

    norma: Annotated[int, AfterValidator(_format)] = Field(description="Version of this file format: 1.")
    spec: Header = Field(description="Who this spec is.")
    levels: Annotated[list[Name], AfterValidator(_unique)] = Field(
        default_factory=lambda: list(LEVELS), min_length=1, description="Levels of authority, the highest first."
    )
    include: list[Text] = Field(
        default_factory=list, description="Further files of rules, relative to this one; theirs come first, in this order."
    )
    rules: list[RuleEntry] = Field(default_factory=list, description="The rules, in the order in which prompts show them.")
    compose: ComposeEntry = Field(default_factory=ComposeEntry, description="How R(x, y) is composed.")


class Fragment(Strict):
    """A file that a spec includes: rules, or further files of rules."""

    norma: Annotated[int, AfterValidator(_format)] = Field(default=1, description="Version of this file format: 1.")
    include: list[Text] = Field(default_factory=list, description="Further files of rules, relative to this one.")
    rules: list[RuleEntry] = Field(default_factory=list, description="The rules, in the order in which prompts show them.")


LATER = frozenset({"aliases", "title", "translations", "editorial", "include", "attack"})  # keys that came after the first spec files


def plain(entry: BaseModel) -> Any:
    """The entry as JSON values. A key that came later and says nothing is left out: it must not change the hash of older files."""

    def spoken(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: spoken(part) for key, part in value.items() if key not in LATER or part}
        return [spoken(part) for part in value] if isinstance(value, list) else value

    return spoken(entry.model_dump(mode="json"))


def json_schema(fragment: bool = False) -> dict[str, Any]:
    """The JSON Schema of a spec file (or of a file it includes), help texts included, for editors and `norma spec schema`."""
    model = Fragment if fragment else SpecFile
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
