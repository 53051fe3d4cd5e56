"""``norma serve``: an OpenAI-compatible server for one model, on this machine only."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer


def serve(
    model: Annotated[Path, typer.Argument(help="A model folder.")],
    spec: Annotated[
        Path | None, typer.Option(help="A spec file: its rules go into the prompt, and each answer carries a verdict per rule.")
    ] = None,
    port: Annotated[int, typer.Option(help="0 takes any free port.")] = 8000,
    name: Annotated[str | None, typer.Option(help="What clients call the model [default: the folder's name].")] = None,
    waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait before further ones are refused.")] = 64,
) -> None:
    """Serve a model at http://127.0.0.1:PORT/v1, for any OpenAI client on this machine."""
    import norma
    from norma.serve import ModelAuthor, run_server
    from norma.spec import Spec

    loaded = None if spec is None else Spec.load(spec)
    author = ModelAuthor(norma.load(model), name)

    def ready(url: str) -> None:
        print(f"Serving {author.name} at {url} (Ctrl-C stops)", flush=True)
        body = json.dumps({"model": author.name, "messages": [{"role": "user", "content": "Hello"}]}, ensure_ascii=False)
        print(f"Try: curl {url}/chat/completions -H 'content-type: application/json' -d {shlex.quote(body)}", flush=True)

    try:
        run_server(author, loaded, port=port, waiting=waiting, ready=ready)
    except KeyboardInterrupt:
        print("stopped")  # Ctrl-C is how a server ends: no error
