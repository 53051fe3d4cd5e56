"""``norma generate``: one answer, or a file of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from norma.base.errors import NormaError

if TYPE_CHECKING:
    from norma.evaluate.sampling import Options
    from norma.lm import LanguageModel
    from norma.spec import Item


def generate(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    prompt: Annotated[str | None, typer.Option(help="What to answer or continue.")] = None,
    input_: Annotated[
        Path | None, typer.Option("--input", metavar="FILE", help="Many: .jsonl rows with 'prompt' or 'messages', or a line each.")
    ] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Where the .jsonl rows go [default: the screen].")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the text itself; without it the text is a question in a chat.")] = False,
    documents: Annotated[
        Path | None, typer.Option(metavar="INDEX", help="Answer from these documents (norma retrieve index): passages before the question.")
    ] = None,
    passages: Annotated[int, typer.Option(min=1, help="Most passages before a question.")] = 4,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 128,
    temperature: Annotated[float, typer.Option(min=0, help="0 always takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample among the likeliest tokens that hold this share of probability.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Sample among so many of the likeliest tokens; 0 for all.")] = 0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
) -> None:
    """Answer one prompt (--prompt) or a file of prompts (--input)."""
    if (prompt is None) == (input_ is None):
        raise NormaError("say what to answer", mend="Give either --prompt TEXT or --input FILE")
    if prompt is not None and output is not None:
        raise NormaError("--output goes with --input", mend="Redirect the one answer with '>'")
    import norma
    from norma.base.files import to_json, write_jsonl
    from norma.evaluate.prompts import language_of, read_prompts
    from norma.evaluate.sampling import Options
    from norma.spec import Item

    if documents is not None and raw:
        raise NormaError("--documents is for questions", mend="Leave --raw out")
    options = Options(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed)
    if input_ is None:
        one = norma.load(model)
        asked = Item("prompt", ({"role": "user", "content": prompt or ""},), language=language_of(prompt or ""))
        asked = _grounded(one, [asked], documents, passages, max_new_tokens)[0]
        print((one.generate([prompt or ""], **asdict(options)) if raw else one.chat([asked.messages], **asdict(options)))[0])
        return
    opened = norma.load(model)
    items = _grounded(opened, read_prompts(input_), documents, passages, max_new_tokens)
    rows = answer_rows(opened, items, options, raw=raw)
    failed = [row for row in rows if "error" in row]
    if output:
        write_jsonl(output, rows)
        print(f"{len(rows) - len(failed)} answers in {output}" + (f", {len(failed)} prompts without an answer" if failed else ""))
    else:
        for row in rows:
            print(to_json(row))
    if failed:
        raise typer.Exit(1)


def _grounded(model: LanguageModel, items: Sequence[Item], documents: Path | None, passages: int, room: int) -> list[Item]:
    """The items with passages before their questions, where an index is given."""
    if documents is None:
        return list(items)
    from dataclasses import replace

    from norma.generate.retrieval import Documents, Index

    found = Documents(Index(documents), model, count=passages, room=room)
    return [replace(item, messages=tuple(found.before(item.messages, item.language))) for item in items]


def answer_rows(model: LanguageModel, items: Sequence[Item], options: Options, *, raw: bool) -> list[dict[str, Any]]:
    """One row a prompt: id, messages (or prompt), and response or error."""
    from norma.evaluate.sampling import LocalAnswerer

    answerer = LocalAnswerer(model, options, raw=raw)
    rows: list[dict[str, Any]] = []
    for start in range(0, len(items), answerer.batch):
        batch = items[start : start + answerer.batch]
        for item, answer in zip(batch, answerer.answer(batch), strict=True):
            asked: dict[str, Any] = {"prompt": item.user} if raw else {"messages": list(item.messages)}
            rows.append({"id": item.id, **asked, **({"response": answer.text} if answer.error is None else {"error": answer.error})})
    return rows
