"""``norma retrieve index|search|measure``: an index of the user's own documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def index(
    documents: Annotated[Path, typer.Argument(help="A file or folder of texts, or rows with a column 'text'.")],
    out: Annotated[Path, typer.Argument(help="The folder to write.")],
    model: Annotated[Path | None, typer.Option(help="A model folder whose vectors are searched too; an encoder does it best.")] = None,
    characters: Annotated[int, typer.Option(min=100, help="Longest passage.")] = 800,
    pooling: Annotated[Literal["mean", "first", "last"], typer.Option(help="How states become one vector.")] = "mean",
) -> None:
    """Divide documents into passages and index them: by words (BM25), and with --model by vectors."""
    from norma.generate.retrieval import build

    made = build(documents, out, model=model, characters=characters, pooling=pooling)
    print(f"{len(made.passages):,} passages{' with vectors' if made.has_vectors else ''} in {out}")


def search(
    folder: Annotated[Path, typer.Argument(metavar="INDEX", help="What norma retrieve index wrote.")],
    question: Annotated[str, typer.Argument(help="What is looked for.")],
    count: Annotated[int, typer.Option(min=1, help="How many passages.")] = 4,
    how: Annotated[Literal["bm25", "vectors", "both"] | None, typer.Option(help="[default: both where there are vectors]")] = None,
) -> None:
    """Show the passages that a question finds."""
    from norma.generate.retrieval import Index
    from norma.serve.talk import harmless

    for n, hit in enumerate(Index(folder).search(question, count, how), 1):
        head = f"[{n}] {hit.passage.file}:{hit.passage.line} {hit.passage.title} ({hit.score:.4g})"
        print(harmless(f"{head}\n{hit.passage.text}\n"))


def measure(
    folder: Annotated[Path, typer.Argument(metavar="INDEX", help="What norma retrieve index wrote.")],
    questions: Annotated[Path, typer.Argument(help="Questions with answers: SQuAD's JSON, or rows with question and answers.")],
    top: Annotated[str, typer.Option(help="In how many passages the answer is looked for.")] = "1,4,10",
    count: Annotated[int | None, typer.Option(min=1, help="So many questions, drawn by seed 0 [default: all].")] = None,
) -> None:
    """How often a right answer stands in the passages that are found, by each way, with intervals."""
    from norma.evaluate.retrieval import recall, recall_table
    from norma.generate.retrieval import Index

    depths = [int(part) for part in top.split(",")]
    from rich.console import Console

    Console().print(recall_table(recall(Index(folder), questions, depths, count)))
