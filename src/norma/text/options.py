"""What goes into a corpus: the ``corpus`` part of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class CorpusSource(BaseModel):
    """One source: exactly one of ``docstrings``, ``path``, ``hub``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    docstrings: Literal["installed"] | list[str] | None = Field(
        None, description="`installed` (all packages and the standard library) or a list such as [stdlib, torch, numpy]"
    )
    path: str | None = Field(None, description="A file or folder: .txt .md .json .jsonl .csv .tsv .parquet .py, each also .gz")
    hub: str | None = Field(None, description="A data set of a hub, NAME or NAME:SPLIT; needs pip install 'norma-lm[data]'")
    python: Literal["docstrings", "source"] = Field("docstrings", description="What is read from .py files below `path`")

    @field_validator("docstrings", mode="before")
    @classmethod
    def _one_name_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) and value != "installed" else value

    @model_validator(mode="after")
    def _one(self) -> CorpusSource:
        given = [name for name in ("docstrings", "path", "hub") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"a source is one of docstrings, path, hub; here {' and '.join(given) or 'none'} stands")
        return self

    @property
    def name(self) -> str:
        """What people call it."""
        return self.path or f"hub:{self.hub}"


class CorpusOptions(BaseModel):
    """How text becomes documents, questions and summaries."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: list[CorpusSource] = Field(
        default_factory=lambda: [CorpusSource.model_validate({"docstrings": "installed"})],
        min_length=1,
        description="Where text comes from",
    )
    validation_share: float = Field(0.05, gt=0, lt=1, description="Share of the documents held out; nothing of them is trained on")
    chinese_share: float = Field(0.3, ge=0, le=1, description="Share of the questions on English texts that are put in Chinese")
    mismatch_share: float = Field(0.1, ge=0, le=1, description="Share of the questions that ask for a name the entry is not about")
    min_characters: int = Field(60, ge=1, description="A shorter docstring is left out")
    max_characters: int = Field(4000, ge=200, description="A longer text is divided at paragraphs")
    min_novelty: float = Field(0.4, ge=0, le=1, description="Share of a docstring's four-word runs that must not have been seen before")
    min_body_characters: int = Field(60, ge=0, description="A question needs at least so much text besides the summary")
    body_characters: int = Field(400, ge=20, description="The most of the text that is shown with a question")
    signature_characters: int = Field(120, ge=20, description="A longer signature is cut after a parameter")
    max_name_characters: int = Field(60, ge=8, description="Entries with longer names are not asked about")
    max_entries: int | None = Field(None, ge=1, description="The most docstrings used (chosen by hash); null: all")
    seed: int | None = Field(None, description="Of the division and of every phrasing; null: the recipe's seed")
