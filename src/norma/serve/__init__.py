"""Floor 7: an OpenAI-compatible server for one model, on this machine only, with verdicts where there is a spec.

HTTP ─→ guard (this machine, JSON, size) ─→ app (routes) ─→ protocol (request checked) ─→ answering (rules, text, verdicts)
                                                                                            └─→ worker (one thread, cancellable) ─→ author
"""

from __future__ import annotations

from norma.serve.app import build_app
from norma.serve.author import Author, ModelAuthor
from norma.serve.run import run_server

__all__ = ["Author", "ModelAuthor", "build_app", "run_server"]
