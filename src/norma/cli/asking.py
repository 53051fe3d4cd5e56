"""What `norma check` and `norma gate` share: who is asked, and a bar that shows how far it has come."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from norma.base.errors import NormaError

if TYPE_CHECKING:
    from norma.evaluate.sampling import Answerer, Options


def answerer_for(model: Path | None, endpoint: str | None, name: str, options: Options, key_env: str | None, concurrency: int) -> Answerer:
    """A model folder on this machine, or a model behind an endpoint."""
    if endpoint is not None:
        from norma.evaluate.endpoint import EndpointAnswerer

        return EndpointAnswerer(endpoint, name, options, key_env=key_env, concurrency=concurrency)
    import norma
    from norma.base.hashing import folder_digest
    from norma.evaluate.sampling import LocalAnswerer

    assert model is not None
    return LocalAnswerer(norma.load(model), options, folder_digest(model))


def parse_price(text: str | None) -> tuple[float, float] | None:
    """``"0.5,1.5"``: money per million tokens read and written."""
    if text is None:
        return None
    try:
        read, written = (float(part) for part in text.split(","))
    except ValueError:
        raise NormaError(f"--price '{text}' is not two numbers", mend="Give IN,OUT per million tokens, for example 0.5,1.5") from None
    if not (0 <= read < 1e9 and 0 <= written < 1e9):
        raise NormaError("a price is a number from 0 up")
    return read, written


class Bar:
    """A progress bar on stderr where a person looks at it."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.markup import escape
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task(f"asking {escape(name)}", total=None)

    def update(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
