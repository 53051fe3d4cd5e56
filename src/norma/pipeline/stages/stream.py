"""Stream stage: one long text, unchanged to the character, its end held out: what data sets of characters are made of.

text.txt[.gz] ─→ characters 0 ... n - 1 │ n ... ─→ text.train.jsonl, text.validation.jsonl, one row each
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from norma.base.errors import NormaError
from norma.base.hashing import file_digest
from norma.pipeline.stage import Context, Stage, StageOptions


class StreamOptions(StageOptions):
    """Options of a ``stream`` stage."""

    path: str = Field(description="A text file in UTF-8, also .gz; a relative path starts from the recipe's folder.")
    validation_share: float = Field(0.1, gt=0, lt=1, description="Share of the characters that is held out, at the end.")
    max_characters: int | None = Field(None, ge=2, description="Read no more than so many characters; null: all.")


class Stream(Stage[StreamOptions]):
    """Where ``clean`` takes documents, or a text's paragraphs, by chance, this divides one text by position."""

    kind, version, Options = "stream", 1, StreamOptions

    def fingerprint(self, options: StreamOptions, base: Path) -> Any:
        path = (base / Path(options.path).expanduser()).resolve()
        return {options.path: file_digest(path)} if path.is_file() else {}

    def run(self, ctx: Context[StreamOptions]) -> dict[str, Any]:
        from norma.base.files import write_jsonl

        options, path = ctx.options, ctx.outside(ctx.options.path)
        text = read_whole(path)[: options.max_characters]
        train, held = divide(text, options.validation_share)
        if not train or not held:
            raise NormaError(f"a text of {len(text)} characters is too short to be divided", where=path, mend="Take a longer one")
        for side, part in (("train", train), ("validation", held)):
            write_jsonl(ctx.folder / f"text.{side}.jsonl", [{"id": f"{path.name}:{side}", "text": part}])
        ctx.progress.say(f"{len(train):,} characters, {len(held):,} held out at the end")
        return {"characters": {"train": len(train), "validation": len(held)}}


def divide(text: str, share: float) -> tuple[str, str]:
    """The first part, of int((1 - share) times its length) characters, and the rest. Pure."""
    at = int(len(text) * (1 - share))
    return text[:at], text[at:]


def read_whole(path: Path) -> str:
    """All of a file, line ends as they are. Raises NormaError when it is missing, broken or not UTF-8."""
    import gzip
    import zlib

    from norma.text.formats import open_bytes

    try:
        with open_bytes(path) as raw:
            return raw.read().decode("utf-8")
    except FileNotFoundError:
        raise NormaError("file not found", where=path, mend="Check 'path:' of the stream stage") from None
    except UnicodeDecodeError as error:
        raise NormaError(f"not UTF-8 text (at byte {error.start:,})", where=path, mend="Save it as UTF-8") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise NormaError(f"the .gz file is broken ({error})", where=path, mend="Fetch the file again") from None
    except OSError as error:
        raise NormaError(f"not readable ({error.strerror or error})", where=path, mend="Check 'path:' of the stream stage") from None
